//! The options that choose an editor, its constants and its key statistics.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use clap::Args;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use locus_editors::{
    Editor, Error, Hparams, KeyCovariance, KeyMoments, KeyStatistics, Memit, PREFIXES, renamed,
};
use locus_gpt2::{Checkpoint, Config, Scalar};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::error::{Unusable, in_range};
use super::global::Global;
use super::stats::{MOST_TOKENS, tokenise};
use crate::protocol::{Constants, EDITORS, NamedEditor, Preparation, prefixes};

#[derive(Debug, Args)]
pub struct EditorArgs {
    /// Editor
    #[arg(long, value_parser = editor_names())]
    editor: &'static NamedEditor,
    /// The editor's constants, TOML or JSON; see --print-config
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Key statistics for ROME and MEMIT: a file of `locus stats`, or a published .npz for an editor of one layer
    #[arg(long, value_name = "FILE", conflicts_with = "text")]
    stats: Option<PathBuf>,
    /// Text to collect key statistics from, line by line, when there is no --stats file
    #[arg(long, value_name = "FILE")]
    text: Option<PathBuf>,
    /// Minimum number of tokens to read from --text
    #[arg(long, value_name = "N", default_value_t = 100_000, requires = "text")]
    tokens: usize,
    /// Give facts about one subject one target vector (MEMIT-Merge; memit, alpha-edit and emmet)
    #[arg(long)]
    merge: bool,
}

/// Several editors with their constants for the model, which share key statistics.
#[derive(Debug, Args)]
pub struct EditorsArgs {
    /// Editors, separated by commas
    #[arg(
        long = "editor",
        value_parser = editor_names(),
        value_delimiter = ',',
        default_value = "ft-l,r-rome,memit,alpha-edit",
        value_name = "NAME,..."
    )]
    editors: Vec<&'static NamedEditor>,
    /// Key statistics for ROME and MEMIT: a file of `locus stats`, or a published .npz for editors of one layer
    #[arg(long, value_name = "FILE", conflicts_with = "text")]
    stats: Option<PathBuf>,
    /// Text to collect key statistics from, line by line [default: text.txt beside the model]
    #[arg(long, value_name = "FILE")]
    text: Option<PathBuf>,
    /// Minimum number of tokens to read from the text
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    tokens: usize,
}

impl EditorsArgs {
    /// Files that the editors are made from.
    pub fn inputs(&self) -> impl Iterator<Item = &Path> {
        [&self.stats, &self.text].into_iter().filter_map(|path| path.as_deref())
    }

    /// Each editor with its options and constants.
    pub fn chosen(&self, global: &Global) -> Result<Vec<(EditorArgs, ChosenEditor)>> {
        let beside = Some(global.model_folder()?.join("text.txt"))
            .filter(|path| self.stats.is_none() && path.is_file());
        let text = self.text.clone().or(beside);
        let each = |(i, editor): (usize, &&'static NamedEditor)| {
            if self.editors[..i].iter().any(|other| other.name == editor.name) {
                return Err(Unusable(format!("--editor names {} twice", editor.name)).into());
            }
            let args = EditorArgs {
                editor,
                config: None,
                stats: None,
                text: None,
                tokens: self.tokens,
                merge: false,
            };
            let chosen = args.chosen(global)?;
            if chosen.needs_statistics() && self.stats.is_none() && text.is_none() {
                let name = editor.name;
                let why = format!(
                    "--editor {name} needs key statistics: --stats FILE (see `locus stats`) or --text FILE"
                );
                return Err(Unusable(why).into());
            }
            Ok((EditorArgs { stats: self.stats.clone(), text: text.clone(), ..args }, chosen))
        };
        self.editors.iter().enumerate().map(each).collect()
    }

    /// Key statistics of all layers that the editors need; none when they need none.
    pub fn moments<F: Scalar>(
        chosen: &[(EditorArgs, ChosenEditor)],
        global: &Global,
        checkpoint: &Checkpoint<F>,
    ) -> Result<BTreeMap<usize, KeyMoments>> {
        let layers: BTreeSet<usize> =
            chosen.iter().flat_map(|(_, editor)| editor.constants.statistics().0).collect();
        match chosen.first() {
            Some((args, _)) if !layers.is_empty() => {
                args.moments(global, checkpoint, &layers.into_iter().collect::<Vec<_>>())
            }
            _ => Ok(BTreeMap::new()),
        }
    }
}

