//! Negative log-likelihood of target tokens.

use ndarray::{Array2, ArrayView2, Axis};
use rayon::prelude::*;

use crate::config::Config;
use crate::error::{Error, Result};
use crate::kernels::softmax;
use crate::model::batch::{Batch, unique_inverse};
use crate::model::tape::Tape;
use crate::model::weights::{Gpt2, ParamSet};
use crate::scalar::{Scalar, compiled};

/// One token to predict: the logits of `row` are scored against `token`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// Row of the packed batch whose state predicts the token.
    pub row: usize,
    /// The token.
    pub token: u32,
}

/// Prompts with targets behind them, packed, and the rows that predict the targets' tokens.
#[derive(Clone, Debug, PartialEq)]
pub struct PromptTargets<F> {
    /// The packed batch; the last token of each target is not fed in, since nothing reads its state.
    pub batch: Batch<F>,
    /// Targets of all sequences, in order.
    pub targets: Vec<Target>,
    /// Number of target tokens of each sequence.
    pub n_targets: Vec<usize>,
}

compiled!(
    PromptTargetsJob<'a>: <F> (&'a Config, Vec<(&'a [u32], &'a [u32])>, Packing<F>) => Result<PromptTargets<F>>,
    |(config, pairs, pack)| packed(config, pairs, pack)
);
compiled!(
    NllJob<'a>: <F> (&'a Gpt2<F>, ArrayView2<'a, F>, &'a [Target]) => Vec<f64>,
    |(model, hidden, targets)| nll(model, hidden, targets)
);
compiled!(
    NllBackwardJob<'a>: <F>
        (&'a Gpt2<F>, &'a Tape<F>, &'a [Target], &'a [F], &'a mut ParamSet<F>) => (Vec<f64>, Array2<F>),
    |(model, tape, targets, weights, grads)| nll_backward(model, tape, targets, weights, grads)
);
compiled!(NllOfRowJob<'a>: <F> (&'a mut [F], u32) => f64, |(logits, token)| nll_in_place(logits, token));
compiled!(LogSumExpJob<'a>: <F> &'a [F] => f64, softmax::log_sum_exp);
compiled!(LogSoftmaxJob<'a>: <F> &'a [F] => Vec<f64>, log_probabilities);

/// [`Batch::new`] or [`Batch::prefix_sharing`].
type Packing<F> = fn(&Config, &[Vec<u32>]) -> Result<Batch<F>>;

fn packed<F: Scalar>(
    config: &Config,
    pairs: Vec<(&[u32], &[u32])>,
    pack: Packing<F>,
) -> Result<PromptTargets<F>> {
    let mut sequences = Vec::with_capacity(pairs.len());
    let (mut tokens, mut n_targets) = (Vec::new(), Vec::new());
    for (i, (prompt, target)) in pairs.iter().enumerate() {
        if prompt.is_empty() {
            return Err(Error::Input(format!("prompt {i} has no tokens; expected at least one")));
        }
        if target.is_empty() {
            return Err(Error::Input(format!("target {i} has no tokens; expected at least one")));
        }
        let mut sequence = prompt.to_vec();
        sequence.extend_from_slice(&target[..target.len() - 1]);
        tokens.extend_from_slice(target);
        n_targets.push(target.len());
        sequences.push(sequence);
    }
    if let Some(token) = tokens.iter().find(|&&token| token as usize >= config.vocab_size) {
        return Err(Error::Input(format!(
            "a target has token {token}; the model's vocabulary has {}",
            config.vocab_size
        )));
    }
    let batch = pack(config, &sequences)?;
    // Each token of a target is predicted by the row before it; that of the last one is its sequence's last row.
    let rows = batch.rows();
    let rows = rows.iter().zip(&n_targets).flat_map(|(rows, &n)| &rows[rows.len() - n..]);
    let targets = rows.zip(tokens).map(|(&row, token)| Target { row, token }).collect();
    Ok(PromptTargets { batch, targets, n_targets })
}

/// Prompts and targets as slices.
fn slices<P: AsRef<[u32]>, T: AsRef<[u32]>>(pairs: &[(P, T)]) -> Vec<(&[u32], &[u32])> {
    pairs.iter().map(|(prompt, target)| (prompt.as_ref(), target.as_ref())).collect()
}

impl<F: Scalar> PromptTargets<F> {
    /// Packs each prompt with its target behind it.
    ///
    /// # Errors
    /// When a prompt or a target has no tokens or the two do not fit the context.
    pub fn new<P: AsRef<[u32]>, T: AsRef<[u32]>>(config: &Config, pairs: &[(P, T)]) -> Result<Self> {
        F::run::<PromptTargetsJob>((config, slices(pairs), Batch::new))
    }

    /// Packs each prompt with its target behind it; sequences that begin alike share rows ([`Batch::prefix_sharing`]).
    ///
    /// # Errors
    /// As [`PromptTargets::new`].
    pub fn prefix_sharing<P: AsRef<[u32]>, T: AsRef<[u32]>>(
        config: &Config,
        pairs: &[(P, T)],
    ) -> Result<Self> {
        F::run::<PromptTargetsJob>((config, slices(pairs), Batch::prefix_sharing))
    }

    /// Mean NLL per target token of each sequence, in nats.
    pub fn nll_per_token(&self, model: &Gpt2<F>) -> Vec<f64> {
        let hidden = model.run(&self.batch).hidden();
        self.mean_per_sequence(&model.nll(hidden.view(), &self.targets))
    }

