//! Generation: the likeliest token at each step, or one drawn from the likeliest.
//!
//! A draw takes three steps, in the order of Hugging Face transformers: logits are divided by the temperature, the `k`
//! likeliest tokens stay (Fan et al. 2018), and of these the fewest whose probabilities among the `k` together reach
//! `p` (nucleus sampling, Holtzman et al. 2020, section 3.1).

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
    /// One of the likeliest, in proportion to their probabilities.
    Draw {
        /// Divides the logits; above 0. One leaves the model's distribution as it is.
        temperature: f64,
        /// Largest number of candidates; at least one stays.
        top_k: usize,
        /// Probability that the candidates have together, of all `top_k`; one keeps all of these.
        top_p: f64,
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
            Sampling::Draw { temperature, top_k, top_p, rng } => {
                draw(logits, *temperature, (*top_k, *top_p), rng)
            }
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

fn draw<F: Scalar>(logits: &[F], temperature: f64, (k, p): (usize, f64), rng: &mut ChaCha8Rng) -> usize {
    let order = &ranked(logits)[..k.clamp(1, logits.len())];
    let temperature = F::from_f64(temperature);
    // Differences to the largest logit: a low temperature makes them far from zero, not infinite on both sides.
    let mut weights: Vec<F> =
        order.iter().map(|&token| (logits[token] - logits[order[0]]) / temperature).collect();
    softmax(&mut weights);
    let kept = nucleus(&weights, p);
    let mass = if kept == order.len() { 1.0 } else { weights[..kept].iter().map(|w| w.as_f64()).sum() };
    let mut u = rng.random::<f64>() * mass;
    for (&token, w) in order[..kept].iter().zip(&weights) {
        u -= w.as_f64();
        if u < 0.0 {
            return token;
        }
    }
    order[kept - 1]
}

/// The smallest number of probabilities, given from the largest down, that together reach `p`; at least one.
fn nucleus<F: Scalar>(probabilities: &[F], p: f64) -> usize {
    if p >= 1.0 {
        // Rounding could end the sum below 1 or reach it early.
        return probabilities.len();
    }
    let mut sum = 0.0;
    let reached = |w: &F| {
        sum += w.as_f64();
        sum >= p
    };
    probabilities.iter().position(reached).map_or(probabilities.len(), |last| last + 1)
}

#[cfg(test)]
mod tests {
    use rand_chacha::rand_core::SeedableRng;

    use super::*;
    use crate::config::Config;

    /// Tokens drawn with the KV cache are those drawn from passes over all tokens so far, and the seed decides them.
    #[test]
    fn cached_and_whole_passes_draw_the_same_tokens() {
        let config = Config { initializer_range: 0.2, ..Config::new(2, 2, 16, 24, 40) };
        let model = Gpt2::<f64>::init(&config, &mut ChaCha8Rng::seed_from_u64(1));
        let prompt = [3, 1, 4, 1];
        let (temperature, top_k, top_p) = (1.5, 30, 0.95);
        let cached = |seed| {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            let sampling = Sampling::Draw { temperature, top_k, top_p, rng: &mut rng };
            model.generate(&prompt, 40, sampling).unwrap()
        };
        let mut rng = ChaCha8Rng::seed_from_u64(7);
        let mut whole = prompt.to_vec();
        while whole.len() < config.n_positions {
            let batch = Batch::new(&config, &[&whole]).unwrap();
            let logits = model.run(&batch).logits();
            let last = logits.row(whole.len() - 1).to_vec();
            whole.push(draw(&last, temperature, (top_k, top_p), &mut rng) as u32);
        }
        assert_eq!(cached(7), whole[prompt.len()..]);
        assert_ne!(cached(7), cached(8));
    }

    /// Draws follow the distribution worked out by hand, and never leave the candidates.
    #[test]
    fn draws_follow_temperature_and_candidates() {
        // At temperature 2, logits are the logarithms of 8, 4, 2, 1 and 1.
        let logits: Vec<f64> = [1.0f64, 4.0, 8.0, 2.0, 1.0].iter().map(|w| 2.0 * w.ln()).collect();
        let shares = |top_k, top_p| {
            let mut rng = ChaCha8Rng::seed_from_u64(3);
            let mut counts = [0.0; 5];
            for _ in 0..4000 {
                counts[draw(&logits, 2.0, (top_k, top_p), &mut rng)] += 1.0 / 4000.0;
            }
            counts
        };
        let n = [1.0, 4.0, 8.0, 2.0, 1.0];
        for (top_k, top_p, kept) in [
            (5, 1.0, vec![0, 1, 2, 3, 4]),
            (9, 0.99, vec![0, 1, 2, 3, 4]),
            (2, 1.0, vec![1, 2]),
            (3, 0.6, vec![1, 2]),
            (5, 0.45, vec![2]),
            (0, 1.0, vec![2]),
            (5, 0.0, vec![2]),
        ] {
            let mass: f64 = kept.iter().map(|&token: &usize| n[token]).sum();
            for (token, share) in shares(top_k, top_p).into_iter().enumerate() {
                let expected = if kept.contains(&token) { n[token] / mass } else { 0.0 };
                // Four standard deviations of a share of 4000 draws are at most 0.032.
                let tolerance = if kept.contains(&token) { 0.032 } else { 0.0 };
                assert!(
                    (share - expected).abs() <= tolerance,
                    "{top_k}, {top_p}: {token}: {share}, {expected}"
                );
            }
        }
    }
}
