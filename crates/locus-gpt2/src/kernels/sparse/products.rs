//! Products with matrices of few entries, such as those of a circuit.
//!
//! The state is transposed, and each entry is one number times a vector of rows. So the positions of the entries do not
//! matter, and work is in proportion to their number.
//!
//! Dimension letters: `n` rows, `k` inputs, `m` outputs.

use ndarray::{Array2, ArrayView2, ArrayViewMut2, Axis, s};
use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::pattern::Pattern;
use crate::kernels::number::Number;
use crate::kernels::split::column_chunks;
use crate::kernels::transposed::{Aligned, TOGETHER, Transposed, transpose};
use crate::kernels::vector::written_zeros;

/// The dense product is used when more than one in this many entries is not zero.
const DENSE_SHARE: usize = 3;
/// Rows that are transposed at a time: 64 features of them fit the first-level cache, 3072 the second.
const ROWS: usize = 128;
/// Vectors of sums that are in registers at once.
const SUMS: usize = 8;
/// Multiply-adds in one piece of parallel work.
const PIECE_MULTIPLY_ADDS: usize = 1 << 20;

/// The entries of a matrix `[k, m]` that are not zero, by row and by column.
#[derive(Debug)]
pub(crate) struct SparseMatrix<F> {
    /// Compressed sparse columns: one list of inputs for each output.
    by_output: Compressed<F>,
    /// Compressed sparse rows: one list of outputs for each input.
    by_input: Compressed<F>,
}

/// Compressed sparse rows: entry `i` of the pattern has weight `i`.
#[derive(Debug)]
struct Compressed<F> {
    pattern: Pattern,
    weights: Vec<F>,
}

impl<F: Number> SparseMatrix<F> {
    /// The entries of a matrix that are not zero; `None` when they are many or the matrix is too large for a
    /// [`Pattern`].
    pub(crate) fn of(matrix: ArrayView2<F>) -> Option<Self> {
        let entries = matrix.to_slice()?;
        let count = entries.iter().filter(|&&w| w != F::zero()).count();
        if count * DENSE_SHARE > entries.len() {
            return None;
        }
        let (pattern, weights) = Pattern::of_nonzero(entries, matrix.dim(), count)?;
        let (transposed, order) = pattern.transposed();
        let by_output = order.iter().map(|&entry| weights[entry as usize]).collect();
        Some(SparseMatrix {
            by_output: Compressed { pattern: transposed, weights: by_output },
            by_input: Compressed { pattern, weights },
        })
    }

    /// `x W + bias` with `x [n, k]`.
    pub(crate) fn apply(&self, x: ArrayView2<F>, bias: &[F]) -> Array2<F> {
        self.by_output.products(x, bias)
    }

    /// `d_y W^T` with `d_y [n, m]`.
    pub(crate) fn apply_transposed(&self, d_y: ArrayView2<F>) -> Array2<F> {
        self.by_input.products(d_y, &vec![F::zero(); self.by_input.pattern.n_rows()])
    }
}

impl<F: Number> Compressed<F> {
    fn row(&self, i: usize) -> (&[u16], &[F]) {
        (self.pattern.row(i), &self.weights[self.pattern.range(i)])
    }

    /// One output column for each row of the pattern: a first number plus the weighted sum of the columns of `x` in
    /// that row.
    fn products(&self, x: ArrayView2<F>, first: &[F]) -> Array2<F> {
        let mut y = written_zeros(x.nrows(), self.pattern.n_rows());
        let mut transposed = Transposed::new();
        for (x, y) in x.axis_chunks_iter(Axis(0), ROWS).zip(y.axis_chunks_iter_mut(Axis(0), ROWS)) {
            let width = x.nrows().next_power_of_two().max(TOGETHER);
            transposed.transpose(x, width);
            let lists = PIECE_MULTIPLY_ADDS * self.pattern.n_rows() / (width * self.weights.len()).max(1);
            let lists = lists.next_multiple_of(TOGETHER).max(TOGETHER);
            let pieces: Vec<_> = column_chunks(y, lists).enumerate().collect();
            pieces.into_par_iter().for_each(|(piece, y)| {
                let list = piece * lists;
                Arch::new().dispatch(Columns { lists: self, first, list, x: &transposed, y });
            });
        }
        y
    }
}

/// The work on some output columns, from column `list` on.
struct Columns<'a, F> {
    lists: &'a Compressed<F>,
    first: &'a [F],
    list: usize,
    x: &'a Transposed<F>,
    y: ArrayViewMut2<'a, F>,
}

