//! Hypothesis tests of a circuit: is it equivalent to the model, is the rest independent of the model, is every edge
//! needed?
//!
//! | test | null hypothesis | a small p-value says |
//! |---|---|---|
//! | [`equivalence`] | each outperforms the other equally often, up to a tolerance | the circuit is not the model |
//! | [`independence`] | complement and model score independently | the complement knows the task |
//! | [`minimality_test`] | an edge matters more than a superfluous one | the edge is superfluous |
//!
//! ```text
//! equivalence:   k = number of inputs on which the circuit scores higher, of n without ties
//!                H0: |P(higher) - 1/2| <= tolerance;  p = P(|K - n/2| >= |k - n/2|), K ~ Bin(n, 1/2 + tolerance)
//! independence:  HSIC = trace(K H L H) / (n - 1)^2,  K and L Gaussian kernels of the scores, H centring;
//!                p = (b + 1) / (m + 1) from m random orders of one side
//! minimality:    delta(e, C) = mean over inputs of |score(C) - score(C without e)|
//!                k = number of inflated circuits, of n, in which delta(random superfluous edge) < delta(e, C)
//!                H0: P(smaller) >= quantile;  p = P(K <= k), K ~ Bin(n, quantile)
//! ```
//!
//! An inflated circuit is the circuit with a random path added, from a node of it (or the token embedding) to another
//! (or the logits); the superfluous edge is one of that path.
//!
//! Source: Shi et al. 2024 (arXiv 2410.13032), section 3 and appendix B; HSIC is Gretton et al. 2007. Deviations: ties
//! are left out, as a sign test does; each side's kernel has the median distance of its own as width; the p-value of a
//! permutation test is never 0; p-values of edges come corrected for their number (Holm 1979) as well.

use locus_gpt2::internal::shuffle;
use locus_gpt2::{Gpt2, Result, Scalar};
use locus_metrics::two_way::holm;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use super::ablation::Ablation;
use super::edge_set::EdgeSet;
use super::graph::{Destination, Edge, Graph, Source};
use super::intervene::run_circuit;
use super::metric::Metric;
use super::pairs::Pair;

/// A test's statistic and p-value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HypothesisTest {
    /// Share of inputs on which the circuit scores higher, HSIC, or share of superfluous edges that matter less.
    pub statistic: f64,
    /// Probability, under the null hypothesis, of a statistic at least as extreme.
    pub p_value: f64,
    /// Number of inputs or of inflated circuits that were compared.
    pub n: usize,
}

/// Whether a circuit and its model outperform each other equally often, within `tolerance` of one half (0.1 in the
/// paper), from their scores on each input. `None` when they are equal on every input.
///
/// # Panics
/// When the lengths differ, or the tolerance is outside [0, 1/2).
pub fn equivalence(circuit: &[f64], model: &[f64], tolerance: f64) -> Option<HypothesisTest> {
    assert_eq!(circuit.len(), model.len(), "scores of one circuit and one model on the same inputs");
    assert!((0.0..0.5).contains(&tolerance), "a tolerance of {tolerance}");
    let differing = || circuit.iter().zip(model).filter(|(circuit, model)| circuit != model);
    let (n, higher) = (differing().count(), differing().filter(|(circuit, model)| circuit > model).count());
    if n == 0 {
        return None;
    }
    let (fewer, more) = (higher.min(n - higher), higher.max(n - higher));
    let p_value = if fewer == more {
        1.0
    } else {
        let boundary = log_binomials(n, 0.5 + tolerance);
        (sum_exp(&boundary[..=fewer]) + sum_exp(&boundary[more..])).min(1.0)
    };
    Some(HypothesisTest { statistic: higher as f64 / n as f64, p_value, n })
}

