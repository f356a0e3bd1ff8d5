//! Products with matrices of which few entries are not zero, such as those of a circuit.
//!
//! Rows of the state are turned to lie side by side, and each entry that counts is one number against a vector of them. So
//! the pattern of the entries does not matter, and work is in proportion to their number.
//!
//! Dimension letters: `n` rows, `k` inputs, `m` outputs.

use ndarray::{Array2, ArrayView2, ArrayViewMut2, Axis, s};
use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use crate::linalg::{column_chunks, written_zeros};
use crate::scalar::Scalar;
use crate::turned::{Aligned, TOGETHER, Turned, turn};

/// Of this share of the entries on, one over it, a product of whole matrices is less work.
const MANY: usize = 3;
/// Rows that are turned at a time: 64 inputs of them are in the first-level cache, 3072 in the second.
const ROWS: usize = 128;
/// Vectors of sums that are in registers.
const SUMS: usize = 8;
/// Multiply-adds in one piece of parallel work.
const PIECE_MULTIPLY_ADDS: usize = 1 << 20;

/// The entries of a matrix `[k, m]` that are not zero.
#[derive(Debug)]
pub(crate) struct Thin<F> {
    by_output: Lists<F>,
    by_input: Lists<F>,
}

/// They, by one of the matrix's sides.
#[derive(Debug)]
struct Lists<F> {
    /// Where each list begins, and where the last one ends.
    starts: Vec<u32>,
    /// Places on the other side, ascending in each list.
    places: Vec<u16>,
    weights: Vec<F>,
}

impl<F: Scalar> Thin<F> {
    /// Finds them; `None` when they are many.
    pub(crate) fn of(matrix: ArrayView2<F>) -> Option<Self> {
        let (k, m) = matrix.dim();
        let entries = matrix.to_slice()?;
        let count = entries.iter().filter(|&&w| w != F::zero()).count();
        if count * MANY > k * m || k.max(m) > usize::from(u16::MAX) {
            return None;
        }
        // Written always, kept when it counts: a branch would be guessed wrong as often as an entry counts.
        let (mut places, mut weights) = (vec![0; count + 1], vec![F::zero(); count + 1]);
        let mut found = 0;
        let mut starts = vec![0];
        let mut in_column = vec![0; m + 1];
        for row in entries.chunks_exact(m) {
            for (j, &w) in row.iter().enumerate() {
                (places[found], weights[found]) = (j as u16, w);
                let counts = u32::from(w != F::zero());
                in_column[j + 1] += counts;
                found += counts as usize;
            }
            starts.push(found as u32);
        }
        places.truncate(count);
        weights.truncate(count);
        let by_input = Lists { starts, places, weights };
        for j in 0..m {
            in_column[j + 1] += in_column[j];
        }
        Some(Thin { by_output: by_input.by_the_other_side(in_column), by_input })
    }

    /// `x W + bias` with `x [n, k]`.
    pub(crate) fn apply(&self, x: ArrayView2<F>, bias: &[F]) -> Array2<F> {
        self.by_output.products(x, bias)
    }

    /// `d_y W^T` with `d_y [n, m]`.
    pub(crate) fn apply_transposed(&self, d_y: ArrayView2<F>) -> Array2<F> {
        self.by_input.products(d_y, &vec![F::zero(); self.by_input.len()])
    }
}

impl<F: Scalar> Lists<F> {
    fn len(&self) -> usize {
        self.starts.len() - 1
    }

    fn list(&self, i: usize) -> (&[u16], &[F]) {
        let own = self.starts[i] as usize..self.starts[i + 1] as usize;
        (&self.places[own.clone()], &self.weights[own])
    }

    fn by_the_other_side(&self, starts: Vec<u32>) -> Lists<F> {
        let mut next = starts.clone();
        let (mut places, mut weights) = (vec![0; self.places.len()], vec![F::zero(); self.places.len()]);
        for i in 0..self.len() {
            let (own_places, own_weights) = self.list(i);
            for (&j, &w) in own_places.iter().zip(own_weights) {
                let at = next[usize::from(j)] as usize;
                (places[at], weights[at]) = (i as u16, w);
                next[usize::from(j)] += 1;
            }
        }
        Lists { starts, places, weights }
    }

