//! [`Task`]: labelled texts prepared on one model.
//!
//! With `h_i [d]` the state of row `i`'s last token after the final LayerNorm and `W [classes, d]` the head trained on
//! the training rows (frozen model, mean cross-entropy against the labels), the full model chooses
//! `c_i = argmax W h_i`. Agreement of a mask is the share of held-out rows on which `argmax W h_i(masked model) = c_i`;
//! accuracy compares with the labels instead. Source: arXiv 2406.17241, section 3.

use std::path::Path;

use locus_circuits::masks::{ReadOut, TaskObjective};
use locus_data::seed::stream;
use locus_data::{Labelled, Split, groups, labelled, split, split_groups};
use locus_gpt2::{
    Checkpoint, Gpt2, HeadTraining, ParamMask, Scalar, ScoreHead, argmax, compiled, last_hidden_of,
};
use locus_metrics::classify;

use crate::error::{Error, Result};

/// What a split moves as one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SplitBy {
    /// Groups of rows that say nearly the same, with equal shares of the labels on both sides
    /// ([`split_groups`]).
    #[default]
    Groups,
    /// Single rows ([`split`](fn@split)), the published way: the two rows of a minimal pair can be on different sides.
    Rows,
}

/// Options of the split of rows into training and held-out ones.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SplitOptions {
    /// Share of the rows that head and masks are trained on, in [0, 1].
    pub train_share: f64,
    /// Seed of the split and of the head's batches.
    pub seed: u64,
    /// What is split.
    pub by: SplitBy,
}

impl Default for SplitOptions {
    /// An 80/20 split of groups.
    fn default() -> Self {
        SplitOptions { train_share: 0.8, seed: 1, by: SplitBy::Groups }
    }
}

/// One side of the split: tokenised rows, their labels and the classes that the full model chooses.
#[derive(Clone, Debug)]
pub struct Rows {
    /// Tokens of each row.
    pub sequences: Vec<Vec<u32>>,
    /// Label of each row, a class counted from 0.
    pub labels: Vec<usize>,
    /// Class that the full model chooses for each row.
    pub choices: Vec<usize>,
}

/// Labelled texts prepared on a model.
#[derive(Clone, Debug)]
pub struct Task<F> {
    /// Name; random streams are derived from it.
    pub name: String,
    /// The full model. Weights are shared with the checkpoint, not copied.
    pub model: Gpt2<F>,
    /// Rows that heads and masks are trained on.
    pub train: Rows,
    /// Rows that masks and models are measured on.
    pub held_out: Rows,
    /// The score head `[classes, d]`, trained on the full model's states of the training rows.
    pub head: ScoreHead<F>,
}

