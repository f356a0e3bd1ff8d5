//! Circuit discovery in GPT-2: which of the block parameters still do a task when all others are zero?

mod attribution;
mod binary_concrete;
mod cut;
mod noise;
mod objective;
mod scheduled;

use locus_gpt2::ParamMask;

pub use attribution::weight_attribution;
pub use binary_concrete::BinaryConcrete;
pub use cut::{count_at_density, top_k};
pub use noise::Noise;
pub use objective::Objective;
pub use scheduled::ScheduledTopK;

/// A circuit found for one density target.
#[derive(Clone, Debug, PartialEq)]
pub struct Circuit {
    /// The parameters kept.
    pub mask: ParamMask,
    /// Density asked for, in (0, 1].
    pub target_density: f64,
    /// Whether the recipe got there before it ran out of epochs.
    pub reached: bool,
    /// Epochs taken up to this circuit.
    pub epochs: usize,
    /// Optimiser steps taken up to this circuit.
    pub steps: usize,
}

/// Where a training run is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Progress {
    /// Share of parameters currently inside.
    pub density: f64,
    /// The next density to reach.
    pub next_target: f64,
}
