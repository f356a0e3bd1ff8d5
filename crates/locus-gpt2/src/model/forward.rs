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

use ndarray::{Array2, ArrayView2, Axis};
use rayon::prelude::*;

use super::attention::{attention, hook_patterns};
use super::batch::Batch;
use super::hooks::{Hook, HookPoint};
use super::ids::{BlockParam, ParamId};
use super::tape::{BlockTape, NormStats, Tape};
use super::weights::Gpt2;
use crate::kernels::activation::{gelu, gelu_with_slope};
use crate::kernels::gemm::gemm;
use crate::kernels::number::Number;
use crate::kernels::vector::{axpy, dot, rows_in_piece, sum, written_zeros};

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

/// Token plus position embeddings, `x_0 [n, d]`.
pub(crate) fn embed<F: Number>(model: &Gpt2<F>, batch: &Batch<F>) -> Array2<F> {
    let d = model.config().n_embd;
    let (wte, wpe) = (model.get(ParamId::TokenEmbedding), model.get(ParamId::PositionEmbedding));
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

/// Runs one block on the residual stream `[n, d]` that enters it. Gives the residual stream that leaves it (of the rows
/// in `reads` alone where they are given) and, with `taped`, what its backward pass needs.
fn block<F: Number>(
    model: &Gpt2<F>,
    batch: &Batch<F>,
    layer: usize,
    mut resid_pre: Array2<F>,
    reads: Option<&[usize]>,
    hook: &mut dyn Hook<F>,
    taped: bool,
) -> (Array2<F>, Option<BlockTape<F>>) {
    let id = |param| ParamId::Block(layer, param);
    hook.call(layer, HookPoint::ResidPre, resid_pre.view_mut());
    let (mut ln_1_out, ln_1) = layer_norm(model, Norm::Attention(layer), resid_pre.view());
    hook.call(layer, HookPoint::Ln1, ln_1_out.view_mut());
    let mut qkv = linear(model, ln_1_out.view(), id(BlockParam::AttnInWeight), id(BlockParam::AttnInBias));
    hook.call(layer, HookPoint::Qkv, qkv.view_mut());
    let (mut z, mut attn) = attention(model.config(), batch, layer, qkv.view(), reads);
    let pattern_is_given = hook.wants_pattern(layer);
    if pattern_is_given {
        hook_patterns(model.config(), batch, layer, qkv.view(), reads, (&mut z, &mut attn), hook);
    }
    hook.call(layer, HookPoint::Z, z.view_mut());
    let mut resid_mid = if hook.overwrites(HookPoint::AttnOut) {
        Array2::zeros(z.dim())
    } else {
        linear(model, z.view(), id(BlockParam::AttnOutWeight), id(BlockParam::AttnOutBias))
    };
    hook.call(layer, HookPoint::AttnOut, resid_mid.view_mut());
    match reads {
        None => resid_mid += &resid_pre,
        Some(rows) => resid_mid += &resid_pre.select(Axis(0), rows),
    }
    hook.call(layer, HookPoint::ResidMid, resid_mid.view_mut());
    let (mut ln_2_out, ln_2) = layer_norm(model, Norm::Mlp(layer), resid_mid.view());
    hook.call(layer, HookPoint::Ln2, ln_2_out.view_mut());
    let mut mlp_pre = linear(model, ln_2_out.view(), id(BlockParam::MlpInWeight), id(BlockParam::MlpInBias));
    hook.call(layer, HookPoint::MlpPre, mlp_pre.view_mut());
    let (mut mlp_post, mlp_slope) = if taped {
        let mlp_post = gelu_with_slope(&mut mlp_pre);
        (mlp_post, mlp_pre)
    } else {
        gelu(&mut mlp_pre);
        (mlp_pre, Array2::zeros((0, 0)))
    };
    hook.call(layer, HookPoint::MlpPost, mlp_post.view_mut());
    let mut resid_post =
        linear(model, mlp_post.view(), id(BlockParam::MlpOutWeight), id(BlockParam::MlpOutBias));
    hook.call(layer, HookPoint::MlpOut, resid_post.view_mut());
    resid_post += &resid_mid;
    hook.call(layer, HookPoint::ResidPost, resid_post.view_mut());
    let tape = taped.then(|| BlockTape {
        reads: reads.map(<[usize]>::to_vec),
        pattern_is_given,
        resid_pre,
        ln_1,
        ln_1_out,
        qkv,
        attn,
        z,
        resid_mid,
        ln_2,
        ln_2_out,
        mlp_slope,
        mlp_post,
    });
    (resid_post, tape)
}

/// Attention of one layer on queries, keys and values `qkv [n, 3d]`: the weighted values, heads side by side `[n, d]`.
pub(crate) fn attend<F: Number>(
    model: &Gpt2<F>,
    batch: &Batch<F>,
    layer: usize,
    qkv: ArrayView2<F>,
) -> Array2<F> {
    attention(model.config(), batch, layer, qkv, None).0
}

/// What the MLP of a layer adds to the residual stream, from the output of its LayerNorm `[n, d]`.
pub(crate) fn mlp<F: Number>(model: &Gpt2<F>, layer: usize, ln_out: ArrayView2<F>) -> Array2<F> {
    let id = |param| ParamId::Block(layer, param);
    let mut mlp_post = linear(model, ln_out, id(BlockParam::MlpInWeight), id(BlockParam::MlpInBias));
    gelu(&mut mlp_post);
    linear(model, mlp_post.view(), id(BlockParam::MlpOutWeight), id(BlockParam::MlpOutBias))
}

/// Logits `[rows, V]` of hidden states `[rows, d]`.
pub(crate) fn logits<F: Number>(model: &Gpt2<F>, hidden: ArrayView2<F>) -> Array2<F> {
    let wte = model.matrix(ParamId::TokenEmbedding);
    let mut logits = Array2::zeros((hidden.nrows(), wte.nrows()));
    gemm(F::one(), hidden, wte.t(), F::zero(), logits.view_mut());
    logits
}

/// `x W + b` with `x [n, in]`, `W [in, out]`, `b [out]`.
fn linear<F: Number>(model: &Gpt2<F>, x: ArrayView2<F>, weight: ParamId, bias: ParamId) -> Array2<F> {
    let bias = model.get(bias);
    assert_eq!(x.ncols(), weight.shape(model.config()).0, "columns of the rows and inputs of {weight}");
    if let Some(sparse) = model.sparse(weight) {
        return sparse.apply(x, bias);
    }
    let rows = bias.repeat(x.nrows());
    let mut y = Array2::from_shape_vec((x.nrows(), bias.len()), rows).expect("a bias for each row");
    gemm(F::one(), x, model.matrix(weight), F::one(), y.view_mut());
    y
}

/// LayerNorm over each row of `x [n, d]`: `(x - mean) rstd gain + bias` with the biased variance.
pub(crate) fn layer_norm<F: Number>(
    model: &Gpt2<F>,
    norm: Norm,
    x: ArrayView2<F>,
) -> (Array2<F>, NormStats<F>) {
    let (n, d) = x.dim();
    let epsilon = F::from_f64(model.config().layer_norm_epsilon);
    let inv_d = F::one() / F::from_f64(d as f64);
    let (gain, bias) = norm.params();
    let (gain, bias) = (model.get(gain), model.get(bias));
    assert_eq!(d, gain.len(), "width of the rows and of {norm:?}");
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

/// A forward pass over some layers.
pub(crate) struct Pass<'a, F> {
    pub model: &'a Gpt2<F>,
    pub batch: &'a Batch<F>,
    /// Residual stream that enters the first of the layers, `[n, d]`.
    pub resid: Array2<F>,
    pub layers: Range<usize>,
    /// Rows with which the last block goes on, ascending; `None` for all.
    pub reads: Option<&'a [usize]>,
}

/// Runs the blocks of a pass. Gives the residual stream that leaves the last of them and, with `taped`, what their
/// backward passes need. With no block to run, the rows in `reads` are selected.
fn blocks<F: Number>(pass: Pass<F>, hook: &mut dyn Hook<F>, taped: bool) -> (Array2<F>, Vec<BlockTape<F>>) {
    let Pass { model, batch, resid, layers, reads } = pass;
    if let Some(rows) = reads.filter(|_| layers.is_empty()) {
        return (resid.select(Axis(0), rows), Vec::new());
    }
    let (mut x, last) = (resid, layers.end);
    let mut tapes = Vec::with_capacity(if taped { layers.len() } else { 0 });
    for layer in layers {
        let reads = reads.filter(|_| layer + 1 == last);
        let (out, tape) = block(model, batch, layer, x, reads, hook, taped);
        x = out;
        tapes.extend(tape);
    }
    (x, tapes)
}

/// The residual stream that leaves the last layer of a pass, `[n, d]`.
pub(crate) fn resid<F: Number>(pass: Pass<F>, hook: &mut dyn Hook<F>) -> Array2<F> {
    blocks(pass, hook, false).0
}

/// Hidden states after the final LayerNorm, `[n, d]`.
pub(crate) fn hidden<F: Number>(pass: Pass<F>, hook: &mut dyn Hook<F>) -> Array2<F> {
    let model = pass.model;
    final_norm(model, resid(pass, hook).view(), hook).0
}

/// Runs a pass and keeps everything that its backward pass needs.
pub(crate) fn tape<F: Number>(pass: Pass<F>, hook: &mut dyn Hook<F>) -> Tape<F> {
    let (model, batch, first_layer) = (pass.model, pass.batch.clone(), pass.layers.start);
    let reads = pass.reads.filter(|_| pass.layers.is_empty()).map(<[usize]>::to_vec);
    let (resid, blocks) = blocks(pass, hook, true);
    let (hidden, ln_f) = final_norm(model, resid.view(), hook);
    Tape { batch, first_layer, blocks, reads, resid, ln_f, hidden }
}

fn final_norm<F: Number>(
    model: &Gpt2<F>,
    resid: ArrayView2<F>,
    hook: &mut dyn Hook<F>,
) -> (Array2<F>, NormStats<F>) {
    let (mut hidden, stats) = layer_norm(model, Norm::Final, resid);
    hook.call(model.config().n_layer, HookPoint::LnFinal, hidden.view_mut());
    (hidden, stats)
}
