//! Causal attention, forward and backward, sequence by sequence and head by head.
//!
//! ```text
//! s_ij = c q_i k_j  for j <= i       a_i = softmax(s_i)       z_i = sum over j of a_ij v_j
//! ```
//!
//! The scale `c` is `1 / sqrt(w)`, unless the model's configuration says otherwise ([`scale`]).
//!
//! Dimension letters: `n` rows of a packed batch, `d` the model's width, `w` that of a head, `s` tokens that a
//! sequence's rows see, `t` rows of a sequence.
//!
//! Each head on each sequence is one piece of parallel work ([`Head`]). Not every row needs to be a query: in the last
//! block of a run that reads some rows, the others give keys and values alone. Attention weights are packed: sequence
//! by sequence, head by head, query by query, one weight for each key that the query sees.

use std::ops::Range;

use ndarray::{Array2, ArrayView2, ArrayViewMut2, Axis, CowArray, Ix2, s};
use rayon::prelude::*;

use super::batch::Batch;
use super::hooks::Hook;
use crate::config::Config;
use crate::kernels::number::Number;
use crate::kernels::softmax::softmax;
use crate::kernels::split::{column_chunks, split_lengths, split_rows};
use crate::kernels::vector::{dot, written_zeros};

/// Number of attention weights of a head over rows `start..start + t` of a sequence.
pub(crate) fn n_weights(start: usize, t: usize) -> usize {
    start * t + t * (t + 1) / 2
}

/// Factor of a block's attention scores.
fn scale<F: Number>(config: &Config, layer: usize) -> F {
    let scale = if config.scale_attn_weights {
        F::one() / F::from_f64(config.d_head() as f64).sqrt()
    } else {
        F::one()
    };
    if config.scale_attn_by_inverse_layer_idx { scale / F::from_f64((layer + 1) as f64) } else { scale }
}

/// One head on one sequence.
struct Head<'a, F> {
    /// First of the head's columns among those of all heads.
    first: usize,
    d: usize,
    width: usize,
    /// Factor of the scores.
    scale: F,
    /// Tokens before the sequence's rows.
    start: usize,
    /// Keys and values of the tokens before, `[start, 2d]`.
    prefix: &'a [F],
    /// Queries, keys and values of the sequence's rows, `[t, 3d]`.
    qkv: &'a [F],
    /// Rows of the sequence that are queries.
    reading: &'a [usize],
}

