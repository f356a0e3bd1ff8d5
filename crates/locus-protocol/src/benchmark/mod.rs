//! Benchmark of editors (`locus benchmark`): each editor writes the requests of a file, and every definition of success
//! in use is computed from the same answers.
//!
//! A [`Case`] is what is asked about a request, an [`Observation`] what a model answered, [`MEASURES`] what is made of
//! the answers before and after an edit. [`Benchmark`] lets editors write one request at a time, in batches or in
//! sequence; finished requests are kept in a [`Store`](crate::Store).

mod case;
mod measures;
mod run;
mod summary;

pub use case::{Answer, Case, Generation, Observation, Probe, ProbeKind};
pub use measures::{Drift, Judged, MEASURES, Measure, SCORES, Score, Unit};
pub use run::{Benchmark, CaseResult, Contestant, Mode};
pub use summary::{CaseSummary, EditorSummary, Estimate};
