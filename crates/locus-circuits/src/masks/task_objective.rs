//! The objective of classification and preference tasks: choose at the last token as the full model does.

use locus_gpt2::internal::select_rows;
use locus_gpt2::{
    Batch, Gpt2, ParamEntries, ParamId, ParamMask, ParamSet, Result, Scalar, ScoreHead, Tape, axpy,
    chunk_by_tokens, compiled, dot, unique_inverse,
};
use ndarray::Array2;
use rayon::prelude::*;

use super::objective::Objective;

/// Tokens in one piece of parallel work. A piece returns a gradient of every block parameter, so it must not be small;
/// it must not be large either, or a batch has too few pieces for all threads.
const PIECE_TOKENS: usize = 512;

/// Number of block parameters above which pieces of work run sequentially: each is then enough for all threads, and a
/// gradient per thread would take most of the memory.
pub const MANY_PARAMETERS: usize = 1 << 23;
/// Tokens of a piece of such a model: states take memory, and twice as many would make a step only a twelfth faster.
const PIECE_TOKENS_OF_MANY_PARAMETERS: usize = 128;

/// Read-out of a choice from the last token's hidden state.
#[derive(Clone, Copy, Debug)]
pub enum ReadOut<'a, F> {
    /// A linear head, and the class wanted for each row, usually the one that the full model chooses.
    Head(&'a ScoreHead<F>, &'a [usize]),
    /// The unembedding, and two tokens for each row: the first is to be preferred to the second.
    Answers(&'a [[u32; 2]]),
}

/// The objective of tasks: mean cross-entropy, in nats, of the choice that is wanted for each sequence.
#[derive(Clone, Copy, Debug)]
pub struct TaskObjective<'a, F> {
    /// The intact model.
    pub model: &'a Gpt2<F>,
    /// Reads the choice.
    pub read_out: ReadOut<'a, F>,
    /// Tokenised rows.
    pub sequences: &'a [Vec<u32>],
}

impl<F: Scalar> Objective<F> for TaskObjective<'_, F> {
    fn model(&self) -> &Gpt2<F> {
        self.model
    }

    fn n_rows(&self) -> usize {
        self.sequences.len()
    }

    fn gradient(&self, masked: &Gpt2<F>, rows: &[usize]) -> Result<(f64, ParamSet<F>)> {
        self.check(masked);
        F::run::<GradientJob>((*self, masked, rows))
    }

    fn gradient_at(
        &self,
        masked: &Gpt2<F>,
        rows: &[usize],
        entries: &[ParamEntries],
    ) -> Result<(f64, Vec<Vec<F>>)> {
        self.check(masked);
        F::run::<EntriesJob>((*self, masked, rows, entries))
    }

    fn gradient_parts(
        &self,
        masked: &Gpt2<F>,
        rows: &[usize],
        max_tokens: usize,
        take: &mut dyn FnMut(f64, ParamSet<F>),
    ) -> Result<()> {
        self.check(masked);
        F::run::<PartsJob>((*self, masked, rows, max_tokens, take))
    }
}

compiled!(
    GradientJob<'a>: <F> (TaskObjective<'a, F>, &'a Gpt2<F>, &'a [usize]) => Result<(f64, ParamSet<F>)>, gradient
);
compiled!(
    EntriesJob<'a>: <F> (TaskObjective<'a, F>, &'a Gpt2<F>, &'a [usize], &'a [ParamEntries]) => Result<(f64, Vec<Vec<F>>)>,
    gradient_at
);
type PartsIn<'a, F> =
    (TaskObjective<'a, F>, &'a Gpt2<F>, &'a [usize], usize, &'a mut dyn FnMut(f64, ParamSet<F>));

compiled!(PartsJob<'a>: <F> PartsIn<'a, F> => Result<()>, gradient_parts);

fn gradient<F: Scalar>(
    (objective, masked, rows): (TaskObjective<F>, &Gpt2<F>, &[usize]),
) -> Result<(f64, ParamSet<F>)> {
    let none = || ParamSet::zeros(masked.config(), ParamId::maskable(masked.config()));
    let backward = |piece: &RowPiece<F>, sum: &mut ParamSet<F>| {
        masked.backward(&piece.tape, piece.d_hidden.view(), sum, &mut ());
    };
    objective.sum_over_pieces(masked, rows, none, backward, |sum, part| sum.add_scaled(F::one(), part))
}

fn gradient_at<F: Scalar>(
    (objective, masked, rows, entries): (TaskObjective<F>, &Gpt2<F>, &[usize], &[ParamEntries]),
) -> Result<(f64, Vec<Vec<F>>)> {
    let none = || entries.iter().map(|entries| vec![F::zero(); entries.indices().len()]).collect();
    let backward = |piece: &RowPiece<F>, sums: &mut Vec<Vec<F>>| {
        masked.backward_to_entries(&piece.tape, piece.d_hidden.view(), entries, sums);
    };
    let add = |sums: &mut Vec<Vec<F>>, parts: &Vec<Vec<F>>| {
        sums.iter_mut().zip(parts).for_each(|(sums, parts)| axpy(F::one(), parts, sums));
    };
    objective.sum_over_pieces(masked, rows, none, backward, add)
}

fn gradient_parts<F: Scalar>((objective, masked, rows, max_tokens, take): PartsIn<F>) -> Result<()> {
    let part = |rows_of_piece: &[usize]| objective.part(masked, rows_of_piece, rows.len());
    let pieces = objective.chunks(rows, max_tokens);
    if ParamMask::n_maskable(masked.config()) > MANY_PARAMETERS {
        for rows_of_piece in pieces {
            let (loss, part) = part(rows_of_piece)?;
            take(loss, part);
        }
        return Ok(());
    }
    let parts: Vec<(f64, ParamSet<F>)> = pieces.into_par_iter().map(part).collect::<Result<_>>()?;
    parts.into_iter().for_each(|(loss, part)| take(loss, part));
    Ok(())
}