impl<'a, F: Number> Head<'a, F> {
    /// All heads on the first sequence, then all on the next.
    fn all(
        config: &Config,
        layer: usize,
        batch: &Batch<F>,
        prefixes: &'a [F],
        qkv: &'a [F],
        reading: &'a [Vec<usize>],
    ) -> Vec<Head<'a, F>> {
        let (d, width) = (config.n_embd, config.d_head());
        let scale = scale(config, layer);
        let mut rest = prefixes;
        let mut all = Vec::with_capacity(batch.starts().len() * config.n_head);
        for ((sequence, &start), reading) in batch.sequences().zip(batch.starts()).zip(reading) {
            let (prefix, tail) = rest.split_at(start * 2 * d);
            rest = tail;
            let qkv = &qkv[sequence.start * 3 * d..sequence.end * 3 * d];
            let head = |first| Head { first, d, width, scale, start, prefix, qkv, reading };
            all.extend((0..config.n_head).map(|head| head * width).map(head));
        }
        all
    }

    /// Number of keys that each query sees.
    fn keys_seen(&self) -> Vec<usize> {
        self.reading.iter().map(|row| self.start + row + 1).collect()
    }

    /// Number of the head's attention weights.
    fn n_weights(&self) -> usize {
        self.reading.iter().map(|row| self.start + row + 1).sum()
    }

    /// Packed weights query by query.
    fn by_query<'w>(&self, weights: &'w mut [F]) -> impl Iterator<Item = &'w mut [F]> + use<'w, F> {
        split_lengths(weights, self.keys_seen().into_iter())
    }

    /// Writes the values weighted by given attention weights, `z [queries, w]`.
    fn weigh(&self, weights: &mut [F], mut z: ArrayViewMut2<F>) {
        let mut values = Vec::new();
        self.pack(1, &mut values);
        for (weights, mut z) in self.by_query(weights).zip(z.rows_mut()) {
            weighted_sum(
                weights,
                &values,
                self.width,
                z.as_slice_mut().expect("columns of a row are contiguous"),
            );
        }
    }

    /// Number of tokens that the sequence's last row sees, `s`.
    fn n_seen(&self) -> usize {
        self.start + self.qkv.len() / (3 * self.d)
    }

    /// Query of a row of the sequence `[w]`.
    fn query(&self, row: usize) -> &'a [F] {
        &self.qkv[row * 3 * self.d + self.first..][..self.width]
    }

    /// Keys (part 0) or values (1) of all tokens seen, `[w]` each.
    fn seen(&self, part: usize) -> impl Iterator<Item = &'a [F]> {
        let (d, first, width) = (self.d, part * self.d + self.first, self.width);
        let prefix = self.prefix.chunks_exact(2 * self.d);
        // In the sequence's rows the queries come first.
        let of_sequence = self.qkv.chunks_exact(3 * self.d).map(move |row| &row[d..]);
        prefix.chain(of_sequence).map(move |row| &row[first..][..width])
    }

    /// Packs the keys (part 0) or values (1) of all tokens seen row-major, `[s, w]`.
    fn pack(&self, part: usize, out: &mut Vec<F>) {
        out.clear();
        self.seen(part).for_each(|row| out.extend_from_slice(row));
    }

    /// Packs the keys (part 0) or values (1) of all tokens seen transposed, `[w, s]`, zeros up to a whole number of
    /// lanes.
    fn pack_transposed(&self, part: usize, out: &mut Vec<F>) {
        let columns = lanes(self.n_seen());
        zeros(out, self.width * columns);
        for (j, row) in self.seen(part).enumerate() {
            row.iter().enumerate().for_each(|(i, &x)| out[i * columns + j] = x);
        }
    }

    /// Writes the weighted values of the queries, `z [queries, w]`, and their attention weights.
    fn forward(&self, work: &mut Work<F>, mut z: ArrayViewMut2<F>, weights: &mut [F]) {
        if self.reading.is_empty() {
            return;
        }
        let Work { transposed: keys, packed: values, scores, .. } = work;
        self.pack_transposed(0, keys);
        self.pack(1, values);
        let columns = lanes(self.n_seen());
        zeros(scores, columns);
        let (mut weights, scale) = (weights, self.scale);
        for (&row, mut z) in self.reading.iter().zip(z.rows_mut()) {
            let seen = self.start + row + 1;
            let scores = &mut scores[..lanes(seen)];
            weighted_sum(self.query(row), keys, columns, scores);
            for (scores, first) in scores.chunks_exact_mut(LANES).zip((0..).step_by(LANES)) {
                for i in 0..LANES {
                    scores[i] = if first + i < seen { scores[i] * scale } else { F::neg_infinity() };
                }
            }
            softmax(scores);
            let (head, tail) = weights.split_at_mut(seen);
            weights = tail;
            head.copy_from_slice(&scores[..seen]);
            weighted_sum(
                head,
                values,
                self.width,
                z.as_slice_mut().expect("columns of a row are contiguous"),
            );
        }
    }

    /// From the attention weights and `d_z [queries, d]`, writes the gradients of queries, keys and values of the
    /// sequence's rows, `[t, w]` each, and, where there is room for them, of keys and values of the tokens before.
    fn backward(
        &self,
        work: &mut Work<F>,
        weights: &[F],
        d_z: &[F],
        [mut d_q, d_k, d_v]: [ArrayViewMut2<F>; 3],
        [d_k_before, d_v_before]: [ArrayViewMut2<F>; 2],
    ) {
        if self.reading.is_empty() {
            return;
        }
        // The first token whose gradients are wanted.
        let wanted = self.start - d_k_before.nrows();
        let Work { transposed: values, packed: keys, scores: d_scores, attended, d_keys, d_values } = work;
        self.pack(0, keys);
        self.pack_transposed(1, values);
        let (columns, width) = (lanes(self.n_seen()), self.width);
        zeros(d_keys, (self.n_seen() - wanted) * width);
        zeros(d_values, (self.n_seen() - wanted) * width);
        let (mut weights, scale) = (weights, self.scale);
        let d_z = |read: usize| &d_z[read * self.d + self.first..][..width];
        for (block, rows) in self.reading.chunks(TOGETHER).enumerate() {
            zeros(d_scores, TOGETHER * columns);
            zeros(attended, TOGETHER * columns);
            let places = d_scores.chunks_exact_mut(columns).zip(attended.chunks_exact_mut(columns));
            for ((k, &row), (d_s, a)) in rows.iter().enumerate().zip(places) {
                let seen = self.start + row + 1;
                let (head, tail) = weights.split_at(seen);
                weights = tail;
                a[..seen].copy_from_slice(head);
                let (d_s, a) = (&mut d_s[..lanes(seen)], &a[..lanes(seen)]);
                weighted_sum(d_z(block * TOGETHER + k), values, columns, d_s);
                let mean = dot(a, d_s);
                for (d_s, a) in d_s.chunks_exact_mut(LANES).zip(a.chunks_exact(LANES)) {
                    d_s.iter_mut().zip(a).for_each(|(d, &a)| *d = a * (*d - mean) * scale);
                }
                let d_q = d_q.row_mut(row).into_slice().expect("columns of a row are contiguous");
                weighted_sum(&d_s[..seen], keys, width, d_q);
            }
            // The last block may have fewer rows: their weights are zeros, whatever they are multiplied with.
            let n = self.start + rows[rows.len() - 1] + 1 - wanted;
            let place = |k: usize| k.min(rows.len() - 1);
            let query = |k: usize| self.query(rows[place(k)]);
            let queries = [query(0), query(1), query(2), query(3)];
            let d_z = |k: usize| d_z(block * TOGETHER + place(k));
            let d_zs = [d_z(0), d_z(1), d_z(2), d_z(3)];
            add_products(&d_scores[wanted..], columns, queries, &mut d_keys[..n * width]);
            add_products(&attended[wanted..], columns, d_zs, &mut d_values[..n * width]);
        }
        let n_before = (self.start - wanted) * width;
        for (before, after, rows) in [(d_k_before, d_k, d_keys), (d_v_before, d_v, d_values)] {
            let (rows_before, rows) = rows.split_at(n_before);
            copy_rows(rows_before, before);
            copy_rows(rows, after);
        }
    }
}

