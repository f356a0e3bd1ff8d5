//! T1: circuit extraction.

use super::{
    TableOptions,
    cells::table,
    extraction,
    select::{Density, preset_order, task_order},
};
use crate::{records::Records, results::Table};

/// Every circuit found: tasks, sizes from large to small, and the presets below each other, `study` first.
pub fn t1(records: &Records, options: &TableOptions) -> Table {
    let mut found: Vec<_> = records.extractions.iter().collect();
    found.sort_by_key(|e| {
        let size = std::cmp::Reverse(Density::of(e.target_density));
        (task_order(&e.task), size, preset_order(&e.preset))
    });
    let rows = found.into_iter().map(extraction::row).collect();
    let mut notes = extraction::notes();
    notes.push(options.source());
    table("T1", "Circuit extraction".into(), notes, &extraction::COLUMNS, rows)
}
