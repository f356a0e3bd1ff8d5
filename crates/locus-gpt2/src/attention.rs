//! Causal attention, forward and backward, sequence by sequence and head by head.
//!
//! Dimensions: `n` rows of a packed batch, `d` the model's width.

use std::ops::Range;

use ndarray::{Array2, ArrayView2};

use crate::batch::Batch;
use crate::config::Config;
use crate::forward::{BlockTrace, softmax};
use crate::linalg::{axpy, dot, written_zeros};
use crate::scalar::Scalar;

/// Number of attention weights of a head over rows `start..start + t` of a sequence.
pub(crate) fn n_weights(start: usize, t: usize) -> usize {
    start * t + t * (t + 1) / 2
}

/// The keys and values an attention head can see: those of the rows before a batch's own, then those of the batch.
#[derive(Clone, Copy)]
struct Seen<'a, F> {
    past: &'a [F],
    own: &'a [F],
    d: usize,
    width: usize,
    start: usize,
}

impl<'a, F: Scalar> Seen<'a, F> {
    /// One sequence of `t` rows from position `start` on, `past` and `own` being packed `[rows, 3d]`.
    fn new(config: &Config, start: usize, past: &'a [F], own: &'a [F]) -> Self {
        Seen { past, own, d: config.n_embd, width: config.d_head(), start }
    }

    /// Query (part 0), key (1) or value (2) of a head at a position of the whole sequence.
    #[inline(always)]
    fn at(&self, position: usize, part: usize, head: usize) -> &'a [F] {
        let (rows, row) =
            if position < self.start { (self.past, position) } else { (self.own, position - self.start) };
        &rows[row * 3 * self.d + part * self.d + head * self.width..][..self.width]
    }
}

/// Rows of a sequence that go on after the keys and values: the place of each among all such rows, and its place in
/// the sequence.
fn reading(reads: Option<&[usize]>, sequence: &Range<usize>) -> Vec<(usize, usize)> {
    match reads {
        None => sequence.clone().map(|row| (row, row - sequence.start)).collect(),
        Some(rows) => {
            let place = |row: usize| rows.partition_point(|&read| read < row);
            let places = place(sequence.start)..place(sequence.end);
            places.map(|place| (place, rows[place] - sequence.start)).collect()
        }
    }
}

/// Causal softmax attention per sequence and head: `qkv [n, 3d]`, and those of the tokens before, in; heads side by
/// side `[n, d]` (or of the rows in `reads`) and the attention weights out.
///
/// # Panics
/// When `past` does not have as many rows as the batch's starts say.
pub(crate) fn attention<F: Scalar>(
    config: &Config,
    batch: &Batch,
    past: ArrayView2<F>,
    qkv: ArrayView2<F>,
    reads: Option<&[usize]>,
) -> (Array2<F>, Vec<F>) {
    let (d, heads, width) = (config.n_embd, config.n_head, config.d_head());
    let scale = F::one() / F::of(width as f64).sqrt();
    assert_eq!(past.nrows(), batch.starts().iter().sum::<usize>(), "rows before the batch");
    let qkv = qkv.to_slice().expect("states are contiguous");
    let mut past = past.to_slice().expect("states are contiguous");
    let mut out = written_zeros(reads.map_or(batch.n_rows(), <[usize]>::len), d);
    let z = out.as_slice_mut().expect("fresh arrays are contiguous");
    let sizes = batch.sequences().zip(batch.starts()).map(|(s, &start)| n_weights(start, s.len()) * heads);
    let mut weights = Vec::with_capacity(if reads.is_none() { sizes.sum() } else { 0 });
    for (sequence, &start) in batch.sequences().zip(batch.starts()) {
        let (before, rest) = past.split_at(start * 3 * d);
        past = rest;
        let seen = Seen::new(config, start, before, &qkv[sequence.start * 3 * d..sequence.end * 3 * d]);
        let reading = reading(reads, &sequence);
        for head in 0..heads {
            for &(row, own) in &reading {
                let i = start + own;
                let first = weights.len();
                let q = seen.at(i, 0, head);
                weights.extend((0..=i).map(|j| dot(q, seen.at(j, 1, head)) * scale));
                let scores = &mut weights[first..];
                softmax(scores);
                let z = &mut z[row * d + head * width..][..width];
                for (j, &weight) in scores.iter().enumerate() {
                    axpy(weight, seen.at(j, 2, head), z);
                }
            }
        }
    }
    (out, weights)
}

/// forward, per sequence, head and row `i`: `s_ij = q_i k_j scale` for `j <= i`, `a = softmax(s)`, `z_i = sum_j a_ij v_j`.
/// So `d_v_j += a_ij d_z_i`, `d_a_ij = d_z_i v_j`, `d_s = a (d_a - sum_j a d_a)`, `d_q_i += d_s_ij k_j scale`,
/// `d_k_j += d_s_ij q_i scale`. Takes `d_z [n, d]` (or of the rows that went on), gives `d_qkv [n, 3d]`.
pub(crate) fn attention_backward<F: Scalar>(
    config: &Config,
    batch: &Batch,
    trace: &BlockTrace<F>,
    d_z: ArrayView2<F>,
) -> Array2<F> {
    let (d, heads, width) = (config.n_embd, config.n_head, config.d_head());
    let scale = F::one() / F::of(width as f64).sqrt();
    let qkv = trace.qkv.as_slice().expect("states are contiguous");
    let mut past = trace.past.as_slice().expect("states are contiguous");
    let d_z = d_z.to_slice().expect("states are contiguous");
    let mut out = written_zeros(batch.n_rows(), 3 * d);
    let d_qkv = out.as_slice_mut().expect("fresh arrays are contiguous");
    let mut d_scores = Vec::new();
    let mut weights = trace.attn.as_slice();
    for (sequence, &start) in batch.sequences().zip(batch.starts()) {
        let (before, rest) = past.split_at(start * 3 * d);
        past = rest;
        let rows = sequence.start * 3 * d..sequence.end * 3 * d;
        let seen = Seen::new(config, start, before, &qkv[rows.clone()]);
        let d_own = &mut d_qkv[rows];
        let at = |row: usize, part: usize, head: usize| row * 3 * d + part * d + head * width;
        let reading = reading(trace.reads.as_deref(), &sequence);
        for head in 0..heads {
            for &(read, row) in &reading {
                let i = start + row;
                let (a, rest) = weights.split_at(i + 1);
                weights = rest;
                let d_z = &d_z[read * d + head * width..][..width];
                d_scores.clear();
                d_scores.extend((0..=i).map(|j| dot(d_z, seen.at(j, 2, head))));
                let mean = dot(a, &d_scores);
                for (j, (&a, &d_a)) in a.iter().zip(&d_scores).enumerate() {
                    let d_s = a * (d_a - mean) * scale;
                    axpy(d_s, seen.at(j, 1, head), &mut d_own[at(row, 0, head)..][..width]);
                    // Tokens before the batch are given: nothing flows to them.
                    if let Some(j) = j.checked_sub(start) {
                        axpy(a, d_z, &mut d_own[at(j, 2, head)..][..width]);
                        axpy(d_s, seen.at(i, 0, head), &mut d_own[at(j, 1, head)..][..width]);
                    }
                }
            }
        }
    }
    out
}
