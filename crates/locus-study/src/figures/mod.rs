//! Figures, each a pure function of the records.

mod composition;
mod editing;
mod overlap;
mod sizes;
#[cfg(test)]
mod tests;
mod tracing;

use crate::{
    records::Records,
    results::{Figure, Plot},
    tables::{
        TableOptions,
        select::{Density, presets},
    },
};

/// Every figure that has data, in the order of the tables they belong to.
pub fn all(records: &Records, options: &TableOptions) -> Vec<Figure> {
    let presets = presets(records);
    let each = |draw: &dyn Fn(&str) -> Vec<Figure>| {
        presets.iter().flat_map(|preset| draw(preset)).collect::<Vec<_>>()
    };
    let mut figures = each(&|preset| editing::before_after(records, preset));
    figures.extend(each(&|preset| sizes::lines(records, preset, options)));
    figures.extend(each(&|preset| overlap::heat_maps(records, preset, options)));
    figures.extend(each(&|preset| composition::bars(records, preset, options)));
    figures.extend(tracing::all(records));
    figures
}

/// The figures of causal tracing alone: a heat map per kind of state, then the severed paths.
pub fn tracing(records: &Records) -> Vec<Figure> {
    tracing::all(records)
}

/// A figure of one preset; the preset `study` needs no mark in the file's name.
fn figure(id: &str, preset: &str, title: &str, caption: String, plot: Plot) -> Figure {
    let id = if preset == "study" { id.into() } else { format!("{id}-{preset}") };
    Figure { id, title: format!("{title} (preset {preset})"), caption, plot }
}

/// `5`, `12.5`: a size within a file name.
fn stem(size: Density) -> String {
    format!("{}", (size.share() * 1e6).round() / 1e4)
}
