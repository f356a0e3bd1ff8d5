//! Scores and interventions of the tiny golden model against those of an independent PyTorch script
//! (`fixtures/golden/eap.py`), in f64 and f32.

use std::path::PathBuf;

use locus_circuits::edges::{
    Attribution, Edge, EdgeSet, Graph, Kl, LogitDiff, Metric, Pair, ProbDiff, QuadratureRule,
    StandardAblation, attribute_edges, patch_edges, run_circuit, run_clean,
};
use locus_gpt2::{Config, Gpt2, Scalar};
use locus_testkit::assert_close;
use serde_json::Value;

/// Both sides add up the same few thousand products in f64, in different orders.
const AGREES_F64: f64 = 1e-9;
/// Sums in f32 against sums in f64: scores are differences of nearly equal numbers, so a digit is lost against
/// [`locus_testkit::GOLDEN_F32`].
const AGREES_F32: f64 = 1e-3;

fn floats(value: &Value) -> Vec<f64> {
    match value {
        Value::Array(values) => values.iter().flat_map(floats).collect(),
        other => vec![other.as_f64().unwrap()],
    }
}

fn tokens(value: &Value) -> Vec<u32> {
    floats(value).into_iter().map(|x| x as u32).collect()
}

fn check<F: Scalar>(weights: &str, tolerance: f64) {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/golden");
    let config = Config::read(&folder.join("tiny/config.json")).unwrap();
    let model = Gpt2::<F>::read(&folder.join("tiny").join(weights), &config).unwrap();
    let graph = Graph::new(&config);
    let golden: Value =
        serde_json::from_str(&std::fs::read_to_string(folder.join("eap.json")).unwrap()).unwrap();
    let pairs: Vec<Pair> = golden["examples"]
        .as_array()
        .unwrap()
        .iter()
        .map(|e| Pair {
            clean: tokens(&e["clean"]),
            corrupted: tokens(&e["corrupted"]),
            correct: tokens(&e["good"]),
            incorrect: tokens(&e["bad"]),
        })
        .collect();

    let methods: [(&str, Attribution, &dyn Metric<F>); 9] = [
        ("eap", Attribution::Eap, &LogitDiff),
        ("eap/prob-diff", Attribution::Eap, &ProbDiff),
        ("clean-corrupted", Attribution::CleanCorrupted, &LogitDiff),
        ("eap-ig-inputs/left", Attribution::IgInputs(QuadratureRule::Left, 5), &LogitDiff),
        ("eap-ig-inputs/right", Attribution::IgInputs(QuadratureRule::Right, 5), &LogitDiff),
        ("eap-ig-inputs/midpoint", Attribution::IgInputs(QuadratureRule::Midpoint, 5), &LogitDiff),
        ("eap-ig-inputs/trapezoid", Attribution::IgInputs(QuadratureRule::Trapezoid, 5), &LogitDiff),
        ("eap-ig-inputs/left/kl", Attribution::IgInputs(QuadratureRule::Left, 5), &Kl),
        ("eap-ig-activations/midpoint", Attribution::IgActivations(QuadratureRule::Midpoint, 5), &LogitDiff),
    ];
    let scores = &golden["scores"];
    assert_eq!(scores.as_object().unwrap().len(), methods.len() + 1, "every matrix of the file is compared");
    for (name, method, metric) in methods {
        let ours = attribute_edges(&model, &pairs, metric, method, &StandardAblation::Corrupted).unwrap();
        assert_close(name, ours.matrix().as_slice().unwrap(), &floats(&scores[name]), tolerance);
    }
    let edges: Vec<Edge> = graph.edges().collect();
    let exact = patch_edges(&model, &pairs, &LogitDiff, &StandardAblation::Corrupted, &edges).unwrap();
    assert_close("exact", exact.matrix().as_slice().unwrap(), &floats(&scores["exact"]), tolerance);

    let losses = |values: Vec<f64>| values.into_iter().map(|x| -x).collect::<Vec<_>>();
    let clean = losses(run_clean(&model, &pairs, &LogitDiff).unwrap());
    assert_close("clean", &clean, &floats(&golden["clean_loss"]), tolerance);
    let none = EdgeSet::empty(graph);
    let run = |set: &EdgeSet, ablation: &StandardAblation| {
        losses(run_circuit(&model, &pairs, &LogitDiff, set, ablation).unwrap())
    };
    let corrupted = run(&none, &StandardAblation::Corrupted);
    assert_close("corrupted", &corrupted, &floats(&golden["corrupted_loss"]), tolerance);
    let interventions = golden["interventions"].as_array().unwrap();
    assert_eq!(interventions.len(), 4);
    for intervention in interventions {
        let names = intervention["kept"].as_array().unwrap();
        let kept = names.iter().map(|name| graph.parse(name.as_str().unwrap()).expect("a known name"));
        let ablation = match intervention["reference"].as_str().unwrap() {
            "zero" => &StandardAblation::Zero,
            _ => &StandardAblation::Corrupted,
        };
        let ours = run(&EdgeSet::from_edges(graph, kept), ablation);
        assert_close("intervention", &ours, &floats(&intervention["loss"]), tolerance);
    }
}

#[test]
fn f64_agrees_with_pytorch() {
    check::<f64>("model_f64.safetensors", AGREES_F64);
}

#[test]
fn f32_agrees_with_pytorch() {
    check::<f32>("model.safetensors", AGREES_F32);
}
