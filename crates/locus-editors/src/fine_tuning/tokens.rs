//! One request's change of the token embedding.
//!
//! Dimensions: `V` vocabulary, `d` width, `r` rows of all steps so far, `t` rows of one step that predict a target.

use std::collections::BTreeMap;

use locus_gpt2::{Scalar, axpy, dot, gemm};
use ndarray::{ArrayView1, ArrayView2, ArrayViewMut2};

use super::matrix::{Descent, through};

/// One request's change of the token embedding `[V, d]`, which GPT-2 also uses as unembedding.
///
/// As unembedding a token moves by its row of `-lr D^T H`, with the hidden states `H [r, d]` and the gradients of
/// logits `D [r, V]` of all steps. Tokens that the request reads, or on which the clamp may have acted (by the bound of
/// [`super::matrix`]), have their rows stored instead.
#[derive(Clone, Debug)]
pub(super) struct TokenChange<F> {
    /// Rows that are stored, `[d]` each, by token.
    rows: BTreeMap<u32, Vec<F>>,
    /// Hidden states of all steps, `H [r, d]`.
    hidden: Vec<F>,
    /// Gradients of logits of all steps, `D [r, V]`; zero in the columns of the tokens in `rows`.
    d_logits: Vec<F>,
    /// Sums of squares of the columns of `H`, `[d]`.
    hidden_squares: Vec<f64>,
    /// Sums of squares of the columns of `D`, `[V]`, those of the tokens in `rows` included.
    logit_squares: Vec<f64>,
}

impl<F: Scalar> TokenChange<F> {
    /// A change of zero for a request that reads `tokens`.
    pub fn none(tokens: &[u32], (vocab, d): (usize, usize)) -> Self {
        TokenChange {
            rows: tokens.iter().map(|&token| (token, vec![F::zero(); d])).collect(),
            hidden: Vec::new(),
            d_logits: Vec::new(),
            hidden_squares: vec![0.0; d],
            logit_squares: vec![0.0; vocab],
        }
    }

    /// Adds the change of a token's embedding to `x [d]`.
    pub fn add_to_embedded(&self, lr: F, token: u32, x: &mut [F]) {
        if let Some(change) = self.rows.get(&token) {
            return axpy(F::one(), change, x);
        }
        let steps =
            self.hidden.chunks_exact(x.len()).zip(self.d_logits.chunks_exact(self.logit_squares.len()));
        for (hidden, d_logits) in steps {
            axpy(-lr * d_logits[token as usize], hidden, x);
        }
    }

    /// `H [r, d]` and `D [r, V]`.
    fn factors(&self) -> (ArrayView2<'_, F>, ArrayView2<'_, F>) {
        let rank = self.hidden.len() / self.hidden_squares.len();
        let factor =
            |values, width| ArrayView2::from_shape((rank, width), values).expect("rows of one width");
        (factor(&self.hidden, self.hidden_squares.len()), factor(&self.d_logits, self.logit_squares.len()))
    }

    /// Adds what the change makes of `hidden [t, d]` to the logits `[t, V]`.
    pub fn add_to_logits(&self, lr: F, hidden: ArrayView2<F>, mut logits: ArrayViewMut2<F>) {
        let (h, d_logits) = self.factors();
        through(-lr, hidden, h, d_logits, logits.view_mut());
        for (&token, change) in &self.rows {
            for (hidden, mut logits) in hidden.rows().into_iter().zip(logits.rows_mut()) {
                logits[token as usize] += dot(hidden.to_slice().expect("rows are contiguous"), change);
            }
        }
    }

    /// Adds the gradient that reaches the hidden states `[t, d]` through the change.
    pub fn add_to_hidden(&self, lr: F, d_logits: ArrayView2<F>, mut d_hidden: ArrayViewMut2<F>) {
        let (h, earlier) = self.factors();
        through(-lr, d_logits, earlier, h, d_hidden.view_mut());
        for (&token, change) in &self.rows {
            for (d_logits, mut d_hidden) in d_logits.rows().into_iter().zip(d_hidden.rows_mut()) {
                d_hidden.scaled_add(d_logits[token as usize], &ArrayView1::from(change));
            }
        }
    }

    /// Makes one step of descent from hidden states `[t, d]`, gradients of logits `[t, V]`, and the gradients `[n, d]`
    /// of the embeddings of the `n` tokens that are read.
    pub fn step(
        &mut self,
        descent: Descent<F>,
        hidden: ArrayView2<F>,
        d_logits: ArrayView2<F>,
        tokens: &[u32],
        d_embedded: ArrayView2<F>,
    ) {
        let (d, vocab) = (hidden.ncols(), d_logits.ncols());
        for (hidden, d_logits) in hidden.rows().into_iter().zip(d_logits.rows()) {
            let (hidden, d_logits) = (hidden.to_slice(), d_logits.to_slice());
            let hidden = hidden.expect("rows are contiguous");
            let d_logits = d_logits.expect("rows are contiguous");
            self.hidden_squares.iter_mut().zip(hidden).for_each(|(sum, x)| *sum += x.as_f64() * x.as_f64());
            self.logit_squares.iter_mut().zip(d_logits).for_each(|(sum, x)| *sum += x.as_f64() * x.as_f64());
        }
        let largest = self.hidden_squares.iter().fold(0.0, |largest: f64, &x| largest.max(x));
        let reach = descent.reach();
        for (token, &squares) in (0..).zip(&self.logit_squares) {
            if squares * largest < reach || self.rows.contains_key(&token) {
                continue;
            }
            let mut change = vec![F::zero(); d];
            let columns = self.d_logits.chunks_exact_mut(vocab);
            for (hidden, d_logits) in self.hidden.chunks_exact(d).zip(columns) {
                let d_logit = std::mem::take(&mut d_logits[token as usize]);
                axpy(-descent.lr * d_logit, hidden, &mut change);
            }
            self.rows.insert(token, change);
        }
        self.hidden.extend_from_slice(hidden.as_slice().expect("states are contiguous"));
        let first = self.d_logits.len();
        self.d_logits.reserve_exact(d_logits.len());
        self.d_logits.extend_from_slice(d_logits.as_slice().expect("states are contiguous"));
        for (&token, change) in &mut self.rows {
            let mut gradient = vec![F::zero(); d];
            let new = self.d_logits[first..].chunks_exact_mut(vocab);
            for (hidden, d_logits) in hidden.rows().into_iter().zip(new) {
                let d_logit = std::mem::take(&mut d_logits[token as usize]);
                axpy(d_logit, hidden.to_slice().expect("rows are contiguous"), &mut gradient);
            }
            for (_, d_row) in tokens.iter().zip(d_embedded.rows()).filter(|(read, _)| **read == token) {
                axpy(F::one(), d_row.to_slice().expect("rows are contiguous"), &mut gradient);
            }
            change.iter_mut().zip(gradient).for_each(|(c, g)| *c = descent.moved(*c, g));
        }
    }

    /// Adds the change to the embedding `[V, d]`.
    pub fn apply(&self, lr: F, weights: ArrayViewMut2<F>) {
        let (hidden, d_logits) = self.factors();
        let mut weights = weights;
        if hidden.nrows() > 0 {
            gemm(-lr, d_logits.t(), hidden, F::one(), weights.view_mut());
        }
        for (&token, change) in &self.rows {
            let mut row = weights.row_mut(token as usize);
            row += &ArrayView1::from(change);
        }
    }
}
