//! Estimated cost of the units of a plan, in floating-point operations.
//!
//! A pass forward of `n` tokens through `N` block parameters costs `2 n N`, one forward and back `6 n N`. Heads,
//! attention over a few dozen tokens and the arithmetic on masks are left out, so that an estimate is a lower bound of
//! the right order. The published recipe stops when a density is reached; at most [`EPOCHS_COUNTED`] of its epochs are
//! counted.

use std::collections::BTreeMap;

use crate::edits::EditScope;
use crate::plan::{PlannedUnit, TrajectoryId, Work, kinds};
use crate::records::{EditKind, Schedule};
use crate::settings::{Preset, Settings};

/// Epochs of the published recipe that are counted, at most.
const EPOCHS_COUNTED: usize = 200;
/// Share of the rows that masks are trained on.
const TRAINED_ON: f64 = 0.8;
/// Passes forward and back over the pairs of a task that finding and measuring circuits of edges takes.
const PASSES_OF_EDGES: f64 = 40.0;
/// Steps of the search for a target vector, and passes that measure an edit, per request and editor.
const STEPS_OF_EDITOR: f64 = 30.0;
/// Runs of the model per traced fact: states, layers and draws of noise.
const RUNS_OF_TRACING: f64 = 400.0;

/// Sizes that the cost of a plan depends on.
#[derive(Clone, Debug)]
pub struct Sizes {
    /// Block parameters of the model.
    pub params: usize,
    /// Rows of each task, and their mean length in tokens.
    pub rows: BTreeMap<String, (usize, f64)>,
    /// Mean length of a request's prompt with its target, in tokens.
    pub request_tokens: f64,
    /// Number of requests.
    pub requests: usize,
}

impl Sizes {
    /// Estimated floating-point operations of a unit.
    pub fn flops(&self, unit: &PlannedUnit, settings: &Settings) -> f64 {
        let forward = 2.0 * self.params as f64;
        let training = 3.0 * forward;
        let requests = |n: f64| n * self.request_tokens;
        match &unit.work {
            Work::Task(task) => 2.0 * self.tokens(task, settings) * forward,
            Work::Circuits(id) => {
                let held_out = (1.0 - TRAINED_ON) * self.tokens(&id.task, settings);
                let measured = 2.0 * id.densities(settings).len() as f64 * held_out * forward;
                self.trained_tokens(id, settings) * training + measured
            }
            Work::Controls(id) => {
                let masks = 1 + settings.matched_draws(&id.task) + settings.random_draws;
                let masks = (masks * id.densities(settings).len()) as f64;
                2.0 * masks * (1.0 - TRAINED_ON) * self.tokens(&id.task, settings) * forward
            }
            Work::Calibration => requests(10.0 * 10.0 * self.requests.min(32) as f64) * training,
            Work::Edits { scope, part: (number, size), .. } => {
                let n = self.requests.saturating_sub(number * size).min(*size) as f64;
                requests(n * steps(scope, settings)) * training
            }
            Work::Edges(_) | Work::EdgeMasks => {
                requests(PASSES_OF_EDGES * settings.max_pairs as f64) * training
            }
            Work::Unedited => requests(4.0 * self.requests as f64) * forward,
            Work::Editor { .. } => requests(STEPS_OF_EDITOR * self.requests as f64) * training,
            Work::Tracing => requests(RUNS_OF_TRACING * self.requests as f64) * forward,
        }
    }

    /// Tokens of the rows of a task that are used.
    fn tokens(&self, task: &str, settings: &Settings) -> f64 {
        let (rows, tokens) = self.rows.get(task).copied().unwrap_or_default();
        rows.min(settings.max_rows) as f64 * tokens
    }

    /// Tokens that a trajectory is trained on, over all of its steps.
    fn trained_tokens(&self, id: &TrajectoryId, settings: &Settings) -> f64 {
        let all = TRAINED_ON * self.tokens(&id.task, settings);
        match id.preset {
            Preset::Published => {
                let recipes = settings.published_trajectories(&id.task);
                recipes.iter().map(|run| run.recipe.max_epochs.min(EPOCHS_COUNTED) as f64 * all).sum()
            }
            Preset::ScheduledTopK => {
                let recipe = &settings.scheduled_top_k;
                let (rows, _) = self.rows.get(&id.task).copied().unwrap_or_default();
                let rows = (TRAINED_ON * rows.min(settings.max_rows) as f64).max(1.0);
                let share = (recipe.batch_sequences as f64 / rows).min(1.0);
                let targets = settings.densities.len() as f64;
                let length = if id.schedule == Schedule::OwnTrajectory { 2.0 } else { 1.0 };
                (targets * length * recipe.steps_per_target as f64 * share + 1.0) * all
            }
        }
    }
}

/// Steps of all edits of a request in a scope.
fn steps(scope: &EditScope, settings: &Settings) -> f64 {
    let of = |kind: &EditKind| match kind {
        EditKind::Steps10 | EditKind::Calibrated => 10.0,
        // For every other pair, and the first ten are counted already.
        EditKind::Steps50 => 20.0,
    };
    kinds(scope, settings).iter().map(of).sum()
}

#[cfg(test)]
mod tests {
    use locus_gpt2::Config;

    use super::*;
    use crate::plan::plan;

    /// Every unit costs something, and twice the parameters cost twice as much.
    #[test]
    fn cost_goes_with_the_parameters() {
        let settings = Settings::full(1, Preset::ScheduledTopK);
        let rows = settings.tasks.iter().map(|task| (task.clone(), (100, 12.0))).collect();
        let sizes = Sizes { params: 1000, rows, request_tokens: 8.0, requests: 20 };
        let twice = Sizes { params: 2000, ..sizes.clone() };
        for unit in plan(&settings, &Config::new(2, 2, 8, 16, 32), sizes.requests) {
            let flops = sizes.flops(&unit, &settings);
            assert!(flops > 0.0, "{}", unit.name);
            assert_eq!(twice.flops(&unit, &settings), 2.0 * flops, "{}", unit.name);
        }
    }

    /// Five targets of 90 steps with all 80 rows of 12 tokens, and the pass before the first step.
    #[test]
    fn a_trajectory_costs_its_steps() {
        let settings = Settings::full(1, Preset::ScheduledTopK);
        let rows = [("hierarchy".to_owned(), (100, 12.0))].into();
        let sizes = Sizes { params: 1000, rows, request_tokens: 8.0, requests: 20 };
        let units = plan(&settings, &Config::new(2, 2, 8, 16, 32), sizes.requests);
        let unit = units.iter().find(|unit| unit.name == "circuit-scheduled-top-k-hierarchy").unwrap();
        let trained = (5.0 * 90.0 + 1.0) * 80.0 * 12.0 * 6000.0;
        let measured = 2.0 * 5.0 * 20.0 * 12.0 * 2000.0;
        let flops = sizes.flops(unit, &settings);
        assert!((flops / (trained + measured) - 1.0).abs() < 1e-12, "{flops}");
    }
}
