//! Faithfulness of the circuits of a ranking over all sizes, and areas under that curve.

use locus_gpt2::{Gpt2, Result, Scalar};
use locus_metrics::bootstrap::{RESAMPLES, bootstrap};
use locus_metrics::{Interval, Stream};

use super::ablation::Ablation;
use super::edge_set::EdgeSet;
use super::evaluate::{normaliser, span};
use super::intervene::{run_circuit, run_clean};
use super::metric::Metric;
use super::pairs::Pair;
use super::scores::{EdgeScores, RankBy};

/// Shares of the edges at which MIB evaluates a ranking (Mueller et al. 2025, arXiv 2504.13151).
pub const MIB_FRACTIONS: [f64; 10] = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0];

/// Faithfulness of the circuits of one ranking: the metric of the full model, of the empty circuit and of the circuit of
/// each size, pair by pair.
#[derive(Clone, Debug, PartialEq)]
pub struct FaithfulnessCurve {
    /// Metric of the intact model on each clean prompt.
    pub clean: Vec<f64>,
    /// Metric on each pair with every edge ablated.
    pub empty: Vec<f64>,
    /// For each size: the share of the edges before pruning, and the metric on each pair with the edges outside the
    /// circuit ablated.
    pub circuits: Vec<(f64, Vec<f64>)>,
}

impl FaithfulnessCurve {
    /// `(share, faithfulness)` at each size, as [`Faithfulness::normalised`](super::Faithfulness::normalised) defines
    /// it; `None` when clean and empty are within 1e-6 of each other.
    pub fn points(&self) -> Option<Vec<(f64, f64)>> {
        self.points_on(&(0..self.clean.len()).collect::<Vec<_>>())
    }

    /// `clean - empty`, the denominator of faithfulness, with its 95 % percentile bootstrap interval over pairs.
    ///
    /// # Panics
    /// When there are no pairs.
    pub fn span(&self, stream: Stream) -> Interval {
        span(&self.clean, &self.empty, stream)
    }

    /// One of the areas under the curve with its 95 % percentile bootstrap interval over pairs: on each resample of the
    /// pairs the whole curve is computed anew, and its area taken.
    ///
    /// `None` when the curve is undefined, or when the interval of [`FaithfulnessCurve::span`] contains 0. Both intervals
    /// come from equal resamples; those on which the curve is undefined are left out.
    ///
    /// # Panics
    /// When the curve has no point.
    pub fn interval(&self, stream: Stream, area: impl Fn(CurveAreas) -> f64) -> Option<Interval> {
        self.points()?;
        if self.span(stream).contains(0.0) {
            return None;
        }
        let on =
            |pairs: &[usize]| self.points_on(pairs).map_or(f64::NAN, |points| area(CurveAreas::of(&points)));
        Some(bootstrap(self.clean.len(), RESAMPLES, stream, on))
    }

    fn points_on(&self, pairs: &[usize]) -> Option<Vec<(f64, f64)>> {
        let normalise = normaliser(&self.clean, &self.empty, pairs)?;
        Some(self.circuits.iter().map(|(share, circuit)| (*share, normalise(circuit))).collect())
    }
}

