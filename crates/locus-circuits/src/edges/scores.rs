//! A score per edge.

use ndarray::Array2;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::graph::{Edge, Graph};

/// Scores of every edge: estimated (or exact) change of the loss when the edge is ablated, mean over pairs.
///
/// The loss is minus the metric where more is better, so an edge that helps has a positive score.
#[derive(Clone, Debug, PartialEq)]
pub struct EdgeScores {
    graph: Graph,
    /// Scores `[S, D]`: 0 where the graph has no edge, NaN for an edge without a score.
    values: Array2<f64>,
}

impl EdgeScores {
    /// Scores from a matrix `[S, D]`, NaN for edges without a score. Entries that are no edges are set to 0.
    ///
    /// # Panics
    /// When the matrix is not `[S, D]`.
    pub fn new(graph: Graph, mut values: Array2<f64>) -> Self {
        assert_eq!(values.dim(), (graph.n_sources(), graph.n_destinations()), "shape of a score matrix");
        for ((source, destination), value) in values.indexed_iter_mut() {
            if !graph.has(Edge { source, destination }) {
                *value = 0.0;
            }
        }
        EdgeScores { graph, values }
    }

    /// Uniform random scores in [0, 1): the control for a ranking.
    pub fn random(graph: Graph, rng: &mut ChaCha8Rng) -> Self {
        let mut values = Array2::zeros((graph.n_sources(), graph.n_destinations()));
        for edge in graph.edges() {
            values[(edge.source, edge.destination)] = rng.random::<f64>();
        }
        EdgeScores { graph, values }
    }

    /// The graph the scores belong to.
    pub fn graph(&self) -> Graph {
        self.graph
    }

    /// The score of an edge; NaN when it has none.
    pub fn get(&self, edge: Edge) -> f64 {
        self.values[(edge.source, edge.destination)]
    }

    /// All scores, `[S, D]`.
    pub fn matrix(&self) -> &Array2<f64> {
        &self.values
    }

    /// Scores of the sources, `[S]`: the sum over a source's edges, which for EAP is the attribution of its whole
    /// output.
    pub fn node_scores(&self) -> Vec<f64> {
        self.values.rows().into_iter().map(|row| row.sum()).collect()
    }

    /// Edges from the best to the worst, ties source by source. Edges without a score come first: nothing is known
    /// against them.
    pub fn ranked(&self, by: RankBy) -> Vec<Edge> {
        let mut edges: Vec<(f64, Edge)> = self
            .graph
            .edges()
            .map(|edge| {
                let score = self.get(edge);
                let key = if by == RankBy::Absolute { score.abs() } else { score };
                (if key.is_nan() { f64::INFINITY } else { key }, edge)
            })
            .collect();
        // Stable, so ties stay in the order of the rows.
        edges.sort_by(|(a, _), (b, _)| b.total_cmp(a));
        edges.into_iter().map(|(_, edge)| edge).collect()
    }
}

/// Order in which edges are ranked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RankBy {
    /// The absolute value of the score.
    Absolute,
    /// The score itself: edges that help come before those that hurt.
    Signed,
}
