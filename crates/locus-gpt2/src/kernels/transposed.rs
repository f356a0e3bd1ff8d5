//! Transposed states: the values of one feature in many rows lie side by side, so that a vector holds them.
//!
//! The sparse kernels need this layout: each entry of a matrix that counts is one number times a vector of rows,
//! whatever the pattern of those entries.
//!
//! Dimension letters: `n` rows, `k` features.

use ndarray::{ArrayView2, Axis};

use super::number::Number;

/// Alignment of transposed states in bytes: a cache line, so that no vector lies in two. Measured: loads that cross
/// lines halve the speed of every loop here.
const LINE: usize = 64;
/// Rows (features, on the way back) that are transposed together: a cache line of `f32`.
pub(crate) const TOGETHER: usize = 16;

/// A vector of numbers that begins at a cache line.
pub(crate) struct Aligned<F> {
    entries: Vec<F>,
    first: usize,
}

impl<F: Number> Aligned<F> {
    pub(crate) fn zeros(n: usize) -> Self {
        let spare = LINE / size_of::<F>();
        let mut entries = vec![F::zero(); n + spare];
        let first = entries.as_ptr().align_offset(LINE).min(spare);
        entries.truncate(first + n);
        Aligned { entries, first }
    }
}

impl<F> std::ops::Deref for Aligned<F> {
    type Target = [F];

    fn deref(&self) -> &[F] {
        &self.entries[self.first..]
    }
}

impl<F> std::ops::DerefMut for Aligned<F> {
    fn deref_mut(&mut self) -> &mut [F] {
        &mut self.entries[self.first..]
    }
}

/// A state `[n, k]` as `[k, width]`. The memory is kept from one state to the next.
pub(crate) struct Transposed<F> {
    entries: Aligned<F>,
    width: usize,
}

impl<F: Number> Transposed<F> {
    /// Room for states, empty at first.
    pub(crate) fn new() -> Self {
        Transposed { entries: Aligned::zeros(0), width: 0 }
    }

    /// Transposes a state that has at most `width` rows, each contiguous; zeros fill the rest of the width.
    pub(crate) fn transpose(&mut self, x: ArrayView2<F>, width: usize) {
        let (n, k) = x.dim();
        if self.entries.len() < k * width {
            self.entries = Aligned::zeros(k * width);
        }
        self.width = width;
        let out = &mut self.entries[..k * width];
        for (block, x) in x.axis_chunks_iter(Axis(0), TOGETHER).enumerate() {
            transpose(x, out.chunks_exact_mut(width).map(|out| &mut out[block * TOGETHER..]));
        }
        out.chunks_exact_mut(width).for_each(|out| out[n..].fill(F::zero()));
    }

    /// The values of a feature in all rows.
    #[inline(always)]
    pub(crate) fn feature(&self, k: usize) -> &[F] {
        &self.entries[k * self.width..][..self.width]
    }

    /// The values of all features, one feature after the other.
    #[inline(always)]
    pub(crate) fn features(&self) -> &[F] {
        &self.entries
    }

    /// Number of rows that there is room for.
    pub(crate) fn width(&self) -> usize {
        self.width
    }
}

/// Copies column `j` of `x`, which has at most [`TOGETHER`] rows, into the beginning of slice `j`.
#[inline(always)]
pub(crate) fn transpose<'a, F: Number>(x: ArrayView2<F>, out: impl Iterator<Item = &'a mut [F]>) {
    let k = x.ncols();
    let row = |i: usize| &x.index_axis_move(Axis(0), i).to_slice().expect("rows are contiguous")[..k];
    if x.nrows() == TOGETHER {
        let rows: [&[F]; TOGETHER] = std::array::from_fn(row);
        for (j, out) in (0..k).zip(out) {
            let out: &mut [F; TOGETHER] = (&mut out[..TOGETHER]).try_into().expect("is as long");
            *out = std::array::from_fn(|i| rows[i][j]);
        }
    } else {
        for (j, out) in (0..k).zip(out) {
            out.iter_mut().zip(x.column(j)).for_each(|(out, &x)| *out = x);
        }
    }
}
