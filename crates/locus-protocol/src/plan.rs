//! The plan of a run: every unit of its work, by name, with the units whose results it reads.
//!
//! A plan follows from the settings and the size of the model alone. Processes that share an output folder can each do
//! some of its units ([`run_unit`](crate::run_unit)) in any order that respects what a unit needs; [`run()`](crate::run())
//! then finds them done. A unit that turns out to have nothing to do, for example the edits in a circuit whose density
//! was not reached, has an empty result.

use locus_gpt2::Config;
use serde::Serialize;

use crate::editors::COMPARED;
use crate::edits::{DRIFT_EVERY, EditScope};
use crate::records::{EditKind, NO_TASK, Schedule, Scope};
use crate::settings::{MAIN_DENSITIES, Preset, SWEEP_TASK, Settings, is_large};

/// Requests in one unit of edits of a large model, of which each takes seconds. Drift is measured on the first pair of
/// every eight, so that a part is a multiple of that.
const PART_REQUESTS: usize = 2 * DRIFT_EVERY;

/// One unit of a run's work.
#[derive(Clone, Debug)]
pub struct PlannedUnit {
    /// The name, unique within a run and safe in file names.
    pub name: String,
    /// Names of the units whose results it reads.
    pub needs: Vec<String>,
    /// What is to be done.
    pub work: Work,
}

/// What a unit does.
#[derive(Clone, Debug)]
pub enum Work {
    /// Trains the score heads of a task and sees whether it can be used.
    Task(String),
    /// Trains the masks of a trajectory and measures them.
    Circuits(TrajectoryId),
    /// Measures the control masks of a trajectory's circuits.
    Controls(TrajectoryId),
    /// Finds the factor of the calibrated edit.
    Calibration,
    /// Writes some of the requests in a scope.
    Edits {
        /// The scope, still without its trained mask.
        scope: EditScope,
        /// The trajectory whose mask of the scope's density it is made from.
        of: Option<TrajectoryId>,
        /// Number of the part of the requests, and the number of requests in each part.
        part: (usize, usize),
    },
    /// Finds circuits of edges on the pairs of a task (X1).
    Edges(String),
    /// Holds circuits of edges against circuits of parameters (X1).
    EdgeMasks,
    /// Measures the unedited model with the measures of the editors (X2).
    Unedited,
    /// Writes the requests with an editor in a scope made from a circuit of the sweep's task (X2).
    Editor {
        /// Name of the editor.
        editor: &'static str,
        /// The full model, a circuit, its complement or a random mask.
        scope: Scope,
        /// Density of the circuit; 1 for the full model.
        density: f64,
    },
    /// Traces facts (X3).
    Tracing,
}

/// A training of masks on one task that passes through several densities.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TrajectoryId {
    /// Recipe.
    pub preset: Preset,
    /// Task.
    pub task: String,
    /// Kind of mask: a circuit, or one trained on shuffled labels or on random weights.
    pub scope: Scope,
    /// Seed of the mask, counted from 0.
    pub draw: usize,
    /// Schedule of the densities.
    pub schedule: Schedule,
}

impl TrajectoryId {
    /// Name of the trajectory within its preset, safe in file names.
    pub fn name(&self) -> String {
        let scope = match self.scope {
            Scope::Shuffled => "-shuffled",
            Scope::RandomWeights => "-random-weights",
            _ => "",
        };
        let schedule = match self.schedule {
            Schedule::OwnTrajectory => "-own-trajectory",
            Schedule::SplitByRows => "-split-by-rows",
            Schedule::Sweep => "",
        };
        let draw = if self.draw > 0 { format!("-seed{}", self.draw) } else { String::new() };
        format!("{}{scope}{schedule}{draw}", self.task)
    }

    /// Name of the unit that trains the masks.
    pub fn unit(&self) -> String {
        format!("circuit-{}-{}", self.preset.name(), self.name())
    }

    /// Name of the unit that measures the controls of the circuits.
    pub fn controls_unit(&self) -> String {
        format!("controls-{}-{}", self.preset.name(), self.name())
    }

