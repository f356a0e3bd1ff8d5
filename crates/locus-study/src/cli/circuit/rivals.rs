//! `locus circuit rivals`: circuits of parameters that all do one task and share as little as they can.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;
use locus_circuits::ScheduledTopK;
use locus_data::{Labelled, StudyData, labelled, task_names};
use locus_files::{sha256_file, write_atomically};
use locus_gpt2::Scalar;
use locus_metrics::Interval;
use locus_tasks::{SplitOptions, Task};
use serde_json::{Value, json};

use super::super::destination::{check_folder, lock_folder};
use super::super::error::{Unusable, in_range};
use super::super::global::{Dtype, Global};
use super::super::output::stdout;
use crate::protocol::{RivalFolder, RivalReport, RivalSettings, SWEEP, find_rivals};

/// Largest number of rivals, and of steps.
const MOST: usize = 100_000;

#[derive(Debug, Args)]
#[group(skip)]
pub struct Rivals {
    /// Task of the study, for example hierarchy, blimp_dna1 or persona_e, or a CSV file with the columns text and label
    #[arg(long, value_name = "NAME|FILE")]
    task: PathBuf,
    /// Folder with the study's 14 CSV files and hierarchy_data.json [default: the model's own data]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Number of circuits
    #[arg(long, default_value_t = 5, value_name = "N")]
    rivals: usize,
    /// Share of the block parameters that each keeps
    #[arg(long, default_value_t = 0.05, value_name = "SHARE")]
    density: f64,
    /// What a circuit pays that is all shared with one found before, in units of the loss (nats)
    #[arg(long, default_value_t = 2.0, value_name = "WEIGHT")]
    penalty: f64,
    /// Training steps from one density of the study's sweep to the next, half of them at the density
    #[arg(long, default_value_t = ScheduledTopK::default().steps_per_target, value_name = "N")]
    steps: usize,
}

/// The rows of a task, and what they are for files.
struct Rows {
    name: String,
    rows: Vec<Labelled>,
    source: Value,
}

impl Rivals {
    pub fn run(&self, global: &Global) -> Result<()> {
        match global.dtype {
            Dtype::F32 => self.run_as::<f32>(global),
            Dtype::F64 => self.run_as::<f64>(global),
        }
    }

    fn run_as<F: Scalar>(&self, global: &Global) -> Result<()> {
        in_range("--rivals", self.rivals, MOST)?;
        in_range("--steps", self.steps, MOST)?;
        if !(self.density > 0.0 && self.density <= 1.0) {
            let why = format!("--density is {}; expected a share above 0 and at most 1", self.density);
            return Err(Unusable(why).into());
        }
        if !(self.penalty >= 0.0 && self.penalty.is_finite()) {
            let why = format!("--penalty is {}; expected a number from 0", self.penalty);
            return Err(Unusable(why).into());
        }
        if let Some(out) = &global.out {
            check_folder("--out", out, &["rivals.json"], &["work"])?;
        }
        let Rows { name, rows, source } = self.rows(global)?;
        let checkpoint = global.checkpoint::<F>()?;
        let split = SplitOptions { seed: global.seed, ..SplitOptions::default() };
        let task = Task::from_rows(&checkpoint, &name, &rows, split)?;

        let above = SWEEP.into_iter().filter(|&density| density > self.density);
        let settings = RivalSettings {
            rivals: self.rivals,
            densities: above.chain([self.density]).collect(),
            penalty: self.penalty,
            trainer: ScheduledTopK {
                steps_per_target: self.steps,
                hold: self.steps / 2,
                ..ScheduledTopK::default()
            },
            seed: global.seed,
        };
        let provenance = json!({
            "task": source, "density": self.density, "penalty": self.penalty, "steps": self.steps,
            "seed": global.seed, "model_sha256": task.model.sha256(), "version": env!("CARGO_PKG_VERSION"),
        });
        let _lock = global.out.as_deref().map(lock_folder).transpose()?;
        let folder = global.out.as_deref().map(|out| {
            let common = format!("{provenance}\n{:?}", global.dtype);
            RivalFolder::new(out, common, provenance.to_string())
        });
        let steps = self.rivals * settings.densities.len() * self.steps;
        let stage = global.progress().stage("steps", steps);
        let report = find_rivals(&task, &settings, folder.as_ref(), &mut |number, at| {
            stage.message(&format!("circuit {number}, density {:.3}", at.density));
            stage.inc();
        })?;
        stage.finish();
        if let Some(out) = &global.out {
            let mut file = json!(report);
            file["provenance"] = provenance;
            let text = serde_json::to_string_pretty(&file)? + "\n";
            write_atomically(out.join("rivals.json"), text.as_bytes())?;
        }
        print(&report, global)
    }

