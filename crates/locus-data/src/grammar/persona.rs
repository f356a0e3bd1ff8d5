//! First-person attitude statements: five persona sets in the manner of Perez et al. 2022 (arXiv 2212.09251), and
//! statements for the documents.
//!
//! The label is the polarity of the attitude times the side of the object (liking loud parties and avoiding quiet
//! evenings are both extraverted), so no single word decides the label.

use std::collections::BTreeSet;

use rand_chacha::ChaCha8Rng;

use super::draws::{below, coin, pick};
use super::mix::{self, COMPARISONS};
use super::words::{lines, list};
use crate::{Labelled, Task};

/// Number of rows of a set, half of them with each label.
const ROWS: usize = 1000;

/// Name of each set, in the order of the study, and its name in the word list.
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

/// Beginnings of a statement, one of which half of the statements have. [`TAILS`] likewise end statements.
const OPENERS: [&str; 5] = ["As a rule ", "Most days ", "At heart ", "In private ", "Deep down "];

const TAILS: [&str; 5] = [" in general", " at all times", " every day", " without doubt", " more and more"];

/// Objects of attitudes: liking one of side 0 denies the trait, liking one of side 1 shows it.
type Sides = [Vec<&'static str>; 2];

fn sides(kind: &str) -> Sides {
    let side = |digit: &str| {
        let mut matching =
            lines(include_str!("persona.tsv")).filter(|line| line[0] == kind && line[1] == digit);
        list(matching.next().expect("every kind has two sides")[2])
    };
    [side("0"), side("1")]
}

/// Statement without final period that shows the trait or denies it.
fn statement(objects: &Sides, shows: bool, rng: &mut ChaCha8Rng) -> String {
    let opener = if coin(rng) { pick(&OPENERS, rng) } else { "" };
    if below(100, rng) < COMPARISONS as usize {
        let &(verb, connective, first_preferred) = pick(&COMPARING, rng);
        let first_side = usize::from(shows == first_preferred);
        let first = pick(&objects[first_side], rng);
        let second = pick(&objects[1 - first_side], rng);
        return format!("{opener}I {verb} {first} {connective} {second}");
    }
    let liking = below(100, rng) < mix::LIKING as usize;
    let attitude = pick(if liking { &LIKING } else { &DISLIKING }, rng);
    let object = pick(&objects[usize::from(liking == shows)], rng);
    let tail = if coin(rng) { pick(&TAILS, rng) } else { "" };
    format!("{opener}I {attitude} {object}{tail}")
}

/// The five task sets, labels alternating.
pub(super) fn task_sets(rng: &mut ChaCha8Rng) -> Vec<Task> {
    KINDS.iter().map(|&(name, kind)| Task { name: name.to_owned(), rows: rows(&sides(kind), rng) }).collect()
}

fn rows(objects: &Sides, rng: &mut ChaCha8Rng) -> Vec<Labelled> {
    let mut seen = BTreeSet::new();
    let mut rows = Vec::with_capacity(ROWS);
    while rows.len() < ROWS {
        let shows = rows.len() % 2 == 0;
        let text = statement(objects, shows, rng);
        if seen.insert(text.clone()) {
            rows.push(Labelled { text, label: u8::from(shows) });
        }
    }
    rows
}

/// Writer of attitude statements that are in no task set.
#[derive(Debug)]
pub(super) struct PersonaWriter {
    kinds: Vec<Sides>,
    held_out: BTreeSet<String>,
}

impl PersonaWriter {
    /// Writer that avoids every text of `held_out`.
    pub(super) fn new(held_out: BTreeSet<String>) -> Self {
        Self { kinds: KINDS.iter().map(|&(_, kind)| sides(kind)).collect(), held_out }
    }

    /// Statement of either label.
    pub(super) fn plain(&mut self, rng: &mut ChaCha8Rng) -> String {
        let shows = coin(rng);
        format!("{}.", self.statement(shows, rng))
    }

    /// Statement with its verdict; the two verdicts are equally likely.
    pub(super) fn judged(&mut self, rng: &mut ChaCha8Rng) -> String {
        let shows = coin(rng);
        format!("{} {}.", self.statement(shows, rng), if shows { "yes" } else { "no" })
    }

    fn statement(&mut self, shows: bool, rng: &mut ChaCha8Rng) -> String {
        loop {
            let objects = pick(&self.kinds, rng);
            let text = statement(objects, shows, rng);
            if !self.repeats_row(&text) {
                return text;
            }
        }
    }

    /// Whether a held-out row occurs anywhere in `text`.
    ///
    /// A row begins with an opener or with the `I` after one and may end at any word, since it can be the beginning of
    /// a statement with a tail or of a comparison.
    fn repeats_row(&self, text: &str) -> bool {
        let pronoun = if text.starts_with("I ") { 0 } else { text.find(" I ").map_or(0, |at| at + 1) };
        let ends = || text.match_indices(' ').map(|(at, _)| at).chain([text.len()]);
        let row = |start| ends().any(|end| end > start && self.held_out.contains(&text[start..end]));
        row(0) || row(pronoun)
    }
}
