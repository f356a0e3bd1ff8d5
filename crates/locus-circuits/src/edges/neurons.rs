//! Circuits of MLP neurons: scores by attribution, and runs with all other neurons ablated.
//!
//! A neuron is one entry of an MLP's hidden layer. With its activation `h [n]` in the clean run and `h'` in the
//! corrupted one, and the gradient `g [n]` of the loss there,
//!
//! ```text
//! score = sum over rows of (h' - h) g
//! ```
//!
//! Since an MLP's output is linear in its neurons, the scores of a layer's neurons add up to the score of its MLP as a
//! node. Embeddings and heads belong to every circuit of neurons; an ablated neuron has its value of the corrupted run.
//!
//! Source: attribution patching (Nanda 2023) at MLP neurons, as in Kramar et al. 2024 (arXiv 2403.00745, section 4).
//!
//! Letters: `n` rows, `f` MLP width, `L` layers.

use locus_gpt2::{Config, Error, Gpt2, HookPoint, Result, Scalar, chunk_by_tokens, compiled};
use ndarray::{Array2, ArrayView2, ArrayViewMut2, s};
use rayon::prelude::*;

use super::attribution::{Attribution, PIECE_TOKENS, PairPiece, points_of};
use super::intervene::{in_pieces, measure};
use super::metric::Metric;
use super::pairs::Pair;
use super::scores::RankBy;
use super::setting::Setting;
use super::standard_ablation::StandardAblation;

/// An MLP neuron; `m3.n17` in print.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Neuron {
    /// Layer, in `0..L`.
    pub layer: usize,
    /// Place in the hidden layer, in `0..f`.
    pub index: usize,
}

impl std::fmt::Display for Neuron {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "m{}.n{}", self.layer, self.index)
    }
}

/// Scores of every neuron: estimated change of the loss when the neuron is ablated, mean over pairs. A neuron that
/// helps has a positive score.
#[derive(Clone, Debug, PartialEq)]
pub struct NeuronScores {
    values: Array2<f64>,
}

impl NeuronScores {
    /// Scores from a matrix `[L, f]`.
    pub fn new(values: Array2<f64>) -> Self {
        NeuronScores { values }
    }

    /// All scores, `[L, f]`.
    pub fn matrix(&self) -> &Array2<f64> {
        &self.values
    }

    /// The score of a neuron.
    ///
    /// # Panics
    /// When there is no such neuron.
    pub fn get(&self, neuron: Neuron) -> f64 {
        self.values[(neuron.layer, neuron.index)]
    }

    /// Neurons from the best to the worst, ties layer by layer.
    pub fn ranked(&self, by: RankBy) -> Vec<Neuron> {
        let width = self.values.ncols();
        let scores: Vec<f64> = self.values.iter().copied().collect();
        by.order(&scores).into_iter().map(|i| Neuron { layer: i / width, index: i % width }).collect()
    }
}

/// A subset of a model's neurons.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NeuronSet {
    /// Whether each neuron is in, `[L, f]`.
    inside: Array2<bool>,
}

impl NeuronSet {
    /// The set without neurons.
    pub fn empty(config: &Config) -> Self {
        NeuronSet { inside: Array2::from_elem((config.n_layer, config.d_mlp()), false) }
    }

    /// The set of all neurons.
    pub fn full(config: &Config) -> Self {
        NeuronSet { inside: Array2::from_elem((config.n_layer, config.d_mlp()), true) }
    }

    /// The `n` neurons with the best scores (all neurons when there are fewer).
    pub fn top_n(scores: &NeuronScores, n: usize, by: RankBy) -> Self {
        let mut set = NeuronSet { inside: Array2::from_elem(scores.values.dim(), false) };
        scores.ranked(by).into_iter().take(n).for_each(|neuron| set.insert(neuron));
        set
    }

    /// Adds a neuron.
    ///
    /// # Panics
    /// When there is no such neuron.
    pub fn insert(&mut self, neuron: Neuron) {
        self.inside[(neuron.layer, neuron.index)] = true;
    }

    /// Whether a neuron is inside.
    ///
    /// # Panics
    /// When there is no such neuron.
    pub fn contains(&self, neuron: Neuron) -> bool {
        self.inside[(neuron.layer, neuron.index)]
    }

    /// Number of neurons inside.
    pub fn count(&self) -> usize {
        self.inside.iter().filter(|&&inside| inside).count()
    }
}

/// Scores every neuron on `pairs`, ablated by the corrupted run.
///
/// # Errors
/// When a pair does not fit the model, there is none, or the method scores edges alone: expected [`Attribution::Eap`],
/// [`Attribution::CleanCorrupted`], [`Attribution::IgInputs`] or [`Attribution::Relp`].
///
/// # Panics
/// When an integrated method has no steps.
pub fn attribute_neurons<F: Scalar>(
    model: &Gpt2<F>,
    pairs: &[Pair],
    metric: &dyn Metric<F>,
    method: Attribution,
) -> Result<NeuronScores> {
    let setting = Setting { model, pairs, metric, ablation: &StandardAblation::Corrupted };
    F::run::<NeuronJob>((setting, method))
}

