//! GPT-2 for mechanistic interpretability: weights by name, packed ragged batches, a forward pass with a hook at every
//! named state, a backward pass written by hand, and parameter masks. Generic over `f32` and `f64`.
//!
//! ```
//! use locus_gpt2::{Batch, Config, Gpt2};
//! use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};
//!
//! let config = Config::new(2, 2, 8, 16, 50); // layers, heads, width, context, vocabulary
//! let model = Gpt2::<f32>::init(&config, &mut ChaCha8Rng::seed_from_u64(1));
//! let batch = Batch::new(&config, &[vec![3, 1, 4], vec![1, 5]])?; // two sequences, five rows, no padding
//! let logits = model.run(&batch).logits(); // [5, 50]
//! assert_eq!(logits.dim(), (5, 50));
//! # Ok::<(), locus_gpt2::Error>(())
//! ```
//!
//! Reading order: [`Config`], [`Gpt2`], [`Batch`], the forward pass ([`Gpt2::run`], [`HookPoint`],
//! [`ActivationCache`]), the backward pass ([`Tape`], [`Gpt2::backward`]), losses ([`PromptTargets`], [`ScoreHead`]),
//! [`ParamMask`], [`lens`], files ([`Checkpoint`]).
//!
//! Results do not depend on the number of threads, provided the BLAS runs one thread per call: start programs with what
//! [`blas_environment`] says (the `locus` binary does so itself).

mod checkpoint;
mod config;
mod error;
mod files;
mod io;
mod kernels;
pub mod lens;
mod mask;
mod model;
mod random;
mod scalar;
mod tensor_mask;
mod training;

// Links the BLAS that the features chose.
use ndarray_linalg as _;

pub use ndarray;
pub use rand_chacha;

pub use checkpoint::{Checkpoint, NextToken, holds_model, write_checkpoint, write_edited_checkpoint};
pub use config::Config;
pub use error::{Error, Result};
pub use io::safetensors::{read_safetensors, write_safetensors};
pub use io::tokenizer::Tokenizer;
pub use kernels::blas::blas_environment;
pub use kernels::number::Number;
pub use kernels::vector::{axpy, dot};
pub use mask::ParamMask;
pub use model::batch::{Batch, chunk_by_tokens, unique_inverse};
pub use model::cache::ActivationCache;
pub use model::entries::ParamEntries;
pub use model::forward::Norm;
pub use model::generate::Sampling;
pub use model::hooks::{Hook, HookPoint, PatternHook};
pub use model::ids::{BlockParam, ParamId};
pub use model::kv_cache::KvCache;
pub use model::run::Run;
pub use model::tape::Tape;
pub use model::weights::{Gpt2, ParamSet};
pub use scalar::{Job, Scalar, gemm};
pub use tensor_mask::TensorMask;
pub use training::loss::{PromptTargets, Target, log_softmax, log_sum_exp};
pub use training::optim::{AdamW, Moments};
pub use training::score_head::{HeadTraining, ScoreHead, argmax, cross_entropy, last_hidden, last_hidden_of};

/// Parts that the crates of this workspace share, without a promise to others.
#[doc(hidden)]
pub mod internal {
    pub use crate::error::printable;
    pub use crate::io::safetensors::{decode, file_shape};
    pub use crate::io::weights::{by_short_name, short_name};
    pub use crate::io::write::write_atomically;
    pub use crate::kernels::split::{split_lengths, split_rows, split_rows_view};
    pub use crate::kernels::vector::add_column_sums;
    pub use crate::model::run::select_rows;
    pub use crate::random::{box_muller, shuffle};
    pub use crate::training::loss::nll_of_row;
}

/// The README, whose examples are tests too.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
