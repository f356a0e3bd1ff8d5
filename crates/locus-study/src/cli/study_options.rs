//! What a run of the study is made of, by its options: `locus reproduce`, `locus plan` and `locus run-unit` take the same.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Args;
use locus_data::StudyData;
use locus_editors::{Hparams, token_lines};
use locus_files::sha256;
use locus_gpt2::{Checkpoint, Scalar};
use locus_tasks::SplitBy;

use super::error::Unusable;
use super::global::Global;
use crate::conclusions::{TABLES, table_named};
use crate::protocol::{MAIN_DENSITIES, NeutralText, Preset, SWEEP, SWEEP_TASK, Settings, is_large};
use crate::records::SCHEDULED_TOP_K;
use crate::results::Provenance;

#[derive(Debug, Args)]
#[group(skip)]
pub struct StudyOptions {
    /// Folder with the study's 14 CSV files and hierarchy_data.json [default: the model's own data]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Text for the key statistics of X2's editors [default: text.txt beside the model, else the data's neutral text]
    #[arg(long, value_name = "FILE")]
    text: Option<PathBuf>,
    /// Tables to write, for example T1,T5 [default: all]
    #[arg(long, value_delimiter = ',', value_name = "IDS")]
    tables: Vec<String>,
    /// Recipe whose circuits T2-T7 are about: the paper's, or this project's (hard masks at a scheduled density)
    #[arg(long, default_value = SCHEDULED_TOP_K, value_name = "published|scheduled-top-k")]
    preset: String,
    /// What stays together when rows are split 80/20: rows that say nearly the same, or nothing (the published way)
    #[arg(long, default_value = "groups", value_name = "groups|rows")]
    split: String,
    /// Density targets of the size sweep, each above 0 and at most 1; 0.5 and 0.05 are always among them
    #[arg(long, value_delimiter = ',', value_name = "SHARES")]
    densities: Vec<f64>,
    /// Seeds of each mask on the tasks with all controls [default: 3; with --quick or a model of GPT-2's size 2]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..))]
    mask_seeds: Option<u8>,
    /// Tasks whose circuits are found, for example hierarchy,persona_e [default: all 14, with --quick one a family]
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    tasks: Vec<String>,
    /// Run the same code on smaller samples; still gives all tables
    #[arg(long)]
    quick: bool,
    /// On a model of GPT-2's size, edit all requests and train on whole batches [default: 48 requests, 64 rows a step]
    #[arg(long, conflicts_with = "quick")]
    uncut: bool,
}

/// All that a run of the study reads, and what it is to do with it.
pub struct StudyInputs<F> {
    pub checkpoint: Checkpoint<F>,
    pub data: StudyData,
    pub settings: Settings,
    /// Tables to write.
    pub wanted: Vec<&'static str>,
    pub provenance: Provenance,
    /// What every unit of work depends on.
    pub common: String,
    /// Files and folders that were read.
    pub read: Vec<PathBuf>,
    /// Time that reading has taken.
    pub reading: Duration,
}

impl StudyOptions {
    /// Refuses options that cannot be used, before anything is read.
    pub fn check(&self) -> Result<()> {
        wanted(&self.tables)?;
        self.settings(0).map(drop)
    }

