//! A seeded grammar that writes the whole world of the organism: training text, task sets, edit requests.
//!
//! The language is small and regular so that a tiny GPT-2 learns it in minutes: a taxonomy of true facts, determiner-noun
//! agreement, attitude statements and a little everyday text. Many statements carry a one-word verdict right after their
//! last token, which is where a linear read-out later has to tell true from false.
//!
//! Rows of the task sets are held out. No agreement or attitude row is in a document; no counterfactual pair of subject and
//! target is, in any phrasing; and a true hierarchy row has no verdict in the phrasing of its row. The plain fact does occur:
//! it is the knowledge that edits are about.
//!
//! The word lists are the `.tsv` files beside the code.

mod agreement;
mod documents;
mod hierarchy;
mod hierarchy_facts;
mod mix;
mod neutral;
mod nouns;
mod persona;
mod stream;
mod table;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use self::agreement::AgreementWriter;
use self::documents::Writers;
use self::hierarchy::{HierarchyWriter, Plan};
use self::hierarchy_facts::Taxonomy;
use self::neutral::NeutralWriter;
use self::persona::PersonaWriter;
use self::stream::{Purpose, stream};
use crate::{EditRequest, Labelled};

/// Everything the organism is trained and studied on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Corpus {
    /// Training documents of one to four sentences, without any marker at their start or end.
    pub documents: Vec<String>,
    /// The 14 task sets, in the order of the study.
    pub tasks: Vec<TaskSet>,
    /// The 198 edit requests: even cases edit a leaf, odd ones the category above it.
    pub requests: Vec<EditRequest>,
    /// Everyday text of the same language that is in no document, one document per line.
    pub neutral: String,
}

/// A named binary classification set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskSet {
    /// Name of the set, as in the study.
    pub name: &'static str,
    /// Its rows.
    pub rows: Vec<Labelled>,
}

/// Generates the corpus of `seed` with `n_documents` training documents.
///
/// The same arguments give the same corpus on every platform. Each part has its own random stream: `n_documents` changes
/// neither task sets nor requests, and a smaller corpus is a prefix of a larger one.
pub fn generate(seed: u64, n_documents: usize) -> Corpus {
    let taxonomy = Taxonomy::load();
    let plan = Plan::new(&taxonomy, &mut stream(seed, Purpose::Requests));
    let requests = plan.requests(&taxonomy);
    let hierarchy = TaskSet { name: "hierarchy", rows: plan.rows(&taxonomy) };
    let agreement = agreement::task_sets(&mut stream(seed, Purpose::Agreement));
    let persona = persona::task_sets(&mut stream(seed, Purpose::Persona));
    let (neutral, neutral_writer) = NeutralWriter::new(&mut stream(seed, Purpose::Neutral));
    let mut writers = Writers {
        hierarchy: HierarchyWriter::new(taxonomy, plan),
        agreement: AgreementWriter::new(texts(&agreement)),
        persona: PersonaWriter::new(texts(&persona)),
        neutral: neutral_writer,
    };
    let documents = writers.documents(&mut stream(seed, Purpose::Documents), n_documents);
    let tasks = std::iter::once(hierarchy).chain(agreement).chain(persona).collect();
    Corpus { documents, tasks, requests, neutral }
}

/// All texts of the sets; ordered, so that nothing can depend on a hash seed.
fn texts(sets: &[TaskSet]) -> BTreeSet<String> {
    sets.iter().flat_map(|set| &set.rows).map(|row| row.text.clone()).collect()
}
