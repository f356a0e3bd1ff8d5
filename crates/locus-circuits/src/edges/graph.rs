//! The edge graph of a GPT-2: what writes to the residual stream, what reads from it, and in which order.
//!
//! Writers (*source nodes*) are the token embedding, every attention head and every MLP. Readers (*destination nodes*)
//! are the query, key and value inputs of every head, the input of every MLP, and the logits; they read the residual
//! stream before the LayerNorm. Position embeddings and the output bias of attention belong to no source, as in EAP-IG
//! (Hanna, Pezzelle, Belinkov 2024, arXiv 2403.17806) and its code.
//!
//! Letters: `L` layers, `H` heads, `S = 1 + L (H + 1)` sources, `D = L (3 H + 1) + 1` destinations.

use std::fmt;

use locus_gpt2::Config;

/// A source node, which writes to the residual stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Source {
    /// The token embedding.
    Input,
    /// A head (layer, head): its output is `z_h W_O[h]`, without the bias that all heads share.
    Head(usize, usize),
    /// The MLP of a layer: its output includes its bias.
    Mlp(usize),
}

/// One of the three inputs of a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum QkvInput {
    /// Queries.
    Query,
    /// Keys.
    Key,
    /// Values.
    Value,
}

impl QkvInput {
    /// All three, in the order of `c_attn`'s columns.
    pub const ALL: [QkvInput; 3] = [QkvInput::Query, QkvInput::Key, QkvInput::Value];
}

/// A destination node, which reads from the residual stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Destination {
    /// One input of a head: layer, which input, head.
    Head(usize, QkvInput, usize),
    /// The input of the MLP of a layer.
    Mlp(usize),
    /// The final residual stream, which the logits are read from.
    Logits,
}

/// An edge, as indices of its source and destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Edge {
    /// Row, in `0..S`.
    pub source: usize,
    /// Column, in `0..D`.
    pub destination: usize,
}

/// The edge graph of a GPT-2, determined by its numbers of layers and heads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Graph {
    /// Number of layers, `L`.
    pub n_layer: usize,
    /// Number of heads per layer, `H`.
    pub n_head: usize,
}

impl Graph {
    /// The graph of a model.
    pub fn new(config: &Config) -> Self {
        Graph { n_layer: config.n_layer, n_head: config.n_head }
    }

    /// Number of sources, `S`.
    pub fn n_sources(self) -> usize {
        1 + self.n_layer * (self.n_head + 1)
    }

    /// Number of destinations, `D`.
    pub fn n_destinations(self) -> usize {
        self.n_layer * (3 * self.n_head + 1) + 1
    }

    /// Number of edges: pairs in which the source writes before the destination reads.
    pub fn n_edges(self) -> usize {
        (0..self.n_destinations()).map(|destination| self.n_before(self.destination(destination))).sum()
    }

    /// Source of a row, in the order of the forward pass.
    ///
    /// # Panics
    /// When there is no such row.
    pub fn source(self, row: usize) -> Source {
        assert!(row < self.n_sources(), "row {row} of {}", self.n_sources());
        match row.checked_sub(1) {
            None => Source::Input,
            Some(i) if i % (self.n_head + 1) == self.n_head => Source::Mlp(i / (self.n_head + 1)),
            Some(i) => Source::Head(i / (self.n_head + 1), i % (self.n_head + 1)),
        }
    }

    /// Row of a source.
    pub fn row(self, source: Source) -> usize {
        match source {
            Source::Input => 0,
            Source::Head(layer, head) => 1 + layer * (self.n_head + 1) + head,
            Source::Mlp(layer) => 1 + layer * (self.n_head + 1) + self.n_head,
        }
    }

    /// Destination of a column. The order is, for each layer, all queries, all keys, all values and the MLP; last the
    /// logits.
    ///
    /// # Panics
    /// When there is no such column.
    pub fn destination(self, column: usize) -> Destination {
        assert!(column < self.n_destinations(), "column {column} of {}", self.n_destinations());
        let (layer, i) = (column / (3 * self.n_head + 1), column % (3 * self.n_head + 1));
        if layer == self.n_layer {
            Destination::Logits
        } else if i == 3 * self.n_head {
            Destination::Mlp(layer)
        } else {
            Destination::Head(layer, QkvInput::ALL[i / self.n_head], i % self.n_head)
        }
    }

    /// Column of a destination.
    pub fn column(self, destination: Destination) -> usize {
        match destination {
            Destination::Head(layer, qkv_input, head) => {
                layer * (3 * self.n_head + 1) + qkv_input as usize * self.n_head + head
            }
            Destination::Mlp(layer) => layer * (3 * self.n_head + 1) + 3 * self.n_head,
            Destination::Logits => self.n_layer * (3 * self.n_head + 1),
        }
    }

    /// Number of sources that write before a destination reads: the first rows.
    pub fn n_before(self, destination: Destination) -> usize {
        match destination {
            Destination::Head(layer, ..) => 1 + layer * (self.n_head + 1),
            Destination::Mlp(layer) => 1 + layer * (self.n_head + 1) + self.n_head,
            Destination::Logits => self.n_sources(),
        }
    }

    /// Whether the graph has an edge: its source writes before its destination reads.
    pub fn has(self, edge: Edge) -> bool {
        edge.destination < self.n_destinations()
            && edge.source < self.n_before(self.destination(edge.destination))
    }

