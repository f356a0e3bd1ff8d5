//! Continuing a prompt: greedy or from the k likeliest tokens.

use ndarray::s;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use crate::batch::Batch;
use crate::error::Result;
use crate::forward::softmax;
use crate::params::Params;
use crate::scalar::Scalar;

/// How the next token is chosen.
#[derive(Debug)]
pub enum Sampling<'a> {
    /// The likeliest token; the first of equals.
    Greedy,
    /// One of the `k` likeliest, in proportion to their probabilities.
    TopK {
        /// Number of candidates.
        k: usize,
        /// Source of the draws.
        rng: &'a mut ChaCha8Rng,
    },
}

impl<F: Scalar> Params<F> {
    /// Appends `n` tokens to the prompt and returns them; stops early when the context is full.
    ///
    /// # Errors
    /// When the prompt is empty, too long or has an unknown token.
    pub fn generate(&self, prompt: &[u32], n: usize, mut sampling: Sampling<'_>) -> Result<Vec<u32>> {
        let mut tokens = prompt.to_vec();
        let end = (prompt.len() + n).min(self.config().n_positions.max(prompt.len()));
        while tokens.len() < end {
            let batch = Batch::new(self.config(), &[&tokens])?;
            let hidden = self.hidden(&batch);
            let logits = self.logits(hidden.slice(s![batch.n_rows() - 1.., ..]));
            let logits = logits.as_slice().expect("fresh arrays are contiguous");
            let next = match &mut sampling {
                Sampling::Greedy => ranked(logits)[0],
                Sampling::TopK { k, rng } => sample(logits, *k, rng),
            };
            tokens.push(next as u32);
        }
        Ok(tokens.split_off(prompt.len()))
    }
}

/// Tokens from the likeliest down; equal logits in order of token id.
fn ranked<F: Scalar>(logits: &[F]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.sort_by(|&a, &b| logits[b].partial_cmp(&logits[a]).unwrap_or(std::cmp::Ordering::Equal));
    order
}

fn sample<F: Scalar>(logits: &[F], k: usize, rng: &mut ChaCha8Rng) -> usize {
    let order = &ranked(logits)[..k.clamp(1, logits.len())];
    let mut p: Vec<F> = order.iter().map(|&token| logits[token]).collect();
    softmax(&mut p);
    let mut u: f64 = rng.random();
    for (&token, p) in order.iter().zip(&p) {
        u -= p.wide();
        if u < 0.0 {
            return token;
        }
    }
    order[order.len() - 1]
}
