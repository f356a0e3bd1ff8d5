//! UltraEdit: one gradient and a closed form, for facts without a subject and models without key statistics.
//!
//! One pass over the prompts, each followed by its target without the last token, and one backward pass of the facts'
//! summed loss (the mean NLL per target token) give for each edited layer and each of the `m` tokens the key
//! `h [f]` (what the MLP's output matrix `W [f, d]` reads) and the gradient `g [d]` of the loss at the MLP's output.
//! The feature `[h, g]` is normalised entry by entry with mean `mu` and standard deviation `sigma` over all tokens of
//! this edit and the earlier ones ([`EditMemory`]), which makes the method lifelong:
//!
//! ```text
//! [h^, g^] = ([h, g] - mu) / (sigma + eps),    v = -lr |h^|^2 g^
//! W <- W + (H^T H + I)^-1 H^T V = W + H^T (H H^T + I)^-1 V
//! ```
//!
//! with the keys `H [m, f]` as they are and the wanted changes of the answers `V [m, d]`. The second form follows by
//! the Woodbury identity; it needs a system of size `m` and shows that the change has rank `m` at most.
//!
//! Source: Gu et al. 2025 (arXiv 2505.14679: editing feature, lifelong normalisation, closed form) and its code.
//! Deviations: statistics are kept for each layer separately, where the code pools layers of one shape; deviations of
//! one edit's features are summed exactly, where the code multiplies the unbiased variance by the number of tokens
//! (which is undefined for one token); a fact's gradient does not depend on how many facts share its batch. All tokens
//! count, as in the released settings; the paper's text speaks of the answer's.
//!
//! Letters: `m` tokens, `d` width, `f` MLP width.

use locus_gpt2::{
    BlockParam, Config, Gpt2, HookPoint, ParamId, ParamMask, ParamSet, PromptTargets, Scalar, compiled,
};
use ndarray::{Array2, ArrayViewMut2, Axis, concatenate, s};
use serde::{Deserialize, Serialize};

use crate::editor::{Edit, Editor, Report, check_mask};
use crate::error::{Error, Result};
use crate::fact::Fact;
use crate::insertion::solve_positive;
use crate::memory::EditMemory;
use crate::patch::Patch;

/// Added to standard deviations: the rounding unit of single precision, in which the released code runs.
const EPSILON: f64 = f32::EPSILON as f64;

/// Constants of UltraEdit.
///
/// | name | default | range | purpose |
/// |---|---|---|---|
/// | `layers` | 8, 9, 10 | layers of the model, ascending | the MLPs that are edited, counted from 0 |
/// | `lr` | 1/3072 | above 0 | scale of the wanted changes; at `1 / f` they are as long as `g^` on average |
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct UltraEdit {
    /// The MLPs that are edited, counted from 0.
    pub layers: Vec<usize>,
    /// Scale of the wanted changes.
    pub lr: f64,
}

impl Default for UltraEdit {
    /// For GPT-2 small.
    fn default() -> Self {
        UltraEdit::for_shape(12, 768)
    }
}

impl UltraEdit {
    /// Constants for a model of `n_layer` layers of width `n_embd`: the MLPs from two thirds of its depth to the last
    /// but one, as published for GPT-J, and `lr = 1 / f` for MLPs of four times the model's width.
    ///
    /// # Panics
    /// When the width is 0.
    pub fn for_shape(n_layer: usize, n_embd: usize) -> Self {
        assert!(n_embd > 0, "a model without width");
        let first = n_layer * 2 / 3;
        let end = n_layer.saturating_sub(1).max(first + 1);
        UltraEdit { layers: (first..end).collect(), lr: 1.0 / (4 * n_embd) as f64 }
    }

    /// Checks every constant against the model.
    ///
    /// # Errors
    /// When one is out of its range.
    pub fn check(&self, config: &Config) -> Result<()> {
        let wrong =
            |name, value, expected| Err(Error::Parameter { editor: "ultra-edit", name, value, expected });
        if self.layers.is_empty() || !self.layers.is_sorted_by(|a, b| a < b) {
            return wrong("layers", self.layers.len() as f64, "one or more, ascending");
        }
        if let Some(&layer) = self.layers.iter().find(|&&layer| layer >= config.n_layer) {
            return Err(Error::Layer { layer, layers: config.n_layer });
        }
        if !self.lr.is_finite() || self.lr <= 0.0 {
            return wrong("lr", self.lr, "a number above 0");
        }
        Ok(())
    }
}

impl<F: Scalar> Editor<F> for UltraEdit {
    fn name(&self) -> &'static str {
        "ultra-edit"
    }

    fn edit(&self, model: &Gpt2<F>, facts: &[Fact], mask: Option<&ParamMask>) -> Result<Edit<F>> {
        self.edit_after(&mut EditMemory::new(), model, facts, mask)
    }

    fn edit_after(
        &self,
        memory: &mut EditMemory,
        model: &Gpt2<F>,
        facts: &[Fact],
        mask: Option<&ParamMask>,
    ) -> Result<Edit<F>> {
        F::run::<EditJob>((self, memory, model, facts, mask))
    }
}

