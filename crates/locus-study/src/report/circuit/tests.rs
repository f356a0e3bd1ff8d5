//! The page says what its circuit says, and loads nothing.

use locus_circuits::edges::export::Conventions;
use locus_circuits::edges::{EdgeScores, EdgeSet, Graph};
use ndarray::Array2;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use serde_json::{Map, json};

use super::*;
use crate::protocol::{Areas, CircuitMeasures, Removal, SizeMeasures};

const GPT2: Graph = Graph { n_layer: 12, n_head: 12 };

/// Random scores of both signs, and the best `n` edges.
fn file(graph: Graph, n: usize) -> CircuitFile {
    let scores = EdgeScores::random(graph, &mut ChaCha8Rng::seed_from_u64(7));
    let scores = EdgeScores::new(graph, scores.matrix().mapv(|x| x * x * x - 0.4));
    let circuit = EdgeSet::top_n(&scores, n, RankBy::Absolute);
    let conventions = Conventions {
        sign: "delta_loss_when_corrupted".into(),
        method: "eap-ig-inputs".into(),
        ig_rule: Some("midpoint".into()),
        ig_steps: Some(5),
        metric: "logit-diff".into(),
        ablation: "corrupted".into(),
        bos: false,
        bias_owner: "none".into(),
        input_node: "token-embedding".into(),
        pairs: 50,
    };
    let provenance = json!({ "pairs": { "file": "</script><b>.csv" }, "split": { "found_on": ["a", "b"] } });
    let Value::Object(provenance) = provenance else { unreachable!("an object") };
    CircuitFile { scores, circuit, width: Some(768), conventions: Some(conventions), provenance }
}

fn interval(value: f64) -> Interval {
    Interval { value, low: value - 0.125, high: value + 0.125 }
}

fn evaluation() -> CircuitEvaluation {
    let size = |share: f64, value: f64| SizeMeasures {
        share,
        selected: 32,
        edges_absolute: 31,
        edges_signed: 30,
        absolute: Some(interval(value)),
        signed: Some(interval(value + 0.0625)),
        complement: None,
        random: Some(interval(0.015)),
    };
    let areas =
        |value| Areas { cpr: interval(value), cmd: interval(value / 2.0), cmd_log: interval(value / 4.0) };
    CircuitEvaluation {
        pairs: 40,
        clean: interval(3.5),
        empty: interval(0.25),
        span: interval(3.25),
        preferred: 1.0,
        undefined: None,
        curve: vec![size(0.001, 0.234), size(1.0, 1.0)],
        areas: Some(areas(1.875)),
        random_areas: Some(areas(0.375)),
        circuit: Some(CircuitMeasures {
            size: 500,
            share: 0.0154,
            metric: 2.75,
            faithfulness: Some(interval(0.769)),
            complement: Some(interval(0.041)),
            random: Some(interval(0.007)),
            matched: Some(interval(0.119)),
            incompleteness: None,
            removals: vec![
                Removal { edge: "m0->a1.h1<v>".into(), drop: 0.0625 },
                Removal { edge: "m0->m1".into(), drop: -0.03125 },
            ],
        }),
    }
}

fn measured() -> MeasuredCircuit<'static> {
    MeasuredCircuit {
        pairs: "40 held-out pairs",
        metric: "logit-diff",
        ablation: "corrupted",
        clean: 3.5,
        empty: 0.25,
        circuit: 2.75,
        faithfulness: Some(interval(0.769)),
    }
}

fn page(file: &CircuitFile, evaluation: Option<(&CircuitEvaluation, &Value)>) -> String {
    circuit_page(&CircuitPage { model: "gpt2", task: "task ioi", file, measured: measured(), evaluation })
}

/// The JSON inside a page.
fn data(page: &str) -> String {
    let (_, rest) = page.split_once("<script type=\"application/json\" id=\"data\">").unwrap();
    rest.split_once("</script>").unwrap().0.to_owned()
}

#[test]
fn nodes_and_edges_are_those_of_the_file() {
    let file = file(GPT2, 500);
    let page = page(&file, None);
    let read = CircuitFile::from_json(&data(&page)).unwrap();
    assert_eq!(read.circuit, file.circuit);
    assert!(file.circuit.edges().all(|edge| read.scores.get(edge) == file.scores.get(edge)), "to the bit");
    assert_eq!((read.width, &read.conventions), (file.width, &file.conventions));
    assert_eq!(read.provenance, file.provenance);

    // The nodes and scores that the file's own JSON marks.
    let parse = |text: &str| serde_json::from_str::<Value>(text).unwrap();
    let (own, whole) =
        (parse(&data(&page)), parse(&file.to_text(locus_circuits::edges::Layout::Json).unwrap()));
    let marked: Map<String, Value> = whole["nodes"]
        .as_object()
        .unwrap()
        .iter()
        .filter(|(_, node)| node["in_graph"] == true)
        .map(|(name, node)| (name.clone(), node.clone()))
        .collect();
    assert_eq!(own["nodes"].as_object().unwrap(), &marked);

    // Drawing and list: each edge once, each node once and the logits.
    assert_eq!(page.matches("<path d=\"M").count(), 500);
    assert_eq!(page.matches("class=\"node\"").count(), marked.len() + 1);
    for edge in file.circuit.edges() {
        let (source, destination) =
            (file.scores.graph().source(edge.source), file.scores.graph().destination(edge.destination));
        let (score, destination) = (score_text(file.scores.get(edge)), escape(&destination.to_string()));
        let row = format!("<tr><td>{source}</td><td>{destination}</td><td class=\"n\">{score}</td></tr>");
        assert_eq!(page.matches(&row).count(), 1, "{row}");
        let curve = format!("<title>{source}-&gt;{destination}: {score}</title>");
        assert_eq!(page.matches(&curve).count(), 1, "{curve}");
    }
    for marked in marked.keys() {
        assert!(page.contains(&format!("data-name=\"{marked}\"")), "{marked}");
    }
}

