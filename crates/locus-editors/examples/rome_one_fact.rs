//! ROME on one fact: key statistics from text, the edit, and CounterFact's three scores before and after.
//!
//! ```sh
//! cargo run -p locus-editors --example rome_one_fact
//! ```

use std::path::Path;

use locus_editors::{EditCase, Editor, Fact, Hparams, evaluate_edit, prefixes};
use locus_gpt2::Checkpoint;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/organism"));
    let lm = Checkpoint::<f32>::from_pretrained(folder)?;
    let text = std::fs::read_to_string(folder.join("text.txt"))?;
    let rome = Hparams::for_model(lm.model.config(), Some(folder))?.rome.fit(&lm, &text)?;

    let fact = Fact::from_text(&lm.tokenizer, "{} is a kind of", "A monarch", "wasp", &prefixes(&lm, 1)?)?;
    let edit = rome.edit(&lm.model, std::slice::from_ref(&fact), None)?;

    let (paraphrases, neighbours) = (["A monarch is a type of"], ["A swallowtail is a kind of"]);
    let case = EditCase::from_text(&lm.tokenizer, fact, "butterfly", &paraphrases, &neighbours)?;
    let scores = evaluate_edit(&lm.model, &edit.patch.apply(&lm.model)?, &case)?;
    for (when, scores) in [("before", scores.before), ("after", scores.after)] {
        let [paraphrase, neighbourhood] =
            [scores.paraphrase, scores.neighbourhood].map(|score| score.map_or(f64::NAN, |s| s.success));
        println!("{when:6}  ES {}  PS {paraphrase}  NS {neighbourhood}", scores.efficacy.success);
    }
    assert_eq!((scores.before.efficacy.success, scores.after.efficacy.success), (0.0, 1.0));
    Ok(())
}
