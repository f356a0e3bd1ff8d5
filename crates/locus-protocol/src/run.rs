//! The whole protocol: tasks, circuits, edits, overlaps. Data in, records out.

use std::time::Duration;

use anyhow::{Result, bail};
use locus_data::StudyData;
use locus_gpt2::{Checkpoint, Config, Scalar, compiled};
use rayon::prelude::*;

use crate::discovery::PAIR_TASKS;
use crate::editors::COMPARED;
use crate::edits::EditScope;
use crate::extract::Extracted;
use crate::overlaps::overlaps;
use crate::plan::{PlannedUnit, TrajectoryId, Work, edges_unit, editor_unit, editors_trajectory, plan};
use crate::progress::ProgressDisplay;
use crate::records::{
    Discovery, EditOutcome, EditorOutcome, Extraction, MaskComparison, Records, Scope, Skipped,
};
use crate::requests::StudyRequest;
use crate::settings::{MAIN_DENSITIES, Settings, is_large};
use crate::store::Store;
use crate::study::Study;

/// Time between two looks at a unit that another process is at work on.
const WAIT: Duration = Duration::from_millis(500);

/// Runs the protocol. The [`Store`] keeps finished units of work (a trajectory, a scope's edits) and the masks; when it
/// resumes, those of an identical earlier run are read instead of computed.
///
/// # Errors
/// When a task, a request or the model is unusable, or the folder cannot be written to.
pub fn run<F: Scalar>(
    checkpoint: &Checkpoint<F>,
    data: &StudyData,
    settings: &Settings,
    store: &Store,
    progress: &ProgressDisplay,
) -> Result<Records> {
    F::run::<StudyJob>((checkpoint, data, settings, store, progress))
}

/// Does one unit of the [`plan`]; what it needs must have been done. A finished unit is not done
/// again, and one that another process is at work on is waited for.
///
/// # Errors
/// When there is no unit of this name, one that it needs is missing, a task, a request or the model is unusable, or the
/// folder cannot be written to.
pub fn run_unit<F: Scalar>(
    checkpoint: &Checkpoint<F>,
    data: &StudyData,
    settings: &Settings,
    store: &Store,
    progress: &ProgressDisplay,
    name: &str,
) -> Result<()> {
    F::run::<UnitJob>((checkpoint, data, settings, store, progress, name))
}

type StudyIn<'a, F> = (&'a Checkpoint<F>, &'a StudyData, &'a Settings, &'a Store, &'a ProgressDisplay);

compiled!(StudyJob<'a>: <F> StudyIn<'a, F> => Result<Records>, run_study);

type UnitIn<'a, F> =
    (&'a Checkpoint<F>, &'a StudyData, &'a Settings, &'a Store, &'a ProgressDisplay, &'a str);

compiled!(UnitJob<'a>: <F> UnitIn<'a, F> => Result<()>, run_one);

fn run_study<F: Scalar>((checkpoint, data, settings, store, progress): StudyIn<F>) -> Result<Records> {
    let mut study = Study::new(checkpoint, data, settings, store)?;
    let units = plan(settings, checkpoint.model.config(), study.requests.len());
    let mut skipped = prepare_tasks(&mut study, &units, progress)?;
    store.write_plan(&units)?;
    let (extracted, control_records) = circuits(&study, &units, progress)?;
    let calibration = if settings.edits { Some(study.calibration()?) } else { None };
    progress.finished("calibration");
    let factor = calibration.map_or(1.0, |calibration| calibration.factor);
    let edits = edits(&study, &units, &extracted, factor, progress)?;
    let (discoveries, mask_comparisons) = edges(&study, progress, &mut skipped)?;
    let editor_outcomes = compare_editors(&study, &extracted, progress, &mut skipped)?;
    let mut tracing = None;
    if settings.trace {
        let (facts, record) = study.tracing(&|n| progress.stage("tracing", n))?;
        if record.is_none() {
            skipped.push(Skipped::new("X3", "", format!("the model knows none of the {facts} facts")));
        }
        tracing = record;
    }
    let extracted: Vec<Extracted> = extracted.into_iter().flat_map(|(_, found)| found).collect();
    let overlaps = overlaps(&extracted, study.controls.strata());
    let found = extracted.into_iter().map(|extracted| extracted.record);
    Ok(Records {
        extractions: found.chain(control_records).collect(),
        edits,
        requests: study.requests.iter().map(StudyRequest::info).collect(),
        calibration,
        overlaps,
        discoveries,
        mask_comparisons,
        editor_outcomes,
        tracing,
        skipped,
    })
}

