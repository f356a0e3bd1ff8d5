//! Rival circuits of parameters: masks of one density that each do a labelled task and share as little as they can
//! (`locus circuit rivals`).
//!
//! The first is trained as the study trains its circuits; each further one also pays for what those before it have
//! ([`Avoiding`]). What two rivals share beside chance is the floor of a comparison of circuits, as two trainings of
//! one circuit with different seeds are its ceiling (T5, C4): with `J` the Jaccard index and `J_m` that of masks that
//! are independent within every tensor and class of |w|, both are measured by `(J - J_m) / (1 - J_m)`.
//!
//! Source: arXiv 2605.12671 for the question; the search is ours.

use std::path::{Path, PathBuf};

use anyhow::Result;
use locus_circuits::masks::{
    Avoiding, MaskProgress, MaskTrainer, Objective, ScheduledTopK, TrainingMonitor, WeightStrata,
};
use locus_data::seed::stream;
use locus_gpt2::{ParamMask, Scalar, compiled};
use locus_metrics::bootstrap::{RESAMPLES, bootstrap_mean};
use locus_metrics::overlap::Counts;
use locus_metrics::{Interval, Stream};
use locus_tasks::Task;
use serde::Serialize;

use crate::store::Store;

/// How rivals are found.
#[derive(Clone, Debug)]
pub struct RivalSettings {
    /// Number of circuits, at least 1.
    pub rivals: usize,
    /// Densities that each training passes, descending; circuits have the last.
    pub densities: Vec<f64>,
    /// What a circuit pays that is all shared with one other, in units of the loss.
    pub penalty: f64,
    /// The recipe.
    pub trainer: ScheduledTopK,
    /// Seed of the trainings and of the intervals.
    pub seed: u64,
}

/// A folder with the masks of rivals, in which an interrupted search goes on.
pub struct RivalFolder {
    folder: PathBuf,
    store: Store,
    provenance: String,
}

/// A rival, measured on held-out rows.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RivalMeasures {
    /// Parameters kept.
    pub parameters: usize,
    /// Their share of the block parameters.
    pub density: f64,
    /// Share of the rows on which the circuit chooses what the full model chooses.
    pub agreement: Interval,
    /// Share of the rows whose label the circuit chooses.
    pub accuracy: Interval,
    /// SHA-256 of the mask.
    pub mask_sha256: String,
}

/// What independent circuits of two sizes share.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Chance {
    /// Jaccard index at the expected number of shared parameters.
    pub jaccard: Option<f64>,
    /// The central 95 % of the index.
    pub interval: Option<(f64, f64)>,
}

/// What two rivals share.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct RivalOverlap {
    /// Numbers of the two, from 1.
    pub circuits: [usize; 2],
    /// Parameters of both.
    pub shared: usize,
    /// Jaccard index.
    pub jaccard: Option<f64>,
    /// What independent masks of these sizes share.
    pub by_chance: Chance,
    /// Parameters of both over the number expected of independent masks; 1 is chance.
    pub lift: Option<f64>,
    /// Jaccard index expected of masks that are independent within every tensor and class of |w|.
    pub matched: Option<f64>,
    /// Index beyond the matched one: 0 is chance, 1 is identity.
    pub beyond_matched: Option<f64>,
}

/// Rivals, and what every two of them share.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RivalReport {
    /// Name of the task.
    pub task: String,
    /// Rows that rivals are measured on.
    pub held_out: usize,
    /// Share of them whose label the full model chooses.
    pub accuracy_full: f64,
    /// The circuits, in the order in which they were found.
    pub rivals: Vec<RivalMeasures>,
    /// Every two of them.
    pub overlaps: Vec<RivalOverlap>,
    /// Mean of [`RivalOverlap::beyond_matched`]; `None` with fewer than two circuits.
    pub floor: Option<f64>,
}

