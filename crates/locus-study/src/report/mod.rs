//! Rendering of results to files: JSON, CSV, Markdown, SVG and one self-contained HTML page.
//!
//! The text of every file depends on the results alone: no time, host, font or locale enters, and equal results give
//! equal bytes.

mod cell;
mod check;
mod circuit;
#[cfg(test)]
pub(crate) mod fabricated;
mod files;
mod frame;
mod inspection;
mod json;
mod markdown;
mod page;
mod plot;
mod table;
#[cfg(test)]
mod tests;

pub use circuit::{CircuitPage, MeasuredCircuit, circuit_page};
pub use files::{ReportPaths, draw, write};
pub(crate) use inspection::component_name;
pub use inspection::{InspectedPrompt, InspectedToken, ModelProvenance, inspection_page};
pub(crate) use table::escape as escape_markdown;
