//! Data sets and edit requests: parsers that say what is wrong and where, deterministic random splits and streams, and a
//! downloader that verifies what it gets.
//!
//! | module | what |
//! |---|---|
//! | [`labelled`] | the study's labelled CSV files |
//! | [`requests`] | edit requests in the CounterFact, zsRE and EasyEdit layouts |
//! | [`pairs`] | clean and corrupted prompts for circuit discovery |
//! | [`dataset`] | a folder with all data of the study |
//! | [`grammar`] | a seeded grammar that makes such data, for the organism |
//! | [`split`](mod@split), [`seed`] | random splits and streams that are the same everywhere, always |
//! | [`manifest`], [`fetch`](mod@fetch), [`hash`] | what can be downloaded, and doing so |
//!
//! Nothing here knows a model, prints, or reads the clock or the environment; the network is used by [`fetch()`] alone.
//!
//! ```
//! use locus_data::{labelled, requests, split};
//!
//! let csv = b",text,label\n0,A cat is a kind of animal,1\n1,A cat is a kind of plant,0\n";
//! let rows = labelled::parse("hierarchy_label.csv", csv)?;
//! let parts = split(rows.len(), 0.5, 42, "hierarchy");
//! assert_eq!((parts.train.len(), parts.held_out.len()), (1, 1));
//!
//! let json = br#"[{"prompt": "A cat is a kind of", "subject": "A cat", "ground_truth": "animal", "target_new": "plant"}]"#;
//! let facts = requests::parse("requests.json", json)?;
//! assert_eq!(facts[0].prompt, "{} is a kind of");
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
pub mod hash;
pub mod labelled;
pub mod manifest;
pub mod pairs;
pub mod requests;
pub mod seed;
pub mod split;
mod types;

pub use dataset::{Family, StudyData, Task, task_names};
pub use error::DataError;
pub use fetch::{Fetched, fetch, fetch_through};
pub use manifest::{Entry, Manifest};
pub use split::{Split, split};
pub use types::{EditRequest, Labelled};
