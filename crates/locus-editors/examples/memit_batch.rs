//! MEMIT: many facts in one edit, and how many of them the model then prefers.
//!
//! ```sh
//! cargo run -p locus-editors --example memit_batch
//! ```

use std::path::Path;

use locus_editors::{EditCase, Editor, Fact, Hparams, evaluate_edit, prefixes};
use locus_gpt2::Checkpoint;

/// Subject, its kind, and the kind that it is to have after the edit.
const FACTS: [[&str; 3]; 4] = [
    ["A monarch", "butterfly", "wasp"],
    ["A poodle", "dog", "fish"],
    ["A stallion", "horse", "bird"],
    ["A margarita", "cocktail", "tool"],
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/organism"));
    let lm = Checkpoint::<f32>::from_pretrained(folder)?;
    let text = std::fs::read_to_string(folder.join("text.txt"))?;
    let memit = Hparams::for_model(lm.model.config(), Some(folder))?.memit.fit(&lm, &text)?;

    let mut prefixes = prefixes(&lm, 1)?;
    prefixes.truncate(5); // as many as MEMIT's code uses
    let fact = |[subject, _, new]: [&str; 3]| {
        Fact::from_text(&lm.tokenizer, "{} is a kind of", subject, new, &prefixes)
    };
    let facts: Vec<Fact> = FACTS.into_iter().map(fact).collect::<Result<_, _>>()?;
    let edit = memit.edit(&lm.model, &facts, None)?;
    let edited = edit.patch.apply(&lm.model)?;

    let mut written = 0;
    for ([subject, old, new], fact) in FACTS.into_iter().zip(facts) {
        let paraphrase = [format!("{subject} is a type of")];
        let case = EditCase::from_text(&lm.tokenizer, fact, old, &paraphrase, &[""; 0])?;
        let after = evaluate_edit(&lm.model, &edited, &case)?.after;
        println!("{subject} is a kind of: P({new}) - P({old}) = {:+.2}", after.efficacy.magnitude);
        written += usize::from(after.efficacy.success == 1.0);
    }
    println!("{written} of {} facts written by one patch of norm {:.2}", FACTS.len(), edit.patch.norm());
    assert!(written > FACTS.len() / 2 && edit.report.nll_after < edit.report.nll_before);
    Ok(())
}
