//! The whole protocol: tasks, circuits, edits, overlaps. Data in, records out.

use std::sync::Arc;

use anyhow::{Context, Result};
use locus_circuits::{Pair, Tracing};
use locus_data::groups::groups;
use locus_data::seed::stream;
use locus_data::{Labelled, StudyData, sample_groups};
use locus_editors::Hparams;
use locus_files::sha256;
use locus_gpt2::{Checkpoint, Config, ParamMask, Scalar, compiled};
use locus_tasks::{SplitBy, SplitOptions, Task};
use rayon::prelude::*;

use crate::controls::{Controls, random_weights};
use crate::discovery::{PAIR_TASKS, agreement_pairs, discover, hierarchy_pairs};
use crate::editors::{Comparison, WritableScope};
use crate::edits::{DRIFT_EVERY, EditScope, Edits};
use crate::extract::{Extracted, Trajectory};
use crate::mask_files::MaskFiles;
use crate::masks::compare_masks;
use crate::neutral::NeutralText;
use crate::overlaps::overlaps;
use crate::progress::ProgressDisplay;
use crate::records::{
    Discovery, EditKind, EditOutcome, EditorOutcome, Extraction, MaskComparison, NO_TASK, Records, Schedule,
    Scope, Skipped, TracingRecord,
};
use crate::requests::StudyRequest;
use crate::settings::{MAIN_DENSITIES, Preset, SWEEP_TASK, Settings, is_large};
use crate::store::Store;
use crate::tracing::{facts_of_requests, trace_all};

/// Requests in one unit of edits of a large model, of which each takes seconds. Drift is measured on the first pair of
/// every eight, so that a part is a multiple of that.
const PART_REQUESTS: usize = 2 * DRIFT_EVERY;

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

type StudyIn<'a, F> = (&'a Checkpoint<F>, &'a StudyData, &'a Settings, &'a Store, &'a ProgressDisplay);

compiled!(StudyJob<'a>: <F> StudyIn<'a, F> => Result<Records>, run_study);