/// Runs the pruned top-n circuits of each ranking, one for each share of the edges in `fractions`. The full model and
/// the empty circuit are run once for all rankings, and so is a circuit that several of them choose.
///
/// # Errors
/// When a pair does not fit the model or there is none.
///
/// # Panics
/// When a share is above 1.
pub fn faithfulness_curves<F: Scalar>(
    model: &Gpt2<F>,
    pairs: &[Pair],
    metric: &dyn Metric<F>,
    ablation: &dyn Ablation<F>,
    rankings: &[(&EdgeScores, RankBy)],
    fractions: &[f64],
) -> Result<Vec<FaithfulnessCurve>> {
    let Some((first, _)) = rankings.first() else { return Ok(Vec::new()) };
    let clean = run_clean(model, pairs, metric)?;
    let nothing = EdgeSet::empty(first.graph());
    let empty = run_circuit(model, pairs, metric, &nothing, ablation)?;
    let mut known = vec![(nothing, empty.clone())];
    let mut run = |circuit: EdgeSet| -> Result<Vec<f64>> {
        if let Some((_, values)) = known.iter().find(|(other, _)| *other == circuit) {
            return Ok(values.clone());
        }
        let values = run_circuit(model, pairs, metric, &circuit, ablation)?;
        known.push((circuit, values.clone()));
        Ok(values)
    };
    rankings
        .iter()
        .map(|&(scores, by)| {
            let (graph, ranked) = (scores.graph(), scores.ranked(by));
            let circuits = fractions
                .iter()
                .map(|&share| {
                    let n = (share * graph.n_edges() as f64).floor() as usize;
                    let circuit = EdgeSet::from_edges(graph, ranked[..n].iter().copied()).pruned();
                    Ok((share, run(circuit)?))
                })
                .collect::<Result<_>>()?;
            Ok(FaithfulnessCurve { clean: clean.clone(), empty: empty.clone(), circuits })
        })
        .collect()
}

/// Areas under a faithfulness curve by the trapezoid rule, over the shares that the curve covers.
///
/// MIB computes CPR on the curve of the ranking by score ([`RankBy::Signed`]) and CMD on that of the ranking by absolute
/// score ([`RankBy::Absolute`]): a circuit that performs well needs the edges that help, one that behaves as the model
/// does also those that hurt.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CurveAreas {
    /// MIB's CPR (arXiv 2504.13151), the integral of `F` over the share: higher is better.
    pub cpr: f64,
    /// MIB's CMD (arXiv 2504.13151), the integral of `|1 - F|` over the share: lower is better.
    pub cmd: f64,
    /// Integral of `|1 - F|` over the logarithm of the share, divided by the length of that axis: on a linear axis nine
    /// tenths of the weight lie above one tenth of the edges. NaN for a curve of one point.
    pub cmd_log: f64,
}

