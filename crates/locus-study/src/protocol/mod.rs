//! The study's protocol: tasks made ready, circuits extracted, edits made and measured.

mod discovery;
mod editors;
mod edits;
mod extract;
mod masks;
mod run;
mod settings;
mod task;
mod tracing;

pub use discovery::{PAIR_TASKS, agreement_pairs, discover, hierarchy_pairs};
pub(crate) use editors::MEMIT_PREFIXES;
pub use editors::{Comparison, WritableScope, lines, prefixes};
pub use edits::{IsolatedScope, PreparedRequest, edit_all};
pub use extract::{Extracted, extract};
pub use masks::compare_masks;
pub use run::{Store, run};
pub use settings::{FAMILY_TASKS, MAIN_DENSITIES, Preset, SWEEP, SWEEP_TASK, Settings};
pub use task::{PreparedTask, Rows};
pub use tracing::{facts_of_requests, trace_all};
