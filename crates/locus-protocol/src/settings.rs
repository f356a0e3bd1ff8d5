//! Settings of a run of the study: what is run, and on how much data.

use locus_editors::Hparams;
use std::str::FromStr;

use crate::discovery::PAIR_TASKS;
use crate::records::{HIERARCHY, PUBLISHED, SCHEDULED_TOP_K, renamed_preset};
use locus_circuits::{BinaryConcrete, ScheduledTopK};
use locus_tasks::SplitBy;
use serde::Serialize;

/// The two recipes to find a circuit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Preset {
    /// The published recipe ([`BinaryConcrete`]), unchanged.
    Published,
    /// The recipe of this project ([`ScheduledTopK`]): hard masks at a scheduled density.
    ScheduledTopK,
}

impl Preset {
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
        if let Some(preset) =
            [Preset::Published, Preset::ScheduledTopK].into_iter().find(|p| p.name() == name)
        {
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
/// One task of each family, on which the published recipe is run beside ours, and the control with shuffled labels.
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
    /// Tasks on which the shuffled-label control runs.
    pub shuffled_tasks: Vec<String>,
    /// The published recipe.
    pub published: BinaryConcrete,
    /// The recipe of this project.
    pub scheduled_top_k: ScheduledTopK,
    /// What the split into rows to train on and to measure on moves as one.
    pub split: SplitBy,
    /// Largest number of rows of a task that are used, drawn in whole groups with the label shares of all rows.
    pub max_rows: usize,
    /// Largest number of requests that are edited; a hyponym and its hypernym follow each other.
    pub max_requests: usize,
    /// Number of random masks per circuit in the control of T1.
    pub random_draws: usize,
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
            shuffled_tasks: family,
            published: BinaryConcrete::default(),
            scheduled_top_k: ScheduledTopK::default(),
            split: SplitBy::Groups,
            max_rows: usize::MAX,
            max_requests: usize::MAX,
            random_draws: 5,
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

    /// A smoke test of the whole study: one task per family, fewer rows, fewer requests and shorter schedules. The
    /// published recipe cannot reach its targets in so few epochs, which its rows then say.
    pub fn quick(seed: u64, main_preset: Preset) -> Self {
        let mut settings = Settings::full(seed, main_preset);
        settings.profile = "quick";
        settings.tasks = FAMILY_TASKS.map(str::to_owned).to_vec();
        settings.published_tasks.truncate(1);
        settings.max_rows = 320;
        settings.max_requests = 24;
        settings.pair_tasks.truncate(2);
        settings.max_pairs = 24;
        settings.random_draws = 2;
        settings.published.max_epochs = 60;
        settings.scheduled_top_k.steps_per_target = 40;
        settings.scheduled_top_k.hold = 20;
        settings
    }
}
