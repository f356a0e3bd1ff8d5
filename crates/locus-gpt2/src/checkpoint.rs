//! A checkpoint: weights and tokenizer from one folder in Hugging Face layout, and the first questions one asks of a
//! language model.

use std::path::{Path, PathBuf};

use locus_files::write_folder;

use crate::config::ConfigFile;
use crate::error::{Error, Result};
use crate::io::edited::{copy_side_files, output, write_edited};
use crate::io::tokenizer::Tokenizer;
use crate::io::weights::weight_files;
use crate::io::write::write_atomically;
use crate::model::batch::Batch;
use crate::model::generate::ranked;
use crate::model::weights::Gpt2;
use crate::scalar::{Scalar, compiled};
use crate::training::loss::{PromptTargets, log_softmax};

/// A language model with its tokenizer, ready to use.
#[derive(Clone, Debug)]
pub struct Checkpoint<F> {
    /// Weights, which carry the configuration.
    pub model: Gpt2<F>,
    /// The tokenizer that the model was trained with.
    pub tokenizer: Tokenizer,
}

compiled!(
    TopKJob<'a>: <F> (&'a Checkpoint<F>, &'a str, usize) => Result<Vec<NextToken>>,
    |(checkpoint, text, k)| top_k(checkpoint, text, k)
);

fn top_k<F: Scalar>(checkpoint: &Checkpoint<F>, text: &str, k: usize) -> Result<Vec<NextToken>> {
    let Checkpoint { model, tokenizer } = checkpoint;
    let batch = checkpoint.encode(&[text])?;
    let logits = model.run(&batch).reading(&batch.last_rows()).logits();
    let logits = logits.as_slice().expect("fresh arrays are contiguous");
    let log_p = log_softmax(logits);
    let next = |token: usize| {
        let text = tokenizer.decode(&[token as u32])?;
        Ok(NextToken { token: token as u32, text, probability: log_p[token].exp() })
    };
    ranked(logits).into_iter().take(k).map(next).collect()
}

impl<F: Scalar> Checkpoint<F> {
    /// Reads a folder in Hugging Face layout: `config.json`, `tokenizer.json` (or `vocab.json` and `merges.txt`), and
    /// `model.safetensors` or the shards of `model.safetensors.index.json`. The vocabularies of model and tokenizer may
    /// differ in size; texts with a token that the model lacks are refused when they are tokenised.
    ///
    /// # Errors
    /// When a file is missing or broken, or describes a model that this crate does not compute.
    pub fn from_pretrained(folder: impl AsRef<Path>) -> Result<Self> {
        let folder = folder.as_ref();
        let ConfigFile { config, tied } = ConfigFile::read(&folder.join("config.json"))?;
        let tokenizer = Tokenizer::read(folder)?.limited_to(&config);
        let model = Gpt2::read_files(&weight_files(folder)?, &config, tied)?;
        Ok(Checkpoint { model, tokenizer })
    }

    /// Texts as a packed batch, tokenised exactly as given.
    ///
    /// # Errors
    /// When a text cannot be tokenised, gives no token or is longer than the context.
    pub fn encode<S: AsRef<str>>(&self, texts: &[S]) -> Result<Batch<F>> {
        let texts: Vec<Vec<u32>> = texts
            .iter()
            .map(|text| self.tokenizer.encode_some("text", text.as_ref()))
            .collect::<Result<_>>()?;
        Batch::new(self.model.config(), &texts)
    }

    /// The `k` likeliest tokens after a text, from the likeliest down; equal ones in order of token id.
    ///
    /// # Errors
    /// As [`Checkpoint::encode`].
    pub fn top_k(&self, text: &str, k: usize) -> Result<Vec<NextToken>> {
        F::run::<TopKJob>((self, text, k))
    }

