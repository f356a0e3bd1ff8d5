//! Circuits of parameters on the pairs of X1: weight scores, a trained mask, circuits of edges and controls side by
//! side, and the performance of a task's circuit on the other tasks.

use anyhow::{Context, Result};
use locus_circuits::edges::{
    Attribution, EdgeScores, Faithfulness, LogitDiff, Pair, QuadratureRule, StandardAblation,
    attribute_edges, edge_mask, run_clean,
};
use locus_circuits::masks::{
    MaskTrainer, ReadOut, ScheduledTopK, TaskObjective, WeightScore, count_at_density, score_weights, top_k,
    top_k_per_tensor,
};
use locus_data::seed::stream;
use locus_gpt2::{Config, Gpt2, ParamMask, ParamSet, Scalar};
use locus_metrics::bootstrap::{RESAMPLES, bootstrap_mean};
use locus_metrics::{Interval, Stream};

use crate::records::{MaskComparison, TRAINED};

/// Number of points of integrated gradients.
const POINTS: usize = 5;

/// Finds circuits of `densities` with every method on the first half of each task's pairs, and measures them on the
/// second half; trained masks are measured on the second halves of all tasks. Every interval over a task's pairs comes
/// from equal resamples.
///
/// # Errors
/// When a pair does not fit the model.
pub fn compare_masks<F: Scalar>(
    model: &Gpt2<F>,
    tasks: &[(String, Vec<Pair>)],
    densities: &[f64],
    trainer: &ScheduledTopK,
    seed: u64,
) -> Result<Vec<MaskComparison>> {
    let baselines: Vec<Baseline<F>> =
        tasks.iter().map(|(task, pairs)| Baseline::new(model, task, pairs, seed)).collect::<Result<_>>()?;
    let mut records = Vec::new();
    for (i, (task, pairs)) in tasks.iter().enumerate() {
        let train = &pairs[..pairs.len() / 2];
        let masks =
            find(model, task, train, densities, trainer, seed).with_context(|| format!("task {task}"))?;
        for (number, &target_density) in densities.iter().enumerate() {
            for (method, masks) in &masks {
                for (j, tested_on) in baselines.iter().enumerate() {
                    if i == j || *method == TRAINED {
                        records.push(tested_on.compare(task, method, target_density, &masks[number])?);
                    }
                }
            }
        }
    }
    Ok(records)
}

/// Circuits of every method, one for each density.
fn find<F: Scalar>(
    model: &Gpt2<F>,
    task: &str,
    pairs: &[Pair],
    densities: &[f64],
    trainer: &ScheduledTopK,
    seed: u64,
) -> Result<Vec<(&'static str, Vec<ParamMask>)>> {
    let config = model.config();
    let sequences: Vec<Vec<u32>> = pairs.iter().map(|pair| pair.clean.clone()).collect();
    let answers: Vec<[u32; 2]> = pairs.iter().map(|pair| [pair.correct[0], pair.incorrect[0]]).collect();
    let objective = TaskObjective { model, read_out: ReadOut::Answers(&answers), sequences: &sequences };
    let at_each = |cut: &dyn Fn(usize, f64) -> ParamMask| -> Vec<ParamMask> {
        densities.iter().map(|&density| cut(count_at_density(config, density), density)).collect()
    };

    let draw = rand::Rng::next_u64(&mut stream(seed, &format!("pair mask/{task}"), 0));
    let trained = trainer.train(&objective, densities, draw, &mut |_| {})?;
    let trained: Vec<ParamMask> = trained.into_iter().map(|circuit| circuit.mask).collect();
    let mut found = vec![(TRAINED, trained)];
    let mut per_tensor = Vec::new();
    for (name, method) in [
        ("|w g|, summed first", WeightScore::Snip),
        ("|w g| per example", WeightScore::SnipPerExample),
        ("Fisher", WeightScore::Fisher),
        ("weight-IG", WeightScore::Integrated(POINTS)),
        ("magnitude", WeightScore::Magnitude),
    ] {
        // Scores take as much memory as the weights, their masks a thirty-second of it: one method after the other.
        let scores: ParamSet<F> = score_weights(&objective, method)?;
        found.push((name, at_each(&|count, _| top_k(&scores, count))));
        if method == WeightScore::SnipPerExample {
            per_tensor = at_each(&|_, density| top_k_per_tensor(&scores, density));
        }
    }
    found.push(("|w g| per example, per tensor", per_tensor));
    for (name, method) in [
        ("EAP edges", Attribution::Eap),
        ("EAP-IG edges", Attribution::IgInputs(QuadratureRule::Midpoint, POINTS)),
    ] {
        let scores = attribute_edges(model, pairs, &LogitDiff, method, &StandardAblation::Corrupted)?;
        found.push((name, at_each(&|count, _| largest_edge_mask(&scores, config, count))));
    }
    let controls = densities.iter().zip(&found[0].1).map(|(&density, trained)| {
        let rng = &mut stream(seed, &format!("pair control/{task}/{density}"), 0);
        (ParamMask::random(config, count_at_density(config, density), rng), trained.shuffled(rng))
    });
    let (random, shuffled) = controls.unzip();
    found.extend([("random", random), ("trained mask, shuffled within tensors", shuffled)]);
    Ok(found)
}

