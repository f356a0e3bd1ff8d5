//! Tables T1-T7 and X1-X3, each a pure function of the records.
//!
//! Each subject has a file with its tables and the measures in them. Claims and figures use the same measures, so that
//! a number in a verdict is the number in the table. The files share `options`, `select` (which rows, in which order)
//! and `cells`.
//!
//! | file | tables |
//! |---|---|
//! | `extraction` | T1, T4: circuits and their accuracy |
//! | `editing` | T2, T3, T4b: requests written inside circuits |
//! | `overlap` | T5: what the circuits of two tasks share |
//! | `composition` | T6, T6b: what circuits are made of |
//! | `levels` | T7: editing hyponyms and hypernyms |
//! | `discovery` | X1, X1b, X1c: methods that find circuits |
//! | `editors` | X2: comparison of editors |
//! | `tracing` | X3: causal tracing |
//!
//! X4 is a function of the claims: see `multiverse`.

pub(crate) mod cells;
pub(crate) mod composition;
mod discovery;
pub(crate) mod editing;
mod editors;
mod extraction;
#[cfg(test)]
pub(crate) mod fabricated;
pub(crate) mod levels;
mod options;
pub(crate) mod overlap;
pub(crate) mod select;
#[cfg(test)]
mod tests;
mod tracing;

pub use composition::{t6, t6b};
pub use discovery::{x1, x1b, x1c};
pub use editing::{t2, t3, t4b};
pub use editors::x2;
pub use extraction::{t1, t4};
pub use levels::t7;
pub use options::TableOptions;
pub use overlap::t5;
pub use tracing::x3;

use crate::{records::Records, results::Table};

/// Every table that has rows, or a note on what could not be measured; in order.
pub fn all(records: &Records, options: &TableOptions) -> Vec<Table> {
    let mut tables = vec![
        t1(records, options),
        t2(records, options),
        t3(records, options),
        t4(records, options),
        t4b(records, options),
    ];
    tables.extend(t5(records, options));
    tables.extend([t6(records, options), t6b(records, options), t7(records, options)]);
    tables.extend([x1(records, options), x1b(records, options), x1c(records, options)]);
    tables.extend([x2(records, options), x3(records, options)]);
    tables.retain(|table| {
        !table.rows.is_empty() || records.skipped.iter().any(|skipped| skipped.table == table.id)
    });
    tables
}
