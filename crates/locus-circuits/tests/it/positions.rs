//! Edges at token positions: identities, a planted circuit whose positions are known, and values of a NumPy script
//! (`fixtures/golden/positions.py`).

use std::path::PathBuf;

use locus_circuits::edges::{
    Attribution, Edge, EdgeAt, EdgeScores, EdgeSet, Faithfulness, Graph, LogitDiff, Pair, PositionScores,
    PositionSet, QuadratureRule, RankBy, StandardAblation, attribute_edges, attribute_positions, run_circuit,
    run_positions,
};
use locus_circuits::planted::{self, Planted};
use locus_gpt2::{Config, Gpt2};
use locus_testkit::assert_close;
use serde_json::Value;

/// Sums over positions are those of the plain scores in another order.
const IDENTITY: f64 = 1e-9;
/// Error of the script's derivatives by differences.
const DERIVATIVE: f64 = 1e-7;
const METHODS: [Attribution; 5] = [
    Attribution::Eap,
    Attribution::CleanCorrupted,
    Attribution::IgInputs(QuadratureRule::Midpoint, 3),
    Attribution::IgActivations(QuadratureRule::Left, 2),
    Attribution::Relp,
];

struct Golden {
    model: Gpt2<f64>,
    pairs: Vec<Pair>,
    values: Value,
}

fn golden() -> Golden {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/golden");
    let values: Value =
        serde_json::from_str(&std::fs::read_to_string(folder.join("positions.json")).unwrap()).unwrap();
    let config = Config::read(&folder.join("tiny/config.json")).unwrap();
    let model = Gpt2::<f64>::read(&folder.join("tiny/model_f64.safetensors"), &config).unwrap();
    let tokens = |value: &Value| -> Vec<u32> {
        value.as_array().unwrap().iter().map(|token| token.as_u64().unwrap() as u32).collect()
    };
    let pair = |pair: &Value| Pair {
        clean: tokens(&pair["clean"]),
        corrupted: tokens(&pair["corrupted"]),
        correct: tokens(&pair["correct"]),
        incorrect: tokens(&pair["incorrect"]),
    };
    let pairs = values["pairs"].as_array().unwrap().iter().map(pair).collect();
    Golden { model, pairs, values }
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
}

#[test]
fn scores_and_runs_are_those_of_the_script() {
    let Golden { model, pairs, values } = golden();
    let graph = Graph::new(model.config());
    let ablation = &StandardAblation::Corrupted;
    let scores = attribute_positions(&model, &pairs, &LogitDiff, Attribution::Eap, ablation).unwrap();
    let expected = values["scores"].as_array().unwrap();
    assert_eq!(scores.n_positions(), expected.len());
    for (position, expected) in expected.iter().enumerate() {
        let rows = expected.as_array().unwrap();
        for edge in graph.edges() {
            let actual = scores.get(EdgeAt { position, edge });
            let expected = rows[edge.source][edge.destination].as_f64().unwrap();
            let name = EdgeAt { position, edge }.name(graph);
            assert!((actual - expected).abs() < DERIVATIVE, "{name}: {actual} against {expected}");
        }
    }
    for run in values["runs"].as_array().unwrap() {
        let modulus = run["modulus"].as_u64().unwrap() as usize;
        let mut circuit = PositionSet::empty(graph, scores.n_positions());
        for position in 0..scores.n_positions() {
            let number = |edge: &Edge| 7 * edge.source + 3 * edge.destination + 5 * position;
            let kept = |edge: &Edge| !number(edge).is_multiple_of(modulus);
            graph.edges().filter(kept).for_each(|edge| circuit.insert(EdgeAt { position, edge }));
        }
        let values = run_positions(&model, &pairs, &LogitDiff, &circuit, ablation).unwrap();
        assert_close("metric", &values, &numbers(&run["metric"]), IDENTITY);
    }
}

/// Scores add up to those without positions, whatever the method and what an ablated edge carries.
#[test]
fn scores_of_positions_add_up_to_the_scores() {
    let Golden { model, pairs, .. } = golden();
    for method in METHODS {
        for ablation in &StandardAblation::ALL {
            let needs_run = matches!(method, Attribution::CleanCorrupted | Attribution::IgInputs(..));
            if needs_run && *ablation != StandardAblation::Corrupted {
                continue;
            }
            let plain = attribute_edges(&model, &pairs, &LogitDiff, method, ablation).unwrap();
            let by_position = attribute_positions(&model, &pairs, &LogitDiff, method, ablation).unwrap();
            let [sum, plain] = [by_position.summed(), plain].map(|scores| scores.matrix().clone());
            let name = format!("{method:?} {ablation:?}");
            assert_close(&name, sum.as_slice().unwrap(), plain.as_slice().unwrap(), IDENTITY);
        }
    }
}

