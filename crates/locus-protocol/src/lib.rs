//! The protocol of the study (arXiv 2406.17241 with our additions): a model and data in, [`records`] of measurements
//! out.
//!
//! [`run()`] does the whole study; the other functions are its parts. `locus-tasks` prepares the tasks, [`EDITORS`]
//! names the editors, [`organism`] makes the bundled model. Everything that runs a model for the study is in this crate
//! and is compiled once for each number type, so that a change of tables, claims or the command line does not compile
//! it again.

mod controls;
mod discovery;
mod editor_table;
mod editors;
mod edits;
mod extract;
mod inspect;
mod mask_files;
mod masks;
mod neutral;
pub mod organism;
mod overlaps;
mod prepare;
pub mod progress;
pub mod published;
pub mod records;
mod requests;
mod run;
mod score;
pub mod selftest;
mod settings;
mod store;
mod tracing;
mod training_file;
mod write;

pub use controls::{Controls, random_weights};
pub use discovery::{PAIR_TASKS, agreement_pairs, discover, hierarchy_pairs};
pub use editor_table::{Constants, EDITORS, NamedEditor};
pub use editors::{Comparison, WritableScope, prefixes};
pub use edits::{EditScope, Edits};
pub use extract::{Extracted, Trajectory};
pub use inspect::{
    AttentionPattern, Candidate, ComponentKind, Inspection, LensLayer, Part, Question, inspect,
};
pub use masks::compare_masks;
pub use neutral::NeutralText;
pub use prepare::Preparation;
pub use published::{PublishedRun, published_runs};
pub use requests::{PreparedRequest, StudyRequest, components};
pub use run::run;
pub use score::{Scored, score};
pub use settings::{
    FAMILY_TASKS, MAIN_DENSITIES, Preset, PublishedTrajectory, SWEEP, SWEEP_TASK, Settings, is_large,
};
pub use store::{Store, Unit};
pub use tracing::{facts_of_requests, trace_all};
pub use training_file::TrainingFile;
pub use write::{Group, Outcome, Written, write_groups};

/// The README, whose examples are tests too.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