impl<F: Scalar> TaskObjective<'_, F> {
    /// Panics when the masked model or the read-out belongs to another model or task: the loss would mean nothing.
    fn check(&self, masked: &Gpt2<F>) {
        assert_eq!(
            masked.config(),
            self.model.config(),
            "a masked model of another shape than the objective's"
        );
        let (what, n) = match self.read_out {
            ReadOut::Head(_, classes) => ("classes", classes.len()),
            ReadOut::Answers(answers) => ("answers", answers.len()),
        };
        assert_eq!(n, self.sequences.len(), "numbers of {what} and of sequences");
    }

    /// Loss and gradient, added up in order. Pieces of large models run sequentially into one sum, those of small
    /// models in parallel.
    fn sum_over_pieces<G: Send>(
        &self,
        masked: &Gpt2<F>,
        rows: &[usize],
        none: impl Fn() -> G + Sync,
        backward: impl Fn(&RowPiece<F>, &mut G) + Sync,
        add: impl Fn(&mut G, &G),
    ) -> Result<(f64, G)> {
        // Sorted, so that sequences with a common prefix are in one piece and share its rows.
        let mut rows = rows.to_vec();
        rows.sort_by_key(|&row| &self.sequences[row]);
        let rows = rows.as_slice();
        let (mut loss, mut sum) = (0.0, none());
        if ParamMask::n_maskable(masked.config()) > MANY_PARAMETERS {
            for rows_of_piece in self.chunks(rows, PIECE_TOKENS_OF_MANY_PARAMETERS) {
                let piece = self.piece(masked, rows_of_piece, rows.len())?;
                backward(&piece, &mut sum);
                loss += piece.loss;
            }
            return Ok((loss, sum));
        }
        let parts = self.chunks(rows, PIECE_TOKENS).into_par_iter().map(|rows_of_piece| {
            let piece = self.piece(masked, rows_of_piece, rows.len())?;
            let mut part = none();
            backward(&piece, &mut part);
            Ok((piece.loss, part))
        });
        for (part_loss, part) in parts.collect::<Result<Vec<_>>>()? {
            loss += part_loss;
            add(&mut sum, &part);
        }
        Ok((loss, sum))
    }

    /// Cuts rows into runs of at most `max_tokens` tokens.
    fn chunks<'r>(&self, rows: &'r [usize], max_tokens: usize) -> Vec<&'r [usize]> {
        let sequences: Vec<&[u32]> = rows.iter().map(|&row| self.sequences[row].as_slice()).collect();
        chunk_by_tokens(&sequences, max_tokens).into_iter().map(|piece| &rows[piece]).collect()
    }

    /// Share of some of `n` rows in loss and gradient.
    fn part(&self, masked: &Gpt2<F>, rows: &[usize], n: usize) -> Result<(f64, ParamSet<F>)> {
        let piece = self.piece(masked, rows, n)?;
        let mut grads = ParamSet::zeros(masked.config(), ParamId::maskable(masked.config()));
        masked.backward(&piece.tape, piece.d_hidden.view(), &mut grads, &mut ());
        Ok((piece.loss, grads))
    }

    /// Forward pass of some of `n` rows in all; loss and gradient are divided by `n`.
    fn piece(&self, masked: &Gpt2<F>, rows: &[usize], n: usize) -> Result<RowPiece<F>> {
        let config = masked.config();
        let share = 1.0 / n as f64;
        let sequences: Vec<&[u32]> = rows.iter().map(|&row| self.sequences[row].as_slice()).collect();
        let batch = Batch::prefix_sharing(config, &sequences)?;
        let (reads, places) = unique_inverse(&batch.last_rows());
        let tape = masked.run(&batch).reading(&reads).tape();
        let hidden = select_rows(tape.hidden.view(), &places);
        let (loss, d_last) = self.read_out.cross_entropy(masked, &hidden, rows);
        let mut d_hidden = Array2::zeros(tape.hidden.dim());
        for (&place, d_last) in places.iter().zip(d_last.rows()) {
            d_hidden.row_mut(place).scaled_add(F::from_f64(share), &d_last);
        }
        Ok(RowPiece { tape, loss: loss * share, d_hidden })
    }
}

/// Some rows, before their backward pass.
struct RowPiece<F> {
    tape: Tape<F>,
    loss: f64,
    /// Gradient of the loss at the last hidden states, `[reads, d]`.
    d_hidden: Array2<F>,
}

impl<F: Scalar> ReadOut<'_, F> {
    /// Summed cross-entropy of the given rows, and its gradient at their last hidden states `[rows, d]`.
    fn cross_entropy(&self, model: &Gpt2<F>, hidden: &Array2<F>, rows: &[usize]) -> (f64, Array2<F>) {
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
                    let [correct, incorrect] = answers[row].map(|token| wte.row(token as usize));
                    let direction = &correct - &incorrect;
                    let hidden = hidden.row(last);
                    let [hidden, along] =
                        [hidden.as_slice(), direction.as_slice()].map(|x| x.expect("rows are contiguous"));
                    let advantage = dot(hidden, along).as_f64();
                    // softmax over two: p(incorrect) = 1 / (1 + exp(advantage)), loss = -ln p(correct)
                    let p_bad = 1.0 / (1.0 + advantage.exp());
                    loss += (-advantage).max(0.0) + (-advantage.abs()).exp().ln_1p();
                    d_hidden.row_mut(last).assign(&direction.mapv(|x| F::from_f64(-p_bad) * x));
                }
                (loss, d_hidden)
            }
        }
    }
}
