//! The constants of the runs that the authors of arXiv 2406.17241 published, from `hparams/published.toml`.
//!
//! There are 17 runs: one for each task and a density target, three for `hierarchy` (5, 15 and 35 %), and one that edits
//! inside a random mask. [`for_task`] says which run's constants a task and a density take.

use std::sync::LazyLock;

use locus_circuits::BinaryConcrete;
use locus_editors::ClampedSgd;
use locus_gpt2::HeadTraining;
use serde::Deserialize;

/// Constants of one published run.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PublishedRun {
    /// Name of the authors' parameter file.
    pub file: String,
    /// Task; `None` for the run with a random mask.
    pub task: Option<String>,
    /// Density at which mask training ends, a share in (0, 1].
    pub target_density: f64,
    /// Number of passes over the rows in the training of the score head.
    pub head_epochs: usize,
    /// Learning rate of AdamW on the score head.
    pub head_lr: f64,
    /// Learning rate of AdamW on the logits of the mask.
    pub mask_lr: f64,
    /// Largest number of epochs of mask training.
    pub mask_max_epochs: usize,
    /// Temperature of the relaxation.
    pub temperature: f64,
    /// Weight of the sparseness penalty before the first epoch.
    pub lambda_start: f64,
    /// Rows per step of mask and head training.
    pub batch_rows: usize,
    /// Learning rate of plain SGD in an edit.
    pub edit_lr: f64,
    /// Largest number of steps of an edit.
    pub edit_steps: usize,
    /// Largest absolute change of a parameter in an edit.
    pub edit_clamp: f64,
}

/// The built-in file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    run: Vec<PublishedRun>,
}

static RUNS: LazyLock<Vec<PublishedRun>> = LazyLock::new(|| {
    let file: File =
        toml::from_str(include_str!("../hparams/published.toml")).expect("the built-in file is valid");
    file.run
});

/// For each constant the value of most tasks, a task counted by the first of its runs: the constants of a task that no
/// run is about.
static COMMONEST: LazyLock<PublishedRun> = LazyLock::new(|| PublishedRun {
    file: String::new(),
    task: None,
    target_density: 0.05,
    head_epochs: 400,
    head_lr: 0.001,
    mask_lr: 0.01,
    mask_max_epochs: 10_000,
    temperature: 0.01,
    lambda_start: 10.0,
    batch_rows: 128,
    edit_lr: 5e-4,
    edit_steps: 50,
    edit_clamp: 5e-4,
});

/// The 17 published runs, in the order of their files' names.
pub fn published_runs() -> &'static [PublishedRun] {
    &RUNS
}

/// The run whose constants a task takes at a density:
///
/// 1. the run of exactly this task and target density;
/// 2. else the task's run whose target density is nearest by ratio, because the authors published one density for most
///    tasks: `hierarchy` at 25 and 50 % takes the constants of its run at 35 %;
/// 3. else, for a task that no run is about, the commonest value of each constant (mask learning rate 0.01, head
///    learning rate 0.001, 50 steps an edit).
pub fn for_task(task: &str, density: f64) -> &'static PublishedRun {
    let distance = |run: &PublishedRun| (run.target_density / density).ln().abs();
    RUNS.iter()
        .filter(|run| run.task.as_deref() == Some(task))
        .min_by(|a, b| distance(a).total_cmp(&distance(b)))
        .unwrap_or(&COMMONEST)
}

impl PublishedRun {
    /// The run's mask training. The constants that all runs share and that are no part of the files (initial logits,
    /// weight decay, growth and bound of the penalty) are the defaults of [`BinaryConcrete`].
    pub fn mask_training(&self) -> BinaryConcrete {
        BinaryConcrete {
            temperature: self.temperature,
            lr: self.mask_lr,
            lambda_start: self.lambda_start,
            batch_sequences: self.batch_rows,
            max_epochs: self.mask_max_epochs,
            ..BinaryConcrete::default()
        }
    }

    /// The run's training of the score head.
    pub fn head_training(&self) -> HeadTraining {
        HeadTraining {
            lr: self.head_lr,
            epochs: self.head_epochs,
            batch_sequences: self.batch_rows,
            ..HeadTraining::default()
        }
    }

