//! Files of circuits: what others and we write, read back.
//!
//! | file | holds | read from | written |
//! |---|---|---|---|
//! | JSON | scores, circuit, conventions | `locus`, `hannamw/EAP-IG`, MIB | the layout of EAP-IG, with our `conventions` and `provenance` |
//! | CSV | scores, circuit | `locus` | `source,destination,score,in_graph` |
//! | DOT | circuit, its scores | `locus` | Graphviz |
//!
//! EAP-IG's and MIB's JSON has `cfg` (`n_layers`, `n_heads`, `parallel_attn_mlp`, `d_model`), `nodes` (`in_graph`, with
//! or without `score`, `neurons` and `neurons_scores`) and `edges` (`score`, `in_graph`); Python writes a missing score
//! as a bare `NaN`. Circuits of neurons and graphs of parallel blocks are refused: this graph does not have them.

use std::path::Path;

use locus_gpt2::{Error, Result};
use ndarray::Array2;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::edge_set::EdgeSet;
use super::export::{Conventions, document, pretty, to_csv, to_dot};
use super::graph::{Edge, Graph};
use super::scores::EdgeScores;

/// Largest number of cells `S D` of a graph that a file may name; GPT-2 XL has 4.6 million.
const MOST_CELLS: usize = 100_000_000;

/// Scores of edges and a circuit, with what their file says about them.
#[derive(Clone, Debug, PartialEq)]
pub struct CircuitFile {
    /// Score of every edge, NaN where the file has none.
    pub scores: EdgeScores,
    /// Edges that the file marks as the circuit.
    pub circuit: EdgeSet,
    /// Width of the model; only JSON states it.
    pub width: Option<usize>,
    /// How the scores were made; `None` in the files of other programs.
    pub conventions: Option<Conventions>,
    /// Whatever else the writer says about the file's origin; empty in the files of other programs.
    pub provenance: Map<String, Value>,
}

/// A layout of [`CircuitFile`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// JSON as EAP-IG and MIB write it.
    Json,
    /// One edge per row.
    Csv,
    /// Graphviz.
    Dot,
}

impl Layout {
    /// The layout that the extension of a file's name stands for: `.json` (or none at all), `.csv`, `.dot`.
    ///
    /// # Errors
    /// When it stands for another one.
    pub fn of(path: &Path) -> Result<Layout> {
        let extension = path.extension().map(|extension| extension.to_string_lossy().to_lowercase());
        match extension.as_deref() {
            None | Some("json") => Ok(Layout::Json),
            Some("csv") => Ok(Layout::Csv),
            Some("dot" | "gv") => Ok(Layout::Dot),
            _ => Err(Error::format(
                path,
                "is no file of a circuit; expected a name that ends in .json, .csv or .dot",
            )),
        }
    }
}

impl CircuitFile {
    /// Reads a file in the layout of its extension.
    ///
    /// # Errors
    /// When the file cannot be read or is not of that layout; the error is one line with file and place.
    pub fn read(path: &Path) -> Result<Self> {
        let layout = Layout::of(path)?;
        let text = locus_files::read_to_string(path).map_err(|cause| Error::io(path, cause))?;
        let read = match layout {
            Layout::Json => CircuitFile::from_json(&text),
            Layout::Csv => CircuitFile::from_csv(&text),
            Layout::Dot => CircuitFile::from_dot(&text),
        };
        read.map_err(|error| Error::format(path, error.to_string()))
    }

    /// The text of a file in a layout.
    ///
    /// # Errors
    /// When JSON is wanted and the width of the model is not known.
    pub fn to_text(&self, layout: Layout) -> Result<String> {
        match layout {
            Layout::Json => self.to_json(),
            Layout::Csv => Ok(to_csv(&self.scores, &self.circuit)),
            Layout::Dot => Ok(to_dot(&self.scores, &self.circuit)),
        }
    }

    /// Whether the scores rank all edges: each has one, and two of them differ.
    pub fn ranks(&self) -> bool {
        let graph = self.scores.graph();
        let mut scores = graph.edges().map(|edge| self.scores.get(edge));
        let first = scores.next().unwrap_or(f64::NAN);
        let (mut stated, mut differ) = (!first.is_nan(), false);
        for score in scores {
            stated &= !score.is_nan();
            differ |= score != first;
        }
        stated && differ
    }