fn run_study<F: Scalar>((checkpoint, data, settings, store, progress): StudyIn<F>) -> Result<Records> {
    let model = &checkpoint.model;
    // Requests first, so that a bad one is reported now and not after minutes of mask training.
    let requests = &data.requests[..data.requests.len().min(settings.max_requests)];
    let requests = StudyRequest::prepare(&checkpoint.tokenizer, requests).context("hierarchy_data.json")?;
    for study in &requests {
        study.request.nll(model).context("hierarchy_data.json")?;
    }
    let text = data.neutral.as_deref().or(settings.text.as_deref());
    let neutral_sha256 = text.map_or_else(String::new, |text| sha256(text.as_bytes()));
    let text = text.map(|text| NeutralText::new(checkpoint, text)).transpose()?;
    let neutral = text.flatten();
    let controls = Controls::new(model, settings.seed);
    let random_weights = Checkpoint {
        model: random_weights(model.config(), settings.seed),
        tokenizer: checkpoint.tokenizer.clone(),
    };

    let options = SplitOptions { seed: settings.seed, by: settings.split, ..SplitOptions::default() };
    let stage = progress.stage("score heads", settings.tasks.len());
    let prepare = |checkpoint: &Checkpoint<F>, name: &str, options: SplitOptions| -> Result<_> {
        let task = data.task(name).with_context(|| format!("task {name} is not in the data"))?;
        let rows = sample(name, &task.rows, settings);
        match Task::from_rows(checkpoint, name, &rows, options) {
            Ok(task) => Ok(Ok(task)),
            Err(error @ locus_tasks::Error::OneClass { .. }) => {
                let (message, prefix) = (error.to_string(), format!("task {name}: "));
                Ok(Err(Skipped::new("T1", name, message.strip_prefix(&prefix).unwrap_or(&message))))
            }
            Err(error) => Err(error.into()),
        }
    };
    let prepared: Vec<std::result::Result<Task<F>, Skipped>> = settings
        .tasks
        .par_iter()
        .map(|name| {
            let task = prepare(checkpoint, name, options);
            stage.inc();
            task
        })
        .collect::<Result<_>>()?;
    stage.finish();
    let mut skipped = Vec::new();
    let mut tasks = Vec::new();
    for task in prepared {
        match task {
            Ok(task) => tasks.push(task),
            Err(why) => skipped.push(why),
        }
    }
    // A head on random weights reads what the words alone tell: what a model has to be better than.
    let stage = progress.stage("score heads on random weights", tasks.len());
    let on_random_weights: Vec<Option<Task<F>>> = tasks
        .par_iter()
        .map(|task| {
            let prepared = prepare(&random_weights, &task.name, options)?;
            stage.inc();
            Ok(prepared.ok())
        })
        .collect::<Result<_>>()?;
    stage.finish();
    // The rows of the sweep's task share most: its split matters most.
    let sweep = tasks.iter().find(|task| task.name == SWEEP_TASK && settings.has_all_controls(SWEEP_TASK));
    let by_rows = match (settings.split, sweep) {
        (SplitBy::Groups, Some(task)) => {
            prepare(checkpoint, &task.name, SplitOptions { by: SplitBy::Rows, ..options })?.ok()
        }
        _ => None,
    };

    let trajectories = trajectories(&tasks, &on_random_weights, by_rows.as_ref(), settings);
    let text = (neutral.as_ref(), neutral_sha256.as_str());
    let (extracted, control_records) =
        extract_all(model.config(), &trajectories, &controls, text, settings, store, progress)?;
    let mut edits =
        Edits { model, requests: &requests, controls: &controls, neutral: neutral.as_ref(), factor: 1.0 };
    let calibration = if settings.edits {
        Some(store.unit("calibration", &neutral_sha256).result(|| edits.calibrate())?)
    } else {
        None
    };
    edits.factor = calibration.map_or(1.0, |calibration| calibration.factor);
    let random_controls = Controls::new(&random_weights.model, settings.seed);
    let random_edits =
        Edits { model: &random_weights.model, controls: &random_controls, neutral: None, ..edits };
    let scopes = if settings.edits { scopes(&extracted, settings) } else { Vec::new() };
    let in_parts = is_large(model.config());
    let part_requests = if in_parts { PART_REQUESTS } else { requests.len().max(1) };
    let parts = scopes
        .iter()
        .flat_map(|scope| requests.chunks(part_requests).enumerate().map(move |part| (scope, part)));
    let parts: Vec<(&EditScope, (usize, &[StudyRequest]))> = parts.collect();
    let stage = progress.stage("edits", parts.len());
    let outcomes: Vec<Vec<EditOutcome>> = each(model.config(), parts, |(scope, (number, requests))| {
        let kinds = kinds(scope, settings);
        let of_random_weights =
            [Scope::RandomWeights, Scope::RandomWeightsComplement, Scope::RandomWeightsFull]
                .contains(&scope.scope);
        let edits = Edits { requests, ..if of_random_weights { random_edits } else { edits } };
        let mask = scope.trained.as_ref().map(|mask| mask.sha256());
        let depends = (mask, kinds, edits.factor, &neutral_sha256);
        let part = if in_parts { format!("-part{number}") } else { String::new() };
        let unit = store.unit(format!("edit-{}{part}", scope.key()), depends);
        let outcomes = unit.result(|| edits.run(scope, kinds))?;
        stage.inc();
        Ok(outcomes)
    })?;
    stage.finish();

    let (discoveries, mask_comparisons) =
        discover_all(checkpoint, data, settings, store, progress, &mut skipped)?;
    let editor_outcomes =
        compare_editors(checkpoint, data, &extracted, settings, store, progress, &mut skipped)?;
    let tracing = trace(checkpoint, data, settings, store, progress, &mut skipped)?;
    let overlaps = overlaps(&extracted, &controls.strata);
    let found = extracted.into_iter().map(|extracted| extracted.record);
    Ok(Records {
        extractions: found.chain(control_records).collect(),
        edits: outcomes.into_iter().flatten().collect(),
        requests: requests.iter().map(StudyRequest::info).collect(),
        calibration,
        overlaps,
        discoveries,
        mask_comparisons,
        editor_outcomes,
        tracing,
        skipped,
    })
}

