//! The whole protocol: tasks, circuits, edits, overlaps. Data in, records out.

use anyhow::{Context, Result};
use locus_circuits::internal::MANY_PARAMETERS;
use locus_circuits::{Pair, Tracing};
use locus_data::groups::groups;
use locus_data::seed::stream;
use locus_data::{Labelled, StudyData, sample_groups};
use locus_editors::{ClampedSgd, Hparams};
use locus_gpt2::{Checkpoint, Config, ParamMask, Scalar, compiled};
use locus_tasks::{SplitOptions, Task};
use rayon::prelude::*;

use crate::discovery::{agreement_pairs, discover, hierarchy_pairs};
use crate::editors::{Comparison, WritableScope};
use crate::edits::{IsolatedScope, PreparedRequest, edit_all};
use crate::extract::{Extracted, extract};
use crate::masks::compare_masks;
use crate::overlaps::overlaps;
use crate::progress::ProgressDisplay;
use crate::records::{
    Discovery, EditOutcome, EditorOutcome, Extraction, MaskComparison, NO_TASK, Records, Scope, Skipped,
    TracingRecord,
};
use crate::settings::{MAIN_DENSITIES, Preset, SWEEP_TASK, Settings};
use crate::store::Store;
use crate::tracing::{facts_of_requests, trace_all};

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
    let requests: Vec<PreparedRequest> = data
        .requests
        .iter()
        .take(settings.max_requests)
        .map(|request| PreparedRequest::new(&checkpoint.tokenizer, request))
        .collect::<Result<_>>()
        .context("hierarchy_data.json")?;
    for request in &requests {
        request.nll(model).context("hierarchy_data.json")?;
    }

    let options = SplitOptions { seed: settings.seed, by: settings.split, ..SplitOptions::default() };
    let stage = progress.stage("score heads", settings.tasks.len());
    let prepared: Vec<std::result::Result<Task<F>, Skipped>> = settings
        .tasks
        .par_iter()
        .map(|name| {
            let task = data.task(name).with_context(|| format!("task {name} is not in the data"))?;
            let rows = sample(name, &task.rows, settings);
            let prepared = Task::from_rows(checkpoint, name, &rows, options);
            stage.inc();
            match prepared {
                Ok(task) => Ok(Ok(task)),
                Err(error @ locus_tasks::Error::OneClass { .. }) => {
                    let (message, prefix) = (error.to_string(), format!("task {name}: "));
                    Ok(Err(Skipped::new("T1", name, message.strip_prefix(&prefix).unwrap_or(&message))))
                }
                Err(error) => Err(error.into()),
            }
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

    let extracted = extract_all(checkpoint, &tasks, settings, store, progress)?;
    let scopes = if settings.edits { scopes(model.config(), &extracted, settings) } else { Vec::new() };
    let stage = progress.stage("edits", scopes.len());
    let edits: Vec<Vec<EditOutcome>> = each(model.config(), scopes, |scope| {
        let key = format!("edit-{}", scope.key());
        let outcomes = store.unit(&key, || edit_all(model, &requests, &scope, &ClampedSgd::default()))?;
        stage.inc();
        Ok(outcomes)
    })?;
    stage.finish();

    let (discoveries, mask_comparisons) =
        discover_all(checkpoint, data, settings, store, progress, &mut skipped)?;
    let editor_outcomes =
        compare_editors(checkpoint, data, &extracted, settings, store, progress, &mut skipped)?;
    let tracing = trace(checkpoint, data, settings, store, progress, &mut skipped)?;
    let overlaps = overlaps(&extracted, settings.main_preset);
    Ok(Records {
        extractions: extracted.into_iter().map(|extracted| extracted.record).collect(),
        edits: edits.into_iter().flatten().collect(),
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
    if ParamMask::n_maskable(config) > MANY_PARAMETERS {
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
    let record = store.unit("tracing", || trace_all(model, &facts, &how, &mut || stage.inc()))?;
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
    let hparams = settings.hparams.clone().map_or_else(built_in, Ok).context("X2")?;
    let comparison =
        Comparison::new(checkpoint, requests, text, neutral, &hparams, settings.seed).context("X2")?;
    let mut scopes = vec![WritableScope { scope: Scope::Full, target_density: 1.0, mask: None }];
    for &density in &MAIN_DENSITIES {
        let circuit = extracted.iter().find(|found| {
            let record = &found.record;
            (record.preset.as_str(), record.task.as_str(), record.target_density)
                == (settings.main_preset.name(), SWEEP_TASK, density)
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
            all.extend(store.unit(&key, || comparison.run(&ready, scope))?);
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
            let found: Vec<Discovery> = store.unit(&format!("edges-{task}"), || {
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
    let masks = store.unit("edges-masks", || {
        compare_masks(&checkpoint.model, &tasks, &MAIN_DENSITIES, &settings.scheduled_top_k, settings.seed)
    })?;
    stage.inc();
    stage.finish();
    Ok((all, masks))
}

/// Runs every trajectory: the published recipe first, then the main preset, tasks in order.
fn extract_all<F: Scalar>(
    checkpoint: &Checkpoint<F>,
    tasks: &[Task<F>],
    settings: &Settings,
    store: &Store,
    progress: &ProgressDisplay,
) -> Result<Vec<Extracted>> {
    let units_of = |preset: Preset, names: &[String]| -> Vec<(Preset, &Task<F>)> {
        tasks.iter().filter(|task| names.contains(&task.name)).map(|task| (preset, task)).collect()
    };
    let mut units = units_of(Preset::Published, &settings.published_tasks);
    units.extend(units_of(settings.main_preset, &settings.tasks));
    let stage = progress.stage("circuits", units.len());
    let all: Vec<Vec<Extracted>> = each(checkpoint.model.config(), units, |(preset, task)| {
        let key = format!("circuit-{}-{}", preset.name(), task.name);
        let mask_path = |target: f64| store.mask_path(preset, &task.name, target);
        let mut fresh = None;
        let records: Vec<Extraction> = store.unit(&key, || {
            let found = extract(task, preset, settings, &mut |at| {
                stage.message(&format!("{} {:.1} %", task.name, 100.0 * at.density));
            })?;
            for extracted in &found {
                extracted.mask.write(&mask_path(extracted.record.target_density), store.fingerprint())?;
            }
            let records = found.iter().map(|extracted| extracted.record.clone()).collect();
            fresh = Some(found);
            Ok(records)
        })?;
        stage.inc();
        if let Some(found) = fresh {
            return Ok(found);
        }
        records
            .into_iter()
            .map(|record| {
                let mask = ParamMask::read(&mask_path(record.target_density), checkpoint.model.config())?;
                anyhow::ensure!(mask.sha256() == record.mask_sha256, "a mask of the earlier run was changed");
                Ok(Extracted { record, mask })
            })
            .collect()
    })?;
    stage.finish();
    Ok(all.into_iter().flatten().collect())
}

/// Scopes of the edits: the intact model; a random mask for each density; every circuit of the main preset that was
/// measured, and its complement.
fn scopes(config: &Config, extracted: &[Extracted], settings: &Settings) -> Vec<IsolatedScope> {
    let preset = settings.main_preset.name().to_owned();
    let full = IsolatedScope {
        preset: String::new(),
        task: NO_TASK.into(),
        target_density: 1.0,
        scope: Scope::Full,
        mask: None,
    };
    let random = settings.densities.iter().map(|&density| IsolatedScope {
        preset: preset.clone(),
        task: NO_TASK.into(),
        target_density: density,
        scope: Scope::Random,
        mask: Some(ParamMask::random(
            config,
            locus_circuits::masks::count_at_density(config, density),
            &mut stream(settings.seed, &format!("random scope/{density}"), 0),
        )),
    });
    let circuits =
        extracted.iter().filter(|extracted| extracted.record.preset == preset).flat_map(|extracted| {
            [(Scope::Circuit, extracted.mask.clone()), (Scope::Complement, extracted.mask.complement())].map(
                |(scope, mask)| IsolatedScope {
                    preset: preset.clone(),
                    task: extracted.record.task.clone(),
                    target_density: extracted.record.target_density,
                    scope,
                    mask: Some(mask),
                },
            )
        });
    std::iter::once(full).chain(random).chain(circuits).collect()
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