#[test]
fn pages_are_small_and_load_nothing() {
    let file = file(GPT2, 500);
    let (found, about) = (evaluation(), json!({ "measured_on": "all" }));
    let page = page(&file, Some((&found, &about)));
    assert!(page.len() < 300_000, "{} bytes", page.len());
    for loads in ["http:", "https:", "<link", "@import", "url(", "src="] {
        assert!(!page.contains(loads), "{loads}");
    }
    for word in ["fetch", "import", "XMLHttpRequest", "eval(", "innerHTML", "</script"] {
        assert!(!SCRIPT.contains(word), "{word}");
    }
    assert!(page.contains("content=\"default-src &#39;none&#39;;"), "a promise that the browser keeps");
    assert_eq!(page.matches("<script").count(), 2, "a name of a file is not one");
    assert_eq!(page.matches("</script>").count(), 2);
    assert_eq!(page, self::page(&file, Some((&found, &about))), "byte for byte");
}

#[test]
fn a_page_says_what_was_found() {
    let file = file(Graph { n_layer: 4, n_head: 4 }, 48);
    let page = page(&file, None);
    for text in [
        "<html lang=\"en\">",
        "<title>Circuit of gpt2 for task ioi</title>",
        "48 of 479 edges (10.02\u{a0}%), found by eap-ig-inputs on 50 pairs",
        "has a logit-diff of 2.75 where the full model has 3.50 and no edges 0.250",
        "its faithfulness is 0.769 [0.644, 0.894]",
        "Measured on 40 held-out pairs.",
        "<dt>edges kept</dt><dd>48 of 479</dd>",
        "ablating the edge makes the metric worse",
        "<dt>split: found on</dt><dd>2 of them</dd>",
        "<dt>pairs: file</dt><dd>&lt;/script&gt;&lt;b&gt;.csv</dd>",
    ] {
        assert!(page.contains(text), "{text}");
    }
    assert!(!page.contains("its controls</h2>"), "not evaluated");
}

#[test]
fn an_evaluation_stands_with_its_controls() {
    let (file, found) = (file(GPT2, 60), evaluation());
    let about = json!({ "measured_on": "held out", "seed": 3 });
    let page = page(&file, Some((&found, &about)));
    for text in [
        "0.769 <span class=\"range\">[0.644, 0.894]</span>",
        "<td data-label=\"faithfulness\">0.119 <span class=\"range\">[−0.006, 0.244]</span>",
        "<td data-label=\"this ranking\">1.875 <span class=\"range\">[1.750, 2.000]</span>",
        "<td data-label=\"random rankings\">0.375 <span class=\"range\">[0.250, 0.500]</span>",
        "<th scope=\"row\">0.1\u{a0}%</th><td data-label=\"edges\">32</td><td data-label=\"without dead ends\">31</td>",
        "<td data-label=\"complement\"><span class=\"none\">–</span></td>",
        "<title>by absolute score: 0.2340 at 0.001</title>",
        "<title>random ranking: 0.0150 at 1</title>",
        "1 of 2 lower nothing",
        "<dt>measured on</dt><dd>held out</dd>",
    ] {
        assert!(page.contains(text), "{text}");
    }
    let data: Value = serde_json::from_str(&data(&page)).unwrap();
    assert_eq!(data["evaluation"]["provenance"], about);
    assert_eq!(data["evaluation"]["evaluation"], serde_json::to_value(&found).unwrap());
}

/// Of a circuit too large to look at, the best edges are shown; one without scores or conventions is drawn as it is.
#[test]
fn large_and_unscored_circuits() {
    let large = file(GPT2, MOST_EDGES + 1);
    let shown = page(&large, None);
    assert_eq!(shown.matches("<path d=\"M").count(), MOST_EDGES);
    assert!(shown.contains("2,001 of 32,491 edges"));
    assert!(shown.contains("This page has the 2,000 edges with the largest scores."));
    let read = CircuitFile::from_json(&data(&shown)).unwrap();
    assert_eq!(read.circuit, EdgeSet::top_n(&large.scores, MOST_EDGES, RankBy::Absolute));

    let graph = Graph { n_layer: 1, n_head: 1 };
    let unscored = Array2::from_elem((graph.n_sources(), graph.n_destinations()), f64::NAN);
    let plain = CircuitFile {
        scores: EdgeScores::new(graph, unscored),
        circuit: EdgeSet::full(graph),
        width: None,
        conventions: None,
        provenance: Map::new(),
    };
    let shown = page(&plain, None);
    assert!(shown.contains("from a file that does not say how it was found") && !shown.contains("NaN"));
    assert_eq!(CircuitFile::from_json(&data(&shown)).unwrap().circuit, plain.circuit);
}