impl RivalFolder {
    /// A folder; `common` names what all trainings in it depend on beside the settings (version, model, data, number
    /// type), and `provenance` is written into every mask.
    pub fn new(folder: &Path, common: String, provenance: String) -> Self {
        RivalFolder { folder: folder.to_owned(), store: Store::new(folder, true, common), provenance }
    }

    /// The file of a rival's mask; rivals are numbered from 1.
    pub fn mask_path(&self, number: usize) -> PathBuf {
        self.folder.join(format!("rival-{number}.safetensors"))
    }

    /// The mask of a rival: that of an earlier run which depended on the same, or the one that `train` finds.
    fn mask<F: Scalar>(
        &self,
        number: usize,
        depends: &str,
        task: &Task<F>,
        heard: &mut dyn FnMut(MaskProgress),
        train: &dyn Fn(&mut dyn TrainingMonitor<F>) -> Result<ParamMask>,
    ) -> Result<ParamMask> {
        let config = task.model.config();
        let (unit, path) = (self.store.unit(format!("rival-{number}"), depends), self.mask_path(number));
        let read =
            |sha256: String| ParamMask::read(&path, config).ok().filter(|mask| mask.sha256() == sha256);
        if let Some(mask) = unit.stored().and_then(read) {
            return Ok(mask);
        }
        let mask = train(&mut unit.training(0, config, heard))?;
        mask.write(&path, &self.provenance)?;
        unit.store(&mask.sha256())?;
        Ok(mask)
    }
}

/// Finds rivals on the task's training rows and measures them on its held-out rows. `progress` hears of every step of
/// the training of each rival, which are numbered from 1. With a folder, masks and the state of the training are kept
/// there, and what it already has is not trained again.
///
/// # Errors
/// When a row does not fit the model, or a file cannot be written.
///
/// # Panics
/// When there are no densities.
pub fn find_rivals<F: Scalar>(
    task: &Task<F>,
    settings: &RivalSettings,
    folder: Option<&RivalFolder>,
    progress: &mut dyn FnMut(usize, MaskProgress),
) -> Result<RivalReport> {
    F::run::<RivalsJob>((task, settings, folder, progress))
}

type RivalsIn<'a, F> =
    (&'a Task<F>, &'a RivalSettings, Option<&'a RivalFolder>, &'a mut dyn FnMut(usize, MaskProgress));

compiled!(RivalsJob<'a>: <F> RivalsIn<'a, F> => Result<RivalReport>, rivals);

fn rivals<F: Scalar>((task, settings, folder, progress): RivalsIn<F>) -> Result<RivalReport> {
    let RivalSettings { rivals, densities, penalty, trainer, seed } = settings;
    let objective = task.objective();
    let mut masks: Vec<ParamMask> = Vec::with_capacity(*rivals);
    for number in 1..=*rivals {
        let purpose = format!("rivals/{}", task.name);
        let seed = rand::Rng::next_u64(&mut stream(*seed, &purpose, number as u64));
        let train = |monitor: &mut dyn TrainingMonitor<F>| -> Result<ParamMask> {
            let earlier: Vec<&ParamMask> = masks.iter().collect();
            let avoiding = Avoiding::new(&objective, &earlier, *penalty);
            let objective: &dyn Objective<F> = if earlier.is_empty() { &objective } else { &avoiding };
            let mut found = trainer.train(objective, densities, seed, monitor)?;
            Ok(found.pop().expect("a circuit for each density").mask)
        };
        let mut heard = |at: MaskProgress| progress(number, at);
        let mask = match folder {
            None => train(&mut heard)?,
            Some(folder) => {
                let earlier: Vec<String> = masks.iter().map(ParamMask::sha256).collect();
                let depends = format!("{:?}", (&task.name, densities, penalty, trainer, seed, earlier));
                folder.mask(number, &depends, task, &mut heard, &train)?
            }
        };
        masks.push(mask);
    }
    let strata = WeightStrata::new(&task.model);
    let overlaps: Vec<RivalOverlap> = (0..masks.len())
        .flat_map(|a| (a + 1..masks.len()).map(move |b| [a, b]))
        .map(|[a, b]| overlap([a + 1, b + 1], &masks[a], &masks[b], &strata))
        .collect();
    let beyond: Vec<f64> = overlaps.iter().filter_map(|overlap| overlap.beyond_matched).collect();
    let measured = masks.iter().map(|mask| measure(task, mask, *seed)).collect::<Result<_>>()?;
    Ok(RivalReport {
        task: task.name.clone(),
        held_out: task.held_out.labels.len(),
        accuracy_full: task.accuracy_full(),
        rivals: measured,
        floor: (!beyond.is_empty()).then(|| beyond.iter().sum::<f64>() / beyond.len() as f64),
        overlaps,
    })
}

