//! Attribution of a loss to parameters from gradients at (or on the way to) the intact model.
//!
//! Letters: `w_j` a parameter, `g_ij` the gradient of example `i`'s loss with respect to it.

use locus_gpt2::{Gpt2, ParamId, ParamSet, Result, Scalar, compiled};
use rayon::prelude::*;

use super::objective::Objective;

/// Rows whose gradients are held at the same time.
const ROWS_AT_A_TIME: usize = 64;

/// Ways to score a parameter. All scores are at least 0; larger means more important.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WeightScore {
    /// `|w_j sum_i g_ij|`: first-order change of the mean loss when the parameter is set to zero (SNIP, Lee et al.
    /// 2019, eq. 5).
    Snip,
    /// `sum_i |w_j g_ij|`: first-order change without cancelling between examples.
    SnipPerExample,
    /// `w_j^2 sum_i g_ij^2`: second-order change with the Fisher diagonal for the curvature (optimal brain damage,
    /// LeCun et al. 1990; Theis et al. 2018).
    Fisher,
    /// `|w_j mean_k sum_i g_ij(alpha_k)|` at `alpha_k w`, all block parameters scaled together: integrated gradients
    /// (Sundararajan et al. 2017) from the model without blocks, midpoint rule with this many points. The signed scores
    /// add up to the change of the mean loss over that path.
    Integrated(usize),
    /// `|w_j|`: a control that does not depend on the task.
    Magnitude,
}

/// Scores every block parameter on all rows of the objective.
///
/// # Errors
/// When a sequence does not fit the model.
///
/// # Panics
/// When there is no row, or integration has no point.
pub fn score_weights<F: Scalar>(objective: &dyn Objective<F>, method: WeightScore) -> Result<ParamSet<F>> {
    F::run::<ScoreJob>((objective, method))
}

compiled!(ScoreJob<'a>: <F> (&'a dyn Objective<F>, WeightScore) => Result<ParamSet<F>>, scores);

fn scores<F: Scalar>((objective, method): (&dyn Objective<F>, WeightScore)) -> Result<ParamSet<F>> {
    let model = objective.model();
    assert!(objective.n_rows() > 0, "no row to score weights on");
    match method {
        WeightScore::Snip => Ok(product(model, &mean_gradient(objective, model)?)),
        WeightScore::SnipPerExample => weight_attribution(objective, 1),
        WeightScore::Fisher => sum_over_parts(objective, 1, |w, g| w * w * g * g),
        WeightScore::Integrated(points) => {
            assert!(points > 0, "integration needs a point");
            let mut sum = ParamSet::zeros(model.config(), ParamId::maskable(model.config()));
            for k in 0..points {
                let alpha = F::from_f64((k as f64 + 0.5) / points as f64);
                let scaled = scale_blocks(model, alpha);
                sum.add_scaled(F::from_f64(1.0 / points as f64), &mean_gradient(objective, &scaled)?);
            }
            Ok(product(model, &sum))
        }
        WeightScore::Magnitude => {
            let mut sizes = ParamSet::zeros(model.config(), []);
            for id in ParamId::maskable(model.config()) {
                sizes.insert(id, model.get(id).iter().map(|w| w.abs()).collect());
            }
            Ok(sizes)
        }
    }
}

/// First-order change of the loss when a parameter is set to zero, summed over pieces of the data without cancelling
/// between them: `s_j = sum over pieces |w_j g_j(piece)|` (SNIP, Lee et al. 2019, eq. 5, with the absolute value taken
/// per piece of at most `piece_tokens` tokens instead of once).
///
/// Takes gradients at the intact model on all rows of the objective.
///
/// # Errors
/// When a sequence does not fit the model.
pub fn weight_attribution<F: Scalar>(
    objective: &dyn Objective<F>,
    piece_tokens: usize,
) -> Result<ParamSet<F>> {
    F::run::<AttributionJob>((objective, piece_tokens))
}

compiled!(AttributionJob<'a>: <F> (&'a dyn Objective<F>, usize) => Result<ParamSet<F>>, sizes_of_parts);

fn sizes_of_parts<F: Scalar>((objective, piece_tokens): (&dyn Objective<F>, usize)) -> Result<ParamSet<F>> {
    sum_over_parts(objective, piece_tokens, |w, g| (w * g).abs())
}

/// Sum over pieces of `term(w_j, g_j(piece))`, with the gradient of the piece's share of the mean loss.
fn sum_over_parts<F: Scalar>(
    objective: &dyn Objective<F>,
    piece_tokens: usize,
    term: impl Fn(F, F) -> F + Sync,
) -> Result<ParamSet<F>> {
    let (model, n) = (objective.model(), objective.n_rows());
    let mut scores = ParamSet::zeros(model.config(), ParamId::maskable(model.config()));
    let rows: Vec<usize> = (0..n).collect();
    for rows in rows.chunks(ROWS_AT_A_TIME) {
        // The objective divides by the rows of the chunk.
        let share = F::from_f64(rows.len() as f64 / n as f64);
        objective.gradient_parts(model, rows, piece_tokens, &mut |_, grads| {
            let tensors: Vec<(ParamId, &mut [F])> = scores.blocks_mut().collect();
            tensors.into_par_iter().for_each(|(id, scores)| {
                let terms = model.get(id).iter().zip(grads.get(id)).map(|(&w, &g)| term(w, share * g));
                scores.iter_mut().zip(terms).for_each(|(score, term)| *score += term);
            });
        })?;
    }
    Ok(scores)
}

/// Gradient of the mean loss over all rows.
fn mean_gradient<F: Scalar>(objective: &dyn Objective<F>, at: &Gpt2<F>) -> Result<ParamSet<F>> {
    let rows: Vec<usize> = (0..objective.n_rows()).collect();
    Ok(objective.gradient(at, &rows)?.1)
}

/// `|w g|`, entry by entry.
fn product<F: Scalar>(model: &Gpt2<F>, grads: &ParamSet<F>) -> ParamSet<F> {
    let mut scores = grads.clone();
    for id in ParamId::maskable(model.config()) {
        scores.get_mut(id).iter_mut().zip(model.get(id)).for_each(|(g, &w)| *g = (*g * w).abs());
    }
    scores
}

/// The model with all block parameters multiplied by `alpha`.
fn scale_blocks<F: Scalar>(model: &Gpt2<F>, alpha: F) -> Gpt2<F> {
    let mut scaled = model.clone();
    for id in ParamId::maskable(model.config()) {
        scaled.get_mut(id).iter_mut().for_each(|w| *w *= alpha);
    }
    scaled
}
