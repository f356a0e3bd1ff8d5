//! The backward pass, written by hand.
//!
//! `d_y` stands for the gradient of the loss with respect to `y`. What is computed is what the caller made room for:
//! a parameter that is absent from `grads` costs nothing, and with no parameters at all the pass yields gradients of
//! activations only.

use ndarray::{Array2, ArrayView2, ArrayViewMut2, Axis, Zip};
use rayon::prelude::*;

use crate::attention::attention_backward;
use crate::batch::Batch;
use crate::forward::{BlockTrace, Norm, NormStats, Site, Tap, Trace};
use crate::linalg::{add_column_sums, axpy, dot, gemm, rows_in_piece, sum};
use crate::params::{BlockParam, ParamId, Params};
use crate::scalar::Scalar;

impl<F: Scalar> Params<F> {
    /// Gradient of a loss whose gradient with respect to the trace's hidden states is `d_hidden [n, d]` (or of the rows
    /// that the trace was asked for).
    ///
    /// Adds to the parameters present in `grads` and returns the gradient of the residual stream entering the trace's
    /// first layer `[n, d]`. When the trace begins at the embeddings and `grads` holds them, they receive their share.
    pub fn backward(
        &self,
        batch: &Batch,
        trace: &Trace<F>,
        d_hidden: ArrayView2<F>,
        grads: &mut Params<F>,
        tap: &mut impl Tap<F>,
    ) -> Array2<F> {
        let mut d_x = self.norm_backward(
            trace.resid.view(),
            &trace.ln_f,
            d_hidden,
            (ParamId::FinalNormWeight, ParamId::FinalNormBias),
            grads,
        );
        for (i, block) in trace.blocks.iter().enumerate().rev() {
            d_x = self.block_backward(batch, block, d_x, trace.first_layer + i, grads, tap);
        }
        if trace.first_layer == 0 {
            embed_backward(batch, d_x.view(), grads);
        }
        d_x
    }

    /// Backward of [`Params::logits`]: from `d_logits [rows, V]` at `hidden [rows, d]` to the gradient of those hidden
    /// states; adds to the token embedding's gradient when `grads` holds it.
    pub fn logits_backward(
        &self,
        hidden: ArrayView2<F>,
        d_logits: ArrayView2<F>,
        grads: &mut Params<F>,
    ) -> Array2<F> {
        // forward: logits = hidden wte^T
        let mut d_hidden = Array2::zeros(hidden.dim());
        gemm(F::one(), d_logits, self.matrix(ParamId::TokenEmbedding), F::zero(), d_hidden.view_mut());
        if let Some(d_wte) = grads.matrix_mut(ParamId::TokenEmbedding) {
            gemm(F::one(), d_logits.t(), hidden, F::one(), d_wte);
        }
        d_hidden
    }

    fn block_backward(
        &self,
        batch: &Batch,
        trace: &BlockTrace<F>,
        mut d_out: Array2<F>,
        layer: usize,
        grads: &mut Params<F>,
        tap: &mut impl Tap<F>,
    ) -> Array2<F> {
        let id = |param| ParamId::Block(layer, param);
        tap.visit(layer, Site::ResidOut, d_out.view_mut());

        // resid_out = resid_mid + key W_out + b_out, key = gelu(pre), pre = ln_2(resid_mid) W_in + b_in
        let mut d_mlp = d_out.clone();
        tap.visit(layer, Site::MlpOut, d_mlp.view_mut());
        let weights = (id(BlockParam::MlpOutWeight), id(BlockParam::MlpOutBias));
        let mut d_key = self.linear_backward(trace.mlp_key.view(), d_mlp.view(), weights, grads);
        tap.visit(layer, Site::MlpKey, d_key.view_mut());
        Zip::from(&mut d_key).and(&trace.mlp_slope).par_for_each(|d, &slope| *d *= slope);
        tap.visit(layer, Site::MlpPre, d_key.view_mut());
        let weights = (id(BlockParam::MlpInWeight), id(BlockParam::MlpInBias));
        let mut d_ln = self.linear_backward(trace.ln_2_out.view(), d_key.view(), weights, grads);
        tap.visit(layer, Site::Ln2Out, d_ln.view_mut());
        let gains = (id(BlockParam::Ln2Weight), id(BlockParam::Ln2Bias));
        let mut d_mid = self.norm_backward(trace.resid_mid.view(), &trace.ln_2, d_ln.view(), gains, grads);
        d_mid += &d_out;
        tap.visit(layer, Site::ResidMid, d_mid.view_mut());

        // resid_mid = resid_in + z W_o + b_o, z = attention(qkv), qkv = ln_1(resid_in) W_qkv + b_qkv
        let mut d_attn = d_mid.clone();
        tap.visit(layer, Site::AttnOut, d_attn.view_mut());
        let weights = (id(BlockParam::AttnOutWeight), id(BlockParam::AttnOutBias));
        let mut d_z = self.linear_backward(trace.head_out.view(), d_attn.view(), weights, grads);
        tap.visit(layer, Site::HeadOut, d_z.view_mut());
        let mut d_qkv = attention_backward(self.config(), batch, trace, d_z.view());
        tap.visit(layer, Site::Qkv, d_qkv.view_mut());
        let weights = (id(BlockParam::AttnInWeight), id(BlockParam::AttnInBias));
        let mut d_ln = if tap.provides(Site::Ln1Out) {
            add_weight_gradients(trace.ln_1_out.view(), d_qkv.view(), weights, grads);
            Array2::zeros(trace.resid_in.dim())
        } else {
            self.linear_backward(trace.ln_1_out.view(), d_qkv.view(), weights, grads)
        };
        tap.visit(layer, Site::Ln1Out, d_ln.view_mut());
        let gains = (id(BlockParam::Ln1Weight), id(BlockParam::Ln1Bias));
        let mut d_in = self.norm_backward(trace.resid_in.view(), &trace.ln_1, d_ln.view(), gains, grads);
        match &trace.reads {
            None => d_in += &d_mid,
            Some(rows) => {
                for (&row, d_mid) in rows.iter().zip(d_mid.rows()) {
                    let mut d_in = d_in.row_mut(row);
                    d_in += &d_mid;
                }
            }
        }
        tap.visit(layer, Site::ResidIn, d_in.view_mut());
        d_in
    }

