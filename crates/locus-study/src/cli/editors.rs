//! Which editor, with which constants and statistics.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use locus_editors::{
    ClampedSgd, Editor, Error, Fact, FineTuning, Hparams, KeyCovariance, KeyMoments, KeyStatistics, Lora,
    Memit, PREFIXES, Rome, Variant, renamed,
};
use locus_gpt2::{Checkpoint, Config, Scalar};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::Unusable;
use super::global::Global;
use super::stats::tokenise;
use crate::protocol::{PreparedRequest, prefixes};

/// Eigenvalue of the keys' second moment from which AlphaEdit counts a direction as used.
const ALPHA_EDIT_THRESHOLD: f64 = 2e-2;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum EditorName {
    /// The study's fine-tuning: SGD with every parameter clamped near its start
    StudyFt,
    /// Adam on one MLP's output, target tokens scored after the prompt alone, as published
    Ft,
    /// The same, each entry held near its start
    FtL,
    /// Adam on one MLP's output, target tokens scored in their places
    FtM,
    /// Low-rank change of all attention inputs, merged
    Lora,
    /// ROME with the mean key throughout
    RRome,
    /// ROME as released, with two keys
    Rome,
    /// ROME with the bare prompt's key throughout
    PRome,
    /// MEMIT: several layers, many facts at once
    Memit,
    /// MEMIT's values, written where keys seldom lie
    AlphaEdit,
}

#[derive(Debug, Args)]
pub struct EditorArgs {
    /// How the edit is made
    #[arg(long, value_enum)]
    pub editor: EditorName,
    /// The editor's constants, TOML or JSON; see --print-config
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Key statistics for ROME and MEMIT: a file of `locus stats`, or a published .npz for an editor of one layer
    #[arg(long, value_name = "FILE", conflicts_with = "text")]
    stats: Option<PathBuf>,
    /// Text to collect key statistics from, line by line, instead of --stats
    #[arg(long, value_name = "FILE")]
    text: Option<PathBuf>,
    /// Tokens of --text that are used, at least
    #[arg(long, value_name = "N", default_value_t = 100_000, requires = "text")]
    tokens: usize,
}

/// An editor's constants, read and checked.
pub enum Chosen {
    StudyFt(ClampedSgd),
    Ft(FineTuning),
    Lora(Lora),
    Rome(Rome, Option<Vec<String>>),
    Memit(Memit, Option<Vec<String>>),
}

impl EditorArgs {
    /// The constants of `--config`, or the editor's for the model.
    pub fn chosen(&self, global: &Global) -> Result<Chosen> {
        let config = || -> Result<Config> { Ok(Config::read(&global.model_folder()?.join("config.json"))?) };
        let rome = |variant| -> Result<Chosen> {
            let config = config()?;
            let hparams = self.hparams(&config, global)?;
            let (constants, prefixes) = self.located(Rome { variant, ..hparams.rome })?;
            if constants.variant != variant {
                let (given, named) = (constants.variant.name(), variant.name());
                return Err(Unusable(format!("the constants are for {given}; --editor is {named}")).into());
            }
            constants.check(&config)?;
            Ok(Chosen::Rome(constants, prefixes))
        };
        let memit = |null_space| -> Result<Chosen> {
            let config = config()?;
            let hparams = self.hparams(&config, global)?;
            let (constants, prefixes) = self.located(Memit { null_space, ..hparams.memit })?;
            constants.check(&config)?;
            Ok(Chosen::Memit(constants, prefixes))
        };
        let ft = |of: fn(Hparams) -> FineTuning| -> Result<Chosen> {
            let config = config()?;
            let constants = self.constants(of(self.hparams(&config, global)?))?;
            constants.check(&config)?;
            Ok(Chosen::Ft(constants))
        };
        let place = || self.config.as_deref().map_or_else(String::new, |path| path.display().to_string());
        let chosen = match self.editor {
            EditorName::StudyFt => {
                let constants: ClampedSgd = self.parse()?.unwrap_or_default();
                constants.check().map(|()| Chosen::StudyFt(constants)).map_err(anyhow::Error::from)
            }
            EditorName::Ft => ft(|hparams| hparams.ft),
            EditorName::FtL => ft(|hparams| hparams.ft_l),
            EditorName::FtM => ft(|hparams| hparams.ft_m),
            EditorName::Lora => {
                let constants = self.constants(Lora { seed: global.seed, ..Lora::default() })?;
                Ok(Chosen::Lora(constants))
            }
            EditorName::RRome => rome(Variant::RRome),
            EditorName::Rome => rome(Variant::Rome),
            EditorName::PRome => rome(Variant::PRome),
            EditorName::Memit => memit(None),
            EditorName::AlphaEdit => memit(Some(ALPHA_EDIT_THRESHOLD)),
        };
        if self.config.is_some() { chosen.with_context(place) } else { chosen }
    }

