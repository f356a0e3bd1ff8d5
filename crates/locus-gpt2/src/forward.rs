//! The forward pass.
//!
//! ```text
//! x_0     = wte[token] + wpe[position]                       [n, d]
//! x_mid   = x_l + attn(ln_1(x_l)) W_o + b_o                  [n, d]
//! x_{l+1} = x_mid + gelu(ln_2(x_mid) W_in + b_in) W_out + b  [n, d]
//! hidden  = ln_f(x_L)                                        [n, d]
//! logits  = hidden wte^T                                     [rows asked for, V]
//! ```
//!
//! Source: the GPT-2 release (Radford et al. 2019); dropout is off. Linear layers are one product over all rows of the
//! packed batch; attention runs per sequence and head.

use std::ops::Range;

use ndarray::{ArcArray2, Array2, ArrayView2, ArrayViewMut2, Axis, s};
use rayon::prelude::*;

use crate::activation::{gelu, gelu_with_slope};
use crate::attention::{attention, n_weights};
use crate::batch::Batch;
use crate::config::Config;
use crate::error::Result;
use crate::linalg::{axpy, dot, gemm, max, rows_in_piece, shifted_exponentials, sum, written_zeros};
use crate::params::{BlockParam, ParamId, Params};
use crate::scalar::Scalar;

/// A named state inside a block, in the order of the forward pass. On a backward pass the same names stand for the
/// gradients of those states.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Site {
    /// Residual stream entering the block `[n, d]`.
    ResidIn,
    /// Output of `ln_1` `[n, d]`.
    Ln1Out,
    /// Queries, keys and values `[n, 3d]`.
    Qkv,
    /// Attention-weighted values, heads side by side `[n, d]`.
    HeadOut,
    /// What attention adds to the residual stream `[n, d]`.
    AttnOut,
    /// Residual stream between attention and MLP `[n, d]`.
    ResidMid,
    /// Output of `ln_2` `[n, d]`.
    Ln2Out,
    /// MLP before the activation `[n, f]`.
    MlpPre,
    /// MLP after the activation: the keys of its output matrix `[n, f]`.
    MlpKey,
    /// What the MLP adds to the residual stream `[n, d]`.
    MlpOut,
    /// Residual stream leaving the block `[n, d]`.
    ResidOut,
}

/// Sees, and may replace, the named states of a pass. `()` is the tap that does nothing and costs nothing.
pub trait Tap<F> {
    /// Called once per layer and site, in the order the pass reaches them.
    fn visit(&mut self, layer: usize, site: Site, state: ArrayViewMut2<F>);

    /// Whether `visit` will overwrite the whole of [`Site::AttnOut`] on a forward pass, or of [`Site::Ln1Out`] on a
    /// backward pass: the pass then hands over zeros and saves a product.
    fn provides(&self, _site: Site) -> bool {
        false
    }
}

impl<F> Tap<F> for () {
    #[inline(always)]
    fn visit(&mut self, _: usize, _: Site, _: ArrayViewMut2<F>) {}
}

/// A closure is a tap.
impl<F, C: FnMut(usize, Site, ArrayViewMut2<F>)> Tap<F> for C {
    fn visit(&mut self, layer: usize, site: Site, state: ArrayViewMut2<F>) {
        self(layer, site, state);
    }
}

/// One of the model's LayerNorms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Norm {
    /// `ln_1` of a block, before attention.
    Attention(usize),
    /// `ln_2` of a block, before the MLP.
    Mlp(usize),
    /// `ln_f`.
    Final,
}

impl Norm {
    /// Gain and bias.
    pub(crate) fn params(self) -> (ParamId, ParamId) {
        match self {
            Norm::Attention(layer) => {
                (ParamId::Block(layer, BlockParam::Ln1Weight), ParamId::Block(layer, BlockParam::Ln1Bias))
            }
            Norm::Mlp(layer) => {
                (ParamId::Block(layer, BlockParam::Ln2Weight), ParamId::Block(layer, BlockParam::Ln2Bias))
            }
            Norm::Final => (ParamId::FinalNormWeight, ParamId::FinalNormBias),
        }
    }
}

