//! T3: editing at 50 %.

use super::{TableOptions, editing, select::Density};
use crate::{records::Records, results::Table};

/// T2 for the circuits that keep 50 % of the parameters.
pub fn t3(records: &Records, options: &TableOptions) -> Table {
    editing::table_at("T3", Density::LARGE, records, options)
}
