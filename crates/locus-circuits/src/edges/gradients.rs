//! The gradient of a loss at the input of every destination, in one backward pass.
//!
//! Letters: `n` rows, `d` width, `D` destinations, `H` heads.

use locus_gpt2::{BlockParam, Gpt2, Hook, HookPoint, Norm, ParamId, ParamSet, Scalar, Tape, axpy, gemm};
use ndarray::{Array2, ArrayView2, ArrayViewMut2, Axis, s};
use rayon::prelude::*;

use super::graph::{Destination, Graph, QkvInput};
use super::relevance::RelevanceRules;

/// Layers whose destinations are contracted together. The BLAS packs the sources' outputs again for every product: with
/// more layers there are fewer products, but also more pairs of source and destination that are no edge.
pub(super) const LAYERS_AT_ONCE: usize = 4;
/// Entries in one piece of a sum of vectors.
const SUM_ENTRIES: usize = 1 << 13;

/// A backward pass: the run that it goes back through, and how.
pub(super) struct BackwardPass<'a, F> {
    pub model: &'a Gpt2<F>,
    pub graph: Graph,
    pub tape: &'a Tape<F>,
    /// Rules in place of derivatives.
    pub rules: Option<&'a RelevanceRules<F>>,
    /// Sees the gradients of the named states first, and may replace them.
    pub tap: &'a mut dyn Hook<F>,
}

impl<F: Scalar> BackwardPass<'_, F> {
    /// From the gradient at the hidden states, `d_hidden [n, d]`, computes the gradient at every destination's input,
    /// and calls `take` with the first column and the gradients `[destinations, n d]`: first for the logits, then for a
    /// few layers at a time, from the last to the first.
    pub fn gradients(self, mut d_hidden: Array2<F>, take: &mut dyn FnMut(usize, ArrayView2<F>)) {
        let BackwardPass { model, graph, tape, rules, tap } = self;
        let destinations = LAYERS_AT_ONCE.min(graph.n_layer) * (3 * graph.n_head + 1);
        let layers = Array2::zeros((destinations, d_hidden.len()));
        // Under rules, what goes through a LayerNorm is computed here and nothing is left for the model's own pass.
        let d_logits = rules.map(|rules| {
            let zeros = Array2::zeros(d_hidden.dim());
            let mut d = std::mem::replace(&mut d_hidden, zeros);
            rules.through_norm(model, Norm::Final, d.view_mut());
            d
        });
        let d_pre = Array2::zeros((0, 0));
        let mut hook = DestinationGradients { model, graph, tape, rules, tap, layers, d_logits, d_pre, take };
        model.backward(tape, d_hidden.view(), &mut ParamSet::zeros(model.config(), []), &mut hook);
    }
}

/// Splits the gradient that a backward pass has at a layer into one for each of its destinations.
struct DestinationGradients<'a, F> {
    model: &'a Gpt2<F>,
    graph: Graph,
    tape: &'a Tape<F>,
    rules: Option<&'a RelevanceRules<F>>,
    tap: &'a mut dyn Hook<F>,
    /// Gradients of the destinations of a few layers, `[layers (3 H + 1), n d]`.
    layers: Array2<F>,
    /// Under rules: coefficients at the input of the logits, `[n, d]`, and before the activation of a layer, `[n, f]`.
    d_logits: Option<Array2<F>>,
    d_pre: Array2<F>,
    take: &'a mut dyn FnMut(usize, ArrayView2<F>),
}

impl<F: Scalar> Hook<F> for DestinationGradients<'_, F> {
    fn call(&mut self, layer: usize, point: HookPoint, mut state: ArrayViewMut2<F>) {
        self.tap.call(layer, point, state.view_mut());
        let (model, graph, tape, rules) = (self.model, self.graph, self.tape, self.rules);
        let (width, d) = (model.config().d_head(), model.config().n_embd);
        let n_qkv_inputs = QkvInput::ALL.len() * graph.n_head;
        let per_layer = n_qkv_inputs + 1;
        let bottom = layer - layer % LAYERS_AT_ONCE;
        let first = (layer - bottom) * per_layer;
        let through_norm = |norm: Norm, d: ArrayViewMut2<F>| match rules {
            Some(rules) => rules.through_norm(model, norm, d),
            None => model.through_norm(tape, norm, d),
        };
        match point {
            HookPoint::ResidPost if layer + 1 == graph.n_layer => {
                if let Some(d_logits) = self.d_logits.take() {
                    state.assign(&d_logits);
                }
                let flat = ArrayView2::from_shape(
                    (1, state.len()),
                    state.as_slice().expect("states are contiguous"),
                );
                (self.take)(graph.column(Destination::Logits), flat.expect("one row"));
            }
            HookPoint::MlpPost => {
                if let Some(rules) = rules {
                    self.d_pre = rules.through_activation(layer, state);
                }
            }
            HookPoint::MlpPre if rules.is_some() => state.assign(&self.d_pre),
            HookPoint::Ln2 => {
                let row = self.layers.row_mut(first + n_qkv_inputs);
                let mut row = row.into_shape_with_order(state.dim()).expect("rows are contiguous");
                row.assign(&state);
                through_norm(Norm::Mlp(layer), row);
                if rules.is_some() {
                    state.fill(F::zero());
                }
            }
            HookPoint::ResidMid if rules.is_some() => {
                let row = self.layers.row(first + n_qkv_inputs);
                let flat = state.as_slice_mut().expect("states are contiguous");
                axpy(F::one(), row.to_slice().expect("rows are contiguous"), flat);
            }
            HookPoint::Qkv => {
                let weights = model.matrix(ParamId::Block(layer, BlockParam::AttnInWeight));
                let mut qkv_inputs = self.layers.slice_mut(s![first..first + n_qkv_inputs, ..]);
                qkv_inputs.axis_iter_mut(Axis(0)).into_par_iter().enumerate().for_each(|(i, row)| {
                    // Queries, keys, then values, each of all heads: destinations have the order of the columns.
                    let columns = s![.., i * width..(i + 1) * width];
                    let mut row = row.into_shape_with_order((state.nrows(), d)).expect("rows are contiguous");
                    gemm(
                        F::one(),
                        state.slice(columns),
                        weights.slice(columns).t(),
                        F::zero(),
                        row.view_mut(),
                    );
                    through_norm(Norm::Attention(layer), row);
                });
                if layer == bottom {
                    let n_layers = LAYERS_AT_ONCE.min(graph.n_layer - bottom);
                    (self.take)(layer * per_layer, self.layers.slice(s![..n_layers * per_layer, ..]));
                }
            }
            // The gradient through attention is the sum over its destinations, already taken through the LayerNorm.
            HookPoint::ResidPre => {
                let flat = state.as_slice_mut().expect("states are contiguous");
                let qkv_inputs = self.layers.slice(s![first..first + n_qkv_inputs, ..]);
                flat.par_chunks_mut(SUM_ENTRIES).enumerate().for_each(|(i, sum)| {
                    for qkv_input in qkv_inputs.rows() {
                        let qkv_input = qkv_input.to_slice().expect("rows are contiguous");
                        axpy(F::one(), &qkv_input[i * SUM_ENTRIES..][..sum.len()], sum);
                    }
                });
            }
            _ => {}
        }
    }

    fn overwrites(&self, point: HookPoint) -> bool {
        point == HookPoint::Ln1
    }
}
