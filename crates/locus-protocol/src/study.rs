//! [`Study`]: what the units of a run have in common, and the work of each unit.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, OnceLock, Weak};

use anyhow::{Context, Result};
use locus_circuits::{Pair, Tracing};
use locus_data::groups::groups;
use locus_data::seed::stream;
use locus_data::{Labelled, StudyData, sample_groups};
use locus_editors::Hparams;
use locus_files::sha256;
use locus_gpt2::{Checkpoint, ParamMask, PromptTargets, Scalar};
use locus_tasks::{SplitBy, SplitOptions, Task};
use rayon::prelude::*;

use crate::controls::{Controls, random_weights};
use crate::discovery::{agreement_pairs, discover, hierarchy_pairs};
use crate::editors::{Comparison, Ready, WritableScope};
use crate::edits::{EditScope, Edits};
use crate::extract::{Extracted, Trajectory};
use crate::mask_files::MaskFiles;
use crate::masks::compare_masks;
use crate::neutral::NeutralText;
use crate::plan::{TrajectoryId, edges_unit, editor_unit, kinds};
use crate::progress::Stage;
use crate::records::{
    Calibration, Discovery, EditOutcome, EditorOutcome, Extraction, MaskComparison, Schedule, Scope, Skipped,
    TracingRecord,
};
use crate::requests::StudyRequest;
use crate::settings::{MAIN_DENSITIES, SWEEP_TASK, Settings};
use crate::store::Store;
use crate::tracing::{facts_of_requests, trace_all};

/// Fewest pairs of a task that circuits of edges are found on.
const FEWEST_PAIRS: usize = 8;

/// What the units of a run have in common.
pub(crate) struct Study<'a, F> {
    pub(crate) checkpoint: &'a Checkpoint<F>,
    pub(crate) data: &'a StudyData,
    pub(crate) settings: &'a Settings,
    pub(crate) store: &'a Store,
    pub(crate) requests: Vec<StudyRequest>,
    pub(crate) controls: Controls<'a, F>,
    neutral: Option<NeutralText<F>>,
    neutral_sha256: String,
    tasks: BTreeMap<(Prepared, String), Result<Task<F>, Skipped>>,
    /// Accuracy of each task's head on random weights: what its words alone tell, and a model has to be better than.
    chances: BTreeMap<String, f64>,
    /// The model of random weights while something holds it: it takes as much memory as the other.
    random_weights: Mutex<Weak<Checkpoint<F>>>,
    comparison: OnceLock<Comparison<'a, F>>,
}

/// Ways to prepare a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Prepared {
    /// With the model and the split of the run.
    AsSet,
    /// With the split of the run and a model of random weights.
    OnRandomWeights,
    /// With the model, split row by row.
    ByRows,
}

impl TrajectoryId {
    fn prepared(&self) -> Prepared {
        match (self.scope, self.schedule) {
            (Scope::RandomWeights, _) => Prepared::OnRandomWeights,
            (_, Schedule::SplitByRows) => Prepared::ByRows,
            _ => Prepared::AsSet,
        }
    }
}

impl<'a, F: Scalar> Study<'a, F> {
    /// Reads the requests and the neutral text. No task is prepared yet.
    ///
    /// # Errors
    /// When a request or the text does not fit the model.
    pub(crate) fn new(
        checkpoint: &'a Checkpoint<F>,
        data: &'a StudyData,
        settings: &'a Settings,
        store: &'a Store,
    ) -> Result<Self> {
        let model = &checkpoint.model;
        let requests = StudyRequest::prepare(&checkpoint.tokenizer, settings.requests(data));
        let requests = requests.context("hierarchy_data.json")?;
        // Reported now and not after minutes of mask training.
        for study in &requests {
            let (prompt, new) = (&study.request.prompt, &study.request.target_new);
            PromptTargets::<F>::prefix_sharing(
                model.config(),
                &[(prompt, new), (prompt, &study.target_true)],
            )
            .with_context(|| format!("hierarchy_data.json: request {}", study.request.case_id))?;
        }
        let text = data.neutral.as_deref().or(settings.text.as_deref());
        let neutral_sha256 = text.map_or_else(String::new, |text| sha256(text.as_bytes()));
        let neutral = text.map(|text| NeutralText::new(checkpoint, text)).transpose()?.flatten();
        Ok(Study {
            checkpoint,
            data,
            settings,
            store,
            random_weights: Mutex::default(),
            requests,
            controls: Controls::new(model, settings.seed),
            neutral,
            neutral_sha256,
            tasks: BTreeMap::new(),
            chances: BTreeMap::new(),
            comparison: OnceLock::new(),
        })
    }

