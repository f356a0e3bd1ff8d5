//! A linear score head read at each sequence's last token, as in `GPT2ForSequenceClassification`.

use ndarray::{Array2, ArrayView2, Axis, concatenate};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use super::optim::{AdamW, Moments};
use crate::error::Result;
use crate::kernels::gemm::gemm;
use crate::kernels::softmax::softmax;
use crate::model::batch::{Batch, chunk_by_tokens, unique_inverse};
use crate::model::weights::Gpt2;
use crate::random::shuffle;
use crate::scalar::{Scalar, compiled};

/// `logits = hidden W^T` with `W [classes, d]` and no bias.
#[derive(Clone, Debug, PartialEq)]
pub struct ScoreHead<F> {
    /// `[classes, d]`, as Hugging Face stores `score.weight`.
    pub weight: Array2<F>,
}

compiled!(
    TrainJob<'a>: <F>
        (ArrayView2<'a, F>, &'a [usize], usize, &'a HeadTraining, &'a mut ChaCha8Rng) => ScoreHead<F>,
    |(features, classes, n_classes, params, rng)| train(features, classes, n_classes, params, rng)
);
compiled!(
    ReadOutJob<'a>: <F> (&'a ScoreHead<F>, ArrayView2<'a, F>) => Array2<F>,
    |(head, features)| read_out(head, features)
);
compiled!(
    HeadBackwardJob<'a>: <F> (&'a ScoreHead<F>, ArrayView2<'a, F>, &'a [usize]) => (f64, Array2<F>),
    |(head, features, classes)| cross_entropy_backward(head, features, classes)
);
compiled!(
    LastHiddenJob<'a>: <F> (&'a Gpt2<F>, &'a Batch<F>) => Array2<F>,
    |(model, batch)| last_rows_hidden(model, batch)
);
compiled!(
    LastHiddenOfJob<'a>: <F> (&'a Gpt2<F>, &'a [Vec<u32>]) => Result<Array2<F>>,
    |(model, sequences)| last_rows_hidden_of(model, sequences)
);
compiled!(
    CrossEntropyJob<'a>: <F> (&'a mut Array2<F>, &'a [usize]) => f64,
    |(logits, classes)| summed_cross_entropy(logits, classes)
);

fn train<F: Scalar>(
    features: ArrayView2<F>,
    classes: &[usize],
    n_classes: usize,
    params: &HeadTraining,
    rng: &mut ChaCha8Rng,
) -> ScoreHead<F> {
    let (n, d) = features.dim();
    assert_eq!(n, classes.len(), "one class per row");
    if let Some(class) = classes.iter().find(|&&class| class >= n_classes) {
        panic!("class {class} of {n_classes}");
    }
    let adam = AdamW { weight_decay: params.weight_decay, ..AdamW::new(params.lr) };
    let mut head = ScoreHead { weight: Array2::zeros((n_classes, d)) };
    let mut moments = Moments::zeros(n_classes * d);
    let mut order: Vec<usize> = (0..n).collect();
    let mut t = 0;
    for _ in 0..params.epochs {
        shuffle(&mut order, rng);
        for rows in order.chunks(params.batch_sequences) {
            let x = features.select(Axis(0), rows);
            let y: Vec<usize> = rows.iter().map(|&row| classes[row]).collect();
            let mut d_logits = read_out(&head, x.view());
            summed_cross_entropy(&mut d_logits, &y);
            let mut grad = Array2::zeros((n_classes, d));
            let mean = F::one() / F::from_f64(rows.len() as f64);
            gemm(mean, d_logits.t(), x.view(), F::zero(), grad.view_mut());
            t += 1;
            let weight = head.weight.as_slice_mut().expect("fresh arrays are contiguous");
            adam.step(t, weight, grad.as_slice().expect("fresh arrays are contiguous"), &mut moments);
        }
    }
    head
}

fn read_out<F: Scalar>(head: &ScoreHead<F>, features: ArrayView2<F>) -> Array2<F> {
    let mut logits = Array2::zeros((features.nrows(), head.weight.nrows()));
    gemm(F::one(), features, head.weight.t(), F::zero(), logits.view_mut());
    logits
}

fn cross_entropy_backward<F: Scalar>(
    head: &ScoreHead<F>,
    features: ArrayView2<F>,
    classes: &[usize],
) -> (f64, Array2<F>) {
    assert_eq!(classes.len(), features.nrows(), "one class per sequence");
    let mut d_logits = read_out(head, features);
    let loss = summed_cross_entropy(&mut d_logits, classes);
    let mut d_features = Array2::zeros(features.dim());
    gemm(F::one(), d_logits.view(), head.weight.view(), F::zero(), d_features.view_mut());
    (loss, d_features)
}

fn summed_cross_entropy<F: Scalar>(logits: &mut Array2<F>, classes: &[usize]) -> f64 {
    let mut loss = 0.0;
    for (mut row, &class) in logits.rows_mut().into_iter().zip(classes) {
        let row = row.as_slice_mut().expect("rows are contiguous");
        softmax(row);
        loss -= row[class].as_f64().max(f64::MIN_POSITIVE).ln();
        row[class] -= F::one();
    }
    loss
}

