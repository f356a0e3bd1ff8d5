//! Edge pruning: a circuit found by training a gate per edge.
//!
//! Every edge has a hard concrete gate `z` with a parameter `log_alpha`. With `N` edges in the graph and `k` asked for,
//! a step draws all gates once, runs a batch of pairs with them, and moves
//!
//! ```text
//! minimise over log_alpha, maximise over lambda_1 and lambda_2:
//!     mean loss(gates) + lambda_1 excess + lambda_2 excess^2 + w sum over edges of used(edge) P(z > 0) / k
//!     excess = sum over edges of P(z > 0) / target - 1
//!     target = N (k / N)^min(1, step / (5/6 steps))
//! ```
//!
//! by Adam, whose learning rate rises for a fifteenth of the steps and then falls to 0. `used` counts the circuits
//! given in [`EdgePruning::rivals_of`], `w` is [`EdgePruning::rival_weight`]. The circuit is the `k` edges with the
//! largest `log_alpha`.
//!
//! Source: Bhaskar, Wettig, Friedman, Chen 2024 (arXiv 2406.16778), section 3 and appendix A, for the gates between
//! clean and ablated activations, the Lagrangian and the schedules. Deviations: the Lagrangian is about the expected
//! number of open gates (Louizos et al. 2018, equation 12) over its target, where theirs is about the sparsity of the
//! sample, which is near 1 whether a small circuit has its size or twice that; the target falls by equal ratios; gates
//! begin at `log_alpha` 4 instead of 10, where that expectation has a slope; edges alone have gates, nodes have none;
//! the term of `used` is ours.

use locus_gpt2::internal::{box_muller, shuffle};
use locus_gpt2::{AdamW, Error, Gpt2, Moments, Result, Scalar, compiled};
use ndarray::Array2;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use super::ablation::Ablation;
use super::edge_set::EdgeSet;
use super::gated::{gated_pieces, sum_over};
use super::graph::{Edge, Graph};
use super::hard_concrete::{open, sample};
use super::metric::Metric;
use super::pairs::Pair;
use super::scores::{EdgeScores, RankBy};
use super::setting::Setting;
use crate::noise::Noise;

/// Share of the steps over which the target falls.
const TARGET_WARM_UP: f64 = 5.0 / 6.0;
/// Share of the steps over which the learning rate rises.
const RATE_WARM_UP: f64 = 1.0 / 15.0;
/// Middle of the `log_alpha`s that come from scores: nearly all gates are open, and those of the worst edges least.
const MIDDLE_OF_SCORES: f64 = 3.0;
/// Streams of noise, told apart from those of tensors by the first.
const STREAM: u64 = u64::from_be_bytes(*b"edges\0\0\0");

/// The recipe, with its constants.
#[derive(Clone, Debug, PartialEq)]
pub struct EdgePruning {
    /// Optimiser steps.
    pub steps: usize,
    /// Largest learning rate, of the gates and of the multipliers.
    pub lr: f64,
    /// Pairs per step.
    pub batch_pairs: usize,
    /// Mean of the first `log_alpha`s.
    pub init_mean: f64,
    /// Their standard deviation.
    pub init_std: f64,
    /// Scores to begin with, in place of equal gates: edges get the logistic quantiles of the ranks of their absolute
    /// scores, so that a good edge begins further from 0 than a bad one (attribution and learned masks in one, as the
    /// hybrids of the MIB shared task, arXiv 2511.18409).
    pub start: Option<EdgeScores>,
    /// Circuits whose edges are to be avoided.
    pub rivals_of: Vec<EdgeSet>,
    /// Weight of the edges to be avoided, in units of the loss per share of the circuit.
    pub rival_weight: f64,
}

impl Default for EdgePruning {
    fn default() -> Self {
        EdgePruning {
            steps: 600,
            lr: 0.3,
            batch_pairs: 32,
            init_mean: 4.0,
            init_std: 0.01,
            start: None,
            rivals_of: Vec::new(),
            rival_weight: 1.0,
        }
    }
}

