//! From a [`Figure`] to its drawing.

use super::svg::Svg;
use super::{bars, before_after, heat_map, lines};
use crate::results::{Figure, Plot};

/// Draws `figure`, whose shape has been checked.
pub fn draw(figure: &Figure) -> Svg {
    match &figure.plot {
        Plot::HeatMap { rows, columns, values, max, unit } => {
            heat_map::draw(rows, columns, values, *max, unit)
        }
        Plot::Bars { groups, series, y_label } => bars::draw(groups, series, y_label),
        Plot::Lines { x_label, y_label, log_x, series } => lines::draw(x_label, y_label, *log_x, series),
        Plot::BeforeAfter { x_label, entries } => before_after::draw(x_label, entries),
    }
}