/// Copies rows that lie end to end into the rows of a view.
fn copy_rows<F: Number>(rows: &[F], mut out: ArrayViewMut2<F>) {
    let width = out.ncols();
    for (mut out, row) in out.rows_mut().into_iter().zip(rows.chunks_exact(width)) {
        out.as_slice_mut().expect("columns of a row are contiguous").copy_from_slice(row);
    }
}

/// Room that one thread works in.
struct Work<F> {
    /// Keys of a forward, values of a backward pass, `[w, s]`.
    transposed: Vec<F>,
    /// Values of a forward, keys of a backward pass, `[s, w]`.
    packed: Vec<F>,
    scores: Vec<F>,
    attended: Vec<F>,
    d_keys: Vec<F>,
    d_values: Vec<F>,
}

impl<F> Work<F> {
    fn new() -> Self {
        let [transposed, packed, scores, attended, d_keys, d_values] = [const { Vec::new() }; 6];
        Work { transposed, packed, scores, attended, d_keys, d_values }
    }
}

fn zeros<F: Number>(x: &mut Vec<F>, n: usize) {
    x.clear();
    x.resize(n, F::zero());
}

/// Columns whose sums are in registers at once.
const LANES: usize = 16;
/// Queries that add to the gradients of keys and values at once.
const TOGETHER: usize = 4;

