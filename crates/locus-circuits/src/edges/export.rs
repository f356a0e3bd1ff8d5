//! Files of edge scores and circuits: JSON in the layout of EAP-IG and MIB (written and read), CSV and Graphviz
//! (written).

use std::fmt::Write;

use locus_gpt2::{Config, Error, Result};
use ndarray::Array2;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::edge_set::EdgeSet;
use super::graph::{Graph, Source};
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
    let graph = scores.graph();
    let node_scores = scores.node_scores();
    let mut nodes = Map::new();
    for (row, score) in node_scores.into_iter().enumerate() {
        let inputs = graph.inputs_of(graph.source(row));
        let in_graph = circuit.edges().any(|edge| edge.source == row || inputs.contains(&edge.destination));
        nodes.insert(graph.source(row).to_string(), json!({ "in_graph": in_graph, "score": finite(score) }));
    }
    let mut edges = Map::new();
    for edge in graph.edges() {
        let entry = json!({ "score": finite(scores.get(edge)), "in_graph": circuit.contains(edge) });
        edges.insert(graph.name(edge), entry);
    }
    let file = json!({
        "cfg": {
            "n_layers": graph.n_layer,
            "n_heads": graph.n_head,
            "parallel_attn_mlp": false,
            "d_model": config.n_embd,
        },
        "nodes": nodes,
        "edges": edges,
        "conventions": conventions,
    });
    serde_json::to_string_pretty(&file).expect("plain data") + "\n"
}

/// A score as JSON, which has no NaN: an edge without a score is `null`.
fn finite(score: f64) -> Value {
    if score.is_finite() { json!(score) } else { Value::Null }
}

#[derive(Deserialize)]
struct ScoreFile {
    cfg: GraphShape,
    /// Absent from files of other programs.
    #[serde(default)]
    conventions: Map<String, Value>,
    edges: Map<String, Value>,
}

#[derive(Deserialize)]
struct GraphShape {
    n_layers: usize,
    n_heads: usize,
}

/// Reads a JSON file of [`to_json`], EAP-IG or MIB; the bare `NaN` of the latter two is accepted. Edges that are absent
/// or without a score are NaN.
///
/// # Errors
/// When the text is not JSON of that layout; the error is one line that names the field.
pub fn from_json(text: &str) -> Result<(EdgeScores, EdgeSet)> {
    let wrong = |why: String| Error::Input(why);
    let file: ScoreFile = serde_json::from_str(&without_nan(text)).map_err(|e| wrong(e.to_string()))?;
    if file.conventions.contains_key("reference") {
        return Err(wrong("conventions.reference is now called conventions.ablation".into()));
    }
    let graph = Graph { n_layer: file.cfg.n_layers, n_head: file.cfg.n_heads };
    let mut values = Array2::from_elem((graph.n_sources(), graph.n_destinations()), f64::NAN);
    let mut circuit = EdgeSet::empty(graph);
    for (name, entry) in &file.edges {
        let Some(edge) = graph.parse(name) else {
            return Err(wrong(format!("edges.{name}: this graph has no such edge")));
        };
        match entry.get("score") {
            None | Some(Value::Null) => {}
            Some(score) => {
                let score = score.as_f64();
                values[(edge.source, edge.destination)] =
                    score.ok_or_else(|| wrong(format!("edges.{name}.score is not a number")))?;
            }
        }
        match entry.get("in_graph") {
            Some(Value::Bool(true)) => circuit.insert(edge),
            Some(Value::Bool(false)) | None => {}
            Some(_) => return Err(wrong(format!("edges.{name}.in_graph is not true or false"))),
        }
    }
    Ok((EdgeScores::new(graph, values), circuit))
}

