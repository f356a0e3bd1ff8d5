//! Legends: one entry per series, wrapped into rows above the drawing.

use super::svg::{Anchor, Svg, shortened, text_width};

/// Height of one row of entries, in pixels.
pub const ROW: f64 = 22.0;
const SIZE: f64 = 12.0;
const SWATCH: f64 = 26.0;
const GAP: f64 = 18.0;
/// Number of colours in `figure.css`; further series start again with the first colour and another mark.
const COLOURS: usize = 7;

/// Sample of a series in the legend, which looks as the series is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sample {
    /// A filled square.
    Bar,
    /// A line with the mark of the series.
    Line,
    /// A filled circle.
    Dot,
}

/// A legend: entries with their places, an offset in x and the number of the row.
#[derive(Clone, Debug)]
pub struct Legend {
    entries: Vec<(String, f64, usize)>,
}

impl Legend {
    /// Places `names` in rows of at most `width` pixels.
    pub fn new<'a>(names: impl Iterator<Item = &'a str>, width: f64) -> Self {
        let (mut x, mut row) = (0.0, 0);
        let mut entries = Vec::new();
        for name in names {
            let name = shortened(name, 60);
            let needed = SWATCH + text_width(&name, SIZE);
            if x > 0.0 && x + needed > width {
                (x, row) = (0.0, row + 1);
            }
            entries.push((name, x, row));
            x += needed + GAP;
        }
        Self { entries }
    }

    /// Height of all rows.
    pub fn height(&self) -> f64 {
        self.entries.last().map_or(0.0, |entry| (entry.2 + 1) as f64 * ROW)
    }

    /// Draws the entries; entry `i` gets the colour of series `i`.
    pub fn draw(&self, svg: &mut Svg, corner: (f64, f64), sample: Sample) {
        for (index, (name, x, row)) in self.entries.iter().enumerate() {
            let (x, y) = (corner.0 + x, corner.1 + *row as f64 * ROW + ROW / 2.0);
            match sample {
                Sample::Bar => svg.rect((x + 6.0, y - 6.0), (12.0, 12.0), &fill(index), ""),
                Sample::Dot => svg.circle((x + 12.0, y), 5.0, &fill(index), ""),
                Sample::Line => {
                    svg.line((x, y), (x + 22.0, y), &stroke(index));
                    mark(svg, (x + 11.0, y), index, "");
                }
            }
            svg.text((x + SWATCH, y + 4.0), Anchor::Start, "tick", name);
        }
    }
}

/// Class that fills with the colour of series `index`.
pub fn fill(index: usize) -> String {
    format!("f{}", index % COLOURS)
}

/// Class that strokes with the colour of series `index`.
pub fn stroke(index: usize) -> String {
    format!("k{}", index % COLOURS)
}

/// The mark of series `index`: shapes differ as well as colours, so that lines can be distinguished in grey.
pub fn mark(svg: &mut Svg, centre: (f64, f64), index: usize, title: &str) {
    let (x, y) = centre;
    let class = fill(index);
    // Sizes chosen for equal visual weight. Five shapes with seven colours repeat only after 35 series.
    match index % 5 {
        0 => svg.circle(centre, 4.2, &class, title),
        1 => svg.rect((x - 3.8, y - 3.8), (7.6, 7.6), &class, title),
        2 => svg.path(&[(x, y - 5.2), (x + 5.0, y + 3.6), (x - 5.0, y + 3.6)], true, &class, title),
        3 => svg.path(&[(x, y - 5.4), (x + 5.4, y), (x, y + 5.4), (x - 5.4, y)], true, &class, title),
        _ => svg.path(&[(x, y + 5.2), (x + 5.0, y - 3.6), (x - 5.0, y - 3.6)], true, &class, title),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_wrap_before_they_overflow() {
        let names = ["circuit alone", "complement", "full model", "random mask of equal density"];
        let legend = Legend::new(names.into_iter(), 300.0);
        assert!(legend.height() > ROW);
        for (name, x, _) in &legend.entries {
            assert!(x + SWATCH + text_width(name, SIZE) <= 300.0, "{name}");
        }
        assert_eq!(Legend::new(std::iter::empty(), 300.0).height(), 0.0);
    }
}
