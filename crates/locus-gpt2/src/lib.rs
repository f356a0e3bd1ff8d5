//! GPT-2 on ndarray, for people who take models apart: weights by name, packed ragged batches, a forward pass that can
//! be tapped at every named state, a backward pass written by hand, and parameter masks. Generic over `f32` and `f64`.
//!
//! ```
//! use locus_gpt2::{Batch, Config, Params};
//! use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};
//!
//! let config = Config::new(2, 2, 8, 16, 50); // layers, heads, width, context, vocabulary
//! let model = Params::<f32>::init(&config, &mut ChaCha8Rng::seed_from_u64(1));
//! let batch = Batch::new(&config, &[vec![3, 1, 4], vec![1, 5]])?; // two sequences, five rows, no padding
//! let hidden = model.hidden(&batch); // [5, 8]
//! let logits = model.logits(hidden.view()); // [5, 50]
//! assert_eq!(logits.dim(), (5, 50));
//! # Ok::<(), locus_gpt2::Error>(())
//! ```
//!
//! Reading order: [`Config`], [`Params`], [`Batch`], the forward pass ([`Tap`], [`Trace`]), the backward pass
//! ([`Params::backward`]), losses ([`PromptTargets`], [`ScoreHead`]), [`ParamMask`], files ([`Checkpoint`]).
//!
//! Results do not depend on the number of threads, provided the BLAS runs one thread per call: start programs with what
//! [`blas_environment`] says (the `locus` binary does so itself).

mod activation;
mod attention;
mod backward;
mod batch;
mod blas;
mod checkpoint;
mod chosen;
mod classify;
mod config;
mod error;
mod few_rows;
mod forward;
mod generate;
mod linalg;
mod loss;
mod mask;
mod optim;
mod params;
mod safetensors_io;
mod scalar;
mod thin;
mod tokenizer;
mod turned;

// Links the BLAS that the features chose.
use ndarray_linalg as _;

pub use batch::{Batch, distinct, pieces};
pub use blas::blas_environment;
pub use checkpoint::{Checkpoint, write_checkpoint};
pub use chosen::Chosen;
pub use classify::{HeadTraining, ScoreHead, argmax, cross_entropy, last_hidden, last_hidden_of, shuffle};
pub use config::Config;
pub use error::{Error, Result};
pub use forward::{Norm, Past, Site, Tap, Trace, select_rows};
pub use generate::Sampling;
pub use linalg::{add_column_sums, axpy, cut, dot, gemm};
pub use loss::{PromptTargets, Target, log_softmax, log_sum_exp, nll_of_row};
pub use mask::ParamMask;
pub use optim::{AdamW, Moments};
pub use params::{BlockParam, ParamId, Params};
pub use safetensors_io::{decode, file_shape, read_safetensors, write_atomically, write_safetensors};
pub use scalar::Scalar;
pub use tokenizer::Tokenizer;
