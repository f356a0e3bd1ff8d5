//! Random circuits with as many edges of each kind as a given one: the control for which edges a circuit has, once it is
//! known how many of each kind.

use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use super::edge_set::EdgeSet;
use super::graph::{Destination, Edge, Graph, QkvInput, Source};

/// A circuit with as many edges as `circuit` between every two kinds of nodes, drawn without replacement. Kinds of
/// sources are the token embedding, heads and MLPs; kinds of destinations are queries, keys, values, MLPs and the logits.
///
/// Edges differ in their effect by kind (one from an MLP carries more than one into a key), which
/// [`random_edges`](super::random_edges) ignores.
pub fn matched_edges(circuit: &EdgeSet, rng: &mut ChaCha8Rng) -> EdgeSet {
    let graph = circuit.graph();
    let mut kinds: Vec<Vec<Edge>> = vec![Vec::new(); KINDS];
    let mut wanted = [0; KINDS];
    for edge in graph.edges() {
        let kind = kind(graph, edge);
        kinds[kind].push(edge);
        wanted[kind] += usize::from(circuit.contains(edge));
    }
    let drawn = kinds.into_iter().zip(wanted).flat_map(|(mut edges, wanted)| {
        edges.shuffle(rng);
        edges.truncate(wanted);
        edges
    });
    EdgeSet::from_edges(graph, drawn.collect::<Vec<_>>())
}

const KINDS: usize = 15;

/// Number of the kind of an edge.
fn kind(graph: Graph, edge: Edge) -> usize {
    let source = match graph.source(edge.source) {
        Source::Input => 0,
        Source::Head(..) => 1,
        Source::Mlp(_) => 2,
    };
    let destination = match graph.destination(edge.destination) {
        Destination::Head(_, QkvInput::Query, _) => 0,
        Destination::Head(_, QkvInput::Key, _) => 1,
        Destination::Head(_, QkvInput::Value, _) => 2,
        Destination::Mlp(_) => 3,
        Destination::Logits => 4,
    };
    5 * source + destination
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edges::random_edges;
    use rand_chacha::rand_core::SeedableRng;

    #[test]
    fn kinds_are_kept_and_edges_are_not() {
        let graph = Graph { n_layer: 4, n_head: 4 };
        let rng = &mut ChaCha8Rng::seed_from_u64(2);
        let circuit = random_edges(graph, 60, rng);
        let matched = matched_edges(&circuit, rng);
        let counts = |set: &EdgeSet| {
            let mut counts = [0; KINDS];
            set.edges().for_each(|edge| counts[kind(graph, edge)] += 1);
            counts
        };
        assert_eq!(counts(&matched), counts(&circuit));
        assert!(counts(&circuit).iter().filter(|&&n| n > 0).count() > 8);
        let shared = matched.edges().filter(|&edge| circuit.contains(edge)).count();
        assert!(shared < 30, "{shared} of 60 are the circuit's");
        assert_ne!(matched, matched_edges(&circuit, rng));
        assert_eq!(matched_edges(&EdgeSet::full(graph), rng), EdgeSet::full(graph));
    }
}
