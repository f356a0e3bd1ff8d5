//! Drawing of a [`Figure`]: one file per kind of plot, the parts that they share (`axis`, `legend`), and the SVG
//! writer.

mod axis;
mod bars;
mod before_after;
pub mod circuit;
mod heat_map;
mod legend;
mod lines;
pub mod svg;

use self::svg::Svg;
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
