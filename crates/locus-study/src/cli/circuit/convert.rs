//! `locus circuit convert`: one layout of circuits into another.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use locus_circuits::edges::{CircuitFile, EdgeScores, Graph, GraphTitle, Layout, edge_mask, mask_edges};
use locus_gpt2::internal::write_atomically;
use ndarray::Array2;
use serde_json::{Map, Value, json};

use super::super::destination::ending;
use super::super::error::Unusable;
use super::super::global::Global;
use super::input::{Input, check_shape, config, is_mask, read};

#[derive(Debug, Args)]
#[group(skip)]
pub struct Convert {
    /// Circuit: .json of `discover`, EAP-IG or MIB, .csv, .dot, or a mask (.safetensors, of a model of --model's shape)
    #[arg(value_name = "IN")]
    from: PathBuf,
    /// File to write
    #[arg(value_name = "OUT")]
    to: PathBuf,
    /// Layout of OUT, where its ending alone does not say it
    #[arg(long = "to", value_enum, value_name = "LAYOUT")]
    layout: Option<Named>,
}

/// A layout that shares its ending with another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Named {
    /// Attribution graph of Neuronpedia and circuit-tracer (.json): heads and MLPs as nodes, scores as weights of links
    Neuronpedia,
}

impl Convert {
    pub fn run(&self, global: &Global) -> Result<()> {
        global.check_file("OUT", &self.to, &[&self.from])?;
        if self.layout == Some(Named::Neuronpedia) {
            ending("OUT", &self.to, &["json"])?;
            return self.to_neuronpedia(global);
        }
        let layout = if is_mask(&self.to) { None } else { Some(Layout::of(&self.to)?) };
        let mut file = match read(&self.from, global)? {
            Input::Mask(mask) => {
                if layout.is_none() {
                    return Err(
                        Unusable("both files are masks; expected another layout for one".into()).into()
                    );
                }
                let graph = Graph::new(mask.config());
                let unscored = Array2::from_elem((graph.n_sources(), graph.n_destinations()), f64::NAN);
                let provenance = json!({
                    "mask_sha256": mask.sha256(), "version": env!("CARGO_PKG_VERSION"),
                });
                CircuitFile {
                    scores: EdgeScores::new(graph, unscored),
                    circuit: mask_edges(&mask),
                    width: Some(mask.config().n_embd),
                    conventions: None,
                    provenance: object(provenance),
                }
            }
            Input::Edges(file) => *file,
        };
        let graph = file.scores.graph();
        let Some(layout) = layout else {
            let config = config(global)?;
            check_shape(&self.from, graph, &config)?;
            let provenance = json!({
                "circuit_sha256": locus_files::sha256_file(&self.from)?, "edges": file.circuit.count(),
                "version": env!("CARGO_PKG_VERSION"),
            });
            return Ok(edge_mask(&file.circuit, &config).write(&self.to, &provenance.to_string())?);
        };
        if layout == Layout::Json && file.width.is_none() {
            // Neither CSV nor DOT says how wide the model is.
            let config = config(global)?;
            check_shape(&self.from, graph, &config)?;
            file.width = Some(config.n_embd);
        }
        write_atomically(&self.to, file.to_text(layout)?.as_bytes())?;
        Ok(())
    }

    fn to_neuronpedia(&self, global: &Global) -> Result<()> {
        let Input::Edges(file) = read(&self.from, global)? else {
            let why = format!(
                "{}: a mask has no scores, which links take their weights from; expected a circuit of edges",
                self.from.display()
            );
            return Err(Unusable(why).into());
        };
        // The graph names its model.
        check_shape(&self.from, file.scores.graph(), &config(global)?)?;
        let scan = match global.model_name().as_str() {
            "gpt2" => "gpt2-small".to_owned(),
            other => other.to_owned(),
        };
        let pairs = file.provenance.get("pairs");
        let stated = |name: &str| pairs.and_then(|pairs| pairs.get(name)?.as_str());
        let prompt = match (stated("task"), stated("file")) {
            (Some(task), _) => format!("task {task}"),
            (None, Some(file)) => file.to_owned(),
            (None, None) => "circuit".to_owned(),
        };
        let slug = self.to.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        let text = file.to_neuronpedia(GraphTitle { slug: &slug, scan: &scan, prompt: &prompt });
        let text = text.with_context(|| self.from.display().to_string())?;
        write_atomically(&self.to, text.as_bytes())?;
        Ok(())
    }
}

fn object(value: Value) -> Map<String, Value> {
    if let Value::Object(map) = value { map } else { Map::new() }
}
