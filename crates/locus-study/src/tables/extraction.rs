//! Circuit extraction: T1 (every task) and T4 (every size on the hierarchy task).

use std::{cmp::Reverse, collections::BTreeMap};

use super::{
    cells::{count, not_measured, number, percent, table, text},
    options::TableOptions,
    select::{Density, competence, mean, preset_order, scope_label, task_order},
};
use crate::{
    records::{Extraction, HIERARCHY, Records, Schedule, Scope},
    results::{Cell, Style, Table},
};

const COLUMNS: [&str; 17] = [
    "task",
    "target density",
    "preset",
    "mask",
    "masks",
    "density",
    "reached",
    "steps",
    "held-out rows",
    "accuracy, full",
    "accuracy, random weights",
    "accuracy",
    "accuracy, complement",
    "agreement",
    "balanced agreement",
    "agreement, complement",
    "neutral NLL",
];

/// T1: circuit extraction, every task.
///
/// Rows: one per kind of mask, by task, size from large to small, and preset, the published one first; circuits first,
/// then their controls.
///
/// Columns: task, target density, preset, kind of mask; number of masks (seeds or draws) that the row averages over;
/// density (% of the maskable parameters); whether the target was reached; optimiser steps from the start of the
/// trajectory; number of held-out rows; accuracy against the labels (% of the held-out rows) of full model, model of
/// random weights, mask and complement; agreement with the full model (%) of mask (plain and balanced) and complement; NLL of neutral text with
/// the mask alone (nats per token) with the KL divergence from the full model in the next column.
pub fn t1(records: &Records, options: &TableOptions) -> Table {
    let found: Vec<&Extraction> = records.extractions.iter().collect();
    let notes = notes(records, options).into_iter().chain(not_measured(records, "T1")).collect();
    table("T1", "Circuit extraction".into(), notes, &columns(), rows(&found, false))
}

/// T4: circuit extraction on the hierarchy task, every size.
///
/// Rows: the published preset first, sizes from large to small. Columns: those of [`t1`].
pub fn t4(records: &Records, options: &TableOptions) -> Table {
    let found: Vec<&Extraction> = records.extractions.iter().filter(|e| e.task == HIERARCHY).collect();
    let title = "Circuit size on the hierarchy task: extraction".into();
    table("T4", title, notes(records, options), &columns(), rows(&found, true))
}

fn columns() -> Vec<&'static str> {
    COLUMNS.into_iter().chain(["neutral KL"]).collect()
}

/// A row per kind of mask; `by_preset` sorts by preset before size.
fn rows(found: &[&Extraction], by_preset: bool) -> Vec<Vec<Cell>> {
    type Key<'a> =
        ((bool, &'a str), Option<(bool, &'a str)>, Reverse<Density>, (bool, &'a str), Schedule, Scope);
    let mut groups: BTreeMap<Key, Vec<&Extraction>> = BTreeMap::new();
    for &e in found {
        let size = Reverse(Density::of(e.target_density));
        let preset = preset_order(&e.preset);
        let first = by_preset.then_some(preset);
        groups.entry((task_order(&e.task), first, size, preset, e.schedule, e.scope)).or_default().push(e);
    }
    groups.into_values().map(|masks| row(&masks)).collect()
}

fn row(masks: &[&Extraction]) -> Vec<Cell> {
    let e = masks[0];
    let over = |value: fn(&Extraction) -> Option<f64>| -> Option<f64> {
        let values: Vec<f64> = masks.iter().filter_map(|e| value(e)).collect();
        mean(values)
    };
    let schedule = match e.schedule {
        Schedule::Sweep => "",
        Schedule::OwnTrajectory => ", own trajectory",
        Schedule::SplitByRows => ", split by rows",
    };
    let mut row = vec![
        text(&e.task),
        text(Density::of(e.target_density).label()),
        text(&e.preset),
        text(format!("{}{schedule}", scope_label(e.scope))),
        count(masks.len()),
        percent(over(|e| Some(e.density))),
        text(if masks.iter().all(|e| e.reached) { "yes" } else { "no" }),
        count(e.steps),
        count(e.held_out_rows),
    ];
    row.extend(
        [
            over(|e| Some(e.accuracy_full)),
            over(|e| e.accuracy_random_weights),
            over(|e| Some(e.accuracy)),
            over(|e| Some(e.accuracy_complement)),
            over(|e| Some(e.agreement)),
            over(|e| e.balanced_agreement),
            over(|e| Some(e.agreement_complement)),
        ]
        .map(percent),
    );
    row.push(number(over(|e| e.neutral_nll), Style::Fixed3));
    row.push(number(over(|e| e.neutral_kl), Style::Fixed3));
    row
}

/// Notes that explain the columns.
fn notes(records: &Records, options: &TableOptions) -> Vec<String> {
    let mut notes: Vec<String> = vec![
        "Accuracy: share of held-out rows classified as labelled; with random weights: what a head trained in the same \
         way reads from the words alone. Agreement: share on which the masked and \
         the full model choose the same class; balanced: averaged over the full model's two classes, so that \
         50 % is chance for any shares of the classes."
            .into(),
        "Complement: every maskable parameter outside the mask. Random: masks of the target density. Matched: a circuit's \
         membership permuted within every tensor and class of |w|. Magnitude: the largest |w|. Shuffled labels: trained by \
         the recipe on shuffled labels, measured against the model's own choices. Random weights: circuits that the recipe \
         finds in a model of random weights, measured on that model."
            .into(),
        "Reached: whether the density came down to the target within the preset's epochs; masks that did not reach it are \
         in no other table. Steps count from the start of the trajectory, which passes through all its targets; with \
         trajectories of their own all sizes are trained for equally long."
            .into(),
        "Neutral NLL and KL: the mask alone as a language model, on neutral text, in nats per token; KL is from the full \
         model's next-token distribution."
            .into(),
    ];
    let (_, at_chance) = competence(records);
    if !at_chance.is_empty() {
        notes.push(format!(
            "The full model is not above chance and a model of random weights on {}; circuits of these tasks decide no claim.",
            at_chance.join(", ")
        ));
    }
    notes.push(options.source());
    notes
}
