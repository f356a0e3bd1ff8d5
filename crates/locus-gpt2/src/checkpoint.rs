//! A model's folder: `config.json`, `model.safetensors`, `tokenizer.json`.

use std::path::Path;

use crate::config::Config;
use crate::error::{Error, Result};
use crate::params::Params;
use crate::safetensors_io::write_atomically;
use crate::scalar::Scalar;
use crate::tokenizer::Tokenizer;

/// A language model ready to use.
#[derive(Clone, Debug)]
pub struct Checkpoint<F> {
    /// Weights, which carry the configuration.
    pub model: Params<F>,
    /// Its tokenizer.
    pub tokenizer: Tokenizer,
}

impl<F: Scalar> Checkpoint<F> {
    /// Reads a folder in Hugging Face layout.
    ///
    /// # Errors
    /// When a file is missing or broken, or the tokenizer does not fit the model.
    pub fn read(folder: &Path) -> Result<Self> {
        let config = Config::read(&folder.join("config.json"))?;
        let tokenizer = Tokenizer::read(folder)?;
        if tokenizer.vocab_size() > config.vocab_size {
            return Err(Error::format(
                &folder.join("tokenizer.json"),
                format!(
                    "the tokenizer has {} tokens and the model's vocab_size is {}; expected no more than that",
                    tokenizer.vocab_size(),
                    config.vocab_size
                ),
            ));
        }
        let model = Params::read(&folder.join("model.safetensors"), &config)?;
        Ok(Checkpoint { model, tokenizer })
    }
}

/// Writes `config.json` and `model.safetensors` so that Hugging Face transformers load the folder.
///
/// # Errors
/// When a file cannot be written.
pub fn write_checkpoint<F: Scalar>(folder: &Path, model: &Params<F>, provenance: &str) -> Result<()> {
    let mut json = serde_json::to_value(model.config()).expect("a config is plain data");
    json["architectures"] = serde_json::json!(["GPT2LMHeadModel"]);
    let text = serde_json::to_string_pretty(&json).expect("a JSON value") + "\n";
    write_atomically(&folder.join("config.json"), text.as_bytes())?;
    model.write(&folder.join("model.safetensors"), provenance)
}