/// At most `max_rows` rows of a task, drawn in whole groups with the label shares of all rows, in the order of the file.
fn sample(task: &str, rows: &[Labelled], settings: &Settings) -> Vec<Labelled> {
    let labels: Vec<usize> = rows.iter().map(|row| usize::from(row.label)).collect();
    let drawn = sample_groups(&groups(rows), &labels, settings.max_rows, settings.seed, task);
    drawn.into_iter().map(|row| rows[row].clone()).collect()
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

/// Traces the true facts that the requests are about (X3).
fn trace<F: Scalar>(
    checkpoint: &Checkpoint<F>,
    data: &StudyData,
    settings: &Settings,
    store: &Store,
    progress: &ProgressDisplay,
    skipped: &mut Vec<Skipped>,
) -> Result<Option<TracingRecord>> {
    if !settings.trace {
        return Ok(None);
    }
    let requests = &data.requests[..data.requests.len().min(settings.max_requests)];
    let facts = facts_of_requests(&checkpoint.tokenizer, requests).context("X3")?;
    let stage = progress.stage("tracing", facts.len());
    let model = &checkpoint.model;
    let how = |known: &[_]| Tracing::new(model, known, settings.seed);
    let record = store.unit("tracing", ()).result(|| trace_all(model, &facts, &how, &mut || stage.inc()))?;
    if record.is_none() {
        let why = format!("the model knows none of the {} facts", facts.len());
        skipped.push(Skipped::new("X3", "", why));
    }
    stage.finish();
    Ok(record)
}

/// Runs every editor in the full model and in the scopes made from the circuits of the sweep's task (X2). Without neutral
/// text, drift is measured on the text of the key statistics; without either there are no results.
fn compare_editors<F: Scalar>(
    checkpoint: &Checkpoint<F>,
    data: &StudyData,
    extracted: &[Extracted],
    settings: &Settings,
    store: &Store,
    progress: &ProgressDisplay,
    skipped: &mut Vec<Skipped>,
) -> Result<Vec<EditorOutcome>> {
    if !settings.compare_editors {
        return Ok(Vec::new());
    }
    let (neutral, text) = (data.neutral.as_deref(), settings.text.as_deref());
    let (Some(neutral), Some(text)) = (neutral.or(text), text.or(neutral)) else {
        let why =
            "key statistics and drift need a text; the data have no neutral.txt and no --text was given";
        skipped.push(Skipped::new("X2", "", why));
        return Ok(Vec::new());
    };
    let requests = &data.requests[..data.requests.len().min(settings.max_requests)];
    if requests.iter().all(|request| request.neighborhood_prompts.is_empty()) {
        let why = "neighbourhood, NM and score: no request has prompts about other subjects";
        skipped.push(Skipped::new("X2", "", why));
    }
    let built_in = || Hparams::for_model(checkpoint.model.config(), None);
    let hparams = match settings.hparams.clone().map_or_else(built_in, Ok) {
        Ok(hparams) => hparams,
        Err(why) => {
            skipped.push(Skipped::new("X2", "", why.to_string()));
            return Ok(Vec::new());
        }
    };
    let comparison =
        Comparison::new(checkpoint, requests, text, neutral, &hparams, settings.seed).context("X2")?;
    let mut scopes = vec![WritableScope { scope: Scope::Full, target_density: 1.0, mask: None }];
    for &density in &MAIN_DENSITIES {
        let circuit = extracted.iter().find(|found| {
            let record = &found.record;
            (record.preset.as_str(), record.task.as_str(), record.target_density, record.draw)
                == (settings.main_preset.name(), SWEEP_TASK, density, 0)
                && (record.scope, record.schedule) == (Scope::Circuit, Schedule::Sweep)
        });
        let Some(circuit) = circuit else { continue };
        let rng = &mut stream(settings.seed, &format!("random scope/{density}"), 0);
        let random = ParamMask::random(circuit.mask.config(), circuit.mask.count(), rng);
        let masks = [
            (Scope::Circuit, circuit.mask.clone()),
            (Scope::Complement, circuit.mask.complement()),
            (Scope::Random, random),
        ];
        scopes.extend(masks.map(|(scope, mask)| WritableScope {
            scope,
            target_density: density,
            mask: Some(mask),
        }));
    }
    let editors = Comparison::<F>::editors();
    let stage = progress.stage("editors", editors.len() * scopes.len());
    let texts = [sha256(text.as_bytes()), sha256(neutral.as_bytes()), format!("{hparams:?}")];
    let mut all = comparison.unedited()?;
    for editor in editors {
        let ready = comparison.prepare(editor)?;
        stage.message(editor);
        for scope in &scopes {
            let key = format!(
                "editor-{}-{:?}-{}",
                editor.replace([' ', ','], ""),
                scope.scope,
                scope.target_density
            );
            let mask = scope.mask.as_ref().map(ParamMask::sha256);
            all.extend(store.unit(key, (&texts, mask)).result(|| comparison.run(&ready, scope))?);
            stage.inc();
        }
    }
    stage.finish();
    Ok(all)
}

/// Finds circuits of edges and of parameters on the pairs of every task (X1). A task that gives too few pairs, for
/// example because the model's tokenizer splits its words differently, is skipped.
fn discover_all<F: Scalar>(
    checkpoint: &Checkpoint<F>,
    data: &StudyData,
    settings: &Settings,
    store: &Store,
    progress: &ProgressDisplay,
    skipped: &mut Vec<Skipped>,
) -> Result<(Vec<Discovery>, Vec<MaskComparison>)> {
    const FEWEST: usize = 8;
    if settings.pair_tasks.is_empty() {
        return Ok(Default::default());
    }
    let runs = |task: &&str| settings.pair_tasks.iter().any(|name| name == task);
    let left_out = PAIR_TASKS.into_iter().filter(|task| !runs(task));
    skipped.extend(left_out.map(|task| Skipped::new("X1", task, "left out of this profile")));
    let stage = progress.stage("edges", settings.pair_tasks.len() + 1);
    let mut tasks: Vec<(String, Vec<Pair>)> = Vec::new();
    let mut all = Vec::new();
    for task in &settings.pair_tasks {
        let pairs = if task == SWEEP_TASK {
            hierarchy_pairs(&checkpoint.tokenizer, &data.requests, settings.max_pairs)?
        } else {
            let rows = &data.task(task).with_context(|| format!("task {task} is not in the data"))?.rows;
            agreement_pairs(&checkpoint.tokenizer, rows, settings.max_pairs)?
        };
        if pairs.len() >= FEWEST {
            let found: Vec<Discovery> = store.unit(format!("edges-{task}"), ()).result(|| {
                discover(&checkpoint.model, task, &pairs, settings.seed)
                    .with_context(|| format!("task {task}"))
            })?;
            if found.is_empty() {
                let why = "the full model and the model without edges do not differ on its pairs";
                skipped.push(Skipped::new("X1", task, why));
            }
            all.extend(found);
            tasks.push((task.clone(), pairs));
        } else {
            let why = format!(
                "{} pairs of {FEWEST} needed: clean and corrupted prompt must have as many tokens, and the \
                 answers different first tokens",
                pairs.len()
            );
            skipped.push(Skipped::new("X1", task, why));
        }
        stage.inc();
    }
    stage.message("parameters");
    let names: Vec<&str> = tasks.iter().map(|(task, _)| task.as_str()).collect();
    let masks = store.unit("edges-masks", names).result(|| {
        compare_masks(&checkpoint.model, &tasks, &MAIN_DENSITIES, &settings.scheduled_top_k, settings.seed)
    })?;
    stage.inc();
    stage.finish();
    Ok((all, masks))
}

/// Every training of masks: the published recipe first, then the main preset, tasks in order.
fn trajectories<'a, F: Scalar>(
    tasks: &'a [Task<F>],
    on_random_weights: &'a [Option<Task<F>>],
    by_rows: Option<&'a Task<F>>,
    settings: &Settings,
) -> Vec<Trajectory<'a, F>> {
    let on_random_weights = || on_random_weights.iter().flatten();
    let of = |preset, task: &'a Task<F>, scope, draw| {
        let baseline = on_random_weights().find(|random| random.name == task.name);
        let baseline = baseline.filter(|_| scope != Scope::RandomWeights);
        Trajectory {
            preset,
            task,
            scope,
            draw,
            schedule: Schedule::Sweep,
            accuracy_random_weights: baseline.map(Task::accuracy_full),
        }
    };
    let published = tasks.iter().filter(|task| settings.published_tasks.contains(&task.name));
    let mut all: Vec<_> = published.map(|task| of(Preset::Published, task, Scope::Circuit, 0)).collect();
    let preset = settings.main_preset;
    all.extend(tasks.iter().map(|task| of(preset, task, Scope::Circuit, 0)));
    for task in tasks.iter().filter(|task| settings.has_all_controls(&task.name)) {
        all.extend((1..settings.mask_seeds).map(|draw| of(preset, task, Scope::Circuit, draw)));
        all.push(of(preset, task, Scope::Shuffled, 0));
    }
    let controls = on_random_weights().filter(|task| settings.has_all_controls(&task.name));
    all.extend(controls.map(|task| of(preset, task, Scope::RandomWeights, 0)));
    all.extend(
        by_rows.iter().map(|&task| Trajectory {
            schedule: Schedule::SplitByRows,
            ..of(preset, task, Scope::Circuit, 0)
        }),
    );
    // The published recipe stops when a density is reached, so that its lengths cannot be made equal.
    if preset != Preset::Published && settings.own_trajectories {
        let sweep = tasks.iter().filter(|task| task.name == SWEEP_TASK);
        all.extend(sweep.map(|task| Trajectory {
            schedule: Schedule::OwnTrajectory,
            ..of(preset, task, Scope::Circuit, 0)
        }));
    }
    all
}

