//! The GPT-2 organism that comes with the repository: its text, its training and its report card, all from one seed.
//!
//! GPT-2 cannot be downloaded everywhere, and what it knows must be found out by testing. The organism is a GPT-2 of
//! fewer than a million parameters that was taught exactly what the study's tasks ask: a two-level hierarchy of
//! entities, determiner-noun agreement and five kinds of attitude. It was trained with this project's own backward
//! pass.

mod card;
mod recipe;
mod tokenizer;
mod train;

pub use card::Card;
pub use recipe::Recipe;
pub use tokenizer::train_tokenizer;
pub use train::{TrainingProgress, train};

/// Hyper-parameters of the editors for the organism, the text of its `hparams.toml`.
pub const HPARAMS: &str = include_str!("hparams.toml");