type Input<'a, F> = (&'a UltraEdit, &'a mut EditMemory, &'a Gpt2<F>, &'a [Fact], Option<&'a ParamMask>);

compiled!(EditJob<'a>: <F> Input<'a, F> => Result<Edit<F>>, edit);

fn edit<F: Scalar>((editor, memory, model, facts, mask): Input<'_, F>) -> Result<Edit<F>> {
    let config = model.config();
    editor.check(config)?;
    check_mask(mask, config)?;
    facts.iter().try_for_each(|fact| fact.check(config))?;
    if facts.is_empty() {
        return Err(Error::Request("there is no fact to write; expected at least one".into()));
    }
    let (loss, seen) = keys_and_gradients(model, &editor.layers, facts)?;
    let mut later = memory.clone();
    let mut factors = Vec::new();
    let mut measures = Vec::new();
    for (&layer, (keys, gradients)) in editor.layers.iter().zip(&seen) {
        let features = concatenate![Axis(1), *keys, *gradients];
        let moments = later.add_features(layer, features.view())?;
        let normalised = (&features - &moments.mean()) / (moments.deviation() + EPSILON);
        let (key, gradient) = normalised.view().split_at(Axis(1), config.d_mlp());
        let mut wanted = gradient.to_owned();
        for (mut wanted, key) in wanted.rows_mut().into_iter().zip(key.rows()) {
            wanted *= -editor.lr * key.dot(&key);
        }
        let mut gram = keys.dot(&keys.t());
        gram.diag_mut().iter_mut().for_each(|x| *x += 1.0);
        let right = solve_positive(gram, wanted.view())?;
        let id = ParamId::Block(layer, BlockParam::MlpOutWeight);
        let size = model.get(id).iter().map(|w| w.as_f64() * w.as_f64()).sum::<f64>().sqrt();
        let change = keys.t().dot(&right);
        let norm = change.iter().map(|x| x * x).sum::<f64>().sqrt();
        measures.push((format!("norm of change / norm of weights, layer {layer}"), norm / size));
        factors.push((id, keys.t().mapv(F::from_f64), right.t().mapv(F::from_f64)));
    }
    if factors.iter().any(|(_, u, r)| u.iter().chain(r).any(|x| !x.is_finite())) {
        return Err(Error::Unstable("weights are no longer finite".into()));
    }
    let patch = Patch::low_rank(model, factors);
    let patch = mask.map_or_else(|| patch.clone(), |mask| patch.masked(mask));
    let report = Report { losses: vec![loss], steps: 1, measures, ..Report::default() };
    let edit = report.into_edit(model, patch, facts)?;
    *memory = later;
    Ok(edit)
}

/// Keys `[m, f]` of a layer's MLP and gradients `[m, d]` at its output.
type Seen = (Array2<f64>, Array2<f64>);

/// Mean NLL per target token over facts, in nats, and for each layer keys and gradients at all tokens of the bare
/// prompts and their targets.
fn keys_and_gradients<F: Scalar>(
    model: &Gpt2<F>,
    layers: &[usize],
    facts: &[Fact],
) -> Result<(f64, Vec<Seen>)> {
    let pairs: Vec<_> = facts.iter().map(|fact| (&fact.contexts[0].tokens, &fact.target)).collect();
    let packed = PromptTargets::new(model.config(), &pairs)?;
    let weights: Vec<F> =
        packed.n_targets.iter().flat_map(|&n| vec![F::from_f64(1.0 / n as f64); n]).collect();
    let rows = packed.batch.sequences().map(|rows| rows.len()).sum::<usize>();
    let (f, d) = (model.config().d_mlp(), model.config().n_embd);
    let mut seen: Vec<Seen> = vec![(Array2::zeros((rows, f)), Array2::zeros((rows, d))); layers.len()];
    let wide = |state: ArrayViewMut2<F>| state.mapv(|x| x.as_f64());
    let place = |layer: usize| layers.iter().position(|&other| other == layer);
    let mut take_keys = |layer: usize, point: HookPoint, state: ArrayViewMut2<F>| {
        if let (HookPoint::MlpPost, Some(i)) = (point, place(layer)) {
            seen[i].0.slice_mut(s![..state.nrows(), ..]).assign(&wide(state));
        }
    };
    let tape = model.run(&packed.batch).with_hooks(&mut take_keys).tape();
    let mut none = ParamSet::zeros(model.config(), []);
    let (nll, d_hidden) = model.nll_backward(&tape, &packed.targets, &weights, &mut none);
    let mut take_gradients = |layer: usize, point: HookPoint, state: ArrayViewMut2<F>| {
        if let (HookPoint::MlpOut, Some(i)) = (point, place(layer)) {
            seen[i].1.slice_mut(s![..state.nrows(), ..]).assign(&wide(state));
        }
    };
    model.backward(&tape, d_hidden.view(), &mut none, &mut take_gradients);
    let loss: f64 = nll.iter().zip(&weights).map(|(nll, weight)| nll * weight.as_f64()).sum();
    Ok((loss / facts.len() as f64, seen))
}
