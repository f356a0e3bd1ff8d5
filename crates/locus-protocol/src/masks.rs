//! Circuits of parameters on the pairs of X1: weight scores, a trained mask, circuits of edges and controls side by
//! side, and the performance of a task's circuit on the other tasks.

use anyhow::{Context, Result};
use locus_circuits::edges::{
    Attribution, EdgeScores, LogitDiff, Pair, QuadratureRule, StandardAblation, attribute_edges, edge_mask,
    run_clean,
};
use locus_circuits::masks::{
    MaskTrainer, ReadOut, ScheduledTopK, TaskObjective, WeightScore, count_at_density, score_weights, top_k,
    top_k_per_tensor,
};
use locus_data::seed::stream;
use locus_gpt2::{Config, Gpt2, ParamMask, ParamSet, Scalar};

use crate::records::{MaskComparison, TRAINED};

/// Number of points of integrated gradients.
const POINTS: usize = 5;

/// Finds circuits of `densities` with every method on the first half of each task's pairs, and measures them on the
/// second half; trained masks are measured on the second halves of all tasks.
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
        tasks.iter().map(|(task, pairs)| Baseline::new(model, task, pairs)).collect::<Result<_>>()?;
    let mut records = Vec::new();
    for (i, (task, pairs)) in tasks.iter().enumerate() {
        let train = &pairs[..pairs.len() / 2];
        let masks =
            find(model, task, train, densities, trainer, seed).with_context(|| format!("task {task}"))?;
        for (method, target_density, mask) in masks {
            for (j, tested_on) in baselines.iter().enumerate() {
                if i == j || method == TRAINED {
                    records.push(tested_on.compare(task, method, target_density, &mask)?);
                }
            }
        }
    }
    Ok(records)
}

fn find<F: Scalar>(
    model: &Gpt2<F>,
    task: &str,
    pairs: &[Pair],
    densities: &[f64],
    trainer: &ScheduledTopK,
    seed: u64,
) -> Result<Vec<(&'static str, f64, ParamMask)>> {
    let config = model.config();
    let sequences: Vec<Vec<u32>> = pairs.iter().map(|pair| pair.clean.clone()).collect();
    let answers: Vec<[u32; 2]> = pairs.iter().map(|pair| [pair.correct[0], pair.incorrect[0]]).collect();
    let objective = TaskObjective { model, read_out: ReadOut::Answers(&answers), sequences: &sequences };
    let mut found = Vec::new();

    let draw = rand::Rng::next_u64(&mut stream(seed, &format!("pair mask/{task}"), 0));
    let trained = trainer.train(&objective, densities, draw, &mut |_| {})?;
    let scored = [
        ("|w g|, summed first", WeightScore::Snip),
        ("|w g| per example", WeightScore::SnipPerExample),
        ("Fisher", WeightScore::Fisher),
        ("weight-IG", WeightScore::Integrated(POINTS)),
        ("magnitude", WeightScore::Magnitude),
    ];
    let scored: Vec<(&str, ParamSet<F>)> = scored
        .into_iter()
        .map(|(name, method)| Ok((name, score_weights(&objective, method)?)))
        .collect::<Result<_>>()?;
    let attribute = |method| attribute_edges(model, pairs, &LogitDiff, method, &StandardAblation::Corrupted);
    let edges = [
        ("EAP edges", attribute(Attribution::Eap)?),
        ("EAP-IG edges", attribute(Attribution::IgInputs(QuadratureRule::Midpoint, POINTS))?),
    ];
    for (circuit, &density) in trained.iter().zip(densities) {
        let count = count_at_density(config, density);
        found.push((TRAINED, density, circuit.mask.clone()));
        for (name, scores) in &scored {
            found.push((name, density, top_k(scores, count)));
        }
        let per_tensor = &scored[1].1;
        found.push(("|w g| per example, per tensor", density, top_k_per_tensor(per_tensor, density)));
        for (name, scores) in &edges {
            found.push((name, density, largest_edge_mask(scores, config, count)));
        }
        let rng = &mut stream(seed, &format!("pair control/{task}/{density}"), 0);
        found.push(("random", density, ParamMask::random(config, count, rng)));
        found.push(("trained mask, shuffled within tensors", density, circuit.mask.shuffled(rng)));
    }
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
}

impl<'a, F: Scalar> Baseline<'a, F> {
    fn new(model: &'a Gpt2<F>, task: &'a str, pairs: &'a [Pair]) -> Result<Self> {
        let pairs = &pairs[pairs.len() / 2..];
        let empty = ParamMask::full(model.config()).complement().ablate_complement(model);
        let advantage = |model: &Gpt2<F>| run_clean(model, pairs, &LogitDiff);
        Ok(Baseline { model, task, pairs, full: advantage(model)?, empty: advantage(&empty)? })
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
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
        let right = |values: &[f64]| {
            values.iter().filter(|&&advantage| advantage > 0.0).count() as f64 / values.len() as f64
        };
        let span = mean(&self.full) - mean(&self.empty);
        Ok(MaskComparison {
            task: task.to_owned(),
            method: method.to_owned(),
            tested_on: self.task.to_owned(),
            target_density,
            density: mask.density(),
            held_out_pairs: self.pairs.len(),
            accuracy_full: right(&self.full),
            accuracy: right(&inside),
            accuracy_complement: right(&outside),
            faithfulness: (span.abs() > 1e-6).then(|| (mean(&inside) - mean(&self.empty)) / span),
        })
    }
}