/// A learned circuit.
#[derive(Clone, Debug, PartialEq)]
pub struct LearnedEdges {
    /// The edges with the largest `log_alpha`, as many as were asked for.
    pub circuit: EdgeSet,
    /// The gates' parameters: an edge with a larger one is more surely kept. They are no effects on a loss.
    pub log_alphas: EdgeScores,
}

impl EdgePruning {
    /// Trains the gates for a circuit of `n_edges` edges, and calls `done` after each step. A seed gives equal bytes on
    /// any number of threads.
    ///
    /// Where all pairs are one batch, what does not depend on the gates is computed once and kept, which takes `2 S d`
    /// numbers per token; otherwise it is computed for each batch anew.
    ///
    /// # Errors
    /// When a pair does not fit the model, there is none, or the graph has fewer edges than asked for.
    ///
    /// # Panics
    /// When scores or circuits to avoid belong to a model of another shape, or there are no steps or pairs per batch.
    pub fn find<F: Scalar>(
        &self,
        model: &Gpt2<F>,
        pairs: &[Pair],
        metric: &dyn Metric<F>,
        ablation: &dyn Ablation<F>,
        n_edges: usize,
        seed: u64,
        done: &mut dyn FnMut(),
    ) -> Result<LearnedEdges> {
        F::run::<LearnJob>((self, Setting { model, pairs, metric, ablation }, n_edges, seed, done))
    }

    fn learn<F: Scalar>((recipe, setting, n_edges, seed, done): LearnInput<F>) -> Result<LearnedEdges> {
        let graph = Graph::new(setting.model.config());
        let edges: Vec<Edge> = graph.edges().collect();
        if n_edges == 0 || n_edges > edges.len() {
            let why = format!("a circuit of {n_edges} edges; expected 1 to {}", edges.len());
            return Err(Error::Input(why));
        }
        assert!(recipe.steps > 0 && recipe.batch_pairs > 0, "no steps or no pairs to train on");
        let ablated = setting.ablated_outputs()?;
        let all_in_one = setting.pairs.len() <= recipe.batch_pairs;
        let mut fixed = if all_in_one { gated_pieces(setting, &ablated)? } else { Vec::new() };
        let mut batches = Batches::new(setting.pairs.len(), recipe.batch_pairs, seed);

        let mut log_alphas = recipe.first(graph, &edges, seed);
        let used = recipe.used(graph, &edges);
        let mut multipliers = [0.0; 2];
        let (mut moments, mut own_moments) = (Moments::<f64>::zeros(edges.len()), Moments::<f64>::zeros(2));
        let mut gates = Array2::<F>::zeros((graph.n_sources(), graph.n_destinations()));
        let all = edges.len() as f64;
        for t in 1..=recipe.steps {
            let noise = Noise::new(seed, STREAM, t as u64);
            let mut slopes = vec![0.0; edges.len()];
            for (i, edge) in edges.iter().enumerate() {
                let (gate, slope) = sample(log_alphas[i], f64::from(noise.uniform(i)));
                gates[(edge.source, edge.destination)] = F::from_f64(gate);
                slopes[i] = slope;
            }
            let gradient = if all_in_one {
                sum_over(&mut fixed, &gates).1 / setting.pairs.len() as f64
            } else {
                let pairs: Vec<Pair> = batches.next().iter().map(|&i| setting.pairs[i].clone()).collect();
                let mut pieces = gated_pieces(Setting { pairs: &pairs, ..setting }, &ablated)?;
                sum_over(&mut pieces, &gates).1 / pairs.len() as f64
            };
            let opens: Vec<(f64, f64)> = log_alphas.iter().map(|&log_alpha| open(log_alpha)).collect();
            let progress = t as f64 / recipe.steps as f64;
            let target = all * (n_edges as f64 / all).powf((progress / TARGET_WARM_UP).min(1.0));
            let excess = opens.iter().map(|(p, _)| p).sum::<f64>() / target - 1.0;
            let pressure = (multipliers[0] + 2.0 * multipliers[1] * excess) / target;
            let gradients: Vec<f64> = (0..edges.len())
                .map(|i| {
                    let through_gate = gradient[(edges[i].source, edges[i].destination)] * slopes[i];
                    let avoided = recipe.rival_weight * used[i] / n_edges as f64;
                    through_gate + (avoided + pressure) * opens[i].1
                })
                .collect();
            let rate = (progress / RATE_WARM_UP).min((1.0 - progress) / (1.0 - RATE_WARM_UP));
            let adam = AdamW { weight_decay: 0.0, epsilon: 1e-12, ..AdamW::new(recipe.lr * rate) };
            adam.step(t, &mut log_alphas, &gradients, &mut moments);
            // The multipliers ascend.
            adam.step(t, &mut multipliers, &[-excess, -excess * excess], &mut own_moments);
            done();
        }
        let mut values = Array2::zeros((graph.n_sources(), graph.n_destinations()));
        for (edge, log_alpha) in edges.iter().zip(log_alphas) {
            values[(edge.source, edge.destination)] = log_alpha;
        }
        let log_alphas = EdgeScores::new(graph, values);
        Ok(LearnedEdges { circuit: EdgeSet::top_n(&log_alphas, n_edges, RankBy::Signed), log_alphas })
    }