    fn to_json(&self) -> Result<String> {
        let Some(width) = self.width else {
            return Err(Error::Input(
                "the width of the model is not known; JSON states it as cfg.d_model".into(),
            ));
        };
        let mut file = document(&self.scores, &self.circuit, width);
        if let Some(conventions) = &self.conventions {
            file["conventions"] = serde_json::to_value(conventions).expect("plain data");
        }
        if !self.provenance.is_empty() {
            file["provenance"] = Value::Object(self.provenance.clone());
        }
        Ok(pretty(&file))
    }

    /// Reads JSON of `locus`, EAP-IG or MIB; the bare `NaN` of the latter two is accepted. Edges that are absent or
    /// without a score are NaN.
    ///
    /// # Errors
    /// When the text is not JSON of that layout, or of a graph that is not GPT-2's; the error is one line that names the
    /// field.
    pub fn from_json(text: &str) -> Result<Self> {
        let file: JsonFile = serde_json::from_str(&without_nan(text)).map_err(|e| wrong(e.to_string()))?;
        if file.conventions.as_ref().is_some_and(|conventions| conventions.get("reference").is_some()) {
            return Err(wrong("conventions.reference is now called conventions.ablation"));
        }
        if file.cfg.parallel_attn_mlp {
            let why = "cfg.parallel_attn_mlp is true; expected the graph of GPT-2, whose MLPs read their layer's heads";
            return Err(wrong(why));
        }
        for (name, node) in &file.nodes {
            let cut = node.get("neurons").and_then(Value::as_array);
            if cut.is_some_and(|neurons| neurons.iter().any(|inside| inside == &Value::Bool(false))) {
                return Err(wrong(format!(
                    "nodes.{name}.neurons leaves neurons out; expected a circuit of edges"
                )));
            }
        }
        let graph = graph_of(file.cfg.n_layers, file.cfg.n_heads)?;
        let mut found = Found::new(graph);
        for (name, entry) in &file.edges {
            let Some(edge) = graph.parse(name) else {
                return Err(wrong(format!("edges.{name}: this graph has no such edge")));
            };
            let score = match entry.get("score") {
                None | Some(Value::Null) => None,
                Some(score) => {
                    Some(score.as_f64().ok_or_else(|| wrong(format!("edges.{name}.score is not a number")))?)
                }
            };
            let inside = match entry.get("in_graph") {
                Some(Value::Bool(inside)) => *inside,
                None => false,
                Some(_) => return Err(wrong(format!("edges.{name}.in_graph is not true or false"))),
            };
            found.add(edge, score, inside);
        }
        let conventions = file.conventions.map(serde_json::from_value).transpose();
        let conventions = conventions.map_err(|error| wrong(format!("conventions: {error}")))?;
        Ok(CircuitFile { width: file.cfg.d_model, conventions, provenance: file.provenance, ..found.file() })
    }

    /// Reads CSV with the columns `source,destination,score,in_graph`. The graph is the smallest that has all edges,
    /// which is the model's in the files that [`to_csv`] writes: they have a row for every edge.
    ///
    /// # Errors
    /// When the header is another, a row names no edge or one twice, or a cell has another type; the error is one line
    /// that names the line.
    pub fn from_csv(text: &str) -> Result<Self> {
        const HEADER: &str = "source,destination,score,in_graph";
        let mut lines = (1..).zip(text.trim_start_matches('\u{feff}').lines());
        let header = lines.next().map_or("", |(_, header)| header.trim_end());
        if header != HEADER {
            return Err(wrong(format!("line 1: the header is {:?}; expected {HEADER}", shortened(header))));
        }
        let mut rows = Vec::new();
        for (line, row) in lines.filter(|(_, row)| !row.trim().is_empty()) {
            let cells: Vec<&str> = row.trim_end().split(',').collect();
            let [source, destination, score, inside] = cells[..] else {
                return Err(wrong(format!("line {line}: {} cells; expected 4", cells.len())));
            };
            let (score, inside) = (number(line, score)?, truth(line, inside)?);
            rows.push((line, format!("{source}->{destination}"), score, inside));
        }
        let graph = shape_of(rows.iter().map(|(_, name, ..)| name.as_str()))?;
        let mut found = Found::new(graph);
        for (line, name, score, inside) in rows {
            let edge = found.named(line, &name)?;
            found.add(edge, score, inside);
        }
        Ok(found.file())
    }

