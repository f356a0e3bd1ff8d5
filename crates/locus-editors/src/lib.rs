//! Knowledge editing in GPT-2.
//!
//! An editor takes a model and facts and returns an [`Edit`]: a [`Patch`] (which parameters change, by how much, and
//! the hash of the weights it was made for) and a report of how it came about. The model passed in is never changed:
//! copies of a [`Gpt2`] share their tensors until one is written to, so an edited model takes only the memory of the
//! tensors that changed.
//!
//! | editor | what changes |
//! |---|---|
//! | [`ClampedSgd`] | every parameter, each by a little (the fine-tuning of arXiv 2406.17241) |
//! | [`FineTuning`] | output matrix and bias of one MLP (`ft`, `ft-l`, `ft-m`) |
//! | [`Lora`] | query, key and value matrices of all layers, low rank |
//! | [`Rome`] | output matrix of one MLP, rank one, in closed form (`r-rome`, `rome`, `p-rome`) |
//! | [`Memit`] | output matrices of several MLPs, many facts at once, in closed form; EMMET and AlphaEdit too |
//! | [`UltraEdit`] | output matrices of several MLPs, from one gradient in closed form, without a subject |
//!
//! Edits made one after the other go through [`Editor::edit_after`], with an [`EditMemory`] of the earlier ones.
//!
//! ```
//! use locus_editors::{Context, Editor, Fact, KeyCovariance, Rome};
//! use locus_gpt2::{Config, Gpt2};
//! use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};
//!
//! let config = Config::new(2, 1, 8, 16, 20);
//! let model = Gpt2::<f64>::init(&config, &mut ChaCha8Rng::seed_from_u64(1));
//! // "1 2 3" is about subject 2; behind a prefix too.
//! let context = |tokens: &[u32], subject_last| Context { tokens: tokens.to_vec(), subject_last };
//! let contexts = vec![context(&[1, 2, 3], 1), context(&[9, 1, 2, 3], 2)];
//! let fact = Fact { contexts, kl_prompt: context(&[2, 7], 0), target: vec![4] };
//! let editor = Rome { layer: 0, ..Rome::default() }.with(KeyCovariance::identity(config.d_mlp()).into());
//! let edit = editor.edit(&model, &[fact], None)?;
//! assert!(edit.report.nll_after < edit.report.nll_before);
//! let edited = edit.patch.apply(&model)?;
//! assert_ne!(edited.sha256(), model.sha256());
//! # Ok::<(), locus_editors::Error>(())
//! ```
//!
//! [`Gpt2`]: locus_gpt2::Gpt2

mod editor;
mod error;
mod evaluation;
mod fact;
mod fine_tuning;
mod ft;
mod hparams;
mod insertion;
mod lora;
mod memit;
mod memory;
mod optimisation;
mod patch;
mod rome;
mod states;
mod statistics;
mod text;
mod ultra;

pub use editor::{Edit, Editor, Report, WriteFact, edit_one_by_one};
pub use error::{Error, Result};
pub use evaluation::{CaseNlls, EditCase, EditEvaluation, EditScores, evaluate_edit};
pub use fact::{Context, Fact, TokenRequest};
pub use fine_tuning::{ClampedSgd, LazyEdited};
pub use ft::{FineTuning, ScoredAt};
pub use hparams::{Hparams, renamed};
pub use insertion::{NullSpace, memit_update};
pub use lora::Lora;
pub use memit::{Memit, MemitEditor, SimilarKeys};
pub use memory::{EditMemory, FeatureMoments};
pub use optimisation::{TargetOptimisation, TargetVector};
pub use patch::{Delta, EditHistory, Patch};
pub use rome::{Rome, RomeEditor, Variant};
pub use statistics::{KeyCovariance, KeyMoments, KeyStatistics};
pub use text::{PREFIXES, prefixes, sample_prefixes, token_lines};
pub use ultra::UltraEdit;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
