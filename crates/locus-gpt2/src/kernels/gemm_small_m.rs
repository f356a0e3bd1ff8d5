//! GEMM for small `m`: products of a few rows with a large matrix, which is read where it lies.
//!
//! A BLAS first copies both factors into the layout of its kernels. With many rows the copy costs nothing to speak of;
//! with 16 it is two thirds of the work, because it walks down columns while memory is fast along rows. The two kernels
//! here read the matrix once, along contiguous memory: [`Tiles`] keeps a small tile of it in registers while all rows
//! of the other factor pass, [`Dots`] forms dot products along its columns.
//!
//! Dimension letters: `m` rows (few), `k` inner, `n` columns.

use ndarray::linalg::general_mat_mul;
use ndarray::{ArrayView2, ArrayViewMut2, s};
use pulp::{Arch, Simd, WithSimd};

use super::number::Number;
use super::simd::lanes;
use super::transposed::Aligned;

/// Most rows `m` for which a matrix `[k, n]` with contiguous rows is read in place. Measured at GPT-2 small's shapes:
/// 0.7 of the time of a BLAS at 16 rows, 0.8 at 65, equal at 192.
const FEW_ROWS: usize = 128;
/// Most rows `m` for which a matrix with contiguous columns is read in place; a BLAS copies such a matrix along them.
/// Measured: 0.7 of the time of a BLAS at 16 rows, 0.8 at 24.
const FEW_ROWS_TRANSPOSED: usize = 24;
/// Fewest entries of a matrix that is read in place: smaller ones (a megabyte in `f32`) stay in the second-level cache
/// whichever way they are read.
const LARGE: usize = 1 << 18;

/// Columns of a tile, counted in vectors.
const TILE_COLUMNS: usize = 3;
/// Columns whose dot products run side by side.
const DOTS: usize = 6;

/// `c <- alpha a b + beta c` on one thread, by whichever way is fastest for the shape.
pub(crate) fn product<F: Number>(
    alpha: F,
    a: ArrayView2<F>,
    b: ArrayView2<F>,
    beta: F,
    mut c: ArrayViewMut2<F>,
) {
    let along_rows = |x: &ArrayView2<F>| x.strides()[1] == 1;
    let m = a.nrows();
    let few = m <= FEW_ROWS && b.len() >= LARGE && along_rows(&a) && c.strides()[1] == 1;
    if few && along_rows(&b) {
        Arch::new().dispatch(Tiles(Product { alpha, a, b, beta, c }));
    } else if few && m <= FEW_ROWS_TRANSPOSED && along_rows(&b.t()) {
        Arch::new().dispatch(Dots(Product { alpha, a, b, beta, c }));
    } else {
        general_mat_mul(alpha, &a, &b, beta, &mut c);
    }
}

/// Operands of `c <- alpha a b + beta c`; rows of `a` and `c` are contiguous, and rows or columns of `b`.
struct Product<'a, F> {
    alpha: F,
    a: ArrayView2<'a, F>,
    b: ArrayView2<'a, F>,
    beta: F,
    c: ArrayViewMut2<'a, F>,
}

/// The kernel for a `b` with contiguous rows.
struct Tiles<'a, F>(Product<'a, F>);

impl<F: Number> WithSimd for Tiles<'_, F> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        // A tile, the sums of one row and a broadcast entry fill the registers.
        match S::REGISTER_COUNT {
            32.. => self.0.tiles::<S, 8>(simd),
            _ => self.0.tiles::<S, 4>(simd),
        }
    }
}

/// The kernel for a `b` with contiguous columns.
struct Dots<'a, F>(Product<'a, F>);

impl<F: Number> WithSimd for Dots<'_, F> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        self.0.all_dots(simd);
    }
}

