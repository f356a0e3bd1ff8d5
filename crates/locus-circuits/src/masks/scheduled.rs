//! The `scheduled-top-k` recipe: train the hard mask itself, at a density that is lowered on a schedule.
//!
//! Each block parameter has a score, initialised by weight attribution. A step keeps exactly the `k` parameters with
//! the best scores, runs the model with that mask and moves every score, kept or not, along the straight-through
//! gradient `d CE / d score = w d CE / d (h w)`. There is no noise and no penalty: the mask that is trained is the one
//! that is used, and a target density is met to the parameter.
//!
//! Source: movement pruning (Sanh, Wolf, Rush 2020, sections 3 and 4: straight-through top-k scores, density schedule),
//! on frozen weights as in edge-popup (Ramanujan et al. 2020); the initial scores are SNIP's (Lee et al. 2019).

use locus_gpt2::internal::shuffle;
use locus_gpt2::{AdamW, Gpt2, Moments, ParamId, ParamMask, ParamSet, Result, Scalar, compiled};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use rayon::prelude::*;

use super::objective::Objective;
use super::order::ascending;
use super::top_k::{count_at_density, top_k};
use super::trainer::{Circuit, MaskProgress, MaskTrainer, TrainingMonitor, TrainingStateView};
use super::weights::weight_attribution;

/// The scheduled top-k recipe, with its constants.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ScheduledTopK {
    /// Learning rate of Adam on the scores, in units of their initial spread.
    pub lr: f64,
    /// Adam's epsilon as a multiple of the root mean square gradient: with large values, scores with strong gradients
    /// move further than those with weak ones; with small values all move alike.
    pub epsilon: f64,
    /// Tokens per piece of the initial attribution.
    pub piece_tokens: usize,
    /// Steps from one density target to the next, of which the last `hold` stay at the target.
    pub steps_per_target: usize,
    /// Steps at a target before the density falls towards the next; from `steps_per_target` on there is no way down.
    pub hold: usize,
    /// Sequences per step.
    pub batch_sequences: usize,
}

impl Default for ScheduledTopK {
    fn default() -> Self {
        ScheduledTopK {
            lr: 0.1,
            epsilon: 1.0,
            piece_tokens: 64,
            steps_per_target: 90,
            hold: 45,
            batch_sequences: 128,
        }
    }
}

impl<F: Scalar> MaskTrainer<F> for ScheduledTopK {
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

compiled!(TrainJob<'a>: <F> TrainInput<'a, F> => Result<Vec<Circuit>>, ScheduledTopK::trajectory);

type TrainInput<'a, F> =
    (&'a ScheduledTopK, &'a dyn Objective<F>, &'a [f64], u64, &'a mut dyn TrainingMonitor<F>);

impl ScheduledTopK {
    fn trajectory<F: Scalar>(
        (recipe, objective, targets, seed, monitor): TrainInput<F>,
    ) -> Result<Vec<Circuit>> {
        let model = objective.model();
        let config = model.config();
        let ids: Vec<ParamId> = ParamId::maskable(config).collect();
        let no_moments = || ids.iter().map(|id| Moments::zeros(id.len(config))).collect::<Vec<Moments<F>>>();
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut batches = Batches::new(objective.n_rows(), recipe.batch_sequences);
        let kept = monitor.resume().and_then(|state| {
            let (mut scores, mut moments) = (ParamSet::zeros(config, ids.iter().copied()), no_moments());
            let of_moments = moments.iter_mut().flat_map(|moments| <[_; 2]>::from(moments.parts_mut()));
            let fits = state.restore(scores.blocks_mut().map(|(_, scores)| scores).chain(of_moments));
            fits.then_some((scores, moments, state.circuits, state.steps))
        });
        let (mut scores, mut moments, mut circuits, mut t) = match kept {
            Some(kept) => kept,
            None => {
                // Before there are moments, which take as much memory as the attribution itself.
                let scores = logistic_ranks(weight_attribution(objective, recipe.piece_tokens)?);
                (scores, no_moments(), Vec::new(), 0)
            }
        };
        (0..t).for_each(|_| drop(batches.next(&mut rng)));
        let (mut from, taken) = (1.0f64, t);
        let mut masked = model.clone();
        for (number, &target) in targets.iter().enumerate() {
            let moving = recipe.steps_per_target.saturating_sub(recipe.hold);
            let first = number * recipe.steps_per_target;
            for step in taken.saturating_sub(first)..recipe.steps_per_target {
                // A geometric schedule: each step removes the same share of what is left.
                let passed = (step as f64 / moving as f64).min(1.0);
                let density = from * (target / from).powf(passed);
                monitor.progress(MaskProgress { density, next_target: target });
                let mask = top_k(&scores, count_at_density(config, density));
                let rows = batches.next(&mut rng);
                ablate_in_place(&mask, model, &mut masked);
                let (_, grads) = objective.gradient(&masked, &rows)?;
                t += 1;
                recipe.step(t, &ids, model, grads, &mut scores, &mut moments);
                let moments = moments.iter().flat_map(|moments| <[_; 2]>::from(moments.parts()));
                let arrays = ids.iter().map(|&id| scores.get(id)).chain(moments).collect();
                monitor.offer(TrainingStateView { steps: t, arrays, circuits: &circuits })?;
            }
            from = target;
            if number < circuits.len() {
                continue;
            }
            circuits.push(Circuit {
                mask: top_k(&scores, count_at_density(config, target)),
                resampled: None,
                target_density: target,
                reached: true,
                epochs: batches.epochs,
                steps: t,
            });
        }
        Ok(circuits)
    }