type TaskIn<'a, F> = (&'a Checkpoint<F>, &'a str, &'a [&'a str], &'a [usize], &'a [usize], SplitOptions);

compiled!(TaskJob<'a>: <F> TaskIn<'a, F> => Result<Task<F>>, prepare);
compiled!(HeadJob<'a>: <F> (&'a Task<F>, &'a HeadTraining, u64) => Result<Task<F>>, retrained);
compiled!(PredictJob<'a>: <F> (&'a Task<F>, &'a Gpt2<F>) => Result<Vec<usize>>, predict);

impl<F: Scalar> Task<F> {
    /// Prepares a CSV file with the columns `text` and `label` (0 or 1); the file's stem is the task's name.
    ///
    /// # Errors
    /// When the file cannot be parsed, a text does not fit the model, there are too few rows for the split, or a side of
    /// it has one class only.
    pub fn from_csv(
        checkpoint: &Checkpoint<F>,
        path: impl AsRef<Path>,
        options: SplitOptions,
    ) -> Result<Self> {
        let path = path.as_ref();
        let name = path.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
        Task::from_rows(checkpoint, &name, &labelled::read(path)?, options)
    }

    /// Prepares rows with the labels 0 and 1 that were read elsewhere. Groups are found by content
    /// ([`groups`](fn@groups::groups)).
    ///
    /// # Errors
    /// When a text does not fit the model, there are too few rows for the split, or a side of it has one class only.
    pub fn from_rows(
        checkpoint: &Checkpoint<F>,
        name: &str,
        rows: &[Labelled],
        options: SplitOptions,
    ) -> Result<Self> {
        let texts: Vec<&str> = rows.iter().map(|row| row.text.as_str()).collect();
        let labels: Vec<usize> = rows.iter().map(|row| usize::from(row.label)).collect();
        Task::with_groups(checkpoint, name, &texts, &labels, &groups::groups(rows), options)
    }

    /// Prepares texts of any number of classes. Equal texts are a group. See [`with_groups`](Self::with_groups).
    ///
    /// # Errors
    /// When a text cannot be tokenised or does not fit the model, there are too few rows for the split, or a side of it
    /// has one class only.
    ///
    /// # Panics
    /// When there is not one label per text, or the share of the split is not in [0, 1].
    pub fn new(
        checkpoint: &Checkpoint<F>,
        name: &str,
        texts: &[&str],
        labels: &[usize],
        options: SplitOptions,
    ) -> Result<Self> {
        Task::with_groups(checkpoint, name, texts, labels, &groups::equal(texts), options)
    }

    /// Splits the texts, trains the score head on one side and records the full model's choices on both. Classes are
    /// counted from 0; there are as many as the largest label says, and at least two. Texts with one group number stay
    /// on one side of a split by groups; a split by rows ignores the numbers.
    ///
    /// # Errors
    /// When a text cannot be tokenised or does not fit the model, there are too few rows for the split, or a side of it
    /// has one class only.
    ///
    /// # Panics
    /// When there is not one label and one group number per text, or the share of the split is not in [0, 1].
    pub fn with_groups(
        checkpoint: &Checkpoint<F>,
        name: &str,
        texts: &[&str],
        labels: &[usize],
        groups: &[usize],
        options: SplitOptions,
    ) -> Result<Self> {
        assert_eq!(texts.len(), labels.len(), "one label per text");
        assert_eq!(texts.len(), groups.len(), "one group number per text");
        F::run::<TaskJob>((checkpoint, name, texts, labels, groups, options))
    }

    /// The task with another score head and the choices of the full model with that head; rows, split and labels stay.
    /// The states of all rows are computed again, which costs one forward pass over them. With the training and the
    /// seed that the task was prepared with, the head is that of the task up to rounding.
    ///
    /// # Errors
    /// When a row does not fit the model.
    pub fn retrained_head(&self, training: &HeadTraining, seed: u64) -> Result<Self> {
        F::run::<HeadJob>((self, training, seed))
    }

    /// The objective of a circuit: to choose what the full model chooses on the training rows.
    pub fn objective(&self) -> TaskObjective<'_, F> {
        self.objective_for(&self.train.choices)
    }

    /// An objective on the training rows with other classes than the full model's choices, for example shuffled ones.
    pub fn objective_for<'a>(&'a self, classes: &'a [usize]) -> TaskObjective<'a, F> {
        TaskObjective {
            model: &self.model,
            read_out: ReadOut::Head(&self.head, classes),
            sequences: &self.train.sequences,
        }
    }

    /// The class that another model (an edited or masked one) chooses with this task's head for each held-out row.
    ///
    /// # Errors
    /// When a row does not fit that model.
    pub fn predict(&self, model: &Gpt2<F>) -> Result<Vec<usize>> {
        F::run::<PredictJob>((self, model))
    }

    /// Share of held-out rows, in [0, 1], on which the model with only the parameters of a mask chooses what the full
    /// model chooses.
    ///
    /// # Errors
    /// When a row does not fit the model.
    ///
    /// # Panics
    /// When the mask belongs to a model of another shape.
    pub fn agreement(&self, mask: &ParamMask) -> Result<f64> {
        self.agreement_of(&mask.ablate_complement(&self.model))
    }

    /// Share of held-out rows, in [0, 1], on which another model (an edited or masked one) chooses what the full model
    /// chooses.
    ///
    /// # Errors
    /// When a row does not fit that model.
    pub fn agreement_of(&self, model: &Gpt2<F>) -> Result<f64> {
        let predicted = self.predict(model)?;
        Ok(classify::agreement(&predicted, &self.held_out.choices).expect("there are held-out rows"))
    }

    /// Share of held-out rows, in [0, 1], whose label the model with only the parameters of a mask chooses.
    ///
    /// # Errors
    /// When a row does not fit the model.
    ///
    /// # Panics
    /// When the mask belongs to a model of another shape.
    pub fn accuracy(&self, mask: &ParamMask) -> Result<f64> {
        let predicted = self.predict(&mask.ablate_complement(&self.model))?;
        Ok(classify::accuracy(&predicted, &self.held_out.labels).expect("there are held-out rows"))
    }

    /// Share of held-out rows, in [0, 1], whose label the full model chooses.
    pub fn accuracy_full(&self) -> f64 {
        classify::accuracy(&self.held_out.choices, &self.held_out.labels).expect("there are held-out rows")
    }
}

fn prepare<F: Scalar>((checkpoint, name, texts, labels, groups, options): TaskIn<F>) -> Result<Task<F>> {
    let Checkpoint { model, tokenizer } = checkpoint;
    let wrong = |cause| Error::Text { task: name.to_owned(), cause };
    let SplitOptions { train_share, seed, by } = options;
    let Split { train, held_out } = match by {
        SplitBy::Groups => split_groups(groups, labels, train_share, seed, name),
        SplitBy::Rows => split(texts.len(), train_share, seed, name),
    };
    for (side, rows) in [("train on", &train), ("measure on", &held_out)] {
        if rows.is_empty() {
            return Err(Error::Rows { task: name.to_owned(), rows: texts.len(), side });
        }
    }
    let labels_of = |side: &[usize]| side.iter().map(|&i| labels[i]).collect::<Vec<_>>();
    two_classes(name, "row", labels)?;
    two_classes(name, "row to train on", &labels_of(&train))?;
    two_classes(name, "row to measure on", &labels_of(&held_out))?;
    let tokens: Vec<Vec<u32>> = texts
        .iter()
        .map(|text| tokenizer.encode_some("text", text))
        .collect::<locus_gpt2::Result<_>>()
        .map_err(wrong)?;
    let features = last_hidden_of(model, &tokens).map_err(wrong)?;
    let n_classes = labels.iter().map(|label| label + 1).max().unwrap_or(0).max(2);
    let train_features = features.select(ndarray::Axis(0), &train);
    let rng = &mut stream(options.seed, &format!("head/{name}"), 0);
    let head =
        ScoreHead::train(train_features.view(), &labels_of(&train), n_classes, &HeadTraining::default(), rng);
    let choices = argmax(head.read_out(features.view()).view());
    let side = |side: &[usize]| Rows {
        sequences: side.iter().map(|&i| tokens[i].clone()).collect(),
        labels: labels_of(side),
        choices: side.iter().map(|&i| choices[i]).collect(),
    };
    Ok(Task {
        name: name.to_owned(),
        model: model.clone(),
        train: side(&train),
        held_out: side(&held_out),
        head,
    })
}

fn retrained<F: Scalar>((task, training, seed): (&Task<F>, &HeadTraining, u64)) -> Result<Task<F>> {
    let states = |rows: &Rows| {
        let wrong = |cause| Error::Text { task: task.name.clone(), cause };
        last_hidden_of(&task.model, &rows.sequences).map_err(wrong)
    };
    let (train, held_out) = (states(&task.train)?, states(&task.held_out)?);
    let rng = &mut stream(seed, &format!("head/{}", task.name), 0);
    let head = ScoreHead::train(train.view(), &task.train.labels, task.head.weight.nrows(), training, rng);
    let mut task = task.clone();
    task.train.choices = argmax(head.read_out(train.view()).view());
    task.held_out.choices = argmax(head.read_out(held_out.view()).view());
    task.head = head;
    Ok(task)
}

/// Refuses labels that are all the same; `rows` says in the error whose they are.
fn two_classes(task: &str, rows: &'static str, labels: &[usize]) -> Result<()> {
    match labels {
        [label, others @ ..] if others.iter().all(|other| other == label) => {
            Err(Error::OneClass { task: task.to_owned(), rows, label: *label })
        }
        _ => Ok(()),
    }
}

fn predict<F: Scalar>((task, model): (&Task<F>, &Gpt2<F>)) -> Result<Vec<usize>> {
    let wrong = |cause| Error::Text { task: task.name.clone(), cause };
    task.head.predict(model, &task.held_out.sequences).map_err(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn organism() -> Checkpoint<f32> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/organism");
        Checkpoint::from_pretrained(folder).unwrap()
    }

    #[test]
    fn any_number_of_classes_can_be_told_apart() {
        const NUMBERS: [&str; 5] = ["one", "two", "three", "four", "five"];
        let texts: Vec<String> = ["cat", "rose", "bus"]
            .iter()
            .cycle()
            .take(60)
            .enumerate()
            .map(|(i, word)| {
                format!("{} {} {word} is", NUMBERS[i / 12], ["a", "the", "this", "that"][i / 3 % 4])
            })
            .collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let labels: Vec<usize> = (0..60).map(|i| i % 3).collect();
        let task = Task::new(&organism(), "words", &texts, &labels, SplitOptions::default()).unwrap();
        assert_eq!(
            (task.train.labels.len(), task.held_out.labels.len(), task.head.weight.nrows()),
            (48, 12, 3)
        );
        assert_eq!(task.accuracy_full(), 1.0);
        let all = ParamMask::full(task.model.config());
        assert_eq!((task.agreement(&all).unwrap(), task.agreement_of(&task.model).unwrap()), (1.0, 1.0));
        assert_eq!(task.accuracy(&all).unwrap(), task.accuracy_full());
        // Without blocks the last token sees nothing of the word before it.
        assert!(task.agreement(&all.complement()).unwrap() < 1.0);
    }

    #[test]
    fn a_head_can_be_trained_anew() {
        let texts: Vec<String> = (0..40)
            .map(|i| format!("{} {} is", ["a", "the", "this", "that"][i / 2 % 4], ["cat", "rose"][i % 2]))
            .collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let labels: Vec<usize> = (0..40).map(|i| i % 2).collect();
        let options = SplitOptions::default();
        let task = Task::new(&organism(), "words", &texts, &labels, options).unwrap();

        let again = task.retrained_head(&HeadTraining::default(), options.seed).unwrap();
        let distance = |other: &Task<f32>| {
            (&task.head.weight - &other.head.weight).iter().fold(0.0f32, |most, x| most.max(x.abs()))
        };
        assert!(distance(&again) < 1e-3, "{}", distance(&again));
        assert_eq!(task.held_out.choices, again.held_out.choices);

        // Without a step the head is zero, so that every row gets the first class.
        let untrained = HeadTraining { epochs: 0, ..HeadTraining::default() };
        let untrained = task.retrained_head(&untrained, options.seed).unwrap();
        assert!(untrained.head.weight.iter().all(|&weight| weight == 0.0));
        assert!(untrained.train.choices.iter().chain(&untrained.held_out.choices).all(|&class| class == 0));
        assert_eq!(untrained.train.labels, task.train.labels);

        // A lower rate gives a smaller head that still tells the words apart.
        let slow = HeadTraining { lr: 1e-3, ..HeadTraining::default() };
        let slow = task.retrained_head(&slow, options.seed).unwrap();
        let size = |task: &Task<f32>| task.head.weight.iter().map(|w| w * w).sum::<f32>();
        assert!(size(&slow) < size(&task));
        assert_eq!(slow.accuracy_full(), 1.0);
        let slow_choices = slow.predict(&slow.model).unwrap();
        assert_eq!(slow_choices, slow.held_out.choices);
    }

    #[test]
    fn tasks_that_cannot_be_prepared_are_refused_by_name() {
        let checkpoint = organism();
        let refused_with = |texts: &[&str], labels: &[usize], train_share, by| {
            let options = SplitOptions { train_share, seed: 1, by };
            Task::new(&checkpoint, "mine", texts, labels, options).unwrap_err().to_string()
        };
        let refused = |texts: &[&str], train_share| {
            let labels: Vec<usize> = (0..texts.len()).map(|i| i % 2).collect();
            refused_with(texts, &labels, train_share, SplitBy::Groups)
        };
        assert_eq!(
            refused(&["a cat", "a dog"], 1.0),
            "task mine: 2 rows leave none to measure on; expected more rows or another share"
        );
        assert!(refused(&[], 0.8).starts_with("task mine: 0 rows leave none to train on"));
        assert!(refused(&["a cat", "", "a dog", "a bus"], 0.5).starts_with("task mine: text"));
        let texts = ["a cat", "a dog", "a bus", "a car"];
        for by in [SplitBy::Groups, SplitBy::Rows] {
            assert_eq!(
                refused_with(&texts, &[1; 4], 0.5, by),
                "task mine: every row has label 1; expected two classes"
            );
            let side = refused_with(&texts, &[0, 1, 1, 1], 0.5, by);
            assert!(side.contains("every row to ") && side.contains("has label 1"), "{side}");
        }
        // Equal texts are one group, of which nothing is left to measure on.
        let equal = refused_with(&["a cat"; 4], &[0, 1, 0, 1], 0.5, SplitBy::Groups);
        assert!(equal.contains("4 rows leave none to"), "{equal}");
    }

    #[test]
    #[should_panic(expected = "one label per text")]
    fn every_text_has_a_label() {
        let _ = Task::new(&organism(), "mine", &["a cat"], &[], SplitOptions::default());
    }
}
