//! ROME: one fact, one layer, a change of rank one.
//!
//! With the keys `k_j [f]` that the MLP of `layer` sees at the subject's last token in each context, `k` that of the
//! bare prompt, `k_bar` their mean, `v = start + delta` the target found for the bare prompt ([`TargetOptimisation`]),
//! the MLP's output matrix `W [f, d]` and bias `b [d]`, and `C` the keys' second moment:
//!
//! | variant | `u` | numerator | denominator |
//! |---|---|---|---|
//! | `rome` | `C^-1 k_bar` | `delta` | `u . k` |
//! | `r-rome` | `C^-1 k_bar` | `v - (k_bar W + b)` | `u . k_bar` |
//! | `p-rome` | `C^-1 k` | `delta` | `u . k` |
//!
//! and `W <- W + u (numerator / denominator)^T`. The released ROME mixes two keys, so its denominator can vanish and
//! one edit can ruin the model; with one key throughout the denominator is positive. For numerical comfort `u` is
//! scaled to length 1, which cancels.
//!
//! Sources: Meng et al. 2022 (arXiv 2202.05262, eq. 2 for the update, 3 for the key, 4 for the target) and its code;
//! Gupta et al. 2024 (arXiv 2403.07175) for r-ROME and p-ROME.
//!
//! Letters: `d` width, `f` MLP width.

use std::sync::Arc;

use locus_gpt2::{BlockParam, Checkpoint, Config, Gpt2, HookPoint, ParamId, ParamMask, Scalar, compiled};
use ndarray::{Array1, Array2, Axis};
use serde::{Deserialize, Serialize};

use crate::editor::{Edit, EditInput, Editor, Report, check_mask, edit_one_by_one};
use crate::error::{Error, Result};
use crate::fact::Fact;
use crate::optimisation::{TargetOptimisation, TargetVector, length};
use crate::patch::{Patch, residual};
use crate::statistics::{KeyCovariance, KeyStatistics};

/// Smallest cosine between `u` and the key of the denominator: below it, the denominator is mostly rounding error.
const LEAST_COSINE: f64 = 1e-4;

/// Variants of ROME, which differ in the keys that `u` and the denominator use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Variant {
    /// As released: the mean key over contexts in `u`, the bare prompt's in the denominator.
    Rome,
    /// The mean key throughout.
    RRome,
    /// The bare prompt's key throughout.
    PRome,
}

impl Variant {
    /// The name used in files and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Variant::Rome => "rome",
            Variant::RRome => "r-rome",
            Variant::PRome => "p-rome",
        }
    }
}

/// Constants of ROME.
///
/// | name | default | range | purpose |
/// |---|---|---|---|
/// | `layer` | 5 | a layer of the model | the MLP that is edited, counted from 0 |
/// | `variant` | `r-rome` | | which keys are used where |
/// | `ridge` | 1e-5 | at least 0 | added to the diagonal of `C`, as a multiple of its mean |
/// | `max_update` | 4 | above 0 | largest Frobenius norm of the change, as a multiple of `W`'s |
/// | `optimisation` | | | [`TargetOptimisation`] |
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rome {
    /// The MLP that is edited, counted from 0.
    pub layer: usize,
    /// Variant of the method: which keys are used where.
    pub variant: Variant,
    /// Added to the diagonal of `C`, as a multiple of its mean.
    pub ridge: f64,
    /// Largest Frobenius norm of the change, as a multiple of `W`'s.
    pub max_update: f64,
    /// Constants of the optimisation that finds the target.
    pub optimisation: TargetOptimisation,
}

impl Default for Rome {
    /// For GPT-2 small; [`Hparams`](crate::Hparams) has those of other models.
    fn default() -> Self {
        Rome {
            layer: 5,
            variant: Variant::RRome,
            ridge: 1e-5,
            max_update: 4.0,
            optimisation: TargetOptimisation::default(),
        }
    }
}

impl Rome {
    /// Checks every constant against the model.
    ///
    /// # Errors
    /// When one is out of its range.
    pub fn check(&self, config: &Config) -> Result<()> {
        const NAME: &str = "rome";
        if self.layer >= config.n_layer {
            return Err(Error::Layer { layer: self.layer, layers: config.n_layer });
        }
        let wrong = |name, value, expected| Err(Error::Parameter { editor: NAME, name, value, expected });
        if !self.ridge.is_finite() || self.ridge < 0.0 {
            return wrong("ridge", self.ridge, "a number of at least 0");
        }
        if self.max_update.is_nan() || self.max_update <= 0.0 {
            return wrong("max_update", self.max_update, "a number above 0");
        }
        self.optimisation.check(NAME)
    }

    /// Makes an editor, with statistics of the layer's keys over a text.
    ///
    /// # Errors
    /// When the layer is not in the model, or the text is too short.
    pub fn fit<F: Scalar>(self, checkpoint: &Checkpoint<F>, text: &str) -> Result<RomeEditor> {
        let statistics = KeyStatistics::from_text(checkpoint, &[self.layer], text)?;
        Ok(self.with(statistics.covariances(self.ridge)?[&self.layer].clone()))
    }

    /// Makes an editor from statistics of its layer's keys.
    pub fn with(self, covariance: Arc<KeyCovariance>) -> RomeEditor {
        RomeEditor { constants: self, covariance }
    }
}

/// ROME with the key statistics of its layer.
#[derive(Clone, Debug)]
pub struct RomeEditor {
    /// Constants.
    pub constants: Rome,
    /// Second moment of the layer's keys.
    pub covariance: Arc<KeyCovariance>,
}

