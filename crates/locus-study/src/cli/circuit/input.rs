//! Circuits that the verbs of `locus circuit` read: edges with or without scores, and masks of parameters.

use std::path::Path;

use anyhow::Result;
use locus_circuits::edges::{CircuitFile, Graph};
use locus_gpt2::{Config, ParamMask};

use super::super::error::Unusable;
use super::super::global::Global;

/// A circuit on disk.
pub enum Input {
    Edges(Box<CircuitFile>),
    Mask(ParamMask),
}

/// Whether a name is that of a mask.
pub fn is_mask(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("safetensors"))
}

/// The config of `--model`, without its weights.
pub fn config(global: &Global) -> Result<Config> {
    Ok(Config::read(&global.model_folder()?.join("config.json"))?)
}

/// Reads a circuit; a mask is one of a model of the shape of `--model`.
pub fn read(path: &Path, global: &Global) -> Result<Input> {
    if is_mask(path) {
        return Ok(Input::Mask(ParamMask::read(path, &config(global)?)?));
    }
    Ok(Input::Edges(Box::new(CircuitFile::read(path)?)))
}

/// Checks that a circuit belongs to a model of this shape.
pub fn check_shape(path: &Path, graph: Graph, config: &Config) -> Result<()> {
    let model = Graph::new(config);
    if graph == model {
        return Ok(());
    }
    Err(Unusable(format!(
        "{}: is a circuit of {} layers of {} heads; the model has {} of {}",
        path.display(),
        graph.n_layer,
        graph.n_head,
        model.n_layer,
        model.n_head
    ))
    .into())
}
