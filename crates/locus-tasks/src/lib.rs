//! Labelled sentences as a task for a GPT-2: the rows are tokenised and split, a linear score head is trained on the
//! model's last-token states, and the classes that the full model chooses are recorded, which a circuit must reproduce.
//!
//! [`Task::from_csv`] prepares a file, [`Task::new`] texts and classes in memory (any number of classes).
//! [`Task::objective`] is for the mask trainers of `locus-circuits`; [`Task::agreement`] and [`Task::accuracy`] measure
//! a mask on rows that neither head nor mask have seen.
//!
//! Source of the procedure: arXiv 2406.17241, section 3 (80/20 split, linear head on frozen states, agreement with the
//! full model's choices).

mod error;
mod task;

pub use error::{Error, Result};
pub use task::{Rows, SplitBy, SplitOptions, Task};

/// The README, whose examples are tests too.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