    /// The model's hyper-parameters. Where none are known `--config` must name the layers.
    fn hparams(&self, config: &Config, global: &Global) -> Result<Hparams> {
        let given = self.given()?;
        let named = given.get("layer").or(given.get("layers")).is_some();
        match Hparams::for_model(config, Some(&global.model_folder()?)) {
            Err(Error::UnknownModel { .. }) if named => Ok(Hparams::default()),
            found => Ok(found?),
        }
    }

    /// `default` with what `--config` says laid over it.
    fn constants<T: Serialize + DeserializeOwned>(&self, default: T) -> Result<T> {
        let given = self.given()?;
        self.overlay(default, given)
    }

    /// The same, with the prefixes that the file may have beside the constants.
    fn located<T: Serialize + DeserializeOwned>(&self, default: T) -> Result<(T, Option<Vec<String>>)> {
        let mut given = self.given()?;
        let prefixes = given.as_object_mut().and_then(|given| given.remove("prefixes"));
        let prefixes = prefixes
            .map(|value| serde_json::from_value(value).map_err(|e| self.wrong(&format!("prefixes: {e}"))))
            .transpose()?;
        Ok((self.overlay(default, given)?, prefixes))
    }

    fn overlay<T: Serialize + DeserializeOwned>(&self, default: T, given: Value) -> Result<T> {
        let mut all = serde_json::to_value(default)?;
        merge(&mut all, given);
        serde_json::from_value(all).map_err(|e| self.wrong(&e.to_string()))
    }

    fn given(&self) -> Result<Value> {
        let given = self.parse()?.unwrap_or_else(|| Value::Object(Default::default()));
        let Some(names) = given.as_object() else {
            return Err(self.wrong("expected a table of constants"));
        };
        if let Some(why) = renamed(names.keys()) {
            return Err(self.wrong(&why));
        }
        // JSON has no NaN: that is what a TOML one has become.
        match has_null(&given) {
            Some(name) => Err(self.wrong(&format!("{name} is not a number"))),
            None => Ok(given),
        }
    }

    /// The file of `--config`, if there is one.
    fn parse<T: DeserializeOwned>(&self) -> Result<Option<T>> {
        let Some(path) = &self.config else { return Ok(None) };
        let text = std::fs::read_to_string(path).map_err(|e| Unusable(format!("{}: {e}", path.display())))?;
        // TOML's messages span several lines; the first names the problem.
        let parsed: Result<T, String> = if path.extension().is_some_and(|ext| ext == "json") {
            serde_json::from_str(&text).map_err(|e| e.to_string())
        } else {
            toml::from_str(&text).map_err(|e| e.message().to_owned())
        };
        parsed.map(Some).map_err(|why| self.wrong(&why))
    }

    fn wrong(&self, why: &str) -> anyhow::Error {
        let place = self.config.as_deref().unwrap_or(Path::new("--config"));
        Unusable(format!("{}: {why}", place.display())).into()
    }

    /// Factorised key statistics of the layers, from `--stats` or `--text`.
    fn covariances<F: Scalar>(
        &self,
        global: &Global,
        checkpoint: &Checkpoint<F>,
        layers: &[usize],
        ridge: f64,
    ) -> Result<BTreeMap<usize, Arc<KeyCovariance>>> {
        let moments: BTreeMap<usize, KeyMoments> = match (&self.stats, &self.text) {
            (Some(path), _) if path.extension().is_some_and(|ext| ext == "npz") => {
                let [layer] = layers else {
                    let why =
                        format!("{}: an .npz holds one layer; this editor needs {layers:?}", path.display());
                    return Err(Unusable(why).into());
                };
                BTreeMap::from([(*layer, KeyMoments::read_npz(path)?)])
            }
            (Some(path), _) => KeyStatistics::read(path)?.0.layers,
            (None, Some(path)) => {
                let text = tokenise(checkpoint, path, self.tokens)?;
                let mut statistics = KeyStatistics::empty(&checkpoint.model, layers)?;
                let stage = global.progress().stage("key statistics", text.len());
                let mut done = 0;
                statistics.collect(&checkpoint.model, &text, &mut |now| {
                    (done..now.sequences).for_each(|_| stage.inc());
                    done = now.sequences;
                    true
                })?;
                stage.finish();
                statistics.layers
            }
            (None, None) => {
                let why =
                    "this --editor needs key statistics: --stats FILE (see `locus stats`) or --text FILE";
                return Err(Unusable(why.into()).into());
            }
        };
        layers
            .iter()
            .map(|layer| {
                let moments = moments.get(layer).ok_or_else(|| {
                    let have: Vec<&usize> = moments.keys().collect();
                    Unusable(format!("the key statistics are of layers {have:?}; expected layer {layer} too"))
                })?;
                if moments.count() == 0 {
                    return Err(Unusable("the text for key statistics has no tokens".into()).into());
                }
                Ok((*layer, Arc::new(KeyCovariance::new(moments.mean(), ridge)?)))
            })
            .collect()
    }
}