/// Mean and reciprocal standard deviation of each row a LayerNorm saw.
#[derive(Clone, Debug)]
pub(crate) struct NormStats<F> {
    pub mean: Vec<F>,
    pub rstd: Vec<F>,
}

/// States of one block that its backward pass needs.
#[derive(Clone, Debug)]
pub(crate) struct BlockTrace<F> {
    /// Rows that go on after the keys and values, ascending; `None` is all.
    pub reads: Option<Vec<usize>>,
    pub resid_in: Array2<F>,
    pub ln_1: NormStats<F>,
    pub ln_1_out: Array2<F>,
    pub qkv: Array2<F>,
    /// Queries, keys and values of the tokens before each sequence's rows, packed `[past rows, 3d]`.
    pub past: ArcArray2<F>,
    /// Attention weights: per sequence, per head, row by row that goes on, one weight per token up to the row's own.
    pub attn: Vec<F>,
    pub head_out: Array2<F>,
    pub resid_mid: Array2<F>,
    pub ln_2: NormStats<F>,
    pub ln_2_out: Array2<F>,
    /// Slope of the activation at each entry of what goes into it: that is all that the backward pass asks of it.
    pub mlp_slope: Array2<F>,
    pub mlp_key: Array2<F>,
}

/// Keys and values, layer by layer, of the tokens that come before the rows of a batch of sequence ends. Clones share
/// them.
#[derive(Clone, Debug)]
pub struct Past<F> {
    /// Per layer, queries, keys and values packed `[past rows, 3d]`.
    qkv: Vec<ArcArray2<F>>,
}

impl<F: Scalar> Past<F> {
    /// The same tokens before each of two equal lists of ends, packed one after the other.
    pub fn twice(&self) -> Self {
        let twice = |qkv: &ArcArray2<F>| ndarray::concatenate![Axis(0), *qkv, *qkv].into_shared();
        Past { qkv: self.qkv.iter().map(twice).collect() }
    }

    /// The first `starts[i]` rows of each sequence of a run over whole sequences of the given lengths, from its queries,
    /// keys and values `[rows, 3d]` per layer.
    ///
    /// # Panics
    /// When a start is beyond its sequence, or the states have other rows.
    pub fn beginnings(qkv: &[Array2<F>], lengths: &[usize], starts: &[usize]) -> Self {
        let mut rows = Vec::with_capacity(starts.iter().sum());
        let mut first = 0;
        for (&length, &start) in lengths.iter().zip(starts) {
            assert!(start <= length, "a beginning of {start} rows of {length}");
            rows.extend(first..first + start);
            first += length;
        }
        let of_layer = |qkv: &Array2<F>| {
            assert_eq!(qkv.nrows(), first, "rows of the whole sequences");
            qkv.select(Axis(0), &rows).into_shared()
        };
        Past { qkv: qkv.iter().map(of_layer).collect() }
    }

    /// No tokens before: what a batch of whole sequences has.
    pub fn none(config: &Config) -> Self {
        Past { qkv: vec![ArcArray2::zeros((0, 3 * config.n_embd)); config.n_layer] }
    }
}

/// Everything a backward pass needs of a forward pass over layers `first..L`.
#[derive(Clone, Debug)]
pub struct Trace<F> {
    pub(crate) first_layer: usize,
    pub(crate) blocks: Vec<BlockTrace<F>>,
    pub(crate) resid: Array2<F>,
    pub(crate) ln_f: NormStats<F>,
    /// Output of the final LayerNorm `[n, d]`, or of the rows that were asked for.
    pub hidden: Array2<F>,
}

