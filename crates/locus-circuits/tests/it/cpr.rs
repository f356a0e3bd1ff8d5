//! Faithfulness at MIB's sizes, CPR and CMD of the tiny golden model against a NumPy script that was written from MIB's
//! definitions (`fixtures/golden/cpr.py`).

use std::path::PathBuf;

use locus_circuits::edges::{
    CurveAreas, EdgeScores, EdgeSet, Graph, LogitDiff, MIB_FRACTIONS, Pair, RankBy, StandardAblation,
    faithfulness_curves,
};
use locus_gpt2::ndarray::Array2;
use locus_gpt2::{Config, Gpt2};
use serde_json::Value;

/// Both sides add up the same few thousand products in f64, in different orders.
const AGREES: f64 = 1e-9;

fn close(what: &str, actual: f64, expected: &Value) {
    let expected = expected.as_f64().unwrap();
    assert!((actual - expected).abs() < AGREES, "{what}: {actual} against {expected}");
}

#[test]
fn areas_are_those_of_mibs_definitions() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/golden");
    let json = |name: &str| -> Value {
        serde_json::from_str(&std::fs::read_to_string(folder.join(name)).unwrap()).unwrap()
    };
    let (eap, golden) = (json("eap.json"), json("cpr.json"));
    let config = Config::read(&folder.join("tiny/config.json")).unwrap();
    let model = Gpt2::<f64>::read(&folder.join("tiny/model_f64.safetensors"), &config).unwrap();
    let graph = Graph::new(&config);
    let numbers = |value: &Value| -> Vec<f64> {
        let rows = value.as_array().unwrap().iter();
        rows.flat_map(|row| row.as_array().unwrap().iter().map(|x| x.as_f64().unwrap())).collect()
    };
    let tokens = |value: &Value| -> Vec<u32> {
        value.as_array().unwrap().iter().map(|token| token.as_u64().unwrap() as u32).collect()
    };
    let scores = numbers(&eap["scores"][golden["scores"].as_str().unwrap()]);
    let scores = Array2::from_shape_vec((graph.n_sources(), graph.n_destinations()), scores).unwrap();
    let scores = EdgeScores::new(graph, scores);
    let pair = |pair: &Value| Pair {
        clean: tokens(&pair["clean"]),
        corrupted: tokens(&pair["corrupted"]),
        correct: tokens(&pair["good"]),
        incorrect: tokens(&pair["bad"]),
    };
    let pairs: Vec<Pair> = eap["examples"].as_array().unwrap().iter().map(pair).collect();

    let orders = [RankBy::Absolute, RankBy::Signed];
    let rankings = orders.map(|by| (&scores, by));
    let ablation = &StandardAblation::Corrupted;
    let curves =
        faithfulness_curves(&model, &pairs, &LogitDiff, ablation, &rankings, &MIB_FRACTIONS).unwrap();
    assert_eq!(golden["edges"], graph.n_edges());
    let areas: Vec<CurveAreas> = curves
        .iter()
        .zip(orders)
        .zip(["absolute", "signed"])
        .map(|((curve, by), name)| {
            let points = curve.points().unwrap();
            let expected = golden[name].as_array().unwrap();
            assert_eq!(points.len(), expected.len());
            for (&(share, faithfulness), expected) in points.iter().zip(expected) {
                let n = (share * graph.n_edges() as f64) as usize;
                assert_eq!(
                    expected["left"],
                    EdgeSet::top_n(&scores, n, by).pruned().count(),
                    "{name} {share}"
                );
                close(name, faithfulness, &expected["faithfulness"]);
            }
            CurveAreas::of(&points)
        })
        .collect();
    close("CPR", areas[1].cpr, &golden["cpr"]);
    close("CMD", areas[0].cmd, &golden["cmd"]);
    close("CMD, log axis", areas[0].cmd_log, &golden["cmd_log"]);
}
