//! The crate as another crate sees it: a metric, an ablation, an objective and a mask trainer written with public items
//! alone, each against one that is shipped.

use locus_circuits::edges::{
    AblatedOutputs, Ablation, Attribution, EdgeSet, Graph, Kl, LogitDiff, Metric, Pair, ProbDiff,
    QuadratureRule, StandardAblation, StandardMetric, attribute_edges, patch_edges, run_circuit, run_clean,
};
use locus_circuits::masks::{
    BinaryConcrete, Circuit, MaskProgress, MaskTrainer, Objective, ScheduledTopK, TrainingMonitor,
    WeightScore, count_at_density, score_weights, top_k, weight_attribution,
};
use locus_gpt2::{Batch, Gpt2, ParamEntries, ParamId, ParamSet, Result, Scalar};
use locus_testkit::{REORDERED_F64, assert_close};
use ndarray::Array2;

use crate::support::{Case, flat, rng};

/// A logit difference that does not say that it is linear.
struct Margin;

impl<F: Scalar> Metric<F> for Margin {
    fn value(&self, pair: &Pair, logits: &[F], _clean: &[F]) -> f64 {
        let mean = |answers: &[u32]| {
            answers.iter().map(|&token| logits[token as usize].as_f64()).sum::<f64>() / answers.len() as f64
        };
        mean(&pair.correct) - mean(&pair.incorrect)
    }

    fn gradient(&self, pair: &Pair, logits: &[F], _clean: &[F]) -> Vec<f64> {
        let mut d_logits = vec![0.0; logits.len()];
        for (sign, answers) in [(1.0, &pair.correct), (-1.0, &pair.incorrect)] {
            answers.iter().for_each(|&token| d_logits[token as usize] += sign / answers.len() as f64);
        }
        d_logits
    }
}

/// Ablation by zeros: nothing is written along an ablated edge.
struct Silence;

impl<F: Scalar> Ablation<F> for Silence {
    fn outputs<'a>(&'a self, _: &'a Gpt2<F>, _: &'a [Pair]) -> Result<AblatedOutputs<'a, F>> {
        Ok(AblatedOutputs::Fill(Box::new(|_, _, out| out.fill(F::zero()))))
    }
}

fn pairs() -> Vec<Pair> {
    let pair = |clean: [u32; 4], corrupted: [u32; 4], correct: &[u32], incorrect: &[u32]| Pair {
        clean: clean.to_vec(),
        corrupted: corrupted.to_vec(),
        correct: correct.to_vec(),
        incorrect: incorrect.to_vec(),
    };
    vec![pair([1, 2, 3, 4], [1, 5, 3, 4], &[6], &[7, 8]), pair([9, 2, 2, 4], [3, 2, 2, 4], &[1, 2], &[3])]
}

#[test]
fn a_metric_of_ones_own() {
    let (model, pairs) = (Case::new(4, 1).model, pairs());
    let graph = Graph::new(model.config());
    let edges: Vec<_> = graph.edges().collect();
    let (corrupted, half) =
        (StandardAblation::Corrupted, EdgeSet::from_edges(graph, graph.edges().step_by(2)));
    let all = |metric: &dyn Metric<f64>| {
        let method = Attribution::IgInputs(QuadratureRule::Midpoint, 3);
        let scores = attribute_edges(&model, &pairs, metric, method, &corrupted).unwrap();
        let exact = patch_edges(&model, &pairs, metric, &corrupted, &edges).unwrap();
        let values = run_circuit(&model, &pairs, metric, &half, &corrupted).unwrap();
        let numbers = scores.matrix().iter().chain(exact.matrix()).chain(&values).copied();
        numbers.chain(run_clean(&model, &pairs, metric).unwrap()).collect::<Vec<f64>>()
    };
    let (ours, shipped) = (all(&Margin), all(&LogitDiff));
    assert!(shipped.iter().any(|x| x.abs() > 0.1));
    ours.iter().zip(&shipped).for_each(|(a, b)| assert!((a - b).abs() < 1e-10, "{a} against {b}"));
}