impl<F: Scalar> Editor<F> for RomeEditor {
    fn name(&self) -> &'static str {
        self.constants.variant.name()
    }

    fn edit(&self, model: &Gpt2<F>, facts: &[Fact], mask: Option<&ParamMask>) -> Result<Edit<F>> {
        F::run::<EditJob>((self, model, facts, mask))
    }
}

compiled!(EditJob<'a>: <F> EditInput<'a, RomeEditor, F> => Result<Edit<F>>, edit);

fn edit<F: Scalar>((editor, model, facts, mask): EditInput<'_, RomeEditor, F>) -> Result<Edit<F>> {
    editor.constants.check(model.config())?;
    check_mask(mask, model.config())?;
    edit_one_by_one(model, facts, &mut |model, fact| {
        let [target] =
            editor.target_vectors(model, std::slice::from_ref(fact))?.try_into().expect("a target per fact");
        editor.insert(model, &target, mask)
    })
}

impl RomeEditor {
    /// Target vectors (ROME's `v*`) of facts. No mask enters them, so edits inside different masks can share them.
    ///
    /// # Errors
    /// When a constant is out of its range or a fact does not fit the model.
    pub fn target_vectors<F: Scalar>(&self, model: &Gpt2<F>, facts: &[Fact]) -> Result<Vec<TargetVector<F>>> {
        self.constants.check(model.config())?;
        self.constants.optimisation.optimise(model, self.constants.layer, HookPoint::MlpOut, facts, &|| {})
    }

    /// Writes a target vector that [`RomeEditor::target_vectors`] found for this model.
    ///
    /// # Errors
    /// When target or mask belong to another model, the statistics are of another width or the edit would damage the
    /// model.
    pub fn insert<F: Scalar>(
        &self,
        model: &Gpt2<F>,
        target: &TargetVector<F>,
        mask: Option<&ParamMask>,
    ) -> Result<(Patch<F>, Report)> {
        F::run::<InsertJob>((self, model, target, mask))
    }
}

type InsertInput<'a, F> = (&'a RomeEditor, &'a Gpt2<F>, &'a TargetVector<F>, Option<&'a ParamMask>);

compiled!(InsertJob<'a>: <F> InsertInput<'a, F> => Result<(Patch<F>, Report)>, insert);

fn insert<F: Scalar>((editor, model, target, mask): InsertInput<'_, F>) -> Result<(Patch<F>, Report)> {
    let Rome { layer, variant, max_update, .. } = editor.constants;
    editor.constants.check(model.config())?;
    check_mask(mask, model.config())?;
    target.check(model.config())?;
    if editor.covariance.matrix().nrows() != model.config().d_mlp() {
        let (has, wants) = (editor.covariance.matrix().nrows(), model.config().d_mlp());
        return Err(Error::Statistics(format!("are of {has} neurons; the model's MLPs have {wants}")));
    }
    let keys = target.keys.mapv(|x| x.as_f64());
    let clean = keys.row(0).to_owned();
    let mean = keys.mean_axis(Axis(0)).expect("a fact has rows");

    let id = ParamId::Block(layer, BlockParam::MlpOutWeight);
    let weights = model.matrix(id).mapv(|x| x.as_f64());
    let wide = |x: &[F]| x.iter().map(|x| x.as_f64()).collect::<Array1<f64>>();
    let delta = wide(&target.delta);
    let (seen, divided, numerator) = match variant {
        Variant::Rome => (&mean, &clean, delta),
        Variant::PRome => (&clean, &clean, delta),
        Variant::RRome => {
            let bias = wide(model.get(ParamId::Block(layer, BlockParam::MlpOutBias)));
            let now = mean.dot(&weights) + bias;
            (&mean, &mean, wide(&target.start) + delta - now)
        }
    };
    let u = editor.covariance.solve(seen.view().insert_axis(Axis(1))).remove_axis(Axis(1));
    let u = &u / norm(&u);
    let denominator = u.dot(divided);
    let cosine = denominator / norm(divided);
    let row = &numerator / denominator;
    let update = norm(&row) / weights.iter().map(|w| w * w).sum::<f64>().sqrt();
    if cosine.is_nan() || cosine.abs() < LEAST_COSINE {
        let why = format!("u is orthogonal to the key it is divided by (cosine {cosine:.1e})");
        return Err(Error::Unstable(why));
    }
    if update.is_nan() || update > max_update {
        let why = format!("the change is {update:.3} times as large as the weights; at most {max_update}");
        return Err(Error::Unstable(why));
    }
    let column = |x: &Array1<f64>| x.mapv(F::from_f64).insert_axis(Axis(1));
    let patch = Patch::low_rank(model, [(id, column(&u), column(&row))]);
    let patch = mask.map_or_else(|| patch.clone(), |mask| patch.masked(mask));
    let (_, change) = patch.deltas().next().expect("one parameter changes");
    let change = Array2::from_shape_vec(weights.dim(), change.to_dense()).expect("of the same shape");
    let [divided, numerator] =
        [divided, &numerator].map(|x| x.iter().map(|&x| F::from_f64(x)).collect::<Vec<F>>());
    let measures = [
        ("length of delta / length of start", length(&target.delta) / length(&target.start)),
        ("denominator", denominator),
        ("cosine of u and key", cosine),
        ("norm of change / norm of weights", update),
        ("residual on the edited key", residual(change.view(), &divided, &numerator)),
    ];
    let report = Report {
        steps: target.losses.len() - 1,
        losses: target.losses.clone(),
        measures: measures.map(|(name, value)| (name.to_owned(), value)).to_vec(),
        ..Report::default()
    };
    Ok((patch, report))
}

fn norm(x: &Array1<f64>) -> f64 {
    x.dot(x).sqrt()
}
