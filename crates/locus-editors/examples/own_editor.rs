//! An editor written outside the crate, with public items alone: it adds the target's token embedding to the last bias
//! that is written to the residual stream, which makes the target likelier everywhere.
//!
//! ```sh
//! cargo run -p locus-editors --example own_editor
//! ```

use std::path::Path;

use locus_editors::{Edit, EditCase, Editor, Fact, Patch, Report, Result, edit_one_by_one, evaluate_edit};
use locus_gpt2::{BlockParam, Checkpoint, Gpt2, ParamId, ParamMask, Scalar};

struct TargetBias {
    strength: f64,
}

impl<F: Scalar> Editor<F> for TargetBias {
    fn name(&self) -> &'static str {
        "target-bias"
    }

    fn edit(&self, model: &Gpt2<F>, facts: &[Fact], mask: Option<&ParamMask>) -> Result<Edit<F>> {
        mask.map_or(Ok(()), |mask| mask.check(model.config()))?;
        edit_one_by_one(model, facts, &mut |model, fact| {
            let embedding = model.matrix(ParamId::TokenEmbedding).row(fact.target[0] as usize).to_owned();
            let mut edited = model.clone();
            let bias = ParamId::Block(model.config().n_layer - 1, BlockParam::MlpOutBias);
            for (bias, &x) in edited.get_mut(bias).iter_mut().zip(&embedding) {
                *bias += F::from_f64(self.strength) * x;
            }
            let patch = Patch::between(model, &edited);
            let patch = mask.map_or_else(|| patch.clone(), |mask| patch.masked(mask));
            Ok((patch, Report { steps: 1, ..Report::default() }))
        })
    }
}

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/organism"));
    let lm = Checkpoint::<f32>::from_pretrained(folder)?;
    let fact = Fact::from_text(&lm.tokenizer, "{} is a kind of", "A monarch", "wasp", &[""; 0])?;
    let edit = TargetBias { strength: 1.0 }.edit(&lm.model, std::slice::from_ref(&fact), None)?;
    println!("NLL of the target: {:.2} before, {:.2} after", edit.report.nll_before, edit.report.nll_after);
    assert!(edit.report.nll_after < edit.report.nll_before);

    // This edits no knowledge: neighbouring prompts are affected as much as the fact's.
    let case = EditCase::from_text(
        &lm.tokenizer,
        fact,
        "butterfly",
        &["A monarch is a type of"],
        &["A swallowtail is a kind of"],
    )?;
    let scores = evaluate_edit(&lm.model, &edit.patch.apply(&lm.model)?, &case)?;
    let margin = |scores: locus_editors::EditScores| scores.neighbourhood.map_or(f64::NAN, |s| s.magnitude);
    println!(
        "P(true) - P(new) of a neighbour: {:+.2} before, {:+.2} after",
        margin(scores.before),
        margin(scores.after)
    );
    assert!(margin(scores.after) < margin(scores.before));
    Ok(())
}
