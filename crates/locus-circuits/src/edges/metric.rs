//! Metrics of a run of the model: a number per pair, computed from the logits at the last token.
//!
//! Letters: `d` width, `V` vocabulary.

use std::str::FromStr;

use locus_gpt2::{Error, Gpt2, ParamId, Result, Scalar, axpy, dot, gemm, log_softmax};
use ndarray::{Array1, Array2, ArrayView1, Axis};

use super::names::by_name;
use super::pairs::Pair;

/// A metric of a run: [`LogitDiff`], [`ProbDiff`], [`Kl`], or one of your own.
///
/// ```
/// use locus_circuits::edges::{Metric, Pair};
///
/// /// The first correct answer's logit, squashed to (-1, 1).
/// struct Squashed;
///
/// impl Metric<f64> for Squashed {
///     fn value(&self, pair: &Pair, logits: &[f64], _clean: &[f64]) -> f64 {
///         logits[pair.correct[0] as usize].tanh()
///     }
///
///     fn gradient(&self, pair: &Pair, logits: &[f64], clean: &[f64]) -> Vec<f64> {
///         let mut d_logits = vec![0.0; logits.len()];
///         d_logits[pair.correct[0] as usize] = 1.0 - self.value(pair, logits, clean).powi(2);
///         d_logits
///     }
/// }
/// ```
pub trait Metric<F: Scalar>: Sync {
    /// Value for a pair. `logits [V]` are those of the run at the last token, `clean [V]` those of the intact model on
    /// the clean prompt.
    fn value(&self, pair: &Pair, logits: &[F], clean: &[F]) -> f64;

    /// Derivative of the value with respect to each of the run's logits, `[V]`.
    fn gradient(&self, pair: &Pair, logits: &[F], clean: &[F]) -> Vec<f64>;

    /// Whether more is better. Edges are scored by a loss: minus the metric if so, and the metric itself otherwise.
    fn higher_is_better(&self) -> bool {
        true
    }

    /// Tokens with their weights, for a metric that is a weighted sum of a few logits. [`Metric::value`] and
    /// [`Metric::gradient`] are then not called: a few rows of the unembedding replace a product over the vocabulary.
    fn logit_weights(&self, _pair: &Pair) -> Option<Vec<(u32, f64)>> {
        None
    }
}

/// Logit difference: mean logit of the correct answers minus that of the incorrect ones (Wang et al. 2022, arXiv
/// 2211.00593, section 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogitDiff;

/// Total probability of the correct answers minus that of the incorrect ones (Hanna et al. 2023, arXiv 2305.00586,
/// section 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProbDiff;

/// `KL(intact model on the clean prompt || run)` in nats, over the whole vocabulary; lower is better. The gradient at
/// the clean run is zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kl;

impl<F: Scalar> Metric<F> for LogitDiff {
    fn value(&self, pair: &Pair, logits: &[F], _clean: &[F]) -> f64 {
        mean_differences(pair).map(|(token, weight)| weight * logits[token as usize].as_f64()).sum()
    }

    fn gradient(&self, pair: &Pair, logits: &[F], _clean: &[F]) -> Vec<f64> {
        let mut d_logits = vec![0.0; logits.len()];
        mean_differences(pair).for_each(|(token, weight)| d_logits[token as usize] += weight);
        d_logits
    }

    fn logit_weights(&self, pair: &Pair) -> Option<Vec<(u32, f64)>> {
        Some(mean_differences(pair).collect())
    }
}

/// Weights that make a sum of logits the mean over the correct answers minus the mean over the incorrect ones.
fn mean_differences(pair: &Pair) -> impl Iterator<Item = (u32, f64)> {
    let weighted = |answers: &[u32], sign: f64| {
        let share = sign / answers.len() as f64;
        answers.iter().map(|&token| (token, share)).collect::<Vec<_>>()
    };
    weighted(&pair.correct, 1.0).into_iter().chain(weighted(&pair.incorrect, -1.0))
}

impl<F: Scalar> Metric<F> for ProbDiff {
    fn value(&self, pair: &Pair, logits: &[F], _clean: &[F]) -> f64 {
        let p = probabilities(logits);
        let sum = |answers: &[u32]| answers.iter().map(|&token| p[token as usize]).sum::<f64>();
        sum(&pair.correct) - sum(&pair.incorrect)
    }

    fn gradient(&self, pair: &Pair, logits: &[F], _clean: &[F]) -> Vec<f64> {
        let p = probabilities(logits);
        let sign = |token: usize| {
            let within = |answers: &[u32]| f64::from(u8::from(answers.contains(&(token as u32))));
            within(&pair.correct) - within(&pair.incorrect)
        };
        // d p_i / d logit_j = p_i ([i = j] - p_j)
        let total: f64 = p.iter().enumerate().map(|(token, p)| sign(token) * p).sum();
        p.iter().enumerate().map(|(token, p)| p * (sign(token) - total)).collect()
    }
}

