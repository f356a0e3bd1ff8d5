//! Runs of the model with some edges ablated: everything outside a circuit, or one edge at a time.
//!
//! A destination `v` gets
//!
//! ```text
//! x_v = (what belongs to no source) + sum over kept edges of o_u + sum over dropped edges of r_u
//! ```
//!
//! where `o_u` is the output of source `u` in this same run and `r_u` its ablated output. The prompt is always the
//! clean one. Everything downstream, LayerNorm included, is recomputed.
//!
//! Letters: `n` rows of the packed batch, `d` width, `S` sources.

use std::ops::Range;

use locus_gpt2::{
    BlockParam, Error, Gpt2, HookPoint, Norm, ParamId, Result, Scalar, axpy, chunk_by_tokens, compiled, gemm,
};
use ndarray::{Array2, ArrayView2, ArrayViewMut2, s};
use rayon::prelude::*;

use super::ablation::Ablation;
use super::edge_set::EdgeSet;
use super::graph::{Destination, Edge, Graph, QkvInput, Source};
use super::metric::{Metric, loss_sign, value_at};
use super::pairs::{Pair, check_all, one_length};
use super::positions::PositionSet;
use super::runs::{Packed, RecordAs, head_outputs};
use super::scores::EdgeScores;
use super::setting::Setting;
use super::standard_ablation::StandardAblation;

/// Tokens in one piece of parallel work.
const PIECE_TOKENS: usize = 64;

/// The sum that computes a destination's input: one of two that are equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Formulation {
    /// The residual stream of this run, plus `r_u - o_u` over dropped edges.
    Dropped,
    /// The residual stream with every source ablated, plus `o_u - r_u` over kept edges.
    Kept,
    /// For each destination the sum with fewer terms.
    Shorter,
}

/// Runs every pair with all edges outside `circuit` ablated, and returns the metric on each.
///
/// # Errors
/// When a pair does not fit the model or there is none.
///
/// # Panics
/// When the circuit belongs to a model of another shape.
pub fn run_circuit<F: Scalar>(
    model: &Gpt2<F>,
    pairs: &[Pair],
    metric: &dyn Metric<F>,
    circuit: &EdgeSet,
    ablation: &dyn Ablation<F>,
) -> Result<Vec<f64>> {
    run_circuit_as(model, pairs, metric, circuit, ablation, Formulation::Shorter)
}

/// [`run_circuit`] by a chosen one of two equal sums, for tests.
pub fn run_circuit_as<F: Scalar>(
    model: &Gpt2<F>,
    pairs: &[Pair],
    metric: &dyn Metric<F>,
    circuit: &EdgeSet,
    ablation: &dyn Ablation<F>,
    formulation: Formulation,
) -> Result<Vec<f64>> {
    assert_eq!(circuit.graph(), Graph::new(model.config()), "a circuit of another model");
    let kept = Kept::Everywhere(circuit);
    F::run::<CircuitJob>((Setting { model, pairs, metric, ablation }, kept, formulation))
}

/// Runs every pair with all edges outside `circuit` ablated, each at its token position, and returns the metric on
/// each.
///
/// # Errors
/// When a pair does not fit the model, its prompts do not have one token for each position of the circuit, or there is
/// none.
///
/// # Panics
/// When the circuit belongs to a model of another shape.
pub fn run_positions<F: Scalar>(
    model: &Gpt2<F>,
    pairs: &[Pair],
    metric: &dyn Metric<F>,
    circuit: &PositionSet,
    ablation: &dyn Ablation<F>,
) -> Result<Vec<f64>> {
    assert_eq!(circuit.graph(), Graph::new(model.config()), "a circuit of another model");
    let setting = Setting { model, pairs, metric, ablation };
    check_all(pairs, model.config())?;
    let (length, expected) = (one_length(pairs)?, circuit.n_positions());
    if length != expected {
        return Err(Error::Input(format!(
            "prompts have {length} tokens; expected {expected}, the circuit's positions"
        )));
    }
    F::run::<CircuitJob>((setting, Kept::ByPosition(circuit.at_positions()), Formulation::Shorter))
}

