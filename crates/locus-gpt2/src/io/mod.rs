//! Files: safetensors, tokenizers, and the one way files are written. Knows files, not passes.

pub(crate) mod caught;
pub(crate) mod edited;
pub(crate) mod safetensors;
pub(crate) mod tokenizer;
pub(crate) mod weights;
pub(crate) mod write;