    /// Whether controls stand beside its circuits: those of the first seed have them, further seeds share them.
    pub fn has_controls(&self) -> bool {
        (self.scope, self.schedule, self.draw) == (Scope::Circuit, Schedule::Sweep, 0)
    }

    /// Whether the tables show the mask of a density: all of them for circuits of the sweep's task, the main ones
    /// otherwise.
    pub fn shows(&self, density: f64) -> bool {
        (self.task == SWEEP_TASK && self.scope == Scope::Circuit && self.draw == 0)
            || MAIN_DENSITIES.contains(&density)
    }

    /// Density targets that a training with `scheduled-top-k` passes through: those that the tables show. Masks of the
    /// sweep's task pass through all, so that each is trained for as long as the circuits of the sweep it stands beside.
    pub fn targets(&self, settings: &Settings) -> Vec<f64> {
        let all = settings.densities.iter().copied();
        all.filter(|&density| self.task == SWEEP_TASK || self.shows(density)).collect()
    }

    /// Densities of the masks that are measured, in the order of their training.
    pub fn densities(&self, settings: &Settings) -> Vec<f64> {
        let all = match self.preset {
            Preset::Published => {
                let trajectories = settings.published_trajectories(&self.task);
                trajectories.into_iter().flat_map(|trajectory| trajectory.densities).collect()
            }
            Preset::ScheduledTopK => self.targets(settings),
        };
        all.into_iter().filter(|&density| self.shows(density)).collect()
    }
}

/// All units of a run on a model of a shape with a number of requests, each after those that it needs.
pub fn plan(settings: &Settings, config: &Config, n_requests: usize) -> Vec<PlannedUnit> {
    let mut units = Vec::new();
    let mut add = |name: String, needs: Vec<String>, work| units.push(PlannedUnit { name, needs, work });
    for task in &settings.tasks {
        add(format!("task-{task}"), Vec::new(), Work::Task(task.clone()));
    }
    let trajectories = trajectories(settings);
    for id in &trajectories {
        add(id.unit(), Vec::new(), Work::Circuits(id.clone()));
    }
    for id in trajectories.iter().filter(|id| id.has_controls()) {
        add(id.controls_unit(), vec![id.unit()], Work::Controls(id.clone()));
    }
    if settings.edits {
        let calibration = "calibration".to_owned();
        add(calibration.clone(), Vec::new(), Work::Calibration);
        for (scope, of) in scopes(&trajectories, settings) {
            let of_part = if is_large(config) { PART_REQUESTS } else { n_requests.max(1) };
            for number in 0..n_requests.div_ceil(of_part) {
                let part = if is_large(config) { format!("-part{number}") } else { String::new() };
                let needs = [calibration.clone()].into_iter().chain(of.as_ref().map(TrajectoryId::unit));
                let name = format!("edit-{}{part}", scope.key());
                let (scope, of) = (scope.clone(), of.clone());
                add(name, needs.collect(), Work::Edits { scope, of, part: (number, of_part) });
            }
        }
    }
    for task in &settings.pair_tasks {
        add(edges_unit(task), Vec::new(), Work::Edges(task.clone()));
    }
    if !settings.pair_tasks.is_empty() {
        add("edges-masks".to_owned(), Vec::new(), Work::EdgeMasks);
    }
    if settings.compare_editors {
        add("editor-unedited".to_owned(), Vec::new(), Work::Unedited);
        let of = editors_trajectory(settings);
        for editor in COMPARED {
            add(
                editor_unit(editor, Scope::Full, 1.0),
                Vec::new(),
                Work::Editor { editor, scope: Scope::Full, density: 1.0 },
            );
            for density in MAIN_DENSITIES.into_iter().filter(|_| settings.tasks.contains(&of.task)) {
                for scope in [Scope::Circuit, Scope::Complement, Scope::Random] {
                    let name = editor_unit(editor, scope, density);
                    add(name, vec![of.unit()], Work::Editor { editor, scope, density });
                }
            }
        }
    }
    if settings.trace {
        add("tracing".to_owned(), Vec::new(), Work::Tracing);
    }
    units
}