/// The edges that a run keeps.
#[derive(Clone, Copy)]
enum Kept<'a> {
    /// These, at every token.
    Everywhere(&'a EdgeSet),
    /// A set for each token position, of prompts with as many tokens.
    ByPosition(&'a [EdgeSet]),
}

impl<'a> Kept<'a> {
    /// Ranges of a batch's rows, with the edges kept there.
    fn spans<F: Scalar>(self, packed: &Packed<F>) -> Vec<(Range<usize>, &'a EdgeSet)> {
        match self {
            Kept::Everywhere(circuit) => vec![(0..packed.clean.n_rows(), circuit)],
            Kept::ByPosition(circuits) => {
                // Rows are the last tokens of a prompt: those that its two versions share are left out.
                let of_sequence = |rows: Range<usize>| {
                    let circuits = &circuits[circuits.len() - rows.len()..];
                    rows.zip(circuits).map(|(row, circuit)| (row..row + 1, circuit))
                };
                packed.clean.sequences().flat_map(of_sequence).collect()
            }
        }
    }
}

compiled!(CircuitJob<'a>: <F> (Setting<'a, F>, Kept<'a>, Formulation) => Result<Vec<f64>>, circuit_values);

fn circuit_values<F: Scalar>(
    (setting, kept, formulation): (Setting<F>, Kept, Formulation),
) -> Result<Vec<f64>> {
    let Setting { model, metric, .. } = setting;
    let ablated = setting.ablated_outputs()?;
    in_pieces(setting, ablated.is_corrupted_run(), &|pairs, packed| {
        let (mut delta, clean) = packed.differences(model, &ablated);
        let clean_hidden = packed.last_hidden(clean.hidden.view());
        // From here on `delta` is ablated minus *current* output.
        let mut ablated_outputs = packed.room(model);
        packed.run(model, &packed.clean, RecordAs::Stored, &mut ablated_outputs);
        ablated_outputs += &delta;
        let spans = kept.spans(packed);
        let resid = forward(model, packed, &spans, formulation, &ablated_outputs, &mut delta);
        let hidden = model.layer_norm(Norm::Final, packed.last_hidden(resid.view()).view());
        measure(model, pairs, metric, hidden.view(), clean_hidden.view())
    })
}

/// Runs the intact model on every pair's clean prompt, and returns the metric on each.
///
/// # Errors
/// When a pair does not fit the model or there is none.
pub fn run_clean<F: Scalar>(model: &Gpt2<F>, pairs: &[Pair], metric: &dyn Metric<F>) -> Result<Vec<f64>> {
    F::run::<CleanJob>(Setting { model, pairs, metric, ablation: &StandardAblation::Corrupted })
}

compiled!(CleanJob<'a>: <F> Setting<'a, F> => Result<Vec<f64>>, clean_values);

fn clean_values<F: Scalar>(setting: Setting<F>) -> Result<Vec<f64>> {
    let Setting { model, metric, .. } = setting;
    check_all(setting.pairs, model.config())?;
    in_pieces(setting, true, &|pairs, packed| {
        let hidden = packed.last_hidden(model.run(&packed.clean).hidden().view());
        measure(model, pairs, metric, hidden.view(), hidden.view())
    })
}

/// Exact effect of each of `edges`: the loss when that edge alone is ablated, minus the loss of the clean run, mean
/// over pairs. Other edges are NaN.
///
/// Costs half a forward pass per edge and pair on average. A model of two layers of two heads has 46 edges, GPT-2 small
/// 32,491.
///
/// # Errors
/// When a pair does not fit the model, there is none, or there are no edges.
///
/// # Panics
/// When an edge is not in the model's graph.
pub fn patch_edges<F: Scalar>(
    model: &Gpt2<F>,
    pairs: &[Pair],
    metric: &dyn Metric<F>,
    ablation: &dyn Ablation<F>,
    edges: &[Edge],
) -> Result<EdgeScores> {
    F::run::<PatchJob>((Setting { model, pairs, metric, ablation }, edges))
}

compiled!(PatchJob<'a>: <F> (Setting<'a, F>, &'a [Edge]) => Result<EdgeScores>, patched_effects);

fn patched_effects<F: Scalar>((setting, edges): (Setting<F>, &[Edge])) -> Result<EdgeScores> {
    let Setting { model, pairs, metric, .. } = setting;
    let graph = Graph::new(model.config());
    if edges.is_empty() {
        return Err(Error::Input("there are no edges to patch; expected at least one".into()));
    }
    for &edge in edges {
        assert!(graph.has(edge), "{edge:?} is not an edge");
    }
    let ablated = setting.ablated_outputs()?;
    let effects = in_pieces(setting, ablated.is_corrupted_run(), &|pairs, packed| {
        let (delta, clean) = packed.differences(model, &ablated);
        let clean_hidden = packed.last_hidden(clean.hidden.view());
        let before = measure(model, pairs, metric, clean_hidden.view(), clean_hidden.view());
        let states = CleanStates::new(model, packed);
        edges
            .par_iter()
            .map(|&edge| {
                let hidden = states.patched(model, packed, &delta, edge);
                let after = measure(model, pairs, metric, hidden.view(), clean_hidden.view());
                let change: f64 = after.iter().zip(&before).map(|(after, before)| after - before).sum();
                loss_sign(metric) * change
            })
            .collect()
    })?;
    let mut values = Array2::from_elem((graph.n_sources(), graph.n_destinations()), f64::NAN);
    for edge in edges {
        values[(edge.source, edge.destination)] = 0.0;
    }
    // The pieces' lists of effects, one after the other.
    for effects in effects.chunks(edges.len()) {
        for (edge, effect) in edges.iter().zip(effects) {
            values[(edge.source, edge.destination)] += effect / pairs.len() as f64;
        }
    }
    Ok(EdgeScores::new(graph, values))
}

/// Runs pairs, which must have been checked, in pieces, and concatenates the results in order.
pub(super) fn in_pieces<F: Scalar>(
    setting: Setting<F>,
    from_difference: bool,
    run: &(dyn Fn(&[Pair], &Packed<F>) -> Vec<f64> + Sync),
) -> Result<Vec<f64>> {
    let Setting { model, pairs, .. } = setting;
    let prompts: Vec<&[u32]> = pairs.iter().map(|pair| pair.clean.as_slice()).collect();
    let parts: Vec<Vec<f64>> = chunk_by_tokens(&prompts, PIECE_TOKENS)
        .into_par_iter()
        .map(|piece| {
            let pairs = &pairs[piece];
            Ok(run(pairs, &Packed::new(model, pairs, from_difference)?))
        })
        .collect::<Result<_>>()?;
    Ok(parts.concat())
}

/// The metric of each pair, from the last hidden states `[pairs, d]` of a run and of the clean run.
pub(super) fn measure<F: Scalar>(
    model: &Gpt2<F>,
    pairs: &[Pair],
    metric: &dyn Metric<F>,
    hidden: ArrayView2<F>,
    clean: ArrayView2<F>,
) -> Vec<f64> {
    let rows = hidden.rows().into_iter().zip(clean.rows());
    pairs
        .iter()
        .zip(rows)
        .map(|(pair, (hidden, clean))| value_at(metric, model, pair, hidden, clean))
        .collect()
}

/// Forward pass node by node, in which each destination has an input of its own: at each of `spans`, ranges of rows, by
/// the circuit that belongs to it. Returns the input of the logits, `[n, d]`. `ablated [S, n d]` holds the ablated
/// outputs. `delta [S, n d]` must hold ablated minus clean outputs, of which the pass reads that of the embeddings; it
/// is overwritten with ablated minus current outputs.
fn forward<F: Scalar>(
    model: &Gpt2<F>,
    packed: &Packed<F>,
    spans: &[(Range<usize>, &EdgeSet)],
    formulation: Formulation,
    ablated: &Array2<F>,
    delta: &mut Array2<F>,
) -> Array2<F> {
    let (graph, batch) = (packed.graph, &packed.clean);
    let (d, width) = (model.config().n_embd, model.config().d_head());
    // The residual stream of this run, and the one with every source ablated.
    let mut current = model.embed(batch);
    let mut all_ablated = current.clone();
    add_flat(&mut all_ablated, delta.row(0).to_slice().expect("rows are contiguous"));
    // Input of a destination; `None` when that is the current residual stream itself.
    let input =
        |destination: Destination, current: &Array2<F>, all_ablated: &Array2<F>, delta: &Array2<F>| {
            let column = graph.column(destination);
            let mut changed: Option<Array2<F>> = None;
            for (rows, circuit) in spans {
                let (kept, dropped): (Vec<usize>, Vec<usize>) = (0..graph.n_before(destination))
                    .partition(|&source| circuit.contains(Edge { source, destination: column }));
                let use_kept = match formulation {
                    Formulation::Dropped => false,
                    Formulation::Kept => true,
                    Formulation::Shorter => kept.len() < dropped.len(),
                };
                if !use_kept && dropped.is_empty() {
                    continue;
                }
                let entries = rows.start * d..rows.end * d;
                let x = changed.get_or_insert_with(|| current.clone());
                let x = &mut x.as_slice_mut().expect("fresh arrays are contiguous")[entries.clone()];
                let (sources, sign) = if use_kept {
                    let ablated = all_ablated.as_slice().expect("states are contiguous");
                    x.copy_from_slice(&ablated[entries.clone()]);
                    (kept, -F::one())
                } else {
                    (dropped, F::one())
                };
                for source in sources {
                    let delta = delta.row(source).to_slice().expect("rows are contiguous");
                    axpy(sign, &delta[entries.clone()], x);
                }
            }
            changed
        };
    // Adds a source's output to the current stream and its ablated output to the ablated one, and keeps the difference.
    let settle = |row: usize,
                  output: &[F],
                  current: &mut Array2<F>,
                  all_ablated: &mut Array2<F>,
                  delta: &mut Array2<F>| {
        let ablated = ablated.row(row);
        let ablated = ablated.to_slice().expect("rows are contiguous");
        add_flat(current, output);
        add_flat(all_ablated, ablated);
        let mut delta = delta.row_mut(row);
        for ((delta, &r), &o) in delta.iter_mut().zip(ablated).zip(output) {
            *delta = r - o;
        }
    };
    let mut outputs = Array2::zeros((graph.n_head, delta.ncols()));
    for layer in 0..graph.n_layer {
        let weight = model.matrix(ParamId::Block(layer, BlockParam::AttnInWeight));
        let bias = model.get(ParamId::Block(layer, BlockParam::AttnInBias));
        let shared = model.layer_norm(Norm::Attention(layer), current.view());
        let mut qkv = Array2::zeros((batch.n_rows(), 3 * d));
        for qkv_input in QkvInput::ALL {
            for head in 0..graph.n_head {
                let x = input(Destination::Head(layer, qkv_input, head), &current, &all_ablated, delta);
                let normed = x.map(|x| model.layer_norm(Norm::Attention(layer), x.view()));
                let first = qkv_input as usize * d + head * width;
                let columns = s![.., first..first + width];
                let mut out = qkv.slice_mut(columns);
                out += &ArrayView2::from_shape((1, width), &bias[first..first + width]).expect("a row");
                gemm(
                    F::one(),
                    normed.as_ref().unwrap_or(&shared).view(),
                    weight.slice(columns),
                    F::one(),
                    out,
                );
            }
        }
        let z = model.attend(batch, layer, qkv.view());
        head_outputs(model, layer, z.view(), outputs.view_mut());
        for head in 0..graph.n_head {
            let row = graph.row(Source::Head(layer, head));
            let output = outputs.row(head);
            let output = output.to_slice().expect("rows are contiguous");
            settle(row, output, &mut current, &mut all_ablated, delta);
        }
        let bias = model.matrix(ParamId::Block(layer, BlockParam::AttnOutBias));
        current += &bias;
        all_ablated += &bias;

        let x = input(Destination::Mlp(layer), &current, &all_ablated, delta);
        let ln_out = model.layer_norm(Norm::Mlp(layer), x.as_ref().unwrap_or(&current).view());
        let output = model.mlp(layer, ln_out.view());
        let output = output.as_slice().expect("fresh arrays are contiguous");
        settle(graph.row(Source::Mlp(layer)), output, &mut current, &mut all_ablated, delta);
    }
    input(Destination::Logits, &current, &all_ablated, delta).unwrap_or(current)
}

fn add_flat<F: Scalar>(x: &mut Array2<F>, y: &[F]) {
    axpy(F::one(), y, x.as_slice_mut().expect("states are contiguous"));
}

/// Residual streams of the clean run, from which a patched run can start.
struct CleanStates<F> {
    /// The stream entering each block, and last the one leaving the model's last block, `[n, d]` each.
    resid: Vec<Array2<F>>,
    /// The stream between attention and MLP of each block, `[n, d]`.
    mid: Vec<Array2<F>>,
}

impl<F: Scalar> CleanStates<F> {
    fn new(model: &Gpt2<F>, packed: &Packed<F>) -> Self {
        let (mut resid, mut mid) = (Vec::new(), Vec::new());
        let n_layer = packed.graph.n_layer;
        let mut keep = |layer: usize, point: HookPoint, state: ArrayViewMut2<F>| match point {
            HookPoint::ResidPre => resid.push(state.to_owned()),
            HookPoint::ResidMid => mid.push(state.to_owned()),
            HookPoint::ResidPost if layer + 1 == n_layer => resid.push(state.to_owned()),
            _ => {}
        };
        model.run(&packed.clean).with_hooks(&mut keep).resid();
        CleanStates { resid, mid }
    }

    /// Last hidden states, `[pairs, d]`, when one edge is ablated: the clean run up to the destination, the destination
    /// with its changed input, and an ordinary run from there.
    fn patched(&self, model: &Gpt2<F>, packed: &Packed<F>, delta: &Array2<F>, edge: Edge) -> Array2<F> {
        let (d, width) = (model.config().n_embd, model.config().d_head());
        let destination = packed.graph.destination(edge.destination);
        let moved = |x: &Array2<F>| {
            let mut x = x.clone();
            add_flat(&mut x, delta.row(edge.source).to_slice().expect("rows are contiguous"));
            x
        };
        let from = |layer: usize, mut hook: &mut dyn FnMut(usize, HookPoint, ArrayViewMut2<F>)| {
            let resid = self.resid[layer].clone();
            let run = model.run(&packed.clean).from_layer(layer, resid).with_hooks(&mut hook);
            packed.last_hidden(run.hidden().view())
        };
        match destination {
            Destination::Logits => {
                let resid = packed.last_hidden(moved(&self.resid[packed.graph.n_layer]).view());
                model.layer_norm(Norm::Final, resid.view())
            }
            Destination::Mlp(layer) => {
                let normed = model.layer_norm(Norm::Mlp(layer), moved(&self.mid[layer]).view());
                from(layer, &mut |at, point, mut state| {
                    if (at, point) == (layer, HookPoint::Ln2) {
                        state.assign(&normed);
                    }
                })
            }
            Destination::Head(layer, qkv_input, head) => {
                let normed = model.layer_norm(Norm::Attention(layer), moved(&self.resid[layer]).view());
                let first = qkv_input as usize * d + head * width;
                let columns = s![.., first..first + width];
                let weight = model.matrix(ParamId::Block(layer, BlockParam::AttnInWeight));
                let bias = &model.get(ParamId::Block(layer, BlockParam::AttnInBias))[first..first + width];
                from(layer, &mut |at, point, mut state| {
                    if (at, point) == (layer, HookPoint::Qkv) {
                        let mut out = state.slice_mut(columns);
                        out.assign(&ArrayView2::from_shape((1, width), bias).expect("a row"));
                        gemm(F::one(), normed.view(), weight.slice(columns), F::one(), out);
                    }
                })
            }
        }
    }
}
