//! Integration tests of the model crate, in one binary so that it links once.

mod files;
mod golden;
mod gradients;
mod hooks;
mod invariances;
mod lens;
mod refusals;
mod score_head;
mod support;
mod variants;
