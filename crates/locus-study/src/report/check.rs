//! Checks before anything is drawn or written: the renderers rely on shapes, and names become file names.

use std::collections::HashSet;
use std::io;

use crate::results::{Figure, Plot, Results, Table};

/// Refuses ids that are unsafe or not unique, and tables and figures whose parts do not fit together.
pub fn results(results: &Results) -> io::Result<()> {
    unique(results.tables.iter().map(|table| table.id.as_str()))?;
    unique(results.figures.iter().map(|figure| figure.id.as_str()))?;
    unique(results.claims.iter().map(|claim| claim.id.as_str()))?;
    results.tables.iter().try_for_each(table)?;
    results.figures.iter().try_for_each(figure)
}

/// Checks ids, which name files and anchors: only letters, digits, `-`, `_` and `.`, no leading dot, and no two that
/// differ in case alone.
fn unique<'a>(ids: impl Iterator<Item = &'a str>) -> io::Result<()> {
    let mut seen = HashSet::new();
    for id in ids {
        let safe = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_' | '.');
        if id.is_empty() || id.starts_with('.') || !id.chars().all(safe) {
            return Err(invalid(format!("id {id:?} cannot name a file")));
        }
        if !seen.insert(id.to_ascii_lowercase()) {
            return Err(invalid(format!("id {id:?} is used twice")));
        }
    }
    Ok(())
}

fn table(table: &Table) -> io::Result<()> {
    let columns = table.columns.len();
    match table.rows.iter().position(|row| row.len() != columns) {
        Some(row) => {
            let cells = table.rows[row].len();
            Err(invalid(format!("table {}: row {row} has {cells} cells under {columns} columns", table.id)))
        }
        None if columns == 0 => Err(invalid(format!("table {} has no columns", table.id))),
        None => Ok(()),
    }
}

fn figure(figure: &Figure) -> io::Result<()> {
    let fits = match &figure.plot {
        Plot::HeatMap { rows, columns, values, .. } => {
            values.len() == rows.len() && values.iter().all(|row| row.len() == columns.len())
        }
        Plot::Bars { groups, series, .. } => series.iter().all(|one| {
            one.values.len() == groups.len()
                && (one.intervals.is_empty() || one.intervals.len() == groups.len())
        }),
        Plot::Lines { .. } | Plot::BeforeAfter { .. } => true,
    };
    if fits {
        Ok(())
    } else {
        Err(invalid(format!("figure {}: its values do not fit its labels", figure.id)))
    }
}

/// An error about the results themselves.
pub fn invalid(reason: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fabricated;
    use crate::results::Cell;

    fn refused(change: impl Fn(&mut Results)) -> String {
        let mut broken = fabricated::results();
        change(&mut broken);
        results(&broken).unwrap_err().to_string()
    }

    #[test]
    fn ids_cannot_leave_their_folder_or_meet() {
        for id in ["", "../T1", "a/b", "a\\b", ".hidden", "T 1", "\"T1"] {
            assert!(
                refused(|results| results.tables[0].id = id.to_owned()).contains("cannot name a file"),
                "{id}"
            );
        }
        assert!(refused(|results| results.tables[1].id = "t1".to_owned()).contains("used twice"));
    }

    #[test]
    fn ragged_tables_and_figures_are_refused() {
        assert!(refused(|results| results.tables[0].rows[2].push(Cell::Empty(()))).contains("row 2"));
        for index in 0..2 {
            let message = refused(|results| match &mut results.figures[index].plot {
                Plot::HeatMap { rows, .. } => drop(rows.pop()),
                Plot::Bars { groups, .. } => drop(groups.pop()),
                other => panic!("unexpected {other:?}"),
            });
            assert!(message.contains("do not fit"), "{message}");
        }
    }
}
