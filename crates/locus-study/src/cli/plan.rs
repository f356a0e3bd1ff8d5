//! A run in parts that any number of processes can do: `locus plan` lists them, `locus run-unit` does one, `locus status`
//! says how far a folder has come. `locus reproduce --resume` then writes the report from what is there.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Result;
use clap::{Args, ValueEnum};
use locus_gpt2::{Batch, ParamMask, Scalar};
use serde::Serialize;

use super::destination::share_folder;
use super::error::Unusable;
use super::global::{Dtype, Global};
use super::output::stdout;
use super::reproduce::{check_inputs, check_out, out_folder};
use super::study_options::{StudyInputs, StudyOptions};
use super::workflow::{PrintedUnit, slurm, snakemake};
use crate::protocol::{PlannedUnit, Sizes, Status, Store, WrittenPlan, plan, run_unit};

/// Sequences and tokens of the batch on which the model is timed.
const TIMED: (usize, usize) = (8, 32);

#[derive(Debug, Args)]
#[group(skip)]
pub struct Plan {
    #[command(flatten)]
    study: StudyOptions,
    /// What to print: the units as JSON, a Snakemake workflow or a script that submits Slurm arrays
    #[arg(long, value_enum, default_value_t = Format::Json)]
    format: Format,
}

/// What `locus plan` prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    Json,
    Snakemake,
    Slurm,
}

#[derive(Debug, Serialize)]
struct PrintedPlan {
    version: &'static str,
    model_sha256: String,
    seed: u64,
    /// Options that `locus run-unit` and `locus reproduce --resume` are to be called with.
    options: Vec<String>,
    /// Estimated time of all units on this machine, in hours.
    hours: f64,
    units: Vec<PrintedUnit>,
}

impl Plan {
    pub fn run(&self, global: &Global) -> Result<()> {
        match global.dtype {
            Dtype::F32 => self.run_as::<f32>(global),
            Dtype::F64 => self.run_as::<f64>(global),
        }
    }

    fn run_as<F: Scalar>(&self, global: &Global) -> Result<()> {
        self.study.check()?;
        let inputs = self.study.inputs::<F>(global)?;
        let options = options(std::env::args().skip(1));
        let out = out_folder(global);
        let units = printed(&inputs)?;
        let mut stdout = stdout();
        match self.format {
            Format::Json => {
                let hours = units.iter().map(|unit| unit.seconds).sum::<f64>() / 3600.0;
                let plan = PrintedPlan {
                    version: env!("CARGO_PKG_VERSION"),
                    model_sha256: inputs.provenance.model_sha256,
                    seed: global.seed,
                    options,
                    hours,
                    units,
                };
                writeln!(stdout, "{}", serde_json::to_string_pretty(&plan)?)?;
            }
            Format::Snakemake => stdout.write_all(snakemake(&units, &options, &out)?.as_bytes())?,
            Format::Slurm => stdout.write_all(slurm(&units, &options, &out)?.as_bytes())?,
        }
        Ok(())
    }
}

/// The options of this call that the calls of other commands share: all but the command's name, the format and the
/// folder.
fn options(arguments: impl Iterator<Item = String>) -> Vec<String> {
    let mut options = Vec::new();
    let mut arguments = arguments.filter(|argument| argument != "plan" && argument != "--quiet");
    while let Some(argument) = arguments.next() {
        if ["--format", "--out"].contains(&argument.as_str()) {
            arguments.next();
        } else if !argument.starts_with("--format=") && !argument.starts_with("--out=") {
            options.push(argument);
        }
    }
    options
}

/// The units of a run with their estimated cost.
fn printed<F: Scalar>(inputs: &StudyInputs<F>) -> Result<Vec<PrintedUnit>> {
    let StudyInputs { checkpoint, data, settings, .. } = inputs;
    let requests = settings.requests(data);
    let count = |text: &str| Ok::<_, anyhow::Error>(checkpoint.tokenizer.encode(text)?.len());
    let mut rows = BTreeMap::new();
    for name in &settings.tasks {
        let Some(task) = data.task(name) else { continue };
        let mut tokens = 0;
        for row in &task.rows {
            tokens += count(&row.text)?;
        }
        rows.insert(name.clone(), (task.rows.len(), tokens as f64 / task.rows.len().max(1) as f64));
    }
    let mut tokens = 0;
    for request in requests {
        tokens += count(&request.full_prompt())? + count(&request.target_new)?;
    }
    let sizes = Sizes {
        params: ParamMask::n_maskable(checkpoint.model.config()),
        rows,
        request_tokens: tokens as f64 / requests.len().max(1) as f64,
        requests: requests.len(),
    };
    let flops_per_second = flops_per_second(inputs, sizes.params)?;
    let print = |unit: PlannedUnit| {
        let flops = sizes.flops(&unit, settings);
        PrintedUnit { name: unit.name, needs: unit.needs, flops, seconds: flops / flops_per_second }
    };
    Ok(plan(settings, checkpoint.model.config(), requests.len()).into_iter().map(print).collect())
}