impl<F: Scalar> Trace<F> {
    /// Forgets all but the first sequences: `batch` holds those alone, and the trace is of a batch that begins with them.
    ///
    /// # Panics
    /// When the trace has fewer rows, its last block went on with some of them only, or sequences share rows.
    pub fn truncate(&mut self, config: &Config, batch: &Batch) {
        let n = batch.n_rows();
        assert!(self.blocks.iter().all(|block| block.reads.is_none()), "a trace of some rows");
        assert!(batch.before().is_empty(), "sequences that share rows");
        let shorten = |x: &mut Array2<F>, rows: usize| {
            let columns = x.ncols();
            let (mut entries, _) = std::mem::take(x).into_raw_vec_and_offset();
            assert!(entries.len() >= rows * columns, "a trace of fewer rows");
            entries.truncate(rows * columns);
            *x = Array2::from_shape_vec((rows, columns), entries).expect("as many as kept");
        };
        let stats = |stats: &mut NormStats<F>| {
            stats.mean.truncate(n);
            stats.rstd.truncate(n);
        };
        let sizes = batch.sequences().zip(batch.starts()).map(|(s, &start)| n_weights(start, s.len()));
        let weights = sizes.sum::<usize>() * config.n_head;
        for block in &mut self.blocks {
            let BlockTrace {
                resid_in, ln_1_out, qkv, head_out, resid_mid, ln_2_out, mlp_slope, mlp_key, ..
            } = block;
            for x in [resid_in, ln_1_out, qkv, head_out, resid_mid, ln_2_out, mlp_slope, mlp_key] {
                shorten(x, n);
            }
            let past: usize = batch.starts().iter().sum();
            block.past = block.past.slice(s![..past, ..]).to_shared();
            block.attn.truncate(weights);
            stats(&mut block.ln_1);
            stats(&mut block.ln_2);
        }
        shorten(&mut self.resid, n);
        shorten(&mut self.hidden, n);
        stats(&mut self.ln_f);
    }
}

/// GPT-2: weights in, states and logits out. The weights carry the configuration.
impl<F: Scalar> Params<F> {
    /// Token plus position embeddings, `x_0 [n, d]`.
    pub fn embed(&self, batch: &Batch) -> Array2<F> {
        let d = self.config().n_embd;
        let (wte, wpe) = (self.get(ParamId::TokenEmbedding), self.get(ParamId::PositionEmbedding));
        let mut x = Array2::zeros((batch.n_rows(), d));
        for (sequence, &start) in batch.sequences().zip(batch.starts()) {
            for (position, row) in (start..).zip(sequence) {
                let token = batch.tokens()[row] as usize;
                let mut out = x.row_mut(row);
                let out = out.as_slice_mut().expect("rows are contiguous");
                out.copy_from_slice(&wte[token * d..(token + 1) * d]);
                axpy(F::one(), &wpe[position * d..(position + 1) * d], out);
            }
        }
        x
    }

    /// Runs blocks `layers` on the residual stream `x [n, d]` that enters the first of them.
    pub fn blocks(
        &self,
        batch: &Batch,
        x: Array2<F>,
        layers: Range<usize>,
        tap: &mut impl Tap<F>,
    ) -> Array2<F> {
        self.blocks_after(batch, &Past::none(self.config()), x, layers, tap)
    }

    /// The same for the ends of sequences, given the keys and values of what comes before.
    pub fn blocks_after(
        &self,
        batch: &Batch,
        past: &Past<F>,
        x: Array2<F>,
        layers: Range<usize>,
        tap: &mut impl Tap<F>,
    ) -> Array2<F> {
        layers.fold(x, |x, layer| self.block(batch, x, past.qkv[layer].clone(), layer, None, tap, false).0)
    }

    /// Hidden states after the final LayerNorm `[n, d]`.
    pub fn hidden(&self, batch: &Batch) -> Array2<F> {
        let x = self.blocks(batch, self.embed(batch), 0..self.config().n_layer, &mut ());
        self.final_norm(x.view())
    }

    /// Hidden states of the given rows alone, ascending: `[rows, d]`. The last block goes on with those rows only.
    pub fn hidden_at(&self, batch: &Batch, rows: &[usize]) -> Array2<F> {
        let last = self.config().n_layer - 1;
        let x = self.blocks(batch, self.embed(batch), 0..last, &mut ());
        let past = ArcArray2::zeros((0, 3 * self.config().n_embd));
        let (x, _) = self.block(batch, x, past, last, Some(rows), &mut (), false);
        self.final_norm(x.view())
    }

