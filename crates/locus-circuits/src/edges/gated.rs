//! Runs of the model in which every edge has a gate, and the gradient of a loss with respect to the gates.
//!
//! A destination `v` gets
//!
//! ```text
//! x_v = (what belongs to no source) + sum over u of r_u + sum over u of z(u -> v) (o_u - r_u)
//! ```
//!
//! where `z` is the gate of an edge, `o_u` the output of source `u` in this same run and `r_u` its ablated output.
//! Gates of 1 and 0 are kept and dropped edges; in between, an edge carries a mixture. With `g_v` the gradient of the
//! loss at the input of `v`,
//!
//! ```text
//! d loss / d z(u -> v) = sum over rows and width of (o_u - r_u) g_v
//! d loss / d o_u       = sum over v of z(u -> v) g_v
//! ```
//!
//! Source: Bhaskar, Wettig, Friedman, Chen 2024 (arXiv 2406.16778), section 3, equation 2. At gates of 1 the first line
//! is minus the score of edge attribution patching.
//!
//! The passes are those of `locus_gpt2` with hooks that put a destination's own input in place of the shared residual
//! stream, forwards and backwards.
//!
//! Letters: `n` rows of the packed batch, `d` width, `S` sources, `D` destinations, `H` heads, `L` layers.

use locus_gpt2::{
    BlockParam, Gpt2, Hook, HookPoint, Norm, ParamId, ParamSet, Result, Scalar, Tape, axpy, chunk_by_tokens,
    compiled, dot, gemm,
};
use ndarray::{Array2, ArrayView2, ArrayViewMut2, Axis, s};
use rayon::prelude::*;
use std::ops::Range;

use super::ablation::{AblatedOutputs, Ablation};
use super::edge_set::EdgeSet;
use super::graph::{Destination, Edge, Graph, QkvInput, Source};
use super::metric::{Metric, loss_gradient_at, loss_sign, value_at};
use super::pairs::Pair;
use super::runs::{Packed, RecordAs, head_outputs};
use super::setting::Setting;

/// Tokens in one piece of parallel work.
const PIECE_TOKENS: usize = 64;

/// Gates of 1 for the edges of a set and 0 for the others, `[S, D]`.
pub(super) fn gates_of<F: Scalar>(set: &EdgeSet) -> Array2<F> {
    let graph = set.graph();
    Array2::from_shape_fn((graph.n_sources(), graph.n_destinations()), |(source, destination)| {
        if set.contains(Edge { source, destination }) { F::one() } else { F::zero() }
    })
}

/// Pairs, which must have been checked, in pieces that are run with gates.
pub(super) fn gated_pieces<'a, F: Scalar>(
    setting: Setting<'a, F>,
    ablated: &AblatedOutputs<F>,
) -> Result<Vec<GatedPiece<'a, F>>> {
    let Setting { pairs, .. } = setting;
    let prompts: Vec<&[u32]> = pairs.iter().map(|pair| pair.clean.as_slice()).collect();
    chunk_by_tokens(&prompts, PIECE_TOKENS)
        .into_par_iter()
        .map(|piece| GatedPiece::new(Setting { pairs: &pairs[piece], ..setting }, ablated))
        .collect()
}

/// Mean loss with gates `[S, D]`, and its gradient with respect to each, for tests.
pub fn gated_loss<F: Scalar>(
    model: &Gpt2<F>,
    pairs: &[Pair],
    metric: &dyn Metric<F>,
    ablation: &dyn Ablation<F>,
    gates: &Array2<F>,
) -> Result<(f64, Array2<f64>)> {
    F::run::<GatedLossJob>((Setting { model, pairs, metric, ablation }, gates))
}