impl<F: Scalar> Metric<F> for Kl {
    fn value(&self, _pair: &Pair, logits: &[F], clean: &[F]) -> f64 {
        let (p, q) = (log_softmax(clean), log_softmax(logits));
        p.iter().zip(&q).map(|(&p, &q)| p.exp() * (p - q)).sum()
    }

    fn gradient(&self, _pair: &Pair, logits: &[F], clean: &[F]) -> Vec<f64> {
        let (p, q) = (probabilities(clean), probabilities(logits));
        q.iter().zip(&p).map(|(q, p)| q - p).collect()
    }

    fn higher_is_better(&self) -> bool {
        false
    }
}

fn probabilities<F: Scalar>(logits: &[F]) -> Vec<f64> {
    log_softmax(logits).into_iter().map(f64::exp).collect()
}

/// Metrics with a name in files and on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StandardMetric {
    /// [`LogitDiff`]
    LogitDiff,
    /// [`ProbDiff`]
    ProbDiff,
    /// [`Kl`]
    Kl,
}

impl StandardMetric {
    /// All of them.
    pub const ALL: [StandardMetric; 3] =
        [StandardMetric::LogitDiff, StandardMetric::ProbDiff, StandardMetric::Kl];

    /// The name used in files and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            StandardMetric::LogitDiff => "logit-diff",
            StandardMetric::ProbDiff => "prob-diff",
            StandardMetric::Kl => "kl",
        }
    }

    /// The metric itself.
    pub fn metric<F: Scalar>(self) -> &'static dyn Metric<F> {
        match self {
            StandardMetric::LogitDiff => &LogitDiff,
            StandardMetric::ProbDiff => &ProbDiff,
            StandardMetric::Kl => &Kl,
        }
    }
}

impl FromStr for StandardMetric {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        by_name("metric", name, &Self::ALL, |metric| metric.name())
    }
}

/// The sign, 1 or -1, that turns a metric into a loss.
pub(super) fn loss_sign<F: Scalar>(metric: &dyn Metric<F>) -> f64 {
    if metric.higher_is_better() { -1.0 } else { 1.0 }
}

/// Value for one pair from the last hidden states `[d]` of the run and of the intact model on the clean prompt.
pub(super) fn value_at<F: Scalar>(
    metric: &dyn Metric<F>,
    model: &Gpt2<F>,
    pair: &Pair,
    hidden: ArrayView1<F>,
    clean: ArrayView1<F>,
) -> f64 {
    match metric.logit_weights(pair) {
        Some(weights) => {
            dot(hidden.as_slice().expect("rows are contiguous"), &direction(model, &weights)).as_f64()
        }
        None => metric.value(pair, &logits_of(model, hidden), &logits_of(model, clean)),
    }
}

/// Gradient of the *loss* with respect to the last hidden state, `[d]`.
///
/// # Panics
/// When the metric's gradient does not have one number per token of the vocabulary.
pub(super) fn loss_gradient_at<F: Scalar>(
    metric: &dyn Metric<F>,
    model: &Gpt2<F>,
    pair: &Pair,
    hidden: ArrayView1<F>,
    clean: ArrayView1<F>,
) -> Array1<F> {
    let sign = loss_sign(metric);
    if let Some(weights) = metric.logit_weights(pair) {
        return Array1::from(direction(model, &weights)).mapv(|x| F::from_f64(sign) * x);
    }
    let d_logits = metric.gradient(pair, &logits_of(model, hidden), &logits_of(model, clean));
    let vocabulary = model.config().vocab_size;
    assert_eq!(d_logits.len(), vocabulary, "a metric's gradient has a number per token of the vocabulary");
    let d_logits: Array2<F> =
        Array2::from_shape_fn((1, vocabulary), |(_, token)| F::from_f64(sign * d_logits[token]));
    let wte = model.matrix(ParamId::TokenEmbedding);
    let mut d_hidden = Array2::zeros((1, hidden.len()));
    gemm(F::one(), d_logits.view(), wte, F::zero(), d_hidden.view_mut());
    d_hidden.row(0).to_owned()
}

/// Weighted sum of rows of the unembedding, `[d]`.
fn direction<F: Scalar>(model: &Gpt2<F>, weights: &[(u32, f64)]) -> Vec<F> {
    let wte = model.matrix(ParamId::TokenEmbedding);
    let mut direction = vec![F::zero(); wte.ncols()];
    for &(token, weight) in weights {
        let row = wte.row(token as usize);
        axpy(F::from_f64(weight), row.to_slice().expect("rows are contiguous"), &mut direction);
    }
    direction
}

/// Logits `[V]` of a hidden state `[d]`.
fn logits_of<F: Scalar>(model: &Gpt2<F>, hidden: ArrayView1<F>) -> Vec<F> {
    model.logits(hidden.insert_axis(Axis(0))).into_raw_vec_and_offset().0
}