/// Whether the scores of a circuit's complement are independent of those of the model, by HSIC and `permutations`
/// random orders. `None` when either side is constant (on more than half of the pairs of inputs) or there are fewer
/// than two inputs. Takes `n^2` work per order.
///
/// # Panics
/// When the lengths differ or there are no permutations.
pub fn independence(
    complement: &[f64],
    model: &[f64],
    permutations: usize,
    seed: u64,
) -> Option<HypothesisTest> {
    assert_eq!(complement.len(), model.len(), "scores of one circuit and one model on the same inputs");
    assert!(permutations > 0, "a permutation test needs permutations");
    let n = model.len();
    let (k, l) = (centred_kernel(complement)?, centred_kernel(model)?);
    let hsic = |order: &[usize]| -> f64 {
        let row = |i: usize| -> f64 { (0..n).map(|j| k[i * n + j] * l[order[i] * n + order[j]]).sum() };
        (0..n).map(row).sum::<f64>() / ((n - 1) * (n - 1)) as f64
    };
    let mut order: Vec<usize> = (0..n).collect();
    let statistic = hsic(&order);
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let as_large = (0..permutations)
        .filter(|_| {
            shuffle(&mut order, &mut rng);
            hsic(&order) >= statistic * (1.0 - 1e-12)
        })
        .count();
    Some(HypothesisTest { statistic, p_value: (as_large + 1) as f64 / (permutations + 1) as f64, n })
}

/// One edge in a test of minimality.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EdgeTest {
    /// The edge of the circuit.
    pub edge: Edge,
    /// Mean over inputs of the absolute change of the score when it is removed.
    pub change: f64,
    /// Test against superfluous edges: a small p-value says that the edge is one.
    pub test: HypothesisTest,
    /// The p-value adjusted for the number of edges (Holm 1979).
    pub adjusted: f64,
}

/// Whether each edge of a circuit matters more than a share `quantile` (0.9 in the paper) of superfluous edges, each
/// from one of `inflations` inflated circuits. Costs two runs over all pairs for each of them, and one for each edge.
///
/// # Errors
/// When a pair does not fit the model or there is none.
///
/// # Panics
/// When the circuit has no edge or every edge, or belongs to a model of another shape; when there are no inflations or
/// the quantile is outside (0, 1).
pub fn minimality_test<F: Scalar>(
    model: &Gpt2<F>,
    pairs: &[Pair],
    metric: &dyn Metric<F>,
    circuit: &EdgeSet,
    ablation: &dyn Ablation<F>,
    quantile: f64,
    inflations: usize,
    seed: u64,
) -> Result<Vec<EdgeTest>> {
    let n_edges = circuit.graph().n_edges();
    assert!((1..n_edges).contains(&circuit.count()), "{} of {n_edges} edges", circuit.count());
    assert!(
        inflations > 0 && quantile > 0.0 && quantile < 1.0,
        "{inflations} inflations, quantile {quantile}"
    );
    let run = |set: &EdgeSet| run_circuit(model, pairs, metric, set, ablation);
    let change = |set: &EdgeSet, whole: &[f64], edge: Edge| -> Result<f64> {
        let mut rest = set.clone();
        rest.remove(edge);
        let rest = run(&rest)?;
        Ok(whole.iter().zip(&rest).map(|(a, b)| (a - b).abs()).sum::<f64>() / whole.len() as f64)
    };
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut superfluous = Vec::with_capacity(inflations);
    for _ in 0..inflations {
        let (inflated, added) = inflate(circuit, &mut rng);
        let edge = added[rng.random_range(0..added.len())];
        superfluous.push(change(&inflated, &run(&inflated)?, edge)?);
    }
    let whole = run(circuit)?;
    let null = log_binomials(inflations, quantile);
    let mut tests = Vec::with_capacity(circuit.count());
    for edge in circuit.edges() {
        let change = change(circuit, &whole, edge)?;
        let below = superfluous.iter().filter(|&&other| other < change).count();
        let test = HypothesisTest {
            statistic: below as f64 / inflations as f64,
            p_value: sum_exp(&null[..=below]).min(1.0),
            n: inflations,
        };
        tests.push(EdgeTest { edge, change, test, adjusted: test.p_value });
    }
    let p_values: Vec<f64> = tests.iter().map(|edge| edge.test.p_value).collect();
    for (test, adjusted) in tests.iter_mut().zip(holm(&p_values)) {
        test.adjusted = adjusted;
    }
    Ok(tests)
}