    /// The final LayerNorm of any rows of the last residual stream.
    pub fn final_norm(&self, x: ArrayView2<F>) -> Array2<F> {
        self.layer_norm(Norm::Final, x)
    }

    /// One of the model's LayerNorms on any rows `x [n, d]`.
    pub fn layer_norm(&self, norm: Norm, x: ArrayView2<F>) -> Array2<F> {
        let (gain, bias) = norm.params();
        self.norm(x, gain, bias).0
    }

    /// Logits `[rows, V]` of the given hidden states `[rows, d]`.
    pub fn logits(&self, hidden: ArrayView2<F>) -> Array2<F> {
        let wte = self.matrix(ParamId::TokenEmbedding);
        let mut logits = Array2::zeros((hidden.nrows(), wte.nrows()));
        gemm(F::one(), hidden, wte.t(), F::zero(), logits.view_mut());
        logits
    }

    /// A whole forward pass, keeping what [`Params::backward`] needs.
    pub fn trace(&self, batch: &Batch, tap: &mut impl Tap<F>) -> Trace<F> {
        self.trace_from(batch, self.embed(batch), 0, tap)
    }

    /// The same from the residual stream entering block `first_layer`.
    pub fn trace_from(
        &self,
        batch: &Batch,
        resid: Array2<F>,
        first_layer: usize,
        tap: &mut impl Tap<F>,
    ) -> Trace<F> {
        let past = Past::none(self.config());
        self.trace_after(batch, past, resid, first_layer, tap)
    }

    /// Keys and values of the first `starts[i]` tokens of each sequence, for passes over what follows them.
    ///
    /// # Errors
    /// When a beginning does not fit the model.
    pub fn past<S: AsRef<[u32]>>(&self, sequences: &[S], starts: &[usize]) -> Result<Past<F>> {
        let beginnings: Vec<&[u32]> = sequences
            .iter()
            .zip(starts)
            .filter(|(_, start)| **start > 0)
            .map(|(sequence, &start)| &sequence.as_ref()[..start])
            .collect();
        if beginnings.is_empty() {
            return Ok(Past::none(self.config()));
        }
        let batch = Batch::new(self.config(), &beginnings)?;
        let mut qkv = Vec::with_capacity(self.config().n_layer);
        let mut keep = |_: usize, site: Site, state: ArrayViewMut2<F>| {
            if site == Site::Qkv {
                qkv.push(state.to_shared());
            }
        };
        let last = self.config().n_layer - 1;
        let x = self.blocks(&batch, self.embed(&batch), 0..last, &mut keep);
        // Of the last block only keys and values are wanted.
        let none = ArcArray2::zeros((0, 3 * self.config().n_embd));
        self.block(&batch, x, none, last, Some(&[]), &mut keep, false);
        Ok(Past { qkv })
    }

    /// A pass over the ends of sequences, from the residual stream entering block `first_layer`. Gradients do not flow
    /// into the past.
    ///
    /// # Panics
    /// When `past` does not have as many rows as the batch's starts say, or any where sequences share rows.
    pub fn trace_after(
        &self,
        batch: &Batch,
        past: Past<F>,
        resid: Array2<F>,
        first_layer: usize,
        tap: &mut impl Tap<F>,
    ) -> Trace<F> {
        self.trace_blocks(batch, past, resid, first_layer, None, tap)
    }

    /// The same for a loss that reads the hidden states of some rows alone, given in ascending order: the trace's
    /// `hidden` is `[reads, d]`, [`Params::backward`] takes a gradient of that shape, and the last block does no work for
    /// other rows once it has their keys and values. A tap sees those rows alone from there on.
    ///
    /// # Panics
    /// As [`Params::trace_after`], and when no block is run.
    pub fn trace_reads(
        &self,
        batch: &Batch,
        past: Past<F>,
        resid: Array2<F>,
        first_layer: usize,
        reads: &[usize],
        tap: &mut impl Tap<F>,
    ) -> Trace<F> {
        assert!(first_layer < self.config().n_layer, "rows are left out in a block");
        self.trace_blocks(batch, past, resid, first_layer, Some(reads), tap)
    }

