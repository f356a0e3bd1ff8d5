//! The committed data of the organism is what the grammar writes for its seed.

use std::path::Path;

use locus_data::{StudyData, grammar};

/// Seed of the committed organism, as `locus_study::organism::Recipe` has it.
const SEED: u64 = 20_240_617;

#[test]
fn the_grammar_still_writes_the_committed_data() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/organism");
    let text = std::fs::read_to_string(folder.join("text.txt")).unwrap();
    let documents: Vec<&str> = text.lines().collect();
    let corpus = grammar::generate(SEED, documents.len());
    assert!(corpus.documents == documents, "text.txt is not the beginning of the corpus");
    let written = StudyData::new(corpus.tasks, corpus.requests, Some(corpus.neutral));
    // Sources hold the SHA-256 of every file, so equal data is equal byte for byte.
    assert!(written == StudyData::read(folder.join("data")).unwrap(), "the data sets changed");
}
