//! Settings of a run of the study: what is run, and on how much data.

use locus_editors::Hparams;
use std::str::FromStr;

use crate::discovery::PAIR_TASKS;
use crate::published::for_task;
use crate::records::{HIERARCHY, PUBLISHED, SCHEDULED_TOP_K, renamed_preset};
use locus_circuits::internal::MANY_PARAMETERS;
use locus_circuits::{BinaryConcrete, ScheduledTopK};
use locus_data::{EditRequest, StudyData};
use locus_gpt2::{Config, HeadTraining, ParamMask};
use locus_tasks::SplitBy;
use serde::Serialize;

/// The two recipes to find a circuit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Preset {
    /// The published recipe ([`BinaryConcrete`]) with the constants of each task's published run.
    Published,
    /// The recipe of this project ([`ScheduledTopK`]): hard masks at a scheduled density.
    ScheduledTopK,
}

impl Preset {
    /// Both presets.
    pub const ALL: [Preset; 2] = [Preset::Published, Preset::ScheduledTopK];

    /// The name used in records and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Preset::Published => PUBLISHED,
            Preset::ScheduledTopK => SCHEDULED_TOP_K,
        }
    }
}

impl FromStr for Preset {
    type Err = String;

    /// The preset with a name; the error is a message to show after the name of the option.
    fn from_str(name: &str) -> Result<Self, String> {
        if let Some(preset) = Preset::ALL.into_iter().find(|p| p.name() == name) {
            return Ok(preset);
        }
        Err(match renamed_preset(name) {
            Some(present) => format!("{name} is now called {present}"),
            None => format!("{name:?} is no preset; expected {PUBLISHED} or {SCHEDULED_TOP_K}"),
        })
    }
}

/// Density targets of the size sweep, descending; one trajectory serves all.
pub const SWEEP: [f64; 5] = [0.50, 0.35, 0.25, 0.15, 0.05];
/// The two densities at which every task is studied.
pub const MAIN_DENSITIES: [f64; 2] = [0.50, 0.05];
/// The task of the size sweep.
pub const SWEEP_TASK: &str = HIERARCHY;
/// One task of each family, on which the published recipe is run beside ours, and all controls.
pub const FAMILY_TASKS: [&str; 3] = ["hierarchy", "blimp_dna1", "persona_e"];

/// What a run does, and on how much data.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Seed of everything random.
    pub seed: u64,
    /// `full` or `quick`.
    pub profile: &'static str,
    /// Preset whose circuits T2-T7 are about.
    pub main_preset: Preset,
    /// Tasks whose circuits are found with the main preset.
    pub tasks: Vec<String>,
    /// Tasks whose circuits are also found with the published recipe.
    pub published_tasks: Vec<String>,
    /// Tasks with all controls: masks of several seeds, masks trained on shuffled labels, masks of a model of random
    /// weights, edits of every kind, and the split by rows.
    pub control_tasks: Vec<String>,
    /// Number of seeds of a mask on the tasks with all controls.
    pub mask_seeds: usize,
    /// Whether circuits of the sweep's task are also trained on trajectories of their own and of equal length.
    pub own_trajectories: bool,
    /// Largest number of epochs of the published recipe in this run, where the published limit is larger.
    pub max_epochs: usize,
    /// The recipe of this project.
    pub scheduled_top_k: ScheduledTopK,
    /// What the split into rows to train on and to measure on moves as one.
    pub split: SplitBy,
    /// Largest number of rows of a task that are used, drawn in whole groups with the label shares of all rows.
    pub max_rows: usize,
    /// Largest number of requests that are edited; a hyponym and its hypernym follow each other.
    pub max_requests: usize,
    /// Number of uniformly random masks per density.
    pub random_draws: usize,
    /// Number of matched masks per circuit on the tasks with all controls; there is one on the others.
    pub matched_draws: usize,
    /// Density targets, descending.
    pub densities: Vec<f64>,
    /// Whether to edit (T2, T3, T4, T7).
    pub edits: bool,
    /// Whether editors are compared (X2).
    pub compare_editors: bool,
    /// Whether facts are traced (X3).
    pub trace: bool,
    /// Text for the key statistics of X2; without it they come from the neutral text of the data.
    pub text: Option<String>,
    /// Hyper-parameters of the editors of X2; without them the built-in ones of the model's shape.
    pub hparams: Option<Hparams>,
    /// Tasks whose circuits of edges are found (X1).
    pub pair_tasks: Vec<String>,
    /// Largest number of clean/corrupted pairs of a task; half are used to score edges, half to measure.
    pub max_pairs: usize,
}