/// The trajectory from whose circuits the scopes of X2 are made.
pub(crate) fn editors_trajectory(settings: &Settings) -> TrajectoryId {
    let (preset, task) = (settings.main_preset, SWEEP_TASK.to_owned());
    TrajectoryId { preset, task, scope: Scope::Circuit, draw: 0, schedule: Schedule::Sweep }
}

/// Name of the unit that finds circuits of edges on the pairs of a task.
pub(crate) fn edges_unit(task: &str) -> String {
    format!("edges-{task}")
}

/// Name of the unit of an editor in a scope.
pub(crate) fn editor_unit(editor: &str, scope: Scope, density: f64) -> String {
    format!("editor-{}-{scope:?}-{density}", editor.replace([' ', ','], ""))
}

/// Every training of masks: the published recipe first, then the main preset, tasks in order.
fn trajectories(settings: &Settings) -> Vec<TrajectoryId> {
    let of = |preset, task: &String, scope, draw| TrajectoryId {
        preset,
        task: task.clone(),
        scope,
        draw,
        schedule: Schedule::Sweep,
    };
    let tasks = &settings.tasks;
    let published = tasks.iter().filter(|task| settings.published_tasks.contains(task));
    let mut all: Vec<_> = published.map(|task| of(Preset::Published, task, Scope::Circuit, 0)).collect();
    let preset = settings.main_preset;
    all.extend(tasks.iter().map(|task| of(preset, task, Scope::Circuit, 0)));
    let controlled = || tasks.iter().filter(|task| settings.has_all_controls(task));
    for task in controlled() {
        all.extend((1..settings.mask_seeds).map(|draw| of(preset, task, Scope::Circuit, draw)));
        all.push(of(preset, task, Scope::Shuffled, 0));
    }
    all.extend(controlled().map(|task| of(preset, task, Scope::RandomWeights, 0)));
    let sweep = tasks.iter().find(|task| *task == SWEEP_TASK);
    let other_schedule =
        |schedule| sweep.map(|task| TrajectoryId { schedule, ..of(preset, task, Scope::Circuit, 0) });
    if settings.splits_by_rows() {
        all.extend(other_schedule(Schedule::SplitByRows));
    }
    // The published recipe stops when a density is reached, so that its lengths cannot be made equal.
    if preset != Preset::Published && settings.own_trajectories {
        all.extend(other_schedule(Schedule::OwnTrajectory));
    }
    all
}

/// Scopes of the edits: the intact model, random masks of each density, and what is made from every trained mask that
/// reaches its target. The tasks with all controls have all scopes at the main densities; elsewhere a circuit and its
/// complement are held against a matched mask and its.
fn scopes(trajectories: &[TrajectoryId], settings: &Settings) -> Vec<(EditScope, Option<TrajectoryId>)> {
    let mut scopes: Vec<_> = [Scope::Full, Scope::FrozenFull, Scope::RandomWeightsFull]
        .map(|scope| (EditScope::full(scope), None))
        .into();
    for &density in &settings.densities {
        let draws = if MAIN_DENSITIES.contains(&density) { settings.random_draws } else { 1 };
        for draw in 0..draws {
            scopes.extend([Scope::Random, Scope::RandomComplement].map(|scope| {
                let random = EditScope {
                    preset: settings.main_preset.name().to_owned(),
                    target_density: density,
                    draw,
                    ..EditScope::full(scope)
                };
                (random, None)
            }));
        }
    }
    for id in trajectories.iter().filter(|id| id.schedule == Schedule::Sweep) {
        let main_preset = id.preset == settings.main_preset;
        for density in id.densities(settings) {
            let main = MAIN_DENSITIES.contains(&density);
            if !(main || main_preset) {
                continue;
            }
            let mut add = |scope, draw| {
                let scope = EditScope {
                    preset: id.preset.name().to_owned(),
                    task: id.task.clone(),
                    target_density: density,
                    scope,
                    draw,
                    trained: None,
                };
                scopes.push((scope, Some(id.clone())));
            };
            let complement = id.scope.complement().expect("trained masks have complements");
            add(id.scope, id.draw);
            add(complement, id.draw);
            if id.scope != Scope::Circuit || id.draw > 0 {
                continue;
            }
            let all_controls = main && settings.has_all_controls(&id.task);
            let matched = if all_controls && main_preset { settings.matched_draws } else { 1 };
            for draw in 0..matched {
                add(Scope::Matched, draw);
                add(Scope::MatchedComplement, draw);
            }
            if all_controls {
                add(Scope::CircuitInPlace, 0);
            }
            if all_controls && main_preset {
                for scope in [
                    Scope::MatchedInPlace,
                    Scope::FrozenCircuit,
                    Scope::Magnitude,
                    Scope::MagnitudeComplement,
                ] {
                    add(scope, 0);
                }
            }
        }
    }
    scopes
}

