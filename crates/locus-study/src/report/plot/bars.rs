//! Groups of bars with 95 % intervals.

use super::axis::{Area, Axis, TICK_SIZE};
use super::legend::{Legend, Sample, fill};
use super::svg::{Anchor, Svg, shortened, text_width};
use crate::results::BarSeries;

const WIDTH: f64 = 800.0;
const PLOT_HEIGHT: f64 = 300.0;
const SLANT: f64 = 40.0;
/// Smallest width of a bar, in pixels: thinner ones would hide behind their whiskers, so the drawing grows wider
/// instead.
const THINNEST: f64 = 7.0;

/// Draws `series` side by side within each of `groups`.
pub fn draw(groups: &[String], series: &[BarSeries], y_label: &str) -> Svg {
    let values = series.iter().flat_map(|one| &one.values).copied();
    let ends = series.iter().flat_map(|one| &one.intervals).flat_map(|&(low, high)| [low, high]);
    let axis = Axis::linear(values.chain(ends), true);

    let labels: Vec<String> = groups.iter().map(|group| shortened(group, 26)).collect();
    let widest = labels.iter().map(|label| text_width(label, TICK_SIZE)).fold(0.0, f64::max);
    let count = groups.len().max(1) as f64;
    let per_bar = THINNEST * series.len().max(1) as f64 / 0.76;
    let left = axis.label_width() + 44.0;
    let slot = ((WIDTH - left - 16.0) / count).max(per_bar);
    let slanted = widest > slot - 8.0;
    let (sine, cosine) = SLANT.to_radians().sin_cos();
    // A slanted label under the first group leans out to the left of the axis.
    let left = if slanted { left.max(widest * cosine - slot / 2.0 + 14.0) } else { left };
    let slot = ((WIDTH - left - 16.0) / count).max(per_bar);
    let right = left + slot * count;
    let foot = if slanted { widest * sine + 28.0 } else { 34.0 };

    let legend = Legend::new(series.iter().map(|one| one.name.as_str()), right - left);
    let top = legend.height() + 18.0;
    let area = Area { left, right, top, bottom: top + PLOT_HEIGHT };
    let mut svg = Svg::new(right + 16.0, area.bottom + foot);
    legend.draw(&mut svg, (left, 6.0), Sample::Bar);
    axis.draw_y(&mut svg, area, y_label);

    let bar = slot * 0.76 / series.len().max(1) as f64;
    // With few groups, bars must not become too wide.
    let bar = bar.min(56.0);
    for (index, label) in labels.iter().enumerate() {
        let centre = left + (index as f64 + 0.5) * slot;
        let start = centre - bar * series.len() as f64 / 2.0;
        for (number, one) in series.iter().enumerate() {
            let Some(&value) = one.values.get(index) else { continue };
            let interval = one.intervals.get(index).copied();
            let x = start + number as f64 * bar;
            draw_bar(
                &mut svg,
                &axis,
                area,
                (x, bar),
                value,
                interval,
                number,
                &format!("{}, {}", groups[index], one.name),
            );
        }
        if slanted {
            svg.turned_text((centre + 4.0, area.bottom + 16.0), -SLANT, Anchor::End, "tick", label);
        } else {
            svg.text((centre, area.bottom + 20.0), Anchor::Middle, "tick", label);
        }
    }
    svg
}

fn draw_bar(
    svg: &mut Svg,
    axis: &Axis,
    area: Area,
    (x, width): (f64, f64),
    value: f64,
    interval: Option<(f64, f64)>,
    series: usize,
    name: &str,
) {
    let (zero, end) = (axis.y(0.0, area), axis.y(value, area));
    let range = interval.map_or(String::new(), |(low, high)| format!(" [{low:.4}, {high:.4}]"));
    let title = format!("{name}: {value:.4}{range}");
    svg.rect((x + 0.5, zero.min(end)), (width - 1.0, (zero - end).abs()), &fill(series), &title);
    if let Some((low, high)) = interval {
        let (middle, low, high) = (x + width / 2.0, axis.y(low, area), axis.y(high, area));
        let cap = (width / 4.0).min(5.0);
        svg.line((middle, low), (middle, high), "whisker");
        for y in [low, high] {
            svg.line((middle - cap, y), (middle + cap, y), "whisker");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(values: &[f64], intervals: &[(f64, f64)]) -> BarSeries {
        BarSeries { name: "s".to_owned(), values: values.to_vec(), intervals: intervals.to_vec() }
    }

    #[test]
    fn bars_begin_at_zero_on_both_sides() {
        let groups = ["up".to_owned(), "down".to_owned()];
        let svg = draw(&groups, &[series(&[1.0, -1.0], &[])], "change").inline("");
        let bars: Vec<&str> = svg.lines().filter(|line| line.contains("<title>")).collect();
        let number = |line: &str, name: &str| -> f64 {
            let rest = &line[line.find(&format!(" {name}=\"")).unwrap() + name.len() + 3..];
            rest[..rest.find('"').unwrap()].parse().unwrap()
        };
        assert_eq!(bars.len(), 2);
        let zero = number(bars[1], "y");
        assert!((number(bars[0], "y") + number(bars[0], "height") - zero).abs() < 0.02);
        assert!((number(bars[0], "height") - number(bars[1], "height")).abs() < 0.02);
    }

    #[test]
    fn each_interval_gets_a_whisker_with_two_caps() {
        let svg = draw(&["a".to_owned()], &[series(&[1.0], &[(0.8, 1.3)])], "y").inline("");
        assert_eq!(svg.matches("class=\"whisker\"").count(), 3);
    }

    #[test]
    fn nothing_to_draw_is_still_a_drawing() {
        assert!(draw(&[], &[], "y").inline("").ends_with("</svg>\n"));
    }
}