impl Chosen {
    /// The constants as a file for `--config`.
    pub fn print(&self) -> Result<String> {
        let located = |constants: String| {
            let list: Vec<String> = PREFIXES.iter().map(|prefix| format!("  {prefix:?},")).collect();
            format!(
                "# Texts put before the prompt when keys and values are found. Without the list: these for GPT-2's\n\
                 # tokenizer, drawn from the model by --seed for others.\n# prefixes = [\n# {}\n# ]\n{constants}",
                list.join("\n# ")
            )
        };
        Ok(match self {
            Chosen::StudyFt(constants) => toml::to_string(constants)?,
            Chosen::Ft(constants) => toml::to_string(constants)?,
            Chosen::Lora(constants) => toml::to_string(constants)?,
            Chosen::Rome(constants, _) => located(toml::to_string(constants)?),
            Chosen::Memit(constants, _) => located(toml::to_string(constants)?),
        })
    }

    /// The constants, for the provenance of a patch.
    pub fn provenance(&self) -> Result<Value> {
        Ok(match self {
            Chosen::StudyFt(constants) => serde_json::to_value(constants)?,
            Chosen::Ft(constants) => serde_json::to_value(constants)?,
            Chosen::Lora(constants) => serde_json::to_value(constants)?,
            Chosen::Rome(constants, _) => serde_json::to_value(constants)?,
            Chosen::Memit(constants, _) => serde_json::to_value(constants)?,
        })
    }

    /// Whether many facts are meant to be written at once.
    pub fn writes_many(&self) -> bool {
        matches!(self, Chosen::Memit(..))
    }

    /// The editor, with its statistics.
    pub fn editor<F: Scalar>(
        &self,
        args: &EditorArgs,
        global: &Global,
        checkpoint: &Checkpoint<F>,
    ) -> Result<Box<dyn Editor<F>>> {
        Ok(match self {
            Chosen::StudyFt(constants) => Box::new(*constants),
            Chosen::Ft(constants) => Box::new(*constants),
            Chosen::Lora(constants) => Box::new(*constants),
            Chosen::Rome(constants, _) => {
                let layers = [constants.layer];
                let mut found = args.covariances(global, checkpoint, &layers, constants.ridge)?;
                Box::new(constants.with(found.remove(&constants.layer).expect("was asked for")))
            }
            Chosen::Memit(constants, _) => {
                let found = args.covariances(global, checkpoint, &constants.layers, constants.ridge)?;
                Box::new(constants.clone().with(found)?)
            }
        })
    }

    /// Requests as this editor needs them: with subject and prefixes, or prompt and target alone.
    pub fn facts<F: Scalar>(
        &self,
        checkpoint: &Checkpoint<F>,
        requests: &[locus_data::EditRequest],
        prepared: &[PreparedRequest],
        seed: u64,
    ) -> Result<Vec<Fact>> {
        let (Chosen::Rome(_, given) | Chosen::Memit(_, given)) = self else {
            return Ok(prepared.iter().map(|request| Fact::bare(request.token_request())).collect());
        };
        let mut list = given.clone().map_or_else(|| prefixes(checkpoint, seed), Ok)?;
        if matches!(self, Chosen::Memit(..)) && given.is_none() {
            list.truncate(crate::protocol::MEMIT_PREFIXES);
        }
        requests
            .iter()
            .map(|request| {
                let locus_data::EditRequest { prompt, subject, target_new, case_id, .. } = request;
                Fact::from_text(&checkpoint.tokenizer, prompt, subject, target_new, &list)
                    .with_context(|| format!("request {case_id}"))
            })
            .collect()
    }
}

/// The name of a constant that is null.
fn has_null(value: &Value) -> Option<&str> {
    let constants = value.as_object()?;
    constants
        .iter()
        .find_map(|(name, value)| if value.is_null() { Some(name.as_str()) } else { has_null(value) })
}

/// Lays `over` over `under`, table by table.
fn merge(under: &mut Value, over: Value) {
    match (under, over) {
        (Value::Object(under), Value::Object(over)) => {
            for (key, value) in over {
                merge(under.entry(key).or_insert(Value::Null), value);
            }
        }
        (under, over) => *under = over,
    }
}