/// A circuit at all positions is the circuit, and what both prompts share before their first difference says nothing.
#[test]
fn circuits_at_all_positions_are_circuits() {
    let Golden { model, pairs, .. } = golden();
    let graph = Graph::new(model.config());
    let half = EdgeSet::from_edges(graph, graph.edges().step_by(2));
    for ablation in &StandardAblation::ALL {
        let plain = run_circuit(&model, &pairs, &LogitDiff, &half, ablation).unwrap();
        let everywhere = PositionSet::everywhere(&half, 5);
        let at_all = run_positions(&model, &pairs, &LogitDiff, &everywhere, ablation).unwrap();
        assert_close("metric", &at_all, &plain, IDENTITY);
    }
    // The last pair differs at its last token alone.
    let last = &pairs[2..];
    let ablation = &StandardAblation::Corrupted;
    let scores = attribute_positions(&model, last, &LogitDiff, Attribution::Eap, ablation).unwrap();
    assert!((0..4).all(|position| scores.at(position).matrix().iter().all(|&score| score == 0.0)));
    let mut at_last = PositionSet::empty(graph, 5);
    half.edges().for_each(|edge| at_last.insert(EdgeAt { position: 4, edge }));
    let plain = run_circuit(&model, last, &LogitDiff, &half, ablation).unwrap();
    let values = run_positions(&model, last, &LogitDiff, &at_last, ablation).unwrap();
    assert_close("metric", &values, &plain, IDENTITY);
}

/// Induction: the token before is named at its successor, which is found from the last token and copied there.
#[test]
fn a_planted_circuit_is_found_at_its_positions() {
    let Planted { model, pairs, truth, .. } = planted::induction();
    let graph = truth.graph();
    let at = |name: &str, position: usize| EdgeAt { position, edge: graph.parse(name).unwrap() };
    let expected = [
        at("input->a0.h0<v>", 2),
        at("a0.h0->a1.h0<k>", 3),
        at("input->a1.h0<v>", 3),
        at("input->a1.h0<q>", 6),
        at("a1.h0->logits", 6),
    ];
    let mut circuit = PositionSet::empty(graph, 7);
    expected.iter().for_each(|&at| circuit.insert(at));
    let ablation = &StandardAblation::Corrupted;
    let method = Attribution::IgInputs(QuadratureRule::Midpoint, 20);
    let scores = attribute_positions(&model, &pairs, &LogitDiff, method, ablation).unwrap();
    let found = PositionSet::top_n(&scores, expected.len(), RankBy::Absolute).pruned();
    let names = |set: &PositionSet| set.edges().map(|at| at.name(graph)).collect::<Vec<_>>();
    assert_eq!(names(&found), names(&circuit));
    let faithfulness = |set: &PositionSet| {
        Faithfulness::of_positions(&model, &pairs, &LogitDiff, set, ablation).unwrap().normalised().unwrap()
    };
    let f = faithfulness(&found);
    assert!((f - 1.0).abs() < 0.01, "faithfulness {f}");
    let outside = faithfulness(&circuit.complement());
    assert!(outside.abs() < 0.05, "faithfulness {outside} of the complement");
    // One place to the left is no circuit.
    let mut shifted = PositionSet::empty(graph, 7);
    expected.iter().for_each(|at| shifted.insert(EdgeAt { position: at.position - 1, ..*at }));
    let elsewhere = faithfulness(&shifted);
    assert!(elsewhere.abs() < 0.05, "faithfulness {elsewhere} one place to the left");
}

#[test]
fn what_has_no_positions_is_refused() {
    let Golden { model, mut pairs, .. } = golden();
    let graph = Graph::new(model.config());
    let ablation = &StandardAblation::Corrupted;
    let score = |pairs: &[Pair], method| {
        attribute_positions(&model, pairs, &LogitDiff, method, ablation).unwrap_err().to_string()
    };
    for method in [Attribution::QkFix, Attribution::AtpStar] {
        let why = score(&pairs, method);
        assert!(why.contains("at all positions at once; expected eap"), "{why}");
    }
    let circuit = PositionSet::empty(graph, 4);
    let why = run_positions(&model, &pairs, &LogitDiff, &circuit, ablation).unwrap_err().to_string();
    assert!(why.contains("prompts have 5 tokens; expected 4"), "{why}");
    pairs[1].clean.pop();
    pairs[1].corrupted.pop();
    let why = score(&pairs, Attribution::Eap);
    assert!(why.contains("pair 1 has 5 tokens and pair 2 has 4; expected prompts of one length"), "{why}");
    let scores = EdgeScores::new(graph, ndarray::Array2::zeros((graph.n_sources(), graph.n_destinations())));
    assert_eq!(PositionScores::new(vec![scores.clone(); 3]).summed(), scores);
}
