//! Integration tests of the model crate, in one binary so that it links once.

mod files;
mod golden;
mod gradients;
mod invariances;
mod support;
