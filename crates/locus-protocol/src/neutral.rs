//! Neutral text: how good a language model a masked or edited model still is.

use anyhow::Result;
use locus_editors::token_lines;
use locus_gpt2::ndarray::Axis;
use locus_gpt2::{Checkpoint, Gpt2, PromptTargets, Scalar, log_softmax};
use rayon::prelude::*;

use crate::editors::DRIFT_TOKENS;

/// Tokens of neutral text that masks and edits are measured on, at least (whole lines are taken).
const TOKENS: usize = 256;

/// Tokenised neutral text with the full model's predictions.
pub struct NeutralText<F> {
    /// The text: the first token of a line is the prompt, all others are targets.
    pub packed: PromptTargets<F>,
    /// Mean NLL per token of the full model, in nats.
    pub nll: f64,
    /// Log probabilities `[V]` of the full model for every target.
    log_probabilities: Vec<Vec<f64>>,
}

impl<F: Scalar> NeutralText<F> {
    /// Whether a text can serve: has a line of two tokens or more near its beginning.
    ///
    /// # Errors
    /// When a line cannot be tokenised.
    pub fn is_usable(checkpoint: &Checkpoint<F>, text: &str) -> Result<bool> {
        Ok(token_lines(checkpoint, text, DRIFT_TOKENS)?.iter().any(|line| line.len() > 1))
    }

    /// Tokenises the first lines of a text and runs the model on them; `None` when no line has two tokens.
    ///
    /// # Errors
    /// When a line cannot be tokenised.
    pub fn new(checkpoint: &Checkpoint<F>, text: &str) -> Result<Option<Self>> {
        let Checkpoint { model, .. } = checkpoint;
        let lines = token_lines(checkpoint, text, TOKENS)?;
        let lines: Vec<_> = lines.iter().filter(|line| line.len() > 1).map(|line| line.split_at(1)).collect();
        if lines.is_empty() {
            return Ok(None);
        }
        let packed = PromptTargets::new(model.config(), &lines)?;
        let log_probabilities = log_probabilities(model, &packed);
        let nll = mean_nll(&packed, &log_probabilities);
        Ok(Some(NeutralText { packed, nll, log_probabilities }))
    }

    /// NLL of the text in nats per token, and the mean KL divergence from the full model's next-token distribution to
    /// that of `model`, in nats per token.
    pub fn nll_and_kl(&self, model: &Gpt2<F>) -> (f64, f64) {
        let other = log_probabilities(model, &self.packed);
        let kl = |(full, other): (&Vec<f64>, &Vec<f64>)| {
            full.iter().zip(other).map(|(&full, &other)| full.exp() * (full - other)).sum::<f64>()
        };
        let divergences: Vec<f64> = self.log_probabilities.par_iter().zip(&other).map(kl).collect();
        (mean_nll(&self.packed, &other), divergences.iter().sum::<f64>() / divergences.len() as f64)
    }

    /// Mean of NLLs per line, weighted by the lines' targets: the mean per token, in nats.
    pub fn mean_of_lines(&self, nll: &[f64]) -> f64 {
        let n = &self.packed.n_targets;
        let sum: f64 = nll.iter().zip(n).map(|(nll, &n)| nll * n as f64).sum();
        sum / n.iter().sum::<usize>() as f64
    }
}

fn log_probabilities<F: Scalar>(model: &Gpt2<F>, packed: &PromptTargets<F>) -> Vec<Vec<f64>> {
    let hidden = model.run(&packed.batch).hidden();
    let rows: Vec<usize> = packed.targets.iter().map(|target| target.row).collect();
    let logits = model.logits(hidden.select(Axis(0), &rows).view());
    let rows: Vec<_> = logits.rows().into_iter().collect();
    rows.into_par_iter().map(|row| log_softmax(row.as_slice().expect("rows are contiguous"))).collect()
}

fn mean_nll<F>(packed: &PromptTargets<F>, log_probabilities: &[Vec<f64>]) -> f64 {
    let targets = packed.targets.iter().zip(log_probabilities);
    let sum: f64 = targets.map(|(target, logs)| -logs[target.token as usize]).sum();
    sum / packed.targets.len() as f64
}