    fn trace_blocks(
        &self,
        batch: &Batch,
        past: Past<F>,
        resid: Array2<F>,
        first_layer: usize,
        reads: Option<&[usize]>,
        tap: &mut impl Tap<F>,
    ) -> Trace<F> {
        let n_layer = self.config().n_layer;
        let mut blocks = Vec::with_capacity(n_layer - first_layer);
        let mut x = resid;
        for (layer, past) in past.qkv.into_iter().enumerate().skip(first_layer) {
            let reads = reads.filter(|_| layer + 1 == n_layer);
            let (out, block) = self.block(batch, x, past, layer, reads, tap, true);
            x = out;
            blocks.extend(block);
        }
        let (hidden, ln_f) = self.norm(x.view(), ParamId::FinalNormWeight, ParamId::FinalNormBias);
        Trace { first_layer, blocks, resid: x, ln_f, hidden }
    }

    /// Attention of one layer on queries, keys and values `qkv [n, 3d]`: the weighted values, heads side by side `[n, d]`.
    pub fn attend(&self, batch: &Batch, past: &Past<F>, layer: usize, qkv: ArrayView2<F>) -> Array2<F> {
        attention(self.config(), batch, past.qkv[layer].view(), qkv, None).0
    }

    /// What the MLP of a layer adds to the residual stream, from the output of its LayerNorm `[n, d]`.
    pub fn mlp(&self, layer: usize, ln_out: ArrayView2<F>) -> Array2<F> {
        let id = |param| ParamId::Block(layer, param);
        let mut key = self.linear(ln_out, id(BlockParam::MlpInWeight), id(BlockParam::MlpInBias));
        gelu(&mut key);
        self.linear(key.view(), id(BlockParam::MlpOutWeight), id(BlockParam::MlpOutBias))
    }

    /// One block; with `traced` also what its backward pass needs.
    fn block(
        &self,
        batch: &Batch,
        mut resid_in: Array2<F>,
        past: ArcArray2<F>,
        layer: usize,
        reads: Option<&[usize]>,
        tap: &mut impl Tap<F>,
        traced: bool,
    ) -> (Array2<F>, Option<BlockTrace<F>>) {
        let id = |param| ParamId::Block(layer, param);
        tap.visit(layer, Site::ResidIn, resid_in.view_mut());
        let (mut ln_1_out, ln_1) =
            self.norm(resid_in.view(), id(BlockParam::Ln1Weight), id(BlockParam::Ln1Bias));
        tap.visit(layer, Site::Ln1Out, ln_1_out.view_mut());
        let mut qkv = self.linear(ln_1_out.view(), id(BlockParam::AttnInWeight), id(BlockParam::AttnInBias));
        tap.visit(layer, Site::Qkv, qkv.view_mut());
        let (mut head_out, attn) = attention(self.config(), batch, past.view(), qkv.view(), reads);
        tap.visit(layer, Site::HeadOut, head_out.view_mut());
        let mut resid_mid = if tap.provides(Site::AttnOut) {
            Array2::zeros(head_out.dim())
        } else {
            self.linear(head_out.view(), id(BlockParam::AttnOutWeight), id(BlockParam::AttnOutBias))
        };
        tap.visit(layer, Site::AttnOut, resid_mid.view_mut());
        match reads {
            None => resid_mid += &resid_in,
            Some(rows) => resid_mid += &resid_in.select(Axis(0), rows),
        }
        tap.visit(layer, Site::ResidMid, resid_mid.view_mut());
        let (mut ln_2_out, ln_2) =
            self.norm(resid_mid.view(), id(BlockParam::Ln2Weight), id(BlockParam::Ln2Bias));
        tap.visit(layer, Site::Ln2Out, ln_2_out.view_mut());
        let mut mlp_pre =
            self.linear(ln_2_out.view(), id(BlockParam::MlpInWeight), id(BlockParam::MlpInBias));
        tap.visit(layer, Site::MlpPre, mlp_pre.view_mut());
        let (mut mlp_key, mlp_slope) = if traced {
            let mlp_key = gelu_with_slope(&mut mlp_pre);
            (mlp_key, mlp_pre)
        } else {
            gelu(&mut mlp_pre);
            (mlp_pre, Array2::zeros((0, 0)))
        };
        tap.visit(layer, Site::MlpKey, mlp_key.view_mut());
        let mut resid_out =
            self.linear(mlp_key.view(), id(BlockParam::MlpOutWeight), id(BlockParam::MlpOutBias));
        tap.visit(layer, Site::MlpOut, resid_out.view_mut());
        resid_out += &resid_mid;
        tap.visit(layer, Site::ResidOut, resid_out.view_mut());
        let trace = traced.then(|| BlockTrace {
            reads: reads.map(<[usize]>::to_vec),
            resid_in,
            ln_1,
            ln_1_out,
            qkv,
            past,
            attn,
            head_out,
            resid_mid,
            ln_2,
            ln_2_out,
            mlp_slope,
            mlp_key,
        });
        (resid_out, trace)
    }

