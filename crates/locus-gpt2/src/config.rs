//! Shape of a GPT-2 model, as in `config.json`.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Sizes of a GPT-2-architecture model. Letters used in this crate's docs: `L = n_layer`, `H = n_head`,
/// `d = n_embd`, `f = d_mlp`, `V = vocab_size`, `n` rows of a packed batch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Config {
    /// Number of blocks, `L`.
    pub n_layer: usize,
    /// Attention heads per block, `H`.
    pub n_head: usize,
    /// Width of the residual stream, `d`.
    pub n_embd: usize,
    /// Length of the context: the longest sequence, in tokens.
    pub n_positions: usize,
    /// Number of tokens in the vocabulary, `V`.
    pub vocab_size: usize,
    /// Width of the MLP's hidden layer; `None` means `4 d`.
    #[serde(default)]
    pub n_inner: Option<usize>,
    /// Number added to the variance in every LayerNorm.
    #[serde(default = "default_epsilon")]
    pub layer_norm_epsilon: f64,
    /// Activation of the MLP; `gelu_new` (the tanh form) is the only one supported.
    #[serde(default = "default_activation")]
    pub activation_function: String,
    /// Standard deviation of fresh weights.
    #[serde(default = "default_initializer_range")]
    pub initializer_range: f64,
    /// Name of the architecture, `gpt2`, by which other tools recognise it.
    #[serde(default = "default_model_type")]
    pub model_type: String,
}

fn default_epsilon() -> f64 {
    1e-5
}

fn default_activation() -> String {
    "gelu_new".into()
}

fn default_initializer_range() -> f64 {
    0.02
}

fn default_model_type() -> String {
    "gpt2".into()
}

impl Config {
    /// A model of the given sizes with GPT-2's constants.
    pub fn new(n_layer: usize, n_head: usize, n_embd: usize, n_positions: usize, vocab_size: usize) -> Self {
        Config {
            n_layer,
            n_head,
            n_embd,
            n_positions,
            vocab_size,
            n_inner: None,
            layer_norm_epsilon: default_epsilon(),
            activation_function: default_activation(),
            initializer_range: default_initializer_range(),
            model_type: default_model_type(),
        }
    }

    /// The shape of GPT-2 small: 12 layers, 12 heads, `d = 768`.
    pub fn gpt2_small() -> Self {
        Config::new(12, 12, 768, 1024, 50_257)
    }

    /// Width of the MLP's hidden layer, `f`.
    pub fn d_mlp(&self) -> usize {
        self.n_inner.unwrap_or(4 * self.n_embd)
    }

    /// Width of one head, `d / H`.
    pub fn d_head(&self) -> usize {
        self.n_embd / self.n_head
    }

    /// Reads and checks a `config.json`.
    ///
    /// # Errors
    /// When the file cannot be read, lacks a field or describes another architecture.
    pub fn read(path: &Path) -> Result<Self> {
        let text = locus_files::read_to_string(path).map_err(|e| Error::io(path, e))?;
        let value: serde_json::Value =
            serde_json::from_str(&text).map_err(|e| Error::format(path, format!("not valid JSON: {e}")))?;
        for flag in ["scale_attn_by_inverse_layer_idx", "reorder_and_upcast_attn", "add_cross_attention"] {
            if value.get(flag).and_then(serde_json::Value::as_bool) == Some(true) {
                return Err(Error::format(
                    path,
                    format!("field {flag} is true; expected a plain GPT-2 (false)"),
                ));
            }
        }
        let config: Config = serde_json::from_value(value)
            .map_err(|e| Error::format(path, format!("not a GPT-2 config: {e}")))?;
        config.check().map_err(|why| Error::format(path, why))?;
        Ok(config)
    }

    fn check(&self) -> std::result::Result<(), String> {
        for (name, size) in [
            ("n_layer", self.n_layer),
            ("n_head", self.n_head),
            ("n_embd", self.n_embd),
            ("n_positions", self.n_positions),
            ("vocab_size", self.vocab_size),
            ("n_inner", self.d_mlp()),
        ] {
            if size == 0 {
                return Err(format!("field {name} is 0; expected a positive number"));
            }
        }
        if !self.n_embd.is_multiple_of(self.n_head) {
            return Err(format!(
                "field n_embd is {} and n_head {}; expected a multiple",
                self.n_embd, self.n_head
            ));
        }
        if self.activation_function != "gelu_new" {
            return Err(format!(
                "field activation_function is {:?}; expected \"gelu_new\"",
                self.activation_function
            ));
        }
        if self.model_type != "gpt2" {
            return Err(format!("field model_type is {:?}; expected \"gpt2\"", self.model_type));
        }
        Ok(())
    }
}
