//! Paired tests: does the difference of two conditions, measured on the same items, have mean or median zero?

use rand::RngExt;

use crate::{Stream, bootstrap::clusters, normal::upper_tail, rank::average_ranks};

/// Flips drawn when there are too many for all of them.
pub const FLIPS: usize = 10_000;

/// Up to this many clusters all 2^n flips are enumerated.
pub const EXACT_UP_TO: usize = 14;

/// Outcome of a paired test.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PairedTest {
    /// The test statistic: the mean difference, or the smaller signed-rank sum.
    pub statistic: f64,
    /// Two-sided p-value.
    pub p_value: f64,
    /// Number of independent items behind it: differences, clusters, or differences that are not zero.
    pub n: usize,
}

/// Sign-flip permutation test of paired differences: exact up to [`EXACT_UP_TO`] of them, else [`FLIPS`]
/// random flips.
///
/// Under the null hypothesis that differences are symmetric about zero every pattern of signs is equally
/// likely; p is the share of patterns whose mean is at least as far from zero as the one observed.
pub fn sign_flip(differences: &[f64], stream: Stream) -> PairedTest {
    sign_flip_clustered(differences, &(0..differences.len()).collect::<Vec<_>>(), stream)
}

/// Sign-flip test that flips the sign of whole clusters, for rows that are not independent within a cluster.
/// `keys` has one entry per row.
///
/// # Panics
/// If the lengths differ.
pub fn sign_flip_clustered<K: Ord>(differences: &[f64], keys: &[K], stream: Stream) -> PairedTest {
    assert_eq!(differences.len(), keys.len(), "one cluster key per difference");
    let sums: Vec<f64> =
        clusters(keys).iter().map(|rows| rows.iter().map(|&row| differences[row]).sum()).collect();
    let observed: f64 = sums.iter().sum();
    // Patterns that tie with the observed one must count however their sum was rounded.
    let bar = observed.abs() - 1e-12 * sums.iter().map(|s| s.abs()).sum::<f64>();
    let p_value =
        if sums.len() <= EXACT_UP_TO { exact_p(&sums, bar) } else { monte_carlo_p(&sums, bar, stream) };
    PairedTest { statistic: observed / differences.len().max(1) as f64, p_value, n: sums.len() }
}

fn exact_p(sums: &[f64], bar: f64) -> f64 {
    let patterns = 1_u32 << sums.len();
    let sign = |pattern: u32, i: usize| if pattern >> i & 1 == 0 { 1.0 } else { -1.0 };
    let total = |pattern| sums.iter().enumerate().map(|(i, s)| sign(pattern, i) * s).sum::<f64>();
    (0..patterns).filter(|&pattern| total(pattern).abs() >= bar).count() as f64 / f64::from(patterns)
}

fn monte_carlo_p(sums: &[f64], bar: f64, stream: Stream) -> f64 {
    let mut rng = stream.rng();
    let mut flipped_total = || sums.iter().map(|s| if rng.random::<bool>() { *s } else { -s }).sum::<f64>();
    let as_far = (0..FLIPS).filter(|_| flipped_total().abs() >= bar).count();
    (as_far + 1) as f64 / (FLIPS + 1) as f64
}

