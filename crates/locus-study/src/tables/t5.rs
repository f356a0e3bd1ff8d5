//! T5: overlap of the circuits of every pair of tasks.

use super::{
    TableOptions,
    cells::{estimate, number, table, text},
    overlaps::{Pair, mean_over_tasks, pairs},
    select::{Density, distinct, presets},
};
use crate::{
    records::Records,
    results::{Style, Table},
};

const COLUMNS: [&str; 9] = [
    "preset",
    "task",
    "other task",
    "Jaccard",
    "expected, independent",
    "expected, stratified",
    "lift",
    "lift, stratified",
    "kappa",
];

/// The measures, in the order of the columns.
const MEASURES: [fn(&Pair) -> f64; 6] = [
    |p| p.jaccard,
    |p| p.expected,
    |p| p.expected_stratified,
    |p| p.lift,
    |p| p.lift_stratified,
    |p| p.kappa,
];

/// One table per size: T5 at 5 %, T5b at 50 %, further letters for other sizes.
pub fn t5(records: &Records, options: &TableOptions) -> Vec<Table> {
    let sizes = distinct(records.overlaps.iter().map(|o| Density::of(o.target_density)));
    let others = sizes.iter().copied().filter(|size| !size.is_published());
    Density::PUBLISHED
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
        let pairs: Vec<&Pair> = pairs.iter().filter(|p| p.density == size).collect();
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
    }
    let notes = vec![
        "Jaccard: parameters in both circuits over parameters in either. Lift: parameters in both over the \
         number expected; 1 is chance. Kappa: Cohen's, 0 is chance."
            .into(),
        "Expected: the Jaccard index of masks that are independent given their sizes (independent), or given \
         their sizes in every tensor (stratified), which takes out what a shared preference for certain \
         tensors gives."
            .into(),
        options.intervals("tasks (a pair counts as often as both its tasks are drawn)"),
        options.source(),
    ];
    table(id, format!("Overlap of circuits of {} of the parameters", size.label()), notes, &COLUMNS, rows)
}
