//! Finds a circuit for the sentences of a CSV file, then writes one new fact inside and outside of it.
//!
//! `cargo run -p locus-tasks --example circuit_for_own_csv [FILE.csv]`

use std::error::Error;

use locus_circuits::{MaskTrainer, ScheduledTopK};
use locus_editors::{ClampedSgd, Editor, Fact};
use locus_gpt2::Checkpoint;
use locus_tasks::{SplitOptions, Task};

/// The model and the sentences that come with the repository.
const ORGANISM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/organism");

fn main() -> Result<(), Box<dyn Error>> {
    let csv = std::env::args().nth(1).unwrap_or_else(|| format!("{ORGANISM}/data/hierarchy_label.csv"));
    let checkpoint = Checkpoint::<f32>::from_pretrained(ORGANISM)?;
    let task = Task::from_csv(&checkpoint, &csv, SplitOptions::default())?;
    let recipe = ScheduledTopK { steps_per_target: 40, hold: 20, ..ScheduledTopK::default() };
    let circuit = recipe.train(&task.objective(), &[0.5], 1, &mut |_| {})?.remove(0);

    let fact = Fact::from_text(&checkpoint.tokenizer, "{} is a kind of", "A monarch", "wasp", &[""; 0])?;
    println!("parameters    agreement  accuracy    NLL of \"wasp\"  agreement of the edited model");
    for (name, mask) in [("circuit", circuit.mask.clone()), ("complement", circuit.mask.complement())] {
        let edit = ClampedSgd::default().edit(&checkpoint.model, std::slice::from_ref(&fact), Some(&mask))?;
        let edited = task.agreement_of(&edit.patch.apply(&checkpoint.model)?)?;
        let (agreement, accuracy) = (task.agreement(&mask)?, task.accuracy(&mask)?);
        let (before, after) = (edit.report.nll_before, edit.report.nll_after);
        println!("{name:<12} {agreement:>10.3} {accuracy:>9.3} {before:>8.2} -> {after:.2} {edited:>11.3}");
    }
    Ok(())
}