/// Kinds of edit in a scope: all where the claims need them, which is at the main densities, on the tasks with all
/// controls and without a task; the published edit of 10 steps otherwise.
pub(crate) fn kinds(scope: &EditScope, settings: &Settings) -> &'static [EditKind] {
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
    use std::collections::BTreeSet;

    use super::*;
    use crate::settings::SWEEP;

    /// Masks of a task, circuits and controls alike, are trained through the same sizes: all of them on the sweep's task,
    /// and the two that are shown on others.
    #[test]
    fn masks_of_a_task_are_trained_through_the_same_sizes() {
        let settings = Settings::full(1, Preset::ScheduledTopK);
        let of_preset = |id: &TrajectoryId| id.preset == Preset::ScheduledTopK;
        for id in trajectories(&settings).into_iter().filter(of_preset) {
            let expected: &[f64] = if id.task == SWEEP_TASK { &SWEEP } else { &MAIN_DENSITIES };
            assert_eq!(id.targets(&settings), expected, "{}", id.name());
            assert!(id.densities(&settings).iter().all(|density| expected.contains(density)));
        }
    }

    /// Every unit has a name of its own and stands after all that it needs.
    #[test]
    fn units_stand_after_what_they_need() {
        let large = Config::gpt2_small();
        for (settings, config) in [
            (Settings::full(1, Preset::ScheduledTopK), Config::new(2, 2, 8, 16, 32)),
            (Settings::full(1, Preset::Published), large.clone()),
            (Settings::quick(1, Preset::ScheduledTopK).cut_for_large_model(), large),
        ] {
            let units = plan(&settings, &config, 50);
            let mut before = BTreeSet::new();
            for unit in &units {
                assert!(unit.needs.iter().all(|name| before.contains(name.as_str())), "{}", unit.name);
                assert!(before.insert(unit.name.as_str()), "{} twice", unit.name);
            }
            for needed in ["calibration", "edges-masks", "tracing", "editor-unedited", "task-hierarchy"] {
                assert!(before.contains(needed), "{needed}");
            }
        }
    }

    #[test]
    fn edits_of_large_models_come_in_parts() {
        let settings = Settings::full(1, Preset::ScheduledTopK);
        let parts = |config: &Config| {
            let units = plan(&settings, config, 50);
            units.iter().filter(|unit| unit.name.starts_with("edit--none-1-full")).count()
        };
        assert_eq!(parts(&Config::new(2, 2, 8, 16, 32)), 1);
        assert_eq!(parts(&Config::gpt2_small()), 50usize.div_ceil(PART_REQUESTS));
    }

    /// Whatever is left out of the tables is left out of the plan.
    #[test]
    fn a_plan_holds_only_what_is_wanted() {
        let mut settings = Settings::quick(1, Preset::ScheduledTopK);
        (settings.edits, settings.compare_editors, settings.trace) = (false, false, false);
        settings.pair_tasks.clear();
        let units = plan(&settings, &Config::new(2, 2, 8, 16, 32), 50);
        let kinds = |work: &Work| matches!(work, Work::Task(_) | Work::Circuits(_) | Work::Controls(_));
        assert!(units.iter().all(|unit| kinds(&unit.work)));
        assert!(units.iter().any(|unit| unit.name == "circuit-scheduled-top-k-hierarchy-split-by-rows"));
    }
}
