//! T2: editing at 5 %.

use super::{TableOptions, editing, select::Density};
use crate::{records::Records, results::Table};

/// Editing inside the circuits that keep 5 % of the parameters, their complements, the full model and random
/// masks.
pub fn t2(records: &Records, options: &TableOptions) -> Table {
    editing::table_at("T2", Density::SMALL, records, options)
}
