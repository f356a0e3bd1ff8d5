//! What a circuit is asked to do: choose as the full model does.

use locus_gpt2::{Batch, ParamId, ParamMask, Params, Past, Result, Scalar, ScoreHead, dot, pieces};
use ndarray::Array2;
use rayon::prelude::*;

/// Rows of the packed batch in one piece of parallel work. A piece returns a gradient of every block parameter, so it
/// must not be small; it must not be large either, or a batch would not fill the machine.
const PIECE_ROWS: usize = 512;

/// Block parameters above which work takes turns: a piece of it is then enough for all threads, and what each would hold
/// at the same time, a gradient for one, would be most of the memory.
pub const MANY_PARAMETERS: usize = 1 << 23;
/// Rows of one of those pieces: their states take memory, and with twice as many a step is a twelfth faster.
const ROWS_OF_MANY_PARAMETERS: usize = 128;

/// How a choice is read off the last token's hidden state.
#[derive(Clone, Copy, Debug)]
pub enum ReadOut<'a, F> {
    /// A linear head, and the class of each row, usually the one the full model chooses.
    Head(&'a ScoreHead<F>, &'a [usize]),
    /// The unembedding: in each row the first token is to be preferred to the second.
    Answers(&'a [[u32; 2]]),
}

/// Sequences with the choice that is wanted for each of them.
#[derive(Clone, Copy, Debug)]
pub struct Objective<'a, F> {
    /// The intact model.
    pub model: &'a Params<F>,
    /// Reads the choice.
    pub read_out: ReadOut<'a, F>,
    /// Tokenised rows.
    pub sequences: &'a [Vec<u32>],
}

impl<F: Scalar> Objective<'_, F> {
    /// Mean cross-entropy of a (masked) model on the given rows, and its gradient with respect to every block
    /// parameter. Pieces are added up in order.
    ///
    /// # Errors
    /// When a sequence does not fit the model.
    pub fn gradient(&self, masked: &Params<F>, rows: &[usize]) -> Result<(f64, Params<F>)> {
        let mut sum = Params::zeros(masked.config(), ParamId::maskable(masked.config()));
        let loss = self.add_gradient(masked, rows, &mut sum)?;
        Ok((loss, sum))
    }

    /// The same, added to the parameters present in `sum`.
    ///
    /// # Errors
    /// When a sequence does not fit the model; `sum` may then hold a part.
    pub fn add_gradient(&self, masked: &Params<F>, rows: &[usize], sum: &mut Params<F>) -> Result<f64> {
        if ParamMask::population(masked.config()) > MANY_PARAMETERS {
            let sequences: Vec<&[u32]> = rows.iter().map(|&row| self.sequences[row].as_slice()).collect();
            let losses = pieces(&sequences, ROWS_OF_MANY_PARAMETERS).into_iter().map(|piece| {
                self.add_piece(masked, &sequences[piece.clone()], &rows[piece], rows.len(), sum)
            });
            return losses.sum();
        }
        let mut loss = 0.0;
        for (part_loss, part) in self.gradient_parts(masked, rows, PIECE_ROWS)? {
            loss += part_loss;
            sum.add_scaled(F::one(), &part);
        }
        Ok(loss)
    }

    /// The summands of [`Objective::gradient`]: one per piece of at most `max_rows` tokens (and at least one sequence),
    /// already divided by the number of rows.
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
        pieces(&sequences, max_rows)
            .into_par_iter()
            .map(|piece| {
                let mut grads = Params::zeros(masked.config(), ParamId::maskable(masked.config()));
                let (sequences, of_piece) = (&sequences[piece.clone()], &rows[piece]);
                let loss = self.add_piece(masked, sequences, of_piece, rows.len(), &mut grads)?;
                Ok((loss, grads))
            })
            .collect()
    }

    /// Loss and gradient of some of `n` rows, divided by `n`.
    fn add_piece(
        &self,
        masked: &Params<F>,
        sequences: &[&[u32]],
        rows: &[usize],
        n: usize,
        sum: &mut Params<F>,
    ) -> Result<f64> {
        let config = masked.config();
        let share = 1.0 / n as f64;
        let batch = Batch::new(config, sequences)?;
        let (past, reads) = (Past::none(config), batch.last_rows());
        let trace = masked.trace_reads(&batch, past, masked.embed(&batch), 0, &reads, &mut ());
        let (loss, mut d_hidden) = self.read_out.cross_entropy(masked, &trace.hidden, rows);
        d_hidden.mapv_inplace(|g| g * F::of(share));
        masked.backward(&batch, &trace, d_hidden.view(), sum, &mut ());
        Ok(loss * share)
    }
}

impl<F: Scalar> ReadOut<'_, F> {
    /// Summed cross-entropy of the given rows, and its gradient at their last hidden states `[rows, d]`.
    fn cross_entropy(&self, model: &Params<F>, hidden: &Array2<F>, rows: &[usize]) -> (f64, Array2<F>) {
        match self {
            ReadOut::Head(head, classes) => {
                let classes: Vec<usize> = rows.iter().map(|&row| classes[row]).collect();
                head.cross_entropy_backward(hidden.view(), &classes)
            }
            ReadOut::Answers(answers) => {
                let wte = model.matrix(ParamId::TokenEmbedding);
                let mut loss = 0.0;
                let mut d_hidden = Array2::zeros(hidden.dim());
                for (last, &row) in rows.iter().enumerate() {
                    let [good, bad] = answers[row].map(|token| wte.row(token as usize));
                    let direction = &good - &bad;
                    let hidden = hidden.row(last);
                    let [hidden, along] =
                        [hidden.as_slice(), direction.as_slice()].map(|x| x.expect("rows are contiguous"));
                    let advantage = dot(hidden, along).wide();
                    // softmax over two: p(bad) = 1 / (1 + exp(advantage)), loss = -ln p(good)
                    let p_bad = 1.0 / (1.0 + advantage.exp());
                    loss += (-advantage).max(0.0) + (-advantage.abs()).exp().ln_1p();
                    d_hidden.row_mut(last).assign(&direction.mapv(|x| F::of(-p_bad) * x));
                }
                (loss, d_hidden)
            }
        }
    }
}
