//! Percentile bootstrap intervals: of a mean, of any statistic of rows, and of rows that come in clusters.
//!
//! Rows are drawn with replacement, as many as there are, `m` times; the interval goes from the 2.5 % to the 97.5 %
//! quantile of the `m` values of the statistic (Efron 1979; Efron and Tibshirani 1993, section 13.3). A quantile
//! between two values is interpolated linearly, as NumPy does: for sorted `x_0 .. x_(m-1)` and `h = q (m - 1)` it is
//! `x_floor(h) + (h - floor(h)) (x_(floor(h)+1) - x_floor(h))`.

use std::collections::BTreeMap;

use rand::RngExt;
use serde::{Deserialize, Serialize};

use crate::Stream;

/// Number of resamples unless there is a reason for another one.
pub const RESAMPLES: usize = 2_000;

/// Share of the resamples inside every interval.
pub const COVERAGE: f64 = 0.95;

/// An estimate with its 95 % percentile bootstrap interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// The statistic of the sample itself.
    pub value: f64,
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

impl Interval {
    /// Interval of an estimate from the values of its statistic on resamples, in any order.
    ///
    /// Resamples on which the statistic was not finite (a correlation of constants) are left out; with none left, both
    /// ends are the estimate itself.
    pub fn of_resamples(value: f64, resamples: impl IntoIterator<Item = f64>) -> Self {
        let mut sorted: Vec<f64> = resamples.into_iter().filter(|r| r.is_finite()).collect();
        sorted.sort_by(f64::total_cmp);
        let tail = (1.0 - COVERAGE) / 2.0;
        Self {
            value,
            low: quantile(&sorted, tail).unwrap_or(value),
            high: quantile(&sorted, 1.0 - tail).unwrap_or(value),
        }
    }

    /// Whether a number lies between the ends, or at one of them.
    pub fn contains(self, x: f64) -> bool {
        self.low <= x && x <= self.high
    }
}

/// Bootstrap interval of `statistic`, which is called with `n` row numbers: first `0..n` in order for the estimate,
/// then numbers drawn with replacement. A resample on which the statistic is NaN is left out.
///
/// A ratio of means, such as the faithfulness of a circuit over pairs of prompts:
/// ```
/// use locus_metrics::{Stream, bootstrap};
///
/// let clean = [2.1, 1.8, 2.4, 2.0];
/// let empty = [0.1, -0.2, 0.3, 0.0];
/// let circuit = [1.9, 1.5, 1.6, 1.8];
/// let faithfulness = bootstrap::bootstrap(4, bootstrap::RESAMPLES, Stream::named(1, "faithfulness"), |pairs| {
///     let mean = |values: &[f64]| pairs.iter().map(|&pair| values[pair]).sum::<f64>() / pairs.len() as f64;
///     (mean(&circuit) - mean(&empty)) / (mean(&clean) - mean(&empty))
/// });
/// assert!((faithfulness.value - 6.6 / 8.1).abs() < 1e-12);
/// assert!(faithfulness.low < faithfulness.value && faithfulness.value < faithfulness.high);
/// ```
///
/// # Panics
/// If `n` or `resamples` is 0.
pub fn bootstrap(
    n: usize,
    resamples: usize,
    stream: Stream,
    statistic: impl Fn(&[usize]) -> f64,
) -> Interval {
    let value = statistic(&(0..n).collect::<Vec<_>>());
    Interval::of_resamples(value, draws(n, resamples, stream, statistic))
}

/// Values of `statistic` on resamples of `n` rows, for callers who combine independent samples into one statistic: the
/// combined values then go to [`Interval::of_resamples`] and [`two_sided_p`].
///
/// # Panics
/// If `n` or `resamples` is 0.
pub fn draws(n: usize, resamples: usize, stream: Stream, statistic: impl Fn(&[usize]) -> f64) -> Vec<f64> {
    assert!(n > 0 && resamples > 0, "a bootstrap needs rows and resamples");
    let mut rng = stream.rng();
    let mut rows = vec![0; n];
    (0..resamples)
        .map(|_| {
            rows.fill_with(|| rng.random_range(0..n));
            statistic(&rows)
        })
        .collect()
}

/// Two-sided bootstrap p-value of the hypothesis that a statistic is 0, for statistics that no permutation test fits:
/// `2 (b + 1) / (m + 1)`, at most 1, where `b` of the `m` resamples lie on the rarer side of 0 or at 0.
pub fn two_sided_p(resamples: &[f64]) -> f64 {
    let not_above = resamples.iter().filter(|&&r| r <= 0.0).count();
    let not_below = resamples.iter().filter(|&&r| r >= 0.0).count();
    (2.0 * (not_above.min(not_below) + 1) as f64 / (resamples.len() + 1) as f64).min(1.0)
}

