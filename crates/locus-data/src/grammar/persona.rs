//! First-person attitude statements: the five persona sets and the statements of the documents.
//!
//! The label is the polarity of the attitude times the side of its object (liking loud parties and avoiding quiet evenings
//! are both extraverted), so no single word decides it.

use std::collections::BTreeSet;

use rand_chacha::ChaCha8Rng;

use super::TaskSet;
use super::mix::{self, COMPARISONS};
use super::stream::{below, coin, pick};
use super::table::{lines, list};
use crate::Labelled;

/// Rows per set, half of each label.
const ROWS: usize = 1000;

/// The kinds, in the order of the study, as the word list names them.
const KINDS: [(&str, &str); 5] = [
    ("persona_e", "e"),
    ("persona_ra", "ra"),
    ("persona_hhh", "hhh"),
    ("persona_tech", "tech"),
    ("persona_umr", "umr"),
];

const LIKING: [&str; 14] = [
    "love",
    "enjoy",
    "like",
    "prefer",
    "value",
    "welcome",
    "support",
    "favor",
    "look forward to",
    "am fond of",
    "am in favor of",
    "believe in",
    "care about",
    "am happy about",
];

const DISLIKING: [&str; 14] = [
    "hate",
    "avoid",
    "dislike",
    "fear",
    "reject",
    "oppose",
    "resist",
    "do not like",
    "do not enjoy",
    "do not value",
    "am against",
    "am tired of",
    "stay away from",
    "see no point in",
];

/// Verb and connective of a comparison, and whether the first object is the preferred one.
const COMPARING: [(&str, &str, bool); 6] = [
    ("like", "more than", true),
    ("like", "less than", false),
    ("value", "more than", true),
    ("value", "less than", false),
    ("would pick", "over", true),
    ("would give up", "for", false),
];

/// Empty half of the time, like [`TAILS`].
const OPENERS: [&str; 5] = ["As a rule ", "Most days ", "At heart ", "In private ", "Deep down "];

const TAILS: [&str; 5] = [" in general", " at all times", " every day", " without doubt", " more and more"];

/// Objects of one kind: side 0 denies the trait, side 1 shows it.
type Sides = [Vec<&'static str>; 2];

fn sides(kind: &str) -> Sides {
    let side = |digit: &str| {
        let mut matching =
            lines(include_str!("persona.tsv")).filter(|line| line[0] == kind && line[1] == digit);
        list(matching.next().expect("every kind has two sides")[2])
    };
    [side("0"), side("1")]
}

/// A statement, without final period, that shows the trait or denies it.
fn statement(rng: &mut ChaCha8Rng, objects: &Sides, shows: bool) -> String {
    let opener = if coin(rng) { pick(rng, &OPENERS) } else { "" };
    if below(rng, 100) < COMPARISONS as usize {
        let &(verb, connective, first_preferred) = pick(rng, &COMPARING);
        let first_side = usize::from(shows == first_preferred);
        let first = pick(rng, &objects[first_side]);
        let second = pick(rng, &objects[1 - first_side]);
        return format!("{opener}I {verb} {first} {connective} {second}");
    }
    let liking = below(rng, 100) < mix::LIKING as usize;
    let attitude = pick(rng, if liking { &LIKING } else { &DISLIKING });
    let object = pick(rng, &objects[usize::from(liking == shows)]);
    let tail = if coin(rng) { pick(rng, &TAILS) } else { "" };
    format!("{opener}I {attitude} {object}{tail}")
}

/// The five task sets, labels alternating.
pub(super) fn task_sets(rng: &mut ChaCha8Rng) -> Vec<TaskSet> {
    KINDS.iter().map(|&(name, kind)| TaskSet { name, rows: rows(rng, &sides(kind)) }).collect()
}

fn rows(rng: &mut ChaCha8Rng, objects: &Sides) -> Vec<Labelled> {
    let mut seen = BTreeSet::new();
    let mut rows = Vec::with_capacity(ROWS);
    while rows.len() < ROWS {
        let shows = rows.len() % 2 == 0;
        let text = statement(rng, objects, shows);
        if seen.insert(text.clone()) {
            rows.push(Labelled { text, label: u8::from(shows) });
        }
    }
    rows
}

/// Writes attitude statements that are in no task set.
#[derive(Debug)]
pub(super) struct PersonaWriter {
    kinds: Vec<Sides>,
    held_out: BTreeSet<String>,
}

impl PersonaWriter {
    /// A writer that avoids every text of `held_out`.
    pub(super) fn new(held_out: BTreeSet<String>) -> Self {
        Self { kinds: KINDS.iter().map(|&(_, kind)| sides(kind)).collect(), held_out }
    }

    /// A statement of either label.
    pub(super) fn plain(&mut self, rng: &mut ChaCha8Rng) -> String {
        let shows = coin(rng);
        format!("{}.", self.statement(rng, shows))
    }

    /// A statement with its verdict; the two verdicts are equally likely.
    pub(super) fn judged(&mut self, rng: &mut ChaCha8Rng) -> String {
        let shows = coin(rng);
        format!("{} {}.", self.statement(rng, shows), if shows { "yes" } else { "no" })
    }

    fn statement(&mut self, rng: &mut ChaCha8Rng, shows: bool) -> String {
        loop {
            let objects = pick(rng, &self.kinds);
            let text = statement(rng, objects, shows);
            if !self.repeats_row(&text) {
                return text;
            }
        }
    }

    /// Whether a held-out row stands anywhere in `text`.
    ///
    /// Rows begin with an opener or with the `I` after it, and end at any word: a row can be the beginning of a
    /// statement with a tail or of a comparison.
    fn repeats_row(&self, text: &str) -> bool {
        let pronoun = if text.starts_with("I ") { 0 } else { text.find(" I ").map_or(0, |at| at + 1) };
        let ends = || text.match_indices(' ').map(|(at, _)| at).chain([text.len()]);
        let row = |start| ends().any(|end| end > start && self.held_out.contains(&text[start..end]));
        row(0) || row(pronoun)
    }
}