fn run_one<F: Scalar>((checkpoint, data, settings, store, progress, name): UnitIn<F>) -> Result<()> {
    let mut study = Study::new(checkpoint, data, settings, store)?;
    let units = plan(settings, checkpoint.model.config(), study.requests.len());
    let Some(unit) = units.iter().find(|unit| unit.name == name) else {
        bail!("{name:?} is no unit of this run, whose {} units `locus plan` lists", units.len());
    };
    store.write_plan(&units)?;
    // Another process may be at work on it; then it is done when that process ends, or left to this one.
    let _lock = loop {
        match store.lock(name)? {
            Some(lock) => break lock,
            None => std::thread::sleep(WAIT),
        }
    };
    let stage = |name: &str, n: usize| progress.stage(name, n);
    let missing = |needed: &str| anyhow::anyhow!("{name} needs {needed}, which is not finished");
    let circuits =
        |study: &Study<F>, id: &TrajectoryId| study.stored_circuits(id).ok_or_else(|| missing(&id.unit()));
    match &unit.work {
        Work::Task(task) => {
            if study.stored_task(task).is_none() {
                let settings = study.settings;
                study.prepare(
                    &[&TrajectoryId { task: task.clone(), ..editors_trajectory(settings) }],
                    &stage,
                )?;
                study.store_task(task)?;
            }
        }
        Work::Circuits(id) => {
            if study.stored_circuits(id).is_none() {
                study.prepare(&[id], &stage)?;
                let shown = progress.stage("circuits", 1);
                let name = id.name();
                study.circuits(id, &mut |density| {
                    shown.message(&format!("{name} {:.1} %", 100.0 * density))
                })?;
                shown.finish();
            }
        }
        Work::Controls(id) => {
            let found = circuits(&study, id)?;
            if !study.has_control_records(id, &found) {
                study.prepare(&[id], &stage)?;
                study.control_records(id, &found)?;
            }
        }
        Work::Calibration => drop(study.calibration()?),
        Work::Edits { scope, of, part } => {
            let factor = study.stored_calibration().ok_or_else(|| missing("calibration"))?.factor;
            let scope = match of {
                None => Some(scope.clone()),
                Some(id) => Study::<F>::with_mask(scope, &circuits(&study, id)?),
            };
            match scope {
                Some(scope) => drop(study.edit_outcomes(name, &scope, *part, factor)?),
                None => study.nothing_to_do(name)?,
            }
        }
        Work::Edges(task) => match study.pairs(task)? {
            Ok(pairs) => drop(study.edges(task, &pairs)?),
            Err(_) => study.nothing_to_do(name)?,
        },
        Work::EdgeMasks => drop(study.edge_masks(&usable_pairs(&study)?.0)?),
        Work::Unedited => match study.editor_inputs() {
            Ok(inputs) => drop(study.unedited(&inputs)?),
            Err(_) => study.nothing_to_do(name)?,
        },
        Work::Editor { editor, scope, density } => {
            let of = editors_trajectory(settings);
            let found = if *scope == Scope::Full { Vec::new() } else { circuits(&study, &of)? };
            match (study.editor_inputs(), study.writable_scope(*scope, *density, &found)) {
                (Ok(inputs), Some(scope)) => {
                    drop(study.editor_outcomes(&inputs, editor, &mut None, &scope)?);
                }
                _ => study.nothing_to_do(name)?,
            }
        }
        Work::Tracing => drop(study.tracing(&|n| progress.stage("tracing", n))?),
    }
    Ok(())
}

