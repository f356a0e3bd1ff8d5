//! ACDC, automatic circuit discovery: edges are removed one after the other, from the logits back to the inputs.
//!
//! ```text
//! for each destination v, in reverse order of the forward pass:
//!     where nothing that is kept reads the node of v, drop every edge into v
//!     else for each source u before v, the last one first:
//!         change = loss(kept edges without u -> v) - loss(kept edges)
//!         drop u -> v if change < threshold
//! ```
//!
//! Source: Conmy, Mavor-Parker, Lynch, Heimersheim, Garriga-Alonso 2023 (arXiv 2304.14997), algorithm 1. The loss is
//! the metric's: with [`Kl`](super::Kl), as in the paper, the divergence from the intact model. Deviation: the paper's
//! graph has nodes between a head's inputs and its output, whose edges it may remove, too; this one has none.
//!
//! Everything before `v` still has all of its edges, so a run begins at the layer of `v`.

use locus_gpt2::{Error, Gpt2, Result, Scalar, compiled};
use ndarray::Array2;
use rayon::prelude::*;

use super::ablation::Ablation;
use super::edge_set::EdgeSet;
use super::gated::{gated_pieces, gates_of};
use super::graph::{Destination, Edge, Graph};
use super::metric::Metric;
use super::pairs::Pair;
use super::scores::EdgeScores;
use super::setting::Setting;

/// The circuit that ACDC keeps.
#[derive(Clone, Debug, PartialEq)]
pub struct AcdcCircuit {
    /// The edges kept.
    pub circuit: EdgeSet,
    /// Change of the mean loss when each edge was tried without; 0 for edges into a node that nothing kept reads.
    pub scores: EdgeScores,
    /// Number of runs over all pairs.
    pub runs: usize,
}

/// Prunes edges whose removal raises the mean loss by less than `threshold`, and calls `done` after each edge.
///
/// Costs about half a forward pass per edge and pair, and 2 `S d` numbers of memory per token (1 MB for GPT-2 small in
/// f32). A graph of 32,491 edges takes hours on a few cores where attribution takes minutes.
///
/// # Errors
/// When a pair does not fit the model, there is none, or the threshold is not a number.
pub fn acdc<F: Scalar>(
    model: &Gpt2<F>,
    pairs: &[Pair],
    metric: &dyn Metric<F>,
    ablation: &dyn Ablation<F>,
    threshold: f64,
    done: &mut dyn FnMut(),
) -> Result<AcdcCircuit> {
    if threshold.is_nan() {
        return Err(Error::Input("the threshold is not a number; expected one".into()));
    }
    F::run::<AcdcJob>((Setting { model, pairs, metric, ablation }, threshold, done))
}

compiled!(AcdcJob<'a>: <F> (Setting<'a, F>, f64, &'a mut dyn FnMut()) => Result<AcdcCircuit>, prune);

fn prune<F: Scalar>((setting, threshold, done): (Setting<F>, f64, &mut dyn FnMut())) -> Result<AcdcCircuit> {
    let ablated = setting.ablated_outputs()?;
    let graph = Graph::new(setting.model.config());
    let mut pieces = gated_pieces(setting, &ablated)?;
    let mut circuit = EdgeSet::full(graph);
    let mut gates = gates_of::<F>(&circuit);
    let mut values = Array2::zeros((graph.n_sources(), graph.n_destinations()));
    let mut runs = 0;
    let mut loss = |gates: &Array2<F>, from: usize| {
        runs += 1;
        let losses: Vec<f64> = pieces.par_iter_mut().map(|piece| piece.loss(gates, from)).collect();
        losses.iter().sum::<f64>() / setting.pairs.len() as f64
    };
    let mut present = loss(&gates, 0);
    for column in (0..graph.n_destinations()).rev() {
        let destination = graph.destination(column);
        let from = match destination {
            Destination::Head(layer, ..) | Destination::Mlp(layer) => layer,
            Destination::Logits => graph.n_layer,
        };
        let is_read = graph.node_of(destination).is_none_or(|node| {
            let source = graph.row(node);
            (0..graph.n_destinations()).any(|destination| circuit.contains(Edge { source, destination }))
        });
        for source in (0..graph.n_before(destination)).rev() {
            let edge = Edge { source, destination: column };
            gates[(source, column)] = F::zero();
            let mut keep = false;
            if is_read {
                let without = loss(&gates, from);
                values[(source, column)] = without - present;
                keep = without - present >= threshold;
                if !keep {
                    present = without;
                }
            }
            if keep {
                gates[(source, column)] = F::one();
            } else {
                circuit.remove(edge);
            }
            done();
        }
    }
    Ok(AcdcCircuit { circuit, scores: EdgeScores::new(graph, values), runs })
}