/// Value and gradient of every metric, by central differences at the logits.
#[test]
fn gradients_of_metrics() {
    let clean: Vec<f64> = (0..12).map(|i| (f64::from(i) * 1.7).sin()).collect();
    let logits: Vec<f64> = (0..12).map(|i| (f64::from(i) * 0.9).cos() * 2.0).collect();
    let metrics: [&dyn Metric<f64>; 4] = [&Margin, &LogitDiff, &ProbDiff, &Kl];
    for (pair, metric) in pairs().iter().flat_map(|pair| metrics.map(|metric| (pair, metric))) {
        let gradient = metric.gradient(pair, &logits, &clean);
        for (token, slope) in gradient.iter().enumerate() {
            let value = |step: f64| {
                let mut logits = logits.clone();
                logits[token] += step;
                metric.value(pair, &logits, &clean)
            };
            let numeric = (value(1e-5) - value(-1e-5)) / 2e-5;
            assert!((slope - numeric).abs() < 1e-9, "{slope} against {numeric}");
        }
    }
}

#[test]
fn an_ablation_of_ones_own() {
    let (model, pairs) = (Case::new(4, 2).model, pairs());
    let graph = Graph::new(model.config());
    let third = EdgeSet::from_edges(graph, graph.edges().step_by(3));
    let all = |ablation: &dyn Ablation<f64>| {
        let scores = attribute_edges(&model, &pairs, &LogitDiff, Attribution::Eap, ablation).unwrap();
        (scores, run_circuit(&model, &pairs, &LogitDiff, &third, ablation).unwrap())
    };
    assert_eq!(all(&Silence), all(&StandardAblation::Zero));
    assert_ne!(all(&Silence), all(&StandardAblation::Mean));
}

#[test]
fn names() {
    for metric in StandardMetric::ALL {
        assert_eq!(metric.name().parse::<StandardMetric>().unwrap(), metric);
    }
    for ablation in StandardAblation::ALL {
        assert_eq!(ablation.name().parse::<StandardAblation>().unwrap(), ablation);
    }
    for rule in QuadratureRule::ALL {
        assert_eq!(rule.name().parse::<QuadratureRule>().unwrap(), rule);
    }
    let why = "kld".parse::<StandardMetric>().unwrap_err().to_string();
    assert_eq!(why, "metric \"kld\" is unknown; expected logit-diff, prob-diff, kl");
}

/// Objective that keeps the last hidden states as in the intact model: half the mean squared distance.
struct KeepStates {
    model: Gpt2<f64>,
    sequences: Vec<Vec<u32>>,
}

impl KeepStates {
    fn last(model: &Gpt2<f64>, tokens: &[u32]) -> Result<Array2<f64>> {
        Ok(locus_gpt2::last_hidden(model, &Batch::new(model.config(), &[tokens])?))
    }

    fn loss(&self, masked: &Gpt2<f64>) -> f64 {
        let rows: Vec<usize> = (0..self.sequences.len()).collect();
        self.gradient(masked, &rows).unwrap().0
    }
}

impl Objective<f64> for KeepStates {
    fn model(&self) -> &Gpt2<f64> {
        &self.model
    }

    fn n_rows(&self) -> usize {
        self.sequences.len()
    }

    fn gradient(&self, masked: &Gpt2<f64>, rows: &[usize]) -> Result<(f64, ParamSet<f64>)> {
        let mut grads = ParamSet::zeros(masked.config(), ParamId::maskable(masked.config()));
        let mut loss = 0.0;
        for &row in rows {
            let tokens = &self.sequences[row];
            let batch = Batch::new(masked.config(), &[tokens])?;
            let last = batch.last_rows();
            let tape = masked.run(&batch).reading(&last).tape();
            let d_hidden = (&tape.hidden - &Self::last(&self.model, tokens)?) / rows.len() as f64;
            loss += 0.5 * d_hidden.iter().map(|x| x * x).sum::<f64>() * rows.len() as f64;
            masked.backward(&tape, d_hidden.view(), &mut grads, &mut ());
        }
        Ok((loss, grads))
    }
}

