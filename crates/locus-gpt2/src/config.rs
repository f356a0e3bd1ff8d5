//! Shape of a GPT-2 model, as in `config.json`, and the switches of that file that change what it computes.

use std::fmt::Display;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::files::read_text;

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
    /// Activation of the MLP. Only the tanh form of GELU is supported, under any of its names (`gelu_new`,
    /// `gelu_pytorch_tanh`, `gelu_fast`, ...).
    #[serde(default = "default_activation")]
    pub activation_function: String,
    /// Whether attention scores are divided by the square root of a head's width. Files of models where they are do not
    /// have the field.
    #[serde(default = "yes", skip_serializing_if = "is_true")]
    pub scale_attn_weights: bool,
    /// Whether attention scores of block `l` (counted from 0) are also divided by `l + 1`. Files of models where they
    /// are not do not have the field.
    #[serde(default, skip_serializing_if = "is_false")]
    pub scale_attn_by_inverse_layer_idx: bool,
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

fn yes() -> bool {
    true
}

fn is_true(flag: &bool) -> bool {
    *flag
}

fn is_false(flag: &bool) -> bool {
    !*flag
}

/// Names under which checkpoints have the tanh form of GELU; they differ in rounding alone.
const TANH_GELU: [&str; 5] =
    ["gelu_new", "gelu_pytorch_tanh", "gelu_fast", "gelu_python_tanh", "gelu_accurate"];

/// Largest sizes that are taken for a model's: far above any GPT-2, and far below what overflows a product of two.
const LARGEST: [(&str, usize); 6] = [
    ("n_layer", 1 << 14),
    ("n_head", 1 << 20),
    ("n_embd", 1 << 20),
    ("n_positions", 1 << 26),
    ("vocab_size", 1 << 28),
    ("n_inner", 1 << 26),
];

/// Fields of other architectures and of other weights, with the value that a plain GPT-2 has.
const PLAIN_FLAGS: [(&str, bool); 3] =
    [("add_cross_attention", false), ("is_encoder_decoder", false), ("is_causal", true)];

/// Fields whose presence says that the weights are not a plain GPT-2's, unless they are empty.
const NOT_PLAIN: [&str; 3] = ["quantization_config", "compression_config", "pruned_heads"];

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
            scale_attn_weights: true,
            scale_attn_by_inverse_layer_idx: false,
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
        self.n_inner.unwrap_or(self.n_embd.saturating_mul(4))
    }

    /// Width of one head, `d / H`.
    pub fn d_head(&self) -> usize {
        self.n_embd / self.n_head
    }

    /// Reads and checks a `config.json`. A field that is `null` counts as absent; fields that change nothing of what the
    /// model computes (dropout, token ids, settings of generation) are passed over.
    ///
    /// # Errors
    /// When the file cannot be read, lacks a field, has one of another type or out of range, or describes a model that
    /// computes something else than this crate does. The field is named.
    pub fn read(path: &Path) -> Result<Self> {
        Ok(ConfigFile::read(path)?.config)
    }

    fn check(&self) -> std::result::Result<(), String> {
        let sizes = [self.n_layer, self.n_head, self.n_embd, self.n_positions, self.vocab_size, self.d_mlp()];
        for ((name, most), size) in LARGEST.into_iter().zip(sizes) {
            if size == 0 {
                return Err(format!("field {name} is 0; expected a positive number"));
            }
            if size > most {
                return Err(format!("field {name} is {size}; expected at most {most}"));
            }
        }
        if !self.n_embd.is_multiple_of(self.n_head) {
            return Err(format!(
                "field n_embd is {} and n_head {}; expected a multiple",
                self.n_embd, self.n_head
            ));
        }
        if !(self.layer_norm_epsilon > 0.0 && self.layer_norm_epsilon < 1.0) {
            let found = self.layer_norm_epsilon;
            return Err(format!(
                "field layer_norm_epsilon is {found:e}; expected a number above 0 and below 1"
            ));
        }
        if !(self.initializer_range >= 0.0 && self.initializer_range.is_finite()) {
            let found = self.initializer_range;
            return Err(format!(
                "field initializer_range is {found:e}; expected a number that is not negative"
            ));
        }
        if !TANH_GELU.contains(&self.activation_function.as_str()) {
            return Err(format!(
                "field activation_function is {:?}; expected \"gelu_new\" or another name of the tanh form",
                self.activation_function
            ));
        }
        if self.model_type != "gpt2" {
            return Err(format!("field model_type is {:?}; expected \"gpt2\"", self.model_type));
        }
        Ok(())
    }
}

/// What a `config.json` says.
pub(crate) struct ConfigFile {
    pub(crate) config: Config,
    /// Whether the head is the token embedding. If not, the weights must have a head, which must equal it.
    pub(crate) tied: bool,
}

