//! Sets of edges: cutting a circuit out of scores, and pruning what is not connected.

use std::collections::BinaryHeap;

use super::graph::{Destination, Edge, Graph, Source};
use super::scores::{EdgeScores, RankBy};

/// A subset of a graph's edges.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EdgeSet {
    graph: Graph,
    /// Whether each edge is in, `[S, D]` row-major; false where the graph has no edge.
    inside: Vec<bool>,
}

impl EdgeSet {
    /// The set without edges.
    pub fn empty(graph: Graph) -> Self {
        EdgeSet { graph, inside: vec![false; graph.n_sources() * graph.n_destinations()] }
    }

    /// The set of all edges.
    pub fn full(graph: Graph) -> Self {
        EdgeSet::from_edges(graph, graph.edges())
    }

    /// The set of the given edges.
    ///
    /// # Panics
    /// When one is not in the graph.
    pub fn from_edges(graph: Graph, edges: impl IntoIterator<Item = Edge>) -> Self {
        let mut set = EdgeSet::empty(graph);
        edges.into_iter().for_each(|edge| set.insert(edge));
        set
    }

    /// The circuit of some nodes, given as rows: the edges between two of them and from one of them to the logits. To
    /// run it is to ablate the outputs of all other nodes.
    ///
    /// # Panics
    /// When there is no such row.
    pub fn of_nodes(graph: Graph, rows: &[usize]) -> Self {
        let mut is_in = vec![false; graph.n_sources()];
        rows.iter().for_each(|&row| is_in[row] = true);
        let inside = |edge: &Edge| {
            let reader = graph.node_of(graph.destination(edge.destination));
            is_in[edge.source] && reader.is_none_or(|node| is_in[graph.row(node)])
        };
        EdgeSet::from_edges(graph, graph.edges().filter(inside))
    }

    /// The graph whose edges these are.
    pub fn graph(&self) -> Graph {
        self.graph
    }

    /// Whether an edge is inside; one that the graph does not have never is.
    pub fn contains(&self, edge: Edge) -> bool {
        self.graph.has(edge) && self.inside[edge.source * self.graph.n_destinations() + edge.destination]
    }

    /// Adds an edge.
    ///
    /// # Panics
    /// When it is not in the graph.
    pub fn insert(&mut self, edge: Edge) {
        assert!(self.graph.has(edge), "{edge:?} is not an edge");
        self.inside[edge.source * self.graph.n_destinations() + edge.destination] = true;
    }

    /// Removes an edge; one that is not inside may be named, too.
    pub fn remove(&mut self, edge: Edge) {
        if !self.graph.has(edge) {
            return;
        }
        self.inside[edge.source * self.graph.n_destinations() + edge.destination] = false;
    }

    /// Number of edges inside.
    pub fn count(&self) -> usize {
        self.inside.iter().filter(|&&inside| inside).count()
    }

    /// Edges inside, source by source.
    pub fn edges(&self) -> impl Iterator<Item = Edge> + '_ {
        self.graph.edges().filter(|&edge| self.contains(edge))
    }

    /// The set of the edges outside.
    pub fn complement(&self) -> Self {
        EdgeSet::from_edges(self.graph, self.graph.edges().filter(|&edge| !self.contains(edge)))
    }

    /// The `n` edges with the best scores (all edges when there are fewer).
    pub fn top_n(scores: &EdgeScores, n: usize, by: RankBy) -> Self {
        EdgeSet::from_edges(scores.graph(), scores.ranked(by).into_iter().take(n))
    }

    /// Edges whose score (its absolute value for [`RankBy::Absolute`]) is at least `threshold`, and edges without a
    /// score.
    pub fn threshold(scores: &EdgeScores, threshold: f64, by: RankBy) -> Self {
        let kept = scores.graph().edges().filter(|&edge| {
            let score = scores.get(edge);
            score.is_nan() || (if by == RankBy::Absolute { score.abs() } else { score }) >= threshold
        });
        EdgeSet::from_edges(scores.graph(), kept)
    }

    /// The `n` edges found by growing a circuit from the logits: each time the best edge into a node that is already
    /// in. Every edge then has a path to the logits, though not always one from the input.
    pub fn greedy(scores: &EdgeScores, n: usize, by: RankBy) -> Self {
        let graph = scores.graph();
        // Edges are compared by their place in the ranking, which breaks ties as everywhere else.
        let mut rank = vec![0; graph.n_sources() * graph.n_destinations()];
        let ranked = scores.ranked(by);
        for (i, edge) in ranked.iter().enumerate() {
            rank[edge.source * graph.n_destinations() + edge.destination] = i;
        }
        let mut set = EdgeSet::empty(graph);
        let mut seen = vec![false; graph.n_sources()];
        let mut open = BinaryHeap::new();
        let offer = |open: &mut BinaryHeap<_>, destination: usize| {
            for source in 0..graph.n_before(graph.destination(destination)) {
                open.push(std::cmp::Reverse(rank[source * graph.n_destinations() + destination]));
            }
        };
        offer(&mut open, graph.column(Destination::Logits));
        while set.count() < n {
            let Some(std::cmp::Reverse(best)) = open.pop() else { break };
            let edge = ranked[best];
            set.insert(edge);
            if !std::mem::replace(&mut seen[edge.source], true) {
                for destination in graph.inputs_of(graph.source(edge.source)) {
                    offer(&mut open, destination);
                }
            }
        }
        set
    }

    /// Removes, until nothing changes, every edge whose source node has no incoming edge (the token embedding needs
    /// none) or whose destination node has no outgoing edge (the logits need none).
    pub fn pruned(&self) -> Self {
        let graph = self.graph;
        let mut set = self.clone();
        loop {
            let mut fed = vec![false; graph.n_sources()];
            let mut read = vec![false; graph.n_sources()];
            fed[graph.row(Source::Input)] = true;
            for edge in set.edges() {
                read[edge.source] = true;
                if let Some(node) = graph.node_of(graph.destination(edge.destination)) {
                    fed[graph.row(node)] = true;
                }
            }
            let dead: Vec<Edge> = set
                .edges()
                .filter(|edge| {
                    let destination = graph.node_of(graph.destination(edge.destination));
                    !fed[edge.source] || destination.is_some_and(|node| !read[graph.row(node)])
                })
                .collect();
            if dead.is_empty() {
                return set;
            }
            dead.into_iter().for_each(|edge| set.remove(edge));
        }
    }
}

