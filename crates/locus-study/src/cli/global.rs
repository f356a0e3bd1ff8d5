//! Options that several commands share, and where models and data are found.

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::{Args, ValueEnum};
use locus_gpt2::{Checkpoint, Scalar};

use super::destination;
use super::error::Unusable;
use crate::protocol::progress::ProgressDisplay;

/// Heading of the options that commands share, in their help.
pub const HEADING: &str = "Global options";

/// Options of a command that reads a model.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = HEADING)]
pub struct ModelOptions {
    /// A model's folder, `organism`, or a fetched model: gpt2, gpt2-medium, gpt2-large, gpt2-xl
    #[arg(long, global = true, default_value = "organism", value_name = "DIR|NAME")]
    pub model: String,
    /// Number type the model runs in
    #[arg(long, global = true, value_enum, default_value_t = Dtype::F32)]
    pub dtype: Dtype,
}

/// Option of a command that draws random numbers.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = HEADING)]
pub struct SeedOption {
    /// Seed of all random numbers
    #[arg(long, global = true, default_value_t = 1)]
    pub seed: u64,
}

/// Option of a command that computes.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = HEADING)]
pub struct ThreadsOption {
    /// Threads; results do not depend on it [default: all cores]
    #[arg(long, global = true)]
    pub threads: Option<usize>,
}

/// Option of a command that writes files.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = HEADING)]
pub struct OutOption {
    /// File or folder for the results
    #[arg(long, global = true, value_name = "PATH")]
    pub out: Option<PathBuf>,
}

/// Option of a command whose output on stdout has two forms.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = HEADING)]
pub struct JsonOption {
    /// Machine-readable output on stdout
    #[arg(long, global = true)]
    pub json: bool,
}

/// The values of the shared options; those that a command does not take have their defaults.
#[derive(Clone, Debug)]
pub struct Global {
    pub model: String,
    pub dtype: Dtype,
    pub seed: u64,
    pub threads: Option<usize>,
    pub out: Option<PathBuf>,
    pub json: bool,
    /// Whether no progress is shown.
    pub quiet: bool,
}

/// Precision of the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Dtype {
    F32,
    F64,
}

impl Global {
    /// The defaults, which the groups that a command takes replace.
    pub fn new(quiet: bool) -> Self {
        let model = String::from("organism");
        Global { model, dtype: Dtype::F32, seed: 1, threads: None, out: None, json: false, quiet }
    }

    pub fn model(self, given: &ModelOptions) -> Self {
        Global { model: given.model.clone(), dtype: given.dtype, ..self }
    }

    pub fn seed(self, given: &SeedOption) -> Self {
        Global { seed: given.seed, ..self }
    }

    pub fn threads(self, given: &ThreadsOption) -> Self {
        Global { threads: given.threads, ..self }
    }

    pub fn out(self, given: &OutOption) -> Self {
        Global { out: given.out.clone(), ..self }
    }

    pub fn json(self, given: &JsonOption) -> Self {
        Global { json: given.json, ..self }
    }

    pub fn progress(&self) -> ProgressDisplay {
        ProgressDisplay::new(self.quiet)
    }

    /// Checks, before any work, that the file of `--out` can be written, if it was given, and that neither it nor that
    /// of another option is an input or a file of the model.
    pub fn check_out_file(&self, inputs: &[&Path]) -> Result<()> {
        self.out.as_deref().map_or(Ok(()), |out| self.check_file("--out", out, inputs))
    }

    /// As [`Global::check_out_file`], of the file that another option names.
    pub fn check_file(&self, option: &str, path: &Path, inputs: &[&Path]) -> Result<()> {
        destination::check_file(option, path, inputs)?;
        let model = self.model_folder()?;
        if path.exists()
            && path.parent().is_some_and(|folder| destination::is_same(&folder.join("."), &model))
        {
            let why =
                format!("{option} {}: is a file of the model, which is not overwritten", path.display());
            return Err(Unusable(why).into());
        }
        Ok(())
    }

    /// Refuses `--out` where a command writes nothing.
    pub fn refuse_out(&self, because: &str) -> Result<()> {
        match &self.out {
            Some(_) => Err(Unusable(format!("--out has no effect: {because}")).into()),
            None => Ok(()),
        }
    }

    /// The folder of `--model`.
    pub fn model_folder(&self) -> Result<PathBuf> {
        super::models::model_folder(&self.model)
    }

    /// Name of the model for people: that of `--model` without the folders above.
    pub fn model_name(&self) -> String {
        let name = Path::new(&self.model).file_name();
        name.map_or_else(|| self.model.clone(), |name| name.to_string_lossy().into_owned())
    }

    /// Reads `--model`.
    pub fn checkpoint<F: Scalar>(&self) -> Result<Checkpoint<F>> {
        Ok(Checkpoint::from_pretrained(&self.model_folder()?)?)
    }
}
