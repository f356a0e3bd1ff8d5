//! Attribution of a loss to parameters in one backward pass.

use locus_gpt2::{ParamId, Params, Result, Scalar};

use crate::objective::Objective;

/// First-order change of the loss when a parameter is set to zero, summed over pieces of the data without cancelling
/// between them: `s_j = sum over pieces |w_j g_j(piece)|` (SNIP, Lee et al. 2019, eq. 5, with the absolute value taken
/// per piece of at most `piece_rows` tokens instead of once).
///
/// Takes gradients at the intact model on all rows of the objective.
///
/// # Errors
/// When a sequence does not fit the model.
pub fn weight_attribution<F: Scalar>(objective: &Objective<'_, F>, piece_rows: usize) -> Result<Params<F>> {
    let config = objective.model.config();
    let rows: Vec<usize> = (0..objective.sequences.len()).collect();
    let mut scores = Params::zeros(config, ParamId::maskable(config));
    // Bounded memory: a few pieces' gradients at a time.
    for rows in rows.chunks(64) {
        for (_, grads) in objective.gradient_parts(objective.model, rows, piece_rows)? {
            for id in ParamId::maskable(config) {
                let weights = objective.model.get(id);
                let terms = weights.iter().zip(grads.get(id)).map(|(&w, &g)| (w * g).abs());
                scores.get_mut(id).iter_mut().zip(terms).for_each(|(score, term)| *score += term);
            }
        }
    }
    Ok(scores)
}
