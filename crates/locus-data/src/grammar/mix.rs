//! Proportions of the training text, in one place so that they can be tuned together.

/// Kinds of sentence that documents are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SentenceKind {
    /// True hierarchy fact with a period.
    PlainFact,
    /// Hierarchy statement without a period, then ` right.` or ` wrong.`.
    JudgedFact,
    /// Acceptable agreement sentence.
    PlainAgreement,
    /// Agreement sentence with a period, then ` Right.` or ` Wrong.`.
    JudgedAgreement,
    /// Attitude statement with a period.
    PlainPersona,
    /// Attitude statement without a period, then ` yes.` or ` no.`.
    JudgedPersona,
    /// Everyday sentence.
    Neutral,
}

/// Share of each kind among all sentences, in percent.
pub(super) const SENTENCES: [(SentenceKind, u32); 7] = [
    (SentenceKind::PlainFact, 20),
    (SentenceKind::JudgedFact, 26),
    (SentenceKind::PlainAgreement, 7),
    (SentenceKind::JudgedAgreement, 22),
    (SentenceKind::PlainPersona, 3),
    (SentenceKind::JudgedPersona, 16),
    (SentenceKind::Neutral, 6),
];

/// Weights of documents of one, two, three and four sentences: half of them are single sentences.
pub(super) const LENGTHS: [u32; 4] = [3, 1, 1, 1];

/// Ways to say that a subject falls under a target.
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
    /// `A poodle is a dog and so a mammal`, of leaves only.
    TwoStep,
}

/// Each phrasing with its weight among plain facts and among judged ones.
///
/// The prompt of the edit requests is the most frequent phrasing of plain facts. Judged ones have it less often,
/// because no held-out subject has a verdict in it and only the other leaves are left.
pub(super) const PHRASINGS: [(Phrasing, u32, u32); 6] = [
    (Phrasing::Kind, 45, 20),
    (Phrasing::Type, 18, 25),
    (Phrasing::Falls, 18, 25),
    (Phrasing::Sort, 7, 10),
    (Phrasing::Known, 7, 10),
    (Phrasing::TwoStep, 5, 10),
];

/// Share of false judged facts whose foil is near (a sibling category, a superclass of the same domain), in percent.
pub(super) const NEAR_FOILS: u32 = 50;

/// Share of agreement sentences with an irregular noun, in percent; half of the task sets use irregular nouns only.
pub(super) const IRREGULAR_NOUNS: u32 = 40;

/// Share of attitude statements that compare two objects instead of stating one attitude, in percent.
pub(super) const COMPARISONS: u32 = 20;

/// Share of single-attitude statements that like their object, in percent.
///
/// The label is the product of attitude and side of the object. If both were balanced, neither would say anything
/// alone, and a small model would find no gradient to start with. With a majority of liking, training learns the sides
/// first and the product after.
pub(super) const LIKING: u32 = 70;
