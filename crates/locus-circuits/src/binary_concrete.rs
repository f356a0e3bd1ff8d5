//! The study's mask training: straight-through binary-concrete masks under a growing sparseness penalty.
//!
//! One logit `l` per block parameter. Each step draws logistic noise `g` and runs the model with `h w`, where
//!
//! ```text
//! s = sigmoid((l + g) / temperature)     h = [s > 1/2] = [l + g > 0]
//! loss = CE(h w, class of the full model) + lambda mean(sigmoid(l))
//! d loss / d l = w (d CE / d (h w)) s (1 - s) / temperature + lambda sigmoid(l) (1 - sigmoid(l)) / N
//! ```
//!
//! Source: arXiv 2406.17241 and its code (STUDY section 4); the relaxation is Maddison et al. 2017, the straight-through
//! gradient Bengio et al. 2013. Deviations: noise comes from a counter-based generator; sequences are packed without
//! padding; the model has no dropout. One trajectory serves every density target: a circuit is the mask sampled after
//! the first epoch whose density is at or below its target.

use locus_gpt2::{AdamW, Moments, ParamId, ParamMask, Params, Result, Scalar, shuffle};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use rayon::prelude::*;

use crate::noise::Noise;
use crate::objective::Objective;
use crate::{Circuit, Progress};

/// Constants of the recipe; the default is what was published.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BinaryConcrete {
    /// Mean of the initial logits.
    pub init_mean: f64,
    /// Standard deviation of the initial logits.
    pub init_std: f64,
    /// Temperature of the relaxation, above 0.
    pub temperature: f64,
    /// Learning rate of AdamW; 0.01 or 0.1 in the study.
    pub lr: f64,
    /// Its weight decay.
    pub weight_decay: f64,
    /// Sparseness weight in the first epoch.
    pub lambda_start: f64,
    /// Added to it after each epoch.
    pub lambda_growth: f64,
    /// Its largest value.
    pub lambda_max: f64,
    /// Rows per step.
    pub batch_rows: usize,
    /// Epochs after which the run gives up on targets it has not reached. Not part of the published recipe, which has no limit.
    pub max_epochs: usize,
}

impl Default for BinaryConcrete {
    fn default() -> Self {
        BinaryConcrete {
            init_mean: 2.7,
            init_std: 0.01,
            temperature: 0.01,
            lr: 0.01,
            weight_decay: 0.01,
            lambda_start: 10.0,
            lambda_growth: 1.0,
            lambda_max: 1000.0,
            batch_rows: 128,
            max_epochs: 4000,
        }
    }
}

/// Logits, moments and the last sample of one tensor.
struct Tensor<F> {
    id: ParamId,
    logits: Vec<F>,
    moments: Moments<F>,
    /// `s (1 - s) / temperature` of the last sample.
    gate: Vec<F>,
    inside: Vec<u8>,
}