    /// Mean NLL per token of a target after a prompt, in nats. The two are tokenised separately, exactly as given:
    /// begin the target with the space that separates them.
    ///
    /// # Errors
    /// When one of them cannot be tokenised or gives no token, or the two do not fit the context.
    pub fn nll(&self, prompt: &str, target: &str) -> Result<f64> {
        let pair = (self.tokenizer.encode(prompt)?, self.tokenizer.encode(target)?);
        Ok(PromptTargets::new(self.model.config(), &[pair])?.nll_per_token(&self.model)[0])
    }
}

/// A token that may come next.
#[derive(Clone, Debug, PartialEq)]
pub struct NextToken {
    /// Token id.
    pub token: u32,
    /// Text, leading space included.
    pub text: String,
    /// Probability, in [0, 1].
    pub probability: f64,
}

/// Writes `config.json` and `model.safetensors` so that Hugging Face transformers load the folder.
///
/// # Errors
/// When a file cannot be written.
pub fn write_checkpoint<F: Scalar>(folder: &Path, model: &Gpt2<F>, provenance: &str) -> Result<()> {
    let mut json = serde_json::to_value(model.config()).expect("a config is plain data");
    json["architectures"] = serde_json::json!(["GPT2LMHeadModel"]);
    let text = serde_json::to_string_pretty(&json).expect("a JSON value") + "\n";
    write_atomically(folder.join("config.json"), text.as_bytes())?;
    model.write(&folder.join("model.safetensors"), provenance)
}

/// Files by which a folder holds a model. What an earlier model left of them does not stay beside a new one.
const MODEL_FILES: [&str; 10] = [
    "config.json",
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "tokenizer.json",
    "vocab.json",
    "merges.txt",
    "added_tokens.json",
    "special_tokens_map.json",
    "tokenizer_config.json",
];

/// Whether a folder has a file of a model.
pub fn holds_model(folder: &Path) -> bool {
    MODEL_FILES.iter().any(|name| folder.join(name).exists())
}

/// Writes a copy of a checkpoint's folder in which only the weights differ: those that `edited` does not share with
/// `base`, which is what the folder holds. Names, shards and number types of the tensors stay, and so do the bytes of
/// every weight that is equal in both models; files of the folder are copied as they are, but for weights in other
/// formats. `provenance` goes into the metadata of the weights. Returns whether a weight that changed was rounded to a
/// number type of 16 bits.
///
/// The folder appears whole or not at all ([`locus_files::write_folder`]). If it exists, files of an earlier model in it
/// that the new one does not have are removed, and others stay.
///
/// # Errors
/// When a file cannot be read or written, or a weight does not fit the folder's number type.
///
/// # Panics
/// When the models have different shapes.
pub fn write_edited_checkpoint<F: Scalar>(
    from: &Path,
    to: &Path,
    (base, edited): (&Gpt2<F>, &Gpt2<F>),
    provenance: &str,
) -> Result<bool> {
    let files = weight_files(from)?;
    let fill = |folder: &Path| {
        copy_side_files(from, folder)?;
        let rounded = F::run::<WriteEditedJob>((&files, folder, base, edited, provenance))?;
        for name in MODEL_FILES.iter().filter(|name| !folder.join(name).exists() && to.join(name).exists()) {
            let old = to.join(name);
            std::fs::remove_file(&old).map_err(|e| output(&old, e))?;
        }
        Ok(rounded)
    };
    write_folder(
        to,
        |e| Error::io(to, e),
        |folder| {
            fill(folder).map_err(|error| match error {
                // Under the name that it will have.
                Error::Io { path, cause } => {
                    let place = path.strip_prefix(folder).map(|name| to.join(name));
                    Error::Io { path: place.unwrap_or(path), cause }
                }
                other => other,
            })
        },
    )
}

compiled!(
    WriteEditedJob<'a>: <F>
        (&'a [PathBuf], &'a Path, &'a Gpt2<F>, &'a Gpt2<F>, &'a str) => Result<bool>,
    |(files, to, base, edited, provenance)| write_edited(files, to, base, edited, provenance)
);
