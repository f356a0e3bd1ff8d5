//! `locus reproduce`: runs the study and writes its report.

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Args;
use locus_files::remove_abandoned;
use locus_gpt2::Scalar;

use super::destination::{check_folder, lock_folder};
use super::error::Unusable;
use super::estimate::Estimated;
use super::global::{Dtype, Global};
use super::jobs::{fitting, run_units};
use super::memory::available_memory;
use super::output::note;
use super::study_options::{StudyInputs, StudyOptions, shared_options};
use crate::conclusions::conclude;
use crate::protocol::{Preset, Settings, Store, run};
use crate::report;
use crate::results::Results;

#[derive(Debug, Args)]
#[group(skip)]
pub struct Reproduce {
    #[command(flatten)]
    study: StudyOptions,
    /// Reuse the finished parts of an identical earlier run in the same --out
    #[arg(long)]
    resume: bool,
    /// Processes that share the work, or fewer if memory or threads are short; the report does not depend on it
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u8).range(1..))]
    jobs: u8,
}

impl Reproduce {
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
        let inputs = self.study.inputs::<F>(global)?;
        check_inputs(&out, &inputs.read)?;
        let mut store = Store::new(&out, self.resume, inputs.common.clone());
        let mut progress = global.progress();
        let mut lock = lock_folder(&out)?;
        // Nothing needs an estimate that nobody sees; one that cannot be made does not stop a run.
        let estimated = match self.jobs {
            1 if global.quiet => None,
            1 => Estimated::new(&inputs).ok(),
            _ => Some(Estimated::new(&inputs)?),
        };
        if let Some(estimated) = estimated {
            let jobs = self.processes(&estimated)?;
            if jobs.is_some() {
                if !self.resume {
                    store.forget(&estimated.units)?;
                }
                // Results in the folder are those of the processes from here on.
                store = Store::new(&out, true, inputs.common.clone());
            }
            let left = estimated.left(&store);
            let estimate = match jobs {
                Some(_) => estimated.in_processes(&left),
                None => estimated.in_one_process(&left),
            };
            if !global.quiet {
                let seconds = estimate.left(|_| false, 0.0) / jobs.map_or(1, |(n, _)| n) as f64;
                note(&estimated.in_words(left.len(), seconds));
            }
            if let Some(jobs) = jobs {
                drop(lock);
                let options = shared_options(std::env::args().skip(1), "reproduce");
                run_units(&estimated, left, jobs, &options, &out, global)?;
                lock = lock_folder(&out)?;
            } else {
                progress = progress.estimating(estimate);
            }
        }
        let _lock = lock;
        let StudyInputs { checkpoint, data, settings, wanted, provenance, .. } = inputs;
        let progress = progress.of_steps(steps(&settings));
        let records = run(&checkpoint, &data, &settings, &store, &progress)?;
        let stage = progress.stage("tables", 2);
        let results = conclude(provenance, records, &wanted);
        stage.inc();
        let paths = report::write(&out, &results)?;
        stage.inc();
        stage.finish();
        print_claims(&results, &paths, global.json)
    }
}

impl Reproduce {
    /// Number of processes and the threads of each; `None` where one process does all.
    fn processes(&self, estimated: &Estimated) -> Result<Option<(usize, usize)>> {
        if self.jobs == 1 {
            return Ok(None);
        }
        let needed = estimated.most_memory();
        let threads = rayon::current_num_threads();
        let (n, threads, why) = fitting(self.jobs.into(), threads, needed, available_memory())?;
        if let Some(why) = why {
            note(&why);
        }
        Ok((n > 1).then_some((n, threads)))
    }
}

/// The folder of a run.
pub fn out_folder(global: &Global) -> PathBuf {
    global.out.clone().unwrap_or_else(|| PathBuf::from("out"))
}

/// Prints the verdicts and where the report is.
pub fn print_claims(results: &Results, paths: &report::ReportPaths, json: bool) -> Result<()> {
    use std::io::Write;
    let mut out = super::output::stdout();
    if json {
        writeln!(out, "{}", serde_json::to_string(&results.claims)?)?;
        return Ok(());
    }
    for claim in &results.claims {
        // A claim that no run measured has no recipe.
        let source = [claim.recipe.as_str(), claim.because.as_str()];
        let source = source.into_iter().filter(|text| !text.is_empty()).collect::<Vec<_>>().join(": ");
        writeln!(out, "{}  {:<17} {} [{source}]", claim.id, claim.verdict.words(), claim.claim)?;
    }
    writeln!(out, "report: {}", paths.html.display())?;
    Ok(())
}

/// Files and folders that a run writes in `--out`.
const FILES: [&str; 3] = ["results.json", "report.html", "report.md"];
const FOLDERS: [&str; 4] = ["work", "masks", "tables", "figures"];

/// Refuses inputs in a place of `--out` that is written to.
pub fn check_inputs(out: &Path, inputs: &[PathBuf]) -> Result<()> {
    for input in inputs {
        let written = FILES.iter().chain(&FOLDERS).map(|name| out.join(name).canonicalize());
        let Some(place) = input.canonicalize().ok() else { continue };
        if written.flatten().any(|written| place.starts_with(written)) {
            let (out, input) = (out.display(), input.display());
            let why = format!("--out {out}: {input} in it is an input of this run, which is not overwritten");
            return Err(Unusable(why).into());
        }
    }
    Ok(())
}

/// Checks that a report can be written to a folder, with all that goes with it.
pub fn check_out(out: &Path) -> Result<()> {
    let masks = Preset::ALL.map(|preset| format!("masks/{}", preset.name()));
    let folders: Vec<&str> = FOLDERS.iter().copied().chain(masks.iter().map(String::as_str)).collect();
    check_folder("--out", out, &FILES, &folders)?;
    // What killed runs left where this one may not write.
    remove_abandoned(out);
    folders.iter().for_each(|name| remove_abandoned(&out.join(name)));
    Ok(())
}

/// Number of stages that a run shows at most: score heads (twice), circuits, edits and tables, and what the settings add.
fn steps(settings: &Settings) -> usize {
    let added = [!settings.pair_tasks.is_empty(), settings.compare_editors, settings.trace];
    5 + added.into_iter().filter(|added| *added).count()
}
