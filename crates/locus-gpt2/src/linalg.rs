//! The one door to matrix products, and the few vector loops around it.
//!
//! Determinism: a product is cut into pieces whose size depends on the shape alone, each piece is one call to a
//! single-threaded BLAS, and where pieces' results are added up that is done in order. So the bits do not depend on the
//! thread count.

use ndarray::{Array2, ArrayView2, ArrayViewMut2, Axis};
use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use crate::few_rows::product;
use crate::scalar::Scalar;

/// Largest rows and columns of a piece. The BLAS copies both factors of a piece into the layout of its kernels, so a piece
/// should be broad both ways; it should not be so large that few pieces leave threads idle.
const PIECE_ROWS: usize = 512;
const PIECE_COLUMNS: usize = 384;
/// Multiply-adds below which a product is one piece: a tenth of a millisecond, as handing it to a thread is not free.
const SMALL_MULTIPLY_ADDS: usize = 1 << 22;
/// The same of one piece of a sum over a long inner dimension.
const PIECE_MULTIPLY_ADDS: usize = 1 << 24;

/// An inner dimension is long when it is this many times the larger side of the product.
const LONG: usize = 16;
/// Partial sums of one product, each as large as the product.
const MOST_PARTIAL_SUMS: usize = 32;

/// `c <- alpha a b + beta c` with `a [m, k]`, `b [k, n]`, `c [m, n]`.
///
/// # Panics
/// When the shapes do not fit.
pub fn gemm<F: Scalar>(alpha: F, a: ArrayView2<F>, b: ArrayView2<F>, beta: F, mut c: ArrayViewMut2<F>) {
    let (m, k) = a.dim();
    let n = b.ncols();
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

/// Cuts a matrix into runs of columns.
pub(crate) fn column_chunks<F>(
    c: ArrayViewMut2<'_, F>,
    size: usize,
) -> impl Iterator<Item = ArrayViewMut2<'_, F>> {
    let mut rest = Some(c);
    std::iter::from_fn(move || {
        let c = rest.take()?;
        if c.ncols() <= size {
            return Some(c);
        }
        let (first, others) = c.split_at(Axis(1), size);
        rest = Some(others);
        Some(first)
    })
}

/// Cuts a slice into pieces of the given lengths.
///
/// # Panics
/// When it is shorter than they are together.
pub fn cut<T>(x: &mut [T], lengths: impl Iterator<Item = usize>) -> impl Iterator<Item = &mut [T]> {
    let mut rest = x;
    lengths.map(move |n| {
        let (first, others) = std::mem::take(&mut rest).split_at_mut(n);
        rest = others;
        first
    })
}

/// A product whose inner dimension is by far its longest, such as the gradient of hidden states from logits: that
/// dimension is cut, and the pieces' products are added up in order.
fn gemm_over_long<F: Scalar>(alpha: F, a: ArrayView2<F>, b: ArrayView2<F>, beta: F, mut c: ArrayViewMut2<F>) {
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

/// Entries in one piece of a loop over entries or rows.
pub(crate) const PIECE_ENTRIES: usize = 1 << 14;

/// Rows of the given width in one piece of a loop over rows: it depends on the width alone.
pub(crate) fn rows_in_piece(width: usize) -> usize {
    (PIECE_ENTRIES / width).max(1)
}

/// Sum with eight running sums, as [`dot`].
pub(crate) fn sum<F: Scalar>(x: &[F]) -> F {
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

/// `x_i <- exp(x_i - shift)`.
pub(crate) fn shifted_exponentials<F: Scalar>(x: &mut [F], shift: F) {
    // Long enough for wider vectors to be worth a call that is not inlined.
    const LONG: usize = 128;
    let exponentials = Exponentials { x, shift };
    if exponentials.x.len() >= LONG { Arch::new().dispatch(exponentials) } else { exponentials.run() }
}

struct Exponentials<'a, F> {
    x: &'a mut [F],
    shift: F,
}

impl<F: Scalar> Exponentials<'_, F> {
    #[inline(always)]
    fn run(self) {
        // Sixteen at a time. A loop of unknown length takes short rows one by one, and the compiler would write out one of
        // eight before it sees that it is two vectors.
        let (blocks, rest) = self.x.as_chunks_mut::<16>();
        for x in blocks {
            for i in 0..16 {
                x[i] = (x[i] - self.shift).exp_();
            }
        }
        rest.iter_mut().for_each(|x| *x = (*x - self.shift).exp_());
    }
}

impl<F: Scalar> WithSimd for Exponentials<'_, F> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        self.run();
    }
}

/// Largest entry, minus infinity of none.
pub(crate) fn max<F: Scalar>(x: &[F]) -> F {
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

/// Zeros that are written. Those of `Array2::zeros` come from the system as pages that are mapped when read and copied
/// when written; sums that start from them pay for both.
pub(crate) fn written_zeros<F: Scalar>(rows: usize, columns: usize) -> Array2<F> {
    let mut zeros = Vec::with_capacity(rows * columns);
    zeros.resize(rows * columns, F::zero());
    Array2::from_shape_vec((rows, columns), zeros).expect("as many as asked for")
}

/// `y <- y + alpha x`.
#[inline]
pub fn axpy<F: Scalar>(alpha: F, x: &[F], y: &mut [F]) {
    for (y, &x) in y.iter_mut().zip(x) {
        *y += alpha * x;
    }
}

/// Columns in one piece of a sum over rows.
const PIECE_COLUMN_SUMS: usize = 256;

/// Adds the column sums of `x [n, d]` to `sums [d]`, row by row.
pub fn add_column_sums<F: Scalar>(x: ArrayView2<F>, sums: &mut [F]) {
    let columns = x.axis_chunks_iter(Axis(1), PIECE_COLUMN_SUMS).into_par_iter();
    columns.zip(sums.par_chunks_mut(PIECE_COLUMN_SUMS)).for_each(|(x, sums)| {
        for row in x.rows() {
            axpy(F::one(), row.to_slice().expect("rows are contiguous"), sums);
        }
    });
}
