//! Quadrature rules for the integral over the straight path from the corrupted (`alpha = 0`) to the clean run
//! (`alpha = 1`).

use std::str::FromStr;

use locus_gpt2::{Error, Result};

use super::names::by_name;

/// A quadrature rule, by its points `alpha` for `m` steps. Two of the rules are in use under the name EAP-IG: `left` in
/// the public library and MIB, `right` in the paper of 2024 (arXiv 2403.17806).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuadratureRule {
    /// `k / m` for `k = 0 .. m-1`.
    Left,
    /// `k / m` for `k = 1 .. m`.
    Right,
    /// `(k + 1/2) / m` for `k = 0 .. m-1`.
    Midpoint,
    /// `k / m` for `k = 0 .. m`, the ends with half weight.
    Trapezoid,
    /// `m` Gauss-Legendre nodes: exact for polynomials up to degree `2 m - 1`.
    GaussLegendre,
}

impl QuadratureRule {
    /// All rules.
    pub const ALL: [QuadratureRule; 5] = [
        QuadratureRule::Left,
        QuadratureRule::Right,
        QuadratureRule::Midpoint,
        QuadratureRule::Trapezoid,
        QuadratureRule::GaussLegendre,
    ];

    /// The name used in files and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            QuadratureRule::Left => "left",
            QuadratureRule::Right => "right",
            QuadratureRule::Midpoint => "midpoint",
            QuadratureRule::Trapezoid => "trapezoid",
            QuadratureRule::GaussLegendre => "gauss-legendre",
        }
    }

    /// Points with their weights, in ascending order; the weights add up to 1.
    ///
    /// # Panics
    /// When there are no steps.
    pub fn nodes(self, steps: usize) -> Vec<(f64, f64)> {
        assert!(steps > 0, "a rule needs at least one step");
        let m = steps as f64;
        let even = |offset: f64| (0..steps).map(|k| ((k as f64 + offset) / m, 1.0 / m)).collect();
        match self {
            QuadratureRule::Left => even(0.0),
            QuadratureRule::Right => even(1.0),
            QuadratureRule::Midpoint => even(0.5),
            QuadratureRule::Trapezoid => (0..=steps)
                .map(|k| (k as f64 / m, if k == 0 || k == steps { 0.5 / m } else { 1.0 / m }))
                .collect(),
            QuadratureRule::GaussLegendre => gauss_legendre(steps),
        }
    }
}

impl FromStr for QuadratureRule {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        by_name("quadrature rule", name, &Self::ALL, |rule| rule.name())
    }
}

/// Roots of the Legendre polynomial `P_m` by Newton's method, mapped from [-1, 1] to [0, 1] (Press et al., Numerical
/// Recipes, section 4.6).
fn gauss_legendre(m: usize) -> Vec<(f64, f64)> {
    let mut nodes: Vec<(f64, f64)> = (0..m)
        .map(|i| {
            let mut x = (std::f64::consts::PI * (i as f64 + 0.75) / (m as f64 + 0.5)).cos();
            let mut slope = 0.0;
            // Quadratic convergence from this start: ten steps are more than enough.
            for _ in 0..10 {
                let (mut p, mut before) = (1.0, 0.0);
                for k in 1..=m {
                    let k = k as f64;
                    (p, before) = (((2.0 * k - 1.0) * x * p - (k - 1.0) * before) / k, p);
                }
                slope = m as f64 * (x * p - before) / (x * x - 1.0);
                x -= p / slope;
            }
            (0.5 * (1.0 + x), 1.0 / ((1.0 - x * x) * slope * slope))
        })
        .collect();
    nodes.reverse();
    nodes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_integrate_what_they_should() {
        let integral = |rule: QuadratureRule, m: usize, degree: i32| -> f64 {
            rule.nodes(m).into_iter().map(|(alpha, weight)| weight * alpha.powi(degree)).sum()
        };
        for m in 1..8 {
            for rule in QuadratureRule::ALL {
                assert!((integral(rule, m, 0) - 1.0).abs() < 1e-14, "{rule:?} {m}");
                assert!(rule.nodes(m).is_sorted_by(|a, b| a.0 < b.0));
            }
            for rule in [QuadratureRule::Midpoint, QuadratureRule::Trapezoid] {
                assert!((integral(rule, m, 1) - 0.5).abs() < 1e-14);
            }
            for degree in 0..2 * m as i32 {
                let exact = 1.0 / f64::from(degree + 1);
                assert!(
                    (integral(QuadratureRule::GaussLegendre, m, degree) - exact).abs() < 1e-13,
                    "{m} {degree}"
                );
            }
        }
        assert!((integral(QuadratureRule::Left, 5, 1) - 0.4).abs() < 1e-14);
        assert!((integral(QuadratureRule::Right, 5, 1) - 0.6).abs() < 1e-14);
    }
}
