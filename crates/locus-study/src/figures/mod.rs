//! Figures, each a pure function of the records.

mod composition;
mod editing;
mod overlap;
mod sizes;
#[cfg(test)]
mod tests;
mod tracing;

use crate::{
    records::{PUBLISHED, Records},
    results::Figure,
    tables::{TableOptions, select::presets},
};

/// Every figure that has data, in the order of the tables that they belong to.
pub fn all(records: &Records, options: &TableOptions) -> Vec<Figure> {
    let presets = presets(records);
    let each = |draw: &dyn Fn(&str) -> Vec<Figure>| -> Vec<Figure> {
        let of_preset =
            |preset: &&str| draw(preset).into_iter().map(|figure| marked(figure, preset)).collect();
        presets.iter().flat_map::<Vec<Figure>, _>(of_preset).collect()
    };
    let mut figures = each(&|preset| editing::before_after(records, preset));
    figures.extend(each(&|preset| sizes::lines(records, preset, options)));
    figures.extend(each(&|preset| overlap::heat_maps(records, preset, options)));
    figures.extend(each(&|preset| composition::beside_controls(records, preset, options)));
    figures.extend(each(&|preset| composition::bars(records, preset, options)));
    figures.extend(each(&|preset| composition::layer_maps(records, preset)));
    figures.extend(tracing::all(records));
    figures
}

/// The figures of causal tracing: a heat map per kind of state, then the severed paths as lines.
pub fn tracing(records: &Records) -> Vec<Figure> {
    tracing::all(records)
}

/// Adds the preset to a figure's title and, unless it is the published one, to its file name.
fn marked(figure: Figure, preset: &str) -> Figure {
    let id = if preset == PUBLISHED { figure.id } else { format!("{}-{preset}", figure.id) };
    Figure { id, title: format!("{} (preset {preset})", figure.title), ..figure }
}