    /// `x W + b` with `x [n, in]`, `W [in, out]`, `b [out]`.
    fn linear(&self, x: ArrayView2<F>, weight: ParamId, bias: ParamId) -> Array2<F> {
        let bias = self.get(bias);
        if let Some(thin) = self.thin(weight) {
            return thin.apply(x, bias);
        }
        let rows = bias.repeat(x.nrows());
        let mut y = Array2::from_shape_vec((x.nrows(), bias.len()), rows).expect("a bias for each row");
        gemm(F::one(), x, self.matrix(weight), F::one(), y.view_mut());
        y
    }

    /// LayerNorm over each row of `x [n, d]`: `(x - mean) rstd gain + bias` with the biased variance.
    fn norm(&self, x: ArrayView2<F>, gain: ParamId, bias: ParamId) -> (Array2<F>, NormStats<F>) {
        let (n, d) = x.dim();
        let epsilon = F::of(self.config().layer_norm_epsilon);
        let inv_d = F::one() / F::of(d as f64);
        let (gain, bias) = (self.get(gain), self.get(bias));
        let mut out = written_zeros(n, d);
        let mut stats = NormStats { mean: vec![F::zero(); n], rstd: vec![F::zero(); n] };
        let rows = rows_in_piece(d);
        let pieces = out.as_slice_mut().expect("fresh arrays are contiguous").par_chunks_mut(rows * d);
        let pieces = pieces.zip(x.axis_chunks_iter(Axis(0), rows));
        let of_rows = stats.mean.par_chunks_mut(rows).zip(stats.rstd.par_chunks_mut(rows));
        pieces.zip(of_rows).for_each(|((out, x), (means, rstds))| {
            let rows = out.chunks_exact_mut(d).zip(x.rows());
            for ((out, x), (mean, rstd)) in rows.zip(means.iter_mut().zip(rstds)) {
                let x = x.to_slice().expect("rows are contiguous");
                *mean = sum(x) * inv_d;
                for (out, &x) in out.iter_mut().zip(x) {
                    *out = x - *mean;
                }
                *rstd = F::one() / (dot(out, out) * inv_d + epsilon).sqrt();
                for ((out, &gain), &bias) in out.iter_mut().zip(gain).zip(bias) {
                    *out = *out * *rstd * gain + bias;
                }
            }
        });
        (out, stats)
    }
}

/// Rows of a matrix, in the order given.
pub fn select_rows<F: Scalar>(x: ArrayView2<F>, rows: &[usize]) -> Array2<F> {
    x.select(Axis(0), rows)
}

/// Softmax in place, shifted by the maximum.
pub(crate) fn softmax<F: Scalar>(x: &mut [F]) {
    shifted_exponentials(x, max(x));
    let inv = F::one() / sum(x);
    x.iter_mut().for_each(|x| *x *= inv);
}
