//! Products with a matrix `V [i, o]` of which only listed entries are not zero (blocked compressed sparse rows).
//!
//! Dimensions: `i` in, `o` out, `t` tokens. The rows of one request are interleaved ([`PackedRows`]), so that each
//! entry costs a few short vector operations. Entries are listed one block of columns after the other, so that the
//! memory which a block writes to stays in the first-level cache.

use std::ops::Range;

use locus_gpt2::Scalar;
use ndarray::{ArrayView2, ArrayViewMut2};

/// Rows that are interleaved: the length of one vector.
const LANES: usize = 16;
/// Columns of a block: 32 KiB of interleaved rows in `f32`.
const BLOCK: usize = 512;

/// A state `[t, width]` in blocks of [`LANES`] interleaved rows: column by column, the values of all rows of the block.
/// The last block is padded with zeros.
#[derive(Clone, Debug)]
pub(super) struct PackedRows<F> {
    width: usize,
    values: Vec<[F; LANES]>,
}

impl<F: Scalar> PackedRows<F> {
    fn zeros(blocks: usize, width: usize) -> Self {
        PackedRows { width, values: vec![[F::zero(); LANES]; blocks * width] }
    }

    pub fn new(x: ArrayView2<F>) -> Self {
        let mut lanes = PackedRows::zeros(x.nrows().div_ceil(LANES), x.ncols());
        for (row, x) in x.rows().into_iter().enumerate() {
            let x = x.to_slice().expect("rows are contiguous");
            let block = &mut lanes.values[row / LANES * lanes.width..][..lanes.width];
            block.iter_mut().zip(x).for_each(|(lanes, &x)| lanes[row % LANES] = x);
        }
        lanes
    }

    /// `y <- y + alpha x` for this state `x` and `y [t, width]`.
    pub fn add_to(&self, alpha: F, mut y: ArrayViewMut2<F>) {
        for (row, mut y) in y.rows_mut().into_iter().enumerate() {
            let y = y.as_slice_mut().expect("rows are contiguous");
            let block = &self.values[row / LANES * self.width..][..self.width];
            y.iter_mut().zip(block).for_each(|(y, lanes)| *y += alpha * lanes[row % LANES]);
        }
    }

    fn blocks(&self) -> impl ExactSizeIterator<Item = &[[F; LANES]]> {
        self.values.chunks_exact(self.width)
    }
}

/// Positions of entries in a matrix `[i, o]`, ordered by block of columns, then row, then column.
#[derive(Clone, Debug)]
pub(super) struct Entries {
    rows: usize,
    width: usize,
    /// Number of entries before each row of each block; last, the number of all.
    starts: Vec<usize>,
    /// Column of each entry, counted from the first of its block.
    columns: Vec<u16>,
}

impl Entries {
    /// The entries of a matrix `[rows, width]` at the places that are `chosen`, counted row by row.
    pub fn new((rows, width): (usize, usize), chosen: impl Fn(usize) -> bool) -> Self {
        let mut entries = Entries { rows, width, starts: vec![0], columns: Vec::new() };
        for first in (0..width).step_by(BLOCK) {
            for row in 0..rows {
                let block = (0..).zip(first..width.min(first + BLOCK));
                let listed = block.filter(|&(_, column)| chosen(row * width + column));
                entries.columns.extend(listed.map(|(in_block, _)| in_block));
                entries.starts.push(entries.columns.len());
            }
        }
        entries
    }

    /// An empty list for a matrix `[rows, width]`.
    pub fn none(rows: usize, width: usize) -> Self {
        Entries { rows, width, starts: vec![0; width.div_ceil(BLOCK) * rows + 1], columns: Vec::new() }
    }

    pub fn len(&self) -> usize {
        self.columns.len()
    }

    pub fn has(&self, row: usize, column: usize) -> bool {
        let run = column / BLOCK * self.rows + row;
        let run = &self.columns[self.starts[run]..self.starts[run + 1]];
        run.binary_search(&((column % BLOCK) as u16)).is_ok()
    }

