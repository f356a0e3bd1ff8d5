//! Test support of this workspace: directional finite differences in f64, tensors compared with named tolerances, and
//! seeded random vectors. No type of the other crates occurs here, so that each of them can use it in its own tests.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Tolerance of an f32 tensor against a reference, relative to the reference's largest entry: f32 keeps about 7 digits,
/// and the deepest sums here have a few hundred terms.
pub const GOLDEN_F32: f64 = 1e-4;
/// Tolerance of an f64 tensor against a reference in f64, relative to the reference's largest entry.
pub const GOLDEN_F64: f64 = 1e-9;
/// Tolerance of a directional derivative against fourth-order differences in f64.
///
/// A smaller step has a smaller truncation error and a larger rounding error. Where the two meet depends on the
/// curvature (a LayerNorm row of small spread is very curved), so several steps are tried; at the best one both errors
/// are below 1e-8 of the derivative for the functions tested.
pub const FINITE_DIFFERENCE: f64 = 1e-6;
/// Tolerance of one quantity computed with two orders of addition in f64, relative to the largest entry.
pub const REORDERED_F64: f64 = 1e-11;

/// Largest difference between two tensors of any shape, as flat slices, relative to the largest entry of `expected`
/// (absolute when that entry is 0). NaN when an entry of either is NaN.
///
/// # Panics
/// If the lengths differ.
pub fn relative_difference(actual: &[f64], expected: &[f64]) -> f64 {
    assert_eq!(actual.len(), expected.len(), "lengths differ");
    let scale = expected.iter().fold(0f64, |max, x| max.max(x.abs()));
    // A NaN must not slip through a maximum.
    let difference = actual.iter().zip(expected).fold(0f64, |max, (a, e)| {
        let d = (a - e).abs();
        if d.is_nan() || d > max { d } else { max }
    });
    if scale > 0.0 { difference / scale } else { difference }
}

/// Asserts that two tensors, as flat slices, agree within a tolerance; `name` says in the message which they are.
///
/// # Panics
/// If [`relative_difference`] exceeds the tolerance or is NaN, or if the lengths differ.
pub fn assert_close(name: &str, actual: &[f64], expected: &[f64], tolerance: f64) {
    let difference = relative_difference(actual, expected);
    assert!(difference <= tolerance, "{name}: relative difference {difference:e} exceeds {tolerance:e}");
}

/// Seeded vector of numbers with mean 0 and variance 1, roughly normal: each is a scaled sum of four uniform numbers.
pub fn random_vector(n: usize, seed: u64) -> Vec<f64> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    (0..n).map(|_| (0..4).map(|_| rng.random::<f64>() - 0.5).sum::<f64>() * 3f64.sqrt()).collect()
}

/// Checks the gradient of `f` at `x` along one random unit vector `v`.
///
/// `<gradient, v>` is compared with the fourth-order central difference
/// `(8 (f(x + h v) - f(x - h v)) - (f(x + 2 h v) - f(x - 2 h v))) / 12 h`, to [`FINITE_DIFFERENCE`] relative to the
/// larger of the two and 1. One of five steps `h` must agree; a wrong gradient agrees with none.
///
/// # Panics
/// If no step agrees, or if `x` and `gradient` have different lengths.
pub fn check_directional(name: &str, x: &[f64], gradient: &[f64], seed: u64, f: impl Fn(&[f64]) -> f64) {
    const STEPS: [f64; 5] = [1e-4, 1e-5, 1e-6, 1e-7, 1e-3];
    assert_eq!(x.len(), gradient.len(), "{name}: gradient has another length");
    let mut direction = random_vector(x.len(), seed);
    let norm = direction.iter().map(|v| v * v).sum::<f64>().sqrt();
    direction.iter_mut().for_each(|v| *v /= norm);
    let at = |h: f64| f(&x.iter().zip(&direction).map(|(x, v)| x + h * v).collect::<Vec<_>>());
    let analytic: f64 = gradient.iter().zip(&direction).map(|(g, v)| g * v).sum();
    let mut seen = Vec::new();
    for h in STEPS {
        let numeric = (8.0 * (at(h) - at(-h)) - (at(2.0 * h) - at(-2.0 * h))) / (12.0 * h);
        let scale = numeric.abs().max(analytic.abs()).max(1.0);
        if (numeric - analytic).abs() <= FINITE_DIFFERENCE * scale {
            return;
        }
        seen.push(numeric);
    }
    panic!("{name}: derivative along a random direction is {analytic:e}, finite differences say {seen:?}");
}

/// The README, whose example is a test too.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_right_gradient_passes() {
        let x = random_vector(5, 1);
        let gradient: Vec<f64> = x.iter().map(|x| 3.0 * x * x).collect();
        check_directional("cubes", &x, &gradient, 2, |x| x.iter().map(|x| x * x * x).sum());
    }

    #[test]
    #[should_panic(expected = "finite differences say")]
    fn a_wrong_gradient_does_not() {
        let x = random_vector(5, 1);
        let gradient: Vec<f64> = x.iter().map(|x| 3.01 * x * x).collect();
        check_directional("cubes", &x, &gradient, 2, |x| x.iter().map(|x| x * x * x).sum());
    }

    #[test]
    #[should_panic(expected = "squares: gradient has another length")]
    fn a_gradient_has_one_entry_per_coordinate() {
        check_directional("squares", &[1.0, 2.0], &[2.0], 2, |x| x.iter().map(|x| x * x).sum());
    }

    #[test]
    fn differences_are_relative_to_the_largest_entry() {
        assert_eq!(relative_difference(&[1.0, 3.0], &[2.0, 4.0]), 0.25);
        assert_eq!(relative_difference(&[0.5, 0.0], &[0.0, 0.0]), 0.5);
        assert_close("halves", &[1.0, 3.0], &[2.0, 4.0], 0.25);
    }

    #[test]
    #[should_panic(expected = "halves: relative difference 2.5e-1 exceeds 1e-1")]
    fn tensors_that_differ_are_named() {
        assert_close("halves", &[1.0, 3.0], &[2.0, 4.0], 0.1);
    }

    #[test]
    #[should_panic(expected = "nan: relative difference NaN")]
    fn nan_is_not_within_any_tolerance() {
        assert_close("nan", &[f64::NAN], &[1.0], f64::INFINITY);
    }

    #[test]
    #[should_panic(expected = "lengths differ")]
    fn tensors_have_one_length() {
        relative_difference(&[1.0], &[1.0, 2.0]);
    }

    #[test]
    fn random_vectors_have_mean_zero_and_variance_one() {
        let x = random_vector(10_000, 3);
        let mean = x.iter().sum::<f64>() / x.len() as f64;
        let variance = x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64;
        assert!(mean.abs() < 0.05 && (variance - 1.0).abs() < 0.05, "{mean} {variance}");
        assert_eq!(x[..5], random_vector(5, 3));
    }

    #[test]
    fn nan_is_never_close() {
        assert!(relative_difference(&[f64::NAN, 0.0], &[1.0, 1.0]).is_nan());
    }
}
