//! A seeded grammar that writes everything the organism is trained and studied on: training text, task sets and edit
//! requests.
//!
//! The language is small and regular so that a tiny GPT-2 learns it in minutes: a taxonomy of true facts,
//! determiner-noun agreement, attitude statements and a little everyday text. Many statements are followed by a
//! one-word verdict, right after the token at which a linear head later has to separate true from false.
//!
//! Rows of the task sets are held out: no agreement or attitude row is in a document, no counterfactual pair of subject
//! and target is, in any phrasing, and a true hierarchy row has no verdict in the phrasing of its row. The plain fact
//! does occur, as the knowledge that edits are about.
//!
//! The word lists are the `.tsv` files beside the code.

mod agreement;
mod draws;
mod hierarchy;
mod mix;
mod neutral;
mod persona;
mod taxonomy;
mod words;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use rand_chacha::ChaCha8Rng;

use self::agreement::AgreementWriter;
use self::draws::{Purpose, stream, weighted};
use self::hierarchy::{EditPlan, HierarchyWriter};
use self::mix::{LENGTHS, SENTENCES, SentenceKind};
use self::neutral::NeutralWriter;
use self::persona::PersonaWriter;
use self::taxonomy::Taxonomy;
use crate::{EditRequest, Task};

/// Everything the organism is trained and studied on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Corpus {
    /// Training documents of one to four sentences, without a marker at the start or end.
    pub documents: Vec<String>,
    /// The 14 task sets, in the order of [`task_names`](crate::task_names).
    pub tasks: Vec<Task>,
    /// The 198 edit requests: even cases edit a leaf, odd ones the category above it.
    pub requests: Vec<EditRequest>,
    /// Everyday text of the same language that is in no document, one document per line.
    pub neutral: String,
}

/// Generates the corpus of `seed` with `n_documents` training documents.
///
/// Equal arguments give an equal corpus on every platform. Each part has its own random stream: `n_documents` changes
/// neither task sets nor requests, and a smaller corpus is the beginning of a larger one.
///
/// ```
/// let corpus = locus_data::grammar::generate(1, 3);
/// assert_eq!((corpus.documents.len(), corpus.tasks.len(), corpus.requests.len()), (3, 14, 198));
/// assert_eq!(corpus.requests[0].prompt, "{} is a kind of");
/// ```
pub fn generate(seed: u64, n_documents: usize) -> Corpus {
    let taxonomy = Taxonomy::load();
    let plan = EditPlan::new(&taxonomy, &mut stream(seed, Purpose::Requests));
    let requests = plan.requests(&taxonomy);
    let hierarchy = Task { name: "hierarchy".to_owned(), rows: plan.rows(&taxonomy) };
    let agreement = agreement::task_sets(&mut stream(seed, Purpose::Agreement));
    let persona = persona::task_sets(&mut stream(seed, Purpose::Persona));
    let (neutral, neutral_writer) = NeutralWriter::new(&mut stream(seed, Purpose::Neutral));
    let mut writers = Writers {
        hierarchy: HierarchyWriter::new(taxonomy, plan),
        agreement: AgreementWriter::new(texts(&agreement)),
        persona: PersonaWriter::new(texts(&persona)),
        neutral: neutral_writer,
    };
    let rng = &mut stream(seed, Purpose::Documents);
    let documents = (0..n_documents).map(|_| writers.document(rng)).collect();
    let tasks = std::iter::once(hierarchy).chain(agreement).chain(persona).collect();
    Corpus { documents, tasks, requests, neutral }
}

/// Texts of all sets, in order, so that nothing can depend on the seed of a hash table.
fn texts(sets: &[Task]) -> BTreeSet<String> {
    sets.iter().flat_map(|set| &set.rows).map(|row| row.text.clone()).collect()
}

/// One writer per kind of content, which together write the training documents.
#[derive(Debug)]
struct Writers {
    hierarchy: HierarchyWriter,
    agreement: AgreementWriter,
    persona: PersonaWriter,
    neutral: NeutralWriter,
}

impl Writers {
    fn document(&mut self, rng: &mut ChaCha8Rng) -> String {
        let sentences = 1 + weighted(LENGTHS.iter().copied(), rng);
        (0..sentences).map(|_| self.sentence(rng)).collect::<Vec<_>>().join(" ")
    }

    fn sentence(&mut self, rng: &mut ChaCha8Rng) -> String {
        match SENTENCES[weighted(SENTENCES.iter().map(|&(_, share)| share), rng)].0 {
            SentenceKind::PlainFact => self.hierarchy.plain(rng),
            SentenceKind::JudgedFact => self.hierarchy.judged(rng),
            SentenceKind::PlainAgreement => self.agreement.plain(rng),
            SentenceKind::JudgedAgreement => self.agreement.judged(rng),
            SentenceKind::PlainPersona => self.persona.plain(rng),
            SentenceKind::JudgedPersona => self.persona.judged(rng),
            SentenceKind::Neutral => self.neutral.plain(rng),
        }
    }
}
