//! Draws that this crate makes from uniform numbers: normal numbers by Box-Muller and the Fisher-Yates shuffle.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

/// A standard normal number by the Box-Muller transform of two uniform numbers, the first in (0, 1].
pub fn box_muller(u: f64, v: f64) -> f64 {
    (-2.0 * u.ln()).sqrt() * (2.0 * std::f64::consts::PI * v).cos()
}

/// A standard normal number. The uniform numbers behind it are those of `rand`, whose version `Cargo.lock` pins.
pub fn normal(rng: &mut ChaCha8Rng) -> f64 {
    let u: f64 = 1.0 - rng.random::<f64>();
    let v: f64 = rng.random();
    box_muller(u, v)
}

/// Shuffles in place (Fisher-Yates). The index of each swap is drawn with `rand`, whose version `Cargo.lock` pins.
pub fn shuffle<T>(items: &mut [T], rng: &mut ChaCha8Rng) {
    for i in (1..items.len()).rev() {
        items.swap(i, rng.random_range(0..=i));
    }
}