/// Prepares the tasks of which something is still to be done, and says which ones are left out.
fn prepare_tasks<F: Scalar>(
    study: &mut Study<F>,
    units: &[PlannedUnit],
    progress: &ProgressDisplay,
) -> Result<Vec<Skipped>> {
    let seen: Vec<Option<Option<Skipped>>> =
        study.settings.tasks.iter().map(|task| study.stored_task(task)).collect();
    let is_seen = |id: &TrajectoryId| {
        study.settings.tasks.iter().zip(&seen).any(|(task, seen)| *task == id.task && seen.is_some())
    };
    let is_done = |id: &TrajectoryId| {
        is_seen(id)
            && study
                .stored_circuits(id)
                .is_some_and(|found| !id.has_controls() || study.has_control_records(id, &found))
    };
    let ids: Vec<&TrajectoryId> = trajectories(units).filter(|id| !is_done(id)).collect();
    study.prepare(&ids, &|name, n| progress.stage(name, n))?;
    let mut skipped = Vec::new();
    for (task, seen) in study.settings.tasks.iter().zip(seen) {
        if let Some(seen) = seen {
            skipped.extend(seen);
        } else {
            study.store_task(task)?;
            skipped.extend(study.left_out(task));
        }
        progress.finished(&format!("task-{task}"));
    }
    Ok(skipped)
}

fn trajectories(units: &[PlannedUnit]) -> impl Iterator<Item = &TrajectoryId> {
    units.iter().filter_map(|unit| match &unit.work {
        Work::Circuits(id) => Some(id),
        _ => None,
    })
}

type Found = Vec<(TrajectoryId, Vec<Extracted>)>;

/// Runs every trajectory and measures the controls of its circuits. Returns the trained masks, and the records of masks
/// that were not trained.
fn circuits<F: Scalar>(
    study: &Study<F>,
    units: &[PlannedUnit],
    progress: &ProgressDisplay,
) -> Result<(Found, Vec<Extraction>)> {
    let ids: Vec<&TrajectoryId> = trajectories(units).collect();
    let stage = progress.stage("circuits", ids.len());
    let all = each(study.checkpoint.model.config(), ids, |id| {
        let name = id.name();
        let found =
            study.circuits(id, &mut |density| stage.message(&format!("{name} {:.1} %", 100.0 * density)))?;
        progress.finished(&id.unit());
        let controls = if id.has_controls() { study.control_records(id, &found)? } else { Vec::new() };
        progress.finished(&id.controls_unit());
        stage.inc();
        Ok(((id.clone(), found), controls))
    })?;
    stage.finish();
    let (found, controls): (Found, Vec<_>) = all.into_iter().unzip();
    Ok((found, controls.into_iter().flatten().collect()))
}

/// Edits in every scope whose circuit was found.
fn edits<F: Scalar>(
    study: &Study<F>,
    units: &[PlannedUnit],
    found: &Found,
    factor: f64,
    progress: &ProgressDisplay,
) -> Result<Vec<EditOutcome>> {
    let mut parts: Vec<(&str, EditScope, (usize, usize))> = Vec::new();
    for unit in units {
        let Work::Edits { scope, of, part } = &unit.work else { continue };
        let scope = match of {
            None => Some(scope.clone()),
            Some(id) => found
                .iter()
                .find(|(trajectory, _)| trajectory == id)
                .and_then(|(_, circuits)| Study::<F>::with_mask(scope, circuits)),
        };
        parts.extend(scope.map(|scope| (unit.name.as_str(), scope, *part)));
    }
    let stage = progress.stage("edits", parts.len());
    let outcomes = each(study.checkpoint.model.config(), parts, |(name, scope, part)| {
        let outcomes = study.edit_outcomes(name, &scope, part, factor)?;
        progress.finished(name);
        stage.inc();
        Ok(outcomes)
    })?;
    stage.finish();
    Ok(outcomes.into_iter().flatten().collect())
}

type UsablePairs = (Vec<(String, Vec<locus_circuits::Pair>)>, Vec<Skipped>);

/// The pairs of each task that has enough of them, and why the others are left out.
fn usable_pairs<F: Scalar>(study: &Study<F>) -> Result<UsablePairs> {
    let (mut tasks, mut skipped) = (Vec::new(), Vec::new());
    for task in &study.settings.pair_tasks {
        match study.pairs(task)? {
            Ok(pairs) => tasks.push((task.clone(), pairs)),
            Err(why) => skipped.push(why),
        }
    }
    Ok((tasks, skipped))
}