/// Replaces the bare `NaN` that Python writes outside of strings by `null`.
fn without_nan(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let (mut in_string, mut escaped) = (false, false);
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        if !in_string && rest.starts_with("NaN") {
            out.push_str("null");
            rest = &rest[3..];
            continue;
        }
        if c == '"' && !escaped {
            in_string = !in_string;
        }
        escaped = in_string && c == '\\' && !escaped;
        out.push(c);
        rest = &rest[c.len_utf8()..];
    }
    out
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
/// red; their width grows with the absolute score.
pub fn to_dot(scores: &EdgeScores, circuit: &EdgeSet) -> String {
    let graph = scores.graph();
    let largest = circuit.edges().fold(0f64, |max, edge| max.max(scores.get(edge).abs()));
    let mut out = String::from("digraph circuit {\n  rankdir=BT;\n  node [shape=box];\n");
    for edge in circuit.edges() {
        let destination = graph.destination(edge.destination);
        let node =
            graph.node_of(destination).map_or_else(|| "logits".to_owned(), |node: Source| node.to_string());
        let score = scores.get(edge);
        let colour = match graph.name(edge) {
            _ if score < 0.0 => "red",
            name if name.ends_with("<q>") => "magenta",
            name if name.ends_with("<k>") => "green",
            name if name.ends_with("<v>") => "blue",
            _ => "black",
        };
        let width = if largest > 0.0 { 0.5 + 4.5 * score.abs() / largest } else { 1.0 };
        let source = graph.source(edge.source);
        writeln!(out, "  \"{source}\" -> \"{node}\" [color={colour}, penwidth={width:.2}];")
            .expect("strings take everything");
    }
    out.push_str("}\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edges::scores::RankBy;

    fn example() -> (EdgeScores, EdgeSet, Config, Conventions) {
        let config = Config::new(2, 2, 4, 8, 9);
        let graph = Graph::new(&config);
        let values = Array2::from_shape_fn((graph.n_sources(), graph.n_destinations()), |(i, j)| {
            (i * 31 + j) as f64 / 7.0 - 3.0
        });
        let scores = EdgeScores::new(graph, values);
        let circuit = EdgeSet::top_n(&scores, 9, RankBy::Absolute);
        let conventions = Conventions {
            sign: "delta_loss_when_corrupted".into(),
            method: "eap".into(),
            ig_rule: None,
            ig_steps: None,
            metric: "logit-diff".into(),
            ablation: "corrupted".into(),
            bos: false,
            bias_owner: "none".into(),
            input_node: "token-embedding".into(),
            pairs: 3,
        };
        (scores, circuit, config, conventions)
    }

    #[test]
    fn json_round_trips() {
        let (scores, circuit, config, conventions) = example();
        let text = to_json(&scores, &circuit, &config, &conventions);
        let former = from_json(&text.replace("\"ablation\"", "\"reference\"")).unwrap_err().to_string();
        assert_eq!(former, "conventions.reference is now called conventions.ablation");
        let (read, cut) = from_json(&text).unwrap();
        assert_eq!((read, cut), (scores, circuit));
        assert!(text.contains("\"sign\": \"delta_loss_when_corrupted\""));
    }

    #[test]
    fn python_files_are_read() {
        let text = r#"{"cfg": {"n_layers": 1, "n_heads": 1, "parallel_attn_mlp": false, "d_model": 4},
            "nodes": {"logits": {"in_graph": true}},
            "edges": {"input->m0": {"score": NaN, "in_graph": true}, "m0->logits": {"score": -1.5, "in_graph": false}}}"#;
        let (scores, circuit) = from_json(text).unwrap();
        let graph = scores.graph();
        assert!(scores.get(graph.parse("input->m0").unwrap()).is_nan());
        assert_eq!(scores.get(graph.parse("m0->logits").unwrap()), -1.5);
        assert_eq!(circuit.count(), 1);
        assert!(
            from_json(&text.replace("m0->logits", "m7->logits"))
                .unwrap_err()
                .to_string()
                .contains("m7->logits")
        );
    }

    #[test]
    fn tables_and_pictures_name_every_edge() {
        let (scores, circuit, ..) = example();
        assert_eq!(to_csv(&scores, &circuit).lines().count(), 1 + scores.graph().n_edges());
        assert_eq!(to_dot(&scores, &circuit).matches("->").count(), circuit.count());
    }
}
