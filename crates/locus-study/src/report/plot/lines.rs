//! Lines over a numeric axis.

use super::axis::{Area, Axis};
use super::legend::{Legend, Sample, mark, stroke};
use super::svg::{Anchor, Svg};
use crate::results::LineSeries;

const WIDTH: f64 = 800.0;
const PLOT_HEIGHT: f64 = 320.0;

/// Draws every series as a line with marks. Points that a log axis cannot show are counted below the drawing.
pub fn draw(x_label: &str, y_label: &str, log_x: bool, series: &[LineSeries]) -> Svg {
    let points = || series.iter().flat_map(|one| &one.points).copied();
    let x_axis = if log_x {
        Axis::logarithmic(points().map(|point| point.0))
    } else {
        Axis::whole_or_linear(points().map(|point| point.0))
    };
    let y_axis = Axis::linear(points().filter(|point| x_axis.shows(point.0)).map(|point| point.1), false);
    let hidden = points().filter(|point| !x_axis.shows(point.0)).count();

    let left = y_axis.label_width() + 44.0;
    let right = WIDTH - 24.0;
    let legend = Legend::new(series.iter().map(|one| one.name.as_str()), right - left);
    let top = legend.height() + 18.0;
    let area = Area { left, right, top, bottom: top + PLOT_HEIGHT };
    let foot = if hidden > 0 { 76.0 } else { 54.0 };
    let mut svg = Svg::new(WIDTH, area.bottom + foot);
    legend.draw(&mut svg, (left, 6.0), Sample::Line);
    y_axis.draw_y(&mut svg, area, y_label);
    x_axis.draw_x(&mut svg, area, x_label);
    svg.rect((left, top), (right - left, PLOT_HEIGHT), "frame", "");

    for (index, one) in series.iter().enumerate() {
        let shown = || one.points.iter().filter(|point| x_axis.shows(point.0));
        let line: Vec<(f64, f64)> = shown().map(|&(x, y)| (x_axis.x(x, area), y_axis.y(y, area))).collect();
        svg.path(&line, false, &stroke(index), "");
        for (&at, (x, y)) in line.iter().zip(shown()) {
            mark(&mut svg, at, index, &format!("{}: {y:.4} at {x}", one.name));
        }
    }
    if hidden > 0 {
        let text = format!("not shown, as a log axis has no place for x at or below zero: {hidden}");
        svg.text((left, area.bottom + 62.0), Anchor::Start, "faint", &text);
    }
    svg
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_point_gets_a_mark_and_hidden_ones_are_counted() {
        let series = [LineSeries { name: "a".to_owned(), points: vec![(0.0, 9.0), (0.1, 1.0), (1.0, 2.0)] }];
        let linear = draw("x", "y", false, &series).inline("");
        assert_eq!(linear.matches("<title>a: ").count(), 3);
        assert!(!linear.contains("not shown"));
        let log = draw("x", "y", true, &series).inline("");
        assert_eq!(log.matches("<title>a: ").count(), 2);
        assert!(log.contains("or below zero: 1<"));
    }

    #[test]
    fn nothing_to_draw_is_still_a_drawing() {
        let empty = [LineSeries { name: "a".to_owned(), points: Vec::new() }];
        assert!(draw("x", "y", true, &empty).inline("").ends_with("</svg>\n"));
    }
}
