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
//! EAP is one point, `alpha = 1`. EAP-IG is a list of points with weights, so gradients are summed first and contracted
//! with `delta` once. RelP has a coefficient in the gradient's place ([`relevance`](super::relevance)), AtP* another
//! score for edges into queries and keys ([`qk_fix`](super::qk_fix)).
//!
//! Sources: Nanda 2023 and Syed, Rager, Conmy 2023 (arXiv 2310.10348) for EAP, Hanna, Pezzelle, Belinkov 2024 (arXiv
//! 2403.17806) for EAP-IG. Deviations: losses are summed over pairs and divided by their number once, so a score does
//! not depend on how pairs are batched; gradients along the path of one component's output count for that component's
//! edges only.
//!
//! Letters: `n` rows, `d` width, `S` sources, `D` destinations, `H` heads.

use std::borrow::Cow;
use std::ops::Range;

use locus_gpt2::{Error, Gpt2, Hook, HookPoint, Result, Scalar, Tape, axpy, chunk_by_tokens, compiled, gemm};
use ndarray::{Array2, ArrayView2, ArrayViewMut2, Axis, s};
use rayon::prelude::*;

use super::ablation::{AblatedOutputs, Ablation};
use super::gradients::{BackwardPass, LAYERS_AT_ONCE};
use super::graph::{Edge, Graph, Source};
use super::metric::{LogitDiff, Metric, loss_gradient_at};
use super::pairs::{Pair, check_all, one_length};
use super::positions::PositionScores;
use super::qk_fix::{CleanAttention, HeadGradients};
use super::quadrature::QuadratureRule;
use super::relevance::RelevanceRules;
use super::runs::Packed;
use super::scores::EdgeScores;
use super::setting::Setting;

/// Tokens in one piece of parallel work: enough for fast matrix products, few enough that outputs of sources and
/// gradients of destinations (up to 1.8 MB per token for GPT-2 small) take little memory.
pub(super) const PIECE_TOKENS: usize = 128;
/// Pieces whose score matrices are held at the same time.
const PIECES_AT_ONCE: usize = 4;

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
    /// RelP (Rezaei Jafari et al. 2025, arXiv 2508.21258): propagation coefficients of the clean run in place of
    /// gradients. LayerNorms divide by a constant, and GELU multiplies by one, the secant `gelu(x) / x`.
    Relp,
    /// EAP with the QK fix of AtP* (Kramar et al. 2024, arXiv 2403.00745, section 3.1): the effect of an edge on the
    /// attention pattern is exact, and the rest is EAP. Costs about as much as a forward pass for every source that a
    /// layer reads, much less than exact patching.
    QkFix,
    /// AtP*: the QK fix and GradDrop (same paper, section 3.2), the mean absolute score over backward passes that leave
    /// out one layer each, so that effects which cancel are seen. Scores have no sign.
    AtpStar,
}

impl Attribution {
    /// Whether gradients are taken at the clean run alone, where a divergence from that run has none.
    pub fn is_at_clean_run(self) -> bool {
        matches!(self, Attribution::Eap | Attribution::Relp | Attribution::QkFix | Attribution::AtpStar)
    }
}

/// Scores every edge on `pairs`: the mean over pairs of its estimated effect on the loss.
///
/// # Errors
/// When a pair does not fit the model, there is none, or the method needs a corrupted run that the ablation does not
/// have ([`Attribution::CleanCorrupted`] and [`Attribution::IgInputs`]).
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
    let mut add = |_: usize, scores: Array2<f64>| if sum.is_empty() { sum = scores } else { sum += &scores };
    F::run::<EachPieceJob>((Setting { model, pairs, metric, ablation }, method, Grouping::Pairs, &mut add))?;
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
    let mut push = |_: usize, scores: Array2<f64>| all.push(EdgeScores::new(graph, scores));
    F::run::<EachPieceJob>((Setting { model, pairs, metric, ablation }, method, Grouping::Pairs, &mut push))?;
    Ok(all)
}

/// Scores every edge at every token position: the summand of [`attribute_edges`] at that position, so that the scores
/// of an edge add up to the one there (up to rounding).
///
/// # Errors
/// As [`attribute_edges`], when the prompts are not of one length, and when the method patches an edge at all positions
/// at once ([`Attribution::QkFix`] and [`Attribution::AtpStar`]).
///
/// # Panics
/// As [`attribute_edges`].
pub fn attribute_positions<F: Scalar>(
    model: &Gpt2<F>,
    pairs: &[Pair],
    metric: &dyn Metric<F>,
    method: Attribution,
    ablation: &dyn Ablation<F>,
) -> Result<PositionScores> {
    check_all(pairs, model.config())?;
    let graph = Graph::new(model.config());
    let mut sums =
        vec![Array2::<f64>::zeros((graph.n_sources(), graph.n_destinations())); one_length(pairs)?];
    let mut add = |position: usize, scores: Array2<f64>| sums[position] += &scores;
    F::run::<EachPieceJob>((
        Setting { model, pairs, metric, ablation },
        method,
        Grouping::Positions,
        &mut add,
    ))?;
    let mean = |sum: Array2<f64>| EdgeScores::new(graph, sum / pairs.len() as f64);
    Ok(PositionScores::new(sums.into_iter().map(mean).collect()))
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

/// What a score matrix is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Grouping {
    /// One pair.
    Pairs,
    /// One token position, over the pairs of a piece, which must have prompts of one length.
    Positions,
}

