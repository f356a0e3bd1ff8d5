//! The protocol of the study (arXiv 2406.17241 with our additions): a model and data in, [`records`] of measurements
//! out.
//!
//! [`run()`] does the whole study; the other functions are its parts. `locus-tasks` prepares the tasks, [`EDITORS`]
//! names the editors, [`organism`] makes the bundled model. Everything that runs a model for the study is in this crate
//! and is compiled once for each number type, so that a change of tables, claims or the command line does not compile
//! it again.

pub mod benchmark;
mod circuit_evaluation;
mod circuit_overlap;
mod circuit_records;
mod controls;
mod cost;
mod discovery;
mod editor_table;
mod editors;
mod edits;
mod estimate;
mod extract;
mod held_out;
mod inspect;
mod mask_files;
mod masks;
mod neutral;
pub mod organism;
mod overlaps;
mod pace;
mod plan;
mod prepare;
pub mod progress;
mod prompt_tasks;
pub mod published;
pub mod records;
mod requests;
mod rivals;
mod run;
mod score;
pub mod selftest;
mod sequence;
mod settings;
mod store;
mod study;
mod tracing;
mod training_file;
mod write;

pub use circuit_evaluation::{Bench, EvaluationSettings, evaluate_edges, evaluate_mask};
pub use circuit_overlap::{CircuitComparison, Overlap, compare_edges, compare_masks_of_parameters};
pub use circuit_records::{Areas, CircuitEvaluation, CircuitMeasures, Removal, SizeMeasures};
pub use controls::{Controls, random_weights};
pub use cost::{Cost, Sizes};
pub use discovery::{PAIR_TASKS, agreement_pairs, discover, hierarchy_pairs};
pub use editor_table::{Constants, EDITORS, NamedEditor};
pub use editors::{COMPARED, Comparison, WritableScope, drift_text, prefixes};
pub use edits::{EditScope, Edits};
pub use estimate::Estimate;
pub use extract::{Extracted, Trajectory};
pub use held_out::{hold_out, pair_key};
pub use inspect::{
    AttentionPattern, Candidate, ComponentKind, Inspection, LensLayer, Part, Question, inspect,
};
pub use masks::compare_masks;
pub use neutral::NeutralText;
pub use pace::{Pace, StepPace};
pub use plan::{PlannedUnit, TrajectoryId, Work, plan};
pub use prepare::Preparation;
pub use prompt_tasks::PromptTask;
pub use published::{PublishedRun, published_runs};
pub use requests::{PreparedRequest, StudyRequest, components};
pub use rivals::{Chance, RivalFolder, RivalMeasures, RivalOverlap, RivalReport, RivalSettings, find_rivals};
pub use run::{run, run_unit};
pub use score::{Scored, score};
pub use sequence::{GrowthPoint, Sequence, write_sequence};
pub use settings::{
    FAMILY_TASKS, MAIN_DENSITIES, Preset, PublishedTrajectory, SWEEP, SWEEP_TASK, Settings, is_large,
};
pub use store::{Status, Store, Unit, WrittenPlan};
pub use tracing::{facts_of_requests, trace_all};
pub use training_file::TrainingFile;
pub use write::{Group, OVERFLOW, Outcome, Written, write_groups};

/// The README, whose examples are tests too.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
