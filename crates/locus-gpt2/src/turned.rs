//! States turned on their side: what one feature is in many rows lies side by side, so that a vector holds it.
//!
//! Products that use few entries of a matrix run over rows: every entry that counts is one number against a vector of them,
//! whatever the pattern of those entries.
//!
//! Dimension letters: `n` rows, `k` features.

use ndarray::{ArrayView2, ArrayViewMut2, Axis, s};
use rayon::prelude::*;

use crate::scalar::Scalar;

/// Bytes to which they are aligned: a line of the cache, so that no vector lies in two. Measured: a load that crosses lines
/// halves the speed of every loop here.
const LINE: usize = 64;
/// Rows, or features on the way back, that are turned together: a line of `f32`.
pub(crate) const TOGETHER: usize = 16;
/// Entries in one piece of parallel work.
const PIECE_ENTRIES: usize = 1 << 16;

/// Numbers that begin at a line of the cache.
pub(crate) struct Aligned<F> {
    entries: Vec<F>,
    first: usize,
    len: usize,
}

impl<F: Scalar> Aligned<F> {
    pub(crate) fn zeros(len: usize) -> Self {
        let spare = LINE / size_of::<F>();
        let entries = vec![F::zero(); len + spare];
        let first = entries.as_ptr().align_offset(LINE).min(spare);
        Aligned { entries, first, len }
    }
}

impl<F> std::ops::Deref for Aligned<F> {
    type Target = [F];

    fn deref(&self) -> &[F] {
        &self.entries[self.first..][..self.len]
    }
}

impl<F> std::ops::DerefMut for Aligned<F> {
    fn deref_mut(&mut self) -> &mut [F] {
        &mut self.entries[self.first..][..self.len]
    }
}

/// A state `[n, k]` as `[k, width]`; beyond the `n` rows are zeros.
pub(crate) struct Turned<F> {
    entries: Aligned<F>,
    width: usize,
}

impl<F: Scalar> Turned<F> {
    /// Zeros.
    pub(crate) fn zeros(features: usize, width: usize) -> Self {
        Turned { entries: Aligned::zeros(features * width), width }
    }

    /// Turns a state with contiguous rows, of which there are at most `width`, a multiple of [`TOGETHER`].
    pub(crate) fn of(x: ArrayView2<F>, width: usize) -> Self {
        let mut turned = Turned::zeros(x.ncols(), width);
        let features = PIECE_ENTRIES.div_ceil(width);
        let pieces = turned.entries.par_chunks_mut(features * width);
        pieces.zip(x.axis_chunks_iter(Axis(1), features)).for_each(|(out, x)| {
            for (block, rows) in x.axis_chunks_iter(Axis(0), TOGETHER).enumerate() {
                let out = out.chunks_exact_mut(width).map(|out| &mut out[block * TOGETHER..][..TOGETHER]);
                turn(rows, out);
            }
        });
        turned
    }

    /// What a feature is in all rows.
    #[inline(always)]
    pub(crate) fn feature(&self, k: usize) -> &[F] {
        &self.entries[k * self.width..][..self.width]
    }

    /// All features, one after the other.
    pub(crate) fn features(&self) -> &[F] {
        &self.entries
    }

    /// The same, to write to.
    pub(crate) fn features_mut(&mut self) -> &mut [F] {
        &mut self.entries
    }

    /// Turns it back into `x [n, k]`, whose rows are contiguous.
    pub(crate) fn turn_back(&self, mut x: ArrayViewMut2<F>) {
        let all = self.features();
        let features = ArrayView2::from_shape((x.ncols(), self.width), all).expect("as many as made");
        let features = features.slice_move(s![.., ..x.nrows()]);
        let blocks = x.axis_chunks_iter_mut(Axis(1), TOGETHER);
        for (features, mut x) in features.axis_chunks_iter(Axis(0), TOGETHER).zip(blocks) {
            let rows = x.rows_mut().into_iter().map(|row| row.into_slice().expect("rows are contiguous"));
            turn(features, rows);
        }
    }
}

/// Column `j` of `x`, which has at most [`TOGETHER`] rows, into the beginning of the `j`th slice.
fn turn<'a, F: Scalar>(x: ArrayView2<F>, out: impl Iterator<Item = &'a mut [F]>) {
    let row = |i: usize| x.row(i).to_slice().expect("rows are contiguous");
    if x.nrows() == TOGETHER {
        let rows: [&[F]; TOGETHER] = std::array::from_fn(|i| row(i));
        for (j, out) in out.enumerate() {
            let out: &mut [F; TOGETHER] = out.try_into().expect("so many rows");
            *out = std::array::from_fn(|i| rows[i][j]);
        }
    } else {
        for (j, out) in out.enumerate() {
            out.iter_mut().zip(x.column(j)).for_each(|(out, &x)| *out = x);
        }
    }
}
