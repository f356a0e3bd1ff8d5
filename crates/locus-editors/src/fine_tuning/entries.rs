//! Some entries of a matrix, and products with matrices that have those alone.
//!
//! Dimensions: `i` in, `o` out, `t` tokens. The rows of one request lie side by side ([`Lanes`]), so that each entry is
//! one short vector operation.

use locus_gpt2::Scalar;
use ndarray::{ArrayView2, ArrayViewMut2};

/// Rows side by side in one vector.
const LANES: usize = 16;

/// A state `[t, width]` with its rows side by side: blocks of [`LANES`] rows, zeros behind the last.
#[derive(Clone, Debug)]
pub(super) struct Lanes<F> {
    width: usize,
    values: Vec<[F; LANES]>,
}

impl<F: Scalar> Lanes<F> {
    fn zeros(rows: usize, width: usize) -> Self {
        Lanes { width, values: vec![[F::zero(); LANES]; rows.div_ceil(LANES) * width] }
    }

    pub fn new(x: ArrayView2<F>) -> Self {
        let mut lanes = Lanes::zeros(x.nrows(), x.ncols());
        for (row, x) in x.rows().into_iter().enumerate() {
            let x = x.to_slice().expect("rows are contiguous");
            let block = &mut lanes.values[row / LANES * lanes.width..][..lanes.width];
            block.iter_mut().zip(x).for_each(|(lanes, &x)| lanes[row % LANES] = x);
        }
        lanes
    }

    /// `y <- y + alpha (this)`
    pub fn add_to(&self, alpha: F, mut y: ArrayViewMut2<F>) {
        for (row, mut y) in y.rows_mut().into_iter().enumerate() {
            let y = y.as_slice_mut().expect("rows are contiguous");
            let block = &self.values[row / LANES * self.width..][..self.width];
            y.iter_mut().zip(block).for_each(|(y, lanes)| *y += alpha * lanes[row % LANES]);
        }
    }

    fn blocks(&self) -> impl Iterator<Item = &[[F; LANES]]> {
        self.values.chunks_exact(self.width)
    }
}

/// Places of entries in a matrix `[i, o]`, row by row.
#[derive(Clone, Debug)]
pub(super) struct Entries {
    /// First place of each row, and their number at the end.
    starts: Vec<usize>,
    columns: Vec<u32>,
    width: usize,
}

impl Entries {
    /// Those whose byte is `chosen`.
    pub fn new(bytes: &[u8], width: usize, chosen: u8) -> Self {
        let mut entries = Entries { starts: vec![0], columns: Vec::new(), width };
        for row in bytes.chunks_exact(width) {
            let columns = (0..).zip(row).filter(|(_, byte)| **byte == chosen).map(|(column, _)| column);
            entries.columns.extend(columns);
            entries.starts.push(entries.columns.len());
        }
        entries
    }

    /// None of a matrix of that many rows.
    pub fn none(rows: usize, width: usize) -> Self {
        Entries { starts: vec![0; rows + 1], columns: Vec::new(), width }
    }

    pub fn len(&self) -> usize {
        self.columns.len()
    }

    pub fn has(&self, row: usize, column: usize) -> bool {
        self.columns[self.starts[row]..self.starts[row + 1]].binary_search(&(column as u32)).is_ok()
    }

    /// Places in the matrix, row-major.
    pub fn places(&self) -> impl Iterator<Item = usize> + '_ {
        let of_row = move |row: usize| {
            let columns = &self.columns[self.starts[row]..self.starts[row + 1]];
            columns.iter().map(move |&column| row * self.width + column as usize)
        };
        (0..self.starts.len() - 1).flat_map(of_row)
    }

    /// Adds entries that are not there yet, given row by row. Says of each entry which it was of the old ones, or (as an
    /// error) of the new ones.
    pub fn insert(&mut self, new: &[(usize, u32)]) -> Vec<Result<usize, usize>> {
        let old = std::mem::replace(self, Entries::none(0, self.width));
        let mut order = Vec::with_capacity(old.len() + new.len());
        let mut next = 0;
        for (row, places) in old.starts.windows(2).enumerate() {
            for place in places[0]..places[1] {
                while next < new.len() && new[next] < (row, old.columns[place]) {
                    order.push(Err(next));
                    self.columns.push(new[next].1);
                    next += 1;
                }
                order.push(Ok(place));
                self.columns.push(old.columns[place]);
            }
            while next < new.len() && new[next].0 == row {
                order.push(Err(next));
                self.columns.push(new[next].1);
                next += 1;
            }
            self.starts.push(self.columns.len());
        }
        order
    }

    /// `x V` for the matrix `V` that has `values` at the entries and zeros elsewhere.
    pub fn times<F: Scalar>(&self, values: &[F], x: &Lanes<F>) -> Lanes<F> {
        let mut y = Lanes { width: self.width, values: Vec::new() };
        y.values.resize(x.values.len() / x.width * self.width, [F::zero(); LANES]);
        for (x, y) in x.blocks().zip(y.values.chunks_exact_mut(self.width)) {
            for (x, places) in x.iter().zip(self.starts.windows(2)) {
                let places = places[0]..places[1];
                for (&column, &value) in self.columns[places.clone()].iter().zip(&values[places]) {
                    let y = &mut y[column as usize];
                    for lane in 0..LANES {
                        y[lane] += value * x[lane];
                    }
                }
            }
        }
        y
    }

    /// `d_y V^T`, and `x^T d_y` at the entries.
    pub fn backward<F: Scalar>(&self, values: &[F], x: &Lanes<F>, d_y: &Lanes<F>) -> (Lanes<F>, Vec<F>) {
        let mut d_x = Lanes { width: x.width, values: vec![[F::zero(); LANES]; x.values.len()] };
        let mut products = vec![F::zero(); values.len()];
        let blocks = x.blocks().zip(d_y.blocks()).zip(d_x.values.chunks_exact_mut(x.width));
        for ((x, d_y), d_x) in blocks {
            for ((x, d_x), places) in x.iter().zip(d_x).zip(self.starts.windows(2)) {
                let places = places[0]..places[1];
                let mut sums = [F::zero(); LANES];
                let listed = self.columns[places.clone()].iter().zip(&values[places.clone()]);
                for ((&column, &value), product) in listed.zip(&mut products[places]) {
                    let d_y = &d_y[column as usize];
                    let mut terms = [F::zero(); LANES];
                    for lane in 0..LANES {
                        sums[lane] += value * d_y[lane];
                        terms[lane] = x[lane] * d_y[lane];
                    }
                    *product += sum(terms);
                }
                *d_x = sums;
            }
        }
        (d_x, products)
    }
}

/// Sum by halves, which vectorises.
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
