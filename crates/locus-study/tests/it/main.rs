//! Black-box tests of the `locus` binary, in one test binary so that it links once.

mod bad_arguments;
mod bad_data;
mod bad_model;
mod benchmark;
mod circuit;
mod discover;
mod distributed;
#[cfg(unix)]
mod docs;
mod edit;
mod editors;
mod fetch;
mod generate;
mod inspect;
mod manual;
mod many_edits;
mod patch;
mod plan;
mod process;
mod refused;
mod reproduce;
mod score;
mod selftest;
mod skipped;
mod statistics;
mod support;
mod tables;
mod units;