impl EdgeScores {
    /// The `n` edges with the largest absolute scores: [`EdgeSet::top_n`] by [`RankBy::Absolute`].
    pub fn top_n(&self, n: usize) -> EdgeSet {
        EdgeSet::top_n(self, n, RankBy::Absolute)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::Array2;

    const GRAPH: Graph = Graph { n_layer: 3, n_head: 2 };

    fn set(names: &[&str]) -> EdgeSet {
        EdgeSet::from_edges(GRAPH, names.iter().map(|name| GRAPH.parse(name).unwrap()))
    }

    fn scores(named: &[(&str, f64)]) -> EdgeScores {
        let mut values = Array2::zeros((GRAPH.n_sources(), GRAPH.n_destinations()));
        for (name, score) in named {
            let edge = GRAPH.parse(name).unwrap();
            values[(edge.source, edge.destination)] = *score;
        }
        EdgeScores::new(GRAPH, values)
    }

    #[test]
    fn top_n_ranks_by_size_or_by_sign() {
        let scores = scores(&[("input->m0", -3.0), ("m0->m1", 2.0), ("m1->logits", 1.0)]);
        assert_eq!(EdgeSet::top_n(&scores, 2, RankBy::Absolute), set(&["input->m0", "m0->m1"]));
        assert_eq!(EdgeSet::top_n(&scores, 2, RankBy::Signed), set(&["m0->m1", "m1->logits"]));
        assert_eq!(EdgeSet::top_n(&scores, 10_000, RankBy::Absolute), EdgeSet::full(GRAPH));
        assert_eq!(EdgeSet::threshold(&scores, 2.0, RankBy::Absolute), set(&["input->m0", "m0->m1"]));
    }

    #[test]
    fn edges_without_a_score_are_kept() {
        let scores = scores(&[("m0->m1", f64::NAN), ("m1->logits", 9.0)]);
        assert_eq!(EdgeSet::top_n(&scores, 1, RankBy::Absolute), set(&["m0->m1"]));
        assert_eq!(EdgeSet::threshold(&scores, 10.0, RankBy::Signed), set(&["m0->m1"]));
    }

    #[test]
    fn greedy_grows_from_the_logits() {
        let scores = scores(&[
            ("input->m0", 9.0), // best of all, but m0 is not reached yet
            ("m1->logits", 1.0),
            ("m0->m1", 2.0),
            ("m2->logits", 0.5),
        ]);
        assert_eq!(
            EdgeSet::greedy(&scores, 3, RankBy::Absolute),
            set(&["m1->logits", "m0->m1", "input->m0"])
        );
        assert_eq!(EdgeSet::greedy(&scores, 10_000, RankBy::Absolute), EdgeSet::full(GRAPH));
    }

    #[test]
    fn pruning_reaches_the_end_of_a_chain() {
        let live = ["input->a0.h1<k>", "a0.h1->m1", "m1->logits"];
        // A chain of three that nothing reads, and one that nothing feeds.
        let unread = ["input->m0", "m0->a1.h0<q>", "a1.h0->m2"];
        let unfed = ["a0.h0->a1.h1<v>", "a1.h1->a2.h0<v>", "a2.h0->logits"];
        let all: Vec<&str> = live.iter().chain(&unread).chain(&unfed).copied().collect();
        assert_eq!(set(&all).pruned(), set(&live));
        assert_eq!(EdgeSet::full(GRAPH).pruned(), EdgeSet::full(GRAPH));
        assert_eq!(EdgeSet::empty(GRAPH).pruned().count(), 0);
    }

    /// An edge beyond the last destination is none: its entry would be that of the next source's first edge.
    #[test]
    fn edges_of_another_graph_are_outside() {
        let mut set = EdgeSet::full(GRAPH);
        let beyond = Edge { source: 0, destination: GRAPH.n_destinations() };
        assert!(!set.contains(beyond));
        set.remove(beyond);
        set.remove(Edge { source: GRAPH.n_sources(), destination: 0 });
        assert_eq!(set, EdgeSet::full(GRAPH));
    }

    #[test]
    fn complements_partition() {
        let half = EdgeSet::from_edges(GRAPH, GRAPH.edges().step_by(2));
        assert_eq!(half.count() + half.complement().count(), GRAPH.n_edges());
        assert!(half.edges().all(|edge| !half.complement().contains(edge)));
    }
}
