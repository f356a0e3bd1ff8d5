//! Editors on small random models in f64: invariants, limits, golden values, files.

mod golden;
mod hparams;
mod insertion;
mod many;
mod merge;
mod patches;
mod rome;
mod shapes;
mod statistics;
mod study;
mod support;
mod text;
mod tuning;
