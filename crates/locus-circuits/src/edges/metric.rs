//! What a run of the model is measured by: a number per pair, read off the logits at the last token.

use locus_gpt2::{Gpt2, Scalar, axpy, dot, gemm, log_softmax};
use ndarray::{Array1, Array2, ArrayView1, ArrayView2};
use serde::{Deserialize, Serialize};

use super::pairs::Pair;

/// A metric. All but the divergence are higher where the model does the task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Metric {
    /// Mean logit of the good answers minus that of the bad ones.
    LogitDiff,
    /// Total probability of the good answers minus that of the bad ones.
    ProbDiff,
    /// `KL(full model on the clean prompt || run)` in nats, summed over the vocabulary. Its gradient at the clean run
    /// is zero.
    Kl,
}

impl Metric {
    /// The name used in files and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Metric::LogitDiff => "logit-diff",
            Metric::ProbDiff => "prob-diff",
            Metric::Kl => "kl",
        }
    }

    /// Whether more is better. Losses are minus such a metric, and the metric itself otherwise.
    pub fn higher_is_better(self) -> bool {
        self != Metric::Kl
    }

    /// Sign that turns the metric into a loss.
    pub(super) fn loss_sign(self) -> f64 {
        if self.higher_is_better() { -1.0 } else { 1.0 }
    }

    /// Value for one pair. `hidden [d]` is the run's last hidden state, `clean [d]` that of the full model on the clean
    /// prompt (read only by [`Metric::Kl`]).
    pub fn value<F: Scalar>(
        self,
        model: &Gpt2<F>,
        pair: &Pair,
        hidden: ArrayView1<F>,
        clean: ArrayView1<F>,
    ) -> f64 {
        match self {
            Metric::LogitDiff => {
                let direction = logit_direction(model, pair);
                dot(hidden.as_slice().expect("rows are contiguous"), &direction).as_f64()
            }
            Metric::ProbDiff => {
                let p = probabilities(model, hidden);
                let sum = |answers: &[u32]| answers.iter().map(|&token| p[token as usize]).sum::<f64>();
                sum(&pair.good) - sum(&pair.bad)
            }
            Metric::Kl => {
                let (p, q) = (log_probabilities(model, clean), log_probabilities(model, hidden));
                p.iter().zip(&q).map(|(&p, &q)| p.exp() * (p - q)).sum()
            }
        }
    }

    /// Gradient of the *loss* with respect to `hidden`, `[d]`.
    pub(super) fn loss_gradient<F: Scalar>(
        self,
        model: &Gpt2<F>,
        pair: &Pair,
        hidden: ArrayView1<F>,
        clean: ArrayView1<F>,
    ) -> Array1<F> {
        let d_logits: Vec<f64> = match self {
            Metric::LogitDiff => {
                // No product over the vocabulary: the gradient is a direction of the unembedding.
                let direction = logit_direction(model, pair);
                return Array1::from(direction).mapv(|x| F::from_f64(self.loss_sign()) * x);
            }
            Metric::ProbDiff => {
                let p = probabilities(model, hidden);
                let sign = |token: usize| {
                    let within = |answers: &[u32]| f64::from(u8::from(answers.contains(&(token as u32))));
                    within(&pair.good) - within(&pair.bad)
                };
                // d p_i / d logit_j = p_i ([i = j] - p_j)
                let total: f64 = p.iter().enumerate().map(|(token, p)| sign(token) * p).sum();
                p.iter().enumerate().map(|(token, p)| self.loss_sign() * p * (sign(token) - total)).collect()
            }
            Metric::Kl => {
                let (p, q) = (probabilities(model, clean), probabilities(model, hidden));
                q.iter().zip(&p).map(|(q, p)| q - p).collect()
            }
        };
        let d_logits: Array2<F> =
            Array2::from_shape_fn((1, d_logits.len()), |(_, token)| F::from_f64(d_logits[token]));
        let wte = model.matrix(locus_gpt2::ParamId::TokenEmbedding);
        let mut d_hidden = Array2::zeros((1, hidden.len()));
        gemm(F::one(), d_logits.view(), wte, F::zero(), d_hidden.view_mut());
        d_hidden.row(0).to_owned()
    }
}

/// Mean unembedding of the good answers minus that of the bad ones, `[d]`.
fn logit_direction<F: Scalar>(model: &Gpt2<F>, pair: &Pair) -> Vec<F> {
    let wte = model.matrix(locus_gpt2::ParamId::TokenEmbedding);
    let mut direction = vec![F::zero(); wte.ncols()];
    for (sign, answers) in [(1.0, &pair.good), (-1.0, &pair.bad)] {
        for &token in answers {
            let row = wte.row(token as usize);
            let share = F::from_f64(sign / answers.len() as f64);
            axpy(share, row.to_slice().expect("rows are contiguous"), &mut direction);
        }
    }
    direction
}

fn log_probabilities<F: Scalar>(model: &Gpt2<F>, hidden: ArrayView1<F>) -> Vec<f64> {
    let row: ArrayView2<F> = hidden.insert_axis(ndarray::Axis(0));
    log_softmax(model.logits(row).as_slice().expect("logits are contiguous"))
}

fn probabilities<F: Scalar>(model: &Gpt2<F>, hidden: ArrayView1<F>) -> Vec<f64> {
    log_probabilities(model, hidden).into_iter().map(f64::exp).collect()
}
