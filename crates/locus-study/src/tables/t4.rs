//! T4: sizes from 50 % down to 5 % on the hierarchy task.

use super::{
    TableOptions,
    cells::{table, text},
    editing, extraction,
    select::{Density, HIERARCHY, distinct, preset_order, presets, scope_label},
};
use crate::{
    records::{EditOutcome, Records, Scope},
    results::Table,
};

/// The hierarchy circuits of every size, large to small.
pub fn t4(records: &Records, options: &TableOptions) -> Table {
    let mut found: Vec<_> = records.extractions.iter().filter(|e| e.task == HIERARCHY).collect();
    found.sort_by_key(|e| (preset_order(&e.preset), std::cmp::Reverse(Density::of(e.target_density))));
    let rows = found.into_iter().map(extraction::row).collect();
    let mut notes = extraction::notes();
    notes.push(options.source());
    table("T4", "Circuit size on the hierarchy task: extraction".into(), notes, &extraction::COLUMNS, rows)
}

/// Edits inside them, inside their complements, and inside random masks of the same size where those were
/// run.
pub fn t4b(records: &Records, options: &TableOptions) -> Table {
    let mut rows = Vec::new();
    for preset in presets(records) {
        for (density, scope, edits) in sweep(records, preset) {
            let mut row = vec![text(preset), text(density.label()), text(scope_label(scope))];
            row.extend(editing::cells(
                &edits,
                options,
                &format!("T4b/{preset}/{}/{}", density.label(), scope_label(scope)),
            ));
            rows.push(row);
        }
    }
    let columns: Vec<&str> =
        ["preset", "target density", "scope"].into_iter().chain(editing::COLUMNS).collect();
    table(
        "T4b",
        "Circuit size on the hierarchy task: editing".into(),
        editing::notes(options),
        &columns,
        rows,
    )
}

/// The edits behind the size sweep of one preset: sizes from large to small, circuit, complement and random
/// mask.
pub(crate) fn sweep<'a>(records: &'a Records, preset: &str) -> Vec<(Density, Scope, Vec<&'a EditOutcome>)> {
    let of_preset: Vec<&EditOutcome> = records.edits.iter().filter(|e| e.preset == preset).collect();
    let of_task = of_preset.iter().filter(|e| e.task == HIERARCHY);
    let mut groups = Vec::new();
    for density in distinct(of_task.map(|e| Density::of(e.target_density))).into_iter().rev() {
        for scope in [Scope::Circuit, Scope::Complement, Scope::Random] {
            let belongs = |e: &&EditOutcome| {
                let of_task = e.task == HIERARCHY || scope == Scope::Random;
                of_task && e.scope == scope && Density::of(e.target_density) == density
            };
            let edits: Vec<&EditOutcome> = of_preset.iter().copied().filter(belongs).collect();
            if !edits.is_empty() {
                groups.push((density, scope, edits));
            }
        }
    }
    groups
}
