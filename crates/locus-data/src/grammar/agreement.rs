//! Determiner-noun agreement: eight task sets like those of BLiMP (Warstadt et al. 2020), and agreement sentences for
//! the documents.
//!
//! Verbs are past or modal forms, which do not depend on the number of the subject, so the only agreement in a sentence
//! is between its demonstrative and the noun after it.

use std::collections::BTreeSet;

use rand_chacha::ChaCha8Rng;

use super::draws::{Deck, below, coin, pick};
use super::mix::IRREGULAR_NOUNS;
use super::words::{Noun, nouns, slot};
use crate::{Labelled, Task};

/// Number of nouns drawn for a set. Each gives a singular and a plural pair of rows, four rows in all.
const NOUN_DRAWS: usize = 500;

const CLAUSES: &str = include_str!("clauses.tsv");

/// Name of each set, whether its nouns are irregular, whether there is an adjective before them, and whether the two
/// rows of a pair differ in the determiner (else in the noun).
const SETS: [(&str, bool, bool, bool); 8] = [
    ("blimp_dna1", false, false, false),
    ("blimp_dna2", false, false, true),
    ("blimp_dnai1", true, false, false),
    ("blimp_dnai2", true, false, true),
    ("blimp_dnawa1", false, true, false),
    ("blimp_dnawa2", false, true, true),
    ("blimp_dnawai1", true, true, false),
    ("blimp_dnawai2", true, true, true),
];

/// Parts of a sentence before the numbers of determiner and noun are chosen.
#[derive(Clone, Copy, Debug)]
struct Clause {
    subject: &'static str,
    verb: &'static str,
    /// Whether the determiner is that/those instead of this/these.
    distal: bool,
    adjective: Option<&'static str>,
    noun: Noun,
}

impl Clause {
    /// Sentence with these numbers, acceptable when they agree.
    fn text(self, determiner_plural: bool, noun_plural: bool) -> String {
        let determiner = match (self.distal, determiner_plural) {
            (false, false) => "this",
            (false, true) => "these",
            (true, false) => "that",
            (true, true) => "those",
        };
        let Self { subject, verb, adjective, noun, .. } = self;
        let adjective = adjective.map_or_else(String::new, |adjective| format!("{adjective} "));
        format!("{subject} {verb} {determiner} {adjective}{}.", noun.form(noun_plural))
    }
}

/// Word lists of the clauses.
#[derive(Clone, Debug)]
struct ClauseWords {
    subjects: Vec<&'static str>,
    verbs: Vec<&'static str>,
    adjectives: Vec<&'static str>,
}

impl ClauseWords {
    fn load() -> Self {
        Self {
            subjects: slot(CLAUSES, "subject"),
            verbs: slot(CLAUSES, "verb"),
            adjectives: slot(CLAUSES, "adjective"),
        }
    }

    fn clause(&self, noun: Noun, distal: bool, adjective: bool, rng: &mut ChaCha8Rng) -> Clause {
        let subject = *pick(&self.subjects, rng);
        let verb = *pick(&self.verbs, rng);
        let adjective = adjective.then(|| *pick(&self.adjectives, rng));
        Clause { subject, verb, distal, adjective, noun }
    }
}

/// The eight task sets, each acceptable row followed by the unacceptable one of its pair.
pub(super) fn task_sets(rng: &mut ChaCha8Rng) -> Vec<Task> {
    let words = ClauseWords::load();
    SETS.iter().map(|&set| Task { name: set.0.to_owned(), rows: rows(&words, set, rng) }).collect()
}

fn rows(words: &ClauseWords, set: (&str, bool, bool, bool), rng: &mut ChaCha8Rng) -> Vec<Labelled> {
    let (_, irregular, adjective, determiner_differs) = set;
    let mut deck = Deck::new(nouns(irregular));
    let mut seen = BTreeSet::new();
    let mut rows = Vec::with_capacity(4 * NOUN_DRAWS);
    for _ in 0..NOUN_DRAWS {
        // Both numbers of one noun with one family of demonstratives: each word form is then exactly balanced.
        let (noun, distal) = (deck.draw(rng), coin(rng));
        for plural in [false, true] {
            let (acceptable, unacceptable) = loop {
                let clause = words.clause(noun, distal, adjective, rng);
                let acceptable = clause.text(plural, plural);
                let unacceptable = if determiner_differs {
                    clause.text(!plural, plural)
                } else {
                    clause.text(plural, !plural)
                };
                // The unacceptable sentences of the two numbers can coincide, so both texts must be new.
                if !seen.contains(&acceptable) && !seen.contains(&unacceptable) {
                    break (acceptable, unacceptable);
                }
            };
            for (text, label) in [(acceptable, 1), (unacceptable, 0)] {
                seen.insert(text.clone());
                rows.push(Labelled { text, label });
            }
        }
    }
    rows
}

/// Writer of agreement sentences that are in no task set.
#[derive(Debug)]
pub(super) struct AgreementWriter {
    words: ClauseWords,
    regular: Deck<Noun>,
    irregular: Deck<Noun>,
    held_out: BTreeSet<String>,
}

impl AgreementWriter {
    /// Writer that avoids every text of `held_out`.
    pub(super) fn new(held_out: BTreeSet<String>) -> Self {
        let (regular, irregular) = (Deck::new(nouns(false)), Deck::new(nouns(true)));
        Self { words: ClauseWords::load(), regular, irregular, held_out }
    }

    /// Acceptable sentence.
    pub(super) fn plain(&mut self, rng: &mut ChaCha8Rng) -> String {
        self.sentence(true, rng)
    }

    /// Sentence with its verdict; the two verdicts are equally likely.
    pub(super) fn judged(&mut self, rng: &mut ChaCha8Rng) -> String {
        let acceptable = coin(rng);
        let verdict = if acceptable { "Right" } else { "Wrong" };
        format!("{} {verdict}.", self.sentence(acceptable, rng))
    }

    /// Sentence that is acceptable or not. The numbers of determiner and noun are uniform in both cases, so neither
    /// alone gives the verdict away.
    fn sentence(&mut self, acceptable: bool, rng: &mut ChaCha8Rng) -> String {
        loop {
            let irregular = below(100, rng) < IRREGULAR_NOUNS as usize;
            let noun = if irregular { self.irregular.draw(rng) } else { self.regular.draw(rng) };
            let (distal, adjective, plural) = (coin(rng), coin(rng), coin(rng));
            let text = self.words.clause(noun, distal, adjective, rng).text(plural, plural == acceptable);
            if !self.held_out.contains(&text) {
                return text;
            }
        }
    }
}