fn last_rows_hidden<F: Scalar>(model: &Gpt2<F>, batch: &Batch<F>) -> Array2<F> {
    let (rows, places) = unique_inverse(&batch.last_rows());
    model.run(batch).reading(&rows).hidden().select(Axis(0), &places)
}

fn last_rows_hidden_of<F: Scalar>(model: &Gpt2<F>, sequences: &[Vec<u32>]) -> Result<Array2<F>> {
    let parts: Vec<Array2<F>> = chunk_by_tokens(sequences, PIECE_TOKENS)
        .into_par_iter()
        .map(|piece| Ok(last_rows_hidden(model, &Batch::new(model.config(), &sequences[piece])?)))
        .collect::<Result<_>>()?;
    let views: Vec<_> = parts.iter().map(|part| part.view()).collect();
    Ok(if views.is_empty() {
        Array2::zeros((0, model.config().n_embd))
    } else {
        concatenate(Axis(0), &views).expect("parts have equal width")
    })
}

impl<F: Scalar> ScoreHead<F> {
    /// Trains a head of `n_classes` on frozen last-token states `features [rows, d]` by mini-batch cross-entropy.
    ///
    /// Starts at zero: the loss is convex, so nothing is gained by a random start.
    ///
    /// # Panics
    /// When there is not one class in `0..n_classes` per row.
    pub fn train(
        features: ArrayView2<F>,
        classes: &[usize],
        n_classes: usize,
        params: &HeadTraining,
        rng: &mut ChaCha8Rng,
    ) -> Self {
        F::run::<TrainJob>((features, classes, n_classes, params, rng))
    }

    /// The class the model and this head choose for each sequence.
    ///
    /// # Errors
    /// When a sequence does not fit the model.
    pub fn predict(&self, model: &Gpt2<F>, sequences: &[Vec<u32>]) -> Result<Vec<usize>> {
        Ok(argmax(self.read_out(last_hidden_of(model, sequences)?.view()).view()))
    }

    /// Class logits `[n_sequences, classes]` of the model on a batch.
    pub fn logits(&self, model: &Gpt2<F>, batch: &Batch<F>) -> Array2<F> {
        self.read_out(last_hidden(model, batch).view())
    }

    /// Class logits `[n_sequences, classes]` of given last-token states `[n_sequences, d]`.
    ///
    /// # Panics
    /// When the states have another width than the head.
    pub fn read_out(&self, features: ArrayView2<F>) -> Array2<F> {
        F::run::<ReadOutJob>((self, features))
    }

    /// Sum over sequences of the cross-entropy (nats) against `classes` at last-token states `[n_sequences, d]`, and
    /// the gradient with respect to those states.
    ///
    /// # Panics
    /// When there is not one class per sequence, or the states have another width than the head.
    pub fn cross_entropy_backward(&self, features: ArrayView2<F>, classes: &[usize]) -> (f64, Array2<F>) {
        F::run::<HeadBackwardJob>((self, features, classes))
    }
}

/// How [`ScoreHead::train`] trains. The default has the epochs, weight decay and batches of the published runs of arXiv
/// 2406.17241 and the learning rate of 3 of its 17 runs; the other 14 have 0.001.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HeadTraining {
    /// Learning rate of AdamW.
    pub lr: f64,
    /// Weight decay of AdamW.
    pub weight_decay: f64,
    /// Number of passes over the rows.
    pub epochs: usize,
    /// Sequences per step.
    pub batch_sequences: usize,
}

impl Default for HeadTraining {
    fn default() -> Self {
        HeadTraining { lr: 0.01, weight_decay: 0.01, epochs: 400, batch_sequences: 128 }
    }
}

/// Tokens in one piece of parallel work.
const PIECE_TOKENS: usize = 512;

/// Hidden state of each sequence's last token `[n_sequences, d]`, for any number of sequences, in parallel.
///
/// # Errors
/// When a sequence does not fit the model.
pub fn last_hidden_of<F: Scalar>(model: &Gpt2<F>, sequences: &[Vec<u32>]) -> Result<Array2<F>> {
    F::run::<LastHiddenOfJob>((model, sequences))
}

/// Hidden state of each sequence's last token `[n_sequences, d]`.
pub fn last_hidden<F: Scalar>(model: &Gpt2<F>, batch: &Batch<F>) -> Array2<F> {
    F::run::<LastHiddenJob>((model, batch))
}

/// Summed cross-entropy (nats) of logits `[rows, classes]`, which become their own gradient:
/// `softmax(logits) - onehot`.
///
/// # Panics
/// When a class is none of the columns or there is not one class per row.
pub fn cross_entropy<F: Scalar>(logits: &mut Array2<F>, classes: &[usize]) -> f64 {
    assert_eq!(classes.len(), logits.nrows(), "one class per row");
    F::run::<CrossEntropyJob>((logits, classes))
}

/// The class with the largest logit of each row; the first of equals.
pub fn argmax<F: Scalar>(logits: ArrayView2<F>) -> Vec<usize> {
    logits
        .rows()
        .into_iter()
        .map(|row| row.iter().enumerate().fold(0, |best, (i, &x)| if x > row[best] { i } else { best }))
        .collect()
}
