//! Where `discover` and `circuit evaluate` take their pairs from: a task by name, or a file.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use locus_circuits::edges::{Pair, StandardMetric};
use locus_data::pairs::{self, AnswerColumns, PromptPair};
use locus_data::{Records, Skipped};
use locus_gpt2::{Config, Tokenizer};
use rayon::prelude::*;
use serde_json::{Value, json};

use super::error::{Unusable, in_range};
use super::skipped::SkippedRecords;
use crate::protocol::PromptTask;

/// Number of pairs of a task by name, unless another one is asked for.
const PAIRS_OF_TASK: usize = 100;
/// Largest number of pairs.
const MOST_PAIRS: usize = 1_000_000;

#[derive(Debug, Args)]
#[group(skip)]
pub struct PairSource {
    /// Task written for the model's own tokenizer (hierarchy, agreement, ioi, greater-than), or a file as of --pairs
    #[arg(long, value_name = "NAME|FILE", required_unless_present = "pairs", conflicts_with = "pairs")]
    task: Option<PathBuf>,
    /// Pairs of prompts: JSONL of {"clean","corrupted","correct","incorrect"}, or CSV with these columns
    #[arg(long, value_name = "FILE")]
    pairs: Option<PathBuf>,
    /// Layout of the answers in the file
    #[arg(long, value_enum, default_value_t = TaskKind::Pairs)]
    task_kind: TaskKind,
    /// Put the end-of-text token before every prompt [default: nothing]
    #[arg(long)]
    pub bos: bool,
    /// Stop at the first pair that cannot be used, instead of leaving it out
    #[arg(long)]
    strict: bool,
    /// Use the first N pairs [default: 100 of a task by name, all of a file]
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum TaskKind {
    /// Answers in the columns or fields correct and incorrect
    Pairs,
    /// Spans of years, the first year's last two digits in the column label
    GreaterThan,
    /// Indirect objects, the swapped sentence in the column corrupted_hard
    Ioi,
}

/// Prompts before they are tokens.
pub enum Prompts {
    Task(PromptTask),
    File(Records<PromptPair>),
}

/// Pairs in the tokens of a model.
pub struct ModelPairs<'a> {
    pub pairs: Vec<Pair>,
    pub skipped: SkippedRecords<'a>,
}

impl PairSource {
    /// The task by name, if one was named.
    fn named(&self) -> Option<PromptTask> {
        self.task.as_ref()?.to_str()?.parse().ok()
    }

    /// The file, or the name of the task.
    fn place(&self) -> &Path {
        self.pairs.as_deref().or(self.task.as_deref()).unwrap_or(Path::new(""))
    }

    /// The file, if the pairs are in one.
    pub fn file(&self) -> Option<&Path> {
        if self.named().is_some() { None } else { Some(self.place()) }
    }

    /// The metric that the field uses for the task.
    pub fn metric(&self) -> StandardMetric {
        match (self.named(), self.task_kind) {
            (Some(task), _) => task.metric(),
            (None, TaskKind::GreaterThan) => StandardMetric::ProbDiff,
            (None, TaskKind::Pairs | TaskKind::Ioi) => StandardMetric::LogitDiff,
        }
    }

    /// Reads the file, which needs no model.
    pub fn read(&self) -> Result<Prompts> {
        if let Some(limit) = self.limit {
            in_range("--limit", limit, MOST_PAIRS)?;
        }
        if let Some(task) = self.named() {
            return Ok(Prompts::Task(task));
        }
        let answers = match self.task_kind {
            TaskKind::Pairs => AnswerColumns::Lists,
            TaskKind::GreaterThan => AnswerColumns::GreaterThan,
            TaskKind::Ioi => AnswerColumns::IndirectObject,
        };
        match pairs::read_records(self.place(), answers) {
            Err(_) if !self.place().exists() && self.task.is_some() => {
                let names: Vec<&str> = PromptTask::ALL.into_iter().map(PromptTask::name).collect();
                let (name, names) = (self.place().display(), names.join(", "));
                let why = format!(
                    "--task {name}: cannot read such a file; expected one, or the name of a task: {names}"
                );
                Err(Unusable(why).into())
            }
            read => Ok(Prompts::File(read?)),
        }
    }

    /// Tokenises the prompts and reports what was skipped. With `must_differ`, which ablation by the corrupted run needs,
    /// the prompts of a pair must.
    pub fn pairs(
        &self,
        prompts: Prompts,
        tokenizer: &Tokenizer,
        config: &Config,
        bos: bool,
        must_differ: bool,
    ) -> Result<ModelPairs<'_>> {
        let before = bos.then(|| tokenizer.end_of_text()).transpose()?;
        let checked = |mut pair: Pair| -> Result<Pair> {
            for prompt in [&mut pair.clean, &mut pair.corrupted] {
                prompt.splice(..0, before);
            }
            pair.check(config)?;
            if must_differ && pair.clean == pair.corrupted {
                let why = "clean and corrupted are one prompt, so no edge differs between their runs";
                return Err(Unusable(format!("{why}; expected two")).into());
            }
            Ok(pair)
        };
        let (mut pairs, skipped) = match prompts {
            Prompts::Task(task) => {
                // One seed for all: discovery and evaluation are to have one set of pairs.
                let pairs = task.pairs(tokenizer, self.limit.unwrap_or(PAIRS_OF_TASK), 1)?;
                let pairs = pairs.into_iter().map(checked).collect::<Result<Vec<Pair>>>();
                (pairs.with_context(|| format!("task {}", task.name()))?, self.skipped(Vec::new()))
            }
            Prompts::File(records) => {
                let mut skipped = self.skipped(records.skipped);
                let texts = records.usable;
                let tokenised: Vec<Result<Pair>> = texts
                    .par_iter()
                    .map(|(_, text)| {
                        let PromptPair { clean, corrupted, correct, incorrect, .. } = text;
                        checked(Pair::from_text(tokenizer, clean, corrupted, correct, incorrect)?)
                    })
                    .collect();
                let mut pairs = Vec::with_capacity(texts.len());
                for (pair, (record, text)) in tokenised.into_iter().zip(&texts) {
                    match pair {
                        Ok(pair) => pairs.push(pair),
                        Err(error) => skipped.add_line(*record, text.line, &error),
                    }
                }
                skipped.report(pairs.len(), self.strict)?;
                (pairs, skipped)
            }
        };
        pairs.truncate(self.limit.unwrap_or(usize::MAX));
        Ok(ModelPairs { pairs, skipped })
    }

    fn skipped(&self, unread: Vec<Skipped>) -> SkippedRecords<'_> {
        SkippedRecords::new(self.place(), unread)
    }

    /// What the pairs are, for people.
    pub fn described(&self) -> String {
        match self.named() {
            Some(task) => format!("task {}", task.name()),
            None => self.place().display().to_string(),
        }
    }

    /// What the pairs are, for titles: a file without its folder.
    pub fn title(&self) -> String {
        match self.named() {
            Some(task) => task.name().to_owned(),
            None => {
                self.place().file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned())
            }
        }
    }

    /// What the pairs are, for files.
    pub fn provenance(&self) -> Result<Value> {
        Ok(match self.named() {
            Some(task) => json!({ "task": task.name() }),
            None => {
                let path = self.place();
                let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
                let sha256 = locus_files::sha256_file(path).with_context(|| path.display().to_string())?;
                json!({ "file": name, "sha256": sha256 })
            }
        })
    }
}
