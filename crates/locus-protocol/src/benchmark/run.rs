//! Editors put to work on the cases of a benchmark: one edit at a time, in batches, or in sequence.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use locus_editors::{Edit, EditMemory, Editor, Error, Fact, Patch};
use locus_gpt2::{Config, Gpt2, ParamMask, Scalar, Tokenizer, compiled};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::case::{Case, Generation, Observation};
use super::measures::Drift;
use crate::neutral::NeutralText;
use crate::progress::Stage;
use crate::store::{Store, Unit};

/// How the edits of a benchmark follow one another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Each request is written into the unedited model and measured.
    Single,
    /// Groups of requests are each written together into the unedited model and measured.
    Batch(usize),
    /// Groups of requests are written one after the other, each into the model that the last one left, and all are
    /// measured at the end.
    Sequential(usize),
}

impl Mode {
    /// Requests that are written together.
    pub fn group(self) -> usize {
        match self {
            Mode::Single => 1,
            Mode::Batch(n) | Mode::Sequential(n) => n,
        }
    }
}

/// What all editors of a benchmark share.
pub struct Benchmark<'a, F> {
    /// The model that every edit, or the first of a sequence, starts from.
    pub start: &'a Gpt2<F>,
    /// The block parameters that may change; `None` means every parameter.
    pub mask: Option<&'a ParamMask>,
    /// What is asked about each request.
    pub cases: &'a [Case],
    /// Text on which drift is measured.
    pub neutral: Option<&'a NeutralText<F>>,
    /// How free text is generated, if it is.
    pub generation: Option<(Generation, &'a Tokenizer)>,
    /// How the edits follow one another.
    pub mode: Mode,
    /// Finished work on disk.
    pub store: Option<&'a Store>,
}

/// An editor of a benchmark.
pub struct Contestant<'a, F> {
    /// Name in files.
    pub name: &'a str,
    /// The fact of each case, as the editor takes it.
    pub facts: &'a [Fact],
    /// Makes the editor, when there is work left to do.
    pub make: &'a (dyn Fn() -> Result<Box<dyn Editor<F>>> + Sync),
    /// All that the editor's work depends on: constants, prefixes, key statistics.
    pub depends: Value,
    /// Folder for its patches. A sequence always leaves them there, since it goes on from them.
    pub patches: Option<PathBuf>,
    /// What is said in the files of its patches.
    pub provenance: Value,
}

/// What an editor did about one request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CaseResult {
    /// Number of the request.
    pub case_id: u64,
    /// Why the editor refused; the model then stayed as it was.
    pub refused: Option<String>,
    /// Optimiser steps taken.
    pub steps: usize,
    /// Answers after the edit.
    pub after: Observation,
    /// Change on neutral text; said of one request where several are measured on one model.
    pub drift: Option<Drift>,
}

/// How an edit went.
#[derive(Clone, Serialize, Deserialize)]
struct Written {
    refused: Option<String>,
    steps: usize,
    /// Whether the editor then remembered edits.
    remembers: bool,
}

impl<F: Scalar> Benchmark<'_, F> {
    /// Measures every case on the unedited model.
    ///
    /// # Errors
    /// When a case does not fit the model or a file cannot be written.
    pub fn unedited(&self, stage: &Stage) -> Result<Vec<Observation>> {
        F::run::<UneditedJob>((self, stage))
    }

    /// Lets an editor write the facts and measures what came of it, one result per case in their order.
    ///
    /// # Errors
    /// When the editor cannot be made or fails otherwise than by refusing an unstable edit, a case does not fit the
    /// model, or a file cannot be written.
    ///
    /// # Panics
    /// When there are not as many facts as cases.
    pub fn run(&self, editor: &Contestant<F>, stage: &Stage) -> Result<Vec<CaseResult>> {
        assert_eq!(editor.facts.len(), self.cases.len(), "one fact per case");
        F::run::<RunJob>((self, editor, stage))
    }
}

compiled!(
    UneditedJob<'a>: <F> (&'a Benchmark<'a, F>, &'a Stage) => Result<Vec<Observation>>,
    |(benchmark, stage)| unedited(benchmark, stage)
);
compiled!(
    RunJob<'a>: <F> (&'a Benchmark<'a, F>, &'a Contestant<'a, F>, &'a Stage) => Result<Vec<CaseResult>>,
    run_mode
);

fn run_mode<F: Scalar>(
    (benchmark, editor, stage): (&Benchmark<F>, &Contestant<F>, &Stage),
) -> Result<Vec<CaseResult>> {
    match benchmark.mode {
        Mode::Single | Mode::Batch(_) => run_groups(benchmark, editor, stage),
        Mode::Sequential(_) => run_sequence(benchmark, editor, stage),
    }
}

