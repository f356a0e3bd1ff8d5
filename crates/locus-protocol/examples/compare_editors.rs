//! Three editors on the same four requests of the organism: NLL of the new and of the true answer before and after.

use std::path::Path;

use anyhow::Result;
use locus_data::StudyData;
use locus_editors::Hparams;
use locus_gpt2::Checkpoint;
use locus_protocol::records::Scope;
use locus_protocol::{Comparison, WritableScope};

fn main() -> Result<()> {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/organism"));
    let checkpoint = Checkpoint::<f32>::from_pretrained(folder)?;
    let data = StudyData::read(folder.join("data"))?;
    let text = std::fs::read_to_string(folder.join("text.txt"))?;
    let hparams = Hparams::for_model(checkpoint.model.config(), Some(folder))?;
    let comparison = Comparison::new(&checkpoint, &data.requests[..4], &text, &text, &hparams, 1)?;

    let whole = WritableScope { scope: Scope::Full, target_density: 1.0, mask: None };
    let mut outcomes = comparison.unedited()?;
    for editor in ["study-ft", "r-rome", "memit"] {
        outcomes.extend(comparison.run(&comparison.prepare(editor)?, &whole)?);
    }
    println!("{:<12} {:>4} {:>10} {:>11}", "editor", "case", "NLL(new)", "NLL(true)");
    for outcome in &outcomes {
        let [new, true_answer] = outcome.rewrite;
        println!("{:<12} {:>4} {new:>10.3} {true_answer:>11.3}", outcome.editor, outcome.case_id);
    }
    assert_eq!(outcomes.len(), 4 * 4, "the unedited model and three editors on every request");
    Ok(())
}
