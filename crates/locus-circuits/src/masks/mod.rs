//! Circuits of parameters: which block parameters still do a task when all others are set to zero?
//!
//! A circuit is a [`ParamMask`](locus_gpt2::ParamMask), parameter by parameter. An [`Objective`] says what it must
//! still do; for [`TaskObjective`] that is to choose as the full model does. A [`MaskTrainer`] searches for it:
//! [`BinaryConcrete`] is the published recipe, [`ScheduledTopK`] ours; both return one [`Circuit`] per density target
//! from a single trajectory. [`score_weights`] with [`top_k`] or [`top_k_per_tensor`] needs no search: one or a few
//! backward passes. [`Avoiding`] charges for the parameters of other circuits. [`WeightStrata`] makes the control masks
//! that every finding should be held against.

mod avoiding;
mod binary_concrete;
mod matched;
mod objective;
mod order;
mod scheduled;
mod task_objective;
mod top_k;
mod trainer;
mod weights;

pub use avoiding::Avoiding;
pub use binary_concrete::BinaryConcrete;
pub use matched::WeightStrata;
pub use objective::Objective;
pub use scheduled::ScheduledTopK;
#[doc(hidden)]
pub use task_objective::MANY_PARAMETERS;
pub use task_objective::{ReadOut, TaskObjective};
pub use top_k::{count_at_density, top_k, top_k_per_tensor};
pub use trainer::{
    Circuit, MaskProgress, MaskTrainer, Resampled, TrainingMonitor, TrainingState, TrainingStateView,
};
pub use weights::{WeightScore, score_weights, weight_attribution};