fn unedited<F: Scalar>(benchmark: &Benchmark<F>, stage: &Stage) -> Result<Vec<Observation>> {
    let observe = |case: &Case| {
        let compute = || observe(benchmark, case, benchmark.start);
        let observation = match benchmark.store {
            Some(store) => store.unit(format!("unedited-{}", case.case_id), ()).result(compute),
            None => compute(),
        };
        stage.inc();
        observation
    };
    benchmark.cases.par_iter().map(observe).collect()
}

fn observe<F: Scalar>(benchmark: &Benchmark<F>, case: &Case, model: &Gpt2<F>) -> Result<Observation> {
    case.observe(model, benchmark.generation).with_context(|| format!("request {}", case.case_id))
}

fn drift<F: Scalar>(benchmark: &Benchmark<F>, edited: &Gpt2<F>) -> Option<Drift> {
    let text = benchmark.neutral?;
    let (nll, kl) = text.nll_and_kl(edited);
    Some(Drift { nll: nll - text.nll, kl })
}

/// Writes a group into a model that holds the edits of `memory`; a refused edit leaves both as they were.
fn write<F: Scalar>(
    benchmark: &Benchmark<F>,
    contestant: &Contestant<F>,
    editor: &dyn Editor<F>,
    group: std::ops::Range<usize>,
    (model, memory): (&Gpt2<F>, &mut EditMemory),
) -> Result<(Written, Option<Patch<F>>)> {
    let mut after = memory.clone();
    let edit = editor.edit_after(&mut after, model, &contestant.facts[group.clone()], benchmark.mask);
    let (refused, steps, patch) = match edit {
        Ok(Edit { report, .. }) if report.nll_after.is_nan() => {
            (Some("the NLL after the edit is not a number".into()), 0, None)
        }
        Ok(Edit { patch, report }) => {
            *memory = after;
            (None, report.steps, Some(patch))
        }
        Err(why @ Error::Unstable(_)) => (Some(why.to_string()), 0, None),
        Err(error) => {
            let case_id = benchmark.cases[group.start].case_id;
            return Err(anyhow::Error::from(error).context(format!("{}: request {case_id}", contestant.name)));
        }
    };
    Ok((Written { refused, steps, remembers: *memory != EditMemory::new() }, patch))
}

/// Positions of the cases of each group.
fn groups<F>(benchmark: &Benchmark<F>) -> Vec<std::ops::Range<usize>> {
    let (n, size) = (benchmark.cases.len(), benchmark.mode.group());
    (0..n).step_by(size).map(|start| start..n.min(start + size)).collect()
}

fn run_groups<F: Scalar>(
    benchmark: &Benchmark<F>,
    contestant: &Contestant<F>,
    stage: &Stage,
) -> Result<Vec<CaseResult>> {
    let unit = |group: &std::ops::Range<usize>| {
        let cases: Vec<u64> = benchmark.cases[group.clone()].iter().map(|case| case.case_id).collect();
        let key = format!("{}-{}", contestant.name, cases[0]);
        Some(benchmark.store?.unit(key, (&contestant.depends, cases)))
    };
    let groups = groups(benchmark);
    let stored: Vec<Option<Vec<CaseResult>>> =
        groups.iter().map(|group| unit(group).and_then(|unit| unit.stored())).collect();
    let editor = stored.iter().any(Option::is_none).then(contestant.make).transpose()?;
    let run = |(group, stored): (&std::ops::Range<usize>, Option<Vec<CaseResult>>)| -> Result<_> {
        let cases = &benchmark.cases[group.clone()];
        let results = match (stored, &editor) {
            (Some(stored), _) => stored,
            (None, None) => unreachable!("the editor was made"),
            (None, Some(editor)) => {
                let model = (benchmark.start, &mut EditMemory::new());
                let (written, patch) = write(benchmark, contestant, editor.as_ref(), group.clone(), model)?;
                let edited = match &patch {
                    Some(patch) => &patch.apply(benchmark.start)?,
                    None => benchmark.start,
                };
                if let (Some(folder), Some(patch)) = (&contestant.patches, &patch) {
                    let name = format!("{}.safetensors", cases[0].case_id);
                    keep_patch(benchmark, contestant, &folder.join(name), patch, cases)?;
                }
                let results = measure(benchmark, cases, edited, &vec![written; cases.len()])?;
                if let Some(unit) = unit(group) {
                    unit.store(&results)?;
                }
                results
            }
        };
        cases.iter().for_each(|_| stage.inc());
        Ok(results)
    };
    let results: Vec<Vec<CaseResult>> = groups.par_iter().zip(stored).map(run).collect::<Result<_>>()?;
    Ok(results.into_iter().flatten().collect())
}

/// A step of a sequence: its state is in its unit and its patch, and what the editor remembers before it in a state of the
/// unit that is there until the step is done.
struct Step<'a> {
    unit: Option<Unit<'a>>,
    patch: Option<PathBuf>,
}

