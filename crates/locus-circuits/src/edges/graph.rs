//! The edge graph of a GPT-2: what writes to the residual stream, what reads from it, and who comes before whom.
//!
//! Writers (*sources*) are the token embedding, every attention head and every MLP. Readers are the query, key and
//! value inputs of every head, the input of every MLP, and the logits; they read the residual stream before the
//! LayerNorm. Position embeddings and the output bias of attention belong to no source, as in EAP-IG.
//!
//! Letters: `L` layers, `H` heads, `S = 1 + L (H + 1)` sources, `D = L (3 H + 1) + 1` readers.

use std::fmt;

use locus_gpt2::Config;

/// A writer into the residual stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Source {
    /// The token embedding.
    Input,
    /// A head's output, `z_h W_O[h]`, without the bias that all heads share.
    Head(usize, usize),
    /// An MLP's output with its bias.
    Mlp(usize),
}

/// The three things a head reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Slot {
    /// Queries.
    Query,
    /// Keys.
    Key,
    /// Values.
    Value,
}

impl Slot {
    /// All three, in the order of `c_attn`'s columns.
    pub const ALL: [Slot; 3] = [Slot::Query, Slot::Key, Slot::Value];
}

/// A reader of the residual stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reader {
    /// One input of a head: layer, slot, head.
    Head(usize, Slot, usize),
    /// The input of an MLP.
    Mlp(usize),
    /// The final residual stream.
    Logits,
}

/// An edge, as indices of its source and reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Edge {
    /// Row, in `0..S`.
    pub source: usize,
    /// Column, in `0..D`.
    pub reader: usize,
}

/// Numbers of layers and heads; everything else follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Graph {
    /// `L`
    pub n_layer: usize,
    /// `H`
    pub n_head: usize,
}

impl Graph {
    /// The graph of a model.
    pub fn new(config: &Config) -> Self {
        Graph { n_layer: config.n_layer, n_head: config.n_head }
    }

    /// `S`
    pub fn n_sources(self) -> usize {
        1 + self.n_layer * (self.n_head + 1)
    }

    /// `D`
    pub fn n_readers(self) -> usize {
        self.n_layer * (3 * self.n_head + 1) + 1
    }

    /// Number of edges: pairs in which the source is written before the reader reads.
    pub fn n_edges(self) -> usize {
        (0..self.n_readers()).map(|reader| self.n_before(self.reader(reader))).sum()
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

    /// Reader of a column: per layer all queries, all keys, all values, the MLP; at the end the logits.
    ///
    /// # Panics
    /// When there is no such column.
    pub fn reader(self, column: usize) -> Reader {
        assert!(column < self.n_readers(), "column {column} of {}", self.n_readers());
        let (layer, i) = (column / (3 * self.n_head + 1), column % (3 * self.n_head + 1));
        if layer == self.n_layer {
            Reader::Logits
        } else if i == 3 * self.n_head {
            Reader::Mlp(layer)
        } else {
            Reader::Head(layer, Slot::ALL[i / self.n_head], i % self.n_head)
        }
    }

    /// Column of a reader.
    pub fn column(self, reader: Reader) -> usize {
        match reader {
            Reader::Head(layer, slot, head) => {
                layer * (3 * self.n_head + 1) + slot as usize * self.n_head + head
            }
            Reader::Mlp(layer) => layer * (3 * self.n_head + 1) + 3 * self.n_head,
            Reader::Logits => self.n_layer * (3 * self.n_head + 1),
        }
    }

    /// Number of sources written before a reader reads; they are the first rows.
    pub fn n_before(self, reader: Reader) -> usize {
        match reader {
            Reader::Head(layer, ..) => 1 + layer * (self.n_head + 1),
            Reader::Mlp(layer) => 1 + layer * (self.n_head + 1) + self.n_head,
            Reader::Logits => self.n_sources(),
        }
    }

    /// Whether source and reader are joined.
    pub fn has(self, edge: Edge) -> bool {
        edge.source < self.n_before(self.reader(edge.reader))
    }

    /// Every edge, row by row.
    pub fn edges(self) -> impl Iterator<Item = Edge> {
        (0..self.n_sources())
            .flat_map(move |source| (0..self.n_readers()).map(move |reader| Edge { source, reader }))
            .filter(move |&edge| self.has(edge))
    }

    /// Columns of the readers that belong to the node which writes `source`: three for a head, one for an MLP, none for
    /// the input.
    pub fn inputs_of(self, source: Source) -> Vec<usize> {
        match source {
            Source::Input => Vec::new(),
            Source::Head(layer, head) => {
                Slot::ALL.map(|slot| self.column(Reader::Head(layer, slot, head))).to_vec()
            }
            Source::Mlp(layer) => vec![self.column(Reader::Mlp(layer))],
        }
    }

    /// The source written by the node a reader belongs to; `None` for the logits.
    pub fn node_of(self, reader: Reader) -> Option<Source> {
        match reader {
            Reader::Head(layer, _, head) => Some(Source::Head(layer, head)),
            Reader::Mlp(layer) => Some(Source::Mlp(layer)),
            Reader::Logits => None,
        }
    }

    /// The name of an edge as the field writes it: `a9.h9->a10.h7<q>`, `m0->m1`, `input->logits`.
    pub fn name(self, edge: Edge) -> String {
        format!("{}->{}", self.source(edge.source), self.reader(edge.reader))
    }

    /// The edge of a name; `None` when this graph has no such edge.
    pub fn parse(self, name: &str) -> Option<Edge> {
        let (source, reader) = name.split_once("->")?;
        let edge = Edge { source: self.row(self.parse_node(source)?), reader: self.parse_reader(reader)? };
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

    fn parse_reader(self, name: &str) -> Option<usize> {
        if name == "logits" {
            return Some(self.column(Reader::Logits));
        }
        let slot = [("<q>", Slot::Query), ("<k>", Slot::Key), ("<v>", Slot::Value)];
        for (suffix, slot) in slot {
            if let Some(head) = name.strip_suffix(suffix) {
                let Source::Head(layer, head) = self.parse_node(head)? else { return None };
                return Some(self.column(Reader::Head(layer, slot, head)));
            }
        }
        match self.parse_node(name)? {
            Source::Mlp(layer) => Some(self.column(Reader::Mlp(layer))),
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

impl fmt::Display for Reader {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reader::Head(layer, slot, head) => {
                let slot = match slot {
                    Slot::Query => 'q',
                    Slot::Key => 'k',
                    Slot::Value => 'v',
                };
                write!(out, "a{layer}.h{head}<{slot}>")
            }
            Reader::Mlp(layer) => write!(out, "m{layer}"),
            Reader::Logits => out.write_str("logits"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// CIRCUITS.md section 1.2.
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
        for (n_layer, n_head, sources, readers, edges) in known {
            let graph = Graph { n_layer, n_head };
            assert_eq!((graph.n_sources(), graph.n_readers(), graph.n_edges()), (sources, readers, edges));
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
        for column in 0..graph.n_readers() {
            assert_eq!(graph.column(graph.reader(column)), column);
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