/// The names of the table of editors, as values of `--editor`.
fn editor_names() -> impl TypedValueParser<Value = &'static NamedEditor> {
    let names = EDITORS.iter().map(|editor| PossibleValue::new(editor.name).help(editor.about));
    PossibleValuesParser::new(names).try_map(|name| NamedEditor::find(&name).map_err(|e| e.to_string()))
}

/// The editor that was asked for, with its constants read and checked.
pub struct ChosenEditor {
    constants: Constants,
    /// Prefixes that the file of `--config` gives besides the constants.
    prefixes: Option<Vec<String>>,
}

impl EditorArgs {
    /// The name of the editor.
    pub fn name(&self) -> &'static str {
        self.editor.name
    }

    /// SHA-256 of the file that key statistics come from, and the number of tokens read of a text.
    pub fn statistics_identity(&self) -> Result<Value> {
        let Some(path) = self.stats.as_ref().or(self.text.as_ref()) else { return Ok(Value::Null) };
        let sha256 =
            locus_files::sha256_file(path).map_err(|e| wrong(&format!("{}: {e}", path.display())))?;
        Ok(json!({ "sha256": sha256, "tokens": self.text.is_some().then_some(self.tokens) }))
    }

    /// Files that the editor is made from.
    pub fn inputs(&self) -> impl Iterator<Item = &Path> {
        [&self.config, &self.stats, &self.text].into_iter().filter_map(|path| path.as_deref())
    }

    /// Text that key statistics are collected from, if it was given.
    pub fn text(&self) -> Option<&Path> {
        self.text.as_deref()
    }

    /// The chosen editor with the constants of `--config`, or else the editor's constants for the model.
    pub fn chosen(&self, global: &Global) -> Result<ChosenEditor> {
        let config = Config::read(&global.model_folder()?.join("config.json"))?;
        let chosen = || -> Result<ChosenEditor> {
            let hparams = || self.hparams(&config, global);
            let chosen = self.read((self.editor.constants)(&hparams, global.seed)?)?;
            if let Constants::Rome(constants) = &chosen.constants {
                let (given, named) = (constants.variant.name(), self.editor.name);
                if given != named {
                    return Err(
                        Unusable(format!("the constants are for {given}; --editor is {named}")).into()
                    );
                }
            }
            if let Constants::Memit(constants) = &chosen.constants
                && self.editor.name == "emmet"
                && constants.name() != "emmet"
            {
                let why =
                    "emmet takes no null_space and a lambda of 0; with another it is alpha-edit or memit";
                return Err(Unusable(why.into()).into());
            }
            chosen.constants.check(&config)?;
            Ok(chosen)
        };
        let mut chosen = match &self.config {
            Some(path) => chosen().with_context(|| path.display().to_string())?,
            None => chosen()?,
        };
        let without_effect = |option: &str, needs: &str| {
            let name = self.editor.name;
            Unusable(format!("{option} has no effect with --editor {name}; expected {needs}"))
        };
        if chosen.constants.statistics().0.is_empty() {
            for (option, given) in [("--stats", self.stats.is_some()), ("--text", self.text.is_some())] {
                if given {
                    return Err(without_effect(option, "an editor that uses key statistics").into());
                }
            }
        }
        match &mut chosen.constants {
            Constants::Memit(constants) => constants.merge |= self.merge,
            _ if self.merge => return Err(without_effect("--merge", "memit, alpha-edit or emmet").into()),
            _ => {}
        }
        in_range("--tokens", self.tokens, MOST_TOKENS)?;
        Ok(chosen)
    }

    /// The model's hyper-parameters. When none are known, `--config` must name the layers.
    fn hparams(&self, config: &Config, global: &Global) -> Result<Hparams> {
        let given = self.given()?;
        let named = given.get("layer").or(given.get("layers")).is_some();
        match Hparams::for_model(config, Some(&global.model_folder()?)) {
            Err(Error::UnknownModel { .. }) if named => Ok(Hparams::default()),
            found => Ok(found?),
        }
    }

    /// Constants with those of `--config` in place of the defaults.
    fn read(&self, default: Constants) -> Result<ChosenEditor> {
        let mut prefixes = None;
        let constants = match default {
            // All fields have defaults, so the file is parsed directly, and an error can name the line of an unknown
            // field. That it is a table at all is seen before.
            Constants::StudyFt(default) => {
                self.given()?;
                Constants::StudyFt(self.parse()?.unwrap_or(default))
            }
            Constants::Ft(default) => Constants::Ft(self.overlay(default, self.given()?)?),
            Constants::Lora(default) => Constants::Lora(self.overlay(default, self.given()?)?),
            Constants::Rome(default) => {
                let given = self.split_prefixes(&mut prefixes)?;
                Constants::Rome(self.overlay(default, given)?)
            }
            Constants::UltraEdit(default) => Constants::UltraEdit(self.overlay(default, self.given()?)?),
            Constants::Memit(default) => {
                let given = self.split_prefixes(&mut prefixes)?;
                Constants::Memit(self.overlay(default, given)?)
            }
        };
        Ok(ChosenEditor { constants, prefixes })
    }

    /// The table of `--config` without `prefixes`, which may be given besides the constants.
    fn split_prefixes(&self, prefixes: &mut Option<Vec<String>>) -> Result<Value> {
        let mut given = self.given()?;
        if let Some(value) = given.as_object_mut().and_then(|given| given.remove("prefixes")) {
            let read = serde_json::from_value(value).map_err(|e| wrong(&format!("prefixes: {e}")))?;
            *prefixes = Some(read);
        }
        Ok(given)
    }

    /// The constants of the table `given`, and those of `default` for the rest.
    fn overlay<T: Serialize + DeserializeOwned>(&self, default: T, given: Value) -> Result<T> {
        let mut all = serde_json::to_value(default)?;
        if let Some(name) = not_a_table(&all, &given) {
            return Err(wrong(&format!("{name} is no table; expected a table of constants")));
        }
        merge(&mut all, given);
        serde_json::from_value(all).map_err(|e| wrong(&e.to_string()))
    }

    fn given(&self) -> Result<Value> {
        let given = self.parse()?.unwrap_or_else(|| Value::Object(Default::default()));
        let Some(names) = given.as_object() else {
            return Err(wrong("expected a table of constants"));
        };
        if let Some(why) = renamed(names.keys()) {
            return Err(wrong(&why));
        }
        // A TOML NaN has become null, because JSON has none.
        match has_null(&given) {
            Some(name) => Err(wrong(&format!("{name} is not a number"))),
            None => Ok(given),
        }
    }

    /// The file of `--config`, if there is one.
    fn parse<T: DeserializeOwned>(&self) -> Result<Option<T>> {
        let Some(path) = &self.config else { return Ok(None) };
        let text = locus_files::read_to_string(path).map_err(|e| wrong(&e.to_string()))?;
        // TOML's messages may span several lines.
        let parsed: Result<T, String> =
            if path.extension().is_some_and(|ext| ext.eq_ignore_ascii_case("json")) {
                serde_json::from_str(&text).map_err(|e| e.to_string())
            } else {
                toml::from_str(&text).map_err(|e| e.message().replace('\n', " "))
            };
        parsed.map(Some).map_err(|why| wrong(&why))
    }

    /// Key statistics of the layers, from `--stats` or `--text`.
    fn moments<F: Scalar>(
        &self,
        global: &Global,
        checkpoint: &Checkpoint<F>,
        layers: &[usize],
    ) -> Result<BTreeMap<usize, KeyMoments>> {
        Ok(match (&self.stats, &self.text) {
            (Some(path), _) if path.extension().is_some_and(|ext| ext.eq_ignore_ascii_case("npz")) => {
                let [layer] = layers else {
                    let why =
                        format!("{}: an .npz holds one layer; this editor needs {layers:?}", path.display());
                    return Err(Unusable(why).into());
                };
                BTreeMap::from([(*layer, KeyMoments::read_npz(path)?)])
            }
            (Some(path), _) => {
                let (statistics, provenance) = KeyStatistics::read(path)?;
                check_origin(&provenance["model_sha256"], global, checkpoint)
                    .with_context(|| self.place_of_statistics())?;
                statistics.layers
            }
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
        })
    }

    /// The file that key statistics come from, for messages.
    fn place_of_statistics(&self) -> String {
        let file = self.stats.as_ref().or(self.text.as_ref());
        file.map(|file| file.display().to_string()).unwrap_or_default()
    }
}

