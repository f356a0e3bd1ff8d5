//! Tables T1-T7 and X1-X3, each a pure function of the records.
//!
//! One file per table. What they share: `select` (which rows, in which order), `cells`, and per subject
//! `extraction`, `editing`, `overlaps`, `composition` and `levels`, which the claims and figures
//! use as well, so that a number in a verdict is the number in the table.

pub(crate) mod cells;
pub(crate) mod composition;
pub(crate) mod editing;
pub(crate) mod extraction;
#[cfg(test)]
pub(crate) mod fabricated;
pub(crate) mod levels;
pub(crate) mod overlaps;
pub(crate) mod select;
mod t1;
mod t2;
mod t3;
pub(crate) mod t4;
mod t5;
mod t6;
mod t7;
#[cfg(test)]
mod tests;
mod x1;
mod x1b;
mod x2;
mod x3;

pub use t1::t1;
pub use t2::t2;
pub use t3::t3;
pub use t4::{t4, t4b};
pub use t5::t5;
pub use t6::{t6, t6b};
pub use t7::t7;
pub use x1::x1;
pub use x1b::{x1b, x1c};
pub use x2::x2;
pub use x3::x3;

use locus_metrics::{Interval, Stream, bootstrap};

use crate::{records::Records, results::Table};

/// What the tables, figures and claims need besides the records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableOptions {
    /// Seed of the bootstrap and of the permutation tests.
    pub seed: u64,
    /// Bootstrap resamples.
    pub resamples: usize,
    /// Name of the model, for the notes.
    pub model: String,
    /// Name of the data, for the notes.
    pub data: String,
}

impl TableOptions {
    /// Random numbers for one purpose; a table that is left out does not change the others.
    pub(crate) fn stream(&self, purpose: &str) -> Stream {
        Stream::named(self.seed, purpose)
    }

    /// Mean with its interval over clusters; `None` of nothing.
    pub(crate) fn mean<K: Ord>(&self, values: &[f64], keys: &[K], purpose: &str) -> Option<Interval> {
        (!values.is_empty())
            .then(|| bootstrap::cluster_bootstrap_mean(values, keys, self.resamples, self.stream(purpose)))
    }

    /// The note that says where the numbers of a table were measured.
    pub(crate) fn source(&self) -> String {
        format!("Measured on {} with {}.", self.model, self.data)
    }

    /// The note that says what the intervals are.
    pub(crate) fn intervals(&self, over: &str) -> String {
        format!("Brackets: 95 % percentile bootstrap intervals over {over}, {} resamples.", self.resamples)
    }
}

/// Every table that has rows, in order.
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
    tables.retain(|table| !table.rows.is_empty());
    tables
}