    /// Reads the model and the data.
    pub fn inputs<F: Scalar>(&self, global: &Global) -> Result<StudyInputs<F>> {
        let begun = Instant::now();
        let wanted = wanted(&self.tables)?;
        let mut settings = self.settings(global.seed)?;
        settings.edits = wanted.iter().any(|table| ["T2", "T3", "T4", "T7", "X4"].contains(table));
        settings.compare_editors = wanted.contains(&"X2");
        settings.trace = wanted.contains(&"X3");
        if !wanted.contains(&"X1") {
            settings.pair_tasks.clear();
        }
        if !wanted.iter().any(|table| table.starts_with('T') || *table == "X4") {
            // What the other tables need of the circuits.
            settings.published_tasks.clear();
            settings.control_tasks.clear();
            settings.tasks.retain(|task| task == SWEEP_TASK && settings.compare_editors);
        }
        let folder = global.model_folder()?;
        let checkpoint = global.checkpoint::<F>()?;
        let data_folder = self.data.clone().unwrap_or_else(|| folder.join("data"));
        if !data_folder.is_dir() {
            let why =
                format!("{}: no such folder; name the study's data with --data DIR", data_folder.display());
            return Err(Unusable(why).into());
        }
        let is_cut = !self.uncut && is_large(checkpoint.model.config());
        if is_cut {
            settings = settings.cut_for_large_model();
            settings.mask_seeds = self.mask_seeds.map_or(settings.mask_seeds, usize::from);
            if self.quick && self.densities.is_empty() {
                settings.densities = MAIN_DENSITIES.to_vec();
            }
        }
        let mut data = StudyData::read(&data_folder)?;
        let text = self.text.clone().unwrap_or_else(|| folder.join("text.txt"));
        // What every unit depends on; the text is not among it, because only some of them read it.
        let data_sha256 = data.sources.clone();
        if self.text.is_some() || text.exists() {
            let read = locus_files::read_to_string(&text);
            let read = read.map_err(|e| Unusable(format!("{}: {e}", text.display())))?;
            let name = text.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
            data.sources.push((name, sha256(read.as_bytes())));
            settings.text = Some(read);
        }
        check_texts(&checkpoint, &data, &data_folder, settings.text.as_deref(), &text)?;
        if settings.compare_editors {
            let found = Hparams::for_model(checkpoint.model.config(), Some(&folder));
            // Without a file, a model of another shape than GPT-2's has none, and X2 says so.
            settings.hparams = if folder.join("hparams.toml").exists() { Some(found?) } else { found.ok() };
        }
        let model_name = if !global.model.contains('/') {
            global.model.clone()
        } else {
            folder
                .file_name()
                .map_or_else(|| global.model.clone(), |name| name.to_string_lossy().into_owned())
        };
        let data_name = if self.data.is_some() { "the given data" } else { "the model's own data" };
        let provenance = Provenance {
            version: env!("CARGO_PKG_VERSION").into(),
            seed: global.seed,
            profile: settings.profile.into(),
            model: model_name,
            model_sha256: checkpoint.model.sha256(),
            data: data_name.into(),
            data_sha256: data.sources.clone(),
            conventions: conventions(&settings, is_cut, data.neutral.is_some()),
        };
        let (version, model) = (&provenance.version, &provenance.model_sha256);
        let common = format!("{version}\n{model}\n{data_sha256:?}\n{:?}", global.dtype);
        let common = [common, settings.of_every_unit()].join("\n");
        let read = vec![text, data_folder];
        let reading = begun.elapsed();
        Ok(StudyInputs { checkpoint, data, settings, wanted, provenance, common, read, reading })
    }

    fn settings(&self, seed: u64) -> Result<Settings> {
        let preset: Preset = self.preset.parse().map_err(|why| Unusable(format!("--preset {why}")))?;
        let mut settings =
            if self.quick { Settings::quick(seed, preset) } else { Settings::full(seed, preset) };
        settings.split = match self.split.as_str() {
            "groups" => SplitBy::Groups,
            "rows" => SplitBy::Rows,
            other => {
                return Err(
                    Unusable(format!("--split {other:?} is no split; expected groups or rows")).into()
                );
            }
        };
        if let Some(density) = self.densities.iter().find(|&&density| !(density > 0.0 && density <= 1.0)) {
            let why =
                format!("--densities: {density} is not a density; expected a share above 0 and at most 1");
            return Err(Unusable(why).into());
        }
        if let Some(seeds) = self.mask_seeds {
            settings.mask_seeds = usize::from(seeds);
        }
        if !self.tasks.is_empty() {
            let known: Vec<&str> = locus_data::task_names().to_vec();
            if let Some(unknown) = self.tasks.iter().find(|task| !known.contains(&task.as_str())) {
                let why = format!("--tasks: {unknown:?} is no task; expected some of {}", known.join(", "));
                return Err(Unusable(why).into());
            }
            let named = |task: &String| self.tasks.contains(task);
            settings.tasks = known.into_iter().map(str::to_owned).filter(named).collect();
            settings.published_tasks.retain(named);
            settings.control_tasks.retain(named);
        }
        if !self.densities.is_empty() {
            settings.densities = [self.densities.as_slice(), &[SWEEP[0], SWEEP[SWEEP.len() - 1]]].concat();
            settings.densities.sort_by(|a, b| b.total_cmp(a));
            settings.densities.dedup();
        }
        Ok(settings)
    }
}

/// The options of this call that the calls of other commands share: all but the command's name, and those that say what
/// this one is to do with the run.
pub fn shared_options(arguments: impl Iterator<Item = String>, command: &str) -> Vec<String> {
    const FLAGS: [&str; 3] = ["--quiet", "--resume", "--json"];
    let with_value: &[&str] = match command {
        "plan" => &["--format", "--out"],
        _ => &["--jobs", "--threads", "--out"],
    };
    let mut options = Vec::new();
    let mut arguments =
        arguments.filter(|argument| argument != command && !FLAGS.contains(&argument.as_str()));
    while let Some(argument) = arguments.next() {
        if with_value.contains(&argument.as_str()) {
            arguments.next();
        } else if !with_value.iter().any(|name| argument.starts_with(&format!("{name}="))) {
            options.push(argument);
        }
    }
    options
}

