//! A linear score head read at each sequence's last token, as in `GPT2ForSequenceClassification`.

use ndarray::{Array2, ArrayView2, Axis};

use crate::batch::Batch;
use crate::forward::{Trace, softmax};
use crate::linalg::gemm;
use crate::params::Params;
use crate::scalar::Scalar;

/// `logits = hidden W^T` with `W [classes, d]` and no bias.
#[derive(Clone, Debug, PartialEq)]
pub struct ScoreHead<F> {
    /// `[classes, d]`, as Hugging Face stores `score.weight`.
    pub weight: Array2<F>,
}

impl<F: Scalar> ScoreHead<F> {
    /// Class logits `[n_sequences, classes]` of the model on a batch.
    pub fn logits(&self, model: &Params<F>, batch: &Batch) -> Array2<F> {
        self.read_out(last_hidden(model, batch).view())
    }

    /// Class logits of given last-token states `[n_sequences, d]`.
    pub fn read_out(&self, features: ArrayView2<F>) -> Array2<F> {
        let mut logits = Array2::zeros((features.nrows(), self.weight.nrows()));
        gemm(F::one(), features, self.weight.t(), F::zero(), logits.view_mut());
        logits
    }

    /// Sum over sequences of the cross-entropy against `classes`, and its gradient with respect to the hidden states
    /// of the whole batch `[n, d]`.
    ///
    /// # Panics
    /// When there is not one class per sequence.
    pub fn cross_entropy_backward(
        &self,
        batch: &Batch,
        trace: &Trace<F>,
        classes: &[usize],
    ) -> (f64, Array2<F>) {
        assert_eq!(classes.len(), batch.n_sequences(), "one class per sequence");
        let rows = batch.last_rows();
        let features = trace.hidden.select(Axis(0), &rows);
        let mut d_logits = self.read_out(features.view());
        let loss = cross_entropy(&mut d_logits, classes);
        let mut d_features = Array2::zeros(features.dim());
        gemm(F::one(), d_logits.view(), self.weight.view(), F::zero(), d_features.view_mut());
        let mut d_hidden = Array2::zeros(trace.hidden.dim());
        for (d_feature, &row) in d_features.rows().into_iter().zip(&rows) {
            d_hidden.row_mut(row).assign(&d_feature);
        }
        (loss, d_hidden)
    }
}

/// Hidden state of each sequence's last token `[n_sequences, d]`.
pub fn last_hidden<F: Scalar>(model: &Params<F>, batch: &Batch) -> Array2<F> {
    let x = model.blocks(batch, model.embed(batch), 0..model.config().n_layer, &mut ());
    model.final_norm(x.select(Axis(0), &batch.last_rows()).view())
}

/// Summed cross-entropy of logits `[rows, classes]`, which become their own gradient: `softmax(logits) - onehot`.
pub fn cross_entropy<F: Scalar>(logits: &mut Array2<F>, classes: &[usize]) -> f64 {
    let mut loss = 0.0;
    for (mut row, &class) in logits.rows_mut().into_iter().zip(classes) {
        let row = row.as_slice_mut().expect("rows are contiguous");
        softmax(row);
        loss -= row[class].wide().max(f64::MIN_POSITIVE).ln();
        row[class] -= F::one();
    }
    loss
}

/// The class with the largest logit of each row; the first of equals.
pub fn argmax<F: Scalar>(logits: ArrayView2<F>) -> Vec<usize> {
    logits
        .rows()
        .into_iter()
        .map(|row| row.iter().enumerate().fold(0, |best, (i, &x)| if x > row[best] { i } else { best }))
        .collect()
}
