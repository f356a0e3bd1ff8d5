//! A score per edge.

use ndarray::Array2;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::graph::{Edge, Graph};

/// Scores of every edge: estimated (or exact) change of the loss when the edge is ablated, mean over pairs. The loss is minus the metric where more is better, so an edge that helps has a positive
/// score.
#[derive(Clone, Debug, PartialEq)]
pub struct EdgeScores {
    graph: Graph,
    /// `[S, D]`, 0 where there is no edge. NaN is "not scored".
    values: Array2<f64>,
}

impl EdgeScores {
    /// Scores from a matrix; entries that are no edges are set to 0.
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

    /// Uniform random scores in (0, 1): the control for a ranking.
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

    /// The score of an edge.
    pub fn get(&self, edge: Edge) -> f64 {
        self.values[(edge.source, edge.destination)]
    }

    /// All scores, `[S, D]`.
    pub fn matrix(&self) -> &Array2<f64> {
        &self.values
    }

    /// Scores of the sources: the sum over a source's edges, which for EAP is the attribution of its whole output.
    pub fn node_scores(&self) -> Vec<f64> {
        self.values.rows().into_iter().map(|row| row.sum()).collect()
    }

    /// Edges from the highest to the lowest, ties row by row. Edges that are not scored come first: nothing is known
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

/// What edges are ranked by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RankBy {
    /// The size of the score, whatever its sign.
    Absolute,
    /// The score: edges that help before those that hurt.
    Signed,
}