    /// Reads Graphviz DOT as [`to_dot`] writes it: one edge a line, its input of a head in the attribute `qkv`.
    ///
    /// # Errors
    /// When the numbers of layers and heads are missing, or a line names no edge; the error is one line that names the
    /// line.
    pub fn from_dot(text: &str) -> Result<Self> {
        let stated = |name: &str| {
            let line = text.lines().find(|line| line.trim_start().starts_with("graph ["))?;
            attribute(line, name)?.parse().ok()
        };
        let (Some(n_layer), Some(n_head)) = (stated("n_layers"), stated("n_heads")) else {
            let why =
                "no line `graph [n_layers=..., n_heads=...]`; expected a circuit that locus has written";
            return Err(wrong(why));
        };
        let mut found = Found::new(graph_of(n_layer, n_head)?);
        for (line, row) in (1..).zip(text.lines()) {
            let Some((source, rest)) = row.split_once(" -> ") else { continue };
            let name = |text: &str| text.trim().trim_matches('"').to_owned();
            let node = name(rest.split(['[', ';']).next().unwrap_or_default());
            let input = attribute(rest, "qkv").map(|qkv| format!("<{qkv}>")).unwrap_or_default();
            let edge = found.named(line, &format!("{}->{node}{input}", name(source)))?;
            let score = attribute(rest, "score").map(|score| number(line, score)).transpose()?.flatten();
            found.add(edge, score, true);
        }
        Ok(found.file())
    }
}

/// What a file says about its edges.
struct Found {
    graph: Graph,
    values: Array2<f64>,
    circuit: EdgeSet,
    seen: EdgeSet,
}

impl Found {
    fn new(graph: Graph) -> Self {
        let values = Array2::from_elem((graph.n_sources(), graph.n_destinations()), f64::NAN);
        Found { graph, values, circuit: EdgeSet::empty(graph), seen: EdgeSet::empty(graph) }
    }

    /// The edge with a name, which must not have occurred before.
    fn named(&self, line: usize, name: &str) -> Result<Edge> {
        match self.graph.parse(name) {
            None => Err(wrong(format!("line {line}: {:?} is no edge of this graph", shortened(name)))),
            Some(edge) if self.seen.contains(edge) => Err(wrong(format!("line {line}: {name} occurs twice"))),
            Some(edge) => Ok(edge),
        }
    }

    fn add(&mut self, edge: Edge, score: Option<f64>, inside: bool) {
        self.seen.insert(edge);
        if let Some(score) = score {
            self.values[(edge.source, edge.destination)] = score;
        }
        if inside {
            self.circuit.insert(edge);
        }
    }

    fn file(self) -> CircuitFile {
        CircuitFile {
            scores: EdgeScores::new(self.graph, self.values),
            circuit: self.circuit,
            width: None,
            conventions: None,
            provenance: Map::new(),
        }
    }
}

#[derive(Deserialize)]
struct JsonFile {
    cfg: JsonShape,
    #[serde(default)]
    nodes: Map<String, Value>,
    edges: Map<String, Value>,
    /// Absent from files of other programs, as is the next.
    conventions: Option<Value>,
    #[serde(default)]
    provenance: Map<String, Value>,
}

#[derive(Deserialize)]
struct JsonShape {
    n_layers: usize,
    n_heads: usize,
    #[serde(default)]
    parallel_attn_mlp: bool,
    d_model: Option<usize>,
}

fn wrong(why: impl Into<String>) -> Error {
    Error::Input(why.into())
}

/// The graph of a shape that a file states.
fn graph_of(n_layer: usize, n_head: usize) -> Result<Graph> {
    let cells =
        n_layer.checked_mul(n_head.saturating_mul(4).saturating_add(2)).and_then(|n| n.checked_mul(n));
    if n_layer == 0 || n_head == 0 || cells.is_none_or(|cells| cells > 16 * MOST_CELLS) {
        return Err(wrong(format!("{n_layer} layers of {n_head} heads; expected the shape of a GPT-2")));
    }
    Ok(Graph { n_layer, n_head })
}

/// The smallest graph that has edges of these names.
fn shape_of<'a>(names: impl Iterator<Item = &'a str>) -> Result<Graph> {
    let (mut layers, mut heads) = (0, 0);
    for node in names.flat_map(|name| name.split("->")) {
        let node = node.split('<').next().unwrap_or(node);
        let (layer, head) =
            match (node.strip_prefix('a').and_then(|n| n.split_once(".h")), node.strip_prefix('m')) {
                (Some((layer, head)), _) => (layer.parse::<usize>().ok(), head.parse::<usize>().ok()),
                (None, Some(layer)) => (layer.parse::<usize>().ok(), None),
                _ => (None, None),
            };
        layers = layers.max(layer.map_or(0, |layer| layer.saturating_add(1)));
        heads = heads.max(head.map_or(0, |head| head.saturating_add(1)));
    }
    if layers == 0 || heads == 0 {
        return Err(wrong("no row names an edge of a head, which the shape of the graph is read from"));
    }
    graph_of(layers, heads)
}

