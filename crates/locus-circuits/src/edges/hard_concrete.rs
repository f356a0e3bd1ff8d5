//! The hard concrete gate: a random number in [0, 1] that is often exactly 0 or 1, and through which gradients pass.
//!
//! ```text
//! s = sigmoid((ln u - ln(1 - u) + log_alpha) / beta),  u uniform in (0, 1)
//! z = min(1, max(0, s (zeta - gamma) + gamma))
//! P(z > 0) = sigmoid(log_alpha - beta ln(-gamma / zeta))
//! ```
//!
//! Source: Louizos, Welling, Kingma 2018 (arXiv 1712.01312), equations 10 to 12, with their constants `beta = 2/3`,
//! `gamma = -0.1` and `zeta = 1.1`.

const BETA: f64 = 2.0 / 3.0;
const GAMMA: f64 = -0.1;
const ZETA: f64 = 1.1;
/// Noise is kept this far from 0 and 1, as in the code of arXiv 2406.16778.
const EDGE_OF_NOISE: f64 = 1e-6;

/// A gate for uniform noise `u`, and its derivative with respect to `log_alpha`.
pub(super) fn sample(log_alpha: f64, u: f64) -> (f64, f64) {
    let u = u.clamp(EDGE_OF_NOISE, 1.0 - EDGE_OF_NOISE);
    let s = sigmoid(((u / (1.0 - u)).ln() + log_alpha) / BETA);
    let stretched = s * (ZETA - GAMMA) + GAMMA;
    let inside = stretched > 0.0 && stretched < 1.0;
    let slope = if inside { (ZETA - GAMMA) * s * (1.0 - s) / BETA } else { 0.0 };
    (stretched.clamp(0.0, 1.0), slope)
}

/// The probability that a gate is not 0, and its derivative with respect to `log_alpha`.
pub(super) fn open(log_alpha: f64) -> (f64, f64) {
    let p = sigmoid(log_alpha - BETA * (-GAMMA / ZETA).ln());
    (p, p * (1.0 - p))
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::noise::Noise;

    #[test]
    fn slopes_are_derivatives_and_the_share_of_open_gates_is_the_probability() {
        let noise = Noise::new(3, 1, 4);
        const N: usize = 200_000;
        for log_alpha in [-2.0, -0.3, 0.0, 1.7, 4.0] {
            let (p, slope) = open(log_alpha);
            let numeric = (open(log_alpha + 1e-5).0 - open(log_alpha - 1e-5).0) / 2e-5;
            assert!((slope - numeric).abs() < 1e-9, "{slope} against {numeric}");
            let gates = (0..N).map(|i| sample(log_alpha, f64::from(noise.uniform(i))).0);
            let share = gates.filter(|&z| z > 0.0).count() as f64 / N as f64;
            // Five standard errors.
            assert!(
                (share - p).abs() < 5.0 * (p * (1.0 - p) / N as f64).sqrt() + 1e-12,
                "{share} against {p}"
            );
            for u in [0.01, 0.2, 0.5, 0.83, 0.999] {
                let (z, slope) = sample(log_alpha, u);
                let [above, below] = [1e-6, -1e-6].map(|h| sample(log_alpha + h, u).0);
                let numeric = (above - below) / 2e-6;
                assert!(
                    (0.0..=1.0).contains(&z) && (slope - numeric).abs() < 1e-8,
                    "{slope} against {numeric}"
                );
            }
        }
    }
}
