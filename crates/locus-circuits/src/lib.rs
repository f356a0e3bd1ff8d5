//! Circuit discovery in GPT-2: which of the block parameters still do a task when all others are zero?
//!
//! A circuit is a [`ParamMask`]: a subset of the block parameters, scalar by scalar. An
//! [`Objective`] says what it must still do (choose the class the full model chooses). Two recipes search for it,
//! [`BinaryConcrete`] as the study published it and [`ScheduledTopK`], ours; both return one [`Circuit`] per density
//! target from a single trajectory. [`score_weights`] with [`top_k`] or [`top_k_per_tensor`] needs no search: one or a few
//! backward passes.
//!
//! ```
//! use locus_circuits::{Objective, ReadOut, ScheduledTopK};
//! use locus_gpt2::{Config, Gpt2, ScoreHead};
//! use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};
//!
//! let config = Config::new(1, 1, 8, 16, 20);
//! let model = Gpt2::<f64>::init(&config, &mut ChaCha8Rng::seed_from_u64(1));
//! let head = ScoreHead { weight: ndarray::Array2::eye(8).view().split_at(ndarray::Axis(0), 2).0.to_owned() };
//! let sequences: Vec<Vec<u32>> = (0..6).map(|i| vec![i, i + 1]).collect();
//! let classes = head.predict(&model, &sequences)?; // what the full model says
//! let read_out = ReadOut::Head(&head, &classes);
//! let objective = Objective { model: &model, read_out, sequences: &sequences };
//! let circuits = ScheduledTopK::default().train(&objective, &[0.5, 0.1], 7, &mut |_| {})?;
//! assert_eq!(circuits[1].mask.count(), (0.1 * 872.0f64).round() as usize); // exactly 10 % of 872 parameters
//! # Ok::<(), locus_gpt2::Error>(())
//! ```

mod attribution;
mod binary_concrete;
mod cut;
mod edges;
mod noise;
mod objective;
pub mod planted;
mod scheduled;
mod tracing;

use locus_gpt2::ParamMask;

pub use attribution::{WeightScore, score_weights, weight_attribution};
pub use binary_concrete::BinaryConcrete;
pub use cut::{count_at_density, top_k, top_k_per_tensor};
pub use edges::{
    Areas, Attribution, Edge, EdgeScores, EdgeSet, Faithfulness, Formulation, Graph, MIB_FRACTIONS, Metric,
    Pair, Rank, Reader, Reference, Rule, Slot, Source, activation_magnitude, attribute_edges,
    attribute_edges_per_pair, auroc, completeness, edge_mask, export, faithfulness_curve, minimality,
    patch_edges, random_edges, run_circuit, run_clean, stability,
};
pub use noise::Noise;
pub use objective::{MANY_PARAMETERS, Objective, ReadOut};
pub use scheduled::ScheduledTopK;
pub use tracing::{
    Effects, KnownFact, MeanEffects, Place, Restored, Tracing, average_effects, corrupted_embeddings,
    embedding_deviation, trace_fact,
};

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
