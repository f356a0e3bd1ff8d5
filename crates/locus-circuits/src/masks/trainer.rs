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
///
/// Every purpose has an accessor of its own. A recipe that ends with one mask uses it for all; one that ends with
/// probabilities draws a mask for each.
#[derive(Clone, Debug, PartialEq)]
pub struct Circuit {
    /// The parameters kept: the mask whose density decides when a target is reached, and that is measured.
    pub mask: ParamMask,
    /// Further samples for the other purposes, from recipes that draw a mask at random; `None` means that `mask` serves
    /// all of them. A mask takes a byte for each block parameter (85 MB for GPT-2 small), so drop what is not needed.
    pub resampled: Option<Resampled>,
    /// Density asked for, in (0, 1].
    pub target_density: f64,
    /// Whether the density was reached before the recipe ran out of epochs.
    pub reached: bool,
    /// Epochs from the start of the trajectory to this circuit.
    pub epochs: usize,
    /// Optimiser steps from the start of the trajectory to this circuit.
    pub steps: usize,
}

impl Circuit {
    /// The mask that is measured.
    pub fn measured(&self) -> &ParamMask {
        &self.mask
    }

    /// The mask whose complement is measured.
    pub fn complement_source(&self) -> &ParamMask {
        self.resampled.as_ref().map_or(&self.mask, |resampled| &resampled.complement_source)
    }

    /// The mask that is written to a file.
    pub fn saved(&self) -> &ParamMask {
        self.resampled.as_ref().map_or(&self.mask, |resampled| &resampled.saved)
    }

    /// The mask inside which the model is edited.
    pub fn edited(&self) -> &ParamMask {
        self.resampled.as_ref().map_or(&self.mask, |resampled| &resampled.edited)
    }
}

/// Further samples of a circuit, each independent of the others given the probabilities: parameter `i` is kept with
/// probability `sigmoid(l_i)`. Their densities agree with that of [`Circuit::mask`] up to noise, so that one can be
/// slightly above the target.
///
/// Source: the code of arXiv 2406.17241, which draws a new mask wherever one is used.
#[derive(Clone, Debug, PartialEq)]
pub struct Resampled {
    /// The mask whose complement is measured.
    pub complement_source: ParamMask,
    /// The mask that is written to a file.
    pub saved: ParamMask,
    /// The mask inside which the model is edited.
    pub edited: ParamMask,
}

/// How far the training of a mask has come.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MaskProgress {
    /// Share of block parameters currently kept.
    pub density: f64,
    /// The next density to reach.
    pub next_target: f64,
}
