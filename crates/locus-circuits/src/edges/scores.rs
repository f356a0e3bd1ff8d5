//! A score per edge.

use locus_metrics::rank::average_ranks;
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

    /// The `n` best sources (all when there are fewer) by their [`EdgeScores::node_scores`], as rows in the order of
    /// the forward pass.
    pub fn top_nodes(&self, n: usize, by: RankBy) -> Vec<usize> {
        let scores = self.node_scores();
        let mut rows = by.order(&scores);
        rows.truncate(n);
        rows.sort_unstable();
        rows
    }

    /// A hybrid of two rankings, such as one by attribution and one by learned masks: `1 - (r + s) / 2 m`, where `r`
    /// and `s` are the numbers of edges, of `m`, that each puts before this one, ties counting half. Only ranks count,
    /// so scores of different kinds can be combined; the better an edge, the nearer to 1.
    ///
    /// Source: ensembles of attribution and learned masks did best in MIB's shared task (arXiv 2511.18409); combining
    /// them by rank is ours.
    ///
    /// # Panics
    /// When the other scores are of another graph.
    pub fn hybrid(&self, other: &EdgeScores, by: RankBy) -> EdgeScores {
        assert_eq!(self.graph, other.graph, "scores of another graph");
        let edges: Vec<Edge> = self.graph.edges().collect();
        let ranks = |scores: &EdgeScores| {
            average_ranks(&edges.iter().map(|&edge| by.key(scores.get(edge))).collect::<Vec<_>>())
        };
        let mut values = Array2::zeros(self.values.dim());
        for ((edge, own), other) in edges.iter().zip(ranks(self)).zip(ranks(other)) {
            values[(edge.source, edge.destination)] = (own + other) / (2.0 * edges.len() as f64);
        }
        EdgeScores { graph: self.graph, values }
    }

    /// Edges from the best to the worst, ties source by source. Edges without a score come first: nothing is known
    /// against them.
    pub fn ranked(&self, by: RankBy) -> Vec<Edge> {
        let edges: Vec<Edge> = self.graph.edges().collect();
        let scores: Vec<f64> = edges.iter().map(|&edge| self.get(edge)).collect();
        by.order(&scores).into_iter().map(|i| edges[i]).collect()
    }
}

/// Order in which edges, nodes or neurons are ranked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RankBy {
    /// The absolute value of the score.
    Absolute,
    /// The score itself: edges that help come before those that hurt.
    Signed,
}

impl RankBy {
    /// What is larger for a better score. A score that is NaN is the best: nothing is known against it.
    fn key(self, score: f64) -> f64 {
        let key = if self == RankBy::Absolute { score.abs() } else { score };
        if key.is_nan() { f64::INFINITY } else { key }
    }

    /// Places of the scores from the best to the worst, ties in their order.
    pub(super) fn order(self, scores: &[f64]) -> Vec<usize> {
        let mut order: Vec<usize> = (0..scores.len()).collect();
        order.sort_by(|&a, &b| self.key(scores[b]).total_cmp(&self.key(scores[a])));
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_chacha::rand_core::SeedableRng;

    #[test]
    fn a_hybrid_of_equal_rankings_is_that_ranking() {
        let graph = Graph { n_layer: 2, n_head: 2 };
        let scores = EdgeScores::random(graph, &mut ChaCha8Rng::seed_from_u64(1));
        let grown = EdgeScores::new(graph, scores.matrix().mapv(|x| 7.0 * x.powi(3)));
        let both = scores.hybrid(&grown, RankBy::Signed);
        assert_eq!(both.ranked(RankBy::Absolute), scores.ranked(RankBy::Signed));
        let n = graph.n_edges() as f64;
        let best = scores.ranked(RankBy::Signed)[0];
        assert_eq!(both.get(best), 1.0);
        // Opposite rankings say nothing together.
        let against = EdgeScores::new(graph, scores.matrix().mapv(|x| -x));
        let nothing = scores.hybrid(&against, RankBy::Signed);
        assert!(graph.edges().all(|edge| nothing.get(edge) == (n + 1.0) / (2.0 * n)));
    }

    #[test]
    fn the_best_nodes_have_the_largest_sums() {
        let graph = Graph { n_layer: 1, n_head: 2 };
        let mut values = Array2::zeros((graph.n_sources(), graph.n_destinations()));
        let logits = graph.n_destinations() - 1;
        for (source, score) in [(0, 0.5), (1, -3.0), (2, 1.0), (3, 2.0)] {
            values[(source, logits)] = score;
        }
        let scores = EdgeScores::new(graph, values);
        assert_eq!(scores.top_nodes(2, RankBy::Absolute), [1, 3]);
        assert_eq!(scores.top_nodes(3, RankBy::Signed), [0, 2, 3]);
    }
}
