//! Circuits of edges at token positions, for prompts of one length.
//!
//! An edge at a position carries its source's output at that token alone. EAP and its relatives score an edge by a sum
//! over tokens ([`attribute_edges`](super::attribute_edges)), so an edge's score at position `t` is a summand:
//!
//! ```text
//! score(u -> v, t) = sum over width of delta_u[t] * (sum over alpha of weight_alpha g_v(alpha)[t])
//! ```
//!
//! Effects that cancel between positions are then seen, and a circuit says where it is. What moves information from one
//! token to another is a head, whose output at a token depends on what its keys and values read up to there; no edge
//! does. What differs between prompts is told from what differs within them only where prompts are aligned token by
//! token, hence one length.
//!
//! Sources: Haklay et al. 2025 (PEAP, arXiv 2502.04577) for circuits by position, of which these are the edges within a
//! position; `auto-circuit` has them as edges of a sequence. Here the edges between positions that PEAP adds are left
//! to the heads.
//!
//! Letters: `T` positions, `S` sources, `D` destinations.

use std::ops::Range;

use super::edge_set::EdgeSet;
use super::graph::{Destination, Edge, Graph, QkvInput, Source};
use super::scores::{EdgeScores, RankBy};

/// An edge at a token position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EdgeAt {
    /// Token position, counted from 0, in `0..T`.
    pub position: usize,
    /// The edge.
    pub edge: Edge,
}

impl EdgeAt {
    /// Name such as `a0.h0->a1.h0<k>@3`.
    ///
    /// # Panics
    /// When the graph has no such edge.
    pub fn name(self, graph: Graph) -> String {
        format!("{}@{}", graph.name(self.edge), self.position)
    }
}

/// Scores of every edge at every token position.
#[derive(Clone, Debug, PartialEq)]
pub struct PositionScores {
    /// Scores at each position, `T` of them.
    at: Vec<EdgeScores>,
}

impl PositionScores {
    /// Scores from those of each position.
    ///
    /// # Panics
    /// When there is no position, or graphs differ.
    pub fn new(at: Vec<EdgeScores>) -> Self {
        assert!(at.windows(2).all(|two| two[0].graph() == two[1].graph()), "scores of two graphs");
        assert!(!at.is_empty(), "scores of no position");
        PositionScores { at }
    }

    /// The graph the scores belong to.
    pub fn graph(&self) -> Graph {
        self.at[0].graph()
    }

    /// Number of positions, `T`.
    pub fn n_positions(&self) -> usize {
        self.at.len()
    }

    /// Scores at a position.
    ///
    /// # Panics
    /// When there is no such position.
    pub fn at(&self, position: usize) -> &EdgeScores {
        &self.at[position]
    }

    /// The score of an edge at a position.
    ///
    /// # Panics
    /// When there is no such position.
    pub fn get(&self, at: EdgeAt) -> f64 {
        self.at[at.position].get(at.edge)
    }

    /// Scores of the edges at all positions together: the sum over positions.
    pub fn summed(&self) -> EdgeScores {
        let mut sum = self.at[0].matrix().clone();
        self.at[1..].iter().for_each(|scores| sum += scores.matrix());
        EdgeScores::new(self.graph(), sum)
    }

    /// Edges at positions from the best to the worst, ties position by position and source by source.
    pub fn ranked(&self, by: RankBy) -> Vec<EdgeAt> {
        let all: Vec<EdgeAt> = edges_at(self.graph(), self.n_positions()).collect();
        let scores: Vec<f64> = all.iter().map(|&at| self.get(at)).collect();
        by.order(&scores).into_iter().map(|i| all[i]).collect()
    }
}

/// Every edge at every position.
fn edges_at(graph: Graph, n_positions: usize) -> impl Iterator<Item = EdgeAt> {
    (0..n_positions).flat_map(move |position| graph.edges().map(move |edge| EdgeAt { position, edge }))
}

/// A circuit of edges at token positions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PositionSet {
    /// Edges inside at each position, `T` of them.
    at: Vec<EdgeSet>,
}

impl PositionSet {
    /// The set without edges, for prompts of so many tokens.
    ///
    /// # Panics
    /// When there is no position.
    pub fn empty(graph: Graph, n_positions: usize) -> Self {
        PositionSet::everywhere(&EdgeSet::empty(graph), n_positions)
    }

    /// A circuit at all positions.
    ///
    /// # Panics
    /// When there is no position.
    pub fn everywhere(circuit: &EdgeSet, n_positions: usize) -> Self {
        assert!(n_positions > 0, "a circuit of no position");
        PositionSet { at: vec![circuit.clone(); n_positions] }
    }

    /// The `n` edges at positions that have the best scores (all when there are fewer).
    pub fn top_n(scores: &PositionScores, n: usize, by: RankBy) -> Self {
        let mut set = PositionSet::empty(scores.graph(), scores.n_positions());
        scores.ranked(by).into_iter().take(n).for_each(|at| set.insert(at));
        set
    }

    /// The graph whose edges these are.
    pub fn graph(&self) -> Graph {
        self.at[0].graph()
    }

    /// Number of positions, `T`.
    pub fn n_positions(&self) -> usize {
        self.at.len()
    }

    /// The edges of each position.
    pub fn at_positions(&self) -> &[EdgeSet] {
        &self.at
    }

    /// Whether an edge is inside at a position.
    ///
    /// # Panics
    /// When there is no such position.
    pub fn contains(&self, at: EdgeAt) -> bool {
        self.at[at.position].contains(at.edge)
    }