/// Bootstrap interval of the mean of independent values, one per item.
///
/// # Panics
/// If there are no values or no resamples.
pub fn bootstrap_mean(values: &[f64], resamples: usize, stream: Stream) -> Interval {
    bootstrap(values.len(), resamples, stream, |rows| {
        rows.iter().map(|&row| values[row]).sum::<f64>() / rows.len() as f64
    })
}

/// Bootstrap interval of `statistic` over rows that come in clusters (Davison and Hinkley 1997, section 3.8): whole
/// clusters are drawn with replacement, and the statistic gets the rows of each drawn cluster, as often as it was
/// drawn. `keys` has the cluster of each row.
///
/// The tasks on which one request was measured are such a cluster. Drawing their rows one by one would count every task
/// as a new request and give an interval that is too narrow.
///
/// # Panics
/// If there are no rows or no resamples.
pub fn cluster_bootstrap<K: Ord>(
    keys: &[K],
    resamples: usize,
    stream: Stream,
    statistic: impl Fn(&[usize]) -> f64,
) -> Interval {
    let clusters = clusters(keys);
    bootstrap(clusters.len(), resamples, stream, |drawn| {
        let rows: Vec<usize> = drawn.iter().flat_map(|&cluster| clusters[cluster].iter().copied()).collect();
        statistic(&rows)
    })
}

/// Bootstrap interval of the mean over rows that come in clusters, as [`cluster_bootstrap`] gives it. `keys` has the
/// cluster of each row.
///
/// # Panics
/// If there are no rows or no resamples, or if the lengths differ.
pub fn cluster_bootstrap_mean<K: Ord>(
    values: &[f64],
    keys: &[K],
    resamples: usize,
    stream: Stream,
) -> Interval {
    assert_eq!(values.len(), keys.len(), "one cluster key per value");
    // A mean needs only the sum and the count of each cluster, which is far cheaper than the rows of every resample.
    let parts: Vec<(f64, f64)> = clusters(keys)
        .iter()
        .map(|rows| (rows.iter().map(|&row| values[row]).sum(), rows.len() as f64))
        .collect();
    bootstrap(parts.len(), resamples, stream, |drawn| {
        let (sum, count) =
            drawn.iter().fold((0.0, 0.0), |(s, c), &cluster| (s + parts[cluster].0, c + parts[cluster].1));
        sum / count
    })
}

/// Row numbers of each cluster, clusters in the order of their keys.
pub(crate) fn clusters<K: Ord>(keys: &[K]) -> Vec<Vec<usize>> {
    let mut groups: BTreeMap<&K, Vec<usize>> = BTreeMap::new();
    for (row, key) in keys.iter().enumerate() {
        groups.entry(key).or_default().push(row);
    }
    groups.into_values().collect()
}