/// Pace of the blocks of the model on this machine, measured on a small batch.
fn flops_per_second<F: Scalar>(inputs: &StudyInputs<F>, params: usize) -> Result<f64> {
    let model = &inputs.checkpoint.model;
    let (n_sequences, n_tokens) = TIMED;
    let n_tokens = n_tokens.min(model.config().n_positions);
    let token = |i: usize| (i % model.config().vocab_size) as u32;
    let sequences: Vec<Vec<u32>> =
        (0..n_sequences).map(|s| (0..n_tokens).map(|t| token(s * n_tokens + t)).collect()).collect();
    let batch = Batch::new(model.config(), &sequences)?;
    let mut best = f64::INFINITY;
    for _ in 0..3 {
        let begun = Instant::now();
        drop(model.run(&batch).hidden());
        best = best.min(begun.elapsed().as_secs_f64());
    }
    Ok(2.0 * (n_sequences * n_tokens * params) as f64 / best.max(1e-9))
}

#[derive(Debug, Args)]
#[group(skip)]
pub struct RunUnit {
    /// Name of the unit, as `locus plan` prints it
    #[arg(value_name = "UNIT")]
    unit: String,
    #[command(flatten)]
    study: StudyOptions,
}

impl RunUnit {
    pub fn run(&self, global: &Global) -> Result<()> {
        match global.dtype {
            Dtype::F32 => self.run_as::<f32>(global),
            Dtype::F64 => self.run_as::<f64>(global),
        }
    }

    fn run_as<F: Scalar>(&self, global: &Global) -> Result<()> {
        self.study.check()?;
        let out = out_folder(global);
        check_out(&out)?;
        let StudyInputs { checkpoint, data, settings, common, read, .. } = self.study.inputs::<F>(global)?;
        check_inputs(&out, &read)?;
        let n_requests = settings.requests(&data).len();
        let units = plan(&settings, checkpoint.model.config(), n_requests);
        if !units.iter().any(|unit| unit.name == self.unit) {
            let why =
                format!("{:?} is no unit of this run; `locus plan` lists its {}", self.unit, units.len());
            return Err(Unusable(why).into());
        }
        let store = Store::new(&out, true, common);
        let _lock = share_folder(&out)?;
        run_unit(&checkpoint, &data, &settings, &store, &global.progress(), &self.unit)
    }
}

#[derive(Debug, Args)]
#[group(skip)]
pub struct StatusArgs {
    /// Folder of a run
    #[arg(value_name = "DIR")]
    run: PathBuf,
}

#[derive(Debug, Serialize)]
struct PrintedStatus {
    done: usize,
    running: Vec<String>,
    left: Vec<String>,
    report: bool,
}

impl StatusArgs {
    /// Prints how many units are done, and which are being done and left.
    pub fn run(&self, global: &Global) -> Result<()> {
        let status = status(&self.run)?;
        let mut out = stdout();
        if global.json {
            writeln!(out, "{}", serde_json::to_string(&status)?)?;
            return Ok(());
        }
        let PrintedStatus { done, running, left, report } = status;
        let n = done + running.len() + left.len();
        writeln!(out, "{done} of {n} units done, {} running, {} left", running.len(), left.len())?;
        for (names, what) in [(running, "running"), (left, "left")] {
            for name in names {
                writeln!(out, "{what}  {name}")?;
            }
        }
        if report {
            writeln!(out, "report: {}", self.run.join("report.html").display())?;
        }
        Ok(())
    }
}

fn status(run: &Path) -> Result<PrintedStatus> {
    let plan = WrittenPlan::read(run).map_err(|error| Unusable(format!("{error:#}: no run of the study")))?;
    let units = plan.status(run)?;
    let names = |wanted| {
        units.iter().filter(|(_, status)| *status == wanted).map(|(name, _)| (*name).to_owned()).collect()
    };
    let done: Vec<String> = names(Status::Done);
    Ok(PrintedStatus {
        done: done.len(),
        running: names(Status::Running),
        left: names(Status::Left),
        report: run.join("report.html").exists(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_options_are_passed_on() {
        let line = "plan --model m --format snakemake --quick --out o --tables T1 --format=slurm --out=p";
        let options = options(line.split(' ').map(str::to_owned));
        assert_eq!(options.join(" "), "--model m --quick --tables T1");
    }
}