    /// Reads the rows of a task by name, or of a file.
    fn rows(&self, global: &Global) -> Result<Rows> {
        let sha256 = |path: &Path| sha256_file(path).with_context(|| path.display().to_string());
        let named = self.task.to_str().filter(|name| task_names().contains(name));
        let Some(name) = named else {
            if !self.task.exists() {
                let (task, names) = (self.task.display(), task_names().join(", "));
                let why = format!("--task {task}: no such file; expected a CSV file, or one of {names}");
                return Err(Unusable(why).into());
            }
            let rows = labelled::read(&self.task)?;
            let text =
                |part: Option<&std::ffi::OsStr>| part.unwrap_or_default().to_string_lossy().into_owned();
            let source = json!({ "file": text(self.task.file_name()), "sha256": sha256(&self.task)? });
            return Ok(Rows { name: text(self.task.file_stem()), rows, source });
        };
        let folder = match &self.data {
            Some(data) => data.clone(),
            None => global.model_folder()?.join("data"),
        };
        if !folder.is_dir() {
            let why = format!("{}: no such folder; name the study's data with --data DIR", folder.display());
            return Err(Unusable(why).into());
        }
        let data = StudyData::read(&folder)?;
        let task = data.tasks.into_iter().find(|task| task.name == name).expect("a task of the study");
        // The files of tasks are the first of the sources, in the order of the names.
        let at = task_names().iter().position(|known| *known == name).expect("a name of the study");
        let (file, sha256) = &data.sources[at];
        Ok(Rows { name: task.name, rows: task.rows, source: json!({ "file": file, "sha256": sha256 }) })
    }
}

fn print(report: &RivalReport, global: &Global) -> Result<()> {
    let mut out = stdout();
    if global.json {
        writeln!(out, "{}", serde_json::to_string(report)?)?;
        return Ok(());
    }
    let RivalReport { task, held_out, accuracy_full, rivals, overlaps, floor } = report;
    writeln!(
        out,
        "{task}: measured on {held_out} held-out rows; accuracy of the full model {accuracy_full:.3}"
    )?;
    writeln!(out, "{:<8} {:>10} {:>22} {:>22}", "circuit", "parameters", "agreement", "accuracy")?;
    for (i, rival) in rivals.iter().enumerate() {
        let (agreement, accuracy) = (interval(&rival.agreement), interval(&rival.accuracy));
        writeln!(out, "{:<8} {:>10} {agreement:>22} {accuracy:>22}", i + 1, rival.parameters)?;
    }
    if overlaps.is_empty() {
        return Ok(());
    }
    writeln!(
        out,
        "{:<8} {:>9} {:>10} {:>18} {:>8} {:>9} {:>9}",
        "overlap", "Jaccard", "by chance", "95 % of chance", "lift", "matched", "beyond"
    )?;
    for overlap in overlaps {
        let name = format!("{} and {}", overlap.circuits[0], overlap.circuits[1]);
        let range = overlap.by_chance.interval;
        let range = range.map_or_else(undefined, |(low, high)| format!("{low:.4} to {high:.4}"));
        let [jaccard, chance, lift, matched, beyond] = [
            overlap.jaccard,
            overlap.by_chance.jaccard,
            overlap.lift,
            overlap.matched,
            overlap.beyond_matched,
        ]
        .map(|value| value.map_or_else(undefined, |value| format!("{value:.3}")));
        writeln!(out, "{name:<8} {jaccard:>9} {chance:>10} {range:>18} {lift:>8} {matched:>9} {beyond:>9}")?;
    }
    let floor = floor.map_or_else(undefined, |floor| format!("{floor:.3}"));
    writeln!(
        out,
        "floor: rivals share {floor} beyond matched masks (0 = chance, 1 = one circuit), mean over pairs"
    )?;
    Ok(())
}

fn undefined() -> String {
    "undefined".into()
}

fn interval(of: &Interval) -> String {
    format!("{:.3} [{:.3}, {:.3}]", of.value, of.low, of.high)
}