    /// Every edge, row by row.
    pub fn edges(self) -> impl Iterator<Item = Edge> {
        (0..self.n_sources())
            .flat_map(move |source| {
                (0..self.n_destinations()).map(move |destination| Edge { source, destination })
            })
            .filter(move |&edge| self.has(edge))
    }

    /// Columns of a source node's inputs: three for a head, one for an MLP, none for the token embedding.
    pub fn inputs_of(self, source: Source) -> Vec<usize> {
        match source {
            Source::Input => Vec::new(),
            Source::Head(layer, head) => {
                QkvInput::ALL.map(|qkv_input| self.column(Destination::Head(layer, qkv_input, head))).to_vec()
            }
            Source::Mlp(layer) => vec![self.column(Destination::Mlp(layer))],
        }
    }

    /// The node that a destination belongs to, as a source; `None` for the logits.
    pub fn node_of(self, destination: Destination) -> Option<Source> {
        match destination {
            Destination::Head(layer, _, head) => Some(Source::Head(layer, head)),
            Destination::Mlp(layer) => Some(Source::Mlp(layer)),
            Destination::Logits => None,
        }
    }

    /// The name of an edge as the field writes it: `a9.h9->a10.h7<q>`, `m0->m1`, `input->logits`.
    pub fn name(self, edge: Edge) -> String {
        format!("{}->{}", self.source(edge.source), self.destination(edge.destination))
    }

    /// The edge with a name; `None` when this graph has no such edge.
    pub fn parse(self, name: &str) -> Option<Edge> {
        let (source, destination) = name.split_once("->")?;
        let edge = Edge {
            source: self.row(self.parse_node(source)?),
            destination: self.parse_destination(destination)?,
        };
        self.has(edge).then_some(edge)
    }

    fn parse_node(self, name: &str) -> Option<Source> {
        if name == "input" {
            return Some(Source::Input);
        }
        let below = |digits: &str, n: usize| digits.parse().ok().filter(|&i: &usize| i < n);
        if let Some(layer) = name.strip_prefix('m') {
            return Some(Source::Mlp(below(layer, self.n_layer)?));
        }
        let (layer, head) = name.strip_prefix('a')?.split_once(".h")?;
        Some(Source::Head(below(layer, self.n_layer)?, below(head, self.n_head)?))
    }

    fn parse_destination(self, name: &str) -> Option<usize> {
        if name == "logits" {
            return Some(self.column(Destination::Logits));
        }
        let qkv_input = [("<q>", QkvInput::Query), ("<k>", QkvInput::Key), ("<v>", QkvInput::Value)];
        for (suffix, qkv_input) in qkv_input {
            if let Some(head) = name.strip_suffix(suffix) {
                let Source::Head(layer, head) = self.parse_node(head)? else { return None };
                return Some(self.column(Destination::Head(layer, qkv_input, head)));
            }
        }
        match self.parse_node(name)? {
            Source::Mlp(layer) => Some(self.column(Destination::Mlp(layer))),
            _ => None,
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Input => out.write_str("input"),
            Source::Head(layer, head) => write!(out, "a{layer}.h{head}"),
            Source::Mlp(layer) => write!(out, "m{layer}"),
        }
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Destination::Head(layer, qkv_input, head) => {
                let qkv_input = match qkv_input {
                    QkvInput::Query => 'q',
                    QkvInput::Key => 'k',
                    QkvInput::Value => 'v',
                };
                write!(out, "a{layer}.h{head}<{qkv_input}>")
            }
            Destination::Mlp(layer) => write!(out, "m{layer}"),
            Destination::Logits => out.write_str("logits"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counted by hand from the definitions above; 32,491 for GPT-2 small is the number of EAP-IG's graph.
    #[test]
    fn counts_of_known_models() {
        let known = [
            (12, 12, 157, 445, 32_491),
            (6, 12, 79, 223, 7_588),
            (24, 16, 409, 1_177, 231_877),
            (36, 20, 757, 2_197, 810_703),
            (48, 25, 1_249, 3_649, 2_235_025),
            (4, 4, 21, 53, 479),
            (2, 2, 7, 15, 46),
        ];
        for (n_layer, n_head, sources, destinations, edges) in known {
            let graph = Graph { n_layer, n_head };
            assert_eq!(
                (graph.n_sources(), graph.n_destinations(), graph.n_edges()),
                (sources, destinations, edges)
            );
        }
    }

    #[test]
    fn names_and_indices_invert() {
        let graph = Graph { n_layer: 3, n_head: 4 };
        assert_eq!(graph.edges().count(), graph.n_edges());
        for edge in graph.edges() {
            assert_eq!(graph.parse(&graph.name(edge)), Some(edge));
        }
        for row in 0..graph.n_sources() {
            assert_eq!(graph.row(graph.source(row)), row);
        }
        for column in 0..graph.n_destinations() {
            assert_eq!(graph.column(graph.destination(column)), column);
        }
        for absent in
            ["m1->m1", "a0.h4->logits", "logits->m0", "input->a1.h2", "a1.h0->a1.h1<q>", "m0", "mx->m1"]
        {
            assert_eq!(graph.parse(absent), None, "{absent}");
        }
    }

    #[test]
    fn a_layer_reads_what_came_before() {
        let graph = Graph { n_layer: 12, n_head: 12 };
        assert!(graph.parse("a9.h9->a10.h7<q>").is_some());
        assert!(graph.parse("a9.h9->m9").is_some());
        assert!(graph.parse("a9.h9->a9.h7<q>").is_none());
        assert!(graph.parse("m9->m9").is_none());
    }
}