    /// The run's edit.
    pub fn editor(&self) -> ClampedSgd {
        ClampedSgd {
            lr: self.edit_lr,
            max_steps: self.edit_steps,
            clamp: self.edit_clamp,
            ..ClampedSgd::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::io::Write;
    use std::path::{Path, PathBuf};

    use super::*;

    #[test]
    fn every_task_has_a_run() {
        for &task in locus_data::task_names() {
            for density in [0.5, 0.05] {
                assert_eq!(for_task(task, density).task.as_deref(), Some(task));
            }
        }
        assert_eq!(published_runs().len(), 17);
        assert_eq!(published_runs().iter().filter(|run| run.task.is_none()).count(), 1);
    }

    #[test]
    fn the_nearest_density_decides() {
        let density = |task, density| for_task(task, density).target_density;
        let targets = [0.50, 0.35, 0.25, 0.15, 0.05, 0.01];
        assert_eq!(targets.map(|at| density("hierarchy", at)), [0.35, 0.35, 0.35, 0.15, 0.05, 0.05]);
        assert_eq!((density("blimp_dna1", 0.5), density("blimp_dna2", 0.05)), (0.05, 0.5));
    }

    /// [`COMMONEST`] against a count over tasks.
    #[test]
    fn other_tasks_take_the_commonest_constants() {
        let mut runs: Vec<&PublishedRun> = published_runs().iter().filter(|run| run.task.is_some()).collect();
        runs.dedup_by_key(|run| &run.task);
        assert_eq!(runs.len(), 14);
        let commonest = |of: fn(&PublishedRun) -> f64| {
            let mut counts: HashMap<u64, usize> = HashMap::new();
            runs.iter().for_each(|run| *counts.entry(of(run).to_bits()).or_default() += 1);
            f64::from_bits(*counts.iter().max_by_key(|(_, count)| **count).unwrap().0)
        };
        let constants: [fn(&PublishedRun) -> f64; 11] = [
            |run| run.target_density,
            |run| run.head_epochs as f64,
            |run| run.head_lr,
            |run| run.mask_lr,
            |run| run.mask_max_epochs as f64,
            |run| run.temperature,
            |run| run.lambda_start,
            |run| run.batch_rows as f64,
            |run| run.edit_lr,
            |run| run.edit_steps as f64,
            |run| run.edit_clamp,
        ];
        let other = for_task("a task of one's own", 0.05);
        for (i, of) in constants.into_iter().enumerate() {
            assert_eq!(of(other), commonest(of), "constant {i}");
        }
    }

    /// Rates and steps by hand for three runs that differ, so that a swap of columns fails everywhere.
    #[test]
    fn constants_reach_the_recipes() {
        let rates = |task, density| {
            let run = for_task(task, density);
            let (mask, head, edit) = (run.mask_training(), run.head_training(), run.editor());
            (mask.lr, mask.max_epochs, head.lr, head.epochs, edit.max_steps)
        };
        assert_eq!(rates("hierarchy", 0.05), (0.01, 10_000, 0.01, 400, 10));
        assert_eq!(rates("hierarchy", 0.15), (0.1, 3000, 0.001, 400, 50));
        assert_eq!(rates("blimp_dnai1", 0.05), (0.001, 10_000, 0.001, 400, 50));
        for run in published_runs() {
            let (mask, edit) = (run.mask_training(), run.editor());
            assert_eq!((mask.temperature, mask.lambda(1), mask.batch_sequences), (0.01, 11.0, 128));
            assert_eq!((edit.lr, edit.clamp, edit.loss_stop), (5e-4, 5e-4, 0.01));
        }
    }

    /// The table that the constants were copied from; `None`, with a visible message, where it is not at hand.
    fn shared_table() -> Option<PathBuf> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/design");
        let path = std::env::var_os("LOCUS_SHARED_DESIGN")
            .map_or(folder, PathBuf::from)
            .join("published_hparams.csv");
        if !path.is_file() {
            // Not `eprintln`, which the test harness swallows when a test passes.
            let _ = writeln!(
                std::io::stderr(),
                "SKIPPED: {} is missing; set LOCUS_SHARED_DESIGN",
                path.display()
            );
            return None;
        }
        Some(path)
    }

    #[test]
    fn the_file_equals_the_shared_table() {
        let Some(path) = shared_table() else { return };
        let text = std::fs::read_to_string(path).unwrap();
        let mut lines = text.lines();
        let columns = "file,task,target_density,head_epochs,head_lr,mask_lr,mask_max_epochs,temperature,lambda_start,\
                       batch_rows,edit_lr,edit_steps,edit_clamp";
        assert_eq!(lines.next(), Some(columns));
        let lines: Vec<&str> = lines.collect();
        let runs = published_runs().iter().map(|run| {
            let numbers = [
                run.target_density,
                run.head_epochs as f64,
                run.head_lr,
                run.mask_lr,
                run.mask_max_epochs as f64,
                run.temperature,
                run.lambda_start,
                run.batch_rows as f64,
                run.edit_lr,
                run.edit_steps as f64,
                run.edit_clamp,
            ];
            let numbers = numbers.map(|number| number.to_string()).join(",");
            format!("{},{},{numbers}", run.file, run.task.as_deref().unwrap_or("(random mask)"))
        });
        assert_eq!(runs.collect::<Vec<_>>(), lines);
    }
}