/// The least multiple of [`LANES`] that holds `n` columns.
fn lanes(n: usize) -> usize {
    n.next_multiple_of(LANES)
}

/// Rows of each sequence that are queries, as places in the sequence.
fn reading<F: Number>(batch: &Batch<F>, reads: Option<&[usize]>) -> Vec<Vec<usize>> {
    let of_sequence = |sequence: Range<usize>| match reads {
        None => (0..sequence.len()).collect(),
        Some(rows) => {
            let place = |row: usize| rows.partition_point(|&read| read < row);
            let rows = &rows[place(sequence.start)..place(sequence.end)];
            rows.iter().map(|row| row - sequence.start).collect()
        }
    };
    batch.sequences().map(of_sequence).collect()
}

/// `y = sum over i of weights[i] rows[i]`, where row `i` begins at `i stride`.
#[inline(always)]
fn weighted_sum<F: Number>(weights: &[F], rows: &[F], stride: usize, y: &mut [F]) {
    let (blocks, rest) = y.as_chunks_mut::<LANES>();
    let first = blocks.len() * LANES;
    for (block, y) in blocks.iter_mut().enumerate() {
        *y = column_sums(weights, &rows[block * LANES..], stride);
    }
    for (column, y) in (first..).zip(rest) {
        [*y] = column_sums(weights, &rows[column..], stride);
    }
}

/// [`weighted_sum`] of `N` columns, whose sums stay in registers. Four rows are added at a time, so that no sum waits
/// for the one before.
#[inline(always)]
fn column_sums<F: Number, const N: usize>(weights: &[F], rows: &[F], stride: usize) -> [F; N] {
    let mut sums = [F::zero(); N];
    let fours = weights.len() / 4 * 4;
    for i in (0..fours).step_by(4) {
        let row = |i: usize| &rows[i * stride..][..N];
        let (a, b, c, d) = (row(i), row(i + 1), row(i + 2), row(i + 3));
        let w = &weights[i..i + 4];
        for j in 0..N {
            sums[j] += (w[0] * a[j] + w[1] * b[j]) + (w[2] * c[j] + w[3] * d[j]);
        }
    }
    for i in fours..weights.len() {
        let row = &rows[i * stride..][..N];
        for j in 0..N {
            sums[j] += weights[i] * row[j];
        }
    }
    sums
}

/// `y_j <- y_j + sum over k of weights[k, j] x_k` with `weights [4, j]`, whose rows are `stride` apart, and `y [j, w]`.
#[inline(always)]
fn add_products<F: Number>(weights: &[F], stride: usize, x: [&[F]; TOGETHER], y: &mut [F]) {
    let width = x[0].len();
    let (a, b, c, d) = (x[0], &x[1][..width], &x[2][..width], &x[3][..width]);
    for (j, y) in y.chunks_exact_mut(width).enumerate() {
        let w = |k: usize| weights[k * stride + j];
        let (wa, wb, wc, wd) = (w(0), w(1), w(2), w(3));
        for i in 0..width {
            y[i] += (wa * a[i] + wb * b[i]) + (wc * c[i] + wd * d[i]);
        }
    }
}

/// Least number of heads in one piece of parallel work: some ten microseconds' worth.
fn heads_together<F: Number>(heads: &[Head<F>]) -> usize {
    const MULTIPLY_ADDS: usize = 1 << 16;
    let multiply_adds: usize = heads.iter().map(|head| head.n_weights() * head.width).sum();
    (MULTIPLY_ADDS * heads.len() / multiply_adds.max(1)).max(1)
}

