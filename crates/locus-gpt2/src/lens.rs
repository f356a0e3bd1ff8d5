//! Logit lens and direct logit attribution: what the residual stream says about the next token.
//!
//! With `x` the final residual stream of a row and `u` the difference of two rows of the unembedding, the logit
//! difference is linear in what each component wrote once the standard deviation of the final LayerNorm is taken as it
//! is:
//!
//! ```text
//! logit difference = sum over components c of rstd(x) (c - mean(c)) . (gain * u)  +  bias . u
//! ```
//!
//! Sources: the logit lens is nostalgebraist 2020; direct logit attribution is Elhage et al. 2021, with the LayerNorm
//! frozen as TransformerLens does (`apply_ln_to_stack`). Heads are counted without the output bias that they share,
//! which is an item of its own.

use ndarray::{Array3, ArrayView1, Axis, s};

use crate::kernels::number::Number;
use crate::model::cache::ActivationCache;
use crate::model::forward::Norm;
use crate::model::hooks::HookPoint;
use crate::model::ids::{BlockParam, ParamId};
use crate::model::weights::Gpt2;
use crate::scalar::{Scalar, compiled};

compiled!(
    LogitLensJob<'a>: <F> (&'a Gpt2<F>, &'a ActivationCache<F>, &'a [usize]) => Array3<F>,
    |(model, cache, rows)| logits_by_layer(model, cache, rows)
);
compiled!(
    AttributionJob<'a>: <F>
        (&'a Gpt2<F>, &'a ActivationCache<F>, usize, u32, Option<u32>) => Vec<(Component, f64)>,
    |(model, cache, row, correct, other)| attribution(model, cache, row, correct, other)
);

/// Logits `[L, rows, V]` that the residual stream leaving each layer gives when it goes through the final LayerNorm and
/// the unembedding at once. Those of the last layer are the model's own.
///
/// # Panics
/// When the cache lacks [`HookPoint::ResidPost`] of a layer or one of the rows.
pub fn logit_lens<F: Scalar>(model: &Gpt2<F>, cache: &ActivationCache<F>, rows: &[usize]) -> Array3<F> {
    F::run::<LogitLensJob>((model, cache, rows))
}

fn logits_by_layer<F: Scalar>(model: &Gpt2<F>, cache: &ActivationCache<F>, rows: &[usize]) -> Array3<F> {
    let config = model.config();
    let mut lens = Array3::zeros((config.n_layer, rows.len(), config.vocab_size));
    for (layer, mut logits) in lens.axis_iter_mut(Axis(0)).enumerate() {
        let resid = state(cache, layer, HookPoint::ResidPost).select(Axis(0), rows);
        logits.assign(&model.logits(model.layer_norm(Norm::Final, resid.view()).view()));
    }
    lens
}

/// A component that writes to the residual stream, or the bias of the final LayerNorm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Component {
    /// The embedding of the row's token.
    TokenEmbedding,
    /// The embedding of the row's position.
    PositionEmbedding,
    /// A head, by layer and index, without the output bias.
    Head(usize, usize),
    /// The output bias of a layer's attention.
    AttnBias(usize),
    /// The MLP of a layer, bias included.
    Mlp(usize),
    /// The bias of the final LayerNorm.
    FinalNormBias,
}

/// Hook points whose states [`direct_logit_attribution`] needs.
pub const ATTRIBUTION_POINTS: [HookPoint; 3] = [HookPoint::Z, HookPoint::MlpOut, HookPoint::ResidPost];

/// What each component adds to the logit difference of two tokens, `[correct, incorrect]`, at a row, in the order of
/// the forward pass. The parts sum to the logit difference.
///
/// # Panics
/// When the cache lacks one of [`ATTRIBUTION_POINTS`] or is of some rows alone, there is no such row, or a token is
/// outside the vocabulary.
pub fn direct_logit_attribution<F: Scalar>(
    model: &Gpt2<F>,
    cache: &ActivationCache<F>,
    row: usize,
    answers: [u32; 2],
) -> Vec<(Component, f64)> {
    let [correct, incorrect] = answers;
    F::run::<AttributionJob>((model, cache, row, correct, Some(incorrect)))
}