compiled!(
    EachPieceJob<'a>: <F> (Setting<'a, F>, Attribution, Grouping, &'a mut dyn FnMut(usize, Array2<f64>)) => Result<()>,
    each_piece
);

/// Calls `take` with the score matrices `[S, D]` of each piece of the pairs, in order, and with the place of each in
/// its piece: by position that is the position.
fn each_piece<F: Scalar>(
    (setting, method, grouping, take): (
        Setting<F>,
        Attribution,
        Grouping,
        &mut dyn FnMut(usize, Array2<f64>),
    ),
) -> Result<()> {
    let Setting { pairs, .. } = setting;
    let has_qk_fix = matches!(method, Attribution::QkFix | Attribution::AtpStar);
    if has_qk_fix && grouping == Grouping::Positions {
        let why = "the method patches an edge at all positions at once; expected eap, clean-corrupted, eap-ig-inputs, \
                   eap-ig-activations or relp for scores by position";
        return Err(Error::Input(why.into()));
    }
    let ablated = setting.ablated_outputs()?;
    let points = points_of(method, ablated.is_corrupted_run())?;
    let prompts: Vec<&[u32]> = pairs.iter().map(|pair| pair.clean.as_slice()).collect();
    for pieces in chunk_by_tokens(&prompts, PIECE_TOKENS).chunks(PIECES_AT_ONCE) {
        let scored: Vec<Vec<Array2<f64>>> = pieces
            .par_iter()
            .map(|piece| {
                let pairs = &pairs[piece.clone()];
                let setting = Setting { pairs, ..setting };
                if has_qk_fix {
                    let mut attention = CleanAttention::<F>::default();
                    let piece = PairPiece::new(setting, &ablated, method, &mut attention)?;
                    return Ok(piece.with_qk_fix(&attention, method == Attribution::AtpStar));
                }
                let mut piece = PairPiece::new(setting, &ablated, method, &mut ())?;
                if grouping == Grouping::Positions {
                    piece.group_by_position();
                }
                Ok(match method {
                    Attribution::IgActivations(..) => piece.along_activations(&points),
                    _ => piece.along_inputs(&points),
                })
            })
            .collect::<Result<_>>()?;
        scored.into_iter().flat_map(|piece| piece.into_iter().enumerate()).for_each(|(i, one)| take(i, one));
    }
    Ok(())
}

/// Points of a method with their weights.
pub(super) fn points_of(method: Attribution, has_corrupted_run: bool) -> Result<Vec<(f64, f64)>> {
    match method {
        _ if method.is_at_clean_run() => Ok(vec![(1.0, 1.0)]),
        Attribution::IgActivations(rule, steps) => Ok(rule.nodes(steps)),
        _ if !has_corrupted_run => {
            let why = "the method interpolates to the corrupted run, which this ablation does not have";
            Err(Error::Input(format!("{why}; expected ablation by corrupted prompts")))
        }
        Attribution::IgInputs(rule, steps) => Ok(rule.nodes(steps)),
        _ => Ok(vec![(0.0, 0.5), (1.0, 0.5)]),
    }
}

/// A few pairs with their clean run, from which they are scored.
pub(super) struct PairPiece<'a, F> {
    model: &'a Gpt2<F>,
    pairs: &'a [Pair],
    metric: &'a dyn Metric<F>,
    packed: Packed<F>,
    /// Ablated minus clean outputs, `[S, n d]`.
    delta: Array2<F>,
    clean: Tape<F>,
    /// Last hidden states of the clean run, `[pairs, d]`.
    clean_hidden: Array2<F>,
    /// Rules of the backward pass of RelP.
    rules: Option<RelevanceRules<F>>,
    /// Rows that each score matrix sums over.
    groups: Vec<Vec<Range<usize>>>,
}

impl<'a, F: Scalar> PairPiece<'a, F> {
    /// Runs the pairs; `watch` sees the states as [`Packed::watched_differences`] says.
    pub fn new(
        setting: Setting<'a, F>,
        ablated: &AblatedOutputs<F>,
        method: Attribution,
        watch: &mut dyn Hook<F>,
    ) -> Result<Self> {
        let Setting { model, pairs, metric, .. } = setting;
        let packed = Packed::new(model, pairs, ablated.is_corrupted_run())?;
        let mut rules =
            (method == Attribution::Relp).then(|| RelevanceRules::new(model, packed.clean.n_rows()));
        let mut see = |layer: usize, point: HookPoint, mut state: ArrayViewMut2<F>| {
            watch.call(layer, point, state.view_mut());
            if let Some(rules) = &mut rules {
                rules.call(layer, point, state);
            }
        };
        let (delta, clean) = packed.watched_differences(model, ablated, &mut see);
        let clean_hidden = packed.last_hidden(clean.hidden.view());
        let groups = packed.clean.sequences().map(|rows| vec![rows]).collect();
        Ok(PairPiece { model, pairs, metric, packed, delta, clean, clean_hidden, rules, groups })
    }

