//! Selection of records: which belong together, and in which order they are shown.

use std::collections::{BTreeMap, BTreeSet};

use locus_metrics::classify::above;

use crate::records::{EditKind, EditOutcome, Extraction, HIERARCHY, PUBLISHED, Records, Schedule, Scope};

/// A target density as an exact key, in millionths: densities are typed by hand (0.05) and must compare equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Density(u32);

impl Density {
    pub(crate) const SMALL: Self = Self(50_000);
    pub(crate) const LARGE: Self = Self(500_000);
    /// The two sizes at which every task has a circuit.
    pub(crate) const MAIN: [Self; 2] = [Self::SMALL, Self::LARGE];

    pub(crate) fn of(share: f64) -> Self {
        Self((share * 1e6).round() as u32)
    }

    pub(crate) fn share(self) -> f64 {
        f64::from(self.0) / 1e6
    }

    pub(crate) fn is_main(self) -> bool {
        Self::MAIN.contains(&self)
    }

    /// The density in words: `5 %`, `12.5 %`.
    pub(crate) fn label(self) -> String {
        format!("{} %", f64::from(self.0) / 1e4)
    }

    /// The density as part of a file name: `5`, `12.5`.
    pub(crate) fn stem(self) -> String {
        format!("{}", f64::from(self.0) / 1e4)
    }
}

/// Sort key of presets: the published one first, the others by name.
pub(crate) fn preset_order(preset: &str) -> (bool, &str) {
    (preset != PUBLISHED, preset)
}

/// Sort key of tasks: the hierarchy first, the others by name.
pub(crate) fn task_order(task: &str) -> (bool, &str) {
    (task != HIERARCHY, task)
}

/// Every preset that has a record, in order.
pub(crate) fn presets(records: &Records) -> Vec<&str> {
    let extractions = records.extractions.iter().map(|e| e.preset.as_str());
    let edits = records.edits.iter().map(|e| e.preset.as_str());
    let overlaps = records.overlaps.iter().map(|o| o.preset.as_str());
    let mut presets = distinct(extractions.chain(edits).chain(overlaps).filter(|p| !p.is_empty()));
    presets.sort_by_key(|p| preset_order(p));
    presets
}

/// The distinct values, ascending.
pub(crate) fn distinct<T: Ord>(values: impl Iterator<Item = T>) -> Vec<T> {
    values.collect::<BTreeSet<T>>().into_iter().collect()
}

/// The distinct tasks, the hierarchy first.
pub(crate) fn distinct_tasks<'a>(tasks: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut tasks = distinct(tasks);
    tasks.sort_by_key(|task| task_order(task));
    tasks
}

/// The family of a task: its name up to the first underscore (`blimp_dna1` is one of the family `blimp`).
pub(crate) fn family(task: &str) -> &str {
    task.split('_').next().unwrap_or(task)
}

/// Masks of one kind, preset and size that were trained on the sweep and reached their target, or belong to circuits
/// that did; the tasks in order, within each the draws.
pub(crate) fn masks<'a>(
    records: &'a Records,
    preset: &str,
    size: Density,
    scope: Scope,
) -> Vec<&'a Extraction> {
    let fits = |e: &&Extraction| {
        e.scope == scope
            && e.preset == preset
            && e.schedule == Schedule::Sweep
            && e.reached
            && Density::of(e.target_density) == size
    };
    let mut masks: Vec<&Extraction> = records.extractions.iter().filter(fits).collect();
    masks.sort_by_key(|e| (task_order(&e.task), e.draw));
    masks
}

/// Edits of one kind in one scope, made with masks of one preset and size. Edits of the full model belong to every
/// preset and size.
pub(crate) fn edits<'a>(
    records: &'a Records,
    preset: &str,
    density: Density,
    scope: Scope,
    kind: EditKind,
) -> Vec<&'a EditOutcome> {
    let fits = |e: &&EditOutcome| {
        e.scope == scope
            && e.edit == kind
            && (is_whole(scope) || e.preset == preset && Density::of(e.target_density) == density)
    };
    records.edits.iter().filter(fits).collect()
}

/// Whether a scope has no mask.
pub(crate) fn is_whole(scope: Scope) -> bool {
    matches!(scope, Scope::Full | Scope::FrozenFull | Scope::RandomWeightsFull)
}

/// The scope's name in a table.
pub(crate) fn scope_label(scope: Scope) -> &'static str {
    match scope {
        Scope::Full => "full",
        Scope::FrozenFull => "full, blocks frozen",
        Scope::Circuit => "circuit",
        Scope::Complement => "complement",
        Scope::FrozenCircuit => "circuit, blocks frozen",
        Scope::CircuitInPlace => "circuit in the intact model",
        Scope::Random => "random",
        Scope::RandomComplement => "complement of random",
        Scope::Matched => "matched",
        Scope::MatchedComplement => "complement of matched",
        Scope::MatchedInPlace => "matched in the intact model",
        Scope::Shuffled => "shuffled labels",
        Scope::ShuffledComplement => "complement of shuffled labels",
        Scope::Magnitude => "magnitude",
        Scope::MagnitudeComplement => "complement of magnitude",
        Scope::RandomWeights => "random weights",
        Scope::RandomWeightsComplement => "complement of random weights",
        Scope::RandomWeightsFull => "full, random weights",
    }
}

/// Mean of the values; `None` where there are none.
pub(crate) fn mean(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    locus_metrics::token::mean(&values.into_iter().collect::<Vec<_>>())
}

/// Whether the full model does its task beyond doubt: better than chance, and better than a model of random weights,
/// from which a linear head still reads what the words alone tell.
fn is_competent(e: &Extraction) -> bool {
    let bar = e.accuracy_random_weights.unwrap_or(0.5).max(0.5);
    above(e.accuracy_full, e.held_out_rows, bar)
}

/// Tasks that the full model does beyond doubt with the split and the heads of at least one of its circuits of the
/// sweep, and those that it does not, each in order.
pub(crate) fn competence(records: &Records) -> (Vec<&str>, Vec<&str>) {
    let mut tasks: BTreeMap<&str, bool> = BTreeMap::new();
    for e in records.extractions.iter() {
        if e.scope == Scope::Circuit && e.schedule == Schedule::Sweep {
            *tasks.entry(&e.task).or_default() |= is_competent(e);
        }
    }
    let mut names: Vec<&str> = tasks.keys().copied().collect();
    names.sort_by_key(|task| task_order(task));
    names.into_iter().partition(|task| tasks[task])
}