/// Wilcoxon signed-rank test by the normal approximation, with the variance corrected for ties and no
/// continuity correction. Zero differences are dropped, as Wilcoxon did.
///
/// The statistic is the smaller of the two rank sums. With nothing but zeros the statistic is 0 and p is 1.
pub fn wilcoxon(differences: &[f64]) -> PairedTest {
    let nonzero: Vec<f64> = differences.iter().copied().filter(|&d| d != 0.0).collect();
    if nonzero.is_empty() {
        return PairedTest { statistic: 0.0, p_value: 1.0, n: 0 };
    }
    let sizes: Vec<f64> = nonzero.iter().map(|d| d.abs()).collect();
    let ranks = average_ranks(&sizes);
    let positive: f64 = nonzero.iter().zip(&ranks).filter(|(d, _)| **d > 0.0).map(|(_, rank)| rank).sum();
    let n = nonzero.len() as f64;
    let statistic = positive.min(n * (n + 1.0) / 2.0 - positive);
    let ties: f64 = clusters(&sizes.iter().map(|s| s.to_bits()).collect::<Vec<_>>())
        .iter()
        .map(|tied| (tied.len() as f64).powi(3) - tied.len() as f64)
        .sum();
    let variance = n * (n + 1.0) * (2.0 * n + 1.0) / 24.0 - ties / 48.0;
    let z = (n * (n + 1.0) / 4.0 - statistic) / variance.sqrt();
    PairedTest { statistic, p_value: (2.0 * upper_tail(z)).min(1.0), n: nonzero.len() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const STREAM: Stream = Stream::new(5, 1);

    #[test]
    fn exact_flips_agree_with_scipy() {
        // scipy 1.17.1, permutation_test((d,), mean, permutation_type='samples', n_resamples=inf).pvalue
        let test = sign_flip(&[1.2, -0.4, 2.2, 0.3, -0.1, 1.7, 0.9, -0.8], STREAM);
        assert_eq!(test.p_value, 0.1640625);
        assert!((test.statistic - 0.625).abs() < 1e-12);
    }

    #[test]
    fn random_flips_approach_the_exact_value() {
        let sums = [1.2, -0.4, 2.2, 0.3, -0.1, 1.7, 0.9, -0.8];
        let p = monte_carlo_p(&sums, 5.0 - 1e-9, STREAM);
        assert!((p - 0.1640625).abs() < 0.015, "{p}");
    }

    #[test]
    fn all_equal_signs_give_the_smallest_p() {
        assert_eq!(sign_flip(&[1.0; 14], STREAM).p_value, 2.0 / 16_384.0);
        let many = sign_flip(&[1.0; 100], STREAM);
        assert_eq!(many.p_value, 1.0 / (FLIPS + 1) as f64);
    }

    #[test]
    fn copies_within_clusters_add_no_evidence() {
        let differences: Vec<f64> = [1.0, 2.0, 0.5].iter().flat_map(|&d| [d; 20]).collect();
        let keys: Vec<usize> = (0..60).map(|row| row / 20).collect();
        let clustered = sign_flip_clustered(&differences, &keys, STREAM);
        assert_eq!((clustered.p_value, clustered.n), (0.25, 3));
        assert!(sign_flip(&differences, STREAM).p_value < 0.001);
    }

    #[test]
    fn no_difference_is_no_evidence() {
        assert_eq!(sign_flip(&[0.0; 20], STREAM).p_value, 1.0);
        assert_eq!(sign_flip(&[], STREAM), PairedTest { statistic: 0.0, p_value: 1.0, n: 0 });
        assert_eq!(wilcoxon(&[0.0, 0.0]).p_value, 1.0);
    }

    #[test]
    fn signed_ranks_agree_with_scipy() {
        // scipy 1.17.1, wilcoxon(d, zero_method='wilcox', correction=False, method='asymptotic')
        let plants =
            [6.0, 8.0, 14.0, 16.0, 23.0, 24.0, 28.0, 29.0, 41.0, -48.0, 49.0, 56.0, 60.0, -67.0, 75.0];
        let ties_and_zeros = [0.5, -0.5, 1.0, 1.0, -2.0, 0.0, 3.5, 3.5, 0.0, 4.0, -1.0, 2.5];
        for (differences, statistic, p, n) in [
            (plants.as_slice(), 24.0, 0.04088813291185591, 15),
            (ties_and_zeros.as_slice(), 11.5, 0.10157564696621983, 10),
        ] {
            let test = wilcoxon(differences);
            assert_eq!((test.statistic, test.n), (statistic, n));
            assert!((test.p_value - p).abs() < 1e-12, "{test:?}");
        }
    }

    proptest! {
        #[test]
        fn tests_do_not_care_which_condition_comes_first(d in prop::collection::vec(-3.0..3.0, 1..12)) {
            let mirrored: Vec<f64> = d.iter().map(|x| -x).collect();
            prop_assert_eq!(sign_flip(&d, STREAM).p_value, sign_flip(&mirrored, STREAM).p_value);
            prop_assert!((wilcoxon(&d).p_value - wilcoxon(&mirrored).p_value).abs() < 1e-12);
        }

        #[test]
        fn p_values_are_probabilities_and_scale_free(
            d in prop::collection::vec(-3.0..3.0, 1..30),
            scale in 0.5..8.0,
        ) {
            let scaled: Vec<f64> = d.iter().map(|x| x * scale).collect();
            let p = sign_flip(&d, STREAM).p_value;
            prop_assert!(p > 0.0 && p <= 1.0);
            prop_assert!((p - sign_flip(&scaled, STREAM).p_value).abs() < 1e-12);
        }
    }
}
