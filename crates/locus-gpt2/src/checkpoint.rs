//! A checkpoint: weights and tokenizer from one folder in Hugging Face layout, and the first questions one asks of a
//! language model.

use std::path::Path;

use crate::config::Config;
use crate::error::{Error, Result};
use crate::io::tokenizer::Tokenizer;
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
    /// Reads a folder in Hugging Face layout.
    ///
    /// # Errors
    /// When a file is missing or broken, or the tokenizer does not fit the model.
    pub fn from_pretrained(folder: impl AsRef<Path>) -> Result<Self> {
        let folder = folder.as_ref();
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
        let model = Gpt2::read(&folder.join("model.safetensors"), &config)?;
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