    /// One step of Adam on the scores; `t` counts steps from 1.
    fn step<F: Scalar>(
        &self,
        t: usize,
        ids: &[ParamId],
        model: &Gpt2<F>,
        mut grads: ParamSet<F>,
        scores: &mut ParamSet<F>,
        moments: &mut [Moments<F>],
    ) {
        // From here on gradients of the scores, and the squares of each tensor's.
        let tensors: Vec<(ParamId, &mut [F])> = grads.blocks_mut().collect();
        let squares = tensors.into_par_iter().map(|(id, grads)| {
            grads.iter_mut().zip(model.get(id)).for_each(|(g, &w)| *g = w * *g);
            grads.iter().map(|d| d.as_f64() * d.as_f64()).sum::<f64>()
        });
        let squares: f64 = squares.collect::<Vec<f64>>().into_iter().sum();
        let rms = (squares / ParamMask::n_maskable(model.config()) as f64).sqrt();
        let adam = AdamW { weight_decay: 0.0, epsilon: self.epsilon * rms + 1e-30, ..AdamW::new(self.lr) };
        for (&id, moments) in ids.iter().zip(moments) {
            adam.step(t, scores.get_mut(id), grads.get(id), moments);
        }
    }
}

/// Writes what [`ParamMask::ablate_complement`] gives to a model that has its other parameters already.
fn ablate_in_place<F: Scalar>(mask: &ParamMask, model: &Gpt2<F>, masked: &mut Gpt2<F>) {
    let tensors: Vec<_> = masked.blocks_mut().zip(mask.tensors()).collect();
    tensors.into_par_iter().for_each(|((id, masked), (of, kept))| {
        assert_eq!(id, of, "masks have the order of the parameters");
        kept.copy_inside(model.get(id), masked);
    });
}

/// Replaces every score by the logistic quantile of its rank over all tensors, so that the spread is the same for
/// every task and the learning rate means the same thing.
fn logistic_ranks<F: Scalar>(mut scores: ParamSet<F>) -> ParamSet<F> {
    let config = scores.config();
    let mut all: Vec<F> = ParamId::maskable(config).flat_map(|id| scores.get(id).iter().copied()).collect();
    let order = ascending(&all);
    let quantile = |rank: usize| {
        let p = (rank as f64 + 0.5) / order.len() as f64;
        F::from_f64((p / (1.0 - p)).ln())
    };
    let quantiles: Vec<F> = (0..order.len()).into_par_iter().map(quantile).collect();
    order.iter().zip(quantiles).for_each(|(&i, quantile)| all[i as usize] = quantile);
    let mut ranked = all.as_slice();
    for (_, scores) in scores.blocks_mut() {
        let (of_tensor, rest) = ranked.split_at(scores.len());
        scores.copy_from_slice(of_tensor);
        ranked = rest;
    }
    scores
}

/// Mini-batches over shuffled rows, epoch after epoch.
struct Batches {
    order: Vec<usize>,
    at: usize,
    rows: usize,
    epochs: usize,
}

impl Batches {
    fn new(n: usize, rows: usize) -> Self {
        Batches { order: (0..n).collect(), at: n, rows, epochs: 0 }
    }

    fn next(&mut self, rng: &mut ChaCha8Rng) -> Vec<usize> {
        if self.at >= self.order.len() {
            shuffle(&mut self.order, rng);
            self.at = 0;
            self.epochs += 1;
        }
        let end = (self.at + self.rows).min(self.order.len());
        let rows = self.order[self.at..end].to_vec();
        self.at = end;
        rows
    }
}

#[cfg(test)]
mod tests {
    use locus_gpt2::Config;

    use super::*;

    /// One mask after the other in one model, against a model made for each.
    #[test]
    fn masks_follow_each_other_in_place() {
        let config = Config::new(2, 2, 6, 8, 11);
        let model = Gpt2::<f32>::init(&config, &mut ChaCha8Rng::seed_from_u64(3));
        let mut masked = model.clone();
        for n in [2, 3, 1, 7] {
            let mask = ParamMask::from_fn(&config, |_, i| i % n == 0);
            ablate_in_place(&mask, &model, &mut masked);
            let expected = mask.ablate_complement(&model);
            assert_eq!(masked.sha256(), expected.sha256());
        }
    }

    /// Ranks of equal scores follow the order of the parameters.
    #[test]
    fn ranks_are_logistic_and_stable() {
        let config = Config::new(1, 1, 3, 4, 5);
        let zeros = ParamSet::<f64>::zeros(&config, ParamId::maskable(&config));
        let ranked = logistic_ranks(zeros);
        let all: Vec<f64> =
            ParamId::maskable(&config).flat_map(|id| ranked.get(id).iter().copied()).collect();
        assert!(all.windows(2).all(|pair| pair[0] < pair[1]));
        assert!((all[0] + all[all.len() - 1]).abs() < 1e-9, "not symmetric");
    }
}
