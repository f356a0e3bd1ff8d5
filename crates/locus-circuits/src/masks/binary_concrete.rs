//! The study's mask training: straight-through binary-concrete masks under a growing sparseness penalty.
//!
//! Each block parameter `w` has a logit `l`. A step draws logistic noise `g` and runs the model with `h w`, where
//!
//! ```text
//! s = sigmoid((l + g) / temperature)     h = [s > 1/2] = [l + g > 0]
//! loss = CE(h w, class of the full model) + lambda mean(sigmoid(l))
//! d loss / d l = w (d CE / d (h w)) s (1 - s) / temperature + lambda sigmoid(l) (1 - sigmoid(l)) / N
//! ```
//!
//! with `N` the number of block parameters. In epoch `e`, counted from 1,
//!
//! ```text
//! lambda = min(lambda_start + e lambda_growth, lambda_max)
//! ```
//!
//! because the authors' code adds the growth before the batches of an epoch: with the published constants `lambda` is
//! 11 in the first epoch. Rows keep their order: every epoch goes through the same batches of consecutive rows.
//!
//! One trajectory serves every density target: the circuit of a target is the mask sampled after the first epoch at
//! which its density is at or below the target. As in the authors' code, the masks for the complement, for the file and
//! for edits are further samples of that epoch's logits ([`Resampled`]).
//!
//! Source: arXiv 2406.17241, section 3, and its code; the relaxation is Maddison et al. 2017, the straight-through
//! gradient Bengio et al. 2013. Deviations: noise comes from a counter-based generator; sequences are packed without
//! padding; the model has no dropout; training ends after `max_epochs` with whatever mask there is.

use locus_gpt2::internal::{box_muller, split_lengths};
use locus_gpt2::{AdamW, Gpt2, Moments, ParamEntries, ParamId, ParamMask, Result, Scalar, compiled};
use rayon::prelude::*;

use super::objective::Objective;
use super::trainer::{Circuit, MaskProgress, MaskTrainer, Resampled, TrainingMonitor, TrainingStateView};
use crate::noise::Noise;

/// The published recipe of arXiv 2406.17241, with the constants of most of its published runs as the default. The
/// circuit of a target that is not reached is the last epoch's mask, with `reached` false.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BinaryConcrete {
    /// Mean of the initial logits.
    pub init_mean: f64,
    /// Standard deviation of the initial logits.
    pub init_std: f64,
    /// Temperature of the relaxation, above 0.
    pub temperature: f64,
    /// Learning rate of AdamW; 0.001, 0.01 or 0.1 in the published runs, by task.
    pub lr: f64,
    /// Weight decay of AdamW.
    pub weight_decay: f64,
    /// Weight `lambda` of the sparseness penalty before the first epoch, which already runs with one increase more.
    pub lambda_start: f64,
    /// Increase of `lambda` before the batches of each epoch, the first included.
    pub lambda_growth: f64,
    /// Largest `lambda`.
    pub lambda_max: f64,
    /// Sequences per step: consecutive rows, in the same batches every epoch.
    pub batch_sequences: usize,
    /// Epochs after which training ends, whether all targets are reached or not; 3,000 or 10,000 in the published
    /// runs.
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
            batch_sequences: 128,
            max_epochs: 10_000,
        }
    }
}

/// Parameters in one piece of a pass over all of them: few enough that intermediate values stay in the cache.
const PIECE_SCALARS: usize = 1 << 12;

/// Logits of one tensor with the optimiser's moments: slices of arrays for all tensors, because an allocator rounds the
/// size of every large array up.
struct LogitTensor<'a, F> {
    id: ParamId,
    logits: &'a mut [F],
    /// First moments.
    mean: &'a mut [F],
    /// Second moments.
    square: &'a mut [F],
}

/// What is kept of a tensor between runs.
fn variables<'a, F>(tensor: &'a LogitTensor<'_, F>) -> [&'a [F]; 3] {
    [tensor.logits, tensor.mean, tensor.square]
}