compiled!(GatedLossJob<'a>: <F> (Setting<'a, F>, &'a Array2<F>) => Result<(f64, Array2<f64>)>, mean_gated_loss);

fn mean_gated_loss<F: Scalar>((setting, gates): (Setting<F>, &Array2<F>)) -> Result<(f64, Array2<f64>)> {
    let mut pieces = gated_pieces(setting, &setting.ablated_outputs()?)?;
    let (loss, gradient) = sum_over(&mut pieces, gates);
    let n = setting.pairs.len() as f64;
    Ok((loss / n, gradient / n))
}

/// Sum over pieces of the loss and of its gradient with respect to the gates, `[S, D]`.
pub(super) fn sum_over<F: Scalar>(pieces: &mut [GatedPiece<F>], gates: &Array2<F>) -> (f64, Array2<f64>) {
    let parts: Vec<_> = pieces.par_iter_mut().map(|piece| piece.loss_and_gradient(gates)).collect();
    parts.into_iter().fold((0.0, Array2::zeros(gates.dim())), |(sum, gradient), (loss, part)| {
        (sum + loss, gradient + part)
    })
}

/// A few pairs with their ablated outputs.
pub(super) struct GatedPiece<'a, F> {
    model: &'a Gpt2<F>,
    pairs: &'a [Pair],
    metric: &'a dyn Metric<F>,
    packed: Packed<F>,
    /// Ablated outputs, `[S, n d]`.
    ablated: Array2<F>,
    /// The residual stream with every source ablated, before attention and before the MLP of each layer and at the end:
    /// `2 L + 1` states `[n, d]`.
    all_ablated: Vec<Array2<F>>,
    /// Outputs of the last run minus ablated ones, `[S, n d]`; at first those of the clean run.
    kept: Array2<F>,
    /// Last hidden states of the intact model, `[pairs, d]`.
    clean_hidden: Array2<F>,
}

impl<'a, F: Scalar> GatedPiece<'a, F> {
    fn new(setting: Setting<'a, F>, ablated: &AblatedOutputs<F>) -> Result<Self> {
        let Setting { model, pairs, metric, .. } = setting;
        let packed = Packed::new(model, pairs, ablated.is_corrupted_run())?;
        let (delta, clean) = packed.differences(model, ablated);
        let clean_hidden = packed.last_hidden(clean.hidden.view());
        let mut outputs = packed.room(model);
        packed.run(model, &packed.clean, RecordAs::Stored, &mut outputs);
        outputs += &delta;
        let kept = -delta;
        let mut stream = model.embed(&packed.clean);
        add(-F::one(), kept.row(0), &mut stream);
        let mut all_ablated = vec![stream.clone()];
        for layer in 0..packed.graph.n_layer {
            let heads = rows_of_heads(packed.graph, layer);
            heads.clone().for_each(|row| add(F::one(), outputs.row(row), &mut stream));
            stream += &model.matrix(ParamId::Block(layer, BlockParam::AttnOutBias));
            all_ablated.push(stream.clone());
            add(F::one(), outputs.row(heads.end), &mut stream);
            all_ablated.push(stream.clone());
        }
        Ok(GatedPiece { model, pairs, metric, packed, ablated: outputs, all_ablated, kept, clean_hidden })
    }

    /// Sum over pairs of the loss with the given gates, `[S, D]`. Layers before `from` are not run: their sources must
    /// have no gate that changed since they last ran, or be those of the clean run.
    pub fn loss(&mut self, gates: &Array2<F>, from: usize) -> f64 {
        let mut inputs = self.no_inputs();
        let start = self.all_ablated[2 * from].clone();
        let mut hook = self.forward_hook(gates, &mut inputs);
        hook.model.run(hook.batch).from_layer(from, start).with_hooks(&mut hook).resid();
        let hidden = self.hidden(gates, &mut inputs);
        self.loss_of(&hidden)
    }

    /// Sum over pairs of the loss with the given gates, and its gradient with respect to each gate, both `[S, D]`.
    pub fn loss_and_gradient(&mut self, gates: &Array2<F>) -> (f64, Array2<f64>) {
        let mut inputs = self.no_inputs();
        let start = self.all_ablated[0].clone();
        let mut hook = self.forward_hook(gates, &mut inputs);
        let tape = hook.model.run(hook.batch).from_layer(0, start).with_hooks(&mut hook).tape();
        let hidden = self.hidden(gates, &mut inputs);
        let loss = self.loss_of(&hidden);
        (loss, self.gradient(gates, &inputs, &tape, &hidden))
    }

    fn no_inputs(&self) -> Array2<F> {
        Array2::zeros((self.packed.graph.n_destinations(), self.kept.ncols()))
    }

