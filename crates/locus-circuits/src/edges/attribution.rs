//! Edge attribution patching and its integrated forms.
//!
//! For a pair with loss `M`, let `delta_u [n, d]` be the ablated minus the clean output of source `u`, and
//! `g_v(alpha) [n, d]` the gradient `d M / d (input of v)` of destination `v`, before its LayerNorm, at a point `alpha`
//! of the path from the corrupted (0) to the clean (1) run. Then
//!
//! ```text
//! score(u -> v) = sum over rows and width of delta_u * (sum over alpha of weight_alpha g_v(alpha))
//! ```
//!
//! EAP is one point, `alpha = 1`. Every method below is a list of points with weights, so gradients are summed first
//! and contracted with `delta` once.
//!
//! Sources: Nanda 2023 and Syed, Rager, Conmy 2023 (arXiv 2310.10348) for EAP, Hanna, Pezzelle, Belinkov 2024 (arXiv
//! 2403.17806) for EAP-IG. Deviations: losses are summed over pairs and divided by their number once, so a score does
//! not depend on how pairs are batched; gradients along the path of one component's output count for that component's
//! edges only.
//!
//! Letters: `n` rows, `d` width, `S` sources, `D` destinations, `H` heads.

use std::borrow::Cow;
use std::ops::Range;

use locus_gpt2::{
    BlockParam, Error, Gpt2, Hook, HookPoint, Norm, ParamId, ParamSet, Result, Scalar, Tape, axpy,
    chunk_by_tokens, compiled, gemm,
};
use ndarray::{Array2, ArrayView2, ArrayViewMut2, Axis, s};
use rayon::prelude::*;

use super::ablation::{AblatedOutputs, Ablation};
use super::graph::{Destination, Edge, Graph, QkvInput, Source};
use super::metric::{LogitDiff, Metric, loss_gradient_at};
use super::pairs::Pair;
use super::quadrature::QuadratureRule;
use super::runs::Packed;
use super::scores::EdgeScores;
use super::setting::Setting;

/// Tokens in one piece of parallel work: enough for fast matrix products, few enough that outputs of sources and
/// gradients of destinations (up to 1.8 MB per token for GPT-2 small) take little memory.
const PIECE_TOKENS: usize = 128;
/// Pieces whose score matrices are held at the same time.
const PIECES_AT_ONCE: usize = 4;

/// Layers whose destinations are contracted together. The BLAS packs the sources' outputs again for every product: with
/// more layers there are fewer products, but also more pairs of source and destination that are no edge.
const LAYERS_AT_ONCE: usize = 4;
/// Entries in one piece of a sum of vectors.
const SUM_ENTRIES: usize = 1 << 13;

/// Attribution method: the points at which gradients are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attribution {
    /// EAP: at the clean run.
    Eap,
    /// The mean of the gradients at the clean and at the corrupted run.
    CleanCorrupted,
    /// EAP-IG on inputs: along the path of the token embeddings, with a quadrature rule of this many steps.
    IgInputs(QuadratureRule, usize),
    /// EAP-IG on activations: for one component after the other (input, each attention layer, each MLP) along the path
    /// of its output, everything before it as in the clean run; with a quadrature rule of this many steps.
    IgActivations(QuadratureRule, usize),
}

/// Scores every edge on `pairs`: the mean over pairs of its estimated effect on the loss.
///
/// # Errors
/// When a pair does not fit the model, there is none, or the method needs a corrupted run that the ablation does not
/// have (all but [`Attribution::Eap`] and [`Attribution::IgActivations`]).
///
/// # Panics
/// When an integrated method has no steps.
pub fn attribute_edges<F: Scalar>(
    model: &Gpt2<F>,
    pairs: &[Pair],
    metric: &dyn Metric<F>,
    method: Attribution,
    ablation: &dyn Ablation<F>,
) -> Result<EdgeScores> {
    let mut sum = Array2::<f64>::zeros((0, 0));
    let mut add = |scores| if sum.is_empty() { sum = scores } else { sum += &scores };
    F::run::<EachPairJob>((Setting { model, pairs, metric, ablation }, method, &mut add))?;
    sum /= pairs.len() as f64;
    Ok(EdgeScores::new(Graph::new(model.config()), sum))
}

/// Scores every edge on each pair separately.
///
/// # Errors
/// As [`attribute_edges`].
///
/// # Panics
/// As [`attribute_edges`].
pub fn attribute_edges_per_pair<F: Scalar>(
    model: &Gpt2<F>,
    pairs: &[Pair],
    metric: &dyn Metric<F>,
    method: Attribution,
    ablation: &dyn Ablation<F>,
) -> Result<Vec<EdgeScores>> {
    let graph = Graph::new(model.config());
    let mut all = Vec::with_capacity(pairs.len());
    let mut push = |scores| all.push(EdgeScores::new(graph, scores));
    F::run::<EachPairJob>((Setting { model, pairs, metric, ablation }, method, &mut push))?;
    Ok(all)
}

