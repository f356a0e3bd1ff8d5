//! Every panic that the documentation promises, with what it says.

use std::panic::{AssertUnwindSafe, catch_unwind};

use locus_circuits::edges::{
    Attribution, CurveAreas, Edge, EdgeScores, EdgeSet, Graph, LogitDiff, Metric, Pair, QuadratureRule,
    RankBy, StandardAblation, attribute_edges, auroc, edge_mask, patch_edges, random_edges, run_circuit,
    stability,
};
use locus_circuits::masks::{Objective, ReadOut, WeightScore, score_weights, top_k, top_k_per_tensor};
use locus_circuits::tracing::{KnownFact, Tracing, average_effects, trace_fact};
use locus_gpt2::{Config, Gpt2, ParamMask};
use ndarray::Array2;

use crate::support::{Case, flat, rng, with_blocks};

/// Checks that `work` panics and that the message contains `expected`.
#[track_caller]
fn says<T>(expected: &str, work: impl FnOnce() -> T) {
    let Err(panic) = catch_unwind(AssertUnwindSafe(|| drop(work()))) else { panic!("no panic: {expected}") };
    let message = panic.downcast_ref::<String>().cloned();
    let message = message.or_else(|| panic.downcast_ref::<&str>().map(|&text| text.to_owned()));
    let message = message.expect("a panic with a message");
    assert!(message.contains(expected), "{message:?} instead of {expected:?}");
}

#[test]
fn cuts() {
    let model = Case::new(2, 1).model;
    let n = ParamMask::n_maskable(model.config());
    let nan = with_blocks(&model, &vec![f64::NAN; flat(&model).len()]);
    says("0 of", || top_k(&model, 0));
    says(&format!("{} of {n}", n + 1), || top_k(&model, n + 1));
    says("scores are not NaN", || top_k(&nan, 3));
    says("a density of 0", || top_k_per_tensor(&model, 0.0));
    says("a density of 1.5", || top_k_per_tensor(&model, 1.5));
    says("scores are not NaN", || top_k_per_tensor(&nan, 0.5));
}

#[test]
fn objectives() {
    let case = Case::new(4, 1);
    let objective = case.objective();
    let wider = Gpt2::<f64>::init(&Config::new(2, 2, 16, 16, 20), &mut rng(1));
    says("another shape than the objective's", || objective.gradient(&wider, &[0]).map(drop));
    says("another shape than the objective's", || objective.gradient_at(&wider, &[0], &[]).map(drop));
    says("another shape than the objective's", || objective.gradient_parts(&wider, &[0], 9, &mut |_, _| {}));
    let mut short = objective;
    short.read_out = ReadOut::Head(&case.head, &case.classes[1..]);
    says("numbers of classes and of sequences", || short.gradient(&case.model, &[0]).map(drop));
    short.read_out = ReadOut::Answers(&[[1, 2]]);
    says("numbers of answers and of sequences", || short.gradient(&case.model, &[0]).map(drop));
    says("integration needs a point", || score_weights(&objective, WeightScore::Integrated(0)).map(drop));
    let mut empty = objective;
    (empty.sequences, empty.read_out) = (&[], ReadOut::Answers(&[]));
    says("no row", || score_weights(&empty, WeightScore::Snip).map(drop));
}

fn pair() -> Vec<Pair> {
    vec![Pair { clean: vec![1, 2], corrupted: vec![3, 2], correct: vec![4], incorrect: vec![5] }]
}

/// A metric whose gradient has the length of another vocabulary.
struct Short;

impl Metric<f64> for Short {
    fn value(&self, _: &Pair, logits: &[f64], _: &[f64]) -> f64 {
        logits[0]
    }

    fn gradient(&self, _: &Pair, _: &[f64], _: &[f64]) -> Vec<f64> {
        vec![1.0]
    }
}

#[test]
fn edges() {
    let model = Case::new(2, 1).model;
    let graph = Graph::new(model.config());
    let other = Graph { n_layer: 1, n_head: 1 };
    let no_edge = Edge { source: graph.n_sources() - 1, destination: 0 };
    says("row 99 of 7", || graph.source(99));
    says("column 99 of 15", || graph.destination(99));
    says("is not an edge", || EdgeSet::empty(graph).insert(no_edge));
    says("is not an edge", || EdgeSet::from_edges(graph, [no_edge]));
    says("shape of a score matrix", || EdgeScores::new(graph, Array2::zeros((2, 2))));
    says("a circuit of another model", || edge_mask(&EdgeSet::full(other), model.config()));
    let corrupted = &StandardAblation::Corrupted;
    says("a circuit of another model", || {
        run_circuit(&model, &pair(), &LogitDiff, &EdgeSet::full(other), corrupted).map(drop)
    });
    says("is not an edge", || patch_edges(&model, &pair(), &LogitDiff, corrupted, &[no_edge]).map(drop));
    let attribute = |metric: &dyn Metric<f64>, method| {
        attribute_edges(&model, &pair(), metric, method, corrupted).map(drop)
    };
    says("at least one step", || attribute(&LogitDiff, Attribution::IgInputs(QuadratureRule::Left, 0)));
    says("a number per token of the vocabulary", || attribute(&Short, Attribution::Eap));
}

#[test]
fn measures() {
    let graph = Graph { n_layer: 2, n_head: 2 };
    let scores = EdgeScores::random(graph, &mut rng(1));
    says("at least one step", || QuadratureRule::Midpoint.nodes(0));
    says("a circuit with 0 of 46 edges", || auroc(&scores, &EdgeSet::empty(graph), RankBy::Signed));
    says("a circuit with 46 of 46 edges", || auroc(&scores, &EdgeSet::full(graph), RankBy::Signed));
    says("47 of 46 edges", || random_edges(graph, 47, &mut rng(1)));
    says("nothing to resample", || stability(&[], 3, RankBy::Signed, 9, &mut rng(1)));
    says("nothing to resample", || {
        stability(std::slice::from_ref(&scores), 3, RankBy::Signed, 0, &mut rng(1))
    });
    says("nothing to resample", || {
        stability(std::slice::from_ref(&scores), 0, RankBy::Signed, 9, &mut rng(1))
    });
    says("a curve without points", || CurveAreas::of(&[]));
}

#[test]
fn tracing() {
    let model = Case::new(2, 1).model;
    let fact = KnownFact { prompt: vec![1, 2, 3], subject: 0..1, answer: 4 };
    let how = Tracing { samples: 2, noise: 0.1, window: 1, seed: 1 };
    let without = [Tracing { samples: 0, ..how }, Tracing { window: 0, ..how }];
    for how in without {
        says("no sample or no layer", || trace_fact(&model, &fact, &how).map(drop));
    }
    says("effects of every fact", || average_effects(std::slice::from_ref(&fact), &[]));
}
