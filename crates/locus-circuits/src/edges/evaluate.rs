//! Measures of a circuit: faithfulness, minimality, completeness, stability, and random controls.

use locus_gpt2::{Gpt2, Result, Scalar};
use locus_metrics::bootstrap::{RESAMPLES, bootstrap, bootstrap_mean};
use locus_metrics::overlap::Counts;
use locus_metrics::{Interval, Stream};
use rand::RngExt;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use super::ablation::Ablation;
use super::edge_set::EdgeSet;
use super::graph::{Edge, Graph};
use super::intervene::{run_circuit, run_clean, run_positions};
use super::metric::Metric;
use super::pairs::Pair;
use super::positions::PositionSet;
use super::scores::{EdgeScores, RankBy};

/// Faithfulness of a circuit: the metric of the full model, of the empty circuit and of the circuit, pair by pair.
#[derive(Clone, Debug, PartialEq)]
pub struct Faithfulness {
    /// Metric of the intact model on each clean prompt.
    pub clean: Vec<f64>,
    /// Metric on each pair with every edge ablated.
    pub empty: Vec<f64>,
    /// Metric on each pair with the edges outside the circuit ablated.
    pub circuit: Vec<f64>,
}

impl Faithfulness {
    /// Runs the intact model, the empty circuit and `circuit` on every pair.
    ///
    /// # Errors
    /// When a pair does not fit the model or there is none.
    pub fn of<F: Scalar>(
        model: &Gpt2<F>,
        pairs: &[Pair],
        metric: &dyn Metric<F>,
        circuit: &EdgeSet,
        ablation: &dyn Ablation<F>,
    ) -> Result<Self> {
        let run = |set: &EdgeSet| run_circuit(model, pairs, metric, set, ablation);
        Ok(Faithfulness {
            clean: run_clean(model, pairs, metric)?,
            empty: run(&EdgeSet::empty(circuit.graph()))?,
            circuit: run(circuit)?,
        })
    }

    /// Runs the intact model, the empty circuit and a circuit of edges at positions on every pair.
    ///
    /// # Errors
    /// As [`run_positions`].
    ///
    /// # Panics
    /// As [`run_positions`].
    pub fn of_positions<F: Scalar>(
        model: &Gpt2<F>,
        pairs: &[Pair],
        metric: &dyn Metric<F>,
        circuit: &PositionSet,
        ablation: &dyn Ablation<F>,
    ) -> Result<Self> {
        let run = |set: &PositionSet| run_positions(model, pairs, metric, set, ablation);
        Ok(Faithfulness {
            clean: run_clean(model, pairs, metric)?,
            empty: run(&PositionSet::empty(circuit.graph(), circuit.n_positions()))?,
            circuit: run(circuit)?,
        })
    }

    /// `(circuit - empty) / (clean - empty)`, each a mean over pairs; above 1 when the circuit beats the model, below 0
    /// when it does worse than nothing. `None` when clean and empty are within 1e-6 of each other.
    pub fn normalised(&self) -> Option<f64> {
        self.normalised_on(&(0..self.clean.len()).collect::<Vec<_>>())
    }

    /// `clean - empty`, the denominator of faithfulness, with its 95 % percentile bootstrap interval over pairs.
    ///
    /// # Panics
    /// When there are no pairs.
    pub fn span(&self, stream: Stream) -> Interval {
        span(&self.clean, &self.empty, stream)
    }

    /// [`Faithfulness::normalised`] with its 95 % percentile bootstrap interval over pairs.
    ///
    /// `None` when it is undefined, or when the interval of [`Faithfulness::span`] contains 0: a ratio whose denominator
    /// may have either sign says nothing. Both intervals come from equal resamples; those on which the ratio is
    /// undefined are left out.
    pub fn interval(&self, stream: Stream) -> Option<Interval> {
        self.normalised()?;
        if self.span(stream).contains(0.0) {
            return None;
        }
        let on = |pairs: &[usize]| self.normalised_on(pairs).unwrap_or(f64::NAN);
        Some(bootstrap(self.clean.len(), RESAMPLES, stream, on))
    }

    fn normalised_on(&self, pairs: &[usize]) -> Option<f64> {
        normaliser(&self.clean, &self.empty, pairs).map(|normalise| normalise(&self.circuit))
    }
}

