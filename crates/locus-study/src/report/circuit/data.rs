//! The data of the page: the edges shown, in the layout of a circuit's JSON file, so that `locus circuit` reads what
//! the page saves. Edges outside the circuit are left out; they have no score there.

use locus_circuits::edges::Edge;
use serde_json::{Map, Value, json};

use super::CircuitPage;
use crate::report::plot::circuit::used_nodes;

/// JSON that can stand in a script element: without `<`.
pub fn json(page: &CircuitPage, edges: &[Edge]) -> String {
    let file = page.file;
    let (graph, of_nodes) = (file.scores.graph(), file.scores.node_scores());
    let finite = |score: f64| if score.is_finite() { json!(score) } else { Value::Null };
    let entry = |score: f64| json!({ "score": finite(score), "in_graph": true });
    let used = used_nodes(graph, edges);
    let nodes: Map<String, Value> = (0..graph.n_sources())
        .filter(|&row| used[row])
        .map(|row| (graph.source(row).to_string(), entry(of_nodes[row])))
        .collect();
    let edges: Map<String, Value> =
        edges.iter().map(|&edge| (graph.name(edge), entry(file.scores.get(edge)))).collect();
    let mut data = json!({
        "cfg": {
            "n_layers": graph.n_layer, "n_heads": graph.n_head, "parallel_attn_mlp": false, "d_model": file.width,
        },
        "nodes": nodes,
        "edges": edges,
    });
    if let Some(conventions) = &file.conventions {
        data["conventions"] = json!(conventions);
    }
    if !file.provenance.is_empty() {
        data["provenance"] = Value::Object(file.provenance.clone());
    }
    if let Some((found, about)) = page.evaluation {
        data["evaluation"] = json!({ "provenance": about, "evaluation": found });
    }
    data.to_string().replace('<', "\\u003c")
}
