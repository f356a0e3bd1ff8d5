//! Hyper-parameters that depend on the model, read from one file per model.
//!
//! `hparams.toml` in a checkpoint's folder comes first. Without it the built-in file for exactly that shape (layers and
//! width) is used; `hparams/` of this crate has one for each of the four sizes of GPT-2. For any other model the layers
//! must be named: a guess would silently edit the wrong one.
//!
//! A file states every constant of every editor, so that it can be read without the code. Only
//! [`Memit::null_space`] and [`FineTuning::clamp`] are optional.
//!
//! Sources: Meng et al. 2022 (arXiv 2202.05262) and its code for ROME and FT-L, Meng et al. 2023 (arXiv 2210.07229) and
//! its code for MEMIT on GPT-2 XL; each file says which of its numbers were published.

use std::path::Path;

use locus_gpt2::Config;
use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use crate::error::{Error, Result};
use crate::ft::{FineTuning, ScoredAt};
use crate::memit::Memit;
use crate::rome::Rome;

/// Name of the file in a checkpoint's folder.
const FILE: &str = "hparams.toml";

const BUILT_IN: [(&str, &str); 4] = [
    ("gpt2.toml", include_str!("../hparams/gpt2.toml")),
    ("gpt2-medium.toml", include_str!("../hparams/gpt2-medium.toml")),
    ("gpt2-large.toml", include_str!("../hparams/gpt2-large.toml")),
    ("gpt2-xl.toml", include_str!("../hparams/gpt2-xl.toml")),
];

/// Former names of constants in files, each with its present name.
const RENAMED: [(&str, &str); 1] = [("value", "optimisation")];

/// Hyper-parameters of the editors for one model.
///
/// The default is that of GPT-2 small; for another model, set the layers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hparams {
    /// Number of layers of the model.
    pub n_layer: usize,
    /// Width of the model.
    pub n_embd: usize,
    /// ROME; the variants differ in [`Rome::variant`] alone.
    pub rome: Rome,
    /// MEMIT; AlphaEdit adds [`Memit::null_space`].
    pub memit: Memit,
    /// Fine-tuning as released.
    pub ft: FineTuning,
    /// Fine-tuning as released, each entry held near its start.
    #[serde(rename = "ft-l")]
    pub ft_l: FineTuning,
    /// Fine-tuning with target tokens scored in their places.
    #[serde(rename = "ft-m")]
    pub ft_m: FineTuning,
}

impl Default for Hparams {
    fn default() -> Self {
        let ft = FineTuning { scored: ScoredAt::AfterPrompt, ..Default::default() };
        Hparams {
            n_layer: 12,
            n_embd: 768,
            rome: Rome::default(),
            memit: Memit::default(),
            ft,
            ft_l: FineTuning { clamp: Some(4e-3), ..ft },
            ft_m: FineTuning::default(),
        }
    }
}

impl Hparams {
    /// Hyper-parameters of a model: from `hparams.toml` in the checkpoint's folder if there is one, otherwise from the
    /// built-in file for exactly this shape.
    ///
    /// # Errors
    /// When the folder's file is broken, incomplete or for another shape, or there is no file for a model of this
    /// shape.
    pub fn for_model(config: &Config, folder: Option<&Path>) -> Result<Self> {
        if let Some(path) = folder.map(|folder| folder.join(FILE)).filter(|path| path.exists()) {
            let place = path.display().to_string();
            let wrong = |why: String| Error::Hparams { place: place.clone(), why };
            let text = locus_files::read_to_string(&path).map_err(|e| wrong(e.to_string()))?;
            let hparams = Hparams::parse(&text, &place)?;
            if !hparams.fits(config) {
                let Hparams { n_layer, n_embd, .. } = hparams;
                let Config { n_layer: layers, n_embd: width, .. } = config;
                let why =
                    format!("for {n_layer} layers of width {n_embd}; the model has {layers} of {width}");
                return Err(wrong(why));
            }
            return Ok(hparams);
        }
        for (name, text) in BUILT_IN {
            let hparams = Hparams::parse(text, name)?;
            if hparams.fits(config) {
                return Ok(hparams);
            }
        }
        Err(Error::UnknownModel { layers: config.n_layer, width: config.n_embd })
    }

    /// Reads hyper-parameters from TOML. `place` names the text in errors.
    ///
    /// # Errors
    /// When the text is not TOML, a constant is missing, unknown or of another type, or has a name it no longer has.
    pub fn parse(text: &str, place: &str) -> Result<Self> {
        let wrong = |why: String| Error::Hparams { place: place.to_owned(), why };
        // Messages may span several lines.
        let given: Table = toml::from_str(text).map_err(|e| wrong(e.message().replace('\n', " ")))?;
        if let Some(why) = given.values().filter_map(Value::as_table).find_map(|t| renamed(t.keys())) {
            return Err(wrong(why));
        }
        let hparams: Hparams =
            given.clone().try_into().map_err(|e: toml::de::Error| wrong(e.message().replace('\n', " ")))?;
        let all = Table::try_from(&hparams).expect("hyper-parameters are plain data");
        match missing(&all, &given) {
            Some(name) => Err(wrong(format!("{name} is missing; expected every constant"))),
            None => Ok(hparams),
        }
    }

    fn fits(&self, config: &Config) -> bool {
        (self.n_layer, self.n_embd) == (config.n_layer, config.n_embd)
    }
}

/// Error text for the first of `names` that is the former name of a constant; `None` when there is none.
pub fn renamed<S: AsRef<str>>(names: impl IntoIterator<Item = S>) -> Option<String> {
    names.into_iter().find_map(|name| {
        let (old, new) = RENAMED.iter().find(|(old, _)| *old == name.as_ref())?;
        Some(format!("{old} is now called {new}"))
    })
}

/// Path (`table.name`) of the first constant of `all` that `given` does not have.
fn missing(all: &Table, given: &Table) -> Option<String> {
    all.iter().find_map(|(name, value)| match (value, given.get(name)) {
        (_, None) => Some(name.clone()),
        (Value::Table(all), Some(Value::Table(given))) => {
            missing(all, given).map(|inner| format!("{name}.{inner}"))
        }
        _ => None,
    })
}