/// Whether a model is so large that its steps and edits take seconds each: those of smaller models run side by side.
pub fn is_large(config: &Config) -> bool {
    ParamMask::n_maskable(config) > MANY_PARAMETERS
}

/// One trajectory of the published recipe: density targets of a task whose constants agree.
#[derive(Clone, Debug, PartialEq)]
pub struct PublishedTrajectory {
    /// The mask training.
    pub recipe: BinaryConcrete,
    /// The training of the score head that the circuits are found and measured with.
    pub head: HeadTraining,
    /// Density targets to pass, descending.
    pub densities: Vec<f64>,
}

impl Settings {
    /// The whole study.
    pub fn full(seed: u64, main_preset: Preset) -> Self {
        let all: Vec<String> = locus_data::task_names().iter().map(|&name| name.to_owned()).collect();
        let family: Vec<String> = FAMILY_TASKS.map(str::to_owned).to_vec();
        Settings {
            seed,
            profile: "full",
            main_preset,
            published_tasks: if main_preset == Preset::Published { Vec::new() } else { family.clone() },
            tasks: all,
            control_tasks: family,
            mask_seeds: 3,
            own_trajectories: true,
            max_epochs: 4000,
            scheduled_top_k: ScheduledTopK::default(),
            split: SplitBy::Groups,
            max_rows: usize::MAX,
            max_requests: usize::MAX,
            random_draws: 2,
            matched_draws: 2,
            densities: SWEEP.to_vec(),
            edits: true,
            compare_editors: true,
            trace: true,
            text: None,
            hparams: None,
            pair_tasks: PAIR_TASKS.map(str::to_owned).to_vec(),
            max_pairs: 96,
        }
    }

    /// What every unit of work depends on, as text. Which units there are is left out, as are texts and constants of
    /// editors: a unit that needs them names them itself.
    pub fn of_every_unit(&self) -> String {
        let Settings {
            seed,
            max_epochs,
            scheduled_top_k,
            split,
            max_rows,
            max_requests,
            random_draws,
            densities,
            max_pairs,
            profile: _,
            main_preset: _,
            tasks: _,
            published_tasks: _,
            control_tasks: _,
            mask_seeds: _,
            own_trajectories: _,
            matched_draws: _,
            edits: _,
            compare_editors: _,
            trace: _,
            text: _,
            hparams: _,
            pair_tasks: _,
        } = self;
        let sizes = (max_epochs, max_rows, max_requests, random_draws, max_pairs);
        format!("{:?}", (seed, scheduled_top_k, split, densities, sizes))
    }

    /// Whether circuits of the sweep's task are also found on a split by rows, to see what the split does to them.
    pub fn splits_by_rows(&self) -> bool {
        self.split == SplitBy::Groups && self.has_all_controls(SWEEP_TASK)
    }

