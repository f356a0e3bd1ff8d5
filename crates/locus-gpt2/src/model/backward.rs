//! The backward pass, written by hand.
//!
//! `d_y` stands for the gradient of the loss with respect to `y`. Gradients of parameters are computed where the caller
//! made room for them: a parameter that is absent from `grads` costs nothing, and with none at all the pass gives
//! gradients of activations alone.

use ndarray::{Array2, ArrayView2, ArrayViewMut2, Axis, Zip, s};
use rayon::prelude::*;

use super::attention::attention_backward;
use super::batch::Batch;
use super::forward::Norm;
use super::hooks::{Hook, HookPoint};
use super::ids::{BlockParam, ParamId};
use super::tape::{BlockTape, NormStats, Tape};
use super::weights::{Gpt2, ParamSet};
use crate::kernels::gemm::gemm;
use crate::kernels::number::Number;
use crate::kernels::vector::{add_column_sums, axpy, dot, rows_in_piece, sum};

/// Gradient of a loss whose gradient with respect to the tape's hidden states is `d_hidden [n, d]` (or of the rows that
/// were read): adds to the parameters present in `grads` and returns the gradient of the residual stream entering the
/// tape's first layer `[n, d]`.
pub(crate) fn backward<F: Number>(
    model: &Gpt2<F>,
    tape: &Tape<F>,
    d_hidden: ArrayView2<F>,
    grads: &mut ParamSet<F>,
    hook: &mut dyn Hook<F>,
) -> Array2<F> {
    assert_eq!(d_hidden.dim(), tape.hidden.dim(), "gradient and hidden states of the tape");
    let mut d_x = norm_backward(model, Norm::Final, (tape.resid.view(), &tape.ln_f), d_hidden, grads);
    if let Some(rows) = &tape.reads {
        let mut d_all = Array2::zeros((tape.batch.n_rows(), d_x.ncols()));
        for (&row, d) in rows.iter().zip(d_x.rows()) {
            d_all.row_mut(row).assign(&d);
        }
        d_x = d_all;
    }
    for (i, block) in tape.blocks.iter().enumerate().rev() {
        d_x = block_backward(model, &tape.batch, block, d_x, tape.first_layer + i, grads, hook);
    }
    if tape.first_layer == 0 {
        embed_backward(&tape.batch, d_x.view(), grads);
    }
    d_x
}

/// Gradient of hidden states `[rows, d]` from that of their logits, `d_logits [rows, V]`; adds to the token embedding's
/// gradient when `grads` holds it.
pub(crate) fn logits_backward<F: Number>(
    model: &Gpt2<F>,
    hidden: ArrayView2<F>,
    d_logits: ArrayView2<F>,
    grads: &mut ParamSet<F>,
) -> Array2<F> {
    // forward: logits = hidden wte^T
    let mut d_hidden = Array2::zeros(hidden.dim());
    gemm(F::one(), d_logits, model.matrix(ParamId::TokenEmbedding), F::zero(), d_hidden.view_mut());
    if let Some(d_wte) = grads.matrix_mut(ParamId::TokenEmbedding) {
        gemm(F::one(), d_logits.t(), hidden, F::one(), d_wte);
    }
    d_hidden
}

/// Turns a gradient at the output of a LayerNorm into one at its input, in place: `d [n, d]`, the rows of the tape.
pub(crate) fn through_norm<F: Number>(model: &Gpt2<F>, tape: &Tape<F>, norm: Norm, d: ArrayViewMut2<F>) {
    let block = |layer: usize| {
        let block = layer.checked_sub(tape.first_layer).and_then(|i| tape.blocks.get(i));
        block.unwrap_or_else(|| panic!("{norm:?} is not on a tape from layer {}", tape.first_layer))
    };
    let (x, stats) = match norm {
        Norm::Attention(layer) => (&block(layer).resid_pre, &block(layer).ln_1),
        Norm::Mlp(layer) => (&block(layer).resid_mid, &block(layer).ln_2),
        Norm::Final => (&tape.resid, &tape.ln_f),
    };
    assert_eq!(d.dim(), x.dim(), "a gradient at {norm:?} and the rows on the tape");
    norm_rows_backward(x.view(), stats, model.get(norm.params().0), d, &mut []);
}

