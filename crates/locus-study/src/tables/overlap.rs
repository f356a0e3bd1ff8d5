//! Overlap of the circuits of two tasks, compared with chance: T5, its heat map, and C4.

use std::collections::BTreeMap;

use locus_metrics::{Interval, bootstrap, overlap::Counts};

use super::{
    cells::{estimate, number, table, text},
    options::TableOptions,
    select::{Density, distinct, presets, task_order},
};
use crate::{
    records::{Overlap, Records},
    results::{Cell, Style, Table},
};

const COLUMNS: [&str; 10] = [
    "preset",
    "task",
    "other task",
    "Jaccard",
    "expected, independent",
    "expected, stratified",
    "expected, matched",
    "lift",
    "lift, stratified",
    "kappa",
];

/// The measures, in the order of the columns.
const MEASURES: [fn(&TaskPair) -> f64; 7] = [
    |p| p.jaccard,
    |p| p.expected,
    |p| p.expected_stratified,
    |p| p.expected_matched,
    |p| p.lift,
    |p| p.lift_stratified,
    |p| p.kappa,
];

/// T5: overlap of the circuits of every pair of tasks, one table per size: T5 for 5 %, T5b for 50 %, further letters
/// for other sizes.
///
/// Rows: for each preset every pair of tasks, and the mean over pairs with intervals over tasks.
///
/// Columns: preset and both tasks; Jaccard index (0 to 1), and its expectation for independent masks of these sizes, or
/// of these sizes in every tensor (stratified), or in every tensor and class of |w| (matched); lift over either expectation (number of shared parameters over the
/// number expected, 1 is chance); Cohen's kappa (0 is chance, 1 is the same circuit).
pub fn t5(records: &Records, options: &TableOptions) -> Vec<Table> {
    let sizes = distinct(records.overlaps.iter().map(|o| Density::of(o.target_density)));
    let others = sizes.iter().copied().filter(|size| !size.is_main());
    Density::MAIN
        .into_iter()
        .chain(others)
        .zip(["T5", "T5b", "T5c", "T5d", "T5e", "T5f"])
        .filter(|(size, _)| sizes.contains(size))
        .map(|(size, id)| at(id, size, records, options))
        .collect()
}

fn at(id: &str, size: Density, records: &Records, options: &TableOptions) -> Table {
    let mut rows = Vec::new();
    for preset in presets(records) {
        let pairs = pairs(records, preset);
        let pairs: Vec<&TaskPair> = pairs.iter().filter(|p| p.density == size).collect();
        for pair in &pairs {
            let mut row = vec![text(preset), text(pair.tasks.0), text(pair.tasks.1)];
            row.extend(MEASURES.map(|measure| number(measure(pair), Style::Fixed3)));
            rows.push(row);
        }
        if !pairs.is_empty() {
            let mut row = vec![text(preset), text("mean over pairs"), text("-")];
            row.extend(MEASURES.iter().zip(&COLUMNS[3..]).map(|(measure, name)| {
                estimate(
                    mean_over_tasks(&pairs, measure, options, &format!("{id}/{preset}/{name}")),
                    Style::Fixed3,
                )
            }));
            rows.push(row);
        }
        rows.extend(again_rows(records, preset, size));
    }
    let notes = vec![
        "Jaccard: parameters in both circuits over parameters in either. Lift: parameters in both over the \
         number expected; 1 is chance. Kappa: Cohen's, 0 is chance."
            .into(),
        "Expected: the Jaccard index of masks that are independent given their sizes (independent), or given \
         their sizes in every tensor (stratified), which removes the effect of a shared preference \
         for certain tensors."
            .into(),
        options.intervals("tasks (a pair counts as often as both its tasks are drawn)"),
        options.source(),
    ];
    table(id, format!("Overlap of circuits of {} of the parameters", size.label()), notes, &COLUMNS, rows)
}

/// Rows of two circuits of one task with different seeds.
fn again_rows<'a>(
    records: &'a Records,
    preset: &'a str,
    size: Density,
) -> impl Iterator<Item = Vec<Cell>> + 'a {
    let again = records
        .overlaps
        .iter()
        .filter(move |o| o.preset == preset && o.task_a == o.task_b && Density::of(o.target_density) == size);
    again.filter_map(move |o| {
        let pair = TaskPair::new(o)?;
        let mut row = vec![text(preset), text(pair.tasks.0), text(format!("seed {}", o.draw_b + 1))];
        row.extend(MEASURES.map(|measure| number(measure(&pair), Style::Fixed3)));
        Some(row)
    })
}

/// One pair of tasks, for which every measure is defined.
pub(crate) struct TaskPair<'a> {
    pub(crate) density: Density,
    pub(crate) tasks: (&'a str, &'a str),
    pub(crate) jaccard: f64,
    /// Jaccard index expected of masks that are independent given their sizes.
    pub(crate) expected: f64,
    /// Jaccard index expected of masks that are independent given their sizes in every tensor. The overlap that a
    /// shared preference for certain tensors causes is thus no overlap of tasks.
    pub(crate) expected_stratified: f64,
    /// Jaccard index expected of masks that are independent given their sizes in every tensor and class of |w|.
    pub(crate) expected_matched: f64,
    pub(crate) lift: f64,
    pub(crate) lift_stratified: f64,
    pub(crate) kappa: f64,
}

impl<'a> TaskPair<'a> {
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
            expected_matched: counts.jaccard_of(o.expected_intersection_matched)?,
            lift: counts.lift()?,
            lift_stratified: counts.lift_over(o.expected_intersection_stratified)?,
            kappa: counts.kappa()?,
        })
    }

    /// Jaccard index corrected for chance: 0 is that of matched masks, 1 that of identical circuits.
    pub(crate) fn beyond_matched(&self) -> f64 {
        (self.jaccard - self.expected_matched) / (1.0 - self.expected_matched)
    }
}

/// Overlap beyond chance of two circuits of one task with different seeds, mean over tasks: what the recipe finds
/// again. 0 where no task has a second seed.
pub(crate) fn ceilings(records: &Records, preset: &str, size: Density) -> f64 {
    let again = records
        .overlaps
        .iter()
        .filter(|o| o.preset == preset && o.task_a == o.task_b && Density::of(o.target_density) == size);
    let again: Vec<f64> = again.filter_map(|o| Some(TaskPair::new(o)?.beyond_matched())).collect();
    if again.is_empty() { 0.0 } else { again.iter().sum::<f64>() / again.len() as f64 }
}

/// The pairs of one preset, by size and task.
pub(crate) fn pairs<'a>(records: &'a Records, preset: &str) -> Vec<TaskPair<'a>> {
    let mut pairs: Vec<TaskPair> = records
        .overlaps
        .iter()
        .filter(|o| o.preset == preset && o.task_a != o.task_b)
        .filter_map(TaskPair::new)
        .collect();
    pairs.sort_by_key(|p| (p.density, task_order(p.tasks.0), task_order(p.tasks.1)));
    pairs
}

/// Mean of a measure over pairs, with its bootstrap interval over tasks.
///
/// Pairs share tasks and are not independent, so tasks are drawn with replacement, and a pair counts as often
/// as the product of the draws of its two tasks.
pub(crate) fn mean_over_tasks(
    pairs: &[&TaskPair],
    measure: impl Fn(&TaskPair) -> f64,
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
