//! RelP, AtP* and neurons: against an independent NumPy script (`fixtures/golden/relp.py`), and the identities they must
//! meet.

use std::path::PathBuf;

use locus_circuits::edges::{
    Attribution, Destination, EdgeScores, EdgeSet, Graph, Kl, LogitDiff, Metric, Neuron, NeuronSet, Pair,
    ProbDiff, QkvInput, QuadratureRule, RankBy, StandardAblation, attribute_edges, attribute_neurons,
    patch_edges, random_edges, run_circuit, run_clean, run_neurons,
};
use locus_circuits::planted::{self, Planted};
use locus_gpt2::{BlockParam, Config, Gpt2, ParamId, Scalar};
use locus_testkit::{GOLDEN_F64, assert_close, random_vector};
use serde_json::Value;

use crate::support::rng;

/// Sums in f32 against sums in f64: scores are differences of nearly equal numbers.
const AGREES_F32: f64 = 1e-3;
/// Identities hold up to the order of additions.
const IDENTITY: f64 = 1e-9;

fn floats(value: &Value) -> Vec<f64> {
    match value {
        Value::Array(values) => values.iter().flat_map(floats).collect(),
        other => vec![other.as_f64().unwrap()],
    }
}

fn golden(name: &str) -> Value {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/golden").join(name);
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn golden_pairs() -> Vec<Pair> {
    let tokens = |value: &Value| floats(value).into_iter().map(|x| x as u32).collect();
    let pair = |e: &Value| Pair {
        clean: tokens(&e["clean"]),
        corrupted: tokens(&e["corrupted"]),
        correct: tokens(&e["good"]),
        incorrect: tokens(&e["bad"]),
    };
    golden("eap.json")["examples"].as_array().unwrap().iter().map(pair).collect()
}

fn check<F: Scalar>(weights: &str, tolerance: f64) {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/golden/tiny");
    let config = Config::read(&folder.join("config.json")).unwrap();
    let model = Gpt2::<F>::read(&folder.join(weights), &config).unwrap();
    let (pairs, golden) = (golden_pairs(), golden("relp.json"));

    let methods: [(&str, Attribution, &dyn Metric<F>); 4] = [
        ("relp", Attribution::Relp, &LogitDiff),
        ("relp/prob-diff", Attribution::Relp, &ProbDiff),
        ("qk-fix", Attribution::QkFix, &LogitDiff),
        ("atp-star", Attribution::AtpStar, &LogitDiff),
    ];
    assert_eq!(golden["scores"].as_object().unwrap().len(), methods.len());
    for (name, method, metric) in methods {
        let ours = attribute_edges(&model, &pairs, metric, method, &StandardAblation::Corrupted).unwrap();
        assert_close(name, ours.matrix().as_slice().unwrap(), &floats(&golden["scores"][name]), tolerance);
    }
    for (name, method) in [("eap", Attribution::Eap), ("relp", Attribution::Relp)] {
        let ours = attribute_neurons(&model, &pairs, &LogitDiff, method).unwrap();
        assert_close(name, ours.matrix().as_slice().unwrap(), &floats(&golden["neurons"][name]), tolerance);
    }
    let mut kept = NeuronSet::empty(&config);
    for (i, &is_kept) in floats(&golden["kept"]).iter().enumerate() {
        if is_kept > 0.0 {
            kept.insert(Neuron { layer: i / config.d_mlp(), index: i % config.d_mlp() });
        }
    }
    let loss: Vec<f64> =
        run_neurons(&model, &pairs, &LogitDiff, &kept).unwrap().into_iter().map(|x| -x).collect();
    assert_close("kept neurons", &loss, &floats(&golden["kept_loss"]), tolerance);
}

#[test]
fn f64_agrees_with_numpy() {
    check::<f64>("model_f64.safetensors", GOLDEN_F64);
}

#[test]
fn f32_agrees_with_numpy() {
    check::<f32>("model.safetensors", AGREES_F32);
}

/// A model with large random weights and no biases.
fn model(seed: u64) -> Gpt2<f64> {
    let mut config = Config::new(3, 2, 6, 8, 11);
    config.initializer_range = 0.4;
    Gpt2::init(&config, &mut rng(seed))
}

fn pairs() -> Vec<Pair> {
    let pair = |clean: [u32; 5], corrupted: [u32; 5], correct: u32, incorrect: u32| Pair {
        clean: clean.to_vec(),
        corrupted: corrupted.to_vec(),
        correct: vec![correct],
        incorrect: vec![incorrect],
    };
    vec![pair([1, 2, 3, 4, 5], [1, 7, 3, 4, 5], 6, 8), pair([0, 9, 9, 2, 1], [0, 9, 4, 2, 10], 3, 7)]
}

fn scores(model: &Gpt2<f64>, pairs: &[Pair], method: Attribution, ablation: StandardAblation) -> EdgeScores {
    attribute_edges(model, pairs, &LogitDiff, method, &ablation).unwrap()
}

/// Conservation: where attention patterns are constant and there are no biases, all relevance is in the input, and all
/// of it arrives at the logits. The gradient has no such property.
#[test]
fn relevance_is_conserved() {
    for seed in 0..8 {
        let mut model = model(seed);
        let d = model.config().n_embd;
        model.get_mut(ParamId::PositionEmbedding).fill(0.0);
        for layer in 0..model.config().n_layer {
            let qkv = model.get_mut(ParamId::Block(layer, BlockParam::AttnInWeight));
            qkv.chunks_mut(3 * d).for_each(|row| row[..2 * d].fill(0.0));
        }
        let pair = &pairs()[..1];
        let metric = run_clean(&model, pair, &LogitDiff).unwrap()[0];
        let sums = |method| {
            let scores = scores(&model, pair, method, StandardAblation::Zero);
            let column = scores.graph().column(Destination::Logits);
            [scores.node_scores()[0], scores.matrix().column(column).sum()]
        };
        assert_close("conserved", &sums(Attribution::Relp), &[metric; 2], IDENTITY);
        // A LayerNorm forgets the length of its input, so its gradient sees next to no change along it.
        let [_, logits] = sums(Attribution::Eap);
        assert!(logits.abs() < 1e-2 * metric.abs(), "{logits} against {metric}");
    }
}

/// Where all that comes after the pattern is linear, the QK fix is exact patching, and the gradient is not.
#[test]
fn the_qk_fix_is_exact_through_the_softmax() {
    let Planted { mut model, pairs, .. } = planted::linear();
    let (d, last) = (model.config().n_embd, model.config().n_layer - 1);
    let noise = random_vector(2 * d * d, 3);
    let qkv = model.get_mut(ParamId::Block(last, BlockParam::AttnInWeight));
    for (row, noise) in qkv.chunks_mut(3 * d).zip(noise.chunks(2 * d)) {
        row[..2 * d].iter_mut().zip(noise).for_each(|(w, x)| *w = 1.5 * x);
    }
    let graph = Graph::new(model.config());
    let into_patterns = |name: &str| name.ends_with("<q>") || name.ends_with("<k>");
    let edges: Vec<_> = graph
        .edges()
        .filter(|&edge| {
            let of_last =
                matches!(graph.destination(edge.destination), Destination::Head(layer, ..) if layer == last);
            of_last && into_patterns(&graph.name(edge))
        })
        .collect();
    let exact = patch_edges(&model, &pairs, &LogitDiff, &StandardAblation::Corrupted, &edges).unwrap();
    let of = |scores: &EdgeScores| edges.iter().map(|&edge| scores.get(edge)).collect::<Vec<f64>>();
    let fixed = scores(&model, &pairs, Attribution::QkFix, StandardAblation::Corrupted);
    let plain = scores(&model, &pairs, Attribution::Eap, StandardAblation::Corrupted);
    let exact = of(&exact);
    assert!(exact.iter().any(|x| x.abs() > 1e-3), "{exact:?}");
    // The LayerNorms are linear up to 1e-12 of their epsilon.
    assert_close("q and k", &of(&fixed), &exact, 1e-7);
    let wrong = of(&plain).iter().zip(&exact).fold(0f64, |max, (a, b)| max.max((a - b).abs()));
    assert!(wrong > 1e-3, "{wrong}");
}

/// Edges into values, MLPs and logits are those of EAP.
#[test]
fn the_qk_fix_leaves_other_edges_alone() {
    for ablation in StandardAblation::ALL {
        let model = model(1);
        let fixed = scores(&model, &pairs(), Attribution::QkFix, ablation);
        let plain = scores(&model, &pairs(), Attribution::Eap, ablation);
        let graph = fixed.graph();
        let mut moved = 0;
        for edge in graph.edges() {
            let (a, b) = (fixed.get(edge), plain.get(edge));
            match graph.destination(edge.destination) {
                Destination::Head(_, QkvInput::Query | QkvInput::Key, _) => {
                    moved += usize::from((a - b).abs() > 1e-6)
                }
                _ => assert_eq!(a, b, "{}", graph.name(edge)),
            }
        }
        assert!(moved > 10, "{moved}");
    }
}

/// GradDrop's scores have no sign, and with one layer that of the logits is the absolute EAP.
#[test]
fn grad_drop_of_one_layer() {
    let mut config = Config::new(1, 2, 6, 8, 11);
    config.initializer_range = 0.4;
    let model = Gpt2::<f64>::init(&config, &mut rng(2));
    let dropped = scores(&model, &pairs()[..1], Attribution::AtpStar, StandardAblation::Corrupted);
    let plain = scores(&model, &pairs()[..1], Attribution::Eap, StandardAblation::Corrupted);
    let column = dropped.graph().column(Destination::Logits);
    for (a, b) in dropped.matrix().column(column).iter().zip(plain.matrix().column(column)) {
        assert!((a - b.abs()).abs() < 1e-12, "{a} against {b}");
    }
    assert!(dropped.matrix().iter().all(|&score| score >= 0.0));
}

/// The neurons of a layer add up to its MLP as a node, whatever the method.
#[test]
fn neurons_add_up_to_their_mlp() {
    let model = model(3);
    for method in [
        Attribution::Eap,
        Attribution::CleanCorrupted,
        Attribution::IgInputs(QuadratureRule::Midpoint, 3),
        Attribution::Relp,
    ] {
        let nodes = scores(&model, &pairs(), method, StandardAblation::Corrupted);
        let graph = nodes.graph();
        let of_mlps: Vec<f64> = (0..graph.n_layer)
            .map(|layer| nodes.node_scores()[graph.row(locus_circuits::edges::Source::Mlp(layer))])
            .collect();
        let neurons = attribute_neurons(&model, &pairs(), &LogitDiff, method).unwrap();
        let sums: Vec<f64> = neurons.matrix().rows().into_iter().map(|row| row.sum()).collect();
        assert_close(&format!("{method:?}"), &sums, &of_mlps, IDENTITY);
    }
    let refused =
        attribute_neurons(&model, &pairs(), &LogitDiff, Attribution::QkFix).unwrap_err().to_string();
    assert!(refused.contains("edges alone"), "{refused}");
}

#[test]
fn all_neurons_are_the_model() {
    let model = model(4);
    let clean = run_clean(&model, &pairs(), &LogitDiff).unwrap();
    let full = NeuronSet::full(model.config());
    assert_close("all kept", &run_neurons(&model, &pairs(), &LogitDiff, &full).unwrap(), &clean, IDENTITY);
    let none = run_neurons(&model, &pairs(), &Kl, &NeuronSet::empty(model.config())).unwrap();
    assert!(none.iter().all(|&divergence| divergence > 1e-6), "{none:?}");
    let scores = attribute_neurons(&model, &pairs(), &LogitDiff, Attribution::Eap).unwrap();
    let best = NeuronSet::top_n(&scores, 5, RankBy::Absolute);
    assert_eq!(best.count(), 5);
    assert!(best.contains(scores.ranked(RankBy::Absolute)[4]));
}

/// What a node outside of the circuit reads is nobody's business, because its output is ablated.
#[test]
fn a_circuit_of_nodes_ablates_the_others() {
    let model = model(5);
    let graph = Graph::new(model.config());
    let scores = scores(&model, &pairs(), Attribution::Eap, StandardAblation::Corrupted);
    let rows = scores.top_nodes(4, RankBy::Absolute);
    let nodes = EdgeSet::of_nodes(graph, &rows);
    let mut more = nodes.clone();
    graph.edges().filter(|edge| rows.contains(&edge.source)).for_each(|edge| more.insert(edge));
    assert!(more.count() > nodes.count());
    let run =
        |set: &EdgeSet| run_circuit(&model, &pairs(), &LogitDiff, set, &StandardAblation::Corrupted).unwrap();
    assert_close("nodes", &run(&nodes), &run(&more), IDENTITY);
    let other = random_edges(graph, nodes.count(), &mut rng(1));
    assert!((run(&nodes)[0] - run(&other)[0]).abs() > 1e-6);
    let all: Vec<usize> = (0..graph.n_sources()).collect();
    assert_eq!(EdgeSet::of_nodes(graph, &all), EdgeSet::full(graph));
}