fn block_backward<F: Number>(
    model: &Gpt2<F>,
    batch: &Batch<F>,
    tape: &BlockTape<F>,
    mut d_out: Array2<F>,
    layer: usize,
    grads: &mut ParamSet<F>,
    hook: &mut dyn Hook<F>,
) -> Array2<F> {
    let id = |param| ParamId::Block(layer, param);
    hook.call(layer, HookPoint::ResidPost, d_out.view_mut());

    // resid_post = resid_mid + post W_out + b_out, post = gelu(pre), pre = ln_2(resid_mid) W_in + b_in
    let mut d_mlp = d_out.clone();
    hook.call(layer, HookPoint::MlpOut, d_mlp.view_mut());
    let weights = (id(BlockParam::MlpOutWeight), id(BlockParam::MlpOutBias));
    let mut d_post = linear_backward(model, tape.mlp_post.view(), d_mlp.view(), weights, grads);
    hook.call(layer, HookPoint::MlpPost, d_post.view_mut());
    Zip::from(&mut d_post).and(&tape.mlp_slope).par_for_each(|d, &slope| *d *= slope);
    hook.call(layer, HookPoint::MlpPre, d_post.view_mut());
    let weights = (id(BlockParam::MlpInWeight), id(BlockParam::MlpInBias));
    let mut d_ln = linear_backward(model, tape.ln_2_out.view(), d_post.view(), weights, grads);
    hook.call(layer, HookPoint::Ln2, d_ln.view_mut());
    let states = (tape.resid_mid.view(), &tape.ln_2);
    let mut d_mid = norm_backward(model, Norm::Mlp(layer), states, d_ln.view(), grads);
    d_mid += &d_out;
    hook.call(layer, HookPoint::ResidMid, d_mid.view_mut());

    // resid_mid = resid_pre + z W_o + b_o, z = attention(qkv), qkv = ln_1(resid_pre) W_qkv + b_qkv
    let mut d_attn = d_mid.clone();
    hook.call(layer, HookPoint::AttnOut, d_attn.view_mut());
    let weights = (id(BlockParam::AttnOutWeight), id(BlockParam::AttnOutBias));
    let mut d_z = linear_backward(model, tape.z.view(), d_attn.view(), weights, grads);
    hook.call(layer, HookPoint::Z, d_z.view_mut());
    let states = (tape.qkv.view(), tape.attn.as_slice());
    let mut d_qkv =
        attention_backward(model.config(), batch, layer, states, tape.reads.as_deref(), d_z.view());
    if tape.pattern_is_given {
        // Queries and keys act through the pattern alone.
        d_qkv.slice_mut(s![.., ..2 * model.config().n_embd]).fill(F::zero());
    }
    hook.call(layer, HookPoint::Qkv, d_qkv.view_mut());
    let weights = (id(BlockParam::AttnInWeight), id(BlockParam::AttnInBias));
    let mut d_ln = if hook.overwrites(HookPoint::Ln1) {
        add_weight_gradients(tape.ln_1_out.view(), d_qkv.view(), weights, grads);
        Array2::zeros(tape.resid_pre.dim())
    } else {
        linear_backward(model, tape.ln_1_out.view(), d_qkv.view(), weights, grads)
    };
    hook.call(layer, HookPoint::Ln1, d_ln.view_mut());
    let states = (tape.resid_pre.view(), &tape.ln_1);
    let mut d_pre = norm_backward(model, Norm::Attention(layer), states, d_ln.view(), grads);
    match &tape.reads {
        None => d_pre += &d_mid,
        Some(rows) => {
            for (&row, d_mid) in rows.iter().zip(d_mid.rows()) {
                let mut d_pre = d_pre.row_mut(row);
                d_pre += &d_mid;
            }
        }
    }
    hook.call(layer, HookPoint::ResidPre, d_pre.view_mut());
    d_pre
}

/// forward: `y = x W + b`; so `d_x = d_y W^T`, `d_W = x^T d_y`, `d_b = sum of rows of d_y`.
fn linear_backward<F: Number>(
    model: &Gpt2<F>,
    x: ArrayView2<F>,
    d_y: ArrayView2<F>,
    (weight, bias): (ParamId, ParamId),
    grads: &mut ParamSet<F>,
) -> Array2<F> {
    add_weight_gradients(x, d_y, (weight, bias), grads);
    if let Some(sparse) = model.sparse(weight) {
        return sparse.apply_transposed(d_y);
    }
    let mut d_x = Array2::zeros(x.dim());
    gemm(F::one(), d_y, model.matrix(weight).t(), F::zero(), d_x.view_mut());
    d_x
}