    /// For each list a column: its first number, and the weighted sum of the columns of `x` that it names.
    fn products(&self, x: ArrayView2<F>, first: &[F]) -> Array2<F> {
        let mut y = written_zeros(x.nrows(), self.len());
        let mut turned = Turned::new();
        for (x, y) in x.axis_chunks_iter(Axis(0), ROWS).zip(y.axis_chunks_iter_mut(Axis(0), ROWS)) {
            let width = x.nrows().next_power_of_two().max(TOGETHER);
            turned.turn(x, width);
            let lists = PIECE_MULTIPLY_ADDS * self.len() / (width * self.places.len()).max(1);
            let lists = lists.next_multiple_of(TOGETHER).max(TOGETHER);
            let pieces: Vec<_> = column_chunks(y, lists).enumerate().collect();
            pieces.into_par_iter().for_each(|(piece, y)| {
                let list = piece * lists;
                Arch::new().dispatch(Columns { lists: self, first, list, x: &turned, y });
            });
        }
        y
    }
}

/// Some of the columns, from that of number `list` on.
struct Columns<'a, F> {
    lists: &'a Lists<F>,
    first: &'a [F],
    list: usize,
    x: &'a Turned<F>,
    y: ArrayViewMut2<'a, F>,
}

impl<F: Scalar> WithSimd for Columns<'_, F> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Columns { lists, first, list, x, mut y } = self;
        let width = x.width();
        let mut columns = Aligned::zeros(TOGETHER * width);
        let mut next = list..;
        for mut y in y.axis_chunks_iter_mut(Axis(1), TOGETHER) {
            for (column, list) in columns.chunks_exact_mut(width).take(y.ncols()).zip(&mut next) {
                let (first, list) = (F::splat(simd, first[list]), lists.list(list));
                match F::vectors::<S>(column).len() {
                    1 => weighted_sum::<F, S, 1>(simd, first, list, x, column),
                    2 => weighted_sum::<F, S, 2>(simd, first, list, x, column),
                    4 => weighted_sum::<F, S, 4>(simd, first, list, x, column),
                    _ => weighted_sum::<F, S, SUMS>(simd, first, list, x, column),
                }
            }
            let columns = ArrayView2::from_shape((TOGETHER, width), &columns).expect("as many as made");
            let columns = columns.slice_move(s![..y.ncols(), ..y.nrows()]);
            turn(columns, y.rows_mut().into_iter().map(|row| row.into_slice().expect("rows are contiguous")));
        }
    }
}

/// The weighted sum of the columns of `x` in a list, `V` vectors at a time.
#[inline(always)]
fn weighted_sum<F: Scalar, S: Simd, const V: usize>(
    simd: S,
    first: F::Vector<S>,
    (places, weights): (&[u16], &[F]),
    x: &Turned<F>,
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
    fn check<F: Scalar>(n: usize, k: usize, m: usize, every: usize, tolerance: f64) {
        let entry = |i: usize, j: usize| F::of(((i * 7919 + j * 104_729) % 1000) as f64 / 500.0 - 1.0);
        let kept = |i: usize, j: usize| {
            if ((i * m + j) * 31).is_multiple_of(every) { entry(i, j) } else { F::zero() }
        };
        let matrix = Array2::from_shape_fn((k, m), |(i, j)| kept(i, j));
        let Some(thin) = Thin::of(matrix.view()) else {
            let count = matrix.iter().filter(|&&w| w != F::zero()).count();
            assert!(count * MANY > k * m, "{count} of {k} x {m} are few");
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
            let near = |(a, b): (&F, &F)| (*a - *b).wide().abs() <= tolerance * (k + m) as f64;
            assert!(found.iter().zip(&expected).all(near), "{n} {k} {m}");
        };
        near(thin.apply(x.view(), &bias), expected);
        near(thin.apply_transposed(d_y.view()), d_y.dot(&matrix.t()));
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
