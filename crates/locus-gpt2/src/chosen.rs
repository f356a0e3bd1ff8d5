//! Gradients of chosen scalars of the blocks, and of those alone.
//!
//! The gradient of entry `(i, j)` of a matrix is the product of two columns, `sum over rows of x_i d_y_j`. Where few entries
//! are wanted, as where a gate in front of each is flat for all but some of them, that is less work than the matrix of all.
//!
//! Dimension letters: `n` rows, `k` inputs, `m` outputs.

use ndarray::{Array2, ArrayView2, ArrayViewMut2, Axis};
use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use crate::batch::Batch;
use crate::config::Config;
use crate::forward::{Site, Tap, Trace};
use crate::linalg::gemm;
use crate::params::{BlockParam, ParamId, Params};
use crate::scalar::Scalar;
use crate::turned::{TOGETHER, Turned};

/// Rows that are turned at a time: with as many, 3072 features of them stay in a second-level cache of 2 MB or nearly so.
const ROWS: usize = 256;
/// Of this share of a matrix's entries on, one over it, the matrix of all gradients is less work. Measured at 64 x 256 and
/// at 768 x 3072: a product of two columns runs at half the speed of a product of matrices.
const MANY: usize = 3;
/// Products of columns that share the loads of one of them.
const DOTS: usize = 4;
/// Multiply-adds in one piece of parallel work.
const PIECE_MULTIPLY_ADDS: usize = 1 << 20;

/// Some scalars of one block parameter.
#[derive(Clone, Debug)]
pub struct Chosen {
    id: ParamId,
    indices: Vec<u32>,
}

impl Chosen {
    /// Scalars by their places in the parameter, which ascend.
    ///
    /// # Panics
    /// When they do not ascend, the parameter has fewer, or it is not a block's.
    pub fn new(config: &Config, id: ParamId, indices: Vec<u32>) -> Self {
        assert!(matches!(id, ParamId::Block(..)), "{id} is not a parameter of a block");
        assert!(indices.is_sorted_by(|a, b| a < b), "scalars of {id} that do not ascend");
        let last = indices.last().map_or(0, |&last| last as usize);
        assert!(last < id.len(config), "scalar {last} of {id}, which has {}", id.len(config));
        Chosen { id, indices }
    }

    /// Their places in the parameter, ascending.
    pub fn indices(&self) -> &[u32] {
        &self.indices
    }
}

impl<F: Scalar> Params<F> {
    /// [`Params::backward`] to the chosen scalars of the blocks: adds each one's gradient to its place in `sums`.
    ///
    /// # Panics
    /// When `sums` do not match.
    pub fn backward_to_chosen(
        &self,
        batch: &Batch,
        trace: &Trace<F>,
        d_hidden: ArrayView2<F>,
        chosen: &[Chosen],
        sums: &mut [Vec<F>],
    ) {
        assert_eq!(chosen.len(), sums.len(), "a list of sums for each parameter");
        let vectors = chosen.iter().map(|chosen| chosen.id).filter(|id| id.is_vector());
        let mut of_vectors = Params::zeros(self.config(), vectors);
        let turned = [Turned::new(), Turned::new()];
        let mut matrices = Matrices { trace, chosen, sums, turned };
        self.backward(batch, trace, d_hidden, &mut of_vectors, &mut matrices);
        for (chosen, sums) in chosen.iter().zip(sums).filter(|(chosen, _)| chosen.id.is_vector()) {
            chosen.add(of_vectors.get(chosen.id), sums);
        }
    }
}

/// Takes from a backward pass what chosen entries of matrices need.
struct Matrices<'a, F> {
    trace: &'a Trace<F>,
    chosen: &'a [Chosen],
    sums: &'a mut [Vec<F>],
    /// Places for the two factors of a product.
    turned: [Turned<F>; 2],
}

impl<F: Scalar> Tap<F> for Matrices<'_, F> {
    fn visit(&mut self, layer: usize, site: Site, d_y: ArrayViewMut2<F>) {
        let block = &self.trace.blocks[layer - self.trace.first_layer];
        let (weight, x) = match site {
            Site::Qkv => (BlockParam::AttnInWeight, &block.ln_1_out),
            Site::AttnOut => (BlockParam::AttnOutWeight, &block.head_out),
            Site::MlpPre => (BlockParam::MlpInWeight, &block.ln_2_out),
            Site::MlpOut => (BlockParam::MlpOutWeight, &block.mlp_key),
            _ => return,
        };
        let id = ParamId::Block(layer, weight);
        for (chosen, sums) in self.chosen.iter().zip(&mut *self.sums).filter(|(chosen, _)| chosen.id == id) {
            chosen.add_products(x.view(), d_y.view(), &mut self.turned, sums);
        }
    }
}