    /// Row-major index in the matrix of each entry, in the order of the list.
    pub fn places(&self) -> impl Iterator<Item = usize> + '_ {
        let runs = self.starts.windows(2).enumerate();
        runs.flat_map(move |(run, places)| {
            let first = run % self.rows * self.width + run / self.rows * BLOCK;
            self.columns[places[0]..places[1]].iter().map(move |&column| first + column as usize)
        })
    }

    /// Adds entries `(row, column)` that are not in the list yet. Returns where each entry of the merged list comes
    /// from: `Ok` with its place in the old list or `Err` with its index in `new`.
    pub fn insert(&mut self, new: &[(usize, u32)]) -> Vec<Result<usize, usize>> {
        let place = |&(row, column): &(usize, u32)| {
            (column as usize / BLOCK * self.rows + row, (column as usize % BLOCK) as u16)
        };
        let mut sorted: Vec<usize> = (0..new.len()).collect();
        sorted.sort_unstable_by_key(|&index| place(&new[index]));
        let mut sorted = sorted.into_iter().map(|index| (place(&new[index]), index)).peekable();
        let mut columns = Vec::with_capacity(self.columns.len() + new.len());
        let mut order = Vec::with_capacity(columns.capacity());
        let mut starts = vec![0];
        for (run, places) in self.starts.windows(2).enumerate() {
            for old in places[0]..places[1] {
                let at = (run, self.columns[old]);
                while let Some(((_, column), index)) = sorted.next_if(|(place, _)| *place < at) {
                    order.push(Err(index));
                    columns.push(column);
                }
                order.push(Ok(old));
                columns.push(at.1);
            }
            while let Some(((_, column), index)) = sorted.next_if(|(place, _)| place.0 == run) {
                order.push(Err(index));
                columns.push(column);
            }
            starts.push(columns.len());
        }
        (self.starts, self.columns) = (starts, columns);
        order
    }

    /// Range of the list that each row of a block of columns takes.
    fn runs(&self, block: usize) -> impl Iterator<Item = Range<usize>> + '_ {
        self.starts[block * self.rows..].windows(2).map(|places| places[0]..places[1]).take(self.rows)
    }

    /// `x V` for `x [t, i]` and the matrix `V [i, o]` that has `values` at the entries and zeros elsewhere.
    pub fn times<F: Scalar>(&self, values: &[F], x: &PackedRows<F>) -> PackedRows<F> {
        let mut y = PackedRows::zeros(x.blocks().len(), self.width);
        for (x, y) in x.blocks().zip(y.values.chunks_exact_mut(self.width)) {
            for (block, y) in y.chunks_mut(BLOCK).enumerate() {
                for (x, places) in x.iter().zip(self.runs(block)) {
                    let x = *x;
                    for (&column, &value) in self.columns[places.clone()].iter().zip(&values[places]) {
                        // Copies cannot overlap; without them the compiler does not vectorise over the lanes.
                        let mut sums = y[column as usize];
                        for lane in 0..LANES {
                            sums[lane] += value * x[lane];
                        }
                        y[column as usize] = sums;
                    }
                }
            }
        }
        y
    }

    /// Returns `d_y V^T` and calls `step` for every entry, with its place in the list, its value and its element of the
    /// gradient `x^T d_y`.
    pub fn backward<F: Scalar>(
        &self,
        values: &mut [F],
        x: &PackedRows<F>,
        d_y: &PackedRows<F>,
        mut step: impl FnMut(usize, &mut F, F),
    ) -> PackedRows<F> {
        let mut d_x = PackedRows::zeros(x.blocks().len(), x.width);
        let blocks = x.blocks().zip(d_y.blocks()).zip(d_x.values.chunks_exact_mut(x.width));
        if blocks.len() == 1 {
            blocks.for_each(|((x, d_y), d_x)| self.backward_rows(values, x, d_y, d_x, &mut step));
            return d_x;
        }
        // No entry may change before all rows have used its old value.
        let mut products = vec![F::zero(); values.len()];
        let mut add = |place: usize, _: &mut F, product| products[place] += product;
        blocks.for_each(|((x, d_y), d_x)| self.backward_rows(values, x, d_y, d_x, &mut add));
        let listed = values.iter_mut().zip(products).enumerate();
        listed.for_each(|(place, (value, product))| step(place, value, product));
        d_x
    }

    /// [`Entries::backward`] of one block of rows.
    fn backward_rows<F: Scalar>(
        &self,
        values: &mut [F],
        x: &[[F; LANES]],
        d_y: &[[F; LANES]],
        d_x: &mut [[F; LANES]],
        step: &mut impl FnMut(usize, &mut F, F),
    ) {
        for (block, d_y) in d_y.chunks(BLOCK).enumerate() {
            for ((x, d_x), places) in x.iter().zip(d_x.iter_mut()).zip(self.runs(block)) {
                let (x, mut sums) = (*x, *d_x);
                let listed = self.columns[places.clone()].iter().zip(&mut values[places.clone()]);
                for (place, (&column, value)) in places.zip(listed) {
                    let d_y = d_y[column as usize];
                    let mut terms = [F::zero(); LANES];
                    for lane in 0..LANES {
                        sums[lane] += *value * d_y[lane];
                        terms[lane] = x[lane] * d_y[lane];
                    }
                    step(place, value, sum(terms));
                }
                *d_x = sums;
            }
        }
    }
}