/// A circuit with a random path added, and the edges of that path that were not in the circuit: an edge outside, drawn
/// uniformly, extended backwards and forwards by random edges until it meets the circuit or an end of the graph.
fn inflate(circuit: &EdgeSet, rng: &mut ChaCha8Rng) -> (EdgeSet, Vec<Edge>) {
    let graph = circuit.graph();
    let mut is_inside = vec![false; graph.n_sources()];
    is_inside[graph.row(Source::Input)] = true;
    for edge in circuit.edges() {
        is_inside[edge.source] = true;
        if let Some(node) = graph.node_of(graph.destination(edge.destination)) {
            is_inside[graph.row(node)] = true;
        }
    }
    let outside: Vec<Edge> = circuit.complement().edges().collect();
    let first = outside[rng.random_range(0..outside.len())];
    let mut path = vec![first];
    let mut node = first.source;
    while !is_inside[node] {
        let inputs = graph.inputs_of(graph.source(node));
        let destination = inputs[rng.random_range(0..inputs.len())];
        let source = rng.random_range(0..graph.n_before(graph.destination(destination)));
        path.push(Edge { source, destination });
        node = source;
    }
    let mut destination = first.destination;
    while let Some(node) =
        graph.node_of(graph.destination(destination)).filter(|&node| !is_inside[graph.row(node)])
    {
        let source = graph.row(node);
        let readers = readers_of(graph, source);
        destination = readers[rng.random_range(0..readers.len())];
        path.push(Edge { source, destination });
    }
    path.retain(|&edge| !circuit.contains(edge));
    let mut inflated = circuit.clone();
    path.iter().for_each(|&edge| inflated.insert(edge));
    (inflated, path)
}

/// Columns that read after a source has written.
fn readers_of(graph: Graph, source: usize) -> Vec<usize> {
    let logits = graph.column(Destination::Logits);
    (0..=logits).filter(|&destination| graph.has(Edge { source, destination })).collect()
}

/// Gaussian kernel matrix of numbers, `[n, n]`, rows and columns centred; the width is the median of the distances
/// between them, and `None` when that is 0.
fn centred_kernel(x: &[f64]) -> Option<Vec<f64>> {
    let n = x.len();
    let pairs = (0..n).flat_map(|i| (0..i).map(move |j| (i, j)));
    let mut distances: Vec<f64> = pairs.map(|(i, j)| (x[i] - x[j]).abs()).collect();
    distances.sort_by(f64::total_cmp);
    let width = *distances.get(distances.len() / 2)?;
    if width == 0.0 {
        return None;
    }
    let kernel = |i: usize, j: usize| (-0.5 * ((x[i] - x[j]) / width).powi(2)).exp();
    let means: Vec<f64> = (0..n).map(|i| (0..n).map(|j| kernel(i, j)).sum::<f64>() / n as f64).collect();
    let mean = means.iter().sum::<f64>() / n as f64;
    let centred =
        (0..n * n).map(|at| (at / n, at % n)).map(|(i, j)| kernel(i, j) - means[i] - means[j] + mean);
    Some(centred.collect())
}

/// Logarithms of the probabilities of 0 to n successes in n trials, for p in (0, 1).
fn log_binomials(n: usize, p: f64) -> Vec<f64> {
    let mut log = n as f64 * (1.0 - p).ln();
    let mut logs = vec![log];
    for k in 0..n {
        log += ((n - k) as f64 / (k + 1) as f64).ln() + (p / (1.0 - p)).ln();
        logs.push(log);
    }
    logs
}

