//! What a circuit is asked to do: choose the class the full model chooses.

use locus_gpt2::{Batch, ParamId, Params, Result, Scalar, ScoreHead, pieces};
use rayon::prelude::*;

/// Rows of the packed batch in one piece of parallel work. A piece returns a gradient of every block parameter, so it
/// must not be small; it must not be large either, or a batch would not fill the machine.
const PIECE_ROWS: usize = 512;

/// Sequences with the class the full model gives each of them.
#[derive(Clone, Copy, Debug)]
pub struct Objective<'a, F> {
    /// The intact model.
    pub model: &'a Params<F>,
    /// Reads the class off the last token's hidden state.
    pub head: &'a ScoreHead<F>,
    /// Tokenised rows.
    pub sequences: &'a [Vec<u32>],
    /// Class of each row, usually the arg max of the full model's logits.
    pub classes: &'a [usize],
}

impl<F: Scalar> Objective<'_, F> {
    /// Mean cross-entropy of a (masked) model on the given rows, and its gradient with respect to every block
    /// parameter. Pieces are added up in order.
    ///
    /// # Errors
    /// When a sequence does not fit the model.
    pub fn gradient(&self, masked: &Params<F>, rows: &[usize]) -> Result<(f64, Params<F>)> {
        let mut parts = self.gradient_parts(masked, rows, PIECE_ROWS)?.into_iter();
        let (mut loss, mut sum) = parts.next().expect("there is at least one row");
        for (part_loss, part) in parts {
            loss += part_loss;
            sum.add_scaled(F::one(), &part);
        }
        Ok((loss, sum))
    }

    /// The summands of [`Objective::gradient`]: one per piece of at most `max_rows` tokens, already divided by the
    /// number of rows.
    ///
    /// # Errors
    /// When a sequence does not fit the model.
    pub fn gradient_parts(
        &self,
        masked: &Params<F>,
        rows: &[usize],
        max_rows: usize,
    ) -> Result<Vec<(f64, Params<F>)>> {
        let sequences: Vec<&[u32]> = rows.iter().map(|&row| self.sequences[row].as_slice()).collect();
        let classes: Vec<usize> = rows.iter().map(|&row| self.classes[row]).collect();
        let config = masked.config();
        let share = 1.0 / rows.len() as f64;
        pieces(&sequences, max_rows)
            .into_par_iter()
            .map(|piece| {
                let batch = Batch::new(config, &sequences[piece.clone()])?;
                let trace = masked.trace(&batch, &mut ());
                let (loss, mut d_hidden) = self.head.cross_entropy_backward(&batch, &trace, &classes[piece]);
                d_hidden.mapv_inplace(|g| g * F::of(share));
                let mut grads = Params::zeros(config, ParamId::maskable(config));
                masked.backward(&batch, &trace, d_hidden.view(), &mut grads, &mut ());
                Ok((loss * share, grads))
            })
            .collect()
    }
}