    fn forward_hook<'b>(
        &'b mut self,
        gates: &'b Array2<F>,
        inputs: &'b mut Array2<F>,
    ) -> GatedForward<'b, F> {
        let GatedPiece { model, packed, ablated, all_ablated, kept, .. } = self;
        let heads = Array2::zeros((packed.graph.n_head, kept.ncols()));
        GatedForward {
            model,
            batch: &packed.clean,
            graph: packed.graph,
            gates,
            ablated,
            all_ablated,
            kept,
            inputs,
            heads,
        }
    }

    /// Last hidden states, `[pairs, d]`, after the passes through the blocks.
    fn hidden(&self, gates: &Array2<F>, inputs: &mut Array2<F>) -> Array2<F> {
        let graph = self.packed.graph;
        let column = graph.column(Destination::Logits);
        mix(graph, gates, &self.kept, &self.all_ablated[2 * graph.n_layer], column..column + 1, inputs);
        let x =
            ArrayView2::from_shape(self.all_ablated[0].dim(), inputs.row(column).to_slice().expect("rows"))
                .expect("a state");
        self.model.layer_norm(Norm::Final, self.packed.last_hidden(x).view())
    }

    fn loss_of(&self, hidden: &Array2<F>) -> f64 {
        let rows = hidden.rows().into_iter().zip(self.clean_hidden.rows());
        let values = self
            .pairs
            .iter()
            .zip(rows)
            .map(|(pair, (hidden, clean))| value_at(self.metric, self.model, pair, hidden, clean));
        loss_sign(self.metric) * values.sum::<f64>()
    }

    fn gradient(
        &self,
        gates: &Array2<F>,
        inputs: &Array2<F>,
        tape: &Tape<F>,
        hidden: &Array2<F>,
    ) -> Array2<f64> {
        let GatedPiece { model, packed, kept, clean_hidden, .. } = self;
        let graph = packed.graph;
        let d_gates = Array2::zeros((graph.n_sources(), graph.n_destinations()));
        let mut hook = GatedBackward {
            model,
            graph,
            gates,
            kept,
            inputs,
            d_outputs: Array2::zeros(kept.dim()),
            d_gates,
        };
        // From the loss through the final LayerNorm, at the last token of each prompt.
        let column = graph.column(Destination::Logits);
        let mut d_x = Array2::<F>::zeros(tape.hidden.dim());
        for (i, (pair, row)) in self.pairs.iter().zip(packed.clean.last_rows()).enumerate() {
            let gradient = loss_gradient_at(self.metric, model, pair, hidden.row(i), clean_hidden.row(i));
            d_x.row_mut(row).assign(&gradient);
        }
        let flat = d_x.into_shape_with_order((1, kept.ncols())).expect("fresh arrays are contiguous");
        hook.absorb(column..column + 1, Norm::Final, flat);
        let mut no_weights = ParamSet::zeros(model.config(), []);
        model.backward(tape, Array2::zeros(tape.hidden.dim()).view(), &mut no_weights, &mut hook);
        hook.d_gates
    }
}

/// Rows of the heads of a layer; the row after them is that of the MLP.
fn rows_of_heads(graph: Graph, layer: usize) -> Range<usize> {
    let first = graph.row(Source::Head(layer, 0));
    first..first + graph.n_head
}

/// Columns of the queries, keys and values of a layer; the column after them is that of the MLP.
fn columns_of_heads(graph: Graph, layer: usize) -> Range<usize> {
    let first = graph.column(Destination::Head(layer, QkvInput::Query, 0));
    first..first + QkvInput::ALL.len() * graph.n_head
}

fn add<F: Scalar>(scale: F, flat: ndarray::ArrayView1<F>, state: &mut Array2<F>) {
    let state = state.as_slice_mut().expect("states are contiguous");
    axpy(scale, flat.to_slice().expect("rows are contiguous"), state);
}

/// Inputs of destinations that read after equally many sources, into their rows of `inputs [D, n d]`.
fn mix<F: Scalar>(
    graph: Graph,
    gates: &Array2<F>,
    kept: &Array2<F>,
    all_ablated: &Array2<F>,
    columns: Range<usize>,
    inputs: &mut Array2<F>,
) {
    let n_before = graph.n_before(graph.destination(columns.start));
    let mut mixed = inputs.slice_mut(s![columns.clone(), ..]);
    for mut row in mixed.rows_mut() {
        let row = row.as_slice_mut().expect("rows are contiguous");
        row.copy_from_slice(all_ablated.as_slice().expect("states are contiguous"));
    }
    gemm(F::one(), gates.slice(s![..n_before, columns]).t(), kept.slice(s![..n_before, ..]), F::one(), mixed);
}

/// Puts a destination's own input in the place of the residual stream.
struct GatedForward<'a, F> {
    model: &'a Gpt2<F>,
    batch: &'a locus_gpt2::Batch<F>,
    graph: Graph,
    gates: &'a Array2<F>,
    ablated: &'a Array2<F>,
    all_ablated: &'a [Array2<F>],
    kept: &'a mut Array2<F>,
    /// Inputs of the destinations, `[D, n d]`.
    inputs: &'a mut Array2<F>,
    /// Outputs of the heads of one layer, `[H, n d]`.
    heads: Array2<F>,
}