fn sum_exp(logs: &[f64]) -> f64 {
    logs.iter().map(|log| log.exp()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edges::{LogitDiff, StandardAblation};
    use crate::planted;
    use locus_gpt2::internal::box_muller;

    fn normals(n: usize, rng: &mut ChaCha8Rng) -> Vec<f64> {
        let mut uniform = || 1.0 - rng.random::<f64>();
        (0..n).map(|_| box_muller(uniform(), uniform())).collect()
    }

    /// Sums of binomial coefficients.
    #[test]
    fn binomial_tails_by_hand() {
        let logs = log_binomials(4, 0.25);
        assert!((sum_exp(&logs[3..]) - 13.0 / 256.0).abs() < 1e-14);
        assert!((sum_exp(&logs) - 1.0).abs() < 1e-14);
        // Nine of ten higher: (C(10, 0) + C(10, 1)) 2 / 1024 without tolerance.
        let model = [0.0; 10];
        let mut circuit = [1.0; 10];
        circuit[4] = -1.0;
        let test = equivalence(&circuit, &model, 0.0).unwrap();
        assert!((test.p_value - 22.0 / 1024.0).abs() < 1e-14 && test.statistic == 0.9, "{test:?}");
        assert!(equivalence(&circuit, &model, 0.1).unwrap().p_value > 2.0 * test.p_value);
        assert_eq!(equivalence(&model, &model, 0.1), None);
    }

    /// Null worlds: at the 5 % level, at most 5 % of true null hypotheses are rejected, up to sampling (five standard
    /// errors of 400 worlds).
    #[test]
    fn true_hypotheses_are_rejected_no_more_often_than_nominal() {
        const WORLDS: usize = 400;
        let most = (WORLDS as f64 * 0.05 + 5.0 * (WORLDS as f64 * 0.05 * 0.95).sqrt()) as usize;
        let mut rng = ChaCha8Rng::seed_from_u64(11);
        let (mut unequal, mut dependent) = (0, 0);
        for world in 0..WORLDS {
            let model = normals(40, &mut rng);
            // At the boundary of the hypothesis: the circuit is better with probability 0.6.
            let circuit: Vec<f64> =
                model.iter().map(|x| if rng.random::<f64>() < 0.6 { x + 1.0 } else { x - 1.0 }).collect();
            unequal += usize::from(equivalence(&circuit, &model, 0.1).unwrap().p_value <= 0.05);
            let other = normals(40, &mut rng);
            dependent += usize::from(independence(&other, &model, 99, world as u64).unwrap().p_value <= 0.05);
        }
        assert!(unequal <= most && dependent <= most, "{unequal} and {dependent} of {WORLDS}");
        // A test that never rejects would pass the above.
        assert!(dependent > 0, "{dependent}");
    }

    #[test]
    fn planted_effects_are_found() {
        let mut rng = ChaCha8Rng::seed_from_u64(12);
        let model = normals(60, &mut rng);
        let worse: Vec<f64> = model.iter().map(|x| x - 0.1).collect();
        assert!(equivalence(&worse, &model, 0.1).unwrap().p_value < 1e-6);
        // Dependence without correlation.
        let square: Vec<f64> = model.iter().map(|x| x * x).collect();
        let test = independence(&square, &model, 999, 1).unwrap();
        assert_eq!(test.p_value, 1e-3, "{test:?}");
        assert_eq!(independence(&[1.0; 60], &model, 99, 1), None);
    }

    /// Every edge of the planted circuit is needed; an edge that was added to it is not.
    #[test]
    fn superfluous_edges_of_a_planted_circuit() {
        let planted = planted::exclusive_or();
        let (model, pairs, graph) = (&planted.model, &planted.pairs, planted.truth.graph());
        let extra = graph.parse("a0.h2->a1.h1<k>").unwrap();
        let mut circuit = planted.truth.clone();
        circuit.insert(extra);
        let test = |circuit: &EdgeSet| {
            minimality_test(model, pairs, &LogitDiff, circuit, &StandardAblation::Corrupted, 0.9, 60, 5)
                .unwrap()
        };
        for EdgeTest { edge, change, test, adjusted } in test(&circuit) {
            let name = graph.name(edge);
            if edge == extra {
                assert!(adjusted < 0.01, "{name}: {change} {test:?}");
            } else {
                assert!(test.statistic == 1.0 && adjusted == 1.0, "{name}: {change} {test:?}");
            }
        }
        assert!(test(&planted.truth).iter().all(|edge| edge.adjusted > 0.05));
    }

    #[test]
    fn inflated_circuits_gain_a_path() {
        let circuit = planted::induction().truth;
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        for _ in 0..200 {
            let (inflated, added) = inflate(&circuit, &mut rng);
            assert!(!added.is_empty() && added.iter().all(|&edge| !circuit.contains(edge)));
            assert_eq!(inflated.count(), circuit.count() + added.len());
            // Nothing of it is a dead end.
            assert_eq!(inflated.pruned(), inflated);
        }
    }
}