/// Quantile of sorted values by linear interpolation, NumPy's default; `None` of an empty slice.
fn quantile(sorted: &[f64], q: f64) -> Option<f64> {
    let position = q * sorted.len().checked_sub(1)? as f64;
    let (below, weight) = (position.floor() as usize, position.fract());
    let above = (below + 1).min(sorted.len() - 1);
    Some(sorted[below] + weight * (sorted[above] - sorted[below]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const STREAM: Stream = Stream::new(11, 3);

    #[test]
    fn quantiles_agree_with_numpy() {
        // NumPy 2.4.6, numpy.quantile([1, 2, 3, 4, 10], [0.025, 0.5, 0.975])
        let sorted = [1.0, 2.0, 3.0, 4.0, 10.0];
        for (q, expected) in [(0.025, 1.1), (0.5, 3.0), (0.975, 9.4)] {
            assert!((quantile(&sorted, q).unwrap() - expected).abs() < 1e-12);
        }
        assert_eq!(quantile(&[], 0.5), None);
    }

    #[test]
    fn the_interval_of_a_mean_is_as_wide_as_theory_says() {
        // 400 values with standard deviation 1: the 95 % interval is close to 0 +- 1.96 / 20.
        let values: Vec<f64> = (0..400).map(|i| if i % 2 == 0 { 1.0 } else { -1.0 }).collect();
        let interval = bootstrap_mean(&values, RESAMPLES, STREAM);
        assert_eq!(interval.value, 0.0);
        for end in [-interval.low, interval.high] {
            assert!((end / 0.098 - 1.0).abs() < 0.12, "{interval:?}");
        }
    }

    #[test]
    fn copies_within_clusters_do_not_narrow_the_interval() {
        let values = [0.3, -1.0, 2.0, 0.7, 1.1, -0.2];
        let copied: Vec<f64> = values.iter().flat_map(|&v| [v; 10]).collect();
        let keys: Vec<usize> = (0..60).map(|row| row / 10).collect();
        let plain = bootstrap_mean(&values, 500, STREAM);
        let clustered = cluster_bootstrap_mean(&copied, &keys, 500, STREAM);
        let naive = bootstrap_mean(&copied, 500, STREAM);
        assert!((plain.low - clustered.low).abs() < 1e-12 && (plain.high - clustered.high).abs() < 1e-12);
        assert!(naive.high - naive.low < 0.5 * (clustered.high - clustered.low));
    }

    #[test]
    fn undefined_resamples_are_left_out() {
        // The statistic is undefined whenever row 0 is not drawn.
        let interval = bootstrap(4, 200, STREAM, |rows| if rows.contains(&0) { 1.0 } else { f64::NAN });
        assert_eq!((interval.value, interval.low, interval.high), (1.0, 1.0, 1.0));
        let interval = Interval::of_resamples(2.0, [f64::NAN]);
        assert_eq!((interval.low, interval.high), (2.0, 2.0));
    }

    #[test]
    fn the_ends_belong_to_the_interval() {
        let interval = Interval { value: 1.0, low: 0.0, high: 2.0 };
        assert_eq!(
            [-0.1, 0.0, 1.0, 2.0, 2.1].map(|x| interval.contains(x)),
            [false, true, true, true, false]
        );
    }

    #[test]
    fn two_sided_p_by_hand() {
        assert_eq!(two_sided_p(&[1.0; 99]), 0.02);
        assert_eq!(two_sided_p(&[1.0, -1.0, 2.0]), 1.0);
        // Three of 39 at or below zero.
        let mut resamples = vec![0.4; 36];
        resamples.extend([-1.0, -0.1, 0.0]);
        assert_eq!(two_sided_p(&resamples), 0.2);
        assert_eq!(two_sided_p(&[]), 1.0);
    }

    #[test]
    #[should_panic(expected = "needs rows and resamples")]
    fn no_rows_cannot_be_resampled() {
        bootstrap(0, 10, STREAM, |_| 0.0);
    }

    #[test]
    #[should_panic(expected = "needs rows and resamples")]
    fn an_interval_needs_resamples() {
        bootstrap(3, 0, STREAM, |_| 0.0);
    }

    #[test]
    #[should_panic(expected = "needs rows and resamples")]
    fn draws_need_rows() {
        draws(0, 10, STREAM, |_| 0.0);
    }

    #[test]
    #[should_panic(expected = "needs rows and resamples")]
    fn draws_need_resamples() {
        draws(3, 0, STREAM, |_| 0.0);
    }

    #[test]
    #[should_panic(expected = "needs rows and resamples")]
    fn a_mean_needs_values() {
        bootstrap_mean(&[], 10, STREAM);
    }

    #[test]
    #[should_panic(expected = "needs rows and resamples")]
    fn clusters_need_rows() {
        cluster_bootstrap::<u8>(&[], 10, STREAM, |_| 0.0);
    }

    #[test]
    #[should_panic(expected = "needs rows and resamples")]
    fn a_mean_over_clusters_needs_resamples() {
        cluster_bootstrap_mean(&[1.0], &[0], 0, STREAM);
    }

    #[test]
    #[should_panic(expected = "one cluster key per value")]
    fn every_value_has_a_cluster() {
        cluster_bootstrap_mean(&[1.0, 2.0], &[0], 10, STREAM);
    }

    proptest! {
        #[test]
        fn intervals_stay_within_the_data_and_repeat(
            values in prop::collection::vec(-5.0..5.0, 1..30),
            seed: u64,
        ) {
            let stream = Stream::new(seed, 0);
            let interval = bootstrap_mean(&values, 100, stream);
            let (min, max) = values.iter().fold((f64::MAX, f64::MIN), |(a, b), &v| (a.min(v), b.max(v)));
            let ordered = [min - 1e-12, interval.low, interval.high, max + 1e-12];
            prop_assert!(ordered.is_sorted(), "{:?}", ordered);
            prop_assert_eq!(interval, bootstrap_mean(&values, 100, stream));
        }

        #[test]
        fn the_fast_mean_is_the_general_statistic(
            rows in prop::collection::vec((0u8..6, -5.0..5.0), 1..40),
        ) {
            let (keys, values): (Vec<u8>, Vec<f64>) = rows.into_iter().unzip();
            let fast = cluster_bootstrap_mean(&values, &keys, 50, STREAM);
            let general = cluster_bootstrap(&keys, 50, STREAM, |rows| {
                rows.iter().map(|&row| values[row]).sum::<f64>() / rows.len() as f64
            });
            for (a, b) in [(fast.value, general.value), (fast.low, general.low), (fast.high, general.high)] {
                prop_assert!((a - b).abs() < 1e-10);
            }
        }
    }
}
