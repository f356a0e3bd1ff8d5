//! Counter-based uniform noise: a number is a function of seed, tensor, step and index alone, so a tensor can be filled
//! in any order and by any number of threads.

/// Uniform numbers for one tensor and one step.
#[derive(Clone, Copy, Debug)]
pub struct Noise {
    base: u64,
}

impl Noise {
    /// The stream of a seed, a tensor and a step.
    pub fn new(seed: u64, tensor: u64, step: u64) -> Self {
        Noise { base: mix(mix(mix(seed) ^ tensor) ^ step) }
    }

    /// A number strictly between 0 and 1, one of 2^24 equally spaced ones.
    #[inline(always)]
    pub fn uniform(self, index: usize) -> f32 {
        let bits = (mix(self.base.wrapping_add(index as u64)) >> 40) as i32;
        (bits as f32 + 0.5) * (1.0 / 16_777_216.0)
    }
}

/// The output function of SplitMix64 (Steele, Lea, Flood 2014) applied to a counter.
#[inline(always)]
fn mix(counter: u64) -> u64 {
    let z = counter.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uniform_and_uncorrelated() {
        let (a, b) = (Noise::new(1, 2, 3), Noise::new(1, 2, 4));
        let n = 100_000;
        let mean = (0..n).map(|i| f64::from(a.uniform(i))).sum::<f64>() / n as f64;
        let square = (0..n).map(|i| f64::from(a.uniform(i)).powi(2)).sum::<f64>() / n as f64;
        let cross = (0..n).map(|i| f64::from(a.uniform(i) * b.uniform(i))).sum::<f64>() / n as f64;
        let lag = (0..n).map(|i| f64::from(a.uniform(i) * a.uniform(i + 1))).sum::<f64>() / n as f64;
        // Five standard errors of a mean of 1e5 numbers with deviation 0.29.
        let close = |x: f64, y: f64| assert!((x - y).abs() < 5e-3, "{x} against {y}");
        close(mean, 0.5);
        close(square, 1.0 / 3.0);
        close(cross, 0.25);
        close(lag, 0.25);
        assert!((0..n).all(|i| a.uniform(i) > 0.0 && a.uniform(i) < 1.0));
    }
}
