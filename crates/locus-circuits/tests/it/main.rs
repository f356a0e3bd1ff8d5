//! Integration tests of the circuit crate, in one binary so that it links once.

mod avoiding;
mod binary_concrete;
mod cpr;
mod cut;
mod edges;
mod golden;
mod gradients;
mod interrupted;
mod learned;
mod open;
mod panics;
mod planted;
mod positions;
mod rules;
mod scheduled;
mod support;
mod tracing;