/// Runs every trajectory and measures the controls of its circuits. Returns the trained masks, and the records of masks
/// that were not trained.
fn extract_all<F: Scalar>(
    config: &Config,
    trajectories: &[Trajectory<F>],
    controls: &Controls<F>,
    (neutral, neutral_sha256): (Option<&NeutralText<F>>, &str),
    settings: &Settings,
    store: &Store,
    progress: &ProgressDisplay,
) -> Result<(Vec<Extracted>, Vec<Extraction>)> {
    let stage = progress.stage("circuits", trajectories.len());
    let units: Vec<&Trajectory<F>> = trajectories.iter().collect();
    let all: Vec<(Vec<Extracted>, Vec<Extraction>)> = each(config, units, |trajectory| {
        let name = trajectory.name();
        let kind = trajectory.preset.name();
        let unit = store.unit(format!("circuit-{kind}-{name}"), neutral_sha256);
        let files = MaskFiles { store, trajectory, unit: &unit };
        let found = match files.stored(config) {
            Some(found) => found,
            None => {
                let found = trajectory.run(settings, neutral, &unit, &mut |at| {
                    stage.message(&format!("{name} {:.1} %", 100.0 * at.density));
                })?;
                files.store(&found)?;
                found
            }
        };
        // Controls stand beside the circuits of the first seed; further seeds share them.
        let first = (Scope::Circuit, Schedule::Sweep, 0);
        let others = if (trajectory.scope, trajectory.schedule, trajectory.draw) == first {
            let masks: Vec<&str> = found.iter().map(|found| found.record.mask_sha256.as_str()).collect();
            let draws = settings.matched_draws(&trajectory.task.name);
            let unit = store.unit(format!("controls-{kind}-{name}"), (masks, draws, neutral_sha256));
            unit.result(|| trajectory.controls(&found, controls, settings, neutral))?
        } else {
            Vec::new()
        };
        stage.inc();
        Ok((found, others))
    })?;
    stage.finish();
    let (found, others): (Vec<_>, Vec<_>) = all.into_iter().unzip();
    Ok((found.into_iter().flatten().collect(), others.into_iter().flatten().collect()))
}

