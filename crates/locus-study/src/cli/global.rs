//! Options that every command takes, and where models and data are found.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use locus_gpt2::{Checkpoint, Scalar};

use super::error::Unusable;
use crate::protocol::progress::ProgressDisplay;

/// Models that `locus fetch` knows by name.
pub const HUB_MODELS: [&str; 4] = ["gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl"];

#[derive(Debug, Args)]
pub struct Global {
    /// A model's folder, `organism`, or a fetched model: gpt2, gpt2-medium, gpt2-large, gpt2-xl [default: organism]
    #[arg(long, global = true, value_name = "DIR|NAME")]
    pub model: Option<String>,
    /// Seed of all random numbers
    #[arg(long, global = true, default_value_t = 1)]
    pub seed: u64,
    /// Threads; results do not depend on it [default: all cores]
    #[arg(long, global = true)]
    pub threads: Option<usize>,
    /// File or folder for the results
    #[arg(long, global = true, value_name = "PATH")]
    pub out: Option<PathBuf>,
    /// Machine-readable output on stdout
    #[arg(long, global = true)]
    pub json: bool,
    /// Show no progress
    #[arg(long, global = true)]
    pub quiet: bool,
    /// Number type the model runs in
    #[arg(long, global = true, value_enum, default_value_t = Dtype::F32)]
    pub dtype: Dtype,
}

/// Precision of the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Dtype {
    F32,
    F64,
}

impl Global {
    pub fn progress(&self) -> ProgressDisplay {
        ProgressDisplay::new(self.quiet)
    }

    /// The value of `--model`.
    pub fn model_name(&self) -> &str {
        self.model.as_deref().unwrap_or("organism")
    }

    /// The folder of `--model`.
    pub fn model_folder(&self) -> Result<PathBuf> {
        let name = self.model_name();
        if name == "organism" {
            return organism_folder();
        }
        if !HUB_MODELS.contains(&name) {
            return Ok(PathBuf::from(name));
        }
        let folder = cache_folder()?.join(name);
        if !folder.join("config.json").exists() {
            let why = format!("model {name} is not fetched yet; run: locus fetch {name}");
            return Err(Unusable(why).into());
        }
        Ok(folder)
    }

    /// Reads `--model`.
    pub fn checkpoint<F: Scalar>(&self) -> Result<Checkpoint<F>> {
        Ok(Checkpoint::from_pretrained(&self.model_folder()?)?)
    }
}

/// Finds `fixtures/organism` in the current folder or one above it, otherwise in a folder above the program.
pub fn organism_folder() -> Result<PathBuf> {
    let starts = [std::env::current_dir().ok(), std::env::current_exe().ok()];
    starts
        .iter()
        .flatten()
        .flat_map(|start| start.ancestors())
        .map(|folder| folder.join("fixtures/organism"))
        .find(|folder| folder.join("config.json").exists())
        .ok_or_else(|| {
            Unusable("The bundled model was not found; run inside the repository or give --model DIR".into())
                .into()
        })
}

/// Folder for fetched files: `$LOCUS_CACHE`, otherwise `~/.cache/locus`.
pub fn cache_folder() -> Result<PathBuf> {
    if let Some(folder) = std::env::var_os("LOCUS_CACHE") {
        return Ok(PathBuf::from(folder));
    }
    let home = std::env::var_os("HOME").context("neither LOCUS_CACHE nor HOME is set")?;
    Ok(Path::new(&home).join(".cache/locus"))
}