impl<F: Scalar> GatedForward<'_, F> {
    /// Inputs of some destinations after their LayerNorm, one state `[n, d]` after the other.
    fn normed(&mut self, columns: Range<usize>, norm: Norm, all_ablated: usize) -> Array2<F> {
        let all_ablated = &self.all_ablated[all_ablated];
        mix(self.graph, self.gates, self.kept, all_ablated, columns.clone(), self.inputs);
        let rows = columns.len() * all_ablated.nrows();
        let mixed = self.inputs.slice(s![columns, ..]);
        let mixed = mixed.into_shape_with_order((rows, all_ablated.ncols())).expect("rows are contiguous");
        self.model.layer_norm(norm, mixed)
    }

    fn keep(&mut self, row: usize, output: &[F]) {
        let ablated = self.ablated.row(row);
        let ablated = ablated.to_slice().expect("rows are contiguous");
        let mut kept = self.kept.row_mut(row);
        for ((kept, &output), &ablated) in kept.iter_mut().zip(output).zip(ablated) {
            *kept = output - ablated;
        }
    }
}

impl<F: Scalar> Hook<F> for GatedForward<'_, F> {
    fn call(&mut self, layer: usize, point: HookPoint, mut state: ArrayViewMut2<F>) {
        let (graph, config) = (self.graph, self.model.config());
        let columns = columns_of_heads(graph, layer);
        match point {
            HookPoint::Qkv => {
                let (n, width) = (state.nrows(), config.d_head());
                let normed = self.normed(columns.clone(), Norm::Attention(layer), 2 * layer);
                let weight = self.model.matrix(ParamId::Block(layer, BlockParam::AttnInWeight));
                let bias = self.model.matrix(ParamId::Block(layer, BlockParam::AttnInBias));
                for i in 0..columns.len() {
                    // Queries, keys, then values, each of all heads: destinations have the order of the columns.
                    let own = s![.., i * width..(i + 1) * width];
                    let mut out = state.slice_mut(own);
                    out.assign(&bias.slice(own));
                    let x = normed.slice(s![i * n..(i + 1) * n, ..]);
                    gemm(F::one(), x, weight.slice(own), F::one(), out);
                }
            }
            HookPoint::Z => {
                let mut heads = std::mem::take(&mut self.heads);
                head_outputs(self.model, layer, state.view(), heads.view_mut());
                for (row, head) in rows_of_heads(graph, layer).zip(heads.rows()) {
                    self.keep(row, head.to_slice().expect("rows are contiguous"));
                }
                self.heads = heads;
            }
            HookPoint::Ln2 => {
                let column = columns.end;
                state.assign(&self.normed(column..column + 1, Norm::Mlp(layer), 2 * layer + 1));
            }
            HookPoint::MlpOut => {
                self.keep(graph.row(Source::Mlp(layer)), state.as_slice().expect("states are contiguous"));
            }
            _ => {}
        }
    }

    /// Nothing reads what attention adds to the residual stream.
    fn overwrites(&self, point: HookPoint) -> bool {
        point == HookPoint::AttnOut
    }
}

/// Hands gradients from destinations to sources, and to the gates between them.
struct GatedBackward<'a, F> {
    model: &'a Gpt2<F>,
    graph: Graph,
    gates: &'a Array2<F>,
    kept: &'a Array2<F>,
    inputs: &'a Array2<F>,
    /// Gradients of the sources' outputs as far as they are known, `[S, n d]`.
    d_outputs: Array2<F>,
    /// Gradients of the gates, `[S, D]`.
    d_gates: Array2<f64>,
}

impl<F: Scalar> GatedBackward<'_, F> {
    /// Takes gradients `[destinations, n d]` after the LayerNorm of some destinations.
    fn absorb(&mut self, columns: Range<usize>, norm: Norm, mut gradients: Array2<F>) {
        let d = self.model.config().n_embd;
        let rows = gradients.axis_iter_mut(Axis(0)).into_par_iter();
        rows.zip(columns.clone().into_par_iter()).for_each(|(mut gradient, column)| {
            let x = self.inputs.row(column);
            let x = x.to_slice().expect("rows are contiguous");
            let gradient = gradient.as_slice_mut().expect("rows are contiguous");
            gradient.chunks_mut(d).zip(x.chunks(d)).for_each(|(g, x)| norm_backward(self.model, norm, x, g));
        });
        let n_before = self.graph.n_before(self.graph.destination(columns.start));
        let mut product = Array2::<F>::zeros((n_before, columns.len()));
        let kept = self.kept.slice(s![..n_before, ..]);
        gemm(F::one(), kept, gradients.t(), F::zero(), product.view_mut());
        self.d_gates.slice_mut(s![..n_before, columns.clone()]).assign(&product.mapv(|x| x.as_f64()));
        let gates = self.gates.slice(s![..n_before, columns]);
        let d_outputs = self.d_outputs.slice_mut(s![..n_before, ..]);
        gemm(F::one(), gates, gradients.view(), F::one(), d_outputs);
    }
}

