//! Generation: the likeliest token at each step, or one drawn from the `k` likeliest.

use ndarray::ArrayViewMut2;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::batch::Batch;
use super::hooks::HookPoint;
use super::kv_cache::KvCache;
use super::weights::Gpt2;
use crate::error::Result;
use crate::kernels::softmax::softmax;
use crate::scalar::{Scalar, compiled};

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

compiled!(
    GenerateJob<'a>: <F> (&'a Gpt2<F>, &'a [u32], usize, Sampling<'a>) => Result<Vec<u32>>,
    |(model, prompt, n, sampling)| generate(model, prompt, n, sampling)
);

fn generate<F: Scalar>(
    model: &Gpt2<F>,
    prompt: &[u32],
    n: usize,
    mut sampling: Sampling<'_>,
) -> Result<Vec<u32>> {
    let config = model.config();
    let mut cache = KvCache::empty(config, 1);
    let mut tokens = Vec::new();
    let n = n.min(config.n_positions.saturating_sub(prompt.len()));
    // The prompt is checked even when nothing is to be appended.
    let mut batch = Batch::after(config, cache.clone(), &[prompt])?;
    while tokens.len() < n {
        let mut qkv = Vec::with_capacity(config.n_layer);
        let mut keep = |_: usize, point: HookPoint, state: ArrayViewMut2<F>| {
            if point == HookPoint::Qkv {
                qkv.push(state.to_owned());
            }
        };
        let logits = model.run(&batch).reading(&batch.last_rows()).with_hooks(&mut keep).logits();
        let logits = logits.as_slice().expect("fresh arrays are contiguous");
        let next = match &mut sampling {
            Sampling::Greedy => ranked(logits)[0],
            Sampling::TopK { k, rng } => sample(logits, *k, rng),
        } as u32;
        tokens.push(next);
        if tokens.len() < n {
            cache.push(&qkv);
            batch = Batch::after(config, cache.clone(), &[[next]])?;
        }
    }
    Ok(tokens)
}

impl<F: Scalar> Gpt2<F> {
    /// Appends `n` tokens to the prompt and returns them; stops early when the context is full. Each token is run once:
    /// a KV cache keeps those before it.
    ///
    /// # Errors
    /// When the prompt is empty, too long or has an unknown token.
    pub fn generate(&self, prompt: &[u32], n: usize, sampling: Sampling<'_>) -> Result<Vec<u32>> {
        F::run::<GenerateJob>((self, prompt, n, sampling))
    }
}

/// Token ids from the likeliest down; equal logits in order of token id.
pub(crate) fn ranked<F: Scalar>(logits: &[F]) -> Vec<usize> {
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
        u -= p.as_f64();
        if u < 0.0 {
            return token;
        }
    }
    order[order.len() - 1]
}
