//! Knowledge editing in GPT-2.
//!
//! An editor takes a model and a request and returns an [`Edit`]: a [`Patch`] (what changes, by how much, and of which
//! base weights) and a report of how it came about. The model it is given is never changed: [`Params`] share their
//! tensors and copy what is written to, so an edited model costs what the edit changed and the original stays as it was.
//!
//! ```
//! use locus_editors::{StudyFineTuning, TokenRequest};
//! use locus_gpt2::{Config, Params};
//! use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};
//!
//! let config = Config::new(1, 1, 8, 16, 20);
//! let model = Params::<f64>::init(&config, &mut ChaCha8Rng::seed_from_u64(1));
//! let request = TokenRequest { prompt: vec![1, 2, 3], target: vec![4] };
//! let edit = StudyFineTuning::default().edit(&model, &request, None)?;
//! let edited = edit.patch.apply(&model)?;
//! assert!(edit.report.losses.len() <= 10);
//! assert_ne!(edited.sha256(), model.sha256());
//! # Ok::<(), locus_editors::Error>(())
//! ```
//!
//! [`Params`]: locus_gpt2::Params

mod error;
mod fine_tuning;
mod patch;

pub use error::{Error, Result};
pub use fine_tuning::StudyFineTuning;
pub use patch::Patch;

/// One fact to write: after `prompt`, say `target`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRequest {
    /// Tokens of the prompt, subject included.
    pub prompt: Vec<u32>,
    /// Tokens of the new target.
    pub target: Vec<u32>,
}

/// What an editor returns.
#[derive(Clone, Debug)]
pub struct Edit<F> {
    /// The change.
    pub patch: Patch<F>,
    /// How it came about.
    pub report: Report,
}

/// How an edit came about.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// Loss at the start of each step, in nats per target token.
    pub losses: Vec<f64>,
    /// Optimiser steps taken.
    pub steps: usize,
}