impl<F: Scalar> Hook<F> for GatedBackward<'_, F> {
    fn call(&mut self, layer: usize, point: HookPoint, mut state: ArrayViewMut2<F>) {
        let (graph, width) = (self.graph, self.model.config().d_head());
        let columns = columns_of_heads(graph, layer);
        match point {
            HookPoint::MlpOut => {
                let gradient = self.d_outputs.row(graph.row(Source::Mlp(layer)));
                let gradient = gradient.to_slice().expect("rows are contiguous");
                state.as_slice_mut().expect("states are contiguous").copy_from_slice(gradient);
            }
            HookPoint::Ln2 => {
                let gradient = state.to_owned().into_shape_with_order((1, state.len()));
                self.absorb(columns.end..columns.end + 1, Norm::Mlp(layer), gradient.expect("one row"));
                state.fill(F::zero());
            }
            HookPoint::AttnOut => state.fill(F::zero()),
            HookPoint::Z => {
                let weight = self.model.matrix(ParamId::Block(layer, BlockParam::AttnOutWeight));
                for (head, row) in rows_of_heads(graph, layer).enumerate() {
                    let own = head * width..(head + 1) * width;
                    let gradient = self.d_outputs.row(row);
                    let gradient = gradient.to_slice().expect("rows are contiguous");
                    let gradient = ArrayView2::from_shape((state.nrows(), weight.ncols()), gradient);
                    let out = state.slice_mut(s![.., own.clone()]);
                    let weight = weight.slice(s![own, ..]);
                    gemm(F::one(), gradient.expect("a state"), weight.t(), F::zero(), out);
                }
            }
            HookPoint::Qkv => {
                let weight = self.model.matrix(ParamId::Block(layer, BlockParam::AttnInWeight));
                let mut gradients = Array2::<F>::zeros((columns.len(), self.kept.ncols()));
                for (i, row) in gradients.rows_mut().into_iter().enumerate() {
                    let own = s![.., i * width..(i + 1) * width];
                    let row = row.into_shape_with_order((state.nrows(), weight.nrows()));
                    let row = row.expect("rows are contiguous");
                    gemm(F::one(), state.slice(own), weight.slice(own).t(), F::zero(), row);
                }
                self.absorb(columns, Norm::Attention(layer), gradients);
                state.fill(F::zero());
            }
            _ => {}
        }
    }

    /// The gradient before a LayerNorm goes to the sources, not to the residual stream.
    fn overwrites(&self, point: HookPoint) -> bool {
        point == HookPoint::Ln1
    }
}

/// Turns the gradient `[d]` at the output of a LayerNorm into that at its input `x [d]`, in place: with `g = gradient
/// gain`, `rstd (g - mean(g) - xhat mean(g xhat))`.
fn norm_backward<F: Scalar>(model: &Gpt2<F>, norm: Norm, x: &[F], gradient: &mut [F]) {
    let gain = model.get(match norm {
        Norm::Attention(layer) => ParamId::Block(layer, BlockParam::Ln1Weight),
        Norm::Mlp(layer) => ParamId::Block(layer, BlockParam::Ln2Weight),
        Norm::Final => ParamId::FinalNormWeight,
    });
    let share = F::one() / F::from_f64(x.len() as f64);
    let mean = x.iter().copied().sum::<F>() * share;
    let mut xhat: Vec<F> = x.iter().map(|&x| x - mean).collect();
    let epsilon = F::from_f64(model.config().layer_norm_epsilon);
    let rstd = F::one() / (dot(&xhat, &xhat) * share + epsilon).sqrt();
    xhat.iter_mut().for_each(|x| *x *= rstd);
    gradient.iter_mut().zip(gain).for_each(|(g, &gain)| *g *= gain);
    let (mean_g, mean_g_xhat) = (gradient.iter().copied().sum::<F>() * share, dot(gradient, &xhat) * share);
    for (g, xhat) in gradient.iter_mut().zip(xhat) {
        *g = rstd * (*g - mean_g - xhat * mean_g_xhat);
    }
}
