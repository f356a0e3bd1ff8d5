//! Constructors of cells and tables. Numbers that are not finite become empty cells, because JSON has no NaN.

use locus_metrics::Interval;

use crate::records::{Records, Skipped};
use crate::results::{Cell, Style, Table};

pub(crate) fn text(words: impl Into<String>) -> Cell {
    Cell::Text(words.into())
}

pub(crate) fn count(n: usize) -> Cell {
    Cell::Count(n as u64)
}

pub(crate) fn number(value: impl Into<Option<f64>>, style: Style) -> Cell {
    match value.into() {
        Some(value) if value.is_finite() => Cell::Number { value, style },
        _ => Cell::Empty(()),
    }
}

pub(crate) fn percent(value: impl Into<Option<f64>>) -> Cell {
    number(value, Style::Percent)
}

pub(crate) fn estimate(interval: impl Into<Option<Interval>>, style: Style) -> Cell {
    match interval.into() {
        Some(Interval { value, low, high }) if [value, low, high].iter().all(|x| x.is_finite()) => {
            Cell::Estimate { value, low, high, style }
        }
        _ => Cell::Empty(()),
    }
}

/// A note for each thing that a table lacks because it could not be measured.
pub(crate) fn not_measured<'a>(records: &'a Records, id: &'a str) -> impl Iterator<Item = String> + 'a {
    records.skipped.iter().filter(move |skipped| skipped.table == id).map(|Skipped { task, why, .. }| {
        if task.is_empty() {
            format!("Not measured: {why}.")
        } else {
            format!("Not measured: {task}: {why}.")
        }
    })
}

/// Makes a table; in debug builds checks that every row is as long as the head.
pub(crate) fn table(
    id: &str,
    title: String,
    notes: Vec<String>,
    columns: &[&str],
    rows: Vec<Vec<Cell>>,
) -> Table {
    debug_assert!(rows.iter().all(|row| row.len() == columns.len()), "{id}: a row does not fit its head");
    Table { id: id.into(), title, notes, columns: columns.iter().map(|&head| head.into()).collect(), rows }
}