compiled!(NeuronJob<'a>: <F> (Setting<'a, F>, Attribution) => Result<NeuronScores>, neuron_scores);

fn neuron_scores<F: Scalar>((setting, method): (Setting<F>, Attribution)) -> Result<NeuronScores> {
    let Setting { model, pairs, .. } = setting;
    if matches!(method, Attribution::QkFix | Attribution::AtpStar | Attribution::IgActivations(..)) {
        let why =
            "the method scores edges alone; expected eap, clean-corrupted, eap-ig-inputs or relp for neurons";
        return Err(Error::Input(why.into()));
    }
    let ablated = setting.ablated_outputs()?;
    let points = points_of(method, true)?;
    let prompts: Vec<&[u32]> = pairs.iter().map(|pair| pair.clean.as_slice()).collect();
    let parts: Vec<Array2<f64>> = chunk_by_tokens(&prompts, PIECE_TOKENS)
        .into_par_iter()
        .map(|piece| {
            let mut delta = Vec::new();
            let mut differences = |_: usize, point: HookPoint, state: ArrayViewMut2<F>| {
                if point == HookPoint::MlpPost {
                    let (clean, corrupted) = state.view().split_at(ndarray::Axis(0), state.nrows() / 2);
                    delta.push(&corrupted - &clean);
                }
            };
            let setting = Setting { pairs: &pairs[piece], ..setting };
            let piece = PairPiece::new(setting, &ablated, method, &mut differences)?;
            let mut scores = Array2::<f64>::zeros((model.config().n_layer, model.config().d_mlp()));
            let mut contract = |layer: usize, point: HookPoint, state: ArrayViewMut2<F>| {
                if point == HookPoint::MlpPost {
                    add_products(scores.row_mut(layer), &delta[layer], state.view());
                }
            };
            piece.each_pass(&points, &mut contract);
            Ok(scores)
        })
        .collect::<Result<_>>()?;
    let mut sum = Array2::<f64>::zeros((model.config().n_layer, model.config().d_mlp()));
    parts.iter().for_each(|part| sum += part);
    Ok(NeuronScores { values: sum / pairs.len() as f64 })
}

/// `scores [f] += sum over rows of delta g`, with `delta` and `g` `[n, f]`.
fn add_products<F: Scalar>(mut scores: ndarray::ArrayViewMut1<f64>, delta: &Array2<F>, g: ArrayView2<F>) {
    for (delta, g) in delta.rows().into_iter().zip(g.rows()) {
        for ((score, &delta), &g) in scores.iter_mut().zip(delta).zip(g) {
            *score += (delta * g).as_f64();
        }
    }
}

/// Runs every pair with all neurons outside `kept` ablated by the corrupted run, and returns the metric on each.
///
/// # Errors
/// When a pair does not fit the model or there is none.
///
/// # Panics
/// When the neurons belong to a model of another shape.
pub fn run_neurons<F: Scalar>(
    model: &Gpt2<F>,
    pairs: &[Pair],
    metric: &dyn Metric<F>,
    kept: &NeuronSet,
) -> Result<Vec<f64>> {
    let shape = (model.config().n_layer, model.config().d_mlp());
    assert_eq!(kept.inside.dim(), shape, "neurons of another model");
    let setting = Setting { model, pairs, metric, ablation: &StandardAblation::Corrupted };
    F::run::<KeptNeuronsJob>((setting, kept))
}

compiled!(KeptNeuronsJob<'a>: <F> (Setting<'a, F>, &'a NeuronSet) => Result<Vec<f64>>, kept_neurons);

fn kept_neurons<F: Scalar>((setting, kept): (Setting<F>, &NeuronSet)) -> Result<Vec<f64>> {
    let Setting { model, metric, .. } = setting;
    setting.ablated_outputs()?;
    in_pieces(setting, true, &|pairs, packed| {
        let n = packed.clean.n_rows();
        let (mut corrupted, mut intact) = (Vec::new(), Array2::zeros((0, 0)));
        let mut keep = |_: usize, point: HookPoint, state: ArrayViewMut2<F>| match point {
            HookPoint::MlpPost => corrupted.push(state.slice(s![n.., ..]).to_owned()),
            HookPoint::LnFinal => {
                intact = packed.last_hidden(state.slice(s![..n, ..]));
            }
            _ => {}
        };
        model.run(&packed.both).with_hooks(&mut keep).hidden();
        let mut patch = |layer: usize, point: HookPoint, mut state: ArrayViewMut2<F>| {
            if point == HookPoint::MlpPost {
                for (mut row, corrupted) in state.rows_mut().into_iter().zip(corrupted[layer].rows()) {
                    let entries = row.iter_mut().zip(corrupted).zip(kept.inside.row(layer));
                    entries.filter(|(_, kept)| !**kept).for_each(|((x, &corrupted), _)| *x = corrupted);
                }
            }
        };
        let hidden = packed.last_hidden(model.run(&packed.clean).with_hooks(&mut patch).hidden().view());
        measure(model, pairs, metric, hidden.view(), intact.view())
    })
}