    /// Averages token NLLs, one for each of [`PromptTargets::targets`], within each sequence.
    ///
    /// # Panics
    /// When there are fewer NLLs than targets.
    pub fn mean_per_sequence(&self, nll: &[f64]) -> Vec<f64> {
        let mut rest = nll;
        self.n_targets
            .iter()
            .map(|&n| {
                let (head, tail) = rest.split_at(n);
                rest = tail;
                head.iter().sum::<f64>() / n as f64
            })
            .collect()
    }
}

/// Targets whose logits are computed at a time, so that a batch never needs `[n, V]` at once.
const TARGETS_AT_A_TIME: usize = 128;
/// Logits that are computed at a time at least: with a small vocabulary more targets at a time save copies of the
/// embedding.
const LOGITS_AT_A_TIME: usize = 1 << 20;

fn nll<F: Scalar>(model: &Gpt2<F>, hidden: ArrayView2<F>, targets: &[Target]) -> Vec<f64> {
    let mut nll = Vec::with_capacity(targets.len());
    let at_a_time = TARGETS_AT_A_TIME.max(LOGITS_AT_A_TIME / model.config().vocab_size);
    for targets in targets.chunks(at_a_time) {
        let rows: Vec<usize> = targets.iter().map(|target| target.row).collect();
        let (rows, places) = unique_inverse(&rows);
        let logits = model.logits(hidden.select(Axis(0), &rows).view());
        let sums = logits.axis_iter(Axis(0)).into_par_iter();
        let sums: Vec<f64> = sums
            .map(|logits| softmax::log_sum_exp(logits.to_slice().expect("rows are contiguous")))
            .collect();
        let of_target = |(&place, target): (&usize, &Target)| {
            sums[place] - logits[[place, target.token as usize]].as_f64()
        };
        nll.extend(places.iter().zip(targets).map(of_target));
    }
    nll
}

fn nll_backward<F: Scalar>(
    model: &Gpt2<F>,
    tape: &Tape<F>,
    targets: &[Target],
    weights: &[F],
    grads: &mut ParamSet<F>,
) -> (Vec<f64>, Array2<F>) {
    assert_eq!(targets.len(), weights.len(), "one weight per target");
    let mut nll = Vec::with_capacity(targets.len());
    let mut d_hidden = Array2::zeros(tape.hidden.dim());
    for (targets, weights) in targets.chunks(TARGETS_AT_A_TIME).zip(weights.chunks(TARGETS_AT_A_TIME)) {
        let rows: Vec<usize> = targets.iter().map(|target| target.row).collect();
        let hidden = tape.hidden.select(Axis(0), &rows);
        let mut logits = model.logits(hidden.view());
        let of_targets = targets.par_iter().zip(weights);
        let rows_of_logits = logits.axis_iter_mut(Axis(0)).into_par_iter().zip(of_targets);
        nll.par_extend(rows_of_logits.map(|(mut row, (target, &weight))| {
            let row = row.as_slice_mut().expect("rows are contiguous");
            let nll = nll_in_place(row, target.token);
            row.iter_mut().for_each(|x| *x *= weight);
            nll
        }));
        let d_rows = model.logits_backward(hidden.view(), logits.view(), grads);
        for (d_row, &row) in d_rows.rows().into_iter().zip(&rows) {
            let mut sum = d_hidden.row_mut(row);
            sum += &d_row;
        }
    }
    (nll, d_hidden)
}

impl<F: Scalar> Gpt2<F> {
    /// NLL of each target given the hidden states `[n, d]` of the whole batch, in nats.
    ///
    /// # Panics
    /// When there is no row or no token of a target.
    pub fn nll(&self, hidden: ArrayView2<F>, targets: &[Target]) -> Vec<f64> {
        F::run::<NllJob>((self, hidden, targets))
    }

    /// NLL of each target in nats and, for the loss `sum_i weights[i] nll_i`, the gradient of the tape's hidden states
    /// `[n, d]`; adds to the token embedding's gradient (the tied head) when `grads` holds it.
    ///
    /// # Panics
    /// When there are not as many weights as targets, or there is no row or no token of a target.
    pub fn nll_backward(
        &self,
        tape: &Tape<F>,
        targets: &[Target],
        weights: &[F],
        grads: &mut ParamSet<F>,
    ) -> (Vec<f64>, Array2<F>) {
        F::run::<NllBackwardJob>((self, tape, targets, weights, grads))
    }
}

/// NLL of a token given its logits `[V]`, in nats. The logits become the gradient of that with respect to them.
///
/// # Panics
/// When there is no logit of the token.
pub fn nll_of_row<F: Scalar>(logits: &mut [F], token: u32) -> f64 {
    F::run::<NllOfRowJob>((logits, token))
}

fn nll_in_place<F: Scalar>(logits: &mut [F], token: u32) -> f64 {
    let token = token as usize;
    let wanted = logits[token].as_f64();
    let (max, sum) = softmax::exponentials(logits);
    // nll = log sum exp(logits) - logits[token]; so d_logits = softmax(logits) - onehot(token)
    let scale = F::from_f64(1.0 / sum);
    logits.iter_mut().for_each(|x| *x *= scale);
    logits[token] -= F::one();
    max + sum.ln() - wanted
}

/// `log sum exp(x)`, accumulated in f64.
pub fn log_sum_exp<F: Scalar>(x: &[F]) -> f64 {
    F::run::<LogSumExpJob>(x)
}

/// Log probabilities `[V]` of logits, in nats.
pub fn log_softmax<F: Scalar>(logits: &[F]) -> Vec<f64> {
    F::run::<LogSoftmaxJob>(logits)
}

fn log_probabilities<F: Scalar>(logits: &[F]) -> Vec<f64> {
    let log_sum = softmax::log_sum_exp(logits);
    logits.iter().map(|x| x.as_f64() - log_sum).collect()
}