    /// Prepares the tasks that some trajectories need: a baseline on random weights beside each. `stage` makes the
    /// displays of progress.
    ///
    /// # Errors
    /// When a task is not in the data or unusable otherwise than for want of a second class.
    pub(crate) fn prepare(
        &mut self,
        ids: &[&TrajectoryId],
        stage: &dyn Fn(&str, usize) -> Stage,
    ) -> Result<()> {
        let wanted = |kind: Prepared| -> BTreeSet<&str> {
            let needs = |id: &&&TrajectoryId| kind != Prepared::ByRows || id.prepared() == kind;
            ids.iter().filter(needs).map(|id| id.task.as_str()).collect()
        };
        for (kind, name) in [
            (Prepared::AsSet, "score heads"),
            (Prepared::OnRandomWeights, "score heads on random weights"),
            (Prepared::ByRows, "score heads of a split by rows"),
        ] {
            let usable = |task: &&str| {
                kind == Prepared::AsSet || matches!(self.task(Prepared::AsSet, task), Some(Ok(_)))
            };
            // Circuits of random weights are found for some tasks; of others their accuracy is enough.
            let is_trained = |task: &str| {
                kind != Prepared::OnRandomWeights
                    || ids.iter().any(|id| id.prepared() == kind && id.task == task)
            };
            let is_known = |task: &str| {
                self.task(kind, task).is_some() || !is_trained(task) && self.chances.contains_key(task)
            };
            let tasks: Vec<&str> =
                wanted(kind).into_iter().filter(usable).filter(|task| !is_known(task)).collect();
            if tasks.is_empty() {
                continue;
            }
            let _in_use = (kind == Prepared::OnRandomWeights).then(|| self.on_random_weights());
            let stage = stage(name, tasks.len());
            let prepared: Vec<((Prepared, String), Result<Task<F>, Skipped>)> = tasks
                .par_iter()
                .map(|&task| {
                    let prepared = self.prepared(kind, task)?;
                    stage.inc();
                    Ok(((kind, task.to_owned()), prepared))
                })
                .collect::<Result<_>>()?;
            if kind == Prepared::OnRandomWeights {
                let accuracy = |task: &Result<Task<F>, Skipped>| task.as_ref().ok().map(Task::accuracy_full);
                let accuracies =
                    prepared.iter().filter_map(|((_, name), task)| Some((name.clone(), accuracy(task)?)));
                self.chances.extend(accuracies);
            }
            self.tasks.extend(prepared.into_iter().filter(|((_, name), _)| is_trained(name)));
            stage.finish();
        }
        Ok(())
    }

    fn task(&self, kind: Prepared, name: &str) -> Option<&Result<Task<F>, Skipped>> {
        self.tasks.get(&(kind, name.to_owned()))
    }

