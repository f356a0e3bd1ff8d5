//! Proportions of the training text, all in one place so that they can be tuned together.

/// The kinds of sentence a document is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A true hierarchy fact, with a period.
    PlainFact,
    /// A hierarchy statement, no period, then ` right.` or ` wrong.`.
    JudgedFact,
    /// An acceptable agreement sentence.
    PlainAgreement,
    /// An agreement sentence with its period, then ` Right.` or ` Wrong.`.
    JudgedAgreement,
    /// An attitude statement with a period.
    PlainPersona,
    /// An attitude statement, no period, then ` yes.` or ` no.`.
    JudgedPersona,
    /// An everyday sentence.
    Neutral,
}

/// Share of each kind among all sentences, in percent.
pub(super) const SENTENCES: [(Kind, u32); 7] = [
    (Kind::PlainFact, 20),
    (Kind::JudgedFact, 26),
    (Kind::PlainAgreement, 7),
    (Kind::JudgedAgreement, 22),
    (Kind::PlainPersona, 3),
    (Kind::JudgedPersona, 16),
    (Kind::Neutral, 6),
];

/// Weights of documents of one, two, three and four sentences: half of them are single sentences.
pub(super) const LENGTHS: [u32; 4] = [3, 1, 1, 1];

/// The ways to say that a subject falls under a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phrasing {
    /// `A poodle is a kind of dog`, the prompt of the edit requests.
    Kind,
    /// `A poodle is a type of dog`, the first paraphrase.
    Type,
    /// `A poodle falls under the category of dog`, the second paraphrase.
    Falls,
    /// `A poodle is one sort of dog`.
    Sort,
    /// `Everyone knows that a poodle is a dog`.
    Known,
    /// `A poodle is a dog and so a mammal`; leaves only.
    TwoStep,
}

/// Each phrasing with its weight among plain facts and among judged ones.
///
/// Plain facts lean on the prompt of the edit requests. Judged ones use it less: the held-out subjects never have a
/// verdict in it, so it is left to the other leaves.
pub(super) const PHRASINGS: [(Phrasing, u32, u32); 6] = [
    (Phrasing::Kind, 45, 20),
    (Phrasing::Type, 18, 25),
    (Phrasing::Falls, 18, 25),
    (Phrasing::Sort, 7, 10),
    (Phrasing::Known, 7, 10),
    (Phrasing::TwoStep, 5, 10),
];

/// Share of false judged facts whose foil is near (sibling category, superclass of the same domain), in percent.
pub(super) const NEAR_FOILS: u32 = 50;

/// Share of agreement sentences with an irregular noun, in percent; half of the task sets use irregular nouns only.
pub(super) const IRREGULAR_NOUNS: u32 = 40;

/// Share of attitude statements that compare two objects instead of stating one attitude, in percent.
pub(super) const COMPARISONS: u32 = 20;

/// Share of single-attitude statements that like their object, in percent.
///
/// The label is the product of attitude and side of the object. With both balanced neither says anything alone, and a
/// small model finds no slope to begin on; with a majority of liking it learns the sides first and the product after.
pub(super) const LIKING: u32 = 70;
