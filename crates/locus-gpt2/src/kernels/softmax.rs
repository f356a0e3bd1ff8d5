//! Exponentials of whole rows: softmax and log-sum-exp.

use pulp::{Arch, Simd, WithSimd};

use super::number::Number;
use super::vector::{max, sum};

/// Softmax in place, shifted by the maximum.
pub(crate) fn softmax<F: Number>(x: &mut [F]) {
    shifted_exponentials(x, max(x));
    let inv = F::one() / sum(x);
    x.iter_mut().for_each(|x| *x *= inv);
}

/// Replaces each entry by `exp(x - max)`. Returns the maximum, and the sum of the new entries, accumulated in f64.
pub(crate) fn exponentials<F: Number>(x: &mut [F]) -> (f64, f64) {
    let max = max(x);
    shifted_exponentials(x, max);
    (max.as_f64(), f64_sum(x))
}

/// `log sum exp(x)`, accumulated in f64.
pub(crate) fn log_sum_exp<F: Number>(x: &[F]) -> f64 {
    const PIECE: usize = 512;
    let max = max(x);
    let mut exponentials = [F::zero(); PIECE];
    let sums = x.chunks(PIECE).map(|x| {
        let exponentials = &mut exponentials[..x.len()];
        exponentials.copy_from_slice(x);
        shifted_exponentials(exponentials, max);
        f64_sum(exponentials)
    });
    let sum: f64 = sums.sum();
    max.as_f64() + sum.ln()
}

/// Sum in f64, with eight running sums.
fn f64_sum<F: Number>(x: &[F]) -> f64 {
    let mut lanes = [0.0; 8];
    let (eights, rest) = x.as_chunks::<8>();
    for x in eights {
        for i in 0..8 {
            lanes[i] += x[i].as_f64();
        }
    }
    lanes.into_iter().sum::<f64>() + rest.iter().map(|x| x.as_f64()).sum::<f64>()
}

/// Replaces each entry by `exp(x_i - shift)`.
fn shifted_exponentials<F: Number>(x: &mut [F], shift: F) {
    // Long enough for wider vectors to be worth a call that is not inlined.
    const LONG: usize = 128;
    let exponentials = Exponentials { x, shift };
    if exponentials.x.len() >= LONG { Arch::new().dispatch(exponentials) } else { exponentials.run() }
}

struct Exponentials<'a, F> {
    x: &'a mut [F],
    shift: F,
}

impl<F: Number> Exponentials<'_, F> {
    #[inline(always)]
    fn run(self) {
        // Sixteen at a time. A loop of unknown length takes short rows one by one, and the compiler would write out one
        // of eight before it sees that it is two vectors.
        let (blocks, rest) = self.x.as_chunks_mut::<16>();
        for x in blocks {
            for i in 0..16 {
                x[i] = (x[i] - self.shift).fast_exp();
            }
        }
        rest.iter_mut().for_each(|x| *x = (*x - self.shift).fast_exp());
    }
}

impl<F: Number> WithSimd for Exponentials<'_, F> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        self.run();
    }
}