/// Adds the upper half to the lower until one is left, which vectorises.
#[inline(always)]
fn sum<F: Scalar>(mut terms: [F; LANES]) -> F {
    let mut half = LANES / 2;
    while half > 0 {
        for lane in 0..half {
            terms[lane] += terms[lane + half];
        }
        half /= 2;
    }
    terms[0]
}

#[cfg(test)]
mod tests {
    use ndarray::Array2;

    use super::*;

    /// More columns than a block, more rows than lanes; against the dense matrix with those entries.
    #[test]
    fn products_are_those_of_the_dense_matrix() {
        let (rows, width, t) = (7, 2 * BLOCK + 76, LANES + 4);
        let chosen = |place: usize| place * 7919 % 13 < 2;
        let entries = Entries::new((rows, width), chosen);
        let mut values: Vec<f64> = (0..entries.len()).map(|i| (i % 11) as f64 - 5.0).collect();
        let mut dense = Array2::zeros((rows, width));
        for (place, &value) in entries.places().zip(&values) {
            dense[(place / width, place % width)] = value;
        }
        assert_eq!(entries.len(), (0..rows * width).filter(|&place| chosen(place)).count());
        let state =
            |columns, k: usize| Array2::from_shape_fn((t, columns), |(i, j)| ((i * k + j) % 7) as f64);
        let (x, d_y) = (state(rows, 3), state(width, 5));
        let mut y = Array2::zeros((t, width));
        entries.times(&values, &PackedRows::new(x.view())).add_to(1.0, y.view_mut());
        assert_eq!(y, x.dot(&dense));
        let mut gradients = vec![0.0; values.len()];
        let mut d_x = Array2::zeros((t, rows));
        let lanes = (PackedRows::new(x.view()), PackedRows::new(d_y.view()));
        let got = entries.backward(&mut values, &lanes.0, &lanes.1, |place, _, g| gradients[place] = g);
        got.add_to(1.0, d_x.view_mut());
        assert_eq!(d_x, d_y.dot(&dense.t()));
        let gradient = x.t().dot(&d_y);
        let expected: Vec<f64> =
            entries.places().map(|place| gradient[(place / width, place % width)]).collect();
        assert_eq!(gradients, expected);
    }

    #[test]
    fn inserted_entries_keep_the_order_of_the_list() {
        let (rows, width) = (5, BLOCK + 300);
        let kind = |place: usize| place * 7919 % 17;
        let mut entries = Entries::new((rows, width), |place| kind(place) < 2);
        let old: Vec<usize> = entries.places().collect();
        let new = (0..rows * width).rev().filter(|&place| kind(place) == 2);
        let new: Vec<(usize, u32)> = new.map(|place| (place / width, (place % width) as u32)).collect();
        let order = entries.insert(&new);
        let both = Entries::new((rows, width), |place| kind(place) < 3);
        let places: Vec<usize> = entries.places().collect();
        assert_eq!(places, both.places().collect::<Vec<_>>());
        let place = |new: (usize, u32)| new.0 * width + new.1 as usize;
        let named: Vec<usize> =
            order.iter().map(|of| of.map_or_else(|index| place(new[index]), |index| old[index])).collect();
        assert_eq!(named, places);
        assert!(places.iter().all(|&place| entries.has(place / width, place % width)));
        assert!(!entries.has(0, 4) || kind(4) < 3);
    }
}
