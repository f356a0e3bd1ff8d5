//! Causal attention, forward and backward, sequence by sequence and head by head.
//!
//! Dimensions: `n` rows of a packed batch, `d` the model's width, `w` that of a head, `s` tokens that a sequence's rows see.

use std::ops::Range;

use ndarray::{Array2, ArrayView2};
use rayon::prelude::*;

use crate::batch::Batch;
use crate::config::Config;
use crate::forward::{BlockTrace, softmax};
use crate::linalg::{axpy, dot, written_zeros};
use crate::scalar::Scalar;

/// Number of attention weights of a head over rows `start..start + t` of a sequence.
pub(crate) fn n_weights(start: usize, t: usize) -> usize {
    start * t + t * (t + 1) / 2
}

/// One head on one sequence.
struct Head<'a, F> {
    head: usize,
    d: usize,
    width: usize,
    /// Tokens before the sequence's own rows.
    start: usize,
    /// Queries, keys and values of the tokens before, and of the sequence's rows, `[rows, 3d]`.
    past: &'a [F],
    own: &'a [F],
    /// First row of the sequence.
    first: usize,
    /// Rows that go on after the keys and values: the place of each among all such rows, and its place in the sequence.
    reading: Vec<(usize, usize)>,
}

impl<'a, F: Scalar> Head<'a, F> {
    /// All heads of all sequences, those of a sequence side by side.
    fn all(
        config: &Config,
        batch: &Batch,
        past: &'a [F],
        qkv: &'a [F],
        reads: Option<&[usize]>,
    ) -> Vec<Head<'a, F>> {
        let (d, width) = (config.n_embd, config.d_head());
        let mut past = past;
        let mut all = Vec::with_capacity(batch.starts().len() * config.n_head);
        for (sequence, &start) in batch.sequences().zip(batch.starts()) {
            let (before, rest) = past.split_at(start * 3 * d);
            past = rest;
            let own = &qkv[sequence.start * 3 * d..sequence.end * 3 * d];
            let reading = reading(reads, &sequence);
            all.extend((0..config.n_head).map(|head| Head {
                head,
                d,
                width,
                start,
                past: before,
                own,
                first: sequence.start,
                reading: reading.clone(),
            }));
        }
        all
    }

    fn scale(&self) -> F {
        F::one() / F::of(self.width as f64).sqrt()
    }

    /// Number of tokens that the last row sees.
    fn n_seen(&self) -> usize {
        (self.past.len() + self.own.len()) / (3 * self.d)
    }

    /// Query of a row of the sequence `[w]`.
    fn query(&self, row: usize) -> &'a [F] {
        &self.own[row * 3 * self.d + self.head * self.width..][..self.width]
    }

    /// Keys (part 1) or values (2) of all tokens seen, `[s, w]` end to end.
    fn seen(&self, part: usize) -> Vec<F> {
        let mut seen = Vec::with_capacity(self.n_seen() * self.width);
        for row in self.past.chunks_exact(3 * self.d).chain(self.own.chunks_exact(3 * self.d)) {
            seen.extend_from_slice(&row[part * self.d + self.head * self.width..][..self.width]);
        }
        seen
    }

    /// Weighted values of the rows that go on `[reading, w]`, and their attention weights.
    fn forward(&self) -> (Vec<F>, Vec<F>) {
        let (width, s) = (self.width, self.n_seen());
        let keys = transposed(&self.seen(1), s, width);
        let values = self.seen(2);
        let mut z = vec![F::zero(); self.reading.len() * width];
        let mut weights = Vec::with_capacity(self.n_weights());
        for (z, &(_, row)) in z.chunks_exact_mut(width).zip(&self.reading) {
            let (first, seen) = (weights.len(), self.start + row + 1);
            weights.resize(first + seen, F::zero());
            let scores = &mut weights[first..];
            weighted_sum(self.query(row), &keys, s, scores);
            let scale = self.scale();
            scores.iter_mut().for_each(|score| *score *= scale);
            softmax(scores);
            weighted_sum(scores, &values, width, z);
        }
        (z, weights)
    }

    /// Gradients of queries, keys and values of the sequence's rows, `[t, w]` each, from the attention weights and
    /// `d_z [n, d]` (or of the rows that went on).
    fn backward(&self, weights: &[F], d_z: &[F]) -> [Vec<F>; 3] {
        let (width, s) = (self.width, self.n_seen());
        let keys = self.seen(1);
        let values = transposed(&self.seen(2), s, width);
        let own = || vec![F::zero(); self.own.len() / (3 * self.d) * width];
        let [mut d_q, mut d_k, mut d_v] = [own(), own(), own()];
        let mut d_scores = vec![F::zero(); s];
        let (mut weights, scale) = (weights, self.scale());
        for &(read, row) in &self.reading {
            let (a, rest) = weights.split_at(self.start + row + 1);
            weights = rest;
            let d_z = &d_z[read * self.d + self.head * width..][..width];
            let d_s = &mut d_scores[..a.len()];
            d_s.fill(F::zero());
            weighted_sum(d_z, &values, s, d_s);
            let mean = dot(a, d_s);
            d_s.iter_mut().zip(a).for_each(|(d, &a)| *d = a * (*d - mean) * scale);
            weighted_sum(d_s, &keys, width, &mut d_q[row * width..][..width]);
            // Tokens before the batch are given: nothing flows to them.
            let q = self.query(row);
            let of_own = d_k.chunks_exact_mut(width).zip(d_v.chunks_exact_mut(width));
            for ((d_k, d_v), (&d_s, &a)) in of_own.zip(d_s.iter().zip(a).skip(self.start)) {
                axpy(d_s, q, d_k);
                axpy(a, d_z, d_v);
            }
        }
        [d_q, d_k, d_v]
    }

    /// Number of its attention weights.
    fn n_weights(&self) -> usize {
        self.reading.iter().map(|&(_, row)| self.start + row + 1).sum()
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

/// `[rows, columns]` to `[columns, rows]`.
fn transposed<F: Scalar>(x: &[F], rows: usize, columns: usize) -> Vec<F> {
    let mut y = vec![F::zero(); x.len()];
    for (i, x) in x.chunks_exact(columns).enumerate() {
        x.iter().enumerate().for_each(|(j, &x)| y[j * rows + i] = x);
    }
    y
}

/// `y <- y + sum over i of weights[i] rows[i]`, rows of the given width of which the first `y.len()` entries count. Four
/// rows at a time, so that `y` is passed over less often.
fn weighted_sum<F: Scalar>(weights: &[F], rows: &[F], width: usize, y: &mut [F]) {
    let (n, fours) = (y.len(), weights.len() / 4 * 4);
    for i in (0..fours).step_by(4) {
        let [a, b, c, d] = [0, 1, 2, 3].map(|k| &rows[(i + k) * width..][..n]);
        let [wa, wb, wc, wd] = [0, 1, 2, 3].map(|k| weights[i + k]);
        for j in 0..n {
            y[j] += (wa * a[j] + wb * b[j]) + (wc * c[j] + wd * d[j]);
        }
    }
    for i in fours..weights.len() {
        axpy(weights[i], &rows[i * width..][..n], y);
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
    let (d, width) = (config.n_embd, config.d_head());
    assert_eq!(past.nrows(), batch.starts().iter().sum::<usize>(), "rows before the batch");
    let [past, qkv] = [past, qkv].map(|states| states.to_slice().expect("states are contiguous"));
    let heads = Head::all(config, batch, past, qkv, reads);
    let attended: Vec<(Vec<F>, Vec<F>)> = heads.par_iter().map(Head::forward).collect();
    let mut out = written_zeros(reads.map_or(batch.n_rows(), <[usize]>::len), d);
    let z = out.as_slice_mut().expect("fresh arrays are contiguous");
    let mut weights = Vec::with_capacity(attended.iter().map(|(_, weights)| weights.len()).sum());
    for (head, (own, of_head)) in heads.iter().zip(&attended) {
        for (own, &(row, _)) in own.chunks_exact(width).zip(&head.reading) {
            z[row * d + head.head * width..][..width].copy_from_slice(own);
        }
        weights.extend_from_slice(of_head);
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
    let (d, width) = (config.n_embd, config.d_head());
    let qkv = trace.qkv.as_slice().expect("states are contiguous");
    let past = trace.past.as_slice().expect("states are contiguous");
    let d_z = d_z.to_slice().expect("states are contiguous");
    let heads = Head::all(config, batch, past, qkv, trace.reads.as_deref());
    let mut rest = trace.attn.as_slice();
    let weights: Vec<&[F]> = heads
        .iter()
        .map(|head| {
            let (own, others) = rest.split_at(head.n_weights());
            rest = others;
            own
        })
        .collect();
    let gradients: Vec<[Vec<F>; 3]> =
        heads.par_iter().zip(&weights).map(|(head, weights)| head.backward(weights, d_z)).collect();
    let mut out = written_zeros(batch.n_rows(), 3 * d);
    let d_qkv = out.as_slice_mut().expect("fresh arrays are contiguous");
    for (head, gradients) in heads.iter().zip(&gradients) {
        for (part, gradient) in gradients.iter().enumerate() {
            for (i, gradient) in gradient.chunks_exact(width).enumerate() {
                let place = (head.first + i) * 3 * d + part * d + head.head * width;
                d_qkv[place..][..width].copy_from_slice(gradient);
            }
        }
    }
    out
}