impl ConfigFile {
    /// Reads and checks a `config.json`, as [`Config::read`].
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let text = read_text(path)?;
        let value: Value =
            serde_json::from_str(&text).map_err(|e| Error::format(path, format!("not valid JSON: {e}")))?;
        let Value::Object(fields) = value else {
            return Err(Error::format(path, "not a GPT-2 config; expected a JSON object"));
        };
        ConfigFile::of(&Fields(fields)).map_err(|why| Error::format(path, why))
    }

    fn of(fields: &Fields) -> std::result::Result<Self, String> {
        for (name, plain) in PLAIN_FLAGS {
            if fields.flag(name, plain)? != plain {
                return Err(format!("field {name} is {}; expected a plain GPT-2 ({plain})", !plain));
            }
        }
        if let Some(name) = NOT_PLAIN.into_iter().find(|name| fields.get(name).is_some_and(says_something)) {
            let found = fields.get(name).map(shown).unwrap_or_default();
            return Err(format!("field {name} is {found}; expected a plain GPT-2 (without it)"));
        }
        // Scores in another order and in single precision: the same numbers, in the precision of this crate.
        fields.flag("reorder_and_upcast_attn", false)?;
        let config = Config {
            n_layer: fields.size("n_layer", "num_hidden_layers")?,
            n_head: fields.size("n_head", "num_attention_heads")?,
            n_embd: fields.size("n_embd", "hidden_size")?,
            n_positions: fields.size("n_positions", "max_position_embeddings")?,
            vocab_size: fields.size("vocab_size", "vocab_size")?,
            n_inner: fields.size_or_none("n_inner")?,
            layer_norm_epsilon: fields.number("layer_norm_epsilon", default_epsilon())?,
            activation_function: fields.text("activation_function", default_activation())?,
            scale_attn_weights: fields.flag("scale_attn_weights", true)?,
            scale_attn_by_inverse_layer_idx: fields.flag("scale_attn_by_inverse_layer_idx", false)?,
            initializer_range: fields.number("initializer_range", default_initializer_range())?,
            model_type: fields.text("model_type", default_model_type())?,
        };
        if let Some(n_ctx) = fields.size_or_none("n_ctx")?.filter(|&n_ctx| n_ctx != config.n_positions) {
            let n_positions = config.n_positions;
            return Err(format!("field n_ctx is {n_ctx} and n_positions {n_positions}; expected the same"));
        }
        config.check()?;
        Ok(ConfigFile { config, tied: fields.flag("tie_word_embeddings", true)? })
    }
}

/// Fields of a config by name. Errors are phrases that begin with the field's name.
struct Fields(Map<String, Value>);

type Read<T> = std::result::Result<T, String>;

impl Fields {
    /// A field that is there and not null.
    fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name).filter(|value| !value.is_null())
    }

    /// A size, which a file may have under either name, or both if they agree.
    fn size(&self, name: &str, alias: &str) -> Read<usize> {
        match (self.size_or_none(name)?, self.size_or_none(alias)?) {
            (Some(size), None) | (None, Some(size)) => Ok(size),
            (Some(size), Some(other)) if size == other => Ok(size),
            (Some(size), Some(other)) => {
                Err(format!("field {name} is {size} and {alias} {other}; expected the same"))
            }
            (None, None) => Err(format!("not a GPT-2 config: missing field `{name}`")),
        }
    }

    fn size_or_none(&self, name: &str) -> Read<Option<usize>> {
        let size = |value: &Value| value.as_u64().and_then(|size| usize::try_from(size).ok());
        self.read(name, "a positive whole number", size)
    }

    fn number(&self, name: &str, default: f64) -> Read<f64> {
        Ok(self.read(name, "a number", Value::as_f64)?.unwrap_or(default))
    }

    fn flag(&self, name: &str, default: bool) -> Read<bool> {
        Ok(self.read(name, "true or false", Value::as_bool)?.unwrap_or(default))
    }

    fn text(&self, name: &str, default: String) -> Read<String> {
        Ok(self.read(name, "a text", |value| value.as_str().map(str::to_owned))?.unwrap_or(default))
    }

    fn read<T>(
        &self,
        name: &str,
        expected: impl Display,
        read: impl Fn(&Value) -> Option<T>,
    ) -> Read<Option<T>> {
        let Some(value) = self.get(name) else {
            return Ok(None);
        };
        let wrong = || format!("field {name} is {}; expected {expected}", shown(value));
        read(value).map(Some).ok_or_else(wrong)
    }
}

/// Whether a value is more than false, zero or empty.
fn says_something(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(flag) => *flag,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(values) => !values.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
    }
}

/// A value as a file has it, cut to a length that fits a line.
fn shown(value: &Value) -> String {
    const LONGEST: usize = 40;
    let text = value.to_string();
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}
