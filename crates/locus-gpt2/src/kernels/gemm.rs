//! The one door to matrix products.
//!
//! Determinism: a product is cut into pieces whose size depends on the shape alone, each piece is one call to a
//! single-threaded BLAS, and where pieces' results are added up that is done in order. So the bits do not depend on the
//! thread count.

use ndarray::{Array2, ArrayView2, ArrayViewMut2, Axis};
use rayon::prelude::*;

use super::gemm_small_m::product;
use super::number::Number;
use super::split::column_chunks;

/// Most rows and columns of a piece. The BLAS copies both factors of a piece into the layout of its kernels, so a piece
/// should be large both ways, but not so large that threads are idle for want of pieces.
const PIECE_ROWS: usize = 512;
const PIECE_COLUMNS: usize = 384;
/// Multiply-adds below which a product is one piece: a tenth of a millisecond, as handing it to a thread is not free.
const SMALL_MULTIPLY_ADDS: usize = 1 << 22;
/// Multiply-adds of one piece of a sum over a long inner dimension.
const PIECE_MULTIPLY_ADDS: usize = 1 << 24;

/// An inner dimension is long when it is this many times the larger side of the product.
const LONG: usize = 16;
/// Most partial sums of one product, each of which is as large as the product.
const MOST_PARTIAL_SUMS: usize = 32;

/// `c <- alpha a b + beta c` with `a [m, k]`, `b [k, n]`, `c [m, n]`.
///
/// # Panics
/// When the shapes do not fit; the message has all three.
pub(crate) fn gemm<F: Number>(
    alpha: F,
    a: ArrayView2<F>,
    b: ArrayView2<F>,
    beta: F,
    mut c: ArrayViewMut2<F>,
) {
    let (m, k) = a.dim();
    let n = b.ncols();
    assert!(
        b.nrows() == k && c.dim() == (m, n),
        "gemm of {:?} and {:?} into {:?}",
        a.dim(),
        b.dim(),
        c.dim()
    );
    if k >= LONG * m.max(n) && m * n * k > PIECE_MULTIPLY_ADDS {
        return gemm_over_long(alpha, a, b, beta, c);
    }
    if m * n * k <= SMALL_MULTIPLY_ADDS {
        return product(alpha, a, b, beta, c);
    }
    let mut parts = Vec::with_capacity(m.div_ceil(PIECE_ROWS) * n.div_ceil(PIECE_COLUMNS));
    for (a, c) in a.axis_chunks_iter(Axis(0), PIECE_ROWS).zip(c.axis_chunks_iter_mut(Axis(0), PIECE_ROWS)) {
        let columns = b.axis_chunks_iter(Axis(1), PIECE_COLUMNS).zip(column_chunks(c, PIECE_COLUMNS));
        parts.extend(columns.map(|(b, c)| (a, b, c)));
    }
    parts.into_par_iter().for_each(|(a, b, c)| product(alpha, a, b, beta, c));
}

/// Product whose inner dimension is by far its longest, such as the gradient of hidden states from logits: that
/// dimension is cut, and the products of the pieces are added up in order.
fn gemm_over_long<F: Number>(alpha: F, a: ArrayView2<F>, b: ArrayView2<F>, beta: F, mut c: ArrayViewMut2<F>) {
    let pieces = (c.len() * a.ncols() / PIECE_MULTIPLY_ADDS).clamp(2, MOST_PARTIAL_SUMS);
    let size = a.ncols().div_ceil(pieces);
    let parts: Vec<_> = a.axis_chunks_iter(Axis(1), size).zip(b.axis_chunks_iter(Axis(0), size)).collect();
    let sums: Vec<Array2<F>> = parts
        .into_par_iter()
        .map(|(a, b)| {
            let mut sum = Array2::zeros(c.dim());
            product(alpha, a, b, F::zero(), sum.view_mut());
            sum
        })
        .collect();
    if beta == F::zero() {
        c.fill(F::zero());
    } else {
        c.mapv_inplace(|x| beta * x);
    }
    sums.iter().for_each(|sum| c += sum);
}