/// The best weights by SNIP per example, without training.
struct OneShot;

impl<F: Scalar> MaskTrainer<F> for OneShot {
    fn train(
        &self,
        objective: &dyn Objective<F>,
        targets: &[f64],
        _seed: u64,
        monitor: &mut dyn TrainingMonitor<F>,
    ) -> Result<Vec<Circuit>> {
        let scores = score_weights(objective, WeightScore::Magnitude)?;
        let cut = |&target_density: &f64| {
            let mask = top_k(&scores, count_at_density(objective.model().config(), target_density));
            monitor.progress(MaskProgress { density: mask.density(), next_target: target_density });
            Circuit { mask, resampled: None, target_density, reached: true, epochs: 0, steps: 0 }
        };
        Ok(targets.iter().map(cut).collect())
    }
}

/// Every trainer, ours included, on an objective of one's own: each keeps the states better than masks drawn at random.
#[test]
fn an_objective_and_a_mask_trainer_of_ones_own() {
    let case = Case::new(24, 3);
    let objective = KeepStates { model: case.model.clone(), sequences: case.sequences.clone() };
    let steps = ScheduledTopK { steps_per_target: 40, hold: 20, batch_sequences: 24, ..Default::default() };
    let concrete = BinaryConcrete {
        temperature: 0.5,
        lr: 0.2,
        lambda_start: 0.5,
        batch_sequences: 24,
        max_epochs: 60,
        ..Default::default()
    };
    let trainers: [(&str, &dyn MaskTrainer<f64>); 3] =
        [("one shot", &OneShot), ("scheduled", &steps), ("binary concrete", &concrete)];
    for (name, trainer) in trainers {
        let mut calls = 0;
        let circuits = trainer.train(&objective, &[0.8], 1, &mut |_| calls += 1).unwrap();
        let mask = &circuits[0].mask;
        assert!(calls > 0 && circuits[0].reached, "{name}: {} of the parameters", mask.density());
        let loss = |mask: &locus_gpt2::ParamMask| objective.loss(&mask.ablate_complement(&case.model));
        let random = |seed| locus_gpt2::ParamMask::random(case.model.config(), mask.count(), &mut rng(seed));
        let controls = (0..5).map(|seed| loss(&random(seed))).sum::<f64>() / 5.0;
        assert!(loss(mask) < 0.8 * controls, "{name}: {} against {controls}", loss(mask));
    }
}

/// Only the gradient of another objective, so that everything else is what the trait gives.
struct GradientOnly<'a>(&'a dyn Objective<f64>);

impl Objective<f64> for GradientOnly<'_> {
    fn model(&self) -> &Gpt2<f64> {
        self.0.model()
    }

    fn n_rows(&self) -> usize {
        self.0.n_rows()
    }

    fn gradient(&self, masked: &Gpt2<f64>, rows: &[usize]) -> Result<(f64, ParamSet<f64>)> {
        self.0.gradient(masked, rows)
    }
}

#[test]
fn what_an_objective_need_not_say() {
    let case = Case::new(9, 4);
    let objective = case.objective();
    let plain = GradientOnly(&objective);
    // Pieces of one row, whatever their length.
    let [whole, by_row] =
        [&objective as &dyn Objective<f64>, &plain].map(|o| weight_attribution(o, 1).unwrap());
    assert_close("parts", &flat(&by_row), &flat(&whole), REORDERED_F64);
    let config = case.model.config();
    let entries: Vec<ParamEntries> =
        ParamId::maskable(config).map(|id| ParamEntries::new(config, id, vec![0, 3, 5])).collect();
    let rows = [7, 1, 4];
    let (loss, some) = plain.gradient_at(&case.model, &rows, &entries).unwrap();
    let (same_loss, same) = objective.gradient_at(&case.model, &rows, &entries).unwrap();
    assert_close("loss", &[loss], &[same_loss], REORDERED_F64);
    assert_close("entries", &some.concat(), &same.concat(), REORDERED_F64);
}
