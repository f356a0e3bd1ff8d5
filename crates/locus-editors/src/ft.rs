//! The fine-tuning baselines of the editing literature: Adam on the output matrix and bias of one MLP.
//!
//! | name | loss | bound |
//! |---|---|---|
//! | `ft` | as released: every target token scored at the prompt's last token | none |
//! | `ft-l` | that of `ft` | each entry stays within `clamp` of its start |
//! | `ft-m` | each target token scored after the ones before it | none |
//!
//! The released loss is wrong for targets of several tokens: it teaches the later ones as first tokens. It is kept
//! because published numbers were made with it; `ft-m` is what one wants.
//!
//! Sources: Zhu et al. 2020 for the bound; Meng et al. 2022 (arXiv 2202.05262) and its code for `ft` and `ft-l`;
//! EasyEdit for `ft-m`.

use locus_gpt2::{
    AdamW, Batch, BlockParam, Config, Gpt2, Moments, ParamId, ParamMask, ParamSet, PromptTargets, Scalar,
    Target, compiled,
};
use serde::{Deserialize, Serialize};

use crate::editor::{Edit, EditInput, Editor, Report, check_mask};
use crate::error::{Error, Result};
use crate::fact::Fact;
use crate::patch::Patch;

/// Facts per batch.
const BATCH: usize = 64;

/// Position at which target tokens are scored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ScoredAt {
    /// All target tokens right after the prompt.
    AfterPrompt,
    /// Each target token after the ones before it.
    InPlace,
}

/// Constants of the edit.
///
/// | name | default | range | purpose |
/// |---|---|---|---|
/// | `layer` | 0 | a layer of the model | the MLP that is tuned, counted from 0 |
/// | `scored` | by editor | | where target tokens are scored |
/// | `lr` | 5e-4 | above 0 | learning rate of Adam |
/// | `steps` | 25 | at least 1 | largest number of passes over the facts |
/// | `loss_stop` | 0.01 | at least 0 | mean NLL, in nats, below which a batch takes no step |
/// | `clamp` | by model for `ft-l`, else none | above 0 | largest change of an entry |
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FineTuning {
    /// The MLP that is tuned, counted from 0.
    pub layer: usize,
    /// Position at which target tokens are scored.
    pub scored: ScoredAt,
    /// Learning rate of Adam.
    pub lr: f64,
    /// Largest number of passes over the facts.
    pub steps: usize,
    /// Mean NLL, in nats, below which a batch takes no step.
    pub loss_stop: f64,
    /// Largest absolute change of an entry; `None` sets no bound.
    pub clamp: Option<f64>,
}

impl Default for FineTuning {
    /// `ft-m` at the first layer; [`Hparams`](crate::Hparams) has the others.
    fn default() -> Self {
        FineTuning { layer: 0, scored: ScoredAt::InPlace, lr: 5e-4, steps: 25, loss_stop: 1e-2, clamp: None }
    }
}

impl FineTuning {
    /// Checks every constant against the model.
    ///
    /// # Errors
    /// When one is out of its range.
    pub fn check(&self, config: &Config) -> Result<()> {
        let wrong = |name, value, expected| Err(Error::Parameter { editor: "ft", name, value, expected });
        if self.layer >= config.n_layer {
            return Err(Error::Layer { layer: self.layer, layers: config.n_layer });
        }
        for (name, value) in [("lr", self.lr), ("clamp", self.clamp.unwrap_or(1.0))] {
            if !value.is_finite() || value <= 0.0 {
                return wrong(name, value, "a number above 0");
            }
        }
        if self.steps == 0 {
            return wrong("steps", 0.0, "at least 1");
        }
        if self.loss_stop.is_nan() || self.loss_stop < 0.0 {
            return wrong("loss_stop", self.loss_stop, "a number of at least 0");
        }
        Ok(())
    }
}

impl<F: Scalar> Editor<F> for FineTuning {
    fn name(&self) -> &'static str {
        match (self.scored, self.clamp) {
            (ScoredAt::InPlace, _) => "ft-m",
            (ScoredAt::AfterPrompt, None) => "ft",
            (ScoredAt::AfterPrompt, Some(_)) => "ft-l",
        }
    }

    fn edit(&self, model: &Gpt2<F>, facts: &[Fact], mask: Option<&ParamMask>) -> Result<Edit<F>> {
        F::run::<EditJob>((self, model, facts, mask))
    }
}