/// A control that knows nothing of the task: an edge's score is how much its source's output differs, the Euclidean
/// length of `delta_u` at each token, summed over tokens, mean over pairs. All edges of a source have the same score.
///
/// # Errors
/// When a pair does not fit the model or there is none.
pub fn activation_magnitude<F: Scalar>(
    model: &Gpt2<F>,
    pairs: &[Pair],
    ablation: &dyn Ablation<F>,
) -> Result<EdgeScores> {
    F::run::<MagnitudeJob>(Setting { model, pairs, metric: &LogitDiff, ablation })
}

compiled!(MagnitudeJob<'a>: <F> Setting<'a, F> => Result<EdgeScores>, magnitude);

fn magnitude<F: Scalar>(setting: Setting<F>) -> Result<EdgeScores> {
    let Setting { model, pairs, .. } = setting;
    let ablated = setting.ablated_outputs()?;
    let graph = Graph::new(model.config());
    let lengths: Vec<Vec<f64>> = pairs
        .par_iter()
        .map(|pair| {
            let packed = Packed::new(model, std::slice::from_ref(pair), ablated.is_corrupted_run())?;
            let (delta, _) = packed.differences(model, &ablated);
            let row = |row: &[F]| row.iter().map(|x| x.as_f64() * x.as_f64()).sum::<f64>().sqrt();
            let d = model.config().n_embd;
            let source = |source: ndarray::ArrayView1<F>| {
                source.to_slice().expect("rows are contiguous").chunks(d).map(row).sum::<f64>()
            };
            Ok(delta.rows().into_iter().map(source).collect())
        })
        .collect::<Result<_>>()?;
    let values = Array2::from_shape_fn((graph.n_sources(), graph.n_destinations()), |(source, _)| {
        lengths.iter().map(|lengths| lengths[source]).sum::<f64>() / pairs.len() as f64
    });
    Ok(EdgeScores::new(graph, values))
}

compiled!(
    EachPairJob<'a>: <F> (Setting<'a, F>, Attribution, &'a mut dyn FnMut(Array2<f64>)) => Result<()>, each_pair
);

/// Calls `take` with the score matrix `[S, D]` of every pair, in order.
fn each_pair<F: Scalar>(
    (setting, method, take): (Setting<F>, Attribution, &mut dyn FnMut(Array2<f64>)),
) -> Result<()> {
    let Setting { pairs, .. } = setting;
    let ablated = setting.ablated_outputs()?;
    let points = match method {
        Attribution::Eap => vec![(1.0, 1.0)],
        Attribution::IgActivations(rule, steps) => rule.nodes(steps),
        _ if !ablated.is_corrupted_run() => {
            let why = "the method interpolates to the corrupted run, which this ablation does not have";
            return Err(Error::Input(format!("{why}; expected ablation by corrupted prompts")));
        }
        Attribution::CleanCorrupted => vec![(0.0, 0.5), (1.0, 0.5)],
        Attribution::IgInputs(rule, steps) => rule.nodes(steps),
    };
    let prompts: Vec<&[u32]> = pairs.iter().map(|pair| pair.clean.as_slice()).collect();
    for pieces in chunk_by_tokens(&prompts, PIECE_TOKENS).chunks(PIECES_AT_ONCE) {
        let scored: Vec<Vec<Array2<f64>>> = pieces
            .par_iter()
            .map(|piece| {
                let pairs = &pairs[piece.clone()];
                let piece = PairPiece::new(Setting { pairs, ..setting }, &ablated)?;
                Ok(match method {
                    Attribution::IgActivations(..) => piece.along_activations(&points),
                    _ => piece.along_inputs(&points),
                })
            })
            .collect::<Result<_>>()?;
        scored.into_iter().flatten().for_each(&mut *take);
    }
    Ok(())
}

/// A few pairs with their clean run, from which they are scored.
struct PairPiece<'a, F> {
    model: &'a Gpt2<F>,
    pairs: &'a [Pair],
    metric: &'a dyn Metric<F>,
    packed: Packed<F>,
    /// Ablated minus clean outputs, `[S, n d]`.
    delta: Array2<F>,
    clean: Tape<F>,
    /// Last hidden states of the clean run, `[pairs, d]`.
    clean_hidden: Array2<F>,
}

