//! Mask trainers, which find circuits by training, and what they return.

use locus_gpt2::{ParamMask, Result, Scalar};

use super::objective::Objective;

/// A search for circuits of descending density: [`BinaryConcrete`](super::BinaryConcrete),
/// [`ScheduledTopK`](super::ScheduledTopK), or one of your own.
pub trait MaskTrainer<F: Scalar> {
    /// Trains one trajectory and returns a circuit per target, in the order of `targets` (one or more, descending
    /// densities in (0, 1]). `progress` is called at every step or epoch.
    ///
    /// # Errors
    /// When a row does not fit the model.
    fn train(
        &self,
        objective: &dyn Objective<F>,
        targets: &[f64],
        seed: u64,
        progress: &mut dyn FnMut(MaskProgress),
    ) -> Result<Vec<Circuit>>;
}

/// A circuit found for one density target.
#[derive(Clone, Debug, PartialEq)]
pub struct Circuit {
    /// The parameters kept.
    pub mask: ParamMask,
    /// Density asked for, in (0, 1].
    pub target_density: f64,
    /// Whether the density was reached before the recipe ran out of epochs.
    pub reached: bool,
    /// Epochs from the start of the trajectory to this circuit.
    pub epochs: usize,
    /// Optimiser steps from the start of the trajectory to this circuit.
    pub steps: usize,
}

/// How far the training of a mask has come.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MaskProgress {
    /// Share of block parameters currently kept.
    pub density: f64,
    /// The next density to reach.
    pub next_target: f64,
}
