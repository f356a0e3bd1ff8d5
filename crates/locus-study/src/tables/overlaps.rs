//! Overlap of two circuits beside chance: T5, its heat map, and C4.

use std::collections::BTreeMap;

use locus_metrics::{Interval, bootstrap, overlap::Counts};

use super::{
    TableOptions,
    select::{Density, distinct, task_order},
};
use crate::records::{Overlap, Records};

/// One pair of tasks with every measure defined.
pub(crate) struct Pair<'a> {
    pub(crate) density: Density,
    pub(crate) tasks: (&'a str, &'a str),
    pub(crate) jaccard: f64,
    /// Jaccard expected of masks that are independent given their sizes.
    pub(crate) expected: f64,
    /// The same given their sizes in every tensor: what a shared preference for certain tensors gives is no
    /// overlap of tasks.
    pub(crate) expected_stratified: f64,
    pub(crate) lift: f64,
    pub(crate) lift_stratified: f64,
    pub(crate) kappa: f64,
}

impl<'a> Pair<'a> {
    /// `None` for a record whose counts contradict each other or leave a measure undefined (an empty
    /// circuit).
    fn new(o: &'a Overlap) -> Option<Self> {
        let counts = Counts::new(o.intersection, o.size_a, o.size_b, o.population)?;
        let mut tasks = (o.task_a.as_str(), o.task_b.as_str());
        if task_order(tasks.1) < task_order(tasks.0) {
            tasks = (tasks.1, tasks.0);
        }
        Some(Self {
            density: Density::of(o.target_density),
            tasks,
            jaccard: counts.jaccard()?,
            expected: counts.expected_jaccard()?,
            expected_stratified: counts.jaccard_of(o.expected_intersection_stratified)?,
            lift: counts.lift()?,
            lift_stratified: counts.lift_over(o.expected_intersection_stratified)?,
            kappa: counts.kappa()?,
        })
    }

    /// Jaccard corrected for chance: 0 is what stratified independence gives, 1 is identity.
    pub(crate) fn beyond_chance(&self) -> f64 {
        (self.jaccard - self.expected_stratified) / (1.0 - self.expected_stratified)
    }
}

/// The pairs of one preset, by size and task.
pub(crate) fn pairs<'a>(records: &'a Records, preset: &str) -> Vec<Pair<'a>> {
    let mut pairs: Vec<Pair> =
        records.overlaps.iter().filter(|o| o.preset == preset).filter_map(Pair::new).collect();
    pairs.sort_by_key(|p| (p.density, task_order(p.tasks.0), task_order(p.tasks.1)));
    pairs
}

/// Mean of a measure over pairs, with its bootstrap interval over tasks.
///
/// Pairs share tasks and are not independent, so tasks are drawn with replacement, and a pair counts as often
/// as the product of the draws of its two tasks.
pub(crate) fn mean_over_tasks(
    pairs: &[&Pair],
    measure: impl Fn(&Pair) -> f64,
    options: &TableOptions,
    purpose: &str,
) -> Option<Interval> {
    let tasks = distinct(pairs.iter().flat_map(|p| [p.tasks.0, p.tasks.1]));
    if tasks.is_empty() {
        return None;
    }
    let place: BTreeMap<&str, usize> = tasks.iter().enumerate().map(|(i, &task)| (task, i)).collect();
    let entries: Vec<(usize, usize, f64)> =
        pairs.iter().map(|p| (place[p.tasks.0], place[p.tasks.1], measure(p))).collect();
    Some(bootstrap::bootstrap(tasks.len(), options.resamples, options.stream(purpose), |drawn| {
        let mut times = vec![0.0; tasks.len()];
        drawn.iter().for_each(|&task| times[task] += 1.0);
        let (sum, weight) = entries.iter().fold((0.0, 0.0), |(sum, weight), &(a, b, value)| {
            (sum + times[a] * times[b] * value, weight + times[a] * times[b])
        });
        sum / weight
    }))
}