/// Scopes of the edits: the intact model, random masks of each density, and what is made from every trained mask that
/// reached its target. The tasks with all controls have all scopes at the main densities; elsewhere a circuit and its
/// complement are held against a matched mask and its.
fn scopes(extracted: &[Extracted], settings: &Settings) -> Vec<EditScope> {
    let mut scopes = [Scope::Full, Scope::FrozenFull, Scope::RandomWeightsFull].map(EditScope::full).to_vec();
    for &density in &settings.densities {
        let draws = if MAIN_DENSITIES.contains(&density) { settings.random_draws } else { 1 };
        for draw in 0..draws {
            scopes.extend([Scope::Random, Scope::RandomComplement].map(|scope| EditScope {
                preset: settings.main_preset.name().to_owned(),
                target_density: density,
                draw,
                ..EditScope::full(scope)
            }));
        }
    }
    for found in extracted.iter().filter(|found| found.record.reached) {
        let record = &found.record;
        let main = MAIN_DENSITIES.contains(&record.target_density);
        let main_preset = record.preset == settings.main_preset.name();
        if record.schedule != Schedule::Sweep || !(main || main_preset) {
            continue;
        }
        let trained = Arc::new(found.edited().clone());
        let mut add = |scope, draw| {
            scopes.push(EditScope {
                preset: record.preset.clone(),
                task: record.task.clone(),
                target_density: record.target_density,
                scope,
                draw,
                trained: Some(trained.clone()),
            });
        };
        let complement = record.scope.complement().expect("trained masks have complements");
        add(record.scope, record.draw);
        add(complement, record.draw);
        if record.scope != Scope::Circuit || record.draw > 0 {
            continue;
        }
        let all_controls = main && settings.has_all_controls(&record.task);
        let matched = if all_controls && main_preset { settings.matched_draws } else { 1 };
        for draw in 0..matched {
            add(Scope::Matched, draw);
            add(Scope::MatchedComplement, draw);
        }
        if all_controls {
            add(Scope::CircuitInPlace, 0);
        }
        if all_controls && main_preset {
            for scope in
                [Scope::MatchedInPlace, Scope::FrozenCircuit, Scope::Magnitude, Scope::MagnitudeComplement]
            {
                add(scope, 0);
            }
        }
    }
    scopes
}

/// Kinds of edit in a scope: all where the claims need them, which is at the main densities, on the tasks with all
/// controls and without a task; the published edit of 10 steps otherwise.
fn kinds(scope: &EditScope, settings: &Settings) -> &'static [EditKind] {
    const SCOPES: [Scope; 9] = [
        Scope::Full,
        Scope::FrozenFull,
        Scope::Circuit,
        Scope::Complement,
        Scope::CircuitInPlace,
        Scope::Matched,
        Scope::MatchedComplement,
        Scope::Random,
        Scope::RandomComplement,
    ];
    let main = scope.target_density == 1.0 || MAIN_DENSITIES.contains(&scope.target_density);
    let many = scope.task == NO_TASK || settings.has_all_controls(&scope.task);
    if main && many && scope.draw == 0 && SCOPES.contains(&scope.scope) {
        &EditKind::ALL
    } else {
        &[EditKind::Steps10]
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

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
