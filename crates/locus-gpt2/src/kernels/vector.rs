//! Loops over vectors: dot products, sums and maxima with a fixed order of additions, and columns of a state.

use ndarray::{Array2, ArrayView2, Axis};
use rayon::prelude::*;

use super::number::Number;

/// Dot product with eight running sums, so that it vectorises and its order of additions is fixed.
///
/// # Panics
/// When the lengths differ; the message has both.
#[inline]
pub fn dot<F: Number>(a: &[F], b: &[F]) -> F {
    assert_eq!(a.len(), b.len(), "lengths of a dot product");
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

/// Entries in one piece of parallel work over entries or rows.
pub(crate) const PIECE_ENTRIES: usize = 1 << 14;

/// Rows of the given width in one piece of parallel work over rows; it depends on the width alone.
pub(crate) fn rows_in_piece(width: usize) -> usize {
    (PIECE_ENTRIES / width).max(1)
}

/// Sum with eight running sums, as [`dot`].
pub(crate) fn sum<F: Number>(x: &[F]) -> F {
    let mut lanes = [F::zero(); 8];
    let x8 = x.chunks_exact(8);
    let tail: F = x8.remainder().iter().copied().sum();
    for x in x8 {
        for i in 0..8 {
            lanes[i] += x[i];
        }
    }
    lanes.into_iter().sum::<F>() + tail
}

/// Largest entry; -inf for an empty slice.
pub(crate) fn max<F: Number>(x: &[F]) -> F {
    let larger = |a: F, b: F| if b > a { b } else { a };
    let mut lanes = [F::neg_infinity(); 8];
    let x8 = x.chunks_exact(8);
    let tail = x8.remainder().iter().copied().fold(F::neg_infinity(), larger);
    for x in x8 {
        for i in 0..8 {
            lanes[i] = larger(lanes[i], x[i]);
        }
    }
    // In pairs, so that no comparison waits for seven before it.
    let fours: [F; 4] = std::array::from_fn(|i| larger(lanes[i], lanes[i + 4]));
    let twos: [F; 2] = std::array::from_fn(|i| larger(fours[i], fours[i + 2]));
    larger(larger(twos[0], twos[1]), tail)
}

/// Zeros that have been written to memory. Those of `Array2::zeros` are pages that the system maps at the first read
/// and copies at the first write; sums that start from them pay for both.
pub(crate) fn written_zeros<F: Number>(rows: usize, columns: usize) -> Array2<F> {
    let mut zeros = Vec::with_capacity(rows * columns);
    zeros.resize(rows * columns, F::zero());
    Array2::from_shape_vec((rows, columns), zeros).expect("as many as asked for")
}

/// `y <- y + alpha x`.
///
/// # Panics
/// When the lengths differ; the message has both.
#[inline]
pub fn axpy<F: Number>(alpha: F, x: &[F], y: &mut [F]) {
    assert_eq!(x.len(), y.len(), "lengths of an axpy");
    for (y, &x) in y.iter_mut().zip(x) {
        *y += alpha * x;
    }
}

/// Columns in one piece of a sum over rows.
const PIECE_COLUMN_SUMS: usize = 256;

/// Adds the column sums of `x [n, d]` to `sums [d]`, row by row.
///
/// # Panics
/// When `sums` has another length than a row.
pub fn add_column_sums<F: Number>(x: ArrayView2<F>, sums: &mut [F]) {
    assert_eq!(x.ncols(), sums.len(), "columns and their sums");
    let columns = x.axis_chunks_iter(Axis(1), PIECE_COLUMN_SUMS).into_par_iter();
    columns.zip(sums.par_chunks_mut(PIECE_COLUMN_SUMS)).for_each(|(x, sums)| {
        for row in x.rows() {
            axpy(F::one(), row.to_slice().expect("rows are contiguous"), sums);
        }
    });
}
