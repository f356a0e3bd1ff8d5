//! What `locus inspect` and `locus generate` share: a prompt as tokens, and the model that patches make.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;
use locus_editors::{EditHistory, Patch};
use locus_files::sha256;
use locus_gpt2::{Checkpoint, Gpt2, Scalar};

use super::error::Unusable;
use super::global::{Dtype, Global};
use crate::report::ModelProvenance;

#[derive(Debug, Args)]
pub struct PromptOptions {
    /// Text to begin with, tokenised exactly as written
    pub prompt: String,
    /// Put the end-of-text token before the prompt [default: nothing]
    #[arg(long)]
    pub bos: bool,
    /// Patch to apply to the model, as `locus edit` writes it; several are applied in the order given
    #[arg(long = "patch", value_name = "FILE")]
    pub patches: Vec<PathBuf>,
}

impl PromptOptions {
    /// Token ids of the prompt.
    pub fn tokens<F: Scalar>(&self, checkpoint: &Checkpoint<F>) -> Result<Vec<u32>> {
        let mut tokens = Vec::new();
        if self.bos {
            tokens.push(checkpoint.tokenizer.end_of_text()?);
        } else if self.prompt.is_empty() {
            return Err(Unusable("the prompt is empty; expected a text, or --bos".into()).into());
        }
        if !self.prompt.is_empty() {
            tokens.extend(checkpoint.tokenizer.encode_some("prompt", &self.prompt)?);
        }
        Ok(tokens)
    }

    /// The model with the patches applied; `None` when there are none.
    pub fn patched<F: Scalar>(&self, model: &Gpt2<F>) -> Result<Option<Gpt2<F>>> {
        if self.patches.is_empty() {
            return Ok(None);
        }
        let mut history = EditHistory::new(model.clone());
        for path in &self.patches {
            let patch = Patch::read(path, model.config())?;
            history.apply(patch).with_context(|| path.display().to_string())?;
        }
        Ok(Some(history.model().clone()))
    }

    /// Inputs besides the model.
    pub fn inputs(&self) -> Vec<&Path> {
        self.patches.iter().map(PathBuf::as_path).collect()
    }

    pub fn provenance<F: Scalar>(&self, global: &Global, model: &Gpt2<F>) -> Result<ModelProvenance> {
        let name = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
        let patch = |path: &PathBuf| {
            let bytes = locus_files::read(path);
            let bytes = bytes.map_err(|error| Unusable(format!("{}: {error}", path.display())))?;
            Ok((name(path).unwrap_or_default(), sha256(&bytes)))
        };
        Ok(ModelProvenance {
            version: env!("CARGO_PKG_VERSION"),
            model: name(Path::new(&global.model)).unwrap_or_else(|| global.model.clone()),
            model_sha256: model.sha256(),
            dtype: match global.dtype {
                Dtype::F32 => "f32",
                Dtype::F64 => "f64",
            },
            patches: self.patches.iter().map(patch).collect::<Result<_>>()?,
        })
    }
}