/// Interval over pairs of the mean of `clean - empty`.
pub(super) fn span(clean: &[f64], empty: &[f64], stream: Stream) -> Interval {
    let differences: Vec<f64> = clean.iter().zip(empty).map(|(clean, empty)| clean - empty).collect();
    bootstrap_mean(&differences, RESAMPLES, stream)
}

/// The function from a circuit's metric on each pair to its faithfulness on some of the pairs; `None` when clean and
/// empty are within 1e-6 of each other there.
pub(super) fn normaliser<'a>(
    clean: &[f64],
    empty: &[f64],
    pairs: &'a [usize],
) -> Option<impl Fn(&[f64]) -> f64 + use<'a>> {
    let mean = move |values: &[f64]| pairs.iter().map(|&pair| values[pair]).sum::<f64>() / pairs.len() as f64;
    let (clean, empty) = (mean(clean), mean(empty));
    let defined = (clean - empty).abs() > 1e-6;
    defined.then_some(move |circuit: &[f64]| (mean(circuit) - empty) / (clean - empty))
}

/// Minimality (Wang et al. 2022, arXiv 2211.00593, section 4): for each edge of a circuit, how much the mean metric
/// falls when that edge alone is removed.
///
/// # Errors
/// When a pair does not fit the model or there is none.
pub fn minimality<F: Scalar>(
    model: &Gpt2<F>,
    pairs: &[Pair],
    metric: &dyn Metric<F>,
    circuit: &EdgeSet,
    ablation: &dyn Ablation<F>,
) -> Result<Vec<(Edge, f64)>> {
    let mean = |set: &EdgeSet| -> Result<f64> {
        let values = run_circuit(model, pairs, metric, set, ablation)?;
        Ok(values.iter().sum::<f64>() / values.len() as f64)
    };
    let whole = mean(circuit)?;
    circuit
        .edges()
        .map(|edge| {
            let mut rest = circuit.clone();
            rest.remove(edge);
            Ok((edge, whole - mean(&rest)?))
        })
        .collect()
}

/// Completeness (Wang et al. 2022, arXiv 2211.00593, section 4): removing a set of edges should change the circuit as
/// it changes the model. For each knock-out, returns the mean metric of the circuit without it and of the model without
/// it; for a complete circuit the two are equal.
///
/// # Errors
/// When a pair does not fit the model or there is none.
pub fn completeness<F: Scalar>(
    model: &Gpt2<F>,
    pairs: &[Pair],
    metric: &dyn Metric<F>,
    circuit: &EdgeSet,
    ablation: &dyn Ablation<F>,
    knock_outs: &[EdgeSet],
) -> Result<Vec<(f64, f64)>> {
    let without = |set: &EdgeSet, gone: &EdgeSet| -> Result<f64> {
        let rest = EdgeSet::from_edges(set.graph(), set.edges().filter(|&edge| !gone.contains(edge)));
        let values = run_circuit(model, pairs, metric, &rest, ablation)?;
        Ok(values.iter().sum::<f64>() / values.len() as f64)
    };
    let full = EdgeSet::full(circuit.graph());
    knock_outs.iter().map(|gone| Ok((without(circuit, gone)?, without(&full, gone)?))).collect()
}

/// Stability: the mean Jaccard index between the top-n circuit of all pairs and those of bootstrap resamples of the
/// pairs.
///
/// # Panics
/// When there are no scores, no resamples or `n` is 0.
pub fn stability(
    per_pair: &[EdgeScores],
    n: usize,
    by: RankBy,
    resamples: usize,
    rng: &mut ChaCha8Rng,
) -> f64 {
    assert!(!per_pair.is_empty() && resamples > 0 && n > 0, "nothing to resample");
    let graph = per_pair[0].graph();
    let circuit = |drawn: &mut dyn Iterator<Item = usize>| {
        let mut sum = ndarray::Array2::<f64>::zeros(per_pair[0].matrix().dim());
        drawn.for_each(|i| sum += per_pair[i].matrix());
        EdgeSet::top_n(&EdgeScores::new(graph, sum), n, by)
    };
    let all = circuit(&mut (0..per_pair.len()));
    let total: f64 = (0..resamples)
        .map(|_| {
            let drawn: Vec<usize> =
                (0..per_pair.len()).map(|_| rng.random_range(0..per_pair.len())).collect();
            let other = circuit(&mut drawn.into_iter());
            let both = all.edges().filter(|&edge| other.contains(edge)).count();
            let counts = Counts::new(both, all.count(), other.count(), graph.n_edges());
            counts.and_then(Counts::jaccard).expect("sets of one edge or more")
        })
        .sum();
    total / resamples as f64
}

