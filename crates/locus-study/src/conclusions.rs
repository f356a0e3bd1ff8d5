//! Everything that is computed from the records of a run, in one call: tables, figures and claims.

use crate::records::Records;
use crate::results::{Provenance, Results};
use crate::tables::TableOptions;
use crate::{claims, figures, multiverse, tables};

/// The tables of the study: T1-T7 reproduce the paper, X1-X4 are ours. A table may have parts, `T4b`.
pub const TABLES: [&str; 11] = ["T1", "T2", "T3", "T4", "T5", "T6", "T7", "X1", "X2", "X3", "X4"];

/// The table that an id names, whatever its case.
pub fn table_named(id: &str) -> Option<&'static str> {
    TABLES.into_iter().find(|table| table.eq_ignore_ascii_case(id))
}

/// Results with the wanted tables. Claims and figures are those that the records allow, whatever tables are wanted.
pub fn conclude(provenance: Provenance, records: Records, wanted: &[&str]) -> Results {
    let options = TableOptions {
        seed: provenance.seed,
        resamples: locus_metrics::bootstrap::RESAMPLES,
        model: provenance.model.clone(),
        data: provenance.data.clone(),
    };
    let mut all = tables::all(&records, &options);
    let claims = claims::decide(&records, &options);
    let multiverse = multiverse::x4(&claims, &options);
    if !multiverse.rows.is_empty() {
        all.push(multiverse);
    }
    all.retain(|table| wanted.iter().any(|id| table.id.starts_with(id)));
    let mut figures = figures::all(&records, &options);
    figures.extend(multiverse::figure(&claims));
    Results { provenance, records, tables: all, figures, claims }
}
