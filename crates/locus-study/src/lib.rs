//! The study end to end: tables, claims and report from the protocol's records, and the command line tool `locus`.
//!
//! Data flows one way: [`protocol`] turns a model and data into [`records`]; [`tables`], [`claims`] and [`figures`] are
//! pure functions of the records, [`multiverse`] one of the claims; [`report`] writes files. In this crate only [`cli`], the binary `locus`, prints or
//! reads the environment.

pub mod aggregate;
pub mod claims;
pub mod cli;
pub mod conclusions;
pub mod figures;
pub mod multiverse;
pub mod report;
pub mod results;
pub mod tables;

pub use locus_protocol as protocol;
pub use locus_protocol::{organism, records};

/// The README, whose example is a test too.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

/// The README of the repository.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct RepositoryReadme;