/// forward: `y = xhat gain + bias`, `xhat = (x - mean) rstd`. With `g = d_y gain`:
/// `d_x = rstd (g - mean(g) - xhat mean(g xhat))`, `d_gain = sum d_y xhat`, `d_bias = sum d_y`.
fn norm_backward<F: Number>(
    model: &Gpt2<F>,
    norm: Norm,
    (x, stats): (ArrayView2<F>, &NormStats<F>),
    d_y: ArrayView2<F>,
    grads: &mut ParamSet<F>,
) -> Array2<F> {
    let (gain, bias) = norm.params();
    let mut d_gain = vec![F::zero(); if grads.has(gain) { x.ncols() } else { 0 }];
    let mut d_x = d_y.to_owned();
    norm_rows_backward(x, stats, model.get(gain), d_x.view_mut(), &mut d_gain);
    if grads.has(gain) {
        axpy(F::one(), &d_gain, grads.get_mut(gain));
    }
    if grads.has(bias) {
        add_column_sums(d_y, grads.get_mut(bias));
    }
    d_x
}

/// The formula of [`norm_backward`], row by row: `d` is `d_y` on entry and `d_x` on return. Adds to `d_gain`
/// unless it is empty.
fn norm_rows_backward<F: Number>(
    x: ArrayView2<F>,
    stats: &NormStats<F>,
    gain: &[F],
    mut d: ArrayViewMut2<F>,
    d_gain: &mut [F],
) {
    let width = x.ncols();
    let inv_d = F::one() / F::from_f64(width as f64);
    let rows = rows_in_piece(width);
    let pieces = d.axis_chunks_iter_mut(Axis(0), rows).into_par_iter();
    let pieces = pieces.zip(x.axis_chunks_iter(Axis(0), rows));
    let stats = stats.mean.par_chunks(rows).zip(stats.rstd.par_chunks(rows));
    let parts: Vec<Vec<F>> = pieces
        .zip(stats)
        .map(|((mut d, x), (means, rstds))| {
            let mut xhat = vec![F::zero(); width];
            let mut d_gain = vec![F::zero(); d_gain.len()];
            let rows = x.rows().into_iter().zip(d.rows_mut());
            for ((x, mut d), (&mean, &rstd)) in rows.zip(means.iter().zip(rstds)) {
                let x = x.to_slice().expect("rows are contiguous");
                let d = d.as_slice_mut().expect("rows are contiguous");
                for (xhat, &x) in xhat.iter_mut().zip(x) {
                    *xhat = (x - mean) * rstd;
                }
                for ((d_gain, &d_y), &xhat) in d_gain.iter_mut().zip(&*d).zip(&xhat) {
                    *d_gain += d_y * xhat;
                }
                for (g, &gain) in d.iter_mut().zip(gain) {
                    *g *= gain;
                }
                let mean_g = sum(d) * inv_d;
                let mean_g_xhat = dot(d, &xhat) * inv_d;
                for (g, &xhat) in d.iter_mut().zip(&xhat) {
                    *g = rstd * (*g - mean_g - xhat * mean_g_xhat);
                }
            }
            d_gain
        })
        .collect();
    parts.iter().for_each(|part| axpy(F::one(), part, d_gain));
}

/// `d_W += x^T d_y`, `d_b += sum of rows of d_y`, where they are wanted.
fn add_weight_gradients<F: Number>(
    x: ArrayView2<F>,
    d_y: ArrayView2<F>,
    (weight, bias): (ParamId, ParamId),
    grads: &mut ParamSet<F>,
) {
    if let Some(d_weight) = grads.matrix_mut(weight) {
        gemm(F::one(), x.t(), d_y, F::one(), d_weight);
    }
    if grads.has(bias) {
        add_column_sums(d_y, grads.get_mut(bias));
    }
}

/// Backward of [`embed`](super::forward::embed): each token's and position's row receives the gradients of the rows
/// that read it.
fn embed_backward<F: Number>(batch: &Batch<F>, d_x: ArrayView2<F>, grads: &mut ParamSet<F>) {
    let d = d_x.ncols();
    for id in [ParamId::TokenEmbedding, ParamId::PositionEmbedding] {
        if !grads.has(id) {
            continue;
        }
        let table = grads.get_mut(id);
        for (sequence, &start) in batch.sequences().zip(batch.starts()) {
            for (position, row) in (start..).zip(sequence) {
                let entry =
                    if id == ParamId::TokenEmbedding { batch.tokens()[row] as usize } else { position };
                let d_row = d_x.row(row);
                axpy(
                    F::one(),
                    d_row.to_slice().expect("rows are contiguous"),
                    &mut table[entry * d..(entry + 1) * d],
                );
            }
        }
    }
}
