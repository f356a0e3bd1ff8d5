//! Circuit extraction: T1 (every task) and T4 (every size on the hierarchy task).

use super::{
    cells::{count, not_measured, percent, table, text},
    options::TableOptions,
    select::{Density, preset_order, task_order},
};
use crate::{
    records::{Extraction, HIERARCHY, Records},
    results::{Cell, Table},
};

const COLUMNS: [&str; 17] = [
    "task",
    "target density",
    "preset",
    "density",
    "reached",
    "epochs",
    "steps",
    "held-out rows",
    "accuracy, full",
    "accuracy, circuit",
    "accuracy, complement",
    "accuracy, random",
    "agreement, circuit",
    "agreement, complement",
    "agreement, random",
    "balanced agreement, random",
    "accuracy, shuffled labels",
];

/// T1: circuit extraction, every task.
///
/// Rows: one per circuit, by task, size from large to small, and preset, the published one first.
///
/// Columns: task, target density, preset; density of the mask (% of the maskable parameters); whether the target was
/// reached; epochs and optimiser steps from the start of the trajectory; number of held-out rows; accuracy against the
/// labels (% of the held-out rows) of full model, circuit, complement and random masks; agreement with the full model
/// (%) of circuit, complement and random masks; balanced agreement of the random masks (%); accuracy of a mask trained
/// on shuffled labels (%), empty where this control was not run.
pub fn t1(records: &Records, options: &TableOptions) -> Table {
    let mut found: Vec<&Extraction> = records.extractions.iter().collect();
    found.sort_by_key(|e| {
        let size = std::cmp::Reverse(Density::of(e.target_density));
        (task_order(&e.task), size, preset_order(&e.preset))
    });
    let rows = found.into_iter().map(row).collect();
    let notes = notes(options).into_iter().chain(not_measured(records, "T1")).collect();
    table("T1", "Circuit extraction".into(), notes, &COLUMNS, rows)
}

/// T4: circuit extraction on the hierarchy task, every size.
///
/// Rows: one per circuit; the published preset first, sizes from large to small. Columns: those of [`t1`].
pub fn t4(records: &Records, options: &TableOptions) -> Table {
    let mut found: Vec<&Extraction> = records.extractions.iter().filter(|e| e.task == HIERARCHY).collect();
    found.sort_by_key(|e| (preset_order(&e.preset), std::cmp::Reverse(Density::of(e.target_density))));
    let rows = found.into_iter().map(row).collect();
    table("T4", "Circuit size on the hierarchy task: extraction".into(), notes(options), &COLUMNS, rows)
}

fn row(e: &Extraction) -> Vec<Cell> {
    let mut row = vec![
        text(&e.task),
        text(Density::of(e.target_density).label()),
        text(&e.preset),
        percent(e.density),
        text(if e.reached { "yes" } else { "no" }),
        count(e.epochs),
        count(e.steps),
        count(e.held_out_rows),
    ];
    row.extend(
        [
            e.accuracy_full,
            e.accuracy_circuit,
            e.accuracy_complement,
            e.accuracy_random,
            e.agreement,
            e.agreement_complement,
            e.agreement_random,
            e.balanced_agreement_random,
        ]
        .map(percent),
    );
    row.push(percent(e.accuracy_shuffled));
    row
}

/// Notes that explain the columns.
fn notes(options: &TableOptions) -> Vec<String> {
    vec![
        "Accuracy: share of held-out rows classified as labelled. Agreement: share on which the masked and \
         the full model choose the same class; balanced: averaged over the full model's two classes, so that \
         50 % is chance for any shares of the classes."
            .into(),
        "Complement: every maskable parameter outside the circuit. Random: masks of the circuit's density, \
         mean over draws. Shuffled labels: a mask trained with the same recipe on shuffled labels, measured \
         on the true ones, where it was run."
            .into(),
        "Reached: whether the density came down to the target within the preset's epochs. Epochs and steps \
         count from the start of the trajectory, which passes through all its targets."
            .into(),
        options.source(),
    ]
}