compiled!(EditJob<'a>: <F> EditInput<'a, FineTuning, F> => Result<Edit<F>>, edit);

fn edit<F: Scalar>((editor, model, facts, mask): EditInput<'_, FineTuning, F>) -> Result<Edit<F>> {
    editor.check(model.config())?;
    check_mask(mask, model.config())?;
    facts.iter().try_for_each(|fact| fact.check(model.config()))?;
    let tuned = [BlockParam::MlpOutWeight, BlockParam::MlpOutBias].map(|p| ParamId::Block(editor.layer, p));
    let mut moments: Vec<Moments<F>> =
        tuned.iter().map(|id| Moments::zeros(id.len(model.config()))).collect();
    let adam = AdamW { weight_decay: 0.0, ..AdamW::new(editor.lr) };
    let batches: Vec<FactBatch<F>> =
        facts.chunks(BATCH).map(|facts| FactBatch::new(editor, model, facts)).collect::<Result<_>>()?;
    let mut edited = model.clone();
    let mut report = Report::default();
    for _ in 0..editor.steps {
        let mut total = 0.0;
        for packed in &batches {
            let mut grads = ParamSet::zeros(model.config(), tuned);
            let tape = edited.run(&packed.batch).from_layer(editor.layer, packed.resid.clone()).tape();
            let (nll, d_hidden) = edited.nll_backward(&tape, &packed.targets, &packed.weights, &mut grads);
            let loss: f64 = nll.iter().zip(&packed.weights).map(|(nll, weight)| nll * weight.as_f64()).sum();
            total += loss * packed.facts as f64 / facts.len() as f64;
            if loss < editor.loss_stop {
                continue;
            }
            edited.backward(&tape, d_hidden.view(), &mut grads, &mut ());
            if let Some(mask) = mask {
                mask.mask_gradients(&mut grads);
            }
            report.steps += 1;
            for (&id, moments) in tuned.iter().zip(&mut moments) {
                adam.step(report.steps, edited.get_mut(id), grads.get(id), moments);
                if let Some(clamp) = editor.clamp {
                    keep_near(edited.get_mut(id), model.get(id), F::from_f64(clamp));
                }
            }
        }
        report.losses.push(total);
        if total < editor.loss_stop {
            break;
        }
    }
    let patch = Patch::between(model, &edited);
    report.into_edit(model, patch, facts)
}

/// Clamps weights to within `clamp` of their start.
fn keep_near<F: Scalar>(weights: &mut [F], start: &[F], clamp: F) {
    for (w, &start) in weights.iter_mut().zip(start) {
        *w = w.max(start - clamp).min(start + clamp);
    }
}

/// A batch of facts with what does not change while the layer is tuned.
struct FactBatch<F> {
    batch: Batch<F>,
    targets: Vec<Target>,
    /// Weight of each target's NLL in the mean over facts.
    weights: Vec<F>,
    /// The residual stream entering the tuned layer, `[t, d]` for the `t` tokens of the batch.
    resid: ndarray::Array2<F>,
    facts: usize,
}

impl<F: Scalar> FactBatch<F> {
    fn new(editor: &FineTuning, model: &Gpt2<F>, facts: &[Fact]) -> Result<Self> {
        let config = model.config();
        let (batch, targets) = match editor.scored {
            ScoredAt::InPlace => {
                let pairs: Vec<_> =
                    facts.iter().map(|fact| (&fact.contexts[0].tokens, &fact.target)).collect();
                let packed = PromptTargets::new(config, &pairs)?;
                (packed.batch, packed.targets)
            }
            ScoredAt::AfterPrompt => {
                let prompts: Vec<&[u32]> =
                    facts.iter().map(|fact| fact.contexts[0].tokens.as_slice()).collect();
                let batch = Batch::new(config, &prompts)?;
                let targets = facts
                    .iter()
                    .zip(batch.last_rows())
                    .flat_map(|(fact, row)| fact.target.iter().map(move |&token| Target { row, token }));
                let targets = targets.collect();
                (batch, targets)
            }
        };
        let fact_of = |fact: &Fact| {
            let n = fact.target.len();
            vec![F::from_f64(1.0 / (facts.len() * n) as f64); n]
        };
        let weights = facts.iter().flat_map(fact_of).collect();
        let resid = model.run(&batch).until_layer(editor.layer).resid();
        Ok(FactBatch { batch, targets, weights, resid, facts: facts.len() })
    }
}