impl ChosenEditor {
    /// The constants as the text of a file for `--config`.
    pub fn print(&self) -> Result<String> {
        let constants = toml::to_string(&self.constants)?;
        if self.constants.prefixes() == 0 {
            return Ok(constants);
        }
        let list: Vec<String> = PREFIXES.iter().map(|prefix| format!("  {prefix:?},")).collect();
        Ok(format!(
            "# Texts put before the prompt when keys and values are found. Without the list: these for GPT-2's\n\
             # tokenizer, drawn from the model by --seed for others.\n# prefixes = [\n# {}\n# ]\n{constants}",
            list.join("\n# ")
        ))
    }

    /// The constants, for the provenance of a patch.
    pub fn provenance(&self) -> Result<Value> {
        Ok(serde_json::to_value(&self.constants)?)
    }

    /// Whether the editor needs key statistics.
    pub fn needs_statistics(&self) -> bool {
        !self.constants.statistics().0.is_empty()
    }

    /// Whether the editor is made to write many facts at once.
    pub fn writes_many(&self) -> bool {
        matches!(self.constants, Constants::Memit(_) | Constants::UltraEdit(_))
    }

    /// Makes the editor, with its key statistics.
    pub fn editor<F: Scalar>(
        &self,
        args: &EditorArgs,
        global: &Global,
        checkpoint: &Checkpoint<F>,
    ) -> Result<Box<dyn Editor<F>>> {
        let (layers, _) = self.constants.statistics();
        let moments =
            if layers.is_empty() { BTreeMap::new() } else { args.moments(global, checkpoint, &layers)? };
        self.editor_from(args, checkpoint, &moments)
    }