    fn prepared(&self, kind: Prepared, name: &str) -> Result<Result<Task<F>, Skipped>> {
        let settings = self.settings;
        let by = if kind == Prepared::ByRows { SplitBy::Rows } else { settings.split };
        let options = SplitOptions { seed: settings.seed, by, ..SplitOptions::default() };
        let on_random_weights = (kind == Prepared::OnRandomWeights).then(|| self.on_random_weights());
        let checkpoint = on_random_weights.as_deref().unwrap_or(self.checkpoint);
        let task = self.data.task(name).with_context(|| format!("task {name} is not in the data"))?;
        let rows = sample(name, &task.rows, settings);
        match Task::from_rows(checkpoint, name, &rows, options) {
            Ok(task) => Ok(Ok(task)),
            Err(error @ locus_tasks::Error::OneClass { .. }) => {
                let (message, prefix) = (error.to_string(), format!("task {name}: "));
                Ok(Err(Skipped::new("T1", name, message.strip_prefix(&prefix).unwrap_or(&message))))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The model of random weights of the checkpoint's shape, with its tokenizer.
    fn on_random_weights(&self) -> Arc<Checkpoint<F>> {
        let mut in_use = self.random_weights.lock().expect("nothing panics while it is made");
        in_use.upgrade().unwrap_or_else(|| {
            // A task on these weights shares them.
            let mut tasks = self.tasks.iter().filter(|((kind, _), _)| *kind == Prepared::OnRandomWeights);
            let kept = tasks.find_map(|(_, task)| task.as_ref().ok());
            let model = kept.map_or_else(
                || random_weights(self.checkpoint.model.config(), self.settings.seed),
                |task| task.model.clone(),
            );
            let made = Arc::new(Checkpoint { model, tokenizer: self.checkpoint.tokenizer.clone() });
            *in_use = Arc::downgrade(&made);
            made
        })
    }

    /// Why a task that was seen to be unusable is left out; `None` for others.
    pub(crate) fn left_out(&self, task: &str) -> Option<Skipped> {
        self.task(Prepared::AsSet, task)?.as_ref().err().cloned()
    }

    /// What an earlier run saw of a task: whether and why it is left out.
    pub(crate) fn stored_task(&self, task: &str) -> Option<Option<Skipped>> {
        self.store.unit(format!("task-{task}"), ()).stored()
    }

    /// Keeps what was seen of a prepared task.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(crate) fn store_task(&self, task: &str) -> Result<()> {
        self.store.unit(format!("task-{task}"), ()).store(&self.left_out(task))
    }

    /// The circuits of a trajectory that an earlier run found.
    pub(crate) fn stored_circuits(&self, id: &TrajectoryId) -> Option<Vec<Extracted>> {
        let unit = self.circuits_unit(id);
        MaskFiles { store: self.store, id, unit: &unit }.stored(self.checkpoint.model.config())
    }

    fn circuits_unit(&self, id: &TrajectoryId) -> crate::store::Unit<'a> {
        self.store.unit(id.unit(), (id.targets(self.settings), &self.neutral_sha256))
    }

    /// Finds the circuits of a trajectory whose task was prepared; none where its task is left out.
    ///
    /// # Errors
    /// When a row does not fit the model, or a file cannot be written.
    pub(crate) fn circuits(
        &self,
        id: &TrajectoryId,
        progress: &mut dyn FnMut(f64),
    ) -> Result<Vec<Extracted>> {
        if let Some(found) = self.stored_circuits(id) {
            return Ok(found);
        }
        let unit = self.circuits_unit(id);
        let found = match self.trajectory(id) {
            Some(trajectory) => {
                trajectory
                    .run(id, self.settings, self.neutral.as_ref(), &unit, &mut |at| progress(at.density))?
            }
            None => Vec::new(),
        };
        MaskFiles { store: self.store, id, unit: &unit }.store(&found)?;
        Ok(found)
    }

    /// The controls of a trajectory's circuits, measured on its task; those of an earlier run if there are any.
    ///
    /// # Errors
    /// When a row does not fit the model, or a file cannot be written.
    pub(crate) fn control_records(&self, id: &TrajectoryId, found: &[Extracted]) -> Result<Vec<Extraction>> {
        let unit = self.controls_unit(id, found);
        unit.result(|| match self.trajectory(id) {
            Some(trajectory) => {
                trajectory.controls(found, &self.controls, self.settings, self.neutral.as_ref())
            }
            None => Ok(Vec::new()),
        })
    }

    /// Whether an earlier run has measured the controls of a trajectory's circuits.
    pub(crate) fn has_control_records(&self, id: &TrajectoryId, found: &[Extracted]) -> bool {
        self.controls_unit(id, found).stored::<Vec<Extraction>>().is_some()
    }

    fn controls_unit(&self, id: &TrajectoryId, found: &[Extracted]) -> crate::store::Unit<'a> {
        let masks: Vec<&str> = found.iter().map(|found| found.record.mask_sha256.as_str()).collect();
        let draws = self.settings.matched_draws(&id.task);
        self.store.unit(id.controls_unit(), (masks, draws, &self.neutral_sha256))
    }