impl CurveAreas {
    /// Areas of a curve of `(share, faithfulness)` with ascending shares.
    ///
    /// # Panics
    /// When the curve has no point.
    pub fn of(curve: &[(f64, f64)]) -> Self {
        assert!(!curve.is_empty(), "a curve without points");
        let area = |axis: fn(f64) -> f64, height: fn(f64) -> f64| -> f64 {
            curve
                .windows(2)
                .map(|ends| {
                    (axis(ends[1].0) - axis(ends[0].0)) * 0.5 * (height(ends[0].1) + height(ends[1].1))
                })
                .sum()
        };
        let length = curve[curve.len() - 1].0.ln() - curve[0].0.ln();
        CurveAreas {
            cpr: area(|x| x, |f| f),
            cmd: area(|x| x, |f| (1.0 - f).abs()),
            cmd_log: area(f64::ln, |f| (1.0 - f).abs()) / length,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edges::{Edge, LogitDiff, StandardAblation};
    use crate::planted::{Planted, exclusive_or};
    use ndarray::Array2;

    const STREAM: Stream = Stream::new(5, 6);

    /// Values by hand for a curve with two segments.
    #[test]
    fn areas_by_hand() {
        let areas = CurveAreas::of(&[(0.1, 0.0), (0.5, 0.5), (1.0, 1.5)]);
        assert!((areas.cpr - (0.4 * 0.25 + 0.5 * 1.0)).abs() < 1e-15);
        assert!((areas.cmd - (0.4 * 0.75 + 0.5 * 0.5)).abs() < 1e-15);
        let (a, b) = (5f64.ln(), 2f64.ln());
        assert!((areas.cmd_log - (a * 0.75 + b * 0.5) / (a + b)).abs() < 1e-15);
        let perfect = CurveAreas::of(&MIB_FRACTIONS.map(|fraction| (fraction, 1.0)));
        assert!((perfect.cpr - 0.999).abs() < 1e-12 && perfect.cmd == 0.0);
    }

    /// Scores of a planted model: `inside` for the edges of its circuit and `outside` for the others.
    fn scores(planted: &Planted, inside: f64, outside: f64) -> EdgeScores {
        let graph = planted.truth.graph();
        let value = |source, destination| {
            if planted.truth.contains(Edge { source, destination }) { inside } else { outside }
        };
        let values = Array2::from_shape_fn((graph.n_sources(), graph.n_destinations()), |(source, to)| {
            if graph.has(Edge { source, destination: to }) { value(source, to) } else { 0.0 }
        });
        EdgeScores::new(graph, values)
    }

    fn both(planted: &Planted, scores: &EdgeScores, fractions: &[f64]) -> [FaithfulnessCurve; 2] {
        let rankings = [(scores, RankBy::Absolute), (scores, RankBy::Signed)];
        let Planted { model, pairs, .. } = planted;
        faithfulness_curves(model, pairs, &LogitDiff, &StandardAblation::Corrupted, &rankings, fractions)
            .unwrap()
            .try_into()
            .unwrap()
    }

    /// Where edges that hurt have the largest scores, the ranking by score begins with the circuit and that by absolute
    /// score with the rest; all edges together are the model.
    #[test]
    fn rankings_by_score_and_by_absolute_score() {
        let planted = exclusive_or();
        let share = (planted.truth.count() as f64 + 0.5) / planted.truth.graph().n_edges() as f64;
        let fractions = [share, 1.0];
        let [absolute, signed] =
            both(&planted, &scores(&planted, 1.0, -2.0), &fractions).map(|curve| curve.points().unwrap());
        assert!(absolute[0].1 < 0.1 && (signed[0].1 - 1.0).abs() < 0.05, "{absolute:?} {signed:?}");
        for (share, faithfulness) in [absolute[1], signed[1]] {
            assert_eq!(share, 1.0);
            assert!((faithfulness - 1.0).abs() < 1e-6, "{faithfulness}");
        }
        let [absolute, signed] = both(&planted, &scores(&planted, 1.0, 0.5), &fractions);
        assert_eq!(absolute, signed);
        assert!((absolute.points().unwrap()[0].1 - 1.0).abs() < 0.05);
    }

    #[test]
    fn areas_of_resampled_pairs() {
        let curve = FaithfulnessCurve {
            clean: vec![2.0, 4.0],
            empty: vec![0.0, 0.0],
            circuits: vec![(0.5, vec![1.0, 0.0]), (1.0, vec![2.0, 4.0])],
        };
        // Resamples are {0, 0}, {1, 1} and {0, 1}, with faithfulness 1/2, 0 and 1/6 at the first size.
        let cpr = curve.interval(STREAM, |areas| areas.cpr).unwrap();
        for (actual, first) in [(cpr.value, 1.0 / 6.0), (cpr.low, 0.0), (cpr.high, 0.5)] {
            assert!((actual - 0.25 * (first + 1.0)).abs() < 1e-12, "{cpr:?}");
        }
    }

    #[test]
    fn an_indifferent_model_has_no_areas() {
        let curve = FaithfulnessCurve {
            clean: vec![2.0, -1.5, 1.0, -1.0],
            empty: vec![0.0; 4],
            circuits: vec![(0.5, vec![1.0; 4]), (1.0, vec![2.0, -1.5, 1.0, -1.0])],
        };
        assert!(curve.span(STREAM).contains(0.0) && curve.points().is_some());
        assert_eq!(curve.interval(STREAM, |areas| areas.cmd), None);
        let mut planted = exclusive_or();
        planted.pairs.iter_mut().for_each(|pair| pair.corrupted = pair.clean.clone());
        let [absolute, _] = both(&planted, &scores(&planted, 1.0, 0.5), &[0.5, 1.0]);
        assert_eq!((absolute.points(), absolute.interval(STREAM, |areas| areas.cpr)), (None, None));
    }
}
