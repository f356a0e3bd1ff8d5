//! Clamped gradient descent inside a mask: the fine-tuning edit of arXiv 2406.17241.
//!
//! ```text
//! w <- clamp(w - lr m dL/dw, w_0 - clamp, w_0 + clamp),    L = mean NLL of the target's tokens after the prompt
//! ```
//!
//! Plain gradient descent on the mean NLL of the new target after the prompt. Gradients of block parameters are
//! multiplied by the mask `m`; after each step every parameter is clamped to within `clamp` of its start `w_0`. As in
//! the authors' code, embeddings and final LayerNorm, which no mask covers, are updated too.

mod entries;
mod matrix;
mod pass;
mod together;
mod tokens;

use locus_gpt2::{Gpt2, ParamId, ParamMask, ParamSet, PromptTargets, Scalar, compiled};

use serde::{Deserialize, Serialize};

use crate::editor::{Edit, EditInput, Editor, Report, check_mask, edit_one_by_one};
use crate::error::{Error, Result};
use crate::fact::{Fact, TokenRequest};
use crate::patch::Patch;

pub use together::LazyEdited;

/// Constants of the clamped gradient descent of arXiv 2406.17241.
///
/// | name | default | range | purpose |
/// |---|---|---|---|
/// | `lr` | 5e-4 | above 0 | learning rate of plain SGD |
/// | `max_steps` | 10 | at least 1 | largest number of steps; 50 in 15 of the 17 published runs, 10 in two |
/// | `loss_stop` | 0.01 | at least 0 | loss, in nats per target token, below which no further step is taken |
/// | `clamp` | 5e-4 | above 0 | largest absolute change of any parameter |
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClampedSgd {
    /// Learning rate of plain SGD.
    pub lr: f64,
    /// Largest number of steps.
    pub max_steps: usize,
    /// Loss, in nats per target token, below which no further step is taken.
    pub loss_stop: f64,
    /// Largest absolute change of any parameter.
    pub clamp: f64,
}

impl Default for ClampedSgd {
    fn default() -> Self {
        ClampedSgd { lr: 5e-4, max_steps: 10, loss_stop: 0.01, clamp: 5e-4 }
    }
}

impl<F: Scalar> Editor<F> for ClampedSgd {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn edit(&self, model: &Gpt2<F>, facts: &[Fact], mask: Option<&ParamMask>) -> Result<Edit<F>> {
        F::run::<EditJob>((self, model, facts, mask))
    }
}

compiled!(EditJob<'a>: <F> EditInput<'a, ClampedSgd, F> => Result<Edit<F>>, edit);

fn edit<F: Scalar>((editor, model, facts, mask): EditInput<'_, ClampedSgd, F>) -> Result<Edit<F>> {
    edit_one_by_one(model, facts, &mut |model, fact| {
        let (edited, report) = editor.fine_tune(model, &fact.request(), mask)?;
        Ok((Patch::between(model, &edited), report))
    })
}

impl ClampedSgd {
    const NAME: &'static str = "study-ft";

    /// Checks every constant.
    ///
    /// # Errors
    /// When one is out of its range.
    pub fn check(&self) -> Result<()> {
        let wrong =
            |name, value, expected| Err(Error::Parameter { editor: Self::NAME, name, value, expected });
        if !self.lr.is_finite() || self.lr <= 0.0 {
            return wrong("lr", self.lr, "a number above 0");
        }
        if self.max_steps == 0 {
            return wrong("max_steps", 0.0, "at least 1");
        }
        if self.loss_stop.is_nan() || self.loss_stop < 0.0 {
            return wrong("loss_stop", self.loss_stop, "a number of at least 0");
        }
        if self.clamp.is_nan() || self.clamp <= 0.0 {
            return wrong("clamp", self.clamp, "a number above 0");
        }
        Ok(())
    }

    /// Edits one request, starting from `model` (which may be an isolated circuit), and returns the edited weights.
    /// Block parameters outside `mask` do not move; without a mask all parameters may.
    ///
    /// # Errors
    /// When a constant is out of range, or the request or the mask does not fit the model.
    pub fn fine_tune<F: Scalar>(
        &self,
        model: &Gpt2<F>,
        request: &TokenRequest,
        mask: Option<&ParamMask>,
    ) -> Result<(Gpt2<F>, Report)> {
        F::run::<FineTuneJob>((self, model, request, mask))
    }

    /// One step of a parameter: `w <- clamp(w - lr g, start - clamp, start + clamp)`.
    fn descend<F: Scalar>(&self, start: &[F], grads: &[F], weights: &mut [F]) {
        let (lr, clamp) = (F::from_f64(self.lr), F::from_f64(self.clamp));
        for ((w, &g), &start) in weights.iter_mut().zip(grads).zip(start) {
            let moved = *w - lr * g;
            let (low, high) = (start - clamp, start + clamp);
            *w = if moved < low {
                low
            } else if moved > high {
                high
            } else {
                moved
            };
        }
    }
}

type FineTuneInput<'a, F> = (&'a ClampedSgd, &'a Gpt2<F>, &'a TokenRequest, Option<&'a ParamMask>);

compiled!(FineTuneJob<'a>: <F> FineTuneInput<'a, F> => Result<(Gpt2<F>, Report)>, fine_tune);

fn fine_tune<F: Scalar>((editor, model, request, mask): FineTuneInput<'_, F>) -> Result<(Gpt2<F>, Report)> {
    editor.check()?;
    let config = model.config();
    check_mask(mask, config)?;
    let packed = PromptTargets::new(config, &[(&request.prompt, &request.target)])?;
    let mean = vec![F::one() / F::from_f64(packed.targets.len() as f64); packed.targets.len()];
    let mut edited = model.clone();
    let mut grads = ParamSet::zeros(config, ParamId::all(config));
    let mut report = Report::default();
    for step in 0..editor.max_steps {
        let tape = edited.run(&packed.batch).tape();
        if step > 0 {
            grads.fill_zero();
        }
        let (nll, d_hidden) = edited.nll_backward(&tape, &packed.targets, &mean, &mut grads);
        let loss = packed.mean_per_sequence(&nll)[0];
        report.losses.push(loss);
        if loss < editor.loss_stop {
            break;
        }
        edited.backward(&tape, d_hidden.view(), &mut grads, &mut ());
        if let Some(mask) = mask {
            mask.mask_gradients(&mut grads);
        }
        for id in ParamId::all(config) {
            editor.descend(model.get(id), grads.get(id), edited.get_mut(id));
        }
        report.steps += 1;
    }
    Ok((edited, report))
}