impl Step<'_> {
    /// What an earlier run has done of it.
    fn stored<F: Scalar>(&self, config: &Config) -> Option<Written> {
        let written: Written = self.unit.as_ref().zip(self.patch.as_ref())?.0.stored()?;
        let is_whole = written.refused.is_some() || Patch::<F>::read(self.patch.as_ref()?, config).is_ok();
        is_whole.then_some(written)
    }

    /// What the editor remembered before it.
    fn memory(&self) -> Option<EditMemory> {
        let unit = self.unit.as_ref()?;
        let (memory, of) = EditMemory::read(&unit.state_path(MEMORY)).ok()?;
        (of == unit.fingerprint()).then_some(memory)
    }

    fn keep_memory(&self, memory: &EditMemory) -> Result<()> {
        let Some(unit) = &self.unit else { return Ok(()) };
        Ok(memory.write(&unit.state_path(MEMORY), &unit.fingerprint().into())?)
    }
}

/// Name of the state with what an editor remembers.
const MEMORY: &str = "memory";

fn run_sequence<F: Scalar>(
    benchmark: &Benchmark<F>,
    contestant: &Contestant<F>,
    stage: &Stage,
) -> Result<Vec<CaseResult>> {
    let all: Vec<u64> = benchmark.cases.iter().map(|case| case.case_id).collect();
    let depends = (&contestant.depends, &all);
    let groups = groups(benchmark);
    let step = |number: usize| {
        let name = format!("step-{:05}", number + 1);
        let patch = contestant.patches.as_ref().map(|folder| folder.join(format!("{name}.safetensors")));
        let unit = benchmark.store.map(|store| store.unit(format!("{}-{name}", contestant.name), depends));
        Step { unit, patch }
    };
    let steps: Vec<Step> = (0..groups.len()).map(step).collect();
    let config = benchmark.start.config();
    let mut stored: Vec<Option<Written>> = steps.iter().map(|step| step.stored::<F>(config)).collect();
    let mut memory = EditMemory::new();
    let lost = stored.iter().position(Option::is_none);
    if let Some(lost) = lost.filter(|_| stored.iter().flatten().any(|written| written.remembers)) {
        // What the editor remembers is known before one step alone; a sequence that cannot go on there begins anew.
        let kept = (lost > 0).then(|| steps[lost].memory()).flatten();
        stored[if kept.is_some() { lost } else { 0 }..].fill_with(|| None);
        memory = kept.unwrap_or_default();
    }
    let mut editor: Option<Box<dyn Editor<F>>> = None;
    let mut model = benchmark.start.clone();
    let mut written = Vec::with_capacity(all.len());
    for (number, (group, stored)) in groups.into_iter().zip(stored).enumerate() {
        let (step, cases) = (&steps[number], &benchmark.cases[group.clone()]);
        let done = match (stored, &step.patch) {
            (Some(stored), Some(path)) => {
                if stored.refused.is_none() {
                    model = Patch::read(path, config)?.apply(&model)?;
                }
                stored
            }
            _ => {
                if editor.is_none() {
                    editor = Some((contestant.make)()?);
                }
                let editor = editor.as_deref().expect("just made");
                let (done, patch) = write(benchmark, contestant, editor, group, (&model, &mut memory))?;
                if let Some(patch) = &patch {
                    model = patch.apply(&model)?;
                }
                if let (Some(path), Some(patch)) = (&step.patch, &patch) {
                    keep_patch(benchmark, contestant, path, patch, cases)?;
                }
                if let Some(next) = steps.get(number + 1).filter(|_| done.remembers) {
                    next.keep_memory(&memory)?;
                }
                if let Some(unit) = &step.unit {
                    unit.store(&done)?;
                }
                done
            }
        };
        written.extend(cases.iter().map(|_| done.clone()));
        cases.iter().for_each(|_| stage.inc());
    }
    let measured = || measure(benchmark, benchmark.cases, &model, &written);
    match benchmark.store {
        Some(store) => store.unit(format!("{}-sequence", contestant.name), depends).result(measured),
        None => measured(),
    }
}

/// Measures cases on the model that holds their edits, and its drift, which is said of the first of them.
fn measure<F: Scalar>(
    benchmark: &Benchmark<F>,
    cases: &[Case],
    edited: &Gpt2<F>,
    written: &[Written],
) -> Result<Vec<CaseResult>> {
    let drift = drift(benchmark, edited);
    let result = |(i, (case, written)): (usize, (&Case, &Written))| {
        let Written { refused, steps, .. } = written.clone();
        let after = observe(benchmark, case, edited)?;
        Ok(CaseResult { case_id: case.case_id, refused, steps, after, drift: drift.filter(|_| i == 0) })
    };
    cases.par_iter().zip(written).enumerate().map(result).collect()
}

fn keep_patch<F: Scalar>(
    benchmark: &Benchmark<F>,
    contestant: &Contestant<F>,
    path: &Path,
    patch: &Patch<F>,
    cases: &[Case],
) -> Result<()> {
    let mut provenance = contestant.provenance.clone();
    provenance["case_ids"] = cases.iter().map(|case| case.case_id).collect();
    Ok(patch.write(path, benchmark.start.config(), &provenance)?)
}