fn measure<F: Scalar>(task: &Task<F>, mask: &ParamMask, seed: u64) -> Result<RivalMeasures> {
    let predicted = task.predict(&mask.ablate_complement(&task.model))?;
    let share = |wanted: &[usize]| {
        let same: Vec<f64> = predicted.iter().zip(wanted).map(|(a, b)| f64::from(u8::from(a == b))).collect();
        bootstrap_mean(&same, RESAMPLES, Stream::named(seed, "rivals"))
    };
    Ok(RivalMeasures {
        parameters: mask.count(),
        density: mask.density(),
        agreement: share(&task.held_out.choices),
        accuracy: share(&task.held_out.labels),
        mask_sha256: mask.sha256(),
    })
}

fn overlap(circuits: [usize; 2], a: &ParamMask, b: &ParamMask, strata: &WeightStrata) -> RivalOverlap {
    let shared = a.intersection_counts(b).iter().sum();
    let population = ParamMask::n_maskable(a.config());
    let counts = Counts::new(shared, a.count(), b.count(), population).expect("masks of one model");
    let (jaccard, matched) = (counts.jaccard(), counts.jaccard_of(strata.expected_intersection(a, b)));
    RivalOverlap {
        circuits,
        shared,
        jaccard,
        by_chance: Chance { jaccard: counts.expected_jaccard(), interval: counts.chance_interval() },
        lift: counts.lift(),
        matched,
        beyond_matched: jaccard
            .zip(matched)
            .filter(|(_, matched)| *matched < 1.0)
            .map(|(jaccard, matched)| (jaccard - matched) / (1.0 - matched)),
    }
}

#[cfg(test)]
mod tests {
    use locus_gpt2::{Config, Gpt2};
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::SeedableRng;

    use super::*;

    /// Random masks share what chance gives, a mask shares all with itself and nothing with its complement.
    #[test]
    fn overlaps_of_masks_that_know_nothing() {
        let model = Gpt2::<f64>::init(&Config::new(2, 2, 16, 16, 32), &mut ChaCha8Rng::seed_from_u64(3));
        let strata = WeightStrata::new(&model);
        let half = ParamMask::n_maskable(model.config()) / 2;
        let random = |seed| ParamMask::random(model.config(), half, &mut ChaCha8Rng::seed_from_u64(seed));
        let mut inside = 0;
        for seed in 0..40 {
            let found = overlap([1, 2], &random(2 * seed), &random(2 * seed + 1), &strata);
            let (low, high) = found.by_chance.interval.unwrap();
            inside += usize::from((low..=high).contains(&found.jaccard.unwrap()));
            assert!(found.beyond_matched.unwrap().abs() < 0.05, "{found:?}");
        }
        // 95 % of 40 are 38, with a standard deviation of 1.4.
        assert!(inside >= 33, "{inside} of 40 in the 95 % range");
        let mask = random(0);
        let same = overlap([1, 1], &mask, &mask, &strata);
        assert_eq!((same.shared, same.jaccard, same.beyond_matched), (half, Some(1.0), Some(1.0)));
        let none = overlap([1, 2], &mask, &mask.complement(), &strata);
        assert_eq!((none.shared, none.jaccard), (0, Some(0.0)));
        assert!(none.beyond_matched.unwrap() < -0.4, "{none:?}");
    }
}