impl<F: Number> Product<'_, F> {
    /// Keeps a tile of `b`, `K` rows high, in registers while every row of `c` passes.
    #[inline(always)]
    fn tiles<S: Simd, const K: usize>(mut self, simd: S) {
        let (m, n) = self.c.dim();
        let vectors = n / lanes::<F, S>() / TILE_COLUMNS * TILE_COLUMNS;
        let (columns, inner) = (vectors * lanes::<F, S>(), self.b.nrows() / K * K);
        // The sums of all rows, side by side: rows of `c` itself may lie so that they push each other out of the cache.
        let sums = &mut *Aligned::zeros(m * columns);
        let mut factors = vec![[F::zero(); K]; m];
        for k in (0..inner).step_by(K) {
            let b: [&[F::Vector<S>]; K] = std::array::from_fn(|i| {
                let row = self.b.row(k + i).to_slice().expect("rows are contiguous");
                &F::vectors::<S>(row)[..vectors]
            });
            for (factors, a) in factors.iter_mut().zip(self.a.rows()) {
                factors.copy_from_slice(&a.to_slice().expect("rows are contiguous")[k..k + K]);
            }
            for j in (0..vectors).step_by(TILE_COLUMNS) {
                let tile: [[F::Vector<S>; TILE_COLUMNS]; K] =
                    std::array::from_fn(|i| std::array::from_fn(|v| b[i][j + v]));
                let rows = F::vectors_mut::<S>(sums).chunks_exact_mut(vectors);
                for (sums, factors) in rows.zip(&factors) {
                    let sums = &mut sums[j..j + TILE_COLUMNS];
                    let mut sum: [F::Vector<S>; TILE_COLUMNS] = std::array::from_fn(|v| sums[v]);
                    for i in 0..K {
                        let factor = F::splat(simd, factors[i]);
                        for v in 0..TILE_COLUMNS {
                            sum[v] = F::fused(simd, factor, tile[i][v], sum[v]);
                        }
                    }
                    sums.copy_from_slice(&sum);
                }
            }
        }
        let (alpha, beta) = (self.alpha, self.beta);
        for (mut c, sums) in self.c.rows_mut().into_iter().zip(sums.chunks_exact(columns.max(1))) {
            let c = &mut c.as_slice_mut().expect("rows are contiguous")[..columns];
            c.iter_mut().zip(sums).for_each(|(c, &sum)| *c = alpha * sum + scaled(beta, *c));
        }
        if inner < self.b.nrows() {
            let (a, b) = (self.a.slice(s![.., inner..]), self.b.slice(s![inner.., ..columns]));
            general_mat_mul(alpha, &a, &b, F::one(), &mut self.c.slice_mut(s![.., ..columns]));
        }
        self.rest_of_columns(columns);
    }

    /// Forms every entry as a dot product along both factors.
    #[inline(always)]
    fn all_dots<S: Simd>(mut self, simd: S) {
        let (m, n) = self.c.dim();
        let whole = n - n % DOTS;
        for j in (0..whole).step_by(DOTS) {
            let mut i = 0;
            while i < m {
                i += match (m - i, S::REGISTER_COUNT) {
                    (4.., 32..) => self.dots::<S, 4>(simd, i, j),
                    (2.., _) => self.dots::<S, 2>(simd, i, j),
                    _ => self.dots::<S, 1>(simd, i, j),
                };
            }
        }
        self.rest_of_columns(whole);
    }

    /// Writes the entries `[i..i + R, j..j + DOTS]` and returns `R`.
    #[inline(always)]
    fn dots<S: Simd, const R: usize>(&mut self, simd: S, i: usize, j: usize) -> usize {
        let rows: [&[F]; R] =
            std::array::from_fn(|r| self.a.row(i + r).to_slice().expect("rows are contiguous"));
        let columns: [&[F]; DOTS] =
            std::array::from_fn(|q| self.b.column(j + q).to_slice().expect("columns are contiguous"));
        let vectors = F::vectors::<S>(rows[0]).len();
        let (a, b) =
            (rows.map(|x| &F::vectors::<S>(x)[..vectors]), columns.map(|x| &F::vectors::<S>(x)[..vectors]));
        let mut sums = [[F::splat(simd, F::zero()); DOTS]; R];
        for k in 0..vectors {
            let b: [F::Vector<S>; DOTS] = std::array::from_fn(|q| b[q][k]);
            for r in 0..R {
                let a = a[r][k];
                for q in 0..DOTS {
                    sums[r][q] = F::fused(simd, a, b[q], sums[r][q]);
                }
            }
        }
        let whole = vectors * lanes::<F, S>();
        for r in 0..R {
            for q in 0..DOTS {
                let tail = rows[r][whole..].iter().zip(&columns[q][whole..]).map(|(&a, &b)| a * b);
                let dot = F::sum_lanes(simd, sums[r][q]) + tail.sum::<F>();
                let c = &mut self.c[[i + r, j + q]];
                *c = self.alpha * dot + scaled(self.beta, *c);
            }
        }
        R
    }

    /// Leaves the columns from `first` on, too few for the kernel, to the BLAS.
    fn rest_of_columns(&mut self, first: usize) {
        if first < self.c.ncols() {
            let (b, mut c) = (self.b.slice(s![.., first..]), self.c.slice_mut(s![.., first..]));
            general_mat_mul(self.alpha, &self.a, &b, self.beta, &mut c);
        }
    }
}

