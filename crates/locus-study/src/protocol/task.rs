//! A classification task made ready: split, tokenised, with a trained score head and the full model's choices.

use anyhow::{Context, Result};
use locus_circuits::{ReadOut, TaskObjective};
use locus_data::seed::stream;
use locus_data::{Labelled, Split, split};
use locus_gpt2::{Checkpoint, Gpt2, HeadTraining, Scalar, ScoreHead, argmax, last_hidden_of};

/// One side of the split: tokenised rows, their labels and what the full model says of them.
#[derive(Clone, Debug)]
pub struct Rows {
    /// Tokens of each row.
    pub sequences: Vec<Vec<u32>>,
    /// Label of each row.
    pub labels: Vec<usize>,
    /// Class the full model chooses.
    pub choices: Vec<usize>,
}

/// A task with its head.
#[derive(Clone, Debug)]
pub struct PreparedTask<F> {
    /// Name, as in the study.
    pub name: String,
    /// Rows that heads and masks are trained on.
    pub train: Rows,
    /// Rows that everything is measured on.
    pub held_out: Rows,
    /// The score head, trained on the full model's states of the training rows.
    pub head: ScoreHead<F>,
}

impl<F: Scalar> PreparedTask<F> {
    /// Splits 80/20, trains the head (STUDY section 3) and records the full model's choices.
    ///
    /// # Errors
    /// When a row cannot be tokenised or does not fit the model.
    pub fn new(checkpoint: &Checkpoint<F>, name: &str, rows: &[Labelled], seed: u64) -> Result<Self> {
        let Split { train, held_out } = split(rows.len(), 0.8, seed, name);
        let tokens: Vec<Vec<u32>> = rows
            .iter()
            .map(|row| checkpoint.tokenizer.encode_some("text", &row.text))
            .collect::<locus_gpt2::Result<_>>()
            .with_context(|| format!("task {name}"))?;
        let features = last_hidden_of(&checkpoint.model, &tokens).with_context(|| format!("task {name}"))?;
        let labels = |side: &[usize]| side.iter().map(|&i| usize::from(rows[i].label)).collect::<Vec<_>>();
        let train_features = features.select(ndarray::Axis(0), &train);
        let rng = &mut stream(seed, &format!("head/{name}"), 0);
        let head = ScoreHead::train(train_features.view(), &labels(&train), 2, &HeadTraining::default(), rng);
        let choices = argmax(head.read_out(features.view()).view());
        let side = |side: &[usize]| Rows {
            sequences: side.iter().map(|&i| tokens[i].clone()).collect(),
            labels: labels(side),
            choices: side.iter().map(|&i| choices[i]).collect(),
        };
        Ok(PreparedTask { name: name.to_owned(), train: side(&train), held_out: side(&held_out), head })
    }

    /// What mask training is given: the training rows with the full model's choices.
    pub fn objective<'a>(&'a self, model: &'a Gpt2<F>) -> TaskObjective<'a, F> {
        self.objective_for(model, &self.train.choices)
    }

    /// The same with other classes.
    pub fn objective_for<'a>(&'a self, model: &'a Gpt2<F>, classes: &'a [usize]) -> TaskObjective<'a, F> {
        TaskObjective {
            model,
            read_out: ReadOut::Head(&self.head, classes),
            sequences: &self.train.sequences,
        }
    }

    /// Accuracy of the full model on the held-out rows.
    pub fn accuracy_full(&self) -> f64 {
        locus_metrics::classify::accuracy(&self.held_out.choices, &self.held_out.labels).unwrap_or(0.0)
    }
}