impl<'a, F: Scalar> PairPiece<'a, F> {
    fn new(setting: Setting<'a, F>, ablated: &AblatedOutputs<F>) -> Result<Self> {
        let Setting { model, pairs, metric, .. } = setting;
        let packed = Packed::new(model, pairs, ablated.is_corrupted_run())?;
        let (delta, clean) = packed.differences(model, ablated);
        let clean_hidden = packed.last_hidden(clean.hidden.view());
        Ok(PairPiece { model, pairs, metric, packed, delta, clean, clean_hidden })
    }

    /// Scores with gradients along one path for all sources: that of the token embeddings.
    fn along_inputs(&self, points: &[(f64, f64)]) -> Vec<Array2<f64>> {
        let mut scores = self.no_scores();
        self.along(Source::Input, points, 0..self.packed.graph.n_sources(), &mut scores);
        scores
    }

    /// Scores with a path per component, whose gradients count for the component's own edges.
    fn along_activations(&self, points: &[(f64, f64)]) -> Vec<Array2<f64>> {
        let graph = self.packed.graph;
        let mut scores = self.no_scores();
        let layers = (0..graph.n_layer).flat_map(|layer| [Source::Head(layer, 0), Source::Mlp(layer)]);
        for component in std::iter::once(Source::Input).chain(layers) {
            self.along(component, points, rows_of(graph, component), &mut scores);
        }
        scores
    }

    /// Adds the scores of some sources, with gradients along the path of one component's output.
    fn along(
        &self,
        component: Source,
        points: &[(f64, f64)],
        sources: Range<usize>,
        scores: &mut [Array2<f64>],
    ) {
        if let [(alpha, weight)] = *points {
            self.gradients(&self.interpolated(component, alpha), weight, &mut |first, gradients| {
                self.contract(first, gradients, sources.clone(), scores);
            });
            return;
        }
        // Gradients summed over the points, `[D, n d]`, so that each is contracted once.
        let mut sums = Array2::<F>::zeros((self.packed.graph.n_destinations(), self.delta.ncols()));
        for &(alpha, weight) in points {
            self.gradients(&self.interpolated(component, alpha), weight, &mut |first, gradients| {
                let mut sums = sums.slice_mut(s![first..first + gradients.nrows(), ..]);
                let rows = sums.axis_iter_mut(Axis(0)).into_par_iter();
                rows.zip(gradients.axis_iter(Axis(0)).into_par_iter()).for_each(|(mut sum, gradient)| {
                    let sum = sum.as_slice_mut().expect("rows are contiguous");
                    axpy(F::one(), gradient.to_slice().expect("rows are contiguous"), sum);
                });
            });
        }
        let destinations = LAYERS_AT_ONCE * (3 * self.packed.graph.n_head + 1);
        for (i, gradients) in sums.axis_chunks_iter(Axis(0), destinations).enumerate() {
            self.contract(i * destinations, gradients, sources.clone(), scores);
        }
    }

