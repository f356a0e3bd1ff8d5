//! A run in parts that any number of processes can do: `locus plan` lists them, `locus run-unit` does one, `locus status`
//! says how far a folder has come. `locus reproduce --resume` then writes the report from what is there.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Result;
use clap::{Args, ValueEnum};
use locus_gpt2::Scalar;
use serde::Serialize;

use super::destination::share_folder;
use super::error::Unusable;
use super::estimate::Estimated;
use super::global::{Dtype, Global};
use super::memory::peak_memory;
use super::output::{byte_size, note, stdout};
use super::reproduce::{check_inputs, check_out, out_folder};
use super::study_options::{StudyInputs, StudyOptions, shared_options};
use super::workflow::{PrintedUnit, slurm, snakemake};
use crate::protocol::{PlannedUnit, Status, Store, WrittenPlan, plan, run_unit};

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
    /// Estimated time of all units in one process on this machine, in hours.
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
        let options = shared_options(std::env::args().skip(1), "plan");
        let out = out_folder(global);
        let estimated = Estimated::new(&inputs)?;
        let all: Vec<usize> = (0..estimated.units.len()).collect();
        let hours = estimated.in_one_process(&all).left(|_| false, 0.0) / 3600.0;
        let print = |unit: usize| {
            let PlannedUnit { name, needs, .. } = estimated.units[unit].clone();
            let flops = estimated.sizes.flops(&estimated.units[unit], &inputs.settings);
            let (seconds, memory_bytes) = (estimated.alone(unit), estimated.memory[unit]);
            PrintedUnit { name, needs, flops, seconds, memory_bytes }
        };
        let units: Vec<PrintedUnit> = all.iter().map(|&unit| print(unit)).collect();
        let mut stdout = stdout();
        match self.format {
            Format::Json => {
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
        let begun = Instant::now();
        run_unit(&checkpoint, &data, &settings, &store, &global.progress(), &self.unit)?;
        if let (false, Some(bytes)) = (global.quiet, peak_memory()) {
            let (seconds, memory) = (begun.elapsed().as_secs_f64(), byte_size(bytes));
            note(&format!("{}: {seconds:.1} s, {memory} of memory at the peak", self.unit));
        }
        Ok(())
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