/// A score; `None` when the cell is empty or NaN.
fn number(line: usize, cell: &str) -> Result<Option<f64>> {
    if cell.is_empty() {
        return Ok(None);
    }
    match cell.parse::<f64>() {
        Ok(score) => Ok((!score.is_nan()).then_some(score)),
        Err(_) => Err(wrong(format!("line {line}: the score is {:?}; expected a number", shortened(cell)))),
    }
}

fn truth(line: usize, cell: &str) -> Result<bool> {
    match cell {
        "true" | "True" | "1" => Ok(true),
        "false" | "False" | "0" => Ok(false),
        _ => Err(wrong(format!("line {line}: in_graph is {:?}; expected true or false", shortened(cell)))),
    }
}

/// Value of an attribute of a line of DOT.
fn attribute<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let inside = line.split_once('[')?.1.split(']').next()?;
    let pairs = inside.split(',').filter_map(|pair| pair.split_once('='));
    pairs
        .map(|(key, value)| (key.trim(), value.trim().trim_matches('"')))
        .find(|(key, _)| *key == name)
        .map(|(_, v)| v)
}

/// The beginning of a text, for messages.
fn shortened(text: &str) -> String {
    let mut short: String = text.chars().take(40).collect();
    if short.len() < text.len() {
        short.push_str("...");
    }
    short
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edges::{RankBy, export::to_json};
    use locus_gpt2::Config;
    use rand::RngExt;
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::SeedableRng;

    /// Random scores over many orders of magnitude.
    fn example(graph: Graph) -> CircuitFile {
        let mut rng = ChaCha8Rng::seed_from_u64(4);
        let values = Array2::from_shape_fn((graph.n_sources(), graph.n_destinations()), |_| {
            (rng.random::<f64>() - 0.5) * 10f64.powi(rng.random_range(-30..4))
        });
        let scores = EdgeScores::new(graph, values);
        let circuit = EdgeSet::top_n(&scores, graph.n_edges() / 7, RankBy::Absolute);
        let provenance = serde_json::json!({ "seed": 3 }).as_object().unwrap().clone();
        CircuitFile { scores, circuit, width: Some(64), conventions: Some(conventions()), provenance }
    }

    fn conventions() -> Conventions {
        Conventions {
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
        }
    }

    fn same_bits(a: &EdgeScores, b: &EdgeScores) -> bool {
        a.matrix().iter().zip(b.matrix()).all(|(a, b)| a.to_bits() == b.to_bits())
    }

    /// All 32,491 edges of GPT-2 small come back bit for bit, through JSON and through CSV; the text of a file that was
    /// read is the text that was read.
    #[test]
    fn the_edges_of_gpt2_small_round_trip() {
        let file = example(Graph { n_layer: 12, n_head: 12 });
        let text = file.to_text(Layout::Json).unwrap();
        let read = CircuitFile::from_json(&text).unwrap();
        assert_eq!(read.scores.graph().n_edges(), 32_491);
        assert!(same_bits(&read.scores, &file.scores));
        assert_eq!(read, file);
        assert_eq!(read.to_text(Layout::Json).unwrap(), text);
        let csv = CircuitFile::from_csv(&file.to_text(Layout::Csv).unwrap()).unwrap();
        assert!(same_bits(&csv.scores, &file.scores) && csv.circuit == file.circuit);
        assert!(file.ranks() && csv.ranks());
    }

    #[test]
    fn pictures_keep_the_circuit_and_its_scores() {
        let file = example(Graph { n_layer: 3, n_head: 2 });
        let read = CircuitFile::from_dot(&file.to_text(Layout::Dot).unwrap()).unwrap();
        assert_eq!(read.circuit, file.circuit);
        for edge in file.circuit.edges() {
            assert_eq!(read.scores.get(edge).to_bits(), file.scores.get(edge).to_bits());
        }
        assert!(read.circuit.complement().edges().all(|edge| read.scores.get(edge).is_nan()));
        assert!(read.to_text(Layout::Json).unwrap_err().to_string().contains("width of the model"));
    }

    #[test]
    fn json_of_the_library_is_read() {
        let (file, config) = (example(Graph { n_layer: 2, n_head: 2 }), Config::new(2, 2, 4, 8, 9));
        let text = to_json(&file.scores, &file.circuit, &config, &conventions());
        let read = CircuitFile::from_json(&text).unwrap();
        assert_eq!((&read.scores, &read.circuit, read.width), (&file.scores, &file.circuit, Some(4)));
        assert!(text.contains("\"sign\": \"delta_loss_when_corrupted\""));
        let former = CircuitFile::from_json(&text.replace("\"ablation\"", "\"reference\"")).unwrap_err();
        assert_eq!(former.to_string(), "conventions.reference is now called conventions.ablation");
    }

    const PYTHON: &str = r#"{"cfg": {"n_layers": 1, "n_heads": 1, "parallel_attn_mlp": false, "d_model": 4},
        "nodes": {"input": {"in_graph": true, "neurons": [true, true, true, true]}, "logits": {"in_graph": true}},
        "edges": {"input->m0": {"score": NaN, "in_graph": true}, "m0->logits": {"score": -1.5, "in_graph": false}}}"#;

    #[test]
    fn python_files_are_read() {
        let read = CircuitFile::from_json(PYTHON).unwrap();
        let graph = read.scores.graph();
        assert!(read.scores.get(graph.parse("input->m0").unwrap()).is_nan());
        assert_eq!(read.scores.get(graph.parse("m0->logits").unwrap()), -1.5);
        assert_eq!((read.circuit.count(), read.width, read.conventions.clone()), (1, Some(4), None));
        assert!(!read.ranks(), "most edges have no score");
    }

    #[test]
    fn bad_files_are_refused_in_one_line() {
        let json = |from: &str, to: &str| CircuitFile::from_json(&PYTHON.replacen(from, to, 1));
        for (refused, says) in [
            (json("m0->logits", "m7->logits"), "edges.m7->logits: this graph has no such edge"),
            (json("-1.5", "\"x\""), "edges.m0->logits.score is not a number"),
            (
                json("\"in_graph\": false", "\"in_graph\": 2"),
                "edges.m0->logits.in_graph is not true or false",
            ),
            (
                json("\"parallel_attn_mlp\": false", "\"parallel_attn_mlp\": true"),
                "cfg.parallel_attn_mlp is true",
            ),
            (json("[true, true", "[true, false"), "nodes.input.neurons leaves neurons out"),
            (json("\"n_layers\": 1", "\"n_layers\": 1000000000"), "1000000000 layers of 1 heads"),
            (json("\"n_heads\": 1", "\"n_heads\": 18446744073709551615"), "expected the shape of a GPT-2"),
            (json("\"n_layers\": 1,", ""), "missing field `n_layers`"),
            (CircuitFile::from_json("{"), "EOF"),
            (CircuitFile::from_csv("a,b\n"), "line 1: the header is \"a,b\""),
            (
                CircuitFile::from_csv("source,destination,score,in_graph\ninput,a0.h0<q>,x,true\n"),
                "line 2: the score is \"x\"",
            ),
            (
                CircuitFile::from_csv("source,destination,score,in_graph\ninput,a0.h0<q>,1,maybe\n"),
                "line 2: in_graph",
            ),
            (
                CircuitFile::from_csv("source,destination,score,in_graph\ninput,a0.h0,1,true\n"),
                "line 2: \"input->a0.h0\" is no edge",
            ),
            (
                CircuitFile::from_csv("source,destination,score,in_graph\ninput,m0,1,true\n"),
                "no row names an edge of a head",
            ),
            (
                CircuitFile::from_csv(
                    "source,destination,score,in_graph\ninput,a0.h0<q>,1,true\ninput,a0.h0<q>,1,true\n",
                ),
                "line 3: input->a0.h0<q> occurs twice",
            ),
            (CircuitFile::from_dot("digraph circuit {\n"), "no line `graph [n_layers"),
            (
                CircuitFile::from_dot(
                    "graph [n_layers=1, n_heads=1];\n\"input\" -> \"a0.h0\" [color=red];\n",
                ),
                "line 2: \"input->a0.h0\" is no edge",
            ),
        ] {
            let why = refused.unwrap_err().to_string();
            assert!(why.contains(says) && why.lines().count() == 1, "{why:?} instead of {says:?}");
        }
        assert!(Layout::of(Path::new("circuit.png")).unwrap_err().to_string().contains("circuit.png"));
    }
}
