//! GELU, the activation of the MLP, over whole states.
//!
//! Multiplications and additions are not fused, so the bits do not depend on how wide the processor's vectors are.

use ndarray::Array2;
use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::number::Number;
use super::vector::PIECE_ENTRIES;

/// `sqrt(2 / pi)`
const GELU_SCALE: f64 = 0.797_884_560_802_865_4;
/// Coefficient of the cubic term.
const GELU_CUBIC: f64 = 0.044_715;
/// Entries in one call of the kernel with slopes.
const BLOCK: usize = 64;

/// GELU of every entry, in place.
pub(crate) fn gelu<F: Number>(x: &mut Array2<F>) {
    let x = x.as_slice_mut().expect("states are contiguous");
    x.par_chunks_mut(PIECE_ENTRIES).for_each(|x| Arch::new().dispatch(Plain(x)));
}

/// GELU of every entry; the slope at each entry replaces the entry.
pub(crate) fn gelu_with_slope<F: Number>(x: &mut Array2<F>) -> Array2<F> {
    let dim = x.dim();
    let (blocks, rest) = x.as_slice_mut().expect("states are contiguous").as_chunks_mut::<BLOCK>();
    let blocks = blocks.par_iter_mut().with_min_len(PIECE_ENTRIES / BLOCK);
    let y: Vec<[F; BLOCK]> = blocks.map(|x| Arch::new().dispatch(WithSlope(x))).collect();
    let mut y = y.into_flattened();
    y.extend(rest.iter_mut().map(with_slope));
    Array2::from_shape_vec(dim, y).expect("one for each entry")
}

struct Plain<'a, F>(&'a mut [F]);

impl<F: Number> WithSimd for Plain<'_, F> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        self.0.iter_mut().for_each(|x| *x = gelu_and_slope(*x).0);
    }
}

struct WithSlope<'a, F>(&'a mut [F; BLOCK]);

impl<F: Number> WithSimd for WithSlope<'_, F> {
    type Output = [F; BLOCK];

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> [F; BLOCK] {
        let mut y = [F::zero(); BLOCK];
        y.iter_mut().zip(self.0).for_each(|(y, x)| *y = with_slope(x));
        y
    }
}

#[inline(always)]
fn with_slope<F: Number>(x: &mut F) -> F {
    let (y, slope) = gelu_and_slope(*x);
    *x = slope;
    y
}

/// GELU, tanh form (Hendrycks & Gimpel 2016, eq. 3; `gelu_new` in Hugging Face), and its derivative, which shares the
/// hyperbolic tangent: `x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))`.
#[inline(always)]
fn gelu_and_slope<F: Number>(x: F) -> (F, F) {
    let (scale, cubic, half) = (F::from_f64(GELU_SCALE), F::from_f64(GELU_CUBIC), F::from_f64(0.5));
    let t = (scale * (x + cubic * x * x * x)).fast_tanh();
    let d_inner = scale * (F::one() + F::from_f64(3.0) * cubic * x * x);
    (half * x * (F::one() + t), half * (F::one() + t) + half * x * (F::one() - t * t) * d_inner)
}
