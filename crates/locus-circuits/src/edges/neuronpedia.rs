//! A circuit as an attribution graph: the JSON that Neuronpedia and circuit-tracer draw.
//!
//! Layout: `graph-schema.json` of `hijohnnylin/neuronpedia` (`apps/webapp/app/api/graph`): `metadata`, `qParams`,
//! `nodes`, `links`. It is made for features of transcoders at token positions; a circuit of edges has neither, so
//!
//! - the columns, which the layout calls prompt tokens, are the input, each head, the MLP and the logits;
//! - nodes have the types `embedding`, `attention head`, `mlp` and `logit`, and no feature number;
//! - there is one link from a node to another, as in circuit-tracer's adjacency matrix: the scores of the edges into
//!   the queries, keys and values of a head are added, which for scores by gradients is the score of all three together;
//! - the logits have no label: the viewer reads a probability out of it, and none belongs to a circuit.

use std::collections::BTreeMap;

use locus_gpt2::{Error, Result};
use serde_json::{Value, json};

use super::circuit_file::CircuitFile;
use super::export::pretty;
use super::graph::{Graph, Source};

/// What a graph is called.
#[derive(Clone, Copy, Debug)]
pub struct GraphTitle<'a> {
    /// Name of the graph, unique among those of a model.
    pub slug: &'a str,
    /// Name of the model, which the layout calls scan: `gpt2-small`.
    pub scan: &'a str,
    /// What stands in place of a prompt.
    pub prompt: &'a str,
}

impl CircuitFile {
    /// The circuit as an attribution graph.
    ///
    /// # Errors
    /// When an edge of the circuit has no score, which is the weight of its link.
    pub fn to_neuronpedia(&self, title: GraphTitle) -> Result<String> {
        let graph = self.scores.graph();
        let mut weights: BTreeMap<(usize, Option<usize>), f64> = BTreeMap::new();
        for edge in self.circuit.edges() {
            let score = self.scores.get(edge);
            if !score.is_finite() {
                let name = graph.name(edge);
                let why =
                    format!("the edge {name} has no score; expected a circuit whose edges all have one");
                return Err(Error::Input(why));
            }
            let target = graph.node_of(graph.destination(edge.destination)).map(|node| graph.row(node));
            *weights.entry((edge.source, target)).or_default() += score;
        }
        let mut used = vec![false; graph.n_sources()];
        for (source, target) in weights.keys() {
            used[*source] = true;
            if let Some(row) = target {
                used[*row] = true;
            }
        }
        let nodes = (0..graph.n_sources()).filter(|&row| used[row]).map(|row| Some(graph.source(row)));
        let nodes: Vec<Value> = nodes.chain([None]).map(|node| node_of(graph, node)).collect();
        let links: Vec<Value> = weights
            .iter()
            .map(|((source, target), weight)| {
                let source = id(graph, Some(graph.source(*source)));
                json!({ "source": source, "target": id(graph, target.map(|row| graph.source(row))), "weight": weight })
            })
            .collect();
        let heads = (0..graph.n_head).map(|head| format!("head {head}"));
        let columns: Vec<String> = ["input".to_owned()]
            .into_iter()
            .chain(heads)
            .chain(["MLP".to_owned(), "logits".to_owned()])
            .collect();
        let mut document = json!({
            "metadata": {
                "slug": title.slug,
                "scan": title.scan,
                "prompt": title.prompt,
                "prompt_tokens": columns,
                "info": {
                    "description": "A circuit of edges between attention heads and MLPs, over all positions. The columns \
                                    are the components of a layer, not tokens; a link is the summed score of the edges \
                                    between two components.",
                    "generator": {
                        "name": "locus", "version": env!("CARGO_PKG_VERSION"), "url": env!("CARGO_PKG_REPOSITORY"),
                    },
                },
                "pruning_settings": { "edges": self.circuit.count(), "of": graph.n_edges() },
            },
            "qParams": { "pinnedIds": [], "supernodes": [], "linkType": "both", "clickedId": "", "sg_pos": "" },
            "nodes": nodes,
            "links": links,
        });
        if let Some(conventions) = &self.conventions {
            document["metadata"]["generation_settings"] = json!(conventions);
        }
        Ok(pretty(&document))
    }
}

/// Layer and column of a node, `None` for the logits. The input's layer is `E`, as in other graphs of the layout.
fn place(graph: Graph, node: Option<Source>) -> (String, usize) {
    match node {
        Some(Source::Input) => ("E".to_owned(), 0),
        Some(Source::Head(layer, head)) => (layer.to_string(), 1 + head),
        Some(Source::Mlp(layer)) => (layer.to_string(), 1 + graph.n_head),
        None => (graph.n_layer.to_string(), 2 + graph.n_head),
    }
}

/// The id of a node, `LAYER_COLUMN`.
fn id(graph: Graph, node: Option<Source>) -> String {
    let (layer, column) = place(graph, node);
    format!("{layer}_{column}")
}