/// Finds circuits of edges and of parameters on the pairs of every task (X1).
fn edges<F: Scalar>(
    study: &Study<F>,
    progress: &ProgressDisplay,
    skipped: &mut Vec<Skipped>,
) -> Result<(Vec<Discovery>, Vec<MaskComparison>)> {
    let pair_tasks = &study.settings.pair_tasks;
    if pair_tasks.is_empty() {
        return Ok(Default::default());
    }
    let runs = |task: &&str| pair_tasks.iter().any(|name| name == task);
    let left_out = PAIR_TASKS.into_iter().filter(|task| !runs(task));
    skipped.extend(left_out.map(|task| Skipped::new("X1", task, "left out of this profile")));
    let stage = progress.stage("edges", pair_tasks.len() + 1);
    let mut tasks = Vec::new();
    let mut all = Vec::new();
    for task in pair_tasks {
        match study.pairs(task)? {
            Ok(pairs) => {
                let found = study.edges(task, &pairs)?;
                if found.is_empty() {
                    let why = "the full model and the model without edges do not differ on its pairs";
                    skipped.push(Skipped::new("X1", task, why));
                }
                all.extend(found);
                tasks.push((task.clone(), pairs));
            }
            Err(why) => skipped.push(why),
        }
        progress.finished(&edges_unit(task));
        stage.inc();
    }
    stage.message("parameters");
    let masks = study.edge_masks(&tasks)?;
    progress.finished("edges-masks");
    stage.inc();
    stage.finish();
    Ok((all, masks))
}

/// Runs every editor in the full model and in the scopes made from the circuits of the sweep's task (X2).
fn compare_editors<F: Scalar>(
    study: &Study<F>,
    found: &Found,
    progress: &ProgressDisplay,
    skipped: &mut Vec<Skipped>,
) -> Result<Vec<EditorOutcome>> {
    if !study.settings.compare_editors {
        return Ok(Vec::new());
    }
    let inputs = match study.editor_inputs() {
        Ok(inputs) => inputs,
        Err(why) => {
            skipped.push(why);
            return Ok(Vec::new());
        }
    };
    if study.settings.requests(study.data).iter().all(|request| request.neighborhood_prompts.is_empty()) {
        let why = "neighbourhood, NM and score: no request has prompts about other subjects";
        skipped.push(Skipped::new("X2", "", why));
    }
    let of = editors_trajectory(study.settings);
    let circuits = found.iter().find(|(id, _)| *id == of).map_or(&[][..], |(_, circuits)| circuits);
    let mut scopes: Vec<_> = study.writable_scope(Scope::Full, 1.0, circuits).into_iter().collect();
    for density in MAIN_DENSITIES {
        for scope in [Scope::Circuit, Scope::Complement, Scope::Random] {
            scopes.extend(study.writable_scope(scope, density, circuits));
        }
    }
    let stage = progress.stage("editors", COMPARED.len() * scopes.len());
    let mut all = study.unedited(&inputs)?;
    progress.finished("editor-unedited");
    for editor in COMPARED {
        stage.message(editor);
        let mut ready = None;
        for scope in &scopes {
            all.extend(study.editor_outcomes(&inputs, editor, &mut ready, scope)?);
            progress.finished(&editor_unit(editor, scope.scope, scope.target_density));
            stage.inc();
        }
    }
    stage.finish();
    Ok(all)
}

/// Does units of work and returns their results in order. Units of large models run sequentially, each on all threads;
/// those of small models cannot keep more than one thread busy and run in parallel.
fn each<T: Send, R: Send>(
    config: &Config,
    units: Vec<T>,
    work: impl Fn(T) -> Result<R> + Send + Sync,
) -> Result<Vec<R>> {
    if is_large(config) {
        units.into_iter().map(work).collect()
    } else {
        units.into_par_iter().map(work).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn units_of_large_models_take_turns() {
        let (running, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let work = |unit: usize| {
            most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            std::thread::sleep(Duration::from_millis(5));
            running.fetch_sub(1, Ordering::SeqCst);
            Ok(unit)
        };
        let pool = rayon::ThreadPoolBuilder::new().num_threads(4).build().unwrap();
        let units: Vec<usize> = (0..8).collect();
        let done = pool.install(|| each(&Config::gpt2_small(), units.clone(), work)).unwrap();
        assert_eq!((done, most.load(Ordering::SeqCst)), (units.clone(), 1));
        let done = pool.install(|| each(&Config::new(2, 2, 8, 16, 32), units.clone(), work)).unwrap();
        assert_eq!(done, units);
        assert!(most.load(Ordering::SeqCst) > 1, "small ones wait for each other");
    }
}