    /// forward: `y = x W + b`; so `d_x = d_y W^T`, `d_W = x^T d_y`, `d_b = sum of rows of d_y`.
    fn linear_backward(
        &self,
        x: ArrayView2<F>,
        d_y: ArrayView2<F>,
        (weight, bias): (ParamId, ParamId),
        grads: &mut Params<F>,
    ) -> Array2<F> {
        add_weight_gradients(x, d_y, (weight, bias), grads);
        if let Some(thin) = self.thin(weight) {
            return thin.apply_transposed(d_y);
        }
        let mut d_x = Array2::zeros(x.dim());
        gemm(F::one(), d_y, self.matrix(weight).t(), F::zero(), d_x.view_mut());
        d_x
    }

    /// forward: `y = xhat gain + bias`, `xhat = (x - mean) rstd`. With `g = d_y gain`:
    /// `d_x = rstd (g - mean(g) - xhat mean(g xhat))`, `d_gain = sum d_y xhat`, `d_bias = sum d_y`.
    fn norm_backward(
        &self,
        x: ArrayView2<F>,
        stats: &NormStats<F>,
        d_y: ArrayView2<F>,
        (gain, bias): (ParamId, ParamId),
        grads: &mut Params<F>,
    ) -> Array2<F> {
        let mut d_gain = vec![F::zero(); if grads.has(gain) { x.ncols() } else { 0 }];
        let mut d_x = d_y.to_owned();
        norm_rows_backward(x, stats, self.get(gain), d_x.view_mut(), &mut d_gain);
        if grads.has(gain) {
            axpy(F::one(), &d_gain, grads.get_mut(gain));
        }
        if grads.has(bias) {
            add_column_sums(d_y, grads.get_mut(bias));
        }
        d_x
    }

    /// Turns a gradient at the output of a LayerNorm into one at its input, in place: `d [n, d]`, the rows of the
    /// trace. The path around the block (the residual connection) is not included.
    ///
    /// # Panics
    /// When the trace does not reach that far down.
    pub fn through_norm(&self, trace: &Trace<F>, norm: Norm, d: ArrayViewMut2<F>) {
        let block = |layer: usize| &trace.blocks[layer - trace.first_layer];
        let (x, stats) = match norm {
            Norm::Attention(layer) => (&block(layer).resid_in, &block(layer).ln_1),
            Norm::Mlp(layer) => (&block(layer).resid_mid, &block(layer).ln_2),
            Norm::Final => (&trace.resid, &trace.ln_f),
        };
        norm_rows_backward(x.view(), stats, self.get(norm.params().0), d, &mut []);
    }
}

/// The formula of [`Params::norm_backward`], row by row: `d` is `d_y` on entry and `d_x` on return. Adds to `d_gain`
/// unless it is empty.
fn norm_rows_backward<F: Scalar>(
    x: ArrayView2<F>,
    stats: &NormStats<F>,
    gain: &[F],
    mut d: ArrayViewMut2<F>,
    d_gain: &mut [F],
) {
    let width = x.ncols();
    let inv_d = F::one() / F::of(width as f64);
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
fn add_weight_gradients<F: Scalar>(
    x: ArrayView2<F>,
    d_y: ArrayView2<F>,
    (weight, bias): (ParamId, ParamId),
    grads: &mut Params<F>,
) {
    if let Some(d_weight) = grads.matrix_mut(weight) {
        gemm(F::one(), x.t(), d_y, F::one(), d_weight);
    }
    if grads.has(bias) {
        add_column_sums(d_y, grads.get_mut(bias));
    }
}

/// Backward of [`Params::embed`]: each token's and position's row receives the gradients of the rows that read it.
fn embed_backward<F: Scalar>(batch: &Batch, d_x: ArrayView2<F>, grads: &mut Params<F>) {
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
