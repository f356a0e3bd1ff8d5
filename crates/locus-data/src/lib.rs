//! Data sets and edit requests: parsers that say what is wrong and where, deterministic splits and random streams, and
//! a downloader that verifies what it gets.
//!
//! | module | what for |
//! |---|---|
//! | [`labelled`] | labelled sentences in CSV |
//! | [`requests`] | edit requests in the layouts of CounterFact, MQuAKE, RippleEdits, zsRE, WikiBigEdit, EasyEdit and KnowEdit; known facts |
//! | [`records`] | records that can be used, and those that cannot |
//! | [`pairs`] | clean and corrupted prompts for circuit discovery |
//! | [`dataset`] | a folder with all data of the study |
//! | [`grammar`] | a seeded grammar that makes such data, for the organism |
//! | [`groups`] | rows that say nearly the same, found by content |
//! | [`split`](mod@split), [`seed`] | random splits and streams that never change |
//! | [`manifest`], [`fetch`](mod@fetch) | what can be downloaded, and downloading it |
//!
//! Nothing here knows a model, prints, or reads the clock or the environment, but that [`fetch()`] waits and finds the
//! system's certificate authorities. Only it uses the network. Files
//! are written all or nothing.
//!
//! ```
//! use locus_data::{labelled, split};
//!
//! let csv = b",text,label\n0,A cat is a kind of animal,1\n1,A cat is a kind of plant,0\n";
//! let rows = labelled::parse("hierarchy_label.csv", csv)?;
//! let parts = split(rows.len(), 0.5, 42, "hierarchy");
//! assert_eq!((parts.train.len(), parts.held_out.len()), (1, 1));
//!
//! let error = labelled::parse("broken.csv", b"text,label\nA cat,yes\n").unwrap_err();
//! assert_eq!(error.to_string(), r#"broken.csv: line 2: column "label" is "yes"; expected 0 or 1"#);
//! # Ok::<(), locus_data::DataError>(())
//! ```

pub mod dataset;
mod error;
pub mod fetch;
mod files;
pub mod grammar;
pub mod groups;
pub mod labelled;
pub mod manifest;
pub mod pairs;
pub mod records;
pub mod requests;
pub mod seed;
pub mod split;
mod subject;

pub use dataset::{Family, StudyData, Task, task_names};
pub use error::{DataError, Result};
pub use fetch::{FetchOptions, FetchProgress, Fetched, Verified, fetch};
pub use labelled::Labelled;
pub use manifest::{Entry, EntryKind, Manifest};
pub use pairs::PromptPair;
pub use records::{Records, Skipped};
pub use requests::{EditRequest, KnownText};
pub use split::{Split, sample_groups, split, split_groups};
pub use subject::find_subject;

/// The README, whose examples are tests too.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