impl Chosen {
    /// Adds the chosen ones of all gradients.
    fn add<F: Scalar>(&self, gradients: &[F], sums: &mut [F]) {
        assert_eq!(sums.len(), self.indices.len(), "a sum for each chosen scalar of {}", self.id);
        for (sum, &index) in sums.iter_mut().zip(&self.indices) {
            *sum += gradients[index as usize];
        }
    }

    /// Adds entries of `x^T d_y` with `x [n, k]`, `d_y [n, m]`.
    fn add_products<F: Scalar>(
        &self,
        x: ArrayView2<F>,
        d_y: ArrayView2<F>,
        [turned_x, turned_d_y]: &mut [Turned<F>; 2],
        sums: &mut [F],
    ) {
        let (k, m) = (x.ncols(), d_y.ncols());
        if self.indices.len() * MANY > k * m {
            let mut all = Array2::zeros((k, m));
            gemm(F::one(), x.t(), d_y, F::zero(), all.view_mut());
            return self.add(all.as_slice().expect("fresh arrays are contiguous"), sums);
        }
        assert_eq!(sums.len(), self.indices.len(), "a sum for each chosen scalar of {}", self.id);
        for (x, d_y) in x.axis_chunks_iter(Axis(0), ROWS).zip(d_y.axis_chunks_iter(Axis(0), ROWS)) {
            let width = x.nrows().next_multiple_of(TOGETHER);
            rayon::join(|| turned_x.turn(x, width), || turned_d_y.turn(d_y, width));
            let (x, d_y) = (&*turned_x, &*turned_d_y);
            let piece = PIECE_MULTIPLY_ADDS.div_ceil(width);
            let pieces = self.indices.par_chunks(piece).zip(sums.par_chunks_mut(piece));
            pieces.for_each(|(indices, sums)| {
                Arch::new().dispatch(Dots { x, d_y, m, indices, sums });
            });
        }
    }
}

/// Products of columns: those of `x` and `d_y` that meet at each index.
struct Dots<'a, F> {
    x: &'a Turned<F>,
    d_y: &'a Turned<F>,
    m: usize,
    indices: &'a [u32],
    sums: &'a mut [F],
}

impl<F: Scalar> WithSimd for Dots<'_, F> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let (mut indices, mut sums) = (self.indices, self.sums);
        while let Some(&first) = indices.first() {
            let i = first as usize / self.m;
            let end = ((i + 1) * self.m) as u32;
            let of_row = indices.partition_point(|&index| index < end);
            let (own, others) = indices.split_at(of_row);
            let (own_sums, other_sums) = std::mem::take(&mut sums).split_at_mut(of_row);
            (indices, sums) = (others, other_sums);
            let x = F::vectors::<S>(self.x.feature(i));
            let d_y = |index: u32| &F::vectors::<S>(self.d_y.feature(index as usize - i * self.m))[..x.len()];
            let (fours, rest) = own.as_chunks::<DOTS>();
            let (sums_of_fours, sums_of_rest) = own_sums.as_chunks_mut::<DOTS>();
            for (indices, sums) in fours.iter().zip(sums_of_fours) {
                add_dots(simd, x, indices.map(d_y), sums);
            }
            for (&index, sum) in rest.iter().zip(sums_of_rest) {
                add_dots(simd, x, [d_y(index)], std::array::from_mut(sum));
            }
        }
    }
}

/// Adds the product of `x` and each of some columns.
#[inline(always)]
fn add_dots<F: Scalar, S: Simd, const N: usize>(
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

    fn check<F: Scalar>(n: usize, k: usize, m: usize, every: usize, tolerance: f64) {
        let entry = |i: usize, j: usize| F::of(((i * 7919 + j * 104_729) % 1000) as f64 / 500.0 - 1.0);
        let (x, d_y) = (
            Array2::from_shape_fn((n, k), |(i, j)| entry(i, j)),
            Array2::from_shape_fn((n, m), |(i, j)| entry(j, i)),
        );
        let indices: Vec<u32> =
            (0..k * m).filter(|index| index * 31 % every == 0).map(|index| index as u32).collect();
        let chosen = Chosen { id: ParamId::FinalNormBias, indices };
        let mut sums = vec![F::one(); chosen.indices.len()];
        chosen.add_products(x.view(), d_y.view(), &mut [Turned::new(), Turned::new()], &mut sums);
        let all = x.t().dot(&d_y);
        for (sum, &index) in sums.iter().zip(&chosen.indices) {
            let expected = all[[index as usize / m, index as usize % m]] + F::one();
            assert!((*sum - expected).wide().abs() <= tolerance * n as f64, "{sum} against {expected}");
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
