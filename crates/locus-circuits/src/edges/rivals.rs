//! Rival circuits: several circuits of one size that all do the task and share as few edges as they can.
//!
//! Each is learned by [`EdgePruning`] with a penalty on the edges of those before it. Where two circuits that share
//! little do the task equally well, "the" circuit of the task does not exist, and a comparison of circuits between
//! tasks or seeds has this overlap as its floor.
//!
//! Source: "All Circuits Lead to Rome" (arXiv 2605.12671) for the question; the search is ours.

use locus_gpt2::{Gpt2, Result, Scalar};
use locus_metrics::overlap::Counts;

use super::ablation::Ablation;
use super::edge_pruning::{EdgePruning, LearnedEdges};
use super::edge_set::EdgeSet;
use super::intervene::{run_circuit, run_clean};
use super::metric::{LogitDiff, Metric};
use super::pairs::Pair;

impl EdgePruning {
    /// Finds `n` circuits of `n_edges` edges, each avoiding the edges of those before it, and calls `done` after every
    /// step of every training.
    ///
    /// # Errors
    /// As [`EdgePruning::find`].
    ///
    /// # Panics
    /// As [`EdgePruning::find`].
    pub fn find_rivals<F: Scalar>(
        &self,
        model: &Gpt2<F>,
        pairs: &[Pair],
        metric: &dyn Metric<F>,
        ablation: &dyn Ablation<F>,
        n_edges: usize,
        n: usize,
        seed: u64,
        done: &mut dyn FnMut(),
    ) -> Result<Vec<LearnedEdges>> {
        let (mut recipe, mut found) = (self.clone(), Vec::with_capacity(n));
        for i in 0..n as u64 {
            let seed = seed.wrapping_add(i);
            let rival = recipe.find(model, pairs, metric, ablation, n_edges, seed, done)?;
            recipe.rivals_of.push(rival.circuit.pruned());
            found.push(rival);
        }
        Ok(found)
    }
}

/// Share of the pairs on which a circuit prefers the same answers as the intact model: their logit differences
/// ([`LogitDiff`]) have one sign.
///
/// # Errors
/// When a pair does not fit the model or there is none.
///
/// # Panics
/// When the circuit belongs to a model of another shape.
pub fn agreement<F: Scalar>(
    model: &Gpt2<F>,
    pairs: &[Pair],
    circuit: &EdgeSet,
    ablation: &dyn Ablation<F>,
) -> Result<f64> {
    let clean = run_clean(model, pairs, &LogitDiff)?;
    let circuit = run_circuit(model, pairs, &LogitDiff, circuit, ablation)?;
    let same = clean.iter().zip(&circuit).filter(|(a, b)| (**a > 0.0) == (**b > 0.0)).count();
    Ok(same as f64 / pairs.len() as f64)
}

/// What two circuits of one graph share.
///
/// # Panics
/// When they belong to models of different shapes.
pub fn overlap(a: &EdgeSet, b: &EdgeSet) -> Counts {
    assert_eq!(a.graph(), b.graph(), "circuits of two models");
    let shared = a.edges().filter(|&edge| b.contains(edge)).count();
    Counts::new(shared, a.count(), b.count(), a.graph().n_edges()).expect("subsets of one graph")
}
