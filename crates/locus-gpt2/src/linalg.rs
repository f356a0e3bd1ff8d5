//! The one door to matrix products, and the few vector loops around it.
//!
//! Determinism: a product is cut into row pieces whose size depends on the shape alone, each piece is one call to a
//! single-threaded BLAS, and no piece's result is added to another's. So the bits do not depend on the thread count.

use ndarray::linalg::general_mat_mul;
use ndarray::{ArrayView2, ArrayViewMut2, Axis};
use rayon::prelude::*;

use crate::scalar::Scalar;

/// Multiply-adds in one piece: large enough that packing the right-hand side again for each piece is cheap.
const PIECE_MULTIPLY_ADDS: usize = 1 << 26;

/// `c <- alpha a b + beta c` with `a [m, k]`, `b [k, n]`, `c [m, n]`.
///
/// # Panics
/// When the shapes do not fit.
pub fn gemm<F: Scalar>(alpha: F, a: ArrayView2<F>, b: ArrayView2<F>, beta: F, mut c: ArrayViewMut2<F>) {
    let (m, k) = a.dim();
    let n = b.ncols();
    let pieces = (m * n * k / PIECE_MULTIPLY_ADDS).clamp(1, m.max(1));
    if pieces == 1 {
        general_mat_mul(alpha, &a, &b, beta, &mut c);
        return;
    }
    let rows = m.div_ceil(pieces).next_multiple_of(16);
    let parts: Vec<_> =
        a.axis_chunks_iter(Axis(0), rows).zip(c.axis_chunks_iter_mut(Axis(0), rows)).collect();
    parts.into_par_iter().for_each(|(a, mut c)| general_mat_mul(alpha, &a, &b, beta, &mut c));
}

/// Dot product with eight running sums, so that it vectorises and its order of additions is fixed.
#[inline]
pub fn dot<F: Scalar>(a: &[F], b: &[F]) -> F {
    let mut lanes = [F::zero(); 8];
    let (a8, b8) = (a.chunks_exact(8), b.chunks_exact(8));
    let tail: F = a8.remainder().iter().zip(b8.remainder()).map(|(&x, &y)| x * y).sum();
    for (x, y) in a8.zip(b8) {
        for i in 0..8 {
            lanes[i] += x[i] * y[i];
        }
    }
    lanes.into_iter().sum::<F>() + tail
}

/// `y <- y + alpha x`.
#[inline]
pub fn axpy<F: Scalar>(alpha: F, x: &[F], y: &mut [F]) {
    for (y, &x) in y.iter_mut().zip(x) {
        *y += alpha * x;
    }
}

/// Adds the column sums of `x [n, d]` to `sums [d]`, row by row.
pub fn add_column_sums<F: Scalar>(x: ArrayView2<F>, sums: &mut [F]) {
    for row in x.rows() {
        axpy(F::one(), row.to_slice().expect("rows are contiguous"), sums);
    }
}
