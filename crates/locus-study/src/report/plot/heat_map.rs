//! Heat maps: a matrix of shares with the value printed in each cell.

use super::svg::{Anchor, Svg, shortened, text_width};

const SIZE: f64 = 12.0;
const LABEL_LIMIT: usize = 28;
const CELL_HEIGHT: f64 = 28.0;
/// Width of the matrix, in pixels, unless its cells would become too wide or too narrow for their values.
const WIDTH: f64 = 780.0;
const SLANT: f64 = 45.0;

/// Draws the matrix. A value of `max` has the full colour, `unit` says what a value is; `None` cells stay empty. Of a
/// symmetric matrix, which says everything twice, the half below the diagonal is drawn.
pub fn draw(rows: &[String], columns: &[String], values: &[Vec<Option<f64>>], max: f64, unit: &str) -> Svg {
    let widest =
        |labels: &[String]| labels.iter().map(|label| text_width(&short(label), SIZE)).fold(0.0, f64::max);
    let left = widest(rows) + 18.0;
    let cell = ((WIDTH - left - 30.0) / columns.len().max(1) as f64).clamp(36.0, 64.0);
    let slanted = widest(columns) > cell - 6.0;
    let reach = widest(columns) * SLANT.to_radians().sin();
    let top = if slanted { reach + 24.0 } else { 32.0 };
    // A slanted label over the last column leans out to the right of the matrix.
    let right = if slanted { (reach - cell / 2.0).max(0.0) + 16.0 } else { 16.0 };
    let (width, height) = (cell * columns.len() as f64, CELL_HEIGHT * rows.len() as f64);
    let key_width = 200.0 + text_width(unit, SIZE) + 60.0;
    let half = is_symmetric(rows, columns, values);
    let mut svg = Svg::new((left + width + right).max(left + key_width), top + height + 52.0);

    for (index, label) in columns.iter().enumerate() {
        let x = left + (index as f64 + 0.5) * cell;
        // The names of half a matrix stand along its diagonal.
        let y = if half { top + index as f64 * CELL_HEIGHT - 8.0 } else { top - 8.0 };
        if slanted {
            svg.turned_text((x + 3.0, y), -SLANT, Anchor::Start, "tick", &short(label));
        } else {
            svg.text((x, y), Anchor::Middle, "tick", &short(label));
        }
    }
    for (index, label) in rows.iter().enumerate() {
        let y = top + index as f64 * CELL_HEIGHT;
        svg.text((left - 8.0, y + CELL_HEIGHT / 2.0 + 4.0), Anchor::End, "tick", &short(label));
        let drawn = if half { index + 1 } else { columns.len() };
        for (column, value) in values[index].iter().enumerate().take(drawn) {
            let corner = (left + column as f64 * cell, y);
            let title = format!("{label}, {}", columns[column]);
            draw_cell(&mut svg, corner, (cell, CELL_HEIGHT), *value, max, &title);
        }
    }
    draw_key(&mut svg, (left, top + height + 20.0), max, unit);
    svg
}

fn is_symmetric(rows: &[String], columns: &[String], values: &[Vec<Option<f64>>]) -> bool {
    let mirrored = |i: usize| (0..i).all(|j| values[i][j] == values[j][i]);
    rows.len() > 1 && rows == columns && (0..rows.len()).all(mirrored)
}

fn draw_cell(svg: &mut Svg, corner: (f64, f64), size: (f64, f64), value: Option<f64>, max: f64, title: &str) {
    // Half a pixel on each side leaves a hairline between cells.
    let (inner, inner_size) = ((corner.0 + 0.5, corner.1 + 0.5), (size.0 - 1.0, size.1 - 1.0));
    let Some(value) = value else {
        svg.rect(inner, inner_size, "void", &format!("{title}: not measured"));
        return;
    };
    let share = share_of(value, max);
    svg.tinted_rect(inner, inner_size, share, "heat", &format!("{title}: {value:.4}"));
    // Ink must contrast with the tint, in both colour schemes: `figure.css` gives the three steps their colours.
    let step = match share {
        share if share > 0.66 => "high",
        share if share > 0.5 => "middle",
        _ => "low",
    };
    let at = (corner.0 + size.0 / 2.0, corner.1 + size.1 / 2.0 + 4.0);
    svg.text(at, Anchor::Middle, &format!("value {step}"), &label(value, max));
}

/// The scale below the matrix.
fn draw_key(svg: &mut Svg, corner: (f64, f64), max: f64, unit: &str) {
    const STEPS: usize = 20;
    let (x, y) = corner;
    let width = 140.0 / STEPS as f64;
    svg.text((x, y + 12.0), Anchor::Start, "tick", "0");
    for step in 0..STEPS {
        let share = (step as f64 + 0.5) / STEPS as f64;
        svg.tinted_rect((x + 14.0 + step as f64 * width, y), (width, 14.0), share, "heat", "");
    }
    svg.rect((x + 14.0, y), (140.0, 14.0), "frame", "");
    let end = label(max, max);
    svg.text((x + 162.0, y + 12.0), Anchor::Start, "tick", &end);
    svg.text((x + 176.0 + text_width(&end, SIZE), y + 12.0), Anchor::Start, "label", unit);
}

fn short(label: &str) -> String {
    shortened(label, LABEL_LIMIT)
}

fn share_of(value: f64, max: f64) -> f64 {
    if max > 0.0 { (value / max).clamp(0.0, 1.0) } else { 0.0 }
}

/// A value with two decimals, or three where two would hardly show a difference.
fn label(value: f64, max: f64) -> String {
    let decimals = if max < 0.2 { 3 } else { 2 };
    let text = format!("{value:.decimals$}");
    if text.trim_start_matches('-').chars().all(|digit| matches!(digit, '0' | '.')) {
        text.trim_start_matches('-').to_owned()
    } else {
        text.replace('-', "−")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_is_printed_and_empty_cells_are_not() {
        let names = ["a".to_owned(), "b".to_owned()];
        let svg = draw(&names, &names, &[vec![Some(0.5), None], vec![Some(-0.001), Some(7.0)]], 1.0, "share")
            .inline("");
        for text in
            [">0.50</text>", ">0.00</text>", ">7.00</text>", "a, b: not measured", "fill-opacity=\"1\""]
        {
            assert!(svg.contains(text), "{text} in {svg}");
        }
        assert_eq!(svg.matches("class=\"centred value").count(), 3);
    }

    #[test]
    fn a_symmetric_matrix_is_drawn_once() {
        let names = ["a", "b", "c"].map(str::to_owned);
        let mut values = vec![vec![None, Some(0.25), Some(0.5)], vec![Some(0.25), None, Some(0.75)]];
        values.push(vec![Some(0.5), Some(0.75), None]);
        let count = |values: &[Vec<Option<f64>>]| {
            draw(&names, &names, values, 1.0, "share").inline("").matches("class=\"centred value").count()
        };
        assert_eq!(count(&values), 3);
        values[0][2] = Some(0.6);
        assert_eq!(count(&values), 6);
    }

    #[test]
    fn a_map_without_cells_is_still_a_drawing() {
        assert!(draw(&[], &[], &[], 0.0, "share").inline("").ends_with("</svg>\n"));
    }
}