    /// The first `log_alpha` of each edge.
    fn first(&self, graph: Graph, edges: &[Edge], seed: u64) -> Vec<f64> {
        let noise = Noise::new(seed, STREAM, 0);
        let normal =
            |i: usize| box_muller(f64::from(noise.uniform(2 * i)), f64::from(noise.uniform(2 * i + 1)));
        let Some(scores) = &self.start else {
            return (0..edges.len()).map(|i| self.init_mean + self.init_std * normal(i)).collect();
        };
        assert_eq!(scores.graph(), graph, "scores of another model");
        let mut first = Array2::zeros((graph.n_sources(), graph.n_destinations()));
        for (rank, edge) in scores.ranked(RankBy::Absolute).into_iter().rev().enumerate() {
            let p = (rank as f64 + 0.5) / edges.len() as f64;
            first[(edge.source, edge.destination)] = MIDDLE_OF_SCORES + (p / (1.0 - p)).ln();
        }
        edges.iter().map(|edge| first[(edge.source, edge.destination)]).collect()
    }

    /// Number of circuits to avoid that have each edge.
    fn used(&self, graph: Graph, edges: &[Edge]) -> Vec<f64> {
        let is_of_graph = |circuit: &EdgeSet| circuit.graph() == graph;
        assert!(self.rivals_of.iter().all(is_of_graph), "a circuit of another model");
        let count = |edge: &Edge| self.rivals_of.iter().filter(|circuit| circuit.contains(*edge)).count();
        edges.iter().map(|edge| count(edge) as f64).collect()
    }
}

compiled!(LearnJob<'a>: <F> LearnInput<'a, F> => Result<LearnedEdges>, EdgePruning::learn);

type LearnInput<'a, F> = (&'a EdgePruning, Setting<'a, F>, usize, u64, &'a mut dyn FnMut());

/// Batches of shuffled pairs, epoch after epoch; the last batch of an epoch may be smaller.
struct Batches {
    order: Vec<usize>,
    at: usize,
    size: usize,
    rng: ChaCha8Rng,
}

impl Batches {
    fn new(n: usize, size: usize, seed: u64) -> Self {
        Batches { order: (0..n).collect(), at: n, size, rng: ChaCha8Rng::seed_from_u64(seed) }
    }

    fn next(&mut self) -> &[usize] {
        if self.at == self.order.len() {
            shuffle(&mut self.order, &mut self.rng);
            self.at = 0;
        }
        let begin = self.at;
        self.at = (begin + self.size).min(self.order.len());
        &self.order[begin..self.at]
    }
}
