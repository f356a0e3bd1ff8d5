//! Turns a circuit of edges into a mask of parameters, inside which an editor can work.

use locus_gpt2::{BlockParam, Config, ParamId, ParamMask};

use super::edge_set::EdgeSet;
use super::graph::{Destination, Graph, QkvInput, Source};

/// The block parameters that a circuit of edges runs through:
///
/// * a query, key or value input with a kept edge: its columns of `c_attn`, weight and bias;
/// * a head with a kept outgoing edge: its rows of `c_proj`'s weight; the bias of `c_proj` with any such head;
/// * an MLP with kept edges in and out: both matrices and biases;
/// * a LayerNorm any of whose destinations has a kept edge: gain and bias.
///
/// # Panics
/// When the circuit belongs to a model of another shape.
pub fn edge_mask(circuit: &EdgeSet, config: &Config) -> ParamMask {
    let graph = Graph::new(config);
    assert_eq!(circuit.graph(), graph, "a circuit of another model");
    let mut read = vec![false; graph.n_destinations()];
    let mut written = vec![false; graph.n_sources()];
    for edge in circuit.edges() {
        read[edge.destination] = true;
        written[edge.source] = true;
    }
    let (d, width) = (config.n_embd, config.d_head());
    let reads = |destination: Destination| read[graph.column(destination)];
    let writes = |source: Source| written[graph.row(source)];
    ParamMask::from_fn(config, |id, index| {
        let ParamId::Block(layer, param) = id else { unreachable!("masks hold block parameters only") };
        let qkv_input_of =
            |column: usize| Destination::Head(layer, QkvInput::ALL[column / d], (column % d) / width);
        let mlp = reads(Destination::Mlp(layer)) && writes(Source::Mlp(layer));
        match param {
            BlockParam::Ln1Weight | BlockParam::Ln1Bias => QkvInput::ALL.iter().any(|&qkv_input| {
                (0..graph.n_head).any(|head| reads(Destination::Head(layer, qkv_input, head)))
            }),
            BlockParam::AttnInWeight | BlockParam::AttnInBias => reads(qkv_input_of(index % (3 * d))),
            BlockParam::AttnOutWeight => writes(Source::Head(layer, index / d / width)),
            BlockParam::AttnOutBias => (0..graph.n_head).any(|head| writes(Source::Head(layer, head))),
            BlockParam::Ln2Weight | BlockParam::Ln2Bias => reads(Destination::Mlp(layer)),
            BlockParam::MlpInWeight
            | BlockParam::MlpInBias
            | BlockParam::MlpOutWeight
            | BlockParam::MlpOutBias => mlp,
        }
    })
}

/// The edges both of whose ends have parameters in a mask: the source a scalar of the matrix that it writes with (rows of
/// `c_proj` of a head, the second matrix of an MLP; the token embedding has none that a mask could lack), the destination
/// a scalar of the matrix that it reads with (columns of `c_attn` of an input, the first matrix of an MLP; the logits,
/// as the embedding, are always there).
///
/// For the mask of [`edge_mask`] these are the circuit's edges and those that run between its nodes besides: a mask does
/// not say which of two nodes an edge joins.
pub fn mask_edges(mask: &ParamMask) -> EdgeSet {
    let config = mask.config();
    let graph = Graph::new(config);
    let (d, width) = (config.n_embd, config.d_head());
    let mut read = vec![false; graph.n_destinations()];
    let mut written = vec![false; graph.n_sources()];
    written[graph.row(Source::Input)] = true;
    read[graph.column(Destination::Logits)] = true;
    for (id, inside) in mask.tensors() {
        let ParamId::Block(layer, param) = id else { unreachable!("masks hold block parameters only") };
        match param {
            BlockParam::AttnInWeight => inside.indices().for_each(|index| {
                let column = index % (3 * d);
                let input = Destination::Head(layer, QkvInput::ALL[column / d], (column % d) / width);
                read[graph.column(input)] = true;
            }),
            BlockParam::AttnOutWeight => {
                inside
                    .indices()
                    .for_each(|index| written[graph.row(Source::Head(layer, index / d / width))] = true);
            }
            BlockParam::MlpInWeight => read[graph.column(Destination::Mlp(layer))] |= inside.count() > 0,
            BlockParam::MlpOutWeight => written[graph.row(Source::Mlp(layer))] |= inside.count() > 0,
            _ => {}
        }
    }
    let joins = |edge: &super::graph::Edge| written[edge.source] && read[edge.destination];
    EdgeSet::from_edges(graph, graph.edges().filter(joins))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_takes_its_own_slices() {
        let config = Config::new(2, 2, 6, 8, 9);
        let graph = Graph::new(&config);
        let edges = ["input->a0.h1<v>", "a0.h1->m1", "m1->logits"];
        let circuit = EdgeSet::from_edges(graph, edges.map(|name| graph.parse(name).unwrap()));
        let mask = edge_mask(&circuit, &config);
        let count = |layer, param| {
            mask.counts().into_iter().find(|(id, ..)| *id == ParamId::Block(layer, param)).unwrap().1
        };
        assert_eq!(count(0, BlockParam::Ln1Weight), 6);
        assert_eq!(count(0, BlockParam::AttnInWeight), 6 * 3); // one qkv_input of one head, three wide
        assert_eq!(count(0, BlockParam::AttnInBias), 3);
        assert_eq!(count(0, BlockParam::AttnOutWeight), 3 * 6);
        assert_eq!(count(0, BlockParam::AttnOutBias), 6);
        assert_eq!(count(0, BlockParam::MlpInWeight), 0);
        assert_eq!(count(1, BlockParam::MlpInWeight), 6 * 24);
        assert_eq!(count(1, BlockParam::Ln2Bias), 6);
        assert_eq!(count(1, BlockParam::AttnInWeight), 0);
        assert_eq!(edge_mask(&EdgeSet::full(graph), &config), ParamMask::full(&config));
        assert_eq!(edge_mask(&EdgeSet::empty(graph), &config).count(), 0);
    }

    /// A mask forgets which edge joined its nodes, and nothing else: going back and forth once more changes nothing.
    #[test]
    fn the_edges_of_a_mask_join_its_nodes() {
        let config = Config::new(2, 2, 6, 8, 9);
        let graph = Graph::new(&config);
        assert_eq!(mask_edges(&ParamMask::full(&config)), EdgeSet::full(graph));
        let outside = mask_edges(&ParamMask::full(&config).complement());
        assert_eq!(outside.edges().map(|edge| graph.name(edge)).collect::<Vec<_>>(), ["input->logits"]);
        let edges = ["input->a0.h1<v>", "a0.h1->m1", "input->m1", "m1->logits"];
        let circuit = EdgeSet::from_edges(graph, edges.map(|name| graph.parse(name).unwrap()));
        let mask = edge_mask(&circuit, &config);
        let joined = mask_edges(&mask);
        assert!(circuit.edges().all(|edge| joined.contains(edge)));
        let besides: Vec<String> =
            joined.edges().filter(|&edge| !circuit.contains(edge)).map(|edge| graph.name(edge)).collect();
        assert_eq!(besides, ["input->logits", "a0.h1->logits"]);
        assert_eq!(edge_mask(&joined, &config), mask);
    }
}