    /// Lets a score matrix be that of a token position, for all pairs, in place of that of a pair. Positions before a
    /// pair's first row are those that its prompts share.
    fn group_by_position(&mut self) {
        let length = self.pairs[0].clean.len();
        let at = |position: usize| {
            let row = |rows: Range<usize>| {
                let place = (position + rows.len()).checked_sub(length)?;
                Some(rows.start + place..rows.start + place + 1)
            };
            self.packed.clean.sequences().filter_map(row).collect()
        };
        self.groups = (0..length).map(at).collect();
    }

    /// Scores with the QK fix, and with GradDrop if wanted.
    fn with_qk_fix(&self, attention: &CleanAttention<F>, grad_drop: bool) -> Vec<Array2<f64>> {
        let graph = self.packed.graph;
        let dropped: Vec<Option<usize>> =
            if grad_drop { (0..graph.n_layer).map(Some).collect() } else { vec![None] };
        let mut of_passes = Vec::with_capacity(dropped.len());
        let mut d_z = Vec::with_capacity(dropped.len());
        for &dropped in &dropped {
            let (mut scores, mut heads) = (self.no_scores(), HeadGradients::<F>::without(dropped));
            self.gradients(&self.clean, 1.0, &mut heads, &mut |first, gradients| {
                self.contract(first, gradients, 0..graph.n_sources(), &mut scores);
            });
            d_z.push(heads.by_layer());
            of_passes.push(scores);
        }
        attention.write_scores(self.model, &self.packed, &self.delta, &d_z, &mut of_passes);
        if !grad_drop {
            return of_passes.swap_remove(0);
        }
        // A pass without a layer says nothing about what that layer reads, so a mean leaves it out.
        let mut means = self.no_scores();
        for (scores, dropped) in of_passes.iter().zip(dropped) {
            for (mean, scores) in means.iter_mut().zip(scores) {
                for ((source, destination), mean) in mean.indexed_iter_mut() {
                    let layer = destination / (3 * graph.n_head + 1);
                    let passes = if layer == graph.n_layer { layer } else { graph.n_layer - 1 };
                    if dropped != Some(layer) {
                        *mean += scores[(source, destination)].abs() / passes as f64;
                    }
                }
            }
        }
        means
    }

    /// Backward passes at all points of the path of the token embeddings, weighted, for their hook alone.
    pub fn each_pass(&self, points: &[(f64, f64)], tap: &mut dyn Hook<F>) {
        for &(alpha, weight) in points {
            self.gradients(&self.interpolated(Source::Input, alpha), weight, tap, &mut |_, _| ());
        }
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
            self.gradients(&self.interpolated(component, alpha), weight, &mut (), &mut |first, gradients| {
                self.contract(first, gradients, sources.clone(), scores);
            });
            return;
        }
        // Gradients summed over the points, `[D, n d]`, so that each is contracted once.
        let mut sums = Array2::<F>::zeros((self.packed.graph.n_destinations(), self.delta.ncols()));
        for &(alpha, weight) in points {
            self.gradients(&self.interpolated(component, alpha), weight, &mut (), &mut |first, gradients| {
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

    /// Zeros, `[S, D]` for each pair or position.
    fn no_scores(&self) -> Vec<Array2<f64>> {
        let graph = self.packed.graph;
        vec![Array2::zeros((graph.n_sources(), graph.n_destinations())); self.groups.len()]
    }

    /// Computes `weight` times the gradient of the summed loss at every destination's input, and hands it to `take` as
    /// [`BackwardPass::gradients`] does; `tap` is the pass's hook.
    fn gradients(
        &self,
        tape: &Tape<F>,
        weight: f64,
        tap: &mut dyn Hook<F>,
        take: &mut dyn FnMut(usize, ArrayView2<F>),
    ) {
        let (model, graph, batch) = (self.model, self.packed.graph, &self.packed.clean);
        let mut d_hidden = Array2::<F>::zeros(tape.hidden.dim());
        for (i, (pair, row)) in self.pairs.iter().zip(batch.last_rows()).enumerate() {
            let (hidden, clean) = (tape.hidden.row(row), self.clean_hidden.row(i));
            let gradient = loss_gradient_at(self.metric, model, pair, hidden, clean);
            d_hidden.row_mut(row).assign(&gradient.mapv(|g| F::from_f64(weight) * g));
        }
        BackwardPass { model, graph, tape, rules: self.rules.as_ref(), tap }.gradients(d_hidden, take);
    }

    /// `scores[group][u, v] += sum over the group's rows of delta_u g_v` for some sources, and the destinations from
    /// column `first` on, of which `gradients [destinations, n d]` are given: one matrix product per range of rows,
    /// added up in f64.
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
        scores.par_iter_mut().zip(&self.groups).for_each(|(scores, group)| {
            let mut product = Array2::<F>::zeros((sources.len(), gradients.nrows()));
            for rows in group {
                let columns = rows.start * d..rows.end * d;
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
            }
        });
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
