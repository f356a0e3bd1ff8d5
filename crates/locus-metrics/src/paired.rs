//! Paired permutation test: is the mean difference of two conditions, measured on the same items, 0?
//!
//! Under the null hypothesis the differences are symmetric about 0, so every pattern of signs is equally likely (Fisher
//! 1935, chapter III). The p-value is the share of patterns whose mean is at least as far from 0 as the observed one:
//! over all `2^n` patterns for up to [`EXACT_UP_TO`] items, else `(b + 1) / (m + 1)` when `b` of `m` random patterns
//! are (Phipson and Smyth 2010).

use rand::RngExt;

use crate::{Stream, bootstrap::clusters};

/// Number of random patterns of signs, drawn when all of them would be too many.
pub const FLIPS: usize = 10_000;

/// Largest number of clusters for which all `2^n` patterns of signs are counted.
pub const EXACT_UP_TO: usize = 14;

/// Outcome of a paired test.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PairedTest {
    /// Mean difference; 0 without differences.
    pub statistic: f64,
    /// Two-sided p-value; 1 without differences.
    pub p_value: f64,
    /// Number of independent items: differences or clusters.
    pub n: usize,
}

/// Sign-flip permutation test of independent differences, one per item: exact up to [`EXACT_UP_TO`] of them, else with
/// [`FLIPS`] random patterns of signs.
pub fn sign_flip(differences: &[f64], stream: Stream) -> PairedTest {
    sign_flip_clustered(differences, &(0..differences.len()).collect::<Vec<_>>(), stream)
}

/// Sign-flip permutation test that flips the signs of whole clusters, for rows that are not independent within a
/// cluster. `keys` has the cluster of each row.
///
/// # Panics
/// If the lengths differ.
pub fn sign_flip_clustered<K: Ord>(differences: &[f64], keys: &[K], stream: Stream) -> PairedTest {
    assert_eq!(differences.len(), keys.len(), "one cluster key per difference");
    let sums: Vec<f64> =
        clusters(keys).iter().map(|rows| rows.iter().map(|&row| differences[row]).sum()).collect();
    let observed: f64 = sums.iter().sum();
    // A pattern that ties with the observed one must count, however its sum was rounded.
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const STREAM: Stream = Stream::new(5, 1);

    #[test]
    fn exact_flips_agree_with_scipy() {
        // SciPy 1.17.1, permutation_test((d,), mean, permutation_type='samples', n_resamples=inf).pvalue
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
    }

    #[test]
    #[should_panic(expected = "one cluster key per difference")]
    fn every_difference_has_a_cluster() {
        sign_flip_clustered(&[1.0, 2.0], &[0], STREAM);
    }

    proptest! {
        #[test]
        fn tests_do_not_care_which_condition_comes_first(d in prop::collection::vec(-3.0..3.0, 1..12)) {
            let mirrored: Vec<f64> = d.iter().map(|x| -x).collect();
            prop_assert_eq!(sign_flip(&d, STREAM).p_value, sign_flip(&mirrored, STREAM).p_value);
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