/// Keys and values of the tokens before each sequence's rows, packed `[rows, 2d]`: from the KV cache, or from the rows
/// that sequences share.
fn prefixes<'a, F: Number>(batch: &'a Batch<F>, layer: usize, qkv: ArrayView2<F>) -> CowArray<'a, F, Ix2> {
    let d = qkv.ncols() / 3;
    match batch.prefix(layer) {
        Some(prefix) => prefix.into(),
        None => qkv.slice(s![.., d..]).select(Axis(0), batch.shared()).into(),
    }
}

/// Causal softmax attention per sequence and head of a layer: `qkv [n, 3d]` in; heads side by side `[n, d]` (or of the
/// rows in `reads`) and the packed attention weights out.
pub(crate) fn attention<F: Number>(
    config: &Config,
    batch: &Batch<F>,
    layer: usize,
    qkv: ArrayView2<F>,
    reads: Option<&[usize]>,
) -> (Array2<F>, Vec<F>) {
    let (d, width) = (config.n_embd, config.d_head());
    assert_eq!(qkv.dim(), (batch.n_rows(), 3 * d), "queries, keys and values, and the batch");
    let prefixes = prefixes(batch, layer, qkv);
    let reading = reading(batch, reads);
    let heads = Head::all(config, layer, batch, slice(prefixes.view()), slice(qkv), &reading);
    let mut out = written_zeros(reads.map_or(batch.n_rows(), <[usize]>::len), d);
    let mut weights = vec![F::zero(); heads.iter().map(Head::n_weights).sum()];
    let z = split_rows(out.view_mut(), reading.iter().map(Vec::len));
    let z = z.into_iter().flat_map(|z| column_chunks(z, width));
    let of_heads = heads.iter().zip(z).zip(split_lengths(&mut weights, heads.iter().map(Head::n_weights)));
    let of_heads: Vec<_> = of_heads.collect();
    of_heads
        .into_par_iter()
        .with_min_len(heads_together(&heads))
        .for_each_init(Work::new, |work, ((head, z), weights)| head.forward(work, z, weights));
    (out, weights)
}

/// Shows every attention pattern to a hook; what the hook leaves replaces the weights, and `z` is computed from them.
pub(crate) fn hook_patterns<F: Number>(
    config: &Config,
    batch: &Batch<F>,
    layer: usize,
    qkv: ArrayView2<F>,
    reads: Option<&[usize]>,
    (z, weights): (&mut Array2<F>, &mut [F]),
    hook: &mut dyn Hook<F>,
) {
    let prefixes = prefixes(batch, layer, qkv);
    let reading = reading(batch, reads);
    let heads = Head::all(config, layer, batch, slice(prefixes.view()), slice(qkv), &reading);
    let z = split_rows(z.view_mut(), reading.iter().map(Vec::len));
    let z = z.into_iter().flat_map(|z| column_chunks(z, config.d_head()));
    let weights = split_lengths(weights, heads.iter().map(Head::n_weights));
    for ((i, head), (z, weights)) in heads.iter().enumerate().zip(z.zip(weights)) {
        let mut pattern = unpack(weights, &head.keys_seen());
        hook.pattern(layer, i % config.n_head, i / config.n_head, pattern.view_mut());
        for (packed, pattern) in head.by_query(weights).zip(pattern.rows()) {
            packed.iter_mut().zip(pattern).for_each(|(packed, &weight)| *packed = weight);
        }
        head.weigh(weights, z);
    }
}

/// Packed weights of one head as a matrix `[queries, keys]`, given the number of keys that each query sees.
fn unpack<F: Number>(weights: &[F], seen: &[usize]) -> Array2<F> {
    let mut pattern = Array2::zeros((seen.len(), seen.last().copied().unwrap_or(0)));
    let mut rest = weights;
    for (mut row, &seen) in pattern.rows_mut().into_iter().zip(seen) {
        let (head, tail) = rest.split_at(seen);
        rest = tail;
        row.iter_mut().zip(head).for_each(|(weight, &packed)| *weight = packed);
    }
    pattern
}