impl BinaryConcrete {
    /// Trains one trajectory and returns a circuit per target, in the order of `targets` (descending densities).
    /// A target that is not reached gets the last epoch's mask with `reached` false.
    ///
    /// # Errors
    /// When a sequence does not fit the model.
    pub fn train<F: Scalar>(
        &self,
        objective: &Objective<'_, F>,
        targets: &[f64],
        seed: u64,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Vec<Circuit>> {
        let config = objective.model.config();
        let population = ParamMask::population(config) as f64;
        let mut tensors: Vec<Tensor<F>> =
            ParamId::maskable(config).map(|id| self.tensor(id, config, seed)).collect();
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut order: Vec<usize> = (0..objective.sequences.len()).collect();
        let mut circuits = Vec::new();
        let mut t = 0;
        for epoch in 0..self.max_epochs {
            let lambda = (self.lambda_start + self.lambda_growth * epoch as f64).min(self.lambda_max);
            shuffle(&mut order, &mut rng);
            for rows in order.chunks(self.batch_rows) {
                t += 1;
                let masked = self.sample(&mut tensors, objective.model, seed, 2 * t as u64);
                let (_, grads) = objective.gradient(&masked, rows)?;
                let adam = AdamW { weight_decay: self.weight_decay, ..AdamW::new(self.lr) };
                tensors.par_iter_mut().for_each(|tensor| {
                    let weights = objective.model.get(tensor.id);
                    let grads = grads.get(tensor.id);
                    let penalty = F::of(lambda / population);
                    let d_logits: Vec<F> = (0..weights.len())
                        .map(|i| {
                            let p = F::one() / (F::one() + (-tensor.logits[i]).exp_());
                            weights[i] * grads[i] * tensor.gate[i] + penalty * p * (F::one() - p)
                        })
                        .collect();
                    adam.step(t, &mut tensor.logits, &d_logits, &mut tensor.moments);
                });
            }
            // An odd stream number: this draw is never one that a training step used.
            self.sample(&mut tensors, objective.model, seed, 2 * t as u64 + 1);
            let count: usize = tensors
                .iter()
                .map(|tensor| tensor.inside.iter().map(|&b| usize::from(b)).sum::<usize>())
                .sum();
            let density = count as f64 / population;
            progress(Progress { density, next_target: targets[circuits.len()] });
            let last = epoch + 1 == self.max_epochs;
            while circuits.len() < targets.len() && (last || density <= targets[circuits.len()]) {
                let mut inside = tensors.iter().flat_map(|tensor| tensor.inside.iter().copied());
                circuits.push(Circuit {
                    mask: ParamMask::from_fn(config, |_, _| inside.next() == Some(1)),
                    target_density: targets[circuits.len()],
                    reached: density <= targets[circuits.len()],
                    epochs: epoch + 1,
                    steps: t,
                });
            }
            if circuits.len() == targets.len() {
                break;
            }
        }
        Ok(circuits)
    }

    fn tensor<F: Scalar>(&self, id: ParamId, config: &locus_gpt2::Config, seed: u64) -> Tensor<F> {
        let n = id.len(config);
        let noise = Noise::new(seed, tensor_stream(id), 0);
        // Box-Muller on two uniforms of the counter stream.
        let normal = |i: usize| {
            let (u, v) = (f64::from(noise.uniform(2 * i)), f64::from(noise.uniform(2 * i + 1)));
            (-2.0 * u.ln()).sqrt() * (2.0 * std::f64::consts::PI * v).cos()
        };
        Tensor {
            id,
            logits: (0..n).map(|i| F::of(self.init_mean + self.init_std * normal(i))).collect(),
            moments: Moments::zeros(n),
            gate: vec![F::zero(); n],
            inside: vec![0; n],
        }
    }

    /// Draws a mask into every tensor and returns the masked model.
    fn sample<F: Scalar>(
        &self,
        tensors: &mut [Tensor<F>],
        model: &Params<F>,
        seed: u64,
        step: u64,
    ) -> Params<F> {
        let sampled: Vec<(ParamId, Vec<F>)> = tensors
            .par_iter_mut()
            .map(|tensor| {
                let noise = Noise::new(seed, tensor_stream(tensor.id), step);
                let weights = model.get(tensor.id);
                let masked = (0..weights.len())
                    .map(|i| {
                        let (inside, gate) = sample_one(
                            tensor.logits[i],
                            F::of(f64::from(noise.uniform(i))),
                            self.temperature,
                        );
                        tensor.inside[i] = u8::from(inside);
                        tensor.gate[i] = gate;
                        if inside { weights[i] } else { F::zero() }
                    })
                    .collect();
                (tensor.id, masked)
            })
            .collect();
        let mut masked = model.clone();
        sampled.into_iter().for_each(|(id, tensor)| masked.insert(id, tensor));
        masked
    }
}

/// `[l + g > 0]` and `s (1 - s) / temperature` for `g = ln(u / (1 - u))`.
///
/// `l + g > 0` is `u > (1 - u) e^{-l}`, which needs one exponential; the logarithm is taken only where the sigmoid is
/// not flat, which at temperature 0.01 is a few percent of the scalars.
#[inline(always)]
fn sample_one<F: Scalar>(logit: F, u: F, temperature: f64) -> (bool, F) {
    // Beyond this distance from the threshold s (1 - s) is below 1e-8.
    const FLAT: f64 = 18.5;
    let odds = u / ((F::one() - u) * (-logit).exp_());
    let window = F::of((FLAT * temperature).min(80.0)).exp_();
    let gate = if odds < window && odds * window > F::one() {
        let s = F::one() / (F::one() + (-odds.ln() / F::of(temperature)).exp_());
        s * (F::one() - s) / F::of(temperature)
    } else {
        F::zero()
    };
    (odds > F::one(), gate)
}

/// A number per tensor, so that tensors have separate noise.
fn tensor_stream(id: ParamId) -> u64 {
    match id {
        ParamId::Block(layer, param) => 12 * layer as u64 + param as u64,
        _ => unreachable!("only block parameters are masked"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The short cuts of `sample_one` against the formula as it stands in the module's documentation.
    #[test]
    fn sampling_follows_the_formula() {
        for temperature in [0.01, 0.5, 2.0] {
            for logit in [-6.0, -1.0, -0.01, 0.0, 0.02, 2.7, 9.0] {
                for k in 1..2000 {
                    let u = f64::from(k) / 2000.0;
                    let z = (logit + (u / (1.0 - u)).ln()) / temperature;
                    if z.abs() < 1e-9 {
                        continue;
                    }
                    let s = 1.0 / (1.0 + (-z).exp());
                    let (inside, gate) = sample_one(logit, u, temperature);
                    assert_eq!(inside, s > 0.5);
                    assert!(
                        (gate - s * (1.0 - s) / temperature).abs() < 2e-6,
                        "l {logit} u {u} T {temperature}"
                    );
                }
            }
        }
    }

    /// P(inside) is sigmoid(l), whatever the temperature.
    #[test]
    fn inclusion_probability_is_the_sigmoid() {
        let noise = Noise::new(9, 9, 9);
        let n = 200_000;
        for logit in [-2.0f32, 0.0, 2.7] {
            let share =
                (0..n).filter(|&i| sample_one(logit, noise.uniform(i), 0.01).0).count() as f64 / n as f64;
            let expected = 1.0 / (1.0 + f64::from(-logit).exp());
            assert!((share - expected).abs() < 5e-3, "{share} against {expected}");
        }
    }
}