/// Product `beta c`, which is zero for a `beta` of zero even when `c` is not a number.
#[inline(always)]
fn scaled<F: Number>(beta: F, c: F) -> F {
    if beta == F::zero() { F::zero() } else { beta * c }
}

#[cfg(test)]
mod tests {
    use ndarray::Array2;
    use proptest::prelude::*;

    use super::*;

    /// Every kernel on every width of vectors that this machine has, against the BLAS.
    fn check<F: Number>(m: usize, k: usize, n: usize, beta: f64, tolerance: f64) {
        let entry = |i: usize, j: usize| F::from_f64(((i * 7919 + j * 104_729) % 1000) as f64 / 500.0 - 1.0);
        // Parts of larger arrays: rows with gaps between them.
        let wide = |rows, columns| Array2::from_shape_fn((rows, columns + 5), |(i, j)| entry(i, j));
        let (a, b, bt, c) = (wide(m, k), wide(k, n), wide(n, k), wide(m, n));
        let (a, b) = (a.slice(s![.., ..k]), b.slice(s![.., ..n]));
        let bt = bt.slice(s![.., 2..k + 2]).reversed_axes();
        let (alpha, beta) = (F::from_f64(0.5), F::from_f64(beta));
        let mut expected = [c.clone(), c.clone()];
        for (b, expected) in [b, bt].into_iter().zip(&mut expected) {
            general_mat_mul(alpha, &a, &b, beta, &mut expected.slice_mut(s![.., 1..n + 1]));
        }
        let run = |on: &dyn Fn(Product<F>)| {
            for (b, expected) in [b, bt].into_iter().zip(&expected) {
                let mut found = c.clone();
                on(Product { alpha, a, b, beta, c: found.slice_mut(s![.., 1..n + 1]) });
                let near = |x: &F| x.as_f64().abs() <= tolerance * k as f64;
                assert!((&found - expected).iter().all(near), "{m} {k} {n}, strides {:?}", b.strides());
            }
        };
        run(&|product| on(pulp::Scalar, product));
        #[cfg(target_arch = "x86_64")]
        {
            use pulp::x86::{V3, V4};
            V3::try_new().into_iter().for_each(|simd| run(&|product| on(simd, product)));
            V4::try_new().into_iter().for_each(|simd| run(&|product| on(simd, product)));
        }
    }

    fn on<F: Number>(simd: impl Simd, product: Product<F>) {
        if product.b.strides()[1] == 1 {
            simd.vectorize(Tiles(product));
        } else {
            simd.vectorize(Dots(product));
        }
    }

    proptest! {
        /// Sums of at most 100 terms of size 1: rounding of each is half a unit in the last place of the running sum.
        #[test]
        fn kernels_agree_with_the_blas(m in 1usize..20, k in 1usize..100, n in 1usize..200, beta in 0usize..3) {
            check::<f32>(m, k, n, beta as f64 / 2.0, 1e-6);
            check::<f64>(m, k, n, beta as f64 / 2.0, 1e-15);
        }
    }

    /// A product that overwrites does not read what it overwrites.
    #[test]
    fn nothing_is_read_with_beta_zero() {
        let (a, b) = (Array2::<f32>::ones((3, 600)), Array2::<f32>::ones((600, 600)));
        for b in [b.view(), b.t()] {
            let mut c = Array2::from_elem((3, 600), f32::NAN);
            product(1.0, a.view(), b, 0.0, c.view_mut());
            assert!(c.iter().all(|&c| c == 600.0));
        }
    }
}
