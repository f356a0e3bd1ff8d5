//! The GPT-2 organism that comes with the repository: its text, its training and its report card, all from one seed.
//!
//! GPT-2 cannot be fetched everywhere, and nobody can say what GPT-2 knows without testing it. The organism is a GPT-2 of
//! fewer than a million parameters that we taught exactly what the study's tasks ask: a two-level hierarchy of entities,
//! determiner-noun agreement and five kinds of attitude. This project's own backward pass trained it.

mod card;
mod recipe;
mod tokenizer;
mod train;

pub use card::Card;
pub use recipe::Recipe;
pub use tokenizer::train_tokenizer;
pub use train::{TrainingProgress, train};

/// Hyper-parameters of the editors for the organism, as `hparams.toml` beside it has them.
pub const HPARAMS: &str = include_str!("hparams.toml");
