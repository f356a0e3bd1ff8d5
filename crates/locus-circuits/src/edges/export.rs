//! Edge scores and circuits as text: JSON in the layout of EAP-IG and MIB, CSV and Graphviz.
//! [`CircuitFile`](super::CircuitFile) reads all three.

use std::fmt::Write;

use locus_gpt2::Config;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::edge_set::EdgeSet;
use super::graph::{Destination, QkvInput, Source};
use super::scores::EdgeScores;

/// What a reader must know to interpret a score file; written beside the scores.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Conventions {
    /// Meaning of a score: `delta_loss_when_corrupted` in all files that `locus` writes.
    pub sign: String,
    /// Method that made the scores.
    pub method: String,
    /// Quadrature rule of an integrated method, by name.
    pub ig_rule: Option<String>,
    /// Number of steps of an integrated method.
    pub ig_steps: Option<usize>,
    /// Name of the metric; the loss is minus the metric where more is better.
    pub metric: String,
    /// Name of the ablation: what an ablated edge carries.
    pub ablation: String,
    /// Whether the end-of-text token stands before every prompt.
    pub bos: bool,
    /// Which source attention's output bias belongs to: `none`.
    pub bias_owner: String,
    /// Output of the source `input`: `token-embedding`.
    pub input_node: String,
    /// Number of pairs.
    pub pairs: usize,
}

/// Scores and circuit as JSON: `cfg`, `nodes` and `edges` as in EAP-IG's files, and our `conventions`. A node is in the
/// graph when one of its edges is.
pub fn to_json(scores: &EdgeScores, circuit: &EdgeSet, config: &Config, conventions: &Conventions) -> String {
    let mut document = document(scores, circuit, config.n_embd);
    document["conventions"] = json!(conventions);
    pretty(&document)
}

/// `cfg`, `nodes` and `edges` of a JSON file; `width` is that of the model.
pub(super) fn document(scores: &EdgeScores, circuit: &EdgeSet, width: usize) -> Value {
    let graph = scores.graph();
    let node_scores = scores.node_scores();
    let (mut read, mut written) = (vec![false; graph.n_destinations()], vec![false; graph.n_sources()]);
    for edge in circuit.edges() {
        (read[edge.destination], written[edge.source]) = (true, true);
    }
    let mut nodes = Map::new();
    for (row, score) in node_scores.into_iter().enumerate() {
        let source = graph.source(row);
        let in_graph = written[row] || graph.inputs_of(source).into_iter().any(|column| read[column]);
        nodes.insert(source.to_string(), json!({ "in_graph": in_graph, "score": finite(score) }));
    }
    let mut edges = Map::new();
    for edge in graph.edges() {
        let entry = json!({ "score": finite(scores.get(edge)), "in_graph": circuit.contains(edge) });
        edges.insert(graph.name(edge), entry);
    }
    json!({
        "cfg": {
            "n_layers": graph.n_layer,
            "n_heads": graph.n_head,
            "parallel_attn_mlp": false,
            "d_model": width,
        },
        "nodes": nodes,
        "edges": edges,
    })
}

/// Text of a JSON file.
pub(super) fn pretty(document: &Value) -> String {
    serde_json::to_string_pretty(document).expect("plain data") + "\n"
}

/// A score as JSON, which has no NaN: an edge without a score is `null`.
fn finite(score: f64) -> Value {
    if score.is_finite() { json!(score) } else { Value::Null }
}

/// Scores and circuit as CSV, with one edge per row: `source,destination,score,in_graph`.
pub fn to_csv(scores: &EdgeScores, circuit: &EdgeSet) -> String {
    let graph = scores.graph();
    let mut out = String::from("source,destination,score,in_graph\n");
    for edge in graph.edges() {
        let (source, destination) = (graph.source(edge.source), graph.destination(edge.destination));
        writeln!(out, "{source},{destination},{},{}", scores.get(edge), circuit.contains(edge))
            .expect("strings take everything");
    }
    out
}

/// The circuit as Graphviz DOT. Edges into queries are magenta, keys green, values blue, those with a negative score
/// red; their width grows with the absolute score. Attributes that Graphviz ignores keep what the picture does not
/// say: the numbers of layers and heads, the input of a head that an edge goes to (`qkv`) and its score.
pub fn to_dot(scores: &EdgeScores, circuit: &EdgeSet) -> String {
    let graph = scores.graph();
    let largest = circuit.edges().fold(0f64, |max, edge| max.max(scores.get(edge).abs()));
    let mut out = String::from("digraph circuit {\n");
    writeln!(out, "  graph [rankdir=BT, n_layers={}, n_heads={}];", graph.n_layer, graph.n_head)
        .expect("strings take everything");
    out.push_str("  node [shape=box];\n");
    for edge in circuit.edges() {
        let destination = graph.destination(edge.destination);
        let node =
            graph.node_of(destination).map_or_else(|| "logits".to_owned(), |node: Source| node.to_string());
        let score = scores.get(edge);
        let (qkv, colour) = match destination {
            Destination::Head(_, QkvInput::Query, _) => (", qkv=q", "magenta"),
            Destination::Head(_, QkvInput::Key, _) => (", qkv=k", "green"),
            Destination::Head(_, QkvInput::Value, _) => (", qkv=v", "blue"),
            _ => ("", "black"),
        };
        let colour = if score < 0.0 { "red" } else { colour };
        let width = if largest > 0.0 { 0.5 + 4.5 * score.abs() / largest } else { 1.0 };
        let width = if width.is_nan() { 1.0 } else { width };
        let stated = if score.is_finite() { format!(", score={score}") } else { String::new() };
        let source = graph.source(edge.source);
        writeln!(out, "  \"{source}\" -> \"{node}\" [color={colour}, penwidth={width:.2}{qkv}{stated}];")
            .expect("strings take everything");
    }
    out.push_str("}\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edges::{Graph, RankBy};
    use ndarray::Array2;

    #[test]
    fn tables_and_pictures_name_every_edge() {
        let graph = Graph { n_layer: 2, n_head: 2 };
        let values = Array2::from_shape_fn((graph.n_sources(), graph.n_destinations()), |(i, j)| {
            (i * 31 + j) as f64 / 7.0 - 3.0
        });
        let scores = EdgeScores::new(graph, values);
        let circuit = EdgeSet::top_n(&scores, 9, RankBy::Absolute);
        assert_eq!(to_csv(&scores, &circuit).lines().count(), 1 + graph.n_edges());
        assert_eq!(to_dot(&scores, &circuit).matches("->").count(), circuit.count());
    }
}