/// What each component adds to the logit of a token above the mean logit of the vocabulary, at a row, in the order of
/// the forward pass. The parts sum to it.
///
/// A logit alone has no meaning, since adding one number to all of them changes no probability. With the mean taken
/// off, parts are those that TransformerLens gives after centring the unembedding.
///
/// # Panics
/// As [`direct_logit_attribution`].
pub fn centred_logit_attribution<F: Scalar>(
    model: &Gpt2<F>,
    cache: &ActivationCache<F>,
    row: usize,
    token: u32,
) -> Vec<(Component, f64)> {
    F::run::<AttributionJob>((model, cache, row, token, None))
}

/// Parts of the logit difference to another token, or to the mean logit.
fn attribution<F: Scalar>(
    model: &Gpt2<F>,
    cache: &ActivationCache<F>,
    row: usize,
    correct: u32,
    other: Option<u32>,
) -> Vec<(Component, f64)> {
    let config = model.config();
    let wte = model.matrix(ParamId::TokenEmbedding);
    let other = match other {
        Some(token) => wte.row(token as usize).to_owned(),
        None => {
            let n_tokens = F::from_f64(wte.nrows() as f64);
            wte.sum_axis(Axis(0)).mapv_into(|sum| sum / n_tokens)
        }
    };
    let direction = &wte.row(correct as usize) - &other;
    let gain = ArrayView1::from(model.get(ParamId::FinalNormWeight));
    let scaled = &direction * &gain;
    let last = state(cache, config.n_layer - 1, HookPoint::ResidPost);
    assert_eq!(last.nrows(), cache.batch().n_rows(), "rows of the cache and of its batch");
    let rstd = reciprocal_deviation(last.row(row), config.layer_norm_epsilon);
    let part = |written: ArrayView1<F>| {
        let mean = mean(written);
        let centred = written.iter().zip(&scaled).map(|(c, u)| (c.as_f64() - mean) * u.as_f64());
        rstd * centred.sum::<f64>()
    };

    let (token, position) = (cache.batch().tokens()[row] as usize, cache.batch().positions()[row]);
    let mut parts = vec![
        (Component::TokenEmbedding, part(wte.row(token))),
        (Component::PositionEmbedding, part(model.matrix(ParamId::PositionEmbedding).row(position))),
    ];
    let width = config.d_head();
    for layer in 0..config.n_layer {
        let w_o = model.matrix(ParamId::Block(layer, BlockParam::AttnOutWeight));
        for head in 0..config.n_head {
            let w_o = w_o.slice(s![head * width..(head + 1) * width, ..]);
            let written = cache.z(layer, head).row(row).dot(&w_o);
            parts.push((Component::Head(layer, head), part(written.view())));
        }
        let bias = model.get(ParamId::Block(layer, BlockParam::AttnOutBias));
        parts.push((Component::AttnBias(layer), part(bias.into())));
        parts.push((Component::Mlp(layer), part(state(cache, layer, HookPoint::MlpOut).row(row))));
    }
    let bias = model.get(ParamId::FinalNormBias).iter().zip(&direction);
    parts.push((Component::FinalNormBias, bias.map(|(b, u)| b.as_f64() * u.as_f64()).sum()));
    parts
}

fn state<F: Number>(
    cache: &ActivationCache<F>,
    layer: usize,
    point: HookPoint,
) -> ndarray::ArrayView2<'_, F> {
    cache.get(layer, point).unwrap_or_else(|| panic!("no {point:?} of layer {layer} in the cache"))
}

fn mean<F: Number>(x: ArrayView1<F>) -> f64 {
    x.iter().map(|x| x.as_f64()).sum::<f64>() / x.len() as f64
}

fn reciprocal_deviation<F: Number>(x: ArrayView1<F>, epsilon: f64) -> f64 {
    let mean = mean(x);
    let variance = x.iter().map(|x| (x.as_f64() - mean).powi(2)).sum::<f64>() / x.len() as f64;
    1.0 / (variance + epsilon).sqrt()
}
