//! Circuits of edges: which path from a writer to a reader of the residual stream carries the task?

mod attribution;
mod bridge;
mod evaluate;
pub mod export;
mod graph;
mod intervene;
mod metric;
mod pairs;
mod quadrature;
mod runs;
mod scores;
mod select;

pub use attribution::{Attribution, activation_magnitude, attribute_edges, attribute_edges_per_pair};
pub use bridge::edge_mask;
pub use evaluate::{
    Areas, Faithfulness, MIB_FRACTIONS, auroc, completeness, faithfulness_curve, minimality, random_edges,
    stability,
};
pub use graph::{Edge, Graph, Reader, Slot, Source};
pub use intervene::{Formulation, patch_edges, run_circuit, run_clean};
pub use metric::Metric;
pub use pairs::Pair;
pub use quadrature::Rule;
pub use runs::Reference;
pub use scores::{EdgeScores, Rank};
pub use select::EdgeSet;
