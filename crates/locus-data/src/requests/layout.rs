//! The layouts in one table.

use serde_json::Value;

use super::draft::Layout;
use super::record::Record;
use super::{counterfact, flat, known, mquake, ripple, wikibig, zsre};
use crate::{DataError, Result};

/// Every layout; a record is in the first that recognises it.
static LAYOUTS: [Layout; 7] = [
    mquake::LAYOUT,
    counterfact::LAYOUT,
    ripple::LAYOUT,
    zsre::LAYOUT,
    wikibig::LAYOUT,
    known::LAYOUT,
    flat::LAYOUT,
];

/// The layout of a record.
///
/// # Errors
/// When it is in none.
pub(super) fn layout_of(record: Record) -> Result<&'static Layout> {
    find(record.value).ok_or_else(|| DataError::Layout { file: record.file.to_owned(), record: record.index })
}

/// Whether a value is a record of some layout.
pub(super) fn recognises(value: &Value) -> bool {
    find(value).is_some()
}

fn find(value: &Value) -> Option<&'static Layout> {
    LAYOUTS.iter().find(|layout| value.is_object() && (layout.is)(value))
}