/// The tables that `--tables` names; all of them when it names none.
pub fn wanted(ids: &[String]) -> Result<Vec<&'static str>> {
    if ids.is_empty() {
        return Ok(TABLES.to_vec());
    }
    let named = |id: &String| {
        table_named(id).ok_or_else(|| {
            Unusable(format!("--tables: {id:?} is no table; expected T1 to T7 or X1 to X4")).into()
        })
    };
    ids.iter().map(named).collect()
}

/// Checks that the neutral text, and the text for key statistics if there is one, can be used.
fn check_texts<F: Scalar>(
    checkpoint: &Checkpoint<F>,
    data: &StudyData,
    data_folder: &Path,
    text: Option<&str>,
    text_path: &Path,
) -> Result<()> {
    let refuse = |path: &Path, expected: &str| {
        Err(Unusable(format!("{}: has no text to measure on; expected {expected}", path.display())).into())
    };
    let at = |path: &Path| path.display().to_string();
    let neutral_path = data_folder.join("neutral.txt");
    // Without neutral text, the text for statistics takes its place.
    let neutral = data.neutral.as_deref().map(|neutral| (neutral, neutral_path.as_path()));
    let measured = neutral.or(text.map(|text| (text, text_path)));
    if let Some((measured, path)) = measured
        && !NeutralText::is_usable(checkpoint, measured).with_context(|| at(path))?
    {
        return refuse(path, "a line of two tokens or more");
    }
    if let Some(text) = text
        && token_lines(checkpoint, text, 1).with_context(|| at(text_path))?.is_empty()
    {
        return refuse(text_path, "lines of text");
    }
    Ok(())
}

/// Sentences that say how the numbers were made and where that differs from the published protocol; printed in the
/// report.
fn conventions(settings: &Settings, is_cut: bool, neutral: bool) -> Vec<String> {
    let split = match settings.split {
        SplitBy::Groups => {
            "Rows are split 80/20 at random in whole groups, with equal shares of the labels on both sides; minimal pairs, equal texts and hierarchy sentences about one entity are a group. Every share in T1 is measured on the held-out rows."
        }
        SplitBy::Rows => {
            "Rows are split 80/20 one by one by a seeded shuffle, so that the two rows of a minimal pair can be on different sides; every share in T1 is measured on the held-out rows."
        }
    };
    let sentences = [
        "NLLs are means per target token in nats; probabilities are exp(-NLL).",
        "Prompts carry no beginning-of-text token; targets are tokenised separately from the prompt, with a leading space.",
        split,
        "Score heads start at zero and train with dropout off (the authors had GPT-2's dropout on).",
        "Sequences are packed without padding, so there are no padding effects.",
        "Mask noise comes from a counter-based generator keyed by seed, tensor, step and index.",
        "A circuit is edited on the isolated model: block parameters outside the scope are zero, embeddings and final LayerNorm stay and are updated too, as in the authors' code.",
        "The preset `published` is the recipe of the paper with the constants of each task's published run, for at most as many epochs as the settings say; a circuit is the mask sampled after the first epoch whose density is at or below the target; the complement in T1 is that of another sample.",
        "The preset `scheduled-top-k` is ours: hard top-k masks trained at a scheduled density from weight-attribution scores; a target density is met exactly.",
    ];
    let mut conventions: Vec<String> = sentences.map(str::to_owned).to_vec();
    if settings.compare_editors && settings.text.is_some() && !neutral {
        conventions.push(
            "The data have no neutral text: X2 measures drift on the text from which the key statistics come."
                .into(),
        );
    }
    if is_cut && settings.profile != "quick" {
        let Settings { max_requests, mask_seeds, scheduled_top_k: recipe, .. } = settings;
        conventions.push(format!(
            "Cut for a model of this size: at most {max_requests} requests are edited, a step of `scheduled-top-k` has {} rows, masks on the tasks with all controls have {mask_seeds} seeds, and there is one random and one matched mask where there would be two; `--uncut` runs without these cuts.",
            recipe.batch_sequences
        ));
    }
    if settings.profile == "quick" {
        conventions.push(format!(
            "Quick profile: {} tasks, at most {} rows a task (drawn in whole groups with the labels' shares) and {} requests, shortened schedules; the published recipe is cut off after {} epochs.",
            settings.tasks.len(), settings.max_rows, settings.max_requests, settings.max_epochs
        ));
    }
    conventions
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_options_are_passed_on() {
        let line = "plan --model m --format snakemake --quick --out o --tables T1 --format=slurm --out=p";
        let options = shared_options(line.split(' ').map(str::to_owned), "plan");
        assert_eq!(options.join(" "), "--model m --quick --tables T1");
        let line =
            "reproduce --jobs 2 --model m --quick --threads=4 --resume --out o --tables T1 --json --jobs=3";
        let options = shared_options(line.split(' ').map(str::to_owned), "reproduce");
        assert_eq!(options.join(" "), "--model m --quick --tables T1");
    }
}
