//! Mask trainers, which find circuits by training, and what they return.

use locus_gpt2::{ParamMask, Result, Scalar};

use super::objective::Objective;

/// A search for circuits of descending density: [`BinaryConcrete`](super::BinaryConcrete),
/// [`ScheduledTopK`](super::ScheduledTopK), or one of your own.
pub trait MaskTrainer<F: Scalar> {
    /// Trains one trajectory and returns a circuit per target, in the order of `targets` (descending densities in
    /// (0, 1]). The monitor hears of every step or epoch; a closure of [`MaskProgress`] will do.
    ///
    /// # Errors
    /// When a row does not fit the model, and whatever the monitor returns.
    fn train(
        &self,
        objective: &dyn Objective<F>,
        targets: &[f64],
        seed: u64,
        monitor: &mut dyn TrainingMonitor<F>,
    ) -> Result<Vec<Circuit>>;
}

/// What accompanies a training: hears of its progress, and may keep its state so that an interrupted training goes on
/// where it was. Closures of [`MaskProgress`] are monitors that keep nothing.
pub trait TrainingMonitor<F> {
    /// Hears how far the training has come, at every step or epoch.
    fn progress(&mut self, at: MaskProgress);

    /// The state that an interrupted run of this very training has left; asked for once, at the beginning. A training
    /// that goes on from it gives the same bytes as one that was never interrupted.
    fn resume(&mut self) -> Option<TrainingState<F>> {
        None
    }

    /// Offers the state after a step; the monitor decides whether to keep it.
    ///
    /// # Errors
    /// When the state cannot be written, which ends the training.
    fn offer(&mut self, _state: TrainingStateView<'_, F>) -> Result<()> {
        Ok(())
    }
}

impl<F, T: FnMut(MaskProgress)> TrainingMonitor<F> for T {
    fn progress(&mut self, at: MaskProgress) {
        self(at);
    }
}

/// State of a training between two steps: everything that its next step depends on beside what it was called with.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainingState<F> {
    /// Optimiser steps taken.
    pub steps: usize,
    /// Variables of the optimiser, in an order that is the recipe's own.
    pub arrays: Vec<Vec<F>>,
    /// Circuits found so far.
    pub circuits: Vec<Circuit>,
}

/// A borrowed [`TrainingState`].
#[derive(Clone, Debug)]
pub struct TrainingStateView<'a, F> {
    /// Optimiser steps taken.
    pub steps: usize,
    /// Variables of the optimiser, in an order that is the recipe's own.
    pub arrays: Vec<&'a [F]>,
    /// Circuits found so far.
    pub circuits: &'a [Circuit],
}

impl<F: Copy> TrainingState<F> {
    /// Copies the variables to where the recipe has them; `false`, and nothing is changed, when they do not fit.
    pub(super) fn restore<'a>(&self, variables: impl Iterator<Item = &'a mut [F]>) -> bool
    where
        F: 'a,
    {
        let mut variables: Vec<&mut [F]> = variables.collect();
        let fits = variables.len() == self.arrays.len()
            && variables.iter().zip(&self.arrays).all(|(here, kept)| here.len() == kept.len());
        if fits {
            variables.iter_mut().zip(&self.arrays).for_each(|(here, kept)| here.copy_from_slice(kept));
        }
        fits
    }
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
    /// all of them.
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
