//! The embedded GPT-2 organism: its text, its training and its report card, all from one seed.
//!
//! Nobody can fetch GPT-2 everywhere, and nobody can say what GPT-2 knows without testing it. The organism is a GPT-2 of
//! less than a million parameters that was taught, by us, exactly what the study's tasks ask: a two-level hierarchy of
//! entities, determiner-noun agreement and five kinds of attitude. It is trained with this project's own backward pass.

mod card;
mod recipe;
mod tokenizer;
mod train;

pub use card::Card;
pub use recipe::Recipe;
pub use tokenizer::train_tokenizer;
pub use train::{TrainingProgress, train};