    /// Adds an edge at a position.
    ///
    /// # Panics
    /// When there is no such edge or position.
    pub fn insert(&mut self, at: EdgeAt) {
        self.at[at.position].insert(at.edge);
    }

    /// Number of edges inside, at all positions.
    pub fn count(&self) -> usize {
        self.at.iter().map(EdgeSet::count).sum()
    }

    /// Edges inside, position by position and source by source.
    pub fn edges(&self) -> impl Iterator<Item = EdgeAt> + '_ {
        let at = self.at.iter().enumerate();
        at.flat_map(|(position, set)| set.edges().map(move |edge| EdgeAt { position, edge }))
    }

    /// The set of everything outside.
    pub fn complement(&self) -> Self {
        PositionSet { at: self.at.iter().map(EdgeSet::complement).collect() }
    }

    /// Removes, until nothing changes, every edge that nothing feeds or nothing reads, as [`EdgeSet::pruned`] does: its
    /// source has no incoming edge that acts at this position (the token embedding needs none), or what its
    /// destination does with it leaves by no edge (the logits are read at the last position).
    pub fn pruned(&self) -> Self {
        let (graph, length) = (self.graph(), self.n_positions());
        let mut set = self.clone();
        loop {
            // Whether the source of a row is fed, and read, at each position.
            let mut fed = vec![vec![false; graph.n_sources()]; length];
            let mut read = fed.clone();
            for EdgeAt { position, edge } in set.edges() {
                read[position][edge.source] = true;
                if let Some(node) = graph.node_of(graph.destination(edge.destination)) {
                    let row = graph.row(node);
                    self.reach(edge, position).for_each(|position| fed[position][row] = true);
                }
            }
            fed.iter_mut().for_each(|fed| fed[graph.row(Source::Input)] = true);
            let dead = |&EdgeAt { position, edge }: &EdgeAt| {
                let is_read = match graph.node_of(graph.destination(edge.destination)) {
                    None => position + 1 == length,
                    Some(node) => self.reach(edge, position).any(|position| read[position][graph.row(node)]),
                };
                !fed[position][edge.source] || !is_read
            };
            let dead: Vec<EdgeAt> = set.edges().filter(dead).collect();
            if dead.is_empty() {
                return set;
            }
            dead.into_iter().for_each(|at| set.at[at.position].remove(at.edge));
        }
    }

    /// Positions at which the output of an edge's destination depends on what it reads at `position`: for keys and
    /// values all from there on.
    fn reach(&self, edge: Edge, position: usize) -> Range<usize> {
        let destination = self.graph().destination(edge.destination);
        let is_attended_to = matches!(destination, Destination::Head(_, QkvInput::Key | QkvInput::Value, _));
        position..if is_attended_to { self.n_positions() } else { position + 1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRAPH: Graph = Graph { n_layer: 2, n_head: 2 };
    const LENGTH: usize = 4;

    fn set(names: &[(&str, usize)]) -> PositionSet {
        let mut set = PositionSet::empty(GRAPH, LENGTH);
        for &(name, position) in names {
            set.insert(EdgeAt { position, edge: GRAPH.parse(name).unwrap() });
        }
        set
    }

    /// Values read at position 1 leave a head at position 3, which the MLP and the logits read there.
    #[test]
    fn pruning_follows_heads_to_later_positions() {
        let live = [("input->a0.h0<v>", 1), ("a0.h0->m0", 3), ("m0->logits", 3)];
        assert_eq!(set(&live).pruned(), set(&live));
        let dead = [
            // Nothing reads the head at its own position for a query, nor before for a value.
            ("input->a0.h0<q>", 1),
            ("input->a0.h1<v>", 3),
            ("a0.h1->m0", 2),
            // The logits are read at the last position alone.
            ("input->logits", 0),
        ];
        assert_eq!(set(&[&live[..], &dead[..]].concat()).pruned(), set(&live));
    }

    /// Of the whole model, edges into the logits, and into queries and the MLP of the last layer, act at the last
    /// position alone.
    #[test]
    fn pruning_the_whole_model_leaves_what_reaches_the_last_position() {
        let all = PositionSet::everywhere(&EdgeSet::full(GRAPH), LENGTH);
        let left = all.pruned();
        for EdgeAt { position, edge } in all.edges() {
            let is_late = match GRAPH.destination(edge.destination) {
                Destination::Head(layer, QkvInput::Query, _) | Destination::Mlp(layer) => {
                    layer + 1 == GRAPH.n_layer
                }
                destination => destination == Destination::Logits,
            };
            let is_left = !is_late || position + 1 == LENGTH;
            assert_eq!(left.contains(EdgeAt { position, edge }), is_left, "{}", GRAPH.name(edge));
        }
    }

    #[test]
    fn names_say_edge_and_position() {
        let at = EdgeAt { position: 3, edge: GRAPH.parse("a0.h1->a1.h0<k>").unwrap() };
        assert_eq!(at.name(GRAPH), "a0.h1->a1.h0<k>@3");
        let mut set = PositionSet::empty(GRAPH, LENGTH);
        set.insert(at);
        assert!(set.contains(at) && !set.complement().contains(at));
        assert_eq!(set.edges().collect::<Vec<_>>(), [at]);
        assert_eq!(set.complement().count(), LENGTH * GRAPH.n_edges() - 1);
    }
}
