//! One request's change `D [i, o]` of one matrix, stored in as little memory as what may move allows.
//!
//! Dimensions: `i` in, `o` out, `t` tokens of the request, `r` rows of all steps so far.
//!
//! A step is `D <- clamp(D - lr M (x^T d_y))` with the mask `M`. Where the mask lets few entries move, `D` is a list of
//! them; where it lets about as many move as not, `D` is stored whole. Where it lets most move, `D = -lr X^T G` for the
//! inputs `X [r, i]` and output gradients `G [r, o]` of all steps, except at two kinds of entry: outside the mask, where
//! the value of the product is stored and subtracted again, and where the clamp may have acted, where the entry itself
//! is stored. A bound finds the latter: the steps of entry `(i, o)` add up to at most `lr |X_i| |G_o|` (Cauchy-Schwarz,
//! with the columns `X_i` and `G_o`), so as long as that is below the clamp, the clamp has never acted on it.

use locus_gpt2::{Scalar, TensorMask, gemm};
use ndarray::parallel::prelude::*;
use ndarray::{Array2, ArrayView2, ArrayViewMut2, Axis, s};

use super::entries::{Entries, PackedRows};

/// Share of the clamp at which the bound counts as reached: a little early, because it is computed with rounding.
const MARGIN: f64 = 0.999;
/// A change is stored entry by entry once more than one in this many entries is held.
const WHOLE_AT: usize = 32;
/// Entries that may move, or may not, are listed while they are at most one in this many: an entry of a list takes as
/// much time as about eight of a whole matrix.
const LISTED_AT: usize = 8;
/// Rows of a whole change whose gradients are held at once, a multiple of this many: a word of a mask.
const ROWS: usize = 64;
/// Entries of those rows, about: as many as a product of few rows reads in place, and a second-level cache holds.
const ENTRIES: usize = 1 << 18;

/// Learning rate, and the largest change of a parameter.
#[derive(Clone, Copy, Debug)]
pub(super) struct Descent<F> {
    pub lr: F,
    pub clamp: F,
}

impl<F: Scalar> Descent<F> {
    /// The change after a step: `clamp(change - lr gradient)`.
    #[inline(always)]
    pub fn moved(self, change: F, gradient: F) -> F {
        let moved = change - self.lr * gradient;
        if moved < -self.clamp {
            -self.clamp
        } else if moved > self.clamp {
            self.clamp
        } else {
            moved
        }
    }

    /// Bound on `|X_i|^2 |G_o|^2` below which the clamp cannot have acted on entry `(i, o)`.
    pub fn reach(self) -> f64 {
        (MARGIN * self.clamp.as_f64() / self.lr.as_f64()).powi(2)
    }
}