fn variables_mut<'a, F>(tensor: &'a mut LogitTensor<'_, F>) -> [&'a mut [F]; 3] {
    [tensor.logits, tensor.mean, tensor.square]
}

impl<F: Scalar> MaskTrainer<F> for BinaryConcrete {
    fn train(
        &self,
        objective: &dyn Objective<F>,
        targets: &[f64],
        seed: u64,
        monitor: &mut dyn TrainingMonitor<F>,
    ) -> Result<Vec<Circuit>> {
        F::run::<TrainJob>((self, objective, targets, seed, monitor))
    }
}

compiled!(TrainJob<'a>: <F> TrainInput<'a, F> => Result<Vec<Circuit>>, BinaryConcrete::trajectory);

type TrainInput<'a, F> =
    (&'a BinaryConcrete, &'a dyn Objective<F>, &'a [f64], u64, &'a mut dyn TrainingMonitor<F>);

impl BinaryConcrete {
    fn trajectory<F: Scalar>(
        (recipe, objective, targets, seed, monitor): TrainInput<F>,
    ) -> Result<Vec<Circuit>> {
        if targets.is_empty() {
            return Ok(Vec::new());
        }
        let (model, config) = (objective.model(), objective.model().config());
        let population = ParamMask::n_maskable(config);
        let (mut logits, mut moments) = (vec![F::zero(); population], Moments::zeros(population));
        let (mean, square) = moments.parts_mut();
        let lengths = || ParamId::maskable(config).map(|id| id.len(config));
        let moments = split_lengths(mean, lengths()).zip(split_lengths(square, lengths()));
        let mut tensors: Vec<LogitTensor<F>> = ParamId::maskable(config)
            .zip(split_lengths(&mut logits, lengths()).zip(moments))
            .map(|(id, (logits, (mean, square)))| LogitTensor { id, logits, mean, square })
            .collect();
        let (mut circuits, mut t) = (Vec::new(), 0);
        match monitor.resume().filter(|state| state.restore(tensors.iter_mut().flat_map(variables_mut))) {
            Some(state) => (circuits, t) = (state.circuits, state.steps),
            None => tensors.iter_mut().for_each(|tensor| recipe.init(tensor, seed)),
        }
        let population = population as f64;
        let rows: Vec<usize> = (0..objective.n_rows()).collect();
        let mut masked = model.clone();
        let step_streams = |t: usize| Streams { seed, step: 2 * t as u64 };
        let mut open = recipe.pass(&mut tensors, model, &mut masked, None, step_streams(t + 1));
        let (taken, batches) = (t, rows.chunks(recipe.batch_sequences).len());
        // A state is kept after a step, so that the end of its epoch is still to come.
        for epoch in taken.saturating_sub(1) / batches..recipe.max_epochs {
            let lambda = recipe.lambda(epoch + 1);
            for rows in rows.chunks(recipe.batch_sequences).skip(taken.saturating_sub(epoch * batches)) {
                t += 1;
                let (_, gradients) = objective.gradient_at(&masked, rows, &open.entries)?;
                let update = Update { t, penalty: lambda / population, open: &open, gradients: &gradients };
                open = recipe.pass(&mut tensors, model, &mut masked, Some(update), step_streams(t + 1));
                let arrays = tensors.iter().flat_map(|tensor| variables(tensor)).collect();
                monitor.offer(TrainingStateView { steps: t, arrays, circuits: &circuits })?;
            }
            let sample = Streams::after(seed, t, Sample::Measured);
            let count: usize = tensors.iter().map(|tensor| sample.count(tensor)).sum();
            let density = count as f64 / population;
            monitor.progress(MaskProgress { density, next_target: targets[circuits.len()] });
            let last = epoch + 1 == recipe.max_epochs;
            while circuits.len() < targets.len() && (last || density <= targets[circuits.len()]) {
                let draw = |sample| {
                    let streams = Streams::after(seed, t, sample);
                    let mut inside = tensors.iter().flat_map(|tensor| streams.inside(tensor));
                    ParamMask::from_fn(config, |_, _| inside.next() == Some(true))
                };
                circuits.push(Circuit {
                    mask: draw(Sample::Measured),
                    resampled: Some(Resampled {
                        complement_source: draw(Sample::ComplementSource),
                        saved: draw(Sample::Saved),
                        edited: draw(Sample::Edited),
                    }),
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

    /// Weight of the sparseness penalty in an epoch, counted from 1.
    pub fn lambda(&self, epoch: usize) -> f64 {
        (self.lambda_start + self.lambda_growth * epoch as f64).min(self.lambda_max)
    }

    /// Draws the initial logits of a tensor.
    fn init<F: Scalar>(&self, tensor: &mut LogitTensor<F>, seed: u64) {
        let noise = Noise::new(seed, tensor_stream(tensor.id), 0);
        let normal =
            |i: usize| box_muller(f64::from(noise.uniform(2 * i)), f64::from(noise.uniform(2 * i + 1)));
        let logits = tensor.logits.par_iter_mut().enumerate().with_min_len(PIECE_SCALARS);
        logits.for_each(|(i, logit)| *logit = F::from_f64(self.init_mean + self.init_std * normal(i)));
    }

    /// One pass over every parameter: updates its logit with the gradient of the last sample, draws the next sample,
    /// and writes the masked weight to `masked`. Returns the gates of the new sample that are not flat.
    fn pass<F: Scalar>(
        &self,
        tensors: &mut [LogitTensor<F>],
        model: &Gpt2<F>,
        masked: &mut Gpt2<F>,
        update: Option<Update<F>>,
        next: Streams,
    ) -> Open<F> {
        let gate = Gate::new(self.temperature);
        let scalars: Vec<_> = tensors.iter_mut().zip(masked.blocks_mut()).enumerate().collect();
        let per_tensor = scalars.into_par_iter().map(|(number, (tensor, (id, masked)))| {
            let (noise, last) = (next.of(id), update.map(|update| update.of_tensor(number)));
            let LogitTensor { logits, mean, square, .. } = tensor;
            let optimised = mean.par_chunks_mut(PIECE_SCALARS).zip(square.par_chunks_mut(PIECE_SCALARS));
            let logits = logits.par_chunks_mut(PIECE_SCALARS).zip(optimised);
            let weights = model.get(id).par_chunks(PIECE_SCALARS).zip(masked.par_chunks_mut(PIECE_SCALARS));
            let pieces = logits.zip(weights).enumerate();
            let open = pieces.map(|(piece, ((logits, moments), (weights, masked)))| {
                let first = piece * PIECE_SCALARS;
                let [mut odds, mut inverse] = [[F::zero(); PIECE_SCALARS]; 2];
                let (odds, inverse) = (&mut odds[..logits.len()], &mut inverse[..logits.len()]);
                if let (Some(update), Some(last)) = (update, last) {
                    self.step(update, last, first, logits, moments, inverse, odds);
                }
                draw(noise, first, logits, inverse, odds);
                for ((masked, &odds), &weight) in masked.iter_mut().zip(&*odds).zip(weights) {
                    *masked = if odds > F::one() { weight } else { F::zero() };
                }
                gate.open(first, weights, odds)
            });
            let open: Vec<(Vec<u32>, Vec<F>)> = open.collect();
            let (indices, slopes): (Vec<_>, Vec<_>) = open.into_iter().unzip();
            (ParamEntries::new(model.config(), id, indices.concat()), slopes.concat())
        });
        let (entries, slopes) = per_tensor.unzip();
        Open { entries, slopes }
    }

    /// Updates a piece of a tensor's logits, which begins at index `first`. `inverse` and `grads` are scratch space.
    fn step<F: Scalar>(
        &self,
        update: Update<F>,
        last: OpenGates<F>,
        first: usize,
        logits: &mut [F],
        moments: (&mut [F], &mut [F]),
        inverse: &mut [F],
        grads: &mut [F],
    ) {
        let penalty = F::from_f64(update.penalty);
        inverse_odds(logits, inverse);
        for (grad, &inverse) in grads.iter_mut().zip(&*inverse) {
            let p = F::one() / (F::one() + inverse);
            *grad = penalty * p * (F::one() - p);
        }
        let place = |index: usize| last.indices.partition_point(|&open| (open as usize) < index);
        for open in place(first)..place(first + logits.len()) {
            grads[last.indices[open] as usize - first] += last.slopes[open] * last.gradients[open];
        }
        let adam = AdamW { weight_decay: self.weight_decay, ..AdamW::new(self.lr) };
        adam.step_part(update.t, logits, grads, moments);
    }
}

/// Gates of a sample at which the sigmoid is not flat, tensor by tensor: only these let a gradient through.
struct Open<F> {
    entries: Vec<ParamEntries>,
    /// Derivative of each masked weight with respect to its logit, `w s (1 - s) / temperature`.
    slopes: Vec<Vec<F>>,
}

/// An update of all logits.
#[derive(Clone, Copy)]
struct Update<'a, F> {
    /// Number of the step, from 1.
    t: usize,
    /// Weight of the sparseness penalty of one parameter, `lambda / N`.
    penalty: f64,
    /// The gates of the last sample that are not flat.
    open: &'a Open<F>,
    /// Gradients of the cross-entropy with respect to their masked weights.
    gradients: &'a [Vec<F>],
}

impl<'a, F> Update<'a, F> {
    fn of_tensor(self, number: usize) -> OpenGates<'a, F> {
        let (open, gradients) = (self.open, &self.gradients[number]);
        OpenGates { indices: open.entries[number].indices(), slopes: &open.slopes[number], gradients }
    }
}

/// Gates of one tensor that are not flat, with their slopes and gradients.
#[derive(Clone, Copy)]
struct OpenGates<'a, F> {
    indices: &'a [u32],
    slopes: &'a [F],
    gradients: &'a [F],
}

/// The noise of one sample of all tensors.
#[derive(Clone, Copy)]
struct Streams {
    seed: u64,
    step: u64,
}

/// Purpose of a sample that is drawn after an epoch.
#[derive(Clone, Copy)]
enum Sample {
    Measured,
    ComplementSource,
    Saved,
    Edited,
}

impl Streams {
    /// The noise of a sample after `t` steps. Steps use even streams and these samples odd ones, told apart by the
    /// upper bits, so that none shares its noise with another.
    fn after(seed: u64, t: usize, sample: Sample) -> Self {
        Streams { seed, step: (2 * t as u64 + 1) | (sample as u64) << 48 }
    }

    fn of(self, id: ParamId) -> Noise {
        Noise::new(self.seed, tensor_stream(id), self.step)
    }

    /// Whether each parameter of a tensor is kept.
    fn inside<F: Scalar>(self, tensor: &LogitTensor<F>) -> impl Iterator<Item = bool> {
        let noise = self.of(tensor.id);
        tensor
            .logits
            .iter()
            .enumerate()
            .map(move |(i, &logit)| odds((-logit).fast_exp(), uniform(noise, i)) > F::one())
    }

    /// Number of parameters of a tensor that are kept.
    fn count<F: Scalar>(self, tensor: &LogitTensor<F>) -> usize {
        let noise = self.of(tensor.id);
        let pieces = tensor.logits.par_chunks(PIECE_SCALARS).enumerate();
        let count = |(piece, logits): (usize, &[F])| {
            let [mut drawn, mut inverse] = [[F::zero(); PIECE_SCALARS]; 2];
            let (drawn, inverse) = (&mut drawn[..logits.len()], &mut inverse[..logits.len()]);
            draw(noise, piece * PIECE_SCALARS, logits, inverse, drawn);
            drawn.iter().filter(|&&odds| odds > F::one()).count()
        };
        pieces.map(count).sum()
    }
}

#[inline(always)]
fn uniform<F: Scalar>(noise: Noise, index: usize) -> F {
    F::from_f64(f64::from(noise.uniform(index)))
}

/// Computes `e^-l` and [`odds`] of a piece of a tensor that begins at index `first`.
fn draw<F: Scalar>(noise: Noise, first: usize, logits: &[F], inverse: &mut [F], drawn: &mut [F]) {
    inverse_odds(logits, inverse);
    for (i, (drawn, &inverse)) in drawn.iter_mut().zip(&*inverse).enumerate() {
        *drawn = odds(inverse, uniform(noise, first + i));
    }
}

/// Computes `e^-l`.
fn inverse_odds<F: Scalar>(logits: &[F], inverse: &mut [F]) {
    for (inverse, &logit) in inverse.iter_mut().zip(logits) {
        *inverse = (-logit).fast_exp();
    }
}

/// `e^(l + g)` for `g = ln(u / (1 - u))`, from `e^-l`: the parameter is kept when this is above 1.
#[inline(always)]
fn odds<F: Scalar>(inverse: F, u: F) -> F {
    u / ((F::one() - u) * inverse)
}

/// Slope of the gate, `s (1 - s) / temperature`, as a function of the odds `e^(l + g)`.
struct Gate<F> {
    temperature: F,
    /// Odds from which on the gate is flat, as it is below their inverse.
    window: F,
}

impl<F: Scalar> Gate<F> {
    fn new(temperature: f64) -> Self {
        // Beyond this distance from the threshold s (1 - s) is below 1e-8.
        const FLAT: f64 = 18.5;
        Gate {
            temperature: F::from_f64(temperature),
            window: F::from_f64((FLAT * temperature).min(80.0)).fast_exp(),
        }
    }

    /// Whether the sigmoid is flat there, as it is for all but a few percent of the parameters at temperature 0.01.
    #[inline(always)]
    fn is_flat(&self, odds: F) -> bool {
        (odds >= self.window) | (odds * self.window <= F::one())
    }

    /// Parameters whose gates are not flat, and `w s (1 - s) / temperature` of each, in a piece that begins at `first`.
    fn open(&self, first: usize, weights: &[F], odds: &[F]) -> (Vec<u32>, Vec<F>) {
        // Most runs of parameters have flat gates only, which is quickly checked for a whole run.
        const RUN: usize = 16;
        let (mut indices, mut slopes) = (Vec::new(), Vec::new());
        for (run, odds) in odds.chunks(RUN).enumerate() {
            if odds.iter().fold(true, |flat, &odds| flat & self.is_flat(odds)) {
                continue;
            }
            for (i, &odds) in (run * RUN..).zip(odds).filter(|(_, odds)| !self.is_flat(**odds)) {
                indices.push((first + i) as u32);
                slopes.push(weights[i] * self.slope(odds));
            }
        }
        (indices, slopes)
    }

    /// The slope; 0 where the gate is flat.
    #[inline(always)]
    fn slope(&self, odds: F) -> F {
        if self.is_flat(odds) {
            return F::zero();
        }
        let s = F::one() / (F::one() + (-odds.ln() / self.temperature).fast_exp());
        s * (F::one() - s) / self.temperature
    }
}

/// Number of a tensor's noise stream, different for each.
fn tensor_stream(id: ParamId) -> u64 {
    match id {
        ParamId::Block(layer, param) => 12 * layer as u64 + param as u64,
        _ => unreachable!("only block parameters are masked"),
    }
}

#[cfg(test)]
mod tests {
    use locus_gpt2::Number;

    use super::*;

    /// The short cuts of `odds` and `gate` against the formula as it stands in the module's documentation.
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
                    let odds = odds((-logit).fast_exp(), u);
                    let gate = Gate::new(temperature).slope(odds);
                    assert_eq!(odds > 1.0, s > 0.5);
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
            let share = (0..n).filter(|&i| odds((-logit).fast_exp(), noise.uniform(i)) > 1.0).count() as f64
                / n as f64;
            let expected = 1.0 / (1.0 + f64::from(-logit).exp());
            assert!((share - expected).abs() < 5e-3, "{share} against {expected}");
        }
    }
}
