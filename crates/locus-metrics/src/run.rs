//! Estimates of a run: one value per case and kind of prompt, resampled by case.
//!
//! Equal streams draw equal cases, so the estimates of one run are those of the same resamples.

use crate::{
    Interval, Stream,
    bootstrap::bootstrap,
    token::{harmonic_mean, mean},
};

/// Mean over the cases that have a value.
pub(crate) fn mean_over(values: &[Option<f64>], resamples: usize, stream: Stream) -> Option<Interval> {
    estimate(values.len(), resamples, stream, |rows| mean_of(values, rows))
}

/// Harmonic mean of the means of three kinds, with all kinds of a case drawn together.
pub(crate) fn harmonic_mean_over(
    kinds: [&[Option<f64>]; 3],
    resamples: usize,
    stream: Stream,
) -> Option<Interval> {
    let [a, b, c] = kinds;
    estimate(a.len(), resamples, stream, |rows| {
        harmonic_mean(&[mean_of(a, rows)?, mean_of(b, rows)?, mean_of(c, rows)?])
    })
}

fn mean_of(values: &[Option<f64>], rows: &[usize]) -> Option<f64> {
    mean(&rows.iter().filter_map(|&row| values[row]).collect::<Vec<_>>())
}

/// `None` when the statistic is undefined on the run itself; resamples on which it is are left out.
fn estimate(
    n: usize,
    resamples: usize,
    stream: Stream,
    statistic: impl Fn(&[usize]) -> Option<f64>,
) -> Option<Interval> {
    let or_nan = |rows: &[usize]| statistic(rows).unwrap_or(f64::NAN);
    (n > 0).then(|| bootstrap(n, resamples, stream, or_nan)).filter(|estimate| estimate.value.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bootstrap::bootstrap_mean;
    use proptest::prelude::*;

    const STREAM: Stream = Stream::new(2, 9);

    #[test]
    fn cases_without_a_value_are_left_out() {
        let mean = mean_over(&[Some(1.0), None, Some(4.0), None], 200, STREAM).unwrap();
        // Resamples of nothing but the empty cases exist and are left out, too.
        assert_eq!((mean.value, mean.low, mean.high), (2.5, 1.0, 4.0));
    }

    #[test]
    fn what_is_undefined_is_none() {
        let (some, none) = ([Some(0.5), Some(1.0)], [None, None]);
        assert_eq!(mean_over(&[], 10, STREAM), None);
        assert_eq!(mean_over(&none, 10, STREAM), None);
        assert_eq!(mean_over(&[Some(1.0), Some(f64::NAN)], 10, STREAM), None);
        assert_eq!(harmonic_mean_over([&some, &none, &some], 10, STREAM), None);
    }

    #[test]
    fn one_kind_at_zero_takes_the_score_to_zero() {
        let score = harmonic_mean_over([&[Some(1.0)], &[Some(0.0)], &[Some(1.0)]], 10, STREAM).unwrap();
        assert_eq!((score.value, score.low, score.high), (0.0, 0.0, 0.0));
    }

    proptest! {
        #[test]
        fn complete_runs_have_the_interval_of_the_plain_mean(values in prop::collection::vec(-3.0..3.0, 1..20)) {
            let present: Vec<Option<f64>> = values.iter().copied().map(Some).collect();
            let estimate = mean_over(&present, 50, STREAM);
            prop_assert_eq!(estimate, Some(bootstrap_mean(&values, 50, STREAM)));
        }

        #[test]
        fn kinds_are_drawn_together(values in prop::collection::vec(0.05..1.0, 2..20)) {
            // Three equal kinds have their common mean as harmonic mean, on every resample only if the same
            // cases are drawn for all three.
            let kind: Vec<Option<f64>> = values.iter().copied().map(Some).collect();
            let score = harmonic_mean_over([&kind, &kind, &kind], 50, STREAM).unwrap();
            let mean = mean_over(&kind, 50, STREAM).unwrap();
            for (a, b) in [(score.value, mean.value), (score.low, mean.low), (score.high, mean.high)] {
                prop_assert!((a - b).abs() < 1e-12, "{score:?} {mean:?}");
            }
        }
    }
}
