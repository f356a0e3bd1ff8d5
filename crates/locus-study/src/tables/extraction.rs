//! One circuit as a row of T1 and T4.

use super::{
    cells::{count, percent, text},
    select::Density,
};
use crate::{records::Extraction, results::Cell};

pub(crate) const COLUMNS: [&str; 17] = [
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

pub(crate) fn row(e: &Extraction) -> Vec<Cell> {
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

/// What the columns are.
pub(crate) fn notes() -> Vec<String> {
    vec![
        "Accuracy: share of held-out rows classified as labelled. Agreement: share on which the masked and \
         the full model choose the same class; balanced: averaged over the full model's two classes, so that \
         50 % is chance whatever the class shares."
            .into(),
        "Complement: every maskable parameter outside the circuit. Random: masks of the circuit's density, \
         mean over draws. Shuffled labels: a mask trained with the same recipe on shuffled labels, measured \
         on the true ones, where it was run."
            .into(),
        "Reached: whether the density came down to the target within the preset's epochs. Epochs and steps \
         count from the start of the trajectory, which passes through all its targets."
            .into(),
    ]
}
