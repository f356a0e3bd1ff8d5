//! The QK fix of AtP*: edges into queries and keys go through the softmax exactly.
//!
//! A gradient sees nothing of an edge into a query or a key where attention is saturated. For source `u` and head `h`
//! of a layer with the input `x`, let `q_u` be the queries of `x + delta_u`, and
//!
//! ```text
//! a_u = softmax(c q_u k^T)        z_u = a_u v        score(u -> h<q>) = sum over rows and width of d_z (z_u - z)
//! ```
//!
//! with the gradient `d_z` of the loss at the head's output; keys likewise. Since `z` is linear in the pattern, this is
//! `sum (a_u - a) d_a`. LayerNorm and softmax are exact, and only what comes after the pattern is linearised.
//!
//! Source: Kramar, Lieberum, Shah, Nanda 2024 (arXiv 2403.00745), section 3.1 for the QK fix and 3.2 for GradDrop.
//! Deviations: the paper patches nodes, one position at a time, and we edges, all positions at once as exact patching
//! does; GradDrop's mean is over the passes that reach a destination, `L` for the logits and `L - 1` for others.
//!
//! Letters: `n` rows, `d` width, `S` sources, `D` destinations, `H` heads, `L` layers.

use locus_gpt2::{BlockParam, Gpt2, Hook, HookPoint, Norm, ParamId, Scalar, axpy, dot, gemm};
use ndarray::{Array2, ArrayView2, ArrayViewMut2, s};
use rayon::prelude::*;

use super::graph::{Destination, QkvInput};
use super::runs::Packed;

/// What attention reads and writes in a clean run, by layer; a hook of that run. Rows behind those of the clean run,
/// which come first, are kept too.
pub(super) struct CleanAttention<F> {
    resid_pre: Vec<Array2<F>>,
    qkv: Vec<Array2<F>>,
    z: Vec<Array2<F>>,
}

impl<F> Default for CleanAttention<F> {
    fn default() -> Self {
        CleanAttention { resid_pre: Vec::new(), qkv: Vec::new(), z: Vec::new() }
    }
}

impl<F: Scalar> Hook<F> for CleanAttention<F> {
    fn call(&mut self, _: usize, point: HookPoint, state: ArrayViewMut2<F>) {
        match point {
            HookPoint::ResidPre => self.resid_pre.push(state.to_owned()),
            HookPoint::Qkv => self.qkv.push(state.to_owned()),
            HookPoint::Z => self.z.push(state.to_owned()),
            _ => {}
        }
    }
}

impl<F: Scalar> CleanAttention<F> {
    /// Writes the scores of all edges into queries and keys: `scores[pass][pair] [S, D]`, from the gradients
    /// `d_z[pass][layer] [n, d]` of some backward passes and `delta [S, n d]`.
    pub fn write_scores(
        &self,
        model: &Gpt2<F>,
        packed: &Packed<F>,
        delta: &Array2<F>,
        d_z: &[Vec<Array2<F>>],
        scores: &mut [Vec<Array2<f64>>],
    ) {
        let graph = packed.graph;
        for layer in 0..graph.n_layer {
            let sources = graph.n_before(Destination::Head(layer, QkvInput::Query, 0));
            let of_layer: Vec<ArrayView2<F>> = d_z.iter().map(|d_z| d_z[layer].view()).collect();
            let of_sources: Vec<Vec<f64>> = (0..sources)
                .into_par_iter()
                .map(|source| {
                    let delta = delta.row(source);
                    let delta = delta.to_slice().expect("rows are contiguous");
                    self.effects(model, packed, layer, delta, &of_layer)
                })
                .collect();
            for (source, effects) in of_sources.iter().enumerate() {
                let mut effects = effects.iter();
                for qkv_input in [QkvInput::Query, QkvInput::Key] {
                    for of_pairs in &mut *scores {
                        for scores in of_pairs {
                            for head in 0..graph.n_head {
                                let column = graph.column(Destination::Head(layer, qkv_input, head));
                                scores[(source, column)] = *effects.next().expect("a number for each edge");
                            }
                        }
                    }
                }
            }
        }
    }

    /// Scores of one source's edges into the queries and keys of a layer: `[2, passes, pairs, H]`, row by row.
    fn effects(
        &self,
        model: &Gpt2<F>,
        packed: &Packed<F>,
        layer: usize,
        delta: &[F],
        d_z: &[ArrayView2<F>],
    ) -> Vec<f64> {
        let (batch, d, width) = (&packed.clean, model.config().n_embd, model.config().d_head());
        let n = batch.n_rows();
        let mut x = self.resid_pre[layer].slice(s![..n, ..]).to_owned();
        axpy(F::one(), delta, x.as_slice_mut().expect("fresh arrays are contiguous"));
        let normed = model.layer_norm(Norm::Attention(layer), x.view());
        let weight = model.matrix(ParamId::Block(layer, BlockParam::AttnInWeight));
        let bias = model.get(ParamId::Block(layer, BlockParam::AttnInBias));
        let mut effects = Vec::new();
        for columns in [0..d, d..2 * d] {
            let mut qkv = self.qkv[layer].slice(s![..n, ..]).to_owned();
            let mut moved = qkv.slice_mut(s![.., columns.clone()]);
            moved.assign(&ArrayView2::from_shape((1, d), &bias[columns.clone()]).expect("a row"));
            gemm(F::one(), normed.view(), weight.slice(s![.., columns]), F::one(), moved);
            let z = model.attend(batch, layer, qkv.view()) - self.z[layer].slice(s![..n, ..]);
            for d_z in d_z {
                for rows in batch.sequences() {
                    for head in 0..packed.graph.n_head {
                        let columns = head * width..(head + 1) * width;
                        let of_rows = rows.clone().map(|row| {
                            let [z, d_z] = [z.view(), *d_z].map(|x| x.slice_move(s![row, columns.clone()]));
                            let slices = (z.to_slice(), d_z.to_slice());
                            let (Some(z), Some(d_z)) = slices else { unreachable!("rows are contiguous") };
                            dot(z, d_z).as_f64()
                        });
                        effects.push(of_rows.sum());
                    }
                }
            }
        }
        effects
    }
}

/// Gradients at the outputs of the heads, in a backward pass that may leave out a layer; a hook of that pass.
pub(super) struct HeadGradients<F> {
    dropped: Option<usize>,
    /// From the last layer to the first, `[n, d]`.
    d_z: Vec<Array2<F>>,
}

impl<F> HeadGradients<F> {
    /// GradDrop: nothing flows back through what attention and MLP of the dropped layer write.
    pub fn without(dropped: Option<usize>) -> Self {
        HeadGradients { dropped, d_z: Vec::new() }
    }

    /// From the first layer to the last, `[n, d]`.
    pub fn by_layer(mut self) -> Vec<Array2<F>> {
        self.d_z.reverse();
        self.d_z
    }
}

impl<F: Scalar> Hook<F> for HeadGradients<F> {
    fn call(&mut self, layer: usize, point: HookPoint, mut state: ArrayViewMut2<F>) {
        match point {
            HookPoint::AttnOut | HookPoint::MlpOut if self.dropped == Some(layer) => state.fill(F::zero()),
            HookPoint::Z => self.d_z.push(state.to_owned()),
            _ => {}
        }
    }
}
