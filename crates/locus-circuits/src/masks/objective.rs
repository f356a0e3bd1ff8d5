//! Objectives: the loss that a circuit should keep low, as trainers and attribution see it.

use locus_gpt2::{Gpt2, ParamEntries, ParamSet, Result, Scalar};
use rayon::prelude::*;

/// A loss of a masked model on numbered rows of data, and its gradient: [`TaskObjective`](super::TaskObjective), or one
/// of your own.
pub trait Objective<F: Scalar>: Sync {
    /// The intact model.
    fn model(&self) -> &Gpt2<F>;

    /// Number of rows.
    fn n_rows(&self) -> usize;

    /// Mean loss of a (masked) model on the given rows, and its gradient with respect to every block parameter
    /// ([`ParamId::maskable`](locus_gpt2::ParamId::maskable)).
    ///
    /// # Errors
    /// When a row does not fit the model.
    ///
    /// # Panics
    /// When the masked model has another shape than [`Objective::model`].
    fn gradient(&self, masked: &Gpt2<F>, rows: &[usize]) -> Result<(f64, ParamSet<F>)>;

    /// Mean loss on the given rows, and its gradient with respect to some parameters only: a list of gradients for each
    /// of `entries`. The default picks them from [`Objective::gradient`].
    ///
    /// # Errors
    /// As [`Objective::gradient`].
    fn gradient_at(
        &self,
        masked: &Gpt2<F>,
        rows: &[usize],
        entries: &[ParamEntries],
    ) -> Result<(f64, Vec<Vec<F>>)> {
        let (loss, grads) = self.gradient(masked, rows)?;
        let pick = |entries: &ParamEntries| {
            let grads = grads.get(entries.id());
            entries.indices().iter().map(|&index| grads[index as usize]).collect()
        };
        Ok((loss, entries.iter().map(pick).collect()))
    }

    /// Hands over the summands of [`Objective::gradient`] in order, each already divided by the number of rows: one per
    /// piece of at most `max_tokens` tokens (and at least one row). A summand takes as much memory as the model's blocks.
    /// The default makes every row a piece and holds all of them; objectives of large models override it.
    ///
    /// # Errors
    /// As [`Objective::gradient`].
    fn gradient_parts(
        &self,
        masked: &Gpt2<F>,
        rows: &[usize],
        max_tokens: usize,
        take: &mut dyn FnMut(f64, ParamSet<F>),
    ) -> Result<()> {
        let _ = max_tokens;
        let share = 1.0 / rows.len() as f64;
        let part = |&row: &usize| {
            let (loss, grads) = self.gradient(masked, &[row])?;
            let mut part = ParamSet::zeros(masked.config(), grads.ids());
            part.add_scaled(F::from_f64(share), &grads);
            Ok((share * loss, part))
        };
        let parts: Vec<(f64, ParamSet<F>)> = rows.par_iter().map(part).collect::<Result<_>>()?;
        parts.into_iter().for_each(|(loss, part)| take(loss, part));
        Ok(())
    }
}