/// Entries of a state, row by row.
fn slice<'a, F>(states: ArrayView2<'a, F>) -> &'a [F] {
    states.to_slice().expect("states are contiguous")
}

/// Backward of [`attention`]. With the formula above,
///
/// ```text
/// d_v_j = sum over i of a_ij d_z_i       d_a_ij = d_z_i v_j       d_s_i = a_i (d_a_i - sum over j of a_ij d_a_ij)
/// d_q_i = c sum over j of d_s_ij k_j                              d_k_j = c sum over i of d_s_ij q_i
/// ```
///
/// Takes the packed weights `a` and `d_z [n, d]` (or of the rows in `reads`), gives `d_qkv [n, 3d]`.
pub(crate) fn attention_backward<F: Number>(
    config: &Config,
    batch: &Batch<F>,
    layer: usize,
    (qkv, weights): (ArrayView2<F>, &[F]),
    reads: Option<&[usize]>,
    d_z: ArrayView2<F>,
) -> Array2<F> {
    let (d, width) = (config.n_embd, config.d_head());
    let prefixes = prefixes(batch, layer, qkv);
    let n_shared = batch.shared().len();
    let reading = reading(batch, reads);
    let heads = Head::all(config, layer, batch, slice(prefixes.view()), slice(qkv), &reading);
    let mut out = written_zeros(batch.n_rows(), 3 * d);
    let d_qkv = split_rows(out.view_mut(), batch.sequences().map(|rows| rows.len()));
    let d_qkv = d_qkv.into_iter().map(|d_qkv| {
        let (d_q, d_kv) = d_qkv.split_at(Axis(1), d);
        let d_q = column_chunks(d_q, width);
        d_q.zip(keys_and_values(d_kv, width)).map(|(d_q, [d_k, d_v])| [d_q, d_k, d_v])
    });
    // What flows to shared rows is added to them below. Nothing flows to a KV cache, which is given.
    let mut d_shared = written_zeros(n_shared, 2 * d);
    let counts = batch.starts().iter().map(|&start| if n_shared == 0 { 0 } else { start });
    let d_prefixes =
        split_rows(d_shared.view_mut(), counts).into_iter().map(|d_kv| keys_and_values(d_kv, width));
    let d_z = slice(d_z);
    let (mut weights, mut first) = (weights, 0);
    let mut of_heads = Vec::with_capacity(heads.len());
    for (heads, (d_qkv, d_prefix)) in heads.chunks_exact(config.n_head).zip(d_qkv.zip(d_prefixes)) {
        let rows = heads[0].reading.len();
        for (head, d) in heads.iter().zip(d_qkv.zip(d_prefix)) {
            let (of_head, tail) = weights.split_at(head.n_weights());
            weights = tail;
            of_heads.push((head, of_head, &d_z[first * head.d..(first + rows) * head.d], d));
        }
        first += rows;
    }
    of_heads
        .into_par_iter()
        .with_min_len(heads_together(&heads))
        .for_each_init(Work::new, |work, (head, weights, d_z, (d_qkv, d_prefix))| {
            head.backward(work, weights, d_z, d_qkv, d_prefix)
        });
    for (&row, d_shared) in batch.shared().iter().zip(d_shared.rows()) {
        let (_, mut d_kv) = out.row_mut(row).split_at(Axis(0), d);
        d_kv += &d_shared;
    }
    out
}

/// Views of the keys and values of each head, from those of all heads `[rows, 2d]`.
fn keys_and_values<F>(
    kv: ArrayViewMut2<'_, F>,
    width: usize,
) -> impl Iterator<Item = [ArrayViewMut2<'_, F>; 2]> {
    let d = kv.ncols() / 2;
    let (keys, values) = kv.split_at(Axis(1), d);
    column_chunks(keys, width).zip(column_chunks(values, width)).map(|(keys, values)| [keys, values])
}
