//! The tail of the normal distribution.

use std::f64::consts::{PI, SQRT_2};

/// P(Z >= z) of a standard normal Z, to about 14 significant digits in both tails.
pub(crate) fn upper_tail(z: f64) -> f64 {
    0.5 * erfc(z / SQRT_2)
}

/// Complementary error function. Near zero by the series of erf whose terms are all positive (no
/// cancellation), in the tail by the continued fraction, where 1 - erf would lose every digit.
fn erfc(x: f64) -> f64 {
    if x < 0.0 {
        return 2.0 - erfc(-x);
    }
    let gauss = (-x * x).exp();
    if x < 2.0 {
        let (mut term, mut sum, mut n) = (x, x, 0.0);
        while term > 1e-17 * sum {
            n += 1.0;
            term *= 2.0 * x * x / (2.0 * n + 1.0);
            sum += term;
        }
        1.0 - 2.0 / PI.sqrt() * gauss * sum
    } else {
        // erfc(x) = exp(-x^2)/sqrt(pi) / (x + (1/2)/(x + (2/2)/(x + ...))), from the innermost term outwards.
        let fraction = (1..=60).rev().fold(x, |inner, k| x + 0.5 * f64::from(k) / inner);
        gauss / (PI.sqrt() * fraction)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_scipy() {
        // scipy 1.17.1, scipy.stats.norm.sf
        for (z, expected) in [
            (0.0, 0.5),
            (0.5, 0.3085375387259869),
            (1.0, 0.15865525393145707),
            (1.96, 0.024997895148220435),
            (2.5, 0.006209665325776132),
            (3.0, 0.0013498980316300933),
            (5.0, 2.866515718791933e-07),
            (8.0, 6.22096057427174e-16),
            (-1.3, 0.9031995154143897),
        ] {
            assert!(
                (upper_tail(z) / expected - 1.0).abs() < 1e-12,
                "z = {z}: {} for {expected}",
                upper_tail(z)
            );
        }
    }

    #[test]
    fn the_two_branches_meet() {
        let (below, above) = (erfc(2.0 - 1e-12), erfc(2.0));
        assert!((below / above - 1.0).abs() < 1e-10);
        assert_eq!(upper_tail(f64::INFINITY), 0.0);
    }
}
