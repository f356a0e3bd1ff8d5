//! Rival circuits of parameters: an objective that also charges for what earlier circuits have.
//!
//! ```text
//! loss(h w) = task loss(h w) + weight / k sum over parameters of used (h w) / w
//! ```
//!
//! where `used` counts the circuits that have a parameter `w` and `k` is their mean size: for a mask `h` of 0 and 1 the
//! sum is the number of parameters shared with them, so `weight` is what a circuit that is all shared pays for each.
//! Any [`MaskTrainer`](super::MaskTrainer) then finds a circuit that does the task and shares as little as it can.
//!
//! Source: ours, for the question of arXiv 2605.12671 (do two circuits of one task share more than chance?).

use locus_gpt2::{Gpt2, ParamEntries, ParamId, ParamMask, ParamSet, Result, Scalar};

use super::objective::Objective;

/// An objective with a charge for parameters that other circuits have.
pub struct Avoiding<'a, F> {
    objective: &'a dyn Objective<F>,
    /// The charge for each block parameter divided by its weight: its part of the gradient. 0 where the weight is.
    charge: ParamSet<F>,
}

impl<'a, F: Scalar> Avoiding<'a, F> {
    /// Adds a charge of `weight`, in units of the loss, for the parameters of `circuits`.
    ///
    /// # Panics
    /// When a circuit belongs to a model of another shape.
    pub fn new(objective: &'a dyn Objective<F>, circuits: &[&ParamMask], weight: f64) -> Self {
        let model = objective.model();
        let mut charge = ParamSet::zeros(model.config(), ParamId::maskable(model.config()));
        let kept: usize = circuits.iter().map(|circuit| circuit.count()).sum();
        let each = weight * circuits.len() as f64 / kept.max(1) as f64;
        for circuit in circuits {
            assert_eq!(circuit.config(), model.config(), "a circuit of another model");
            for (id, inside) in circuit.tensors() {
                let (charge, weights) = (charge.get_mut(id), model.get(id));
                for i in inside.indices().filter(|&i| weights[i] != F::zero()) {
                    charge[i] += F::from_f64(each) / weights[i];
                }
            }
        }
        Avoiding { objective, charge }
    }

    /// What a masked model pays.
    fn charge_of(&self, masked: &Gpt2<F>) -> f64 {
        let of = |id: ParamId| -> f64 {
            let values = masked.get(id).iter().zip(self.charge.get(id));
            values.map(|(&value, &charge)| (value * charge).as_f64()).sum()
        };
        ParamId::maskable(masked.config()).map(of).sum()
    }
}

impl<F: Scalar> Objective<F> for Avoiding<'_, F> {
    fn model(&self) -> &Gpt2<F> {
        self.objective.model()
    }

    fn n_rows(&self) -> usize {
        self.objective.n_rows()
    }

    fn gradient(&self, masked: &Gpt2<F>, rows: &[usize]) -> Result<(f64, ParamSet<F>)> {
        let (loss, mut gradient) = self.objective.gradient(masked, rows)?;
        gradient.add_scaled(F::one(), &self.charge);
        Ok((loss + self.charge_of(masked), gradient))
    }

    fn gradient_at(
        &self,
        masked: &Gpt2<F>,
        rows: &[usize],
        entries: &[ParamEntries],
    ) -> Result<(f64, Vec<Vec<F>>)> {
        let (loss, mut gradients) = self.objective.gradient_at(masked, rows, entries)?;
        for (entries, gradients) in entries.iter().zip(&mut gradients) {
            let charge = self.charge.get(entries.id());
            for (gradient, &index) in gradients.iter_mut().zip(entries.indices()) {
                *gradient += charge[index as usize];
            }
        }
        Ok((loss + self.charge_of(masked), gradients))
    }

    /// Summands of the task's gradient, without the charge: attribution says by them what the task needs.
    fn gradient_parts(
        &self,
        masked: &Gpt2<F>,
        rows: &[usize],
        max_tokens: usize,
        take: &mut dyn FnMut(f64, ParamSet<F>),
    ) -> Result<()> {
        self.objective.gradient_parts(masked, rows, max_tokens, take)
    }
}
