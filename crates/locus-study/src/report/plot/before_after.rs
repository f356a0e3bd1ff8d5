//! Before/after drawings: a hollow mark before, a filled mark after, joined by a line.

use super::axis::{Area, Axis, TICK_SIZE};
use super::legend::{Legend, Sample, fill, stroke};
use super::svg::{Anchor, Svg, shortened, text_width};
use crate::results::BeforeAfter;

const WIDTH: f64 = 800.0;
const ROW: f64 = 20.0;
const RADIUS: f64 = 4.5;

/// Draws one row per entry. Neighbouring entries with the same label form a block that is labelled once.
pub fn draw(x_label: &str, entries: &[BeforeAfter]) -> Svg {
    let axis = Axis::linear(entries.iter().flat_map(|entry| [entry.before, entry.after]), false);
    let names = series_names(entries);
    let labels = entries.iter().map(|entry| text_width(&short(&entry.label), TICK_SIZE));
    let left = labels.fold(0.0, f64::max) + 24.0;
    let right = WIDTH - 28.0;
    let legend = Legend::new(names.iter().copied(), right - left);
    // One more row, for the key of hollow and filled marks.
    let top = legend.height() + 34.0;
    let area = Area { left, right, top, bottom: top + ROW * entries.len() as f64 + 8.0 };
    let mut svg = Svg::new(WIDTH, area.bottom + 54.0);
    legend.draw(&mut svg, (left, 6.0), Sample::Dot);
    draw_key(&mut svg, (left, top - 16.0));

    let mut first = 0;
    for (number, block) in entries.chunk_by(|a, b| a.label == b.label).enumerate() {
        let (y, height) = (top + 4.0 + ROW * first as f64, ROW * block.len() as f64);
        if number % 2 == 0 {
            svg.rect((0.0, y), (right, height), "stripe", "");
        }
        svg.text((left - 12.0, y + height / 2.0 + 4.0), Anchor::End, "tick", &short(&block[0].label));
        first += block.len();
    }
    axis.draw_x(&mut svg, area, x_label);
    for (row, entry) in entries.iter().enumerate() {
        let y = top + 4.0 + ROW * (row as f64 + 0.5);
        let (before, after) = (axis.x(entry.before, area), axis.x(entry.after, area));
        let series = names.iter().position(|name| *name == entry.series).unwrap_or(0);
        let title = format!(
            "{}, {}: {:.4} before, {:.4} after",
            entry.label, entry.series, entry.before, entry.after
        );
        svg.line((before, y), (after, y), &stroke(series));
        svg.circle((before, y), RADIUS, &format!("{} hollow", stroke(series)), &title);
        svg.circle((after, y), RADIUS, &fill(series), &title);
    }
    svg
}

/// Draws the key of hollow and filled marks, in grey because it applies to every quantity.
fn draw_key(svg: &mut Svg, (x, y): (f64, f64)) {
    svg.circle((x + 12.0, y), RADIUS, "k6 hollow", "");
    svg.text((x + 26.0, y + 4.0), Anchor::Start, "faint", "before");
    svg.circle((x + 92.0, y), RADIUS, "f6", "");
    svg.text((x + 106.0, y + 4.0), Anchor::Start, "faint", "after");
}

/// Names of the quantities, in order of first appearance.
fn series_names(entries: &[BeforeAfter]) -> Vec<&str> {
    let mut names = Vec::new();
    for entry in entries {
        if !names.contains(&entry.series.as_str()) {
            names.push(entry.series.as_str());
        }
    }
    names
}

fn short(label: &str) -> String {
    shortened(label, 32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(label: &str, series: &str, before: f64, after: f64) -> BeforeAfter {
        BeforeAfter { label: label.to_owned(), series: series.to_owned(), before, after }
    }

    #[test]
    fn a_block_is_labelled_once_and_each_quantity_has_its_colour() {
        let entries =
            [entry("row", "new", 3.0, 1.0), entry("row", "true", 1.0, 2.0), entry("next", "new", 2.0, 2.0)];
        let svg = draw("NLL", &entries).inline("");
        assert_eq!(svg.matches(">row</text>").count(), 1);
        assert_eq!(svg.matches("class=\"k0 hollow\"").count(), 2);
        assert_eq!(svg.matches("class=\"k1 hollow\"").count(), 1);
    }

    #[test]
    fn nothing_to_draw_is_still_a_drawing() {
        assert!(draw("x", &[]).inline("").ends_with("</svg>\n"));
    }
}
