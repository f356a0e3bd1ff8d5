//! Private test support: directional finite differences in f64 and named tolerances.
//!
//! Knows no type of the other crates, so that each of them can use it in its own tests.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// f32 against a reference: relative to the largest entry of the tensor. Single precision keeps about 7 digits and the
/// deepest product here sums a few hundred terms.
pub const GOLDEN_F32: f64 = 1e-4;
/// f64 against a reference in f64, relative to the largest entry.
pub const GOLDEN_F64: f64 = 1e-9;
/// A directional derivative against fourth-order differences in f64. Truncation falls and rounding grows with a smaller
/// step; where they meet depends on the curvature (a LayerNorm row of small spread is very curved), so several steps
/// are tried. At the best of them both are below 1e-8 of the derivative for the functions tested.
pub const FINITE_DIFFERENCE: f64 = 1e-6;
/// The same quantity computed in two orders of additions in f64.
pub const REORDERED_F64: f64 = 1e-11;

/// Largest difference between two tensors, relative to the largest entry of `expected` (absolute when that is 0).
///
/// # Panics
/// When the lengths differ.
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

/// Panics with the tensor's name unless the two agree within the tolerance.
///
/// # Panics
/// When they do not.
pub fn assert_close(name: &str, actual: &[f64], expected: &[f64], tolerance: f64) {
    let difference = relative_difference(actual, expected);
    assert!(difference <= tolerance, "{name}: relative difference {difference:e} exceeds {tolerance:e}");
}

/// A vector of standard-normal-like numbers (sum of uniforms), the same for the same seed.
pub fn random_vector(n: usize, seed: u64) -> Vec<f64> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    (0..n).map(|_| (0..4).map(|_| rng.random::<f64>() - 0.5).sum::<f64>() * 3f64.sqrt()).collect()
}

/// Checks a gradient along one random direction `v`: `<gradient(x), v>` against the fourth-order central difference
/// `(8 (f(x + h v) - f(x - h v)) - (f(x + 2 h v) - f(x - 2 h v))) / 12 h`, to [`FINITE_DIFFERENCE`] relative to the
/// larger of the two and 1. One of five step sizes must agree: a wrong gradient agrees with none.
///
/// # Panics
/// When they differ.
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
    fn nan_is_never_close() {
        assert!(relative_difference(&[f64::NAN, 0.0], &[1.0, 1.0]).is_nan());
    }
}
