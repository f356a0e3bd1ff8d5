//! Circuits of edges: which edges between source and destination nodes of the residual stream carry a task?
//!
//! [`Graph`] names sources, destinations and edges. [`attribute_edges`] (EAP, EAP-IG, RelP, AtP*) and [`patch_edges`]
//! (exact) make [`EdgeScores`] from [`Pair`]s; [`EdgeScores::top_n`] cuts an [`EdgeSet`] out of them, [`run_circuit`]
//! runs the model with all other edges ablated, [`Faithfulness`] measures it, and [`faithfulness_curves`] measures
//! circuits of all sizes. [`acdc`] and [`EdgePruning`] search for a circuit itself, [`hypothesis`] tests one.
//! [`CircuitFile`] is a file of scores and circuit, [`edge_mask`] turns the circuit into a mask of parameters. A
//! [`Metric`] says what is measured, an [`Ablation`] what an ablated edge carries; both are traits that you can
//! implement. [`EdgeSet::of_nodes`] is a circuit of nodes, a [`NeuronSet`] one of MLP neurons, and a [`PositionSet`]
//! one of edges at token positions.

mod ablation;
mod acdc;
mod attribution;
mod circuit_file;
mod curve;
mod edge_mask;
mod edge_pruning;
mod edge_set;
mod evaluate;
pub mod export;
mod gated;
mod gradients;
mod graph;
mod hard_concrete;
pub mod hypothesis;
mod intervene;
mod matched;
mod metric;
mod names;
mod neuronpedia;
mod neurons;
mod pairs;
mod positions;
mod qk_fix;
mod quadrature;
mod relevance;
mod rivals;
mod runs;
mod scores;
mod setting;
mod standard_ablation;

pub use ablation::{AblatedOutputs, Ablation, Fill};
pub use acdc::{AcdcCircuit, acdc};
pub use attribution::{
    Attribution, activation_magnitude, attribute_edges, attribute_edges_per_pair, attribute_positions,
};
pub use circuit_file::{CircuitFile, Layout};
pub use curve::{CurveAreas, FaithfulnessCurve, MIB_FRACTIONS, faithfulness_curves};
pub use edge_mask::{edge_mask, mask_edges};
pub use edge_pruning::{EdgePruning, LearnedEdges};
pub use edge_set::EdgeSet;
pub use evaluate::{Faithfulness, auroc, completeness, minimality, random_edges, stability};
#[doc(hidden)]
pub use gated::gated_loss;
pub use graph::{Destination, Edge, Graph, QkvInput, Source};
#[doc(hidden)]
pub use intervene::{Formulation, run_circuit_as};
pub use intervene::{patch_edges, run_circuit, run_clean, run_positions};
pub use matched::matched_edges;
pub use metric::{Kl, LogitDiff, Metric, ProbDiff, StandardMetric};
pub use neuronpedia::GraphTitle;
pub use neurons::{Neuron, NeuronScores, NeuronSet, attribute_neurons, run_neurons};
pub use pairs::Pair;
pub use positions::{EdgeAt, PositionScores, PositionSet};
pub use quadrature::QuadratureRule;
pub use rivals::{agreement, overlap};
pub use scores::{EdgeScores, RankBy};
pub use standard_ablation::StandardAblation;

pub use locus_metrics::{Interval, Stream};