    fn trajectory(&self, id: &TrajectoryId) -> Option<Trajectory<'_, F>> {
        let task = self.task(id.prepared(), &id.task)?.as_ref().ok()?;
        let chance = self.chances.get(&id.task).filter(|_| id.scope != Scope::RandomWeights);
        Some(Trajectory {
            preset: id.preset,
            task,
            scope: id.scope,
            draw: id.draw,
            schedule: id.schedule,
            accuracy_random_weights: chance.copied(),
        })
    }

    /// The factor of the calibrated edit, of an earlier run if it found it.
    ///
    /// # Errors
    /// When a request does not fit the model, or the file cannot be written.
    pub(crate) fn calibration(&self) -> Result<Calibration> {
        self.store.unit("calibration", &self.neutral_sha256).result(|| self.edits(1.0).calibrate())
    }

    /// The calibration of an earlier run.
    pub(crate) fn stored_calibration(&self) -> Option<Calibration> {
        self.store.unit("calibration", &self.neutral_sha256).stored()
    }

    fn edits(&self, factor: f64) -> Edits<'_, F> {
        Edits {
            model: &self.checkpoint.model,
            requests: &self.requests,
            controls: &self.controls,
            neutral: self.neutral.as_ref(),
            factor,
        }
    }

    /// Edits in a scope, for one part of the requests: part `number` of `size` requests. `scope` has its trained mask.
    ///
    /// # Errors
    /// When a request does not fit the model, or the file cannot be written.
    pub(crate) fn edit_outcomes(
        &self,
        name: &str,
        scope: &EditScope,
        (number, size): (usize, usize),
        factor: f64,
    ) -> Result<Vec<EditOutcome>> {
        let kinds = kinds(scope, self.settings);
        let mask = scope.trained.as_ref().map(|mask| mask.sha256());
        let unit = self.store.unit(name, (mask, kinds, factor, &self.neutral_sha256));
        unit.result(|| {
            let edits = self.edits(factor);
            let requests = edits.requests.chunks(size).nth(number).unwrap_or_default();
            let of_random_weights =
                [Scope::RandomWeights, Scope::RandomWeightsComplement, Scope::RandomWeightsFull];
            if of_random_weights.contains(&scope.scope) {
                let checkpoint = self.on_random_weights();
                Edits { model: &checkpoint.model, neutral: None, requests, ..edits }.run(scope, kinds)
            } else {
                Edits { requests, ..edits }.run(scope, kinds)
            }
        })
    }

    /// A scope with the mask that it is made from, of a trajectory's circuits; `None` if the circuit did not reach its
    /// density.
    pub(crate) fn with_mask(scope: &EditScope, circuits: &[Extracted]) -> Option<EditScope> {
        let of_density = |found: &&Extracted| found.record.target_density == scope.target_density;
        let found = circuits.iter().find(of_density).filter(|found| found.record.reached)?;
        Some(EditScope { trained: Some(Arc::new(found.edited().clone())), ..scope.clone() })
    }

    /// Clean/corrupted pairs of a task, or why there are too few: for example because the model's tokenizer splits its
    /// words differently.
    ///
    /// # Errors
    /// When the task is not in the data.
    pub(crate) fn pairs(&self, task: &str) -> Result<Result<Vec<Pair>, Skipped>> {
        let (tokenizer, most) = (&self.checkpoint.tokenizer, self.settings.max_pairs);
        let pairs = if task == SWEEP_TASK {
            hierarchy_pairs(tokenizer, &self.data.requests, most)?
        } else {
            let rows = &self.data.task(task).with_context(|| format!("task {task} is not in the data"))?.rows;
            agreement_pairs(tokenizer, rows, most)?
        };
        if pairs.len() >= FEWEST_PAIRS {
            return Ok(Ok(pairs));
        }
        let why = format!(
            "{} pairs of {FEWEST_PAIRS} needed: clean and corrupted prompt must have as many tokens, and the \
             answers different first tokens",
            pairs.len()
        );
        Ok(Err(Skipped::new("X1", task, why)))
    }

    /// Circuits of edges on the pairs of a task; none where the model does not tell the answers apart.
    ///
    /// # Errors
    /// When a pair does not fit the model, or the file cannot be written.
    pub(crate) fn edges(&self, task: &str, pairs: &[Pair]) -> Result<Vec<Discovery>> {
        self.store.unit(edges_unit(task), ()).result(|| {
            let found = discover(&self.checkpoint.model, task, pairs, self.settings.seed);
            found.with_context(|| format!("task {task}"))
        })
    }

    /// Circuits of edges beside circuits of parameters on the pairs of all tasks.
    ///
    /// # Errors
    /// When a pair does not fit the model, or the file cannot be written.
    pub(crate) fn edge_masks(&self, tasks: &[(String, Vec<Pair>)]) -> Result<Vec<MaskComparison>> {
        let names: Vec<&str> = tasks.iter().map(|(task, _)| task.as_str()).collect();
        let Settings { scheduled_top_k, seed, .. } = self.settings;
        self.store
            .unit("edges-masks", names)
            .result(|| compare_masks(&self.checkpoint.model, tasks, &MAIN_DENSITIES, scheduled_top_k, *seed))
    }

    /// Marks a unit as done that has nothing to do. Its result is never asked for.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(crate) fn nothing_to_do(&self, name: &str) -> Result<()> {
        self.store.unit(name, "nothing to do").store(&())
    }

    /// Texts and constants of the comparison of editors, or why it cannot be made.
    pub(crate) fn editor_inputs(&self) -> Result<EditorInputs<'a>, Skipped> {
        let (neutral, text) = (self.data.neutral.as_deref(), self.settings.text.as_deref());
        // Without neutral text, drift is measured on the text of the key statistics.
        let (Some(neutral), Some(text)) = (neutral.or(text), text.or(neutral)) else {
            let why =
                "key statistics and drift need a text; the data have no neutral.txt and no --text was given";
            return Err(Skipped::new("X2", "", why));
        };
        let built_in = || Hparams::for_model(self.checkpoint.model.config(), None);
        let hparams = self.settings.hparams.clone().map_or_else(built_in, Ok);
        let hparams = hparams.map_err(|why| Skipped::new("X2", "", why.to_string()))?;
        let depends = [sha256(text.as_bytes()), sha256(neutral.as_bytes()), format!("{hparams:?}")];
        Ok(EditorInputs { text, neutral, hparams, depends })
    }

    /// The comparison of editors, whose key statistics are collected when they are first needed.
    fn comparison(&self, inputs: &EditorInputs) -> Result<&Comparison<'a, F>> {
        if self.comparison.get().is_none() {
            let EditorInputs { text, neutral, hparams, .. } = inputs;
            let requests = self.settings.requests(self.data);
            let made = Comparison::new(self.checkpoint, requests, text, neutral, hparams, self.settings.seed);
            // If another thread was first, its comparison is the same.
            let _ = self.comparison.set(made.context("X2")?);
        }
        Ok(self.comparison.get().expect("just set"))
    }

    /// Measures of the unedited model.
    ///
    /// # Errors
    /// When a request does not fit the model, or the file cannot be written.
    pub(crate) fn unedited(&self, inputs: &EditorInputs) -> Result<Vec<EditorOutcome>> {
        let unit = self.store.unit("editor-unedited", &inputs.depends);
        unit.result(|| self.comparison(inputs)?.unedited())
    }

    /// Edits with an editor in a scope. `ready` keeps the prepared editor from one scope to the next.
    ///
    /// # Errors
    /// When a request does not fit the model, or the file cannot be written.
    pub(crate) fn editor_outcomes(
        &self,
        inputs: &EditorInputs,
        editor: &str,
        ready: &mut Option<Ready<F>>,
        scope: &WritableScope,
    ) -> Result<Vec<EditorOutcome>> {
        let mask = scope.mask.as_ref().map(ParamMask::sha256);
        let name = editor_unit(editor, scope.scope, scope.target_density);
        self.store.unit(name, (&inputs.depends, mask)).result(|| {
            let comparison = self.comparison(inputs)?;
            let editor = match ready {
                Some(ready) => ready,
                None => ready.insert(comparison.prepare(editor)?),
            };
            comparison.run(editor, scope)
        })
    }

    /// The scope of X2 that is made from a circuit of a density; `None` where there is no such circuit.
    pub(crate) fn writable_scope(
        &self,
        scope: Scope,
        density: f64,
        circuits: &[Extracted],
    ) -> Option<WritableScope> {
        if scope == Scope::Full {
            return Some(WritableScope { scope, target_density: 1.0, mask: None });
        }
        let circuit = &circuits.iter().find(|found| found.record.target_density == density)?.mask;
        let mask = match scope {
            Scope::Circuit => circuit.clone(),
            Scope::Complement => circuit.complement(),
            _ => {
                let rng = &mut stream(self.settings.seed, &format!("random scope/{density}"), 0);
                ParamMask::random(circuit.config(), circuit.count(), rng)
            }
        };
        Some(WritableScope { scope, target_density: density, mask: Some(mask) })
    }

    /// Traces the true facts that the requests are about (X3); `None` when the model knows none of them.
    ///
    /// # Errors
    /// When a fact does not fit the model, or the file cannot be written.
    pub(crate) fn tracing(&self, stage: &dyn Fn(usize) -> Stage) -> Result<(usize, Option<TracingRecord>)> {
        let requests = self.settings.requests(self.data);
        let facts = facts_of_requests(&self.checkpoint.tokenizer, requests).context("X3")?;
        let stage = stage(facts.len());
        let model = &self.checkpoint.model;
        let how = |known: &[_]| Tracing::new(model, known, self.settings.seed);
        let record = self.store.unit("tracing", ());
        let record = record.result(|| trace_all(model, &facts, &how, &mut || stage.inc()))?;
        stage.finish();
        Ok((facts.len(), record))
    }
}

/// Texts and constants of the comparison of editors.
pub(crate) struct EditorInputs<'a> {
    text: &'a str,
    neutral: &'a str,
    hparams: Hparams,
    depends: [String; 3],
}

/// At most `max_rows` rows of a task, drawn in whole groups with the label shares of all rows, in the order of the file.
fn sample(task: &str, rows: &[Labelled], settings: &Settings) -> Vec<Labelled> {
    let labels: Vec<usize> = rows.iter().map(|row| usize::from(row.label)).collect();
    let drawn = sample_groups(&groups(rows), &labels, settings.max_rows, settings.seed, task);
    drawn.into_iter().map(|row| rows[row].clone()).collect()
}