/// The parameters of the largest circuit of best edges that has at most `count` parameters.
fn largest_edge_mask(scores: &EdgeScores, config: &Config, count: usize) -> ParamMask {
    let mask = |n: usize| edge_mask(&scores.top_n(n).pruned(), config);
    // More edges never make a smaller mask, so the size can be bisected.
    let (mut fits, mut too_many) = (0, scores.graph().n_edges() + 1);
    while too_many - fits > 1 {
        let middle = fits.midpoint(too_many);
        if mask(middle).count() <= count { fits = middle } else { too_many = middle }
    }
    mask(fits)
}

/// A task's held-out pairs, with the logit differences of the full model and of the model without blocks on each.
struct Baseline<'a, F> {
    model: &'a Gpt2<F>,
    task: &'a str,
    pairs: &'a [Pair],
    /// Logit difference of the full model on each pair.
    full: Vec<f64>,
    /// Logit difference of the model without blocks on each pair.
    empty: Vec<f64>,
    /// Stream of the resamples of the pairs.
    stream: Stream,
}

impl<'a, F: Scalar> Baseline<'a, F> {
    fn new(model: &'a Gpt2<F>, task: &'a str, pairs: &'a [Pair], seed: u64) -> Result<Self> {
        let pairs = &pairs[pairs.len() / 2..];
        let empty = ParamMask::full(model.config()).complement().ablate_complement(model);
        let advantage = |model: &Gpt2<F>| run_clean(model, pairs, &LogitDiff);
        let stream = Stream::named(seed, &format!("pair intervals/{task}"));
        Ok(Baseline { model, task, pairs, full: advantage(model)?, empty: advantage(&empty)?, stream })
    }

    fn compare(
        &self,
        task: &str,
        method: &str,
        target_density: f64,
        mask: &ParamMask,
    ) -> Result<MaskComparison> {
        let advantage =
            |mask: &ParamMask| run_clean(&mask.ablate_complement(self.model), self.pairs, &LogitDiff);
        let (inside, outside) = (advantage(mask)?, advantage(&mask.complement())?);
        let (accuracy, accuracy_complement) = (self.accuracy(&inside), self.accuracy(&outside));
        let measured = Faithfulness { clean: self.full.clone(), empty: self.empty.clone(), circuit: inside };
        Ok(MaskComparison {
            task: task.to_owned(),
            method: method.to_owned(),
            tested_on: self.task.to_owned(),
            target_density,
            density: mask.density(),
            held_out_pairs: self.pairs.len(),
            accuracy_full: self.accuracy(&self.full),
            accuracy,
            accuracy_complement,
            span: measured.span(self.stream),
            faithfulness: if mask.count() == 0 { None } else { measured.interval(self.stream) },
        })
    }

    /// Share of pairs whose logit difference is above zero.
    fn accuracy(&self, advantages: &[f64]) -> Interval {
        let right: Vec<f64> =
            advantages.iter().map(|&advantage| f64::from(u8::from(advantage > 0.0))).collect();
        bootstrap_mean(&right, RESAMPLES, self.stream)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use locus_circuits::planted::exclusive_or;

    /// The measures of a mask of all block parameters or of none on the pairs of a planted model.
    fn measured(pairs: &[Pair], model: &Gpt2<f64>, full: bool) -> MaskComparison {
        let mask = ParamMask::full(model.config());
        let mask = if full { mask } else { mask.complement() };
        Baseline::new(model, "planted", pairs, 1).unwrap().compare("planted", "by hand", 0.5, &mask).unwrap()
    }

    #[test]
    fn all_parameters_are_the_model_and_none_are_no_circuit() {
        let planted = exclusive_or();
        let all = measured(&planted.pairs, &planted.model, true);
        let Interval { value, low, high } = all.faithfulness.expect("the model knows the task");
        assert_eq!([value, low, high], [1.0; 3]);
        assert!(all.accuracy == all.accuracy_full && all.accuracy.value == 1.0 && all.density == 1.0);
        let none = measured(&planted.pairs, &planted.model, false);
        assert_eq!((none.density, none.faithfulness, none.span), (0.0, None, all.span));
        assert_eq!(none.accuracy_complement, all.accuracy);
    }

    /// With every pair once and once with its answers exchanged, the mean logit difference is 0 whatever the model.
    #[test]
    fn an_indifferent_model_has_no_faithfulness() {
        let planted = exclusive_or();
        let twice = |pair: &Pair| {
            let (correct, incorrect) = (pair.incorrect.clone(), pair.correct.clone());
            [pair.clone(), Pair { correct, incorrect, ..pair.clone() }]
        };
        let pairs: Vec<Pair> = planted.pairs.iter().flat_map(twice).collect();
        let all = measured(&pairs, &planted.model, true);
        assert!(all.span.low < 0.0 && all.span.high > 0.0, "{:?}", all.span);
        assert_eq!((all.faithfulness, all.accuracy.value), (None, 0.5));
        assert!(all.accuracy.low < 0.5 && all.accuracy.high > 0.5, "{:?}", all.accuracy);
    }
}