fn node_of(graph: Graph, node: Option<Source>) -> Value {
    let (layer, column) = place(graph, node);
    let (kind, label) = match node {
        Some(Source::Input) => ("embedding", "input".to_owned()),
        Some(Source::Head(layer, head)) => ("attention head", format!("head {layer}.{head}")),
        Some(Source::Mlp(layer)) => ("mlp", format!("MLP {layer}")),
        None => ("logit", String::new()),
    };
    let id = id(graph, node);
    json!({
        "node_id": id, "jsNodeId": format!("{id}-0"), "feature": null, "layer": layer, "ctx_idx": column,
        "feature_type": kind, "clerp": label,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use ndarray::Array2;
    use serde_json::Map;

    use super::*;
    use crate::edges::{EdgeScores, EdgeSet, RankBy};

    const TITLE: GraphTitle = GraphTitle { slug: "a", scan: "gpt2-small", prompt: "task ioi" };

    fn circuit(graph: Graph, n: usize) -> CircuitFile {
        let values = Array2::from_shape_fn((graph.n_sources(), graph.n_destinations()), |(i, j)| {
            ((i * 37 + j * 11) % 101) as f64 / 16.0 - 3.0
        });
        let scores = EdgeScores::new(graph, values);
        let circuit = EdgeSet::top_n(&scores, n, RankBy::Absolute);
        CircuitFile { scores, circuit, width: None, conventions: None, provenance: Map::new() }
    }

    /// What the schema requires: fields and their types, and what its viewer relies on.
    fn check(document: &Value) {
        let text =
            |value: &Value| value.as_str().unwrap_or_else(|| panic!("{value} is no string")).to_owned();
        let metadata = &document["metadata"];
        for field in ["slug", "scan", "prompt"] {
            assert!(!text(&metadata[field]).is_empty(), "{field}");
        }
        let columns = metadata["prompt_tokens"].as_array().unwrap();
        columns.iter().for_each(|column| assert!(!text(column).is_empty()));
        for field in ["info", "generation_settings", "pruning_settings"] {
            assert!(metadata.get(field).is_none_or(Value::is_object), "{field}");
        }
        let params = document["qParams"].as_object().unwrap();
        assert!(params["pinnedIds"].as_array().unwrap().is_empty() && params["supernodes"].is_array());
        for field in ["linkType", "clickedId", "sg_pos"] {
            text(&params[field]);
        }
        let (mut ids, mut places, mut js_ids) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        for node in document["nodes"].as_array().unwrap() {
            assert!(ids.insert(text(&node["node_id"])), "{node}: an id twice");
            assert!(js_ids.insert(text(&node["jsNodeId"])), "{node}: an id twice");
            let layer = text(&node["layer"]);
            assert!(layer == "E" || layer.parse::<usize>().is_ok(), "{node}");
            let column = usize::try_from(node["ctx_idx"].as_u64().unwrap()).unwrap();
            assert!(column < columns.len() && places.insert((layer, column)), "{node}");
            assert!(
                node["feature"].is_null() && node.get("feature").is_some(),
                "a number or null, but there"
            );
            let kind = text(&node["feature_type"]);
            assert!(["embedding", "attention head", "mlp", "logit"].contains(&kind.as_str()), "{node}");
            // The viewer splits the label of logits at a probability unless it is empty.
            assert_eq!(text(&node["clerp"]).is_empty(), kind == "logit", "{node}");
        }
        let mut pairs = BTreeSet::new();
        for link in document["links"].as_array().unwrap() {
            let ends = (text(&link["source"]), text(&link["target"]));
            assert!(ids.contains(&ends.0) && ids.contains(&ends.1), "{link}: an end is no node");
            assert!(pairs.insert(ends), "{link}: twice");
            assert!(link["weight"].as_f64().unwrap().is_finite(), "{link}");
        }
    }

    #[test]
    fn graphs_of_all_shapes_have_the_layout() {
        for (graph, n) in [
            (Graph { n_layer: 12, n_head: 12 }, 500),
            (Graph { n_layer: 2, n_head: 2 }, 46),
            (Graph { n_layer: 3, n_head: 1 }, 0),
        ] {
            let file = circuit(graph, n);
            let document: Value = serde_json::from_str(&file.to_neuronpedia(TITLE).unwrap()).unwrap();
            check(&document);
            let links = document["links"].as_array().unwrap();
            let total: f64 = links.iter().map(|link| link["weight"].as_f64().unwrap()).sum();
            let expected: f64 = file.circuit.edges().map(|edge| file.scores.get(edge)).sum();
            assert!((total - expected).abs() < 1e-9 * expected.abs().max(1.0), "{total} against {expected}");
        }
    }

    #[test]
    fn edges_into_one_head_are_one_link() {
        let graph = Graph { n_layer: 2, n_head: 2 };
        let mut file = circuit(graph, 0);
        let names = ["input->m0", "m0->a1.h1<q>", "m0->a1.h1<v>", "a1.h1->logits"];
        let edges = names.map(|name| graph.parse(name).unwrap());
        file.circuit = EdgeSet::from_edges(graph, edges);
        let document: Value = serde_json::from_str(&file.to_neuronpedia(TITLE).unwrap()).unwrap();
        check(&document);
        let ids: Vec<&Value> =
            document["nodes"].as_array().unwrap().iter().map(|node| &node["node_id"]).collect();
        assert_eq!(ids, ["E_0", "0_3", "1_2", "2_4"]);
        let links = document["links"].as_array().unwrap();
        assert_eq!(links.len(), 3);
        assert_eq!((&links[1]["source"], &links[1]["target"]), (&json!("0_3"), &json!("1_2")));
        let weight = file.scores.get(edges[1]) + file.scores.get(edges[2]);
        assert_eq!(links[1]["weight"], weight);
        assert_eq!(
            document["metadata"]["prompt_tokens"],
            json!(["input", "head 0", "head 1", "MLP", "logits"])
        );
    }

    #[test]
    fn a_link_needs_a_weight() {
        let graph = Graph { n_layer: 2, n_head: 2 };
        let mut file = circuit(graph, 3);
        file.scores = EdgeScores::new(graph, file.scores.matrix().mapv(|_| f64::NAN));
        let error = file.to_neuronpedia(TITLE).unwrap_err().to_string();
        assert!(error.contains("has no score"), "{error}");
    }
}
