//! Pearson's correlation, and Spearman's rank correlation with a permutation p-value.
//!
//! `rho` is Pearson's correlation of the ranks, ties sharing the mean of theirs (Spearman 1904). The p-value is
//! `(b + 1) / (m + 1)`, where `|rho|` is at least as large as observed in `b` of `m` random orders of one side (Phipson
//! and Smyth 2010).

use rand::seq::SliceRandom;

use crate::Stream;

/// Number of random orders unless there is a reason for another one.
pub const PERMUTATIONS: usize = 10_000;

/// Spearman's rho with a permutation p-value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Correlation {
    /// Spearman's rho, in [-1, 1].
    pub rho: f64,
    /// Two-sided permutation p-value, `(b + 1) / (m + 1)`.
    pub p_value: f64,
    /// Number of pairs.
    pub n: usize,
}

/// Ranks from 1; tied values share the mean of their ranks.
///
/// ```
/// assert_eq!(locus_metrics::rank::average_ranks(&[3.0, 1.0, 3.0]), [2.5, 1.0, 2.5]);
/// ```
pub fn average_ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    let mut ranks = vec![0.0; values.len()];
    let mut below = 0;
    for tied in order.chunk_by(|&a, &b| values[a] == values[b]) {
        for &i in tied {
            ranks[i] = below as f64 + (tied.len() as f64 + 1.0) / 2.0;
        }
        below += tied.len();
    }
    ranks
}

/// Pearson's correlation of the pairs `(x[i], y[i])`; `None` when either side is constant or there are fewer than two
/// pairs.
///
/// ```
/// let r = locus_metrics::rank::pearson(&[1.0, 2.0, 4.0], &[3.0, 5.0, 9.0]);
/// assert!((r.unwrap() - 1.0).abs() < 1e-15);
/// ```
///
/// # Panics
/// If the lengths differ.
pub fn pearson(x: &[f64], y: &[f64]) -> Option<f64> {
    assert_eq!(x.len(), y.len(), "pairs have two values each");
    let centred = |values: &[f64]| {
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        values.iter().map(|value| value - mean).collect::<Vec<f64>>()
    };
    let product = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(x, y)| x * y).sum::<f64>();
    let (x, y) = (centred(x), centred(y));
    let norm = (product(&x, &x) * product(&y, &y)).sqrt();
    (norm > 0.0).then(|| product(&x, &y) / norm)
}

/// Spearman's rank correlation of the pairs `(x[i], y[i])`; `None` when either side is constant or there are fewer than
/// two pairs.
///
/// # Panics
/// If the lengths differ.
pub fn spearman(x: &[f64], y: &[f64]) -> Option<f64> {
    Some(CentredRanks::new(x, y)?.rho())
}

/// Spearman's rank correlation with its p-value from `permutations` random orders of `y`; `None` as for [`spearman`].
///
/// # Panics
/// If the lengths differ.
pub fn spearman_permutation(
    x: &[f64],
    y: &[f64],
    permutations: usize,
    stream: Stream,
) -> Option<Correlation> {
    let mut ranks = CentredRanks::new(x, y)?;
    let (rho, mut rng) = (ranks.rho(), stream.rng());
    let as_far = (0..permutations)
        .filter(|_| {
            ranks.y.shuffle(&mut rng);
            ranks.rho().abs() >= rho.abs() - 1e-12
        })
        .count();
    Some(Correlation { rho, p_value: (as_far + 1) as f64 / (permutations + 1) as f64, n: x.len() })
}

/// Ranks minus their mean, so that a correlation is one dot product over `norm`, which no shuffle changes.
struct CentredRanks {
    x: Vec<f64>,
    y: Vec<f64>,
    norm: f64,
}

impl CentredRanks {
    fn new(x: &[f64], y: &[f64]) -> Option<Self> {
        assert_eq!(x.len(), y.len(), "a correlation is of pairs");
        let centred = |values: &[f64]| -> Vec<f64> {
            let middle = (values.len() as f64 + 1.0) / 2.0;
            average_ranks(values).into_iter().map(|rank| rank - middle).collect()
        };
        let (x, y) = (centred(x), centred(y));
        let norm = (x.iter().map(|a| a * a).sum::<f64>() * y.iter().map(|b| b * b).sum::<f64>()).sqrt();
        (norm > 0.0).then_some(Self { x, y, norm })
    }

