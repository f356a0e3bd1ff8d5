//! Gradients at few entries of a matrix.
//!
//! The gradient of entry `(i, j)` of `W` in `y = x W` is the dot product of two columns, `sum over rows of x_i d_y_j`.
//! Where few entries are wanted, such as those whose gates are not saturated, this takes fewer operations than the
//! whole matrix.
//!
//! Dimension letters: `n` rows, `k` inputs, `m` outputs.

use ndarray::{Array2, ArrayView2, Axis};
use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use crate::kernels::gemm::gemm;
use crate::kernels::number::Number;
use crate::kernels::transposed::{TOGETHER, Transposed};

/// Rows that are transposed at a time: so many that 3072 features of them about fill a second-level cache of 2 MB.
const ROWS: usize = 256;
/// The dense product of all gradients is used when more than one in this many entries is wanted. Measured at 64 x 256
/// and at 768 x 3072: a product of two columns runs at half the speed of a product of matrices.
const DENSE_SHARE: usize = 3;
/// Dot products that share the loads of one column.
const DOTS: usize = 4;
/// Multiply-adds in one piece of parallel work.
const PIECE_MULTIPLY_ADDS: usize = 1 << 20;

/// Adds entries of `x^T d_y`, with `x [n, k]` and `d_y [n, m]`, to `sums`: those whose places in the row-major matrix
/// `[k, m]` are `indices`, which ascend. `transposed` is room for the two factors.
///
/// # Panics
/// When there is not one sum for each index.
pub(crate) fn add_gradient_at<F: Number>(
    indices: &[u32],
    x: ArrayView2<F>,
    d_y: ArrayView2<F>,
    transposed: &mut [Transposed<F>; 2],
    sums: &mut [F],
) {
    assert_eq!(sums.len(), indices.len(), "a sum for each index");
    let (k, m) = (x.ncols(), d_y.ncols());
    if indices.len() * DENSE_SHARE > k * m {
        let mut all = Array2::zeros((k, m));
        gemm(F::one(), x.t(), d_y, F::zero(), all.view_mut());
        let all = all.as_slice().expect("fresh arrays are contiguous");
        return sums.iter_mut().zip(indices).for_each(|(sum, &index)| *sum += all[index as usize]);
    }
    let [transposed_x, transposed_d_y] = transposed;
    for (x, d_y) in x.axis_chunks_iter(Axis(0), ROWS).zip(d_y.axis_chunks_iter(Axis(0), ROWS)) {
        let width = x.nrows().next_multiple_of(TOGETHER);
        rayon::join(|| transposed_x.transpose(x, width), || transposed_d_y.transpose(d_y, width));
        let (x, d_y) = (&*transposed_x, &*transposed_d_y);
        let piece = PIECE_MULTIPLY_ADDS.div_ceil(width);
        let pieces = indices.par_chunks(piece).zip(sums.par_chunks_mut(piece));
        pieces.for_each(|(indices, sums)| {
            Arch::new().dispatch(Dots { x, d_y, m, indices, sums });
        });
    }
}

/// Dot products of the columns of `x` and `d_y` that meet at each index.
struct Dots<'a, F> {
    x: &'a Transposed<F>,
    d_y: &'a Transposed<F>,
    m: usize,
    indices: &'a [u32],
    sums: &'a mut [F],
}

impl<F: Number> WithSimd for Dots<'_, F> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let (mut indices, mut sums) = (self.indices, self.sums);
        while let Some(&first) = indices.first() {
            let i = first as usize / self.m;
            let end = ((i + 1) * self.m) as u32;
            let of_row = indices.partition_point(|&index| index < end);
            let (head, tail) = indices.split_at(of_row);
            let (head_sums, tail_sums) = std::mem::take(&mut sums).split_at_mut(of_row);
            (indices, sums) = (tail, tail_sums);
            let x = F::vectors::<S>(self.x.feature(i));
            let d_y = |index: u32| &F::vectors::<S>(self.d_y.feature(index as usize - i * self.m))[..x.len()];
            let (fours, rest) = head.as_chunks::<DOTS>();
            let (sums_of_fours, sums_of_rest) = head_sums.as_chunks_mut::<DOTS>();
            for (indices, sums) in fours.iter().zip(sums_of_fours) {
                add_dots(simd, x, indices.map(d_y), sums);
            }
            for (&index, sum) in rest.iter().zip(sums_of_rest) {
                add_dots(simd, x, [d_y(index)], std::array::from_mut(sum));
            }
        }
    }
}

/// Adds the dot product of `x` and each of some columns to its sum.
#[inline(always)]
fn add_dots<F: Number, S: Simd, const N: usize>(
    simd: S,
    x: &[F::Vector<S>],
    columns: [&[F::Vector<S>]; N],
    sums: &mut [F; N],
) {
    let mut dots = [F::splat(simd, F::zero()); N];
    for v in 0..x.len() {
        for q in 0..N {
            dots[q] = F::fused(simd, x[v], columns[q][v], dots[q]);
        }
    }
    for q in 0..N {
        sums[q] += F::sum_lanes(simd, dots[q]);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check<F: Number>(n: usize, k: usize, m: usize, every: usize, tolerance: f64) {
        let entry = |i: usize, j: usize| F::from_f64(((i * 7919 + j * 104_729) % 1000) as f64 / 500.0 - 1.0);
        let (x, d_y) = (
            Array2::from_shape_fn((n, k), |(i, j)| entry(i, j)),
            Array2::from_shape_fn((n, m), |(i, j)| entry(j, i)),
        );
        let indices: Vec<u32> =
            (0..k * m).filter(|index| index * 31 % every == 0).map(|index| index as u32).collect();
        let mut sums = vec![F::one(); indices.len()];
        let mut room = [Transposed::new(), Transposed::new()];
        add_gradient_at(&indices, x.view(), d_y.view(), &mut room, &mut sums);
        let all = x.t().dot(&d_y);
        for (sum, &index) in sums.iter().zip(&indices) {
            let expected = all[[index as usize / m, index as usize % m]] + F::one();
            assert!((*sum - expected).as_f64().abs() <= tolerance * n as f64, "{sum} against {expected}");
        }
    }

    proptest! {
        /// From all to few of the entries, over several pieces of rows. Sums of terms of size 1, as of the kernels of
        /// few rows.
        #[test]
        fn entries_of_the_product(n in 1usize..600, k in 1usize..40, m in 1usize..40, every in 1usize..40) {
            check::<f32>(n, k, m, every, 1e-6);
            check::<f64>(n, k, m, every, 1e-15);
        }
    }
}