    /// Makes the editor from key statistics of its layers.
    pub fn editor_from<F: Scalar>(
        &self,
        args: &EditorArgs,
        checkpoint: &Checkpoint<F>,
        moments: &BTreeMap<usize, KeyMoments>,
    ) -> Result<Box<dyn Editor<F>>> {
        let (layers, ridge) = self.constants.statistics();
        let covariance = |layer: &usize| {
            let moments = moments.get(layer).ok_or_else(|| {
                let have: Vec<&usize> = moments.keys().collect();
                Unusable(format!("the key statistics are of layers {have:?}; expected layer {layer} too"))
            })?;
            moments.check(checkpoint.model.config())?;
            Ok((*layer, Arc::new(moments.covariance(ridge)?)))
        };
        let covariances: Result<BTreeMap<usize, Arc<KeyCovariance>>> =
            layers.iter().map(covariance).collect();
        self.constants.clone().editor(covariances.with_context(|| args.place_of_statistics())?)
    }

    /// The constants of MEMIT and AlphaEdit; `None` for other editors.
    pub fn memit(&self) -> Option<&Memit> {
        match &self.constants {
            Constants::Memit(constants) => Some(constants),
            _ => None,
        }
    }

    /// What requests are made ready with: prefixes for editors that need a subject, and with `before` the end-of-text
    /// token before every prompt.
    pub fn preparation<'a, F: Scalar>(
        &self,
        checkpoint: &'a Checkpoint<F>,
        seed: u64,
        before: bool,
    ) -> Result<Preparation<'a>> {
        let most = self.constants.prefixes();
        let list = match &self.prefixes {
            _ if most == 0 => None,
            Some(given) => Some(given.clone()),
            None => Some(prefixes(checkpoint, seed)?.into_iter().take(most).collect()),
        };
        let Checkpoint { model, tokenizer } = checkpoint;
        let before = before.then(|| tokenizer.end_of_text()).transpose()?;
        Ok(Preparation { tokenizer, config: model.config(), prefixes: list, before })
    }
}

/// Checks that key statistics are of this model: `named` is the hash that their file names, if it names one. Weights are
/// hashed in the type that they run in, and statistics of either type serve both.
fn check_origin<F: Scalar>(named: &Value, global: &Global, checkpoint: &Checkpoint<F>) -> Result<()> {
    let own = checkpoint.model.sha256();
    let is = |sha256: &str| *named == *sha256;
    if named.is_null() || is(&own) {
        return Ok(());
    }
    let others = [global.checkpoint::<f32>()?.model.sha256(), global.checkpoint::<f64>()?.model.sha256()];
    if others.iter().any(|sha256| is(sha256)) {
        return Ok(());
    }
    Err(Unusable(format!("these key statistics are of a model with SHA-256 {named}; this one has {own}"))
        .into())
}

fn wrong(why: &str) -> anyhow::Error {
    Unusable(why.to_owned()).into()
}

/// The name of the first constant that is a table in `all` and something else in `given`.
fn not_a_table<'a>(all: &Value, given: &'a Value) -> Option<&'a str> {
    let (all, given) = (all.as_object()?, given.as_object()?);
    let table = |name: &str| all.get(name).is_some_and(Value::is_object);
    given.iter().find(|(name, value)| table(name) && !value.is_object()).map(|(name, _)| name.as_str())
}

/// The name of the first constant that is null.
fn has_null(value: &Value) -> Option<&str> {
    let constants = value.as_object()?;
    constants
        .iter()
        .find_map(|(name, value)| if value.is_null() { Some(name.as_str()) } else { has_null(value) })
}

/// Replaces values of `under` by those of `over`, table by table.
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