impl<F: Number> WithSimd for Columns<'_, F> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Columns { lists, first, list, x, mut y } = self;
        let width = x.width();
        let mut columns = Aligned::zeros(TOGETHER * width);
        let mut next = list..;
        for mut y in y.axis_chunks_iter_mut(Axis(1), TOGETHER) {
            for (column, list) in columns.chunks_exact_mut(width).take(y.ncols()).zip(&mut next) {
                let (first, list) = (F::splat(simd, first[list]), lists.row(list));
                match F::vectors::<S>(column).len() {
                    1 => weighted_sum::<F, S, 1>(simd, first, list, x, column),
                    2 => weighted_sum::<F, S, 2>(simd, first, list, x, column),
                    4 => weighted_sum::<F, S, 4>(simd, first, list, x, column),
                    _ => weighted_sum::<F, S, SUMS>(simd, first, list, x, column),
                }
            }
            let columns = ArrayView2::from_shape((TOGETHER, width), &columns).expect("as many as made");
            let columns = columns.slice_move(s![..y.ncols(), ..y.nrows()]);
            transpose(
                columns,
                y.rows_mut().into_iter().map(|row| row.into_slice().expect("rows are contiguous")),
            );
        }
    }
}

/// Weighted sum of the columns of `x` in a list, `V` vectors at a time.
#[inline(always)]
fn weighted_sum<F: Number, S: Simd, const V: usize>(
    simd: S,
    first: F::Vector<S>,
    (places, weights): (&[u16], &[F]),
    x: &Transposed<F>,
    sum: &mut [F],
) {
    let (x, sum) = (F::vectors::<S>(x.features()), F::vectors_mut::<S>(sum));
    let stride = sum.len();
    for (group, sum) in sum.chunks_exact_mut(V).enumerate() {
        let mut sums = [first; V];
        for (&i, &w) in places.iter().zip(weights) {
            let x = &x[usize::from(i) * stride + group * V..][..V];
            let w = F::splat(simd, w);
            for v in 0..V {
                sums[v] = F::fused(simd, w, x[v], sums[v]);
            }
        }
        sum.copy_from_slice(&sums);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Both products against those of whole matrices.
    fn check<F: Number>(n: usize, k: usize, m: usize, every: usize, tolerance: f64) {
        let entry = |i: usize, j: usize| F::from_f64(((i * 7919 + j * 104_729) % 1000) as f64 / 500.0 - 1.0);
        let kept = |i: usize, j: usize| {
            if ((i * m + j) * 31).is_multiple_of(every) { entry(i, j) } else { F::zero() }
        };
        let matrix = Array2::from_shape_fn((k, m), |(i, j)| kept(i, j));
        let Some(sparse) = SparseMatrix::of(matrix.view()) else {
            let count = matrix.iter().filter(|&&w| w != F::zero()).count();
            assert!(count * DENSE_SHARE > k * m, "{count} of {k} x {m} are few");
            return;
        };
        let (x, d_y) = (
            Array2::from_shape_fn((n, k), |(i, j)| entry(i, j)),
            Array2::from_shape_fn((n, m), |(i, j)| entry(j, i)),
        );
        let bias: Vec<F> = (0..m).map(|j| entry(j, j)).collect();
        let mut expected = x.dot(&matrix);
        expected
            .rows_mut()
            .into_iter()
            .for_each(|mut row| row.iter_mut().zip(&bias).for_each(|(y, &b)| *y += b));
        let near = |found: Array2<F>, expected: Array2<F>| {
            assert_eq!(found.dim(), expected.dim());
            let near = |(a, b): (&F, &F)| (*a - *b).as_f64().abs() <= tolerance * (k + m) as f64;
            assert!(found.iter().zip(&expected).all(near), "{n} {k} {m}");
        };
        near(sparse.apply(x.view(), &bias), expected);
        near(sparse.apply_transposed(d_y.view()), d_y.dot(&matrix.t()));
    }

    proptest! {
        /// With empty rows and columns, over several pieces of rows. Sums of terms of size 1, as of the kernels of few
        /// rows.
        #[test]
        fn products_of_whole_matrices(n in 1usize..300, k in 1usize..50, m in 1usize..50, every in 1usize..100) {
            check::<f32>(n, k, m, every, 1e-6);
            check::<f64>(n, k, m, every, 1e-15);
        }
    }
}
