//! The study end to end: protocol, records, tables, claims and report.
//!
//! Data flows one way: [`protocol`] turns a model and data into [`records`]; [`tables`], [`claims`] and [`figures`] are pure
//! functions of those; [`report`] writes files. The binary `locus` (module [`cli`]) is the only part that prints, shows
//! progress or reads the environment.

pub mod claims;
pub mod cli;
pub mod figures;
pub mod organism;
mod progress;
pub mod protocol;
pub mod records;
pub mod report;
pub mod results;
pub mod tables;