    /// The clean run with one component's output moved towards its ablated output: `clean + (1 - alpha) delta`. A head
    /// stands for its whole attention layer.
    fn interpolated(&self, component: Source, alpha: f64) -> Cow<'_, Tape<F>> {
        if alpha == 1.0 {
            return Cow::Borrowed(&self.clean);
        }
        let share = F::from_f64(1.0 - alpha);
        let Packed { graph, clean, .. } = &self.packed;
        let mut moved = vec![F::zero(); self.delta.ncols()];
        for row in rows_of(*graph, component) {
            axpy(share, self.delta.row(row).to_slice().expect("rows are contiguous"), &mut moved);
        }
        let add = |mut state: ArrayViewMut2<F>| {
            state.iter_mut().zip(&moved).for_each(|(x, &moved)| *x += moved);
        };
        let mut resid = self.model.embed(clean);
        if component == Source::Input {
            add(resid.view_mut());
        }
        let mut hook = |layer: usize, point: HookPoint, state: ArrayViewMut2<F>| match (component, point) {
            (Source::Head(at, _), HookPoint::AttnOut) if at == layer => add(state),
            (Source::Mlp(at), HookPoint::MlpOut) if at == layer => add(state),
            _ => {}
        };
        Cow::Owned(self.model.run(clean).from_layer(0, resid).with_hooks(&mut hook).tape())
    }

    /// Zeros, `[S, D]` for each pair.
    fn no_scores(&self) -> Vec<Array2<f64>> {
        let graph = self.packed.graph;
        vec![Array2::zeros((graph.n_sources(), graph.n_destinations())); self.pairs.len()]
    }

    /// Computes `weight` times the gradient of the summed loss at every destination's input, and calls `take` with the
    /// first column and the gradients `[destinations, n d]`: first for the logits, then for a few layers at a time,
    /// from the last to the first.
    fn gradients(&self, tape: &Tape<F>, weight: f64, take: &mut dyn FnMut(usize, ArrayView2<F>)) {
        let (model, graph, batch) = (self.model, self.packed.graph, &self.packed.clean);
        let mut d_hidden = Array2::<F>::zeros(tape.hidden.dim());
        for (i, (pair, row)) in self.pairs.iter().zip(batch.last_rows()).enumerate() {
            let (hidden, clean) = (tape.hidden.row(row), self.clean_hidden.row(i));
            let gradient = loss_gradient_at(self.metric, model, pair, hidden, clean);
            d_hidden.row_mut(row).assign(&gradient.mapv(|g| F::from_f64(weight) * g));
        }
        let destinations = LAYERS_AT_ONCE.min(graph.n_layer) * (3 * graph.n_head + 1);
        let layers = Array2::zeros((destinations, self.delta.ncols()));
        let mut hook = DestinationGradients { model, graph, tape, layers, take };
        let mut no_weights = ParamSet::zeros(model.config(), []);
        model.backward(tape, d_hidden.view(), &mut no_weights, &mut hook);
    }

    /// `scores[pair][u, v] += sum over the pair's rows of delta_u g_v` for some sources, and the destinations from
    /// column `first` on, of which `gradients [destinations, n d]` are given: one matrix product per pair, added up in
    /// f64.
    fn contract(
        &self,
        first: usize,
        gradients: ArrayView2<F>,
        sources: Range<usize>,
        scores: &mut [Array2<f64>],
    ) {
        let graph = self.packed.graph;
        let d = self.model.config().n_embd;
        // The last destination of a layer, its MLP, sees the most sources.
        let n_before = graph.n_before(graph.destination(first + gradients.nrows() - 1));
        let sources = sources.start.min(n_before)..sources.end.min(n_before);
        if sources.is_empty() {
            return;
        }
        let rows: Vec<Range<usize>> = self.packed.clean.sequences().collect();
        scores.par_iter_mut().zip(rows).for_each(|(scores, rows)| {
            let columns = rows.start * d..rows.end * d;
            let mut product = Array2::<F>::zeros((sources.len(), gradients.nrows()));
            gemm(
                F::one(),
                self.delta.slice(s![sources.clone(), columns.clone()]),
                gradients.slice(s![.., columns]).t(),
                F::zero(),
                product.view_mut(),
            );
            for ((i, j), &x) in product.indexed_iter() {
                let edge = Edge { source: sources.start + i, destination: first + j };
                if graph.has(edge) {
                    scores[(edge.source, edge.destination)] += x.as_f64();
                }
            }
        });
    }
}

/// Splits the gradient that a backward pass has at a layer into one for each of its destinations.
struct DestinationGradients<'a, F> {
    model: &'a Gpt2<F>,
    graph: Graph,
    tape: &'a Tape<F>,
    /// Gradients of the destinations of a few layers, `[layers (3 H + 1), n d]`.
    layers: Array2<F>,
    take: &'a mut dyn FnMut(usize, ArrayView2<F>),
}

impl<F: Scalar> Hook<F> for DestinationGradients<'_, F> {
    fn call(&mut self, layer: usize, point: HookPoint, mut state: ArrayViewMut2<F>) {
        let (model, graph, tape) = (self.model, self.graph, self.tape);
        let (width, d) = (model.config().d_head(), model.config().n_embd);
        let n_qkv_inputs = QkvInput::ALL.len() * graph.n_head;
        let per_layer = n_qkv_inputs + 1;
        let bottom = layer - layer % LAYERS_AT_ONCE;
        let first = (layer - bottom) * per_layer;
        match point {
            HookPoint::ResidPost if layer + 1 == graph.n_layer => {
                let flat = ArrayView2::from_shape(
                    (1, state.len()),
                    state.as_slice().expect("states are contiguous"),
                );
                (self.take)(graph.column(Destination::Logits), flat.expect("one row"));
            }
            HookPoint::Ln2 => {
                let row = self.layers.row_mut(first + n_qkv_inputs);
                let mut row = row.into_shape_with_order(state.dim()).expect("rows are contiguous");
                row.assign(&state);
                model.through_norm(tape, Norm::Mlp(layer), row);
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
                    model.through_norm(tape, Norm::Attention(layer), row);
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

/// Rows of a component's sources: a head stands for all heads of its layer.
fn rows_of(graph: Graph, component: Source) -> Range<usize> {
    let first = graph.row(component);
    match component {
        Source::Head(..) => first..first + graph.n_head,
        _ => first..first + 1,
    }
}
