//! Cuts of matrices, states and slices into parts that threads write to side by side.

use ndarray::{ArrayView2, ArrayViewMut2, Axis};

/// Cuts a matrix into runs of at most `size` columns.
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
        let (head, tail) = c.split_at(Axis(1), size);
        rest = Some(tail);
        Some(head)
    })
}

/// Cuts a slice into pieces of the given lengths.
///
/// # Panics
/// When the slice is shorter than the pieces are together.
pub fn split_lengths<T>(x: &mut [T], lengths: impl Iterator<Item = usize>) -> impl Iterator<Item = &mut [T]> {
    let mut rest = x;
    lengths.map(move |n| {
        let (head, tail) = std::mem::take(&mut rest).split_at_mut(n);
        rest = tail;
        head
    })
}

/// Cuts a state into runs of rows of the given lengths.
///
/// # Panics
/// When the state has fewer rows than the runs are long together.
pub fn split_rows<F>(
    state: ArrayViewMut2<'_, F>,
    counts: impl Iterator<Item = usize>,
) -> Vec<ArrayViewMut2<'_, F>> {
    let mut rest = Some(state);
    let split = |count| {
        let (head, tail) = rest.take().expect("is put back").split_at(Axis(0), count);
        rest = Some(tail);
        head
    };
    counts.map(split).collect()
}

/// [`split_rows`] of a state that is only read.
///
/// # Panics
/// As [`split_rows`].
pub fn split_rows_view<F>(
    state: ArrayView2<'_, F>,
    counts: impl Iterator<Item = usize>,
) -> Vec<ArrayView2<'_, F>> {
    let mut rest = state;
    let split = |count| {
        let (head, tail) = rest.split_at(Axis(0), count);
        rest = tail;
        head
    };
    counts.map(split).collect()
}