    fn rho(&self) -> f64 {
        self.x.iter().zip(&self.y).map(|(a, b)| a * b).sum::<f64>() / self.norm
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    // SciPy 1.17.1, spearmanr(x, y): rho 0.8576221317450335, t-approximated p 0.0015085140803050053
    const X: [f64; 10] = [1.0, 2.0, 2.0, 3.0, 5.0, 8.0, 8.0, 8.0, 9.0, 10.0];
    const Y: [f64; 10] = [2.5, 1.0, 4.0, 4.0, 3.0, 7.5, 6.0, 9.0, 9.0, 8.0];

    #[test]
    fn ranks_and_rho_agree_with_scipy() {
        assert_eq!(average_ranks(&X), [1.0, 2.5, 2.5, 4.0, 5.0, 7.0, 7.0, 7.0, 9.0, 10.0]);
        assert_eq!(average_ranks(&Y), [2.0, 1.0, 4.5, 4.5, 3.0, 7.0, 6.0, 9.5, 9.5, 8.0]);
        assert!((spearman(&X, &Y).unwrap() - 0.8576221317450335).abs() < 1e-14);
    }

    #[test]
    fn permutation_p_is_near_the_approximation() {
        let test = spearman_permutation(&X, &Y, PERMUTATIONS, Stream::new(3, 0)).unwrap();
        assert!((0.0005..0.004).contains(&test.p_value), "{test:?}");
        assert_eq!(test, spearman_permutation(&X, &Y, PERMUTATIONS, Stream::new(3, 0)).unwrap());
    }

    #[test]
    fn four_pairs_in_order_have_p_one_in_twelve() {
        let test =
            spearman_permutation(&[1., 2., 3., 4.], &[2., 4., 6., 8.], 20_000, Stream::new(3, 1)).unwrap();
        assert_eq!(test.rho, 1.0);
        assert!((test.p_value - 2.0 / 24.0).abs() < 0.01, "{test:?}");
    }

    #[test]
    fn pearson_of_a_line_with_an_outlier() {
        // Means 2 and 4; products 2, 0, 3 of deviations (-1, 0, 1) and (-2, -1, 3).
        let r = pearson(&[1.0, 2.0, 3.0], &[2.0, 3.0, 7.0]).unwrap();
        assert!((r - 5.0 / (2.0f64 * 14.0).sqrt()).abs() < 1e-15);
        assert_eq!(pearson(&[1.0, 1.0], &[2.0, 3.0]), None);
        assert_eq!(pearson(&[], &[]), None);
    }

    #[test]
    fn constants_have_no_correlation() {
        assert_eq!(spearman(&[1.0, 1.0], &[1.0, 2.0]), None);
        assert_eq!(spearman(&[], &[]), None);
        assert_eq!(spearman_permutation(&[1.0], &[2.0], 10, Stream::new(0, 0)), None);
    }

    #[test]
    #[should_panic(expected = "a correlation is of pairs")]
    fn both_sides_have_one_length() {
        spearman(&[1.0, 2.0], &[1.0]);
    }

    #[test]
    #[should_panic(expected = "a correlation is of pairs")]
    fn both_sides_of_a_test_have_one_length() {
        spearman_permutation(&[1.0], &[1.0, 2.0], 10, Stream::new(0, 0));
    }

    proptest! {
        #[test]
        fn rho_sees_only_order(pairs in prop::collection::vec((-5.0..5.0, -5.0..5.0), 2..30)) {
            let (x, y): (Vec<f64>, Vec<f64>) = pairs.into_iter().unzip();
            let stretched: Vec<f64> = x.iter().map(|v: &f64| v.exp()).collect();
            let mirrored: Vec<f64> = y.iter().map(|v| -v).collect();
            let rho = spearman(&x, &y).unwrap();
            prop_assert!(rho.abs() <= 1.0 + 1e-12);
            prop_assert!((rho - spearman(&stretched, &y).unwrap()).abs() < 1e-12);
            prop_assert!((rho + spearman(&x, &mirrored).unwrap()).abs() < 1e-12);
        }

        #[test]
        fn ranks_sum_to_a_triangle_number(values in prop::collection::vec(0u8..5, 0..30)) {
            let ranks = average_ranks(&values.iter().map(|&v| f64::from(v)).collect::<Vec<_>>());
            prop_assert_eq!(ranks.iter().sum::<f64>(), (values.len() * (values.len() + 1)) as f64 / 2.0);
        }
    }
}
