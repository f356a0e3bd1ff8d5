//! Circuit discovery in GPT-2: which parameters, edges and states carry a task?
//!
//! | module | a circuit is | found by |
//! |---|---|---|
//! | [`masks`] | a subset of the block parameters | training ([`BinaryConcrete`], [`ScheduledTopK`]), scores of weights |
//! | [`edges`] | a subset of the edges between heads and MLPs | attribution (EAP, EAP-IG, RelP, AtP*) and exact patching |
//! | [`tracing`] | the states that restore a fact | causal tracing |
//!
//! [`planted`] has models whose circuit is known. What is measured, ablated, minimised and trained is open: implement
//! [`Metric`], [`Ablation`](edges::Ablation), [`Objective`] or [`MaskTrainer`].
//!
//! ```
//! use locus_circuits::{MaskTrainer, ReadOut, ScheduledTopK, TaskObjective};
//! use locus_gpt2::{Config, Gpt2, ScoreHead};
//! use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};
//!
//! let config = Config::new(1, 1, 8, 16, 20);
//! let model = Gpt2::<f64>::init(&config, &mut ChaCha8Rng::seed_from_u64(1));
//! let head = ScoreHead { weight: ndarray::Array2::eye(8).view().split_at(ndarray::Axis(0), 2).0.to_owned() };
//! let sequences: Vec<Vec<u32>> = (0..6).map(|i| vec![i, i + 1]).collect();
//! let classes = head.predict(&model, &sequences)?; // what the full model says
//! let read_out = ReadOut::Head(&head, &classes);
//! let objective = TaskObjective { model: &model, read_out, sequences: &sequences };
//! let circuits = ScheduledTopK::default().train(&objective, &[0.5, 0.1], 7, &mut |_| {})?;
//! assert_eq!(circuits[1].mask.count(), (0.1 * 872.0f64).round() as usize); // exactly 10 % of 872 parameters
//! # Ok::<(), locus_gpt2::Error>(())
//! ```

pub mod edges;
pub mod masks;
mod noise;
pub mod planted;
pub mod tracing;

pub use edges::{EdgeScores, EdgeSet, Faithfulness, Metric, Pair, attribute_edges};
pub use masks::{BinaryConcrete, Circuit, MaskTrainer, Objective, ReadOut, ScheduledTopK, TaskObjective};
pub use tracing::{KnownFact, Tracing, trace_fact};

/// Parts that the crates of this workspace share, without a promise to others.
#[doc(hidden)]
pub mod internal {
    pub use crate::edges::{Formulation, gated_loss, run_circuit_as};
    pub use crate::masks::MANY_PARAMETERS;
    pub use crate::noise::Noise;
}

/// The README, whose example is a test too.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
