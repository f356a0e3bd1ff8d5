//! Which entries of a matrix count: compressed sparse rows, without their numbers.

use std::ops::Range;

use crate::kernels::number::Number;

/// Positions of the entries of a matrix of at most 65,535 rows and columns, row by row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    n_columns: usize,
    /// Index of each row's first entry, and the number of entries at the end.
    starts: Vec<u32>,
    /// Column of each entry, ascending in each row.
    columns: Vec<u16>,
}

impl Pattern {
    /// The `count` entries of a row-major matrix that are not zero, and their values; `None` when one of the sides is
    /// too long for the indices.
    pub(crate) fn of_nonzero<F: Number>(
        entries: &[F],
        (n_rows, n_columns): (usize, usize),
        count: usize,
    ) -> Option<(Self, Vec<F>)> {
        if n_rows.max(n_columns) > usize::from(u16::MAX) {
            return None;
        }
        // Written always, kept when it counts: a branch would be guessed wrong as often as an entry counts.
        let (mut columns, mut values) = (vec![0; count + 1], vec![F::zero(); count + 1]);
        let mut found = 0;
        let mut starts = vec![0];
        for row in entries.chunks_exact(n_columns) {
            for (j, &w) in row.iter().enumerate() {
                (columns[found], values[found]) = (j as u16, w);
                found += usize::from(w != F::zero());
            }
            starts.push(found as u32);
        }
        columns.truncate(count);
        values.truncate(count);
        Some((Pattern { n_columns, starts, columns }, values))
    }

    /// Number of rows.
    pub fn n_rows(&self) -> usize {
        self.starts.len() - 1
    }

    /// Columns of a row's entries, ascending.
    pub fn row(&self, i: usize) -> &[u16] {
        &self.columns[self.range(i)]
    }

    /// Indices of a row's entries among all of them.
    pub fn range(&self, i: usize) -> Range<usize> {
        self.starts[i] as usize..self.starts[i + 1] as usize
    }

    /// The pattern of the transposed matrix, and for each of its entries the index of that entry here.
    pub(crate) fn transposed(&self) -> (Self, Vec<u32>) {
        let mut starts = vec![0; self.n_columns + 1];
        self.columns.iter().for_each(|&j| starts[usize::from(j) + 1] += 1);
        for j in 0..self.n_columns {
            starts[j + 1] += starts[j];
        }
        let mut next = starts.clone();
        let (mut rows, mut order) = (vec![0; self.columns.len()], vec![0; self.columns.len()]);
        for i in 0..self.n_rows() {
            for (entry, &j) in self.range(i).zip(self.row(i)) {
                let at = next[usize::from(j)] as usize;
                (rows[at], order[at]) = (i as u16, entry as u32);
                next[usize::from(j)] += 1;
            }
        }
        (Pattern { n_columns: self.n_rows(), starts, columns: rows }, order)
    }
}