/// Which entries of a matrix may move.
#[derive(Clone, Debug)]
pub(super) enum Editable<'a> {
    /// The entries that may move.
    Only(Entries),
    /// About as many entries may move as not: those inside the mask.
    Half(&'a TensorMask),
    /// The entries that may not, which are those outside the mask if there is one.
    AllBut(Entries, Option<&'a TensorMask>),
}

impl<'a> Editable<'a> {
    /// From the matrix's part of a mask; without one all entries may move.
    pub fn new(mask: Option<&'a TensorMask>, (rows, width): (usize, usize)) -> Self {
        let Some(mask) = mask else {
            return Editable::AllBut(Entries::none(rows, width), None);
        };
        let (inside, all) = (mask.count(), mask.len());
        let entries = |listed| Entries::new((rows, width), |place| mask.contains(place) == listed);
        if inside * LISTED_AT <= all {
            Editable::Only(entries(true))
        } else if (all - inside) * LISTED_AT <= all {
            Editable::AllBut(entries(false), Some(mask))
        } else {
            Editable::Half(mask)
        }
    }
}

/// Input of a matrix in a forward pass, `[t, i]`, and in the layout of [`Entries`] where entries are listed.
#[derive(Clone, Debug)]
pub(super) struct Input<F> {
    rows: Array2<F>,
    lanes: PackedRows<F>,
}

impl<F: Scalar> Input<F> {
    pub fn new(x: ArrayView2<F>, editable: &Editable) -> Self {
        let listed = if matches!(editable, Editable::Half(_)) { x.slice(s![..0, ..]) } else { x };
        Input { rows: x.to_owned(), lanes: PackedRows::new(listed) }
    }
}

/// One request's change of one matrix.
#[derive(Clone, Debug)]
pub(super) enum MatrixChange<F> {
    /// Changes of the entries that may move, in the order of [`Editable::Only`].
    Listed(Vec<F>),
    /// Most entries may move, and the change is of low rank but for corrections.
    Factored(Factored<F>),
    /// Entry by entry, `[i, o]`.
    Whole(Array2<F>),
}

/// A change as the product `-lr X^T G`, with corrections at some entries.
#[derive(Clone, Debug)]
pub(super) struct Factored<F> {
    /// Inputs of all steps, `X [r, i]`.
    x: Vec<F>,
    /// Gradients of outputs of all steps, `G [r, o]`.
    g: Vec<F>,
    /// Sums of squares of the columns of `X`, `[i]`.
    x_squares: Vec<f64>,
    /// Sums of squares of the columns of `G`, `[o]`.
    g_squares: Vec<f64>,
    /// Values of the product at the entries of [`Editable::AllBut`], subtracted again because these may not move.
    fixed: Vec<F>,
    held: Held<F>,
}

/// Entries where the clamp may have acted.
#[derive(Clone, Debug)]
struct Held<F> {
    entries: Entries,
    /// Change of each entry.
    changes: Vec<F>,
    /// Change of each entry minus the value of the product there.
    corrections: Vec<F>,
}

impl<F: Scalar> MatrixChange<F> {
    /// No change of a matrix `[i, o]`.
    pub fn none(editable: &Editable, (rows, width): (usize, usize)) -> Self {
        match editable {
            Editable::Only(entries) => MatrixChange::Listed(vec![F::zero(); entries.len()]),
            Editable::Half(_) => MatrixChange::Whole(Array2::zeros((rows, width))),
            Editable::AllBut(entries, _) => MatrixChange::Factored(Factored {
                x: Vec::new(),
                g: Vec::new(),
                x_squares: vec![0.0; rows],
                g_squares: vec![0.0; width],
                fixed: vec![F::zero(); entries.len()],
                held: Held {
                    entries: Entries::none(rows, width),
                    changes: Vec::new(),
                    corrections: Vec::new(),
                },
            }),
        }
    }

    /// Bytes of what is held entry by entry.
    pub fn bytes(&self) -> usize {
        let scalars = match self {
            MatrixChange::Listed(change) => change.len(),
            MatrixChange::Factored(change) => change.fixed.len() + 2 * change.held.changes.len(),
            MatrixChange::Whole(change) => change.len(),
        };
        scalars * size_of::<F>()
    }

    /// `y <- y + x D`, `y [t, o]`.
    pub fn add_to(&self, editable: &Editable, lr: F, x: &Input<F>, mut y: ArrayViewMut2<F>) {
        match (self, editable) {
            (MatrixChange::Listed(change), Editable::Only(entries)) => {
                entries.times(change, &x.lanes).add_to(F::one(), y);
            }
            (MatrixChange::Factored(change), Editable::AllBut(entries, _)) => {
                if change.x.is_empty() {
                    return;
                }
                if entries.len() > 0 {
                    entries.times(&change.fixed, &x.lanes).add_to(-F::one(), y.view_mut());
                }
                let held = &change.held;
                if held.entries.len() > 0 {
                    held.entries.times(&held.corrections, &x.lanes).add_to(F::one(), y.view_mut());
                }
                let (factor_x, factor_g) = change.factors();
                through(-lr, x.rows.view(), factor_x, factor_g, y);
            }
            (MatrixChange::Whole(change), _) => gemm(F::one(), x.rows.view(), change.view(), F::one(), y),
            _ => unreachable!("a change is made for its scope"),
        }
    }

    /// `d_x <- d_x + d_y D^T` for `d_x [t, i]`, then one step of descent from `x [t, i]` and `d_y [t, o]`.
    pub fn step(
        &mut self,
        editable: &Editable,
        descent: Descent<F>,
        x: &Input<F>,
        d_y: ArrayView2<F>,
        mut d_x: ArrayViewMut2<F>,
    ) {
        match (&mut *self, editable) {
            (MatrixChange::Listed(change), Editable::Only(entries)) => {
                let lanes = PackedRows::new(d_y);
                let through_entries =
                    entries.backward(change, &x.lanes, &lanes, |_, c, g| *c = descent.moved(*c, g));
                through_entries.add_to(F::one(), d_x);
            }
            (MatrixChange::Factored(change), Editable::AllBut(entries, _)) => {
                let lanes = PackedRows::new(d_y);
                let move_on = |_, c: &mut F, g| *c -= descent.lr * g;
                entries
                    .backward(&mut change.fixed, &x.lanes, &lanes, move_on)
                    .add_to(-F::one(), d_x.view_mut());
                change.held.backward(descent, &x.lanes, &lanes).add_to(F::one(), d_x.view_mut());
                let (factor_x, factor_g) = change.factors();
                through(-descent.lr, d_y, factor_g, factor_x, d_x);
                change.remember(entries, descent, &x.rows, d_y);
                let (rows, width) = (x.rows.ncols(), d_y.ncols());
                let rank = change.x.len() / rows;
                if rank * (rows + width) > rows * width || change.held.entries.len() * WHOLE_AT > rows * width
                {
                    *self = MatrixChange::Whole(change.whole(entries, descent.lr));
                }
            }
            (MatrixChange::Whole(change), Editable::Half(inside)) => {
                step_whole(change, Some(inside), descent, &x.rows, d_y, d_x);
            }
            (MatrixChange::Whole(change), Editable::AllBut(_, inside)) => {
                step_whole(change, *inside, descent, &x.rows, d_y, d_x);
            }
            _ => unreachable!("a change is made for its scope"),
        }
    }

    /// Adds the change to the weights `[i, o]`.
    pub fn apply(&self, editable: &Editable, lr: F, weights: &mut [F]) {
        let add =
            |weights: &mut [F], change: &[F]| weights.iter_mut().zip(change).for_each(|(w, &c)| *w += c);
        match (self, editable) {
            (MatrixChange::Listed(change), Editable::Only(entries)) => {
                entries.places().zip(change).for_each(|(place, &c)| weights[place] += c);
            }
            (MatrixChange::Factored(change), Editable::AllBut(entries, _)) => {
                add(weights, change.whole(entries, lr).as_slice().expect("fresh arrays are contiguous"));
            }
            (MatrixChange::Whole(change), _) => add(weights, change.as_slice().expect("is contiguous")),
            _ => unreachable!("a change is made for its scope"),
        }
    }
}

/// [`MatrixChange::step`] of a change `[i, o]` that is stored whole, of which entries outside a mask do not move.
fn step_whole<F: Scalar>(
    change: &mut Array2<F>,
    inside: Option<&TensorMask>,
    descent: Descent<F>,
    x: &Array2<F>,
    d_y: ArrayView2<F>,
    mut d_x: ArrayViewMut2<F>,
) {
    let width = change.ncols();
    let rows = ENTRIES.div_ceil(width.max(1)).next_multiple_of(ROWS);
    let parts = change.axis_chunks_iter_mut(Axis(0), rows).into_par_iter();
    let parts = parts.zip(d_x.axis_chunks_iter_mut(Axis(1), rows)).zip(x.axis_chunks_iter(Axis(1), rows));
    parts.enumerate().for_each_init(Vec::new, |gradient, (part, ((mut change, d_x), x))| {
        gemm(F::one(), d_y, change.t(), F::one(), d_x);
        gradient.resize(change.len(), F::zero());
        let of_part = ArrayViewMut2::from_shape(change.dim(), &mut *gradient).expect("as many entries");
        gemm(F::one(), x.t(), d_y, F::zero(), of_part);
        if let Some(inside) = inside {
            inside.clear_outside_from(part * rows * width, gradient);
        }
        // Slices, because an array's iterator goes entry by entry.
        let change = change.as_slice_mut().expect("rows are contiguous");
        change.iter_mut().zip(gradient).for_each(|(c, &mut g)| *c = descent.moved(*c, g));
    });
}

impl<F: Scalar> Factored<F> {
    /// `X [r, i]` and `G [r, o]`.
    fn factors(&self) -> (ArrayView2<'_, F>, ArrayView2<'_, F>) {
        let rank = self.x.len() / self.x_squares.len();
        let factor =
            |values, width| ArrayView2::from_shape((rank, width), values).expect("rows of one width");
        (factor(&self.x, self.x_squares.len()), factor(&self.g, self.g_squares.len()))
    }

    /// The change entry by entry, `[i, o]`.
    fn whole(&self, outside: &Entries, lr: F) -> Array2<F> {
        let (x, g) = self.factors();
        let mut change = Array2::zeros((x.ncols(), g.ncols()));
        gemm(-lr, x.t(), g, F::zero(), change.view_mut());
        let entries = change.as_slice_mut().expect("fresh arrays are contiguous");
        outside.places().for_each(|place| entries[place] = F::zero());
        self.held.entries.places().zip(&self.held.changes).for_each(|(place, &held)| entries[place] = held);
        change
    }

    /// Appends the factors of a step, and holds the entries on which the clamp may act from this step on.
    fn remember(&mut self, outside: &Entries, descent: Descent<F>, x: &Array2<F>, d_y: ArrayView2<F>) {
        let with_squares = |squares: &[f64], x: ArrayView2<F>| {
            let mut squares = squares.to_vec();
            for row in x.rows() {
                let row = row.to_slice().expect("rows are contiguous");
                squares.iter_mut().zip(row).for_each(|(sum, x)| *sum += x.as_f64() * x.as_f64());
            }
            squares
        };
        let x_squares = with_squares(&self.x_squares, x.view());
        let g_squares = with_squares(&self.g_squares, d_y);
        let reach = descent.reach();
        // Columns in descending order of their squares: those that a row reaches are then the first few.
        let largest = |squares: &[f64]| squares.iter().fold(0.0, |largest: f64, &x| largest.max(x));
        let (furthest_row, furthest) = (largest(&x_squares), largest(&g_squares));
        let reachable = |&o: &u32| furthest_row * g_squares[o as usize] >= reach;
        let mut columns: Vec<u32> = (0..g_squares.len() as u32).filter(reachable).collect();
        columns.sort_unstable_by(|&a, &b| g_squares[b as usize].total_cmp(&g_squares[a as usize]));
        let mut found: Vec<(usize, u32)> = Vec::new();
        let rows = x_squares.iter().zip(&self.x_squares).enumerate();
        for (i, (&now, &before)) in rows.filter(|(_, (now, _))| **now * furthest >= reach) {
            let reached = columns.iter().take_while(|&&o| now * g_squares[o as usize] >= reach);
            // Where the bound was reached before, the entry is held already.
            let new = |o: usize| before * self.g_squares[o] < reach && !outside.has(i, o);
            found.extend(reached.filter(|&&o| new(o as usize)).map(|&o| (i, o)));
        }
        let mut moves = Vec::with_capacity(found.len());
        for found in found.chunk_by(|a, b| a.0 == b.0) {
            let i = found[0].0;
            // The clamp had not acted on these entries before this step, so their changes are those of the product.
            let width = self.g_squares.len();
            let rows = self.x.chunks_exact(self.x_squares.len()).zip(self.g.chunks_exact(width));
            let mut before = vec![F::zero(); found.len()];
            for (x, g) in rows {
                let factor = -descent.lr * x[i];
                before.iter_mut().zip(found).for_each(|(sum, &(_, o))| *sum += factor * g[o as usize]);
            }
            for (&(_, o), before) in found.iter().zip(before) {
                let gradient = x.column(i).dot(&d_y.column(o as usize));
                let change = descent.moved(before, gradient);
                moves.push((change, change - (before - descent.lr * gradient)));
            }
        }
        self.held.insert(&found, &moves);
        (self.x_squares, self.g_squares) = (x_squares, g_squares);
        // Without room to grow: the factors are most of the memory.
        self.x.reserve_exact(x.len());
        self.g.reserve_exact(d_y.len());
        self.x.extend_from_slice(x.as_slice().expect("states are contiguous"));
        self.g.extend_from_slice(d_y.as_slice().expect("states are contiguous"));
    }
}

impl<F: Scalar> Held<F> {
    /// Returns `d_y` times the transposed corrections, `[t, i]`, and makes one step of descent.
    fn backward(&mut self, descent: Descent<F>, x: &PackedRows<F>, d_y: &PackedRows<F>) -> PackedRows<F> {
        let changes = &mut self.changes;
        self.entries.backward(&mut self.corrections, x, d_y, |place, correction, g| {
            let change = &mut changes[place];
            let moved = descent.moved(*change, g);
            *correction += moved - (*change - descent.lr * g);
            *change = moved;
        })
    }

    /// Adds entries with their changes and corrections.
    fn insert(&mut self, places: &[(usize, u32)], values: &[(F, F)]) {
        if places.is_empty() {
            return;
        }
        let order = self.entries.insert(places);
        let merged = |old: &[F], new: &dyn Fn(usize) -> F| -> Vec<F> {
            order.iter().map(|place| place.map_or_else(new, |place| old[place])).collect()
        };
        self.changes = merged(&self.changes, &|place| values[place].0);
        self.corrections = merged(&self.corrections, &|place| values[place].1);
    }
}

/// `y <- y + alpha (x A^T) B` with `x [t, i]`, `A [r, i]`, `B [r, o]`.
pub(super) fn through<F: Scalar>(
    alpha: F,
    x: ArrayView2<F>,
    a: ArrayView2<F>,
    b: ArrayView2<F>,
    y: ArrayViewMut2<F>,
) {
    if a.nrows() == 0 {
        return;
    }
    let mut inner = Array2::zeros((x.nrows(), a.nrows()));
    gemm(F::one(), x, a.t(), F::zero(), inner.view_mut());
    gemm(alpha, inner.view(), b, F::one(), y);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A matrix of more rows than are stepped at once, against its entries one by one; half of them may move, and the
    /// clamp acts on some.
    #[test]
    fn a_whole_change_steps_entry_by_entry() {
        let (t, i, o) = (3, ENTRIES / 500 + 2 * ROWS, 500);
        let entry = |k: usize| move |(a, b): (usize, usize)| ((a * 7919 + b * k) % 17) as f64 / 8.0 - 1.0;
        let x = Array2::from_shape_fn((t, i), entry(31));
        let d_y = Array2::from_shape_fn((t, o), entry(57));
        let mut change = Array2::from_shape_fn((i, o), entry(3));
        let inside: TensorMask = (0..i * o).map(|place| place * 31 % 101 < 50).collect();
        change.indexed_iter_mut().for_each(|((a, b), c)| {
            if !inside.contains(a * o + b) {
                *c = 0.0;
            }
        });
        let descent = Descent { lr: 0.5, clamp: 1.25 };
        let gradient = x.t().dot(&d_y);
        let expected = Array2::from_shape_fn((i, o), |at| {
            let moved = descent.moved(change[at], gradient[at]);
            if inside.contains(at.0 * o + at.1) { moved } else { 0.0 }
        });
        let mut d_x = Array2::ones((t, i));
        let expected_d_x = d_y.dot(&change.t()) + 1.0;
        let (editable, input) = (Editable::Half(&inside), Input::new(x.view(), &Editable::Half(&inside)));
        let mut whole = MatrixChange::Whole(change);
        whole.step(&editable, descent, &input, d_y.view(), d_x.view_mut());
        let MatrixChange::Whole(change) = whole else { panic!("it is stored otherwise") };
        // Sums of 3 and of 500 terms of order 1.
        let near = |a: &Array2<f64>, b: &Array2<f64>| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-11);
        assert!(near(&change, &expected) && near(&d_x, &expected_d_x));
        assert!(expected.iter().any(|c| c.abs() == descent.clamp));
    }
}