    /// The requests of the data that the run is about.
    pub fn requests<'a>(&self, data: &'a StudyData) -> &'a [EditRequest] {
        &data.requests[..data.requests.len().min(self.max_requests)]
    }

    /// Number of matched masks per circuit of a task.
    pub fn matched_draws(&self, task: &str) -> usize {
        if self.has_all_controls(task) { self.matched_draws } else { self.matched_draws.min(1) }
    }

    /// Whether a task is one of those with all controls.
    pub fn has_all_controls(&self, task: &str) -> bool {
        self.control_tasks.iter().any(|name| name == task)
    }

    /// A smoke test of the whole study: one task per family, fewer rows, fewer requests and shorter schedules. At mask
    /// learning rates below 0.1 the published recipe cannot reach its targets in so few epochs; its rows then say so.
    pub fn quick(seed: u64, main_preset: Preset) -> Self {
        let mut settings = Settings::full(seed, main_preset);
        settings.profile = "quick";
        settings.tasks = FAMILY_TASKS.map(str::to_owned).to_vec();
        settings.published_tasks.truncate(1);
        settings.max_rows = 320;
        settings.max_requests = 24;
        settings.pair_tasks.truncate(2);
        settings.max_pairs = 24;
        settings.random_draws = 1;
        settings.control_tasks.truncate(1);
        settings.mask_seeds = 2;
        settings.own_trajectories = false;
        settings.matched_draws = 1;
        settings.max_epochs = 60;
        settings.scheduled_top_k.steps_per_target = 40;
        settings.scheduled_top_k.hold = 20;
        settings
    }

    /// Cuts a run down for a model whose steps and edits take seconds each ([`is_large`]), so that it fits a night on two
    /// cores: half as many rows a step, edits of 48 requests, two seeds of each mask, and one random and one matched mask
    /// where there would be two. A quick run also makes a fifth of the steps, and edits four requests.
    #[must_use]
    pub fn cut_for_large_model(mut self) -> Self {
        self.scheduled_top_k.batch_sequences = 64;
        self.max_requests = 48;
        self.mask_seeds = 2;
        self.random_draws = 1;
        self.matched_draws = 1;
        if self.profile != "quick" {
            return self;
        }
        self.max_rows = 160;
        self.max_requests = 4;
        self.max_pairs = 16;
        self.max_epochs = 12;
        self.scheduled_top_k.steps_per_target = 8;
        self.scheduled_top_k.hold = 4;
        self
    }

    /// The published mask training of a task at a density target: that of the run that [`for_task`] gives, cut off
    /// after [`Settings::max_epochs`].
    pub fn published_recipe(&self, task: &str, density: f64) -> BinaryConcrete {
        let recipe = for_task(task, density).mask_training();
        BinaryConcrete { max_epochs: recipe.max_epochs.min(self.max_epochs), ..recipe }
    }

    /// The published training of a task's score head at a density target: `hierarchy` has a learning rate of 0.01 at
    /// 5 % and of 0.001 at 15 and 35 %.
    pub fn head_training(&self, task: &str, density: f64) -> HeadTraining {
        for_task(task, density).head_training()
    }

    /// The trajectories of the published recipe that a task needs.
    ///
    /// One trajectory passes all density targets whose constants agree: learning rate and largest number of epochs of
    /// the mask, learning rate and epochs of the head. All tasks but one have a single trajectory; `hierarchy` has one
    /// for the larger targets (mask learning rate 0.1) and one for 5 % (0.01). Grouping goes by the published limits,
    /// not by those that [`Settings::max_epochs`] cuts, so that a shorter run has the same trajectories.
    pub fn published_trajectories(&self, task: &str) -> Vec<PublishedTrajectory> {
        let mut groups: Vec<(BinaryConcrete, PublishedTrajectory)> = Vec::new();
        for &density in &self.densities {
            let run = for_task(task, density);
            let (published, head) = (run.mask_training(), run.head_training());
            match groups.iter_mut().find(|(recipe, group)| (*recipe, group.head) == (published, head)) {
                Some((_, group)) => group.densities.push(density),
                None => {
                    let recipe = self.published_recipe(task, density);
                    groups.push((published, PublishedTrajectory { recipe, head, densities: vec![density] }));
                }
            }
        }
        groups.into_iter().map(|(_, group)| group).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trajectory_passes_the_targets_whose_constants_agree() {
        let settings = Settings::full(1, Preset::Published);
        let summary = |task: &str, settings: &Settings| -> Vec<(f64, usize, f64, Vec<f64>)> {
            let trajectories = settings.published_trajectories(task).into_iter();
            trajectories.map(|t| (t.recipe.lr, t.recipe.max_epochs, t.head.lr, t.densities)).collect()
        };
        let large = vec![0.50, 0.35, 0.25, 0.15];
        let expected = [(0.1, 3000, 0.001, large.clone()), (0.01, 4000, 0.01, vec![0.05])];
        assert_eq!(summary("hierarchy", &settings), expected);
        assert_eq!(summary("persona_ra", &settings), [(0.01, 4000, 0.01, SWEEP.to_vec())]);
        assert_eq!(summary("blimp_dnawa1", &settings), [(0.001, 4000, 0.001, SWEEP.to_vec())]);
        let quick = Settings::quick(1, Preset::Published);
        assert_eq!(summary("hierarchy", &quick), [(0.1, 60, 0.001, large), (0.01, 60, 0.01, vec![0.05])]);
    }

    /// What is cut for a large model: nothing of the tasks, sizes and tables of a default run.
    #[test]
    fn a_cut_run_has_the_same_tables() {
        let full = Settings::full(1, Preset::ScheduledTopK);
        let cut = full.clone().cut_for_large_model();
        let Settings { max_requests, mask_seeds, random_draws, matched_draws, scheduled_top_k, .. } = cut;
        assert!(max_requests < full.max_requests && mask_seeds > 1 && random_draws > 0 && matched_draws > 0);
        let restored = Settings {
            max_requests: full.max_requests,
            mask_seeds: full.mask_seeds,
            random_draws: full.random_draws,
            matched_draws: full.matched_draws,
            scheduled_top_k: full.scheduled_top_k,
            ..cut
        };
        assert_eq!(restored, full);
        assert_eq!(scheduled_top_k.steps_per_target, full.scheduled_top_k.steps_per_target);
    }
}
