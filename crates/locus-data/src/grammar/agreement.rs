//! Determiner-noun agreement: the eight BLiMP-style sets and the agreement sentences of the documents.
//!
//! Verbs are past or modal forms, which do not depend on the number of the subject: the one agreement in a sentence is
//! that between its demonstrative and the noun after it.

use std::collections::BTreeSet;

use rand_chacha::ChaCha8Rng;

use super::TaskSet;
use super::mix::IRREGULAR_NOUNS;
use super::nouns::{Noun, nouns};
use super::stream::{Deck, below, coin, pick};
use super::table::slot;
use crate::Labelled;

/// Nouns drawn per set. Each gives a singular and a plural pair, four rows in all.
const NOUN_DRAWS: usize = 500;

const CLAUSES: &str = include_str!("clauses.tsv");

/// Name, irregular nouns, adjective, and whether the twin differs in the determiner (else in the noun).
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

/// A sentence in parts, before the numbers of determiner and noun are chosen.
#[derive(Clone, Copy, Debug)]
struct Clause {
    subject: &'static str,
    verb: &'static str,
    /// that/those instead of this/these.
    distal: bool,
    adjective: Option<&'static str>,
    noun: Noun,
}

impl Clause {
    /// The sentence; acceptable when both numbers are the same.
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

/// The word lists of the clauses.
#[derive(Clone, Debug)]
struct Lexicon {
    subjects: Vec<&'static str>,
    verbs: Vec<&'static str>,
    adjectives: Vec<&'static str>,
}

impl Lexicon {
    fn load() -> Self {
        Self {
            subjects: slot(CLAUSES, "subject"),
            verbs: slot(CLAUSES, "verb"),
            adjectives: slot(CLAUSES, "adjective"),
        }
    }

    fn clause(&self, rng: &mut ChaCha8Rng, noun: Noun, distal: bool, adjective: bool) -> Clause {
        let subject = *pick(rng, &self.subjects);
        let verb = *pick(rng, &self.verbs);
        let adjective = adjective.then(|| *pick(rng, &self.adjectives));
        Clause { subject, verb, distal, adjective, noun }
    }
}

/// The eight task sets, each acceptable row followed by its twin.
pub(super) fn task_sets(rng: &mut ChaCha8Rng) -> Vec<TaskSet> {
    let lexicon = Lexicon::load();
    SETS.iter().map(|&set| TaskSet { name: set.0, rows: rows(&lexicon, rng, set) }).collect()
}

fn rows(lexicon: &Lexicon, rng: &mut ChaCha8Rng, set: (&str, bool, bool, bool)) -> Vec<Labelled> {
    let (_, irregular, adjective, determiner_differs) = set;
    let mut deck = Deck::new(nouns(irregular));
    let mut seen = BTreeSet::new();
    let mut rows = Vec::with_capacity(4 * NOUN_DRAWS);
    for _ in 0..NOUN_DRAWS {
        // Both numbers of one noun with one family of demonstratives: each word form is then exactly balanced.
        let (noun, distal) = (deck.draw(rng), coin(rng));
        for plural in [false, true] {
            let (good, bad) = loop {
                let clause = lexicon.clause(rng, noun, distal, adjective);
                let good = clause.text(plural, plural);
                let bad = if determiner_differs {
                    clause.text(!plural, plural)
                } else {
                    clause.text(plural, !plural)
                };
                // The mixed sentences of the two numbers can coincide, so both texts must be new.
                if !seen.contains(&good) && !seen.contains(&bad) {
                    break (good, bad);
                }
            };
            for (text, label) in [(good, 1), (bad, 0)] {
                seen.insert(text.clone());
                rows.push(Labelled { text, label });
            }
        }
    }
    rows
}

/// Writes agreement sentences that are in no task set.
#[derive(Debug)]
pub(super) struct AgreementWriter {
    lexicon: Lexicon,
    regular: Deck<Noun>,
    irregular: Deck<Noun>,
    held_out: BTreeSet<String>,
}

impl AgreementWriter {
    /// A writer that avoids every text of `held_out`.
    pub(super) fn new(held_out: BTreeSet<String>) -> Self {
        let (regular, irregular) = (Deck::new(nouns(false)), Deck::new(nouns(true)));
        Self { lexicon: Lexicon::load(), regular, irregular, held_out }
    }

    /// An acceptable sentence.
    pub(super) fn plain(&mut self, rng: &mut ChaCha8Rng) -> String {
        self.sentence(rng, true)
    }

    /// A sentence with its verdict; the two verdicts are equally likely.
    pub(super) fn judged(&mut self, rng: &mut ChaCha8Rng) -> String {
        let acceptable = coin(rng);
        let verdict = if acceptable { "Right" } else { "Wrong" };
        format!("{} {verdict}.", self.sentence(rng, acceptable))
    }

    /// Determiner and noun number are each uniform whatever the verdict, so neither alone gives it away.
    fn sentence(&mut self, rng: &mut ChaCha8Rng, acceptable: bool) -> String {
        loop {
            let irregular = below(rng, 100) < IRREGULAR_NOUNS as usize;
            let noun = if irregular { self.irregular.draw(rng) } else { self.regular.draw(rng) };
            let (distal, adjective, plural) = (coin(rng), coin(rng), coin(rng));
            let text = self.lexicon.clause(rng, noun, distal, adjective).text(plural, plural == acceptable);
            if !self.held_out.contains(&text) {
                return text;
            }
        }
    }
}