/// Area under the ROC curve of a ranking against a known circuit: the probability that a true edge is scored above a
/// false one, ties counting half (Mann-Whitney).
///
/// # Panics
/// When the circuit has no edge or every edge.
pub fn auroc(scores: &EdgeScores, truth: &EdgeSet, by: RankBy) -> f64 {
    let key = |edge: Edge| if by == RankBy::Absolute { scores.get(edge).abs() } else { scores.get(edge) };
    let mut all: Vec<(f64, bool)> =
        scores.graph().edges().map(|edge| (key(edge), truth.contains(edge))).collect();
    all.sort_by(|a, b| a.0.total_cmp(&b.0));
    let positives = truth.count();
    let negatives = all.len() - positives;
    assert!(positives > 0 && negatives > 0, "a circuit with {positives} of {} edges", all.len());
    let (mut above, mut negatives_below) = (0.0, 0.0);
    for tied in all.chunk_by(|a, b| a.0 == b.0) {
        let true_here = tied.iter().filter(|(_, is_true)| *is_true).count() as f64;
        let false_here = tied.len() as f64 - true_here;
        above += true_here * (negatives_below + 0.5 * false_here);
        negatives_below += false_here;
    }
    above / (positives as f64 * negatives as f64)
}

/// A set of `n` edges drawn without replacement: the control for a circuit of that size.
///
/// # Panics
/// When there are fewer edges.
pub fn random_edges(graph: Graph, n: usize, rng: &mut ChaCha8Rng) -> EdgeSet {
    let mut edges: Vec<Edge> = graph.edges().collect();
    assert!(n <= edges.len(), "{n} of {} edges", edges.len());
    edges.shuffle(rng);
    edges.truncate(n);
    EdgeSet::from_edges(graph, edges)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::Array2;
    use rand_chacha::rand_core::SeedableRng;

    #[test]
    fn auroc_of_perfect_reversed_and_tied_rankings() {
        let graph = Graph { n_layer: 2, n_head: 2 };
        let truth = random_edges(graph, 9, &mut ChaCha8Rng::seed_from_u64(1));
        assert_eq!(truth.count(), 9);
        let scores = |inside: f64, outside: f64| {
            let mut values = Array2::zeros((graph.n_sources(), graph.n_destinations()));
            for edge in graph.edges() {
                values[(edge.source, edge.destination)] = if truth.contains(edge) { inside } else { outside };
            }
            EdgeScores::new(graph, values)
        };
        assert_eq!(auroc(&scores(2.0, -1.0), &truth, RankBy::Absolute), 1.0);
        assert_eq!(auroc(&scores(-2.0, 1.0), &truth, RankBy::Absolute), 1.0);
        assert_eq!(auroc(&scores(-2.0, 1.0), &truth, RankBy::Signed), 0.0);
        assert_eq!(auroc(&scores(1.0, 1.0), &truth, RankBy::Absolute), 0.5);
    }

    fn faithfulness(clean: [f64; 4], circuit: [f64; 4]) -> Faithfulness {
        Faithfulness { clean: clean.to_vec(), empty: vec![0.0, 0.5, -0.5, 0.0], circuit: circuit.to_vec() }
    }

    #[test]
    fn the_model_is_faithful_to_itself_and_nothing_is_not() {
        let (stream, clean) = (Stream::new(1, 2), [2.0, 3.0, 1.5, 2.5]);
        let one = faithfulness(clean, clean).interval(stream).unwrap();
        assert_eq!((one.value, one.low, one.high), (1.0, 1.0, 1.0));
        let zero = faithfulness(clean, [0.0, 0.5, -0.5, 0.0]).interval(stream).unwrap();
        assert_eq!((zero.value, zero.low, zero.high), (0.0, 0.0, 0.0));
    }

    #[test]
    fn a_ratio_over_a_difference_that_may_be_zero_is_no_faithfulness() {
        let stream = Stream::new(1, 2);
        let indifferent = faithfulness([2.0, -1.5, 1.0, -1.0], [1.0; 4]);
        assert!(indifferent.span(stream).contains(0.0));
        assert_eq!(indifferent.normalised(), Some(8.0));
        assert_eq!(indifferent.interval(stream), None);
        let none = faithfulness([0.0, 0.5, -0.5, 0.0], [1.0; 4]);
        assert_eq!((none.normalised(), none.interval(stream)), (None, None));
    }
}
