//! Numbers as text, for Markdown and HTML alike. CSV has raw values instead.

use crate::results::{Cell, Claim, Style};

/// Text of an empty cell.
pub const NOTHING: &str = "–";

/// A cell as text, without markup.
pub fn text(cell: &Cell) -> String {
    match parts(cell) {
        (main, None) => main,
        (main, Some(range)) => format!("{main} {range}"),
    }
}

/// A cell as text, with the interval separate.
pub fn parts(cell: &Cell) -> (String, Option<String>) {
    match cell {
        Cell::Count(count) => (grouped(*count), None),
        Cell::Number { value, style } => (number(*value, *style), None),
        Cell::Estimate { value, low, high, style } => {
            let range = format!("[{}, {}]", digits(*low, *style), digits(*high, *style));
            (number(*value, *style), Some(range))
        }
        Cell::Text(text) => (text.clone(), None),
        Cell::Empty(()) => (NOTHING.to_owned(), None),
    }
}

/// Whether column `index` has numbers and no words; such columns are aligned to the right.
pub fn is_numeric(rows: &[Vec<Cell>], index: usize) -> bool {
    let mut cells = rows.iter().map(|row| &row[index]);
    cells.clone().any(|cell| !matches!(cell, Cell::Text(_) | Cell::Empty(())))
        && cells.all(|cell| !matches!(cell, Cell::Text(_)))
}

/// A number in its style, with a true minus sign.
pub fn number(value: f64, style: Style) -> String {
    let unit = if style == Style::Percent { " %" } else { "" };
    digits(value, style) + unit
}

/// A number in its style without the percent sign, which an estimate prints once, before its interval.
fn digits(value: f64, style: Style) -> String {
    match style {
        Style::Percent => fixed(100.0 * value, 2),
        Style::Fixed3 => fixed(value, 3),
        Style::Significant3 => significant(value),
    }
}

/// The effect of a claim with its interval and unit. All three numbers have the same number of decimals, which depends
/// on the width of the interval.
pub fn effect(claim: &Claim) -> String {
    if claim.n == 0 {
        return NOTHING.to_owned();
    }
    let Claim { effect, low, high, unit, .. } = claim;
    let width = high - low;
    // With too many decimals, or without a width, plain decimals would not be readable.
    let decimals = 1.0 - width.log10().floor();
    let print = |value: f64| {
        if width > 0.0 && decimals <= 6.0 {
            fixed(value, decimals.max(0.0) as usize)
        } else {
            significant(value)
        }
    };
    format!("{} [{}, {}] {unit}", print(*effect), print(*low), print(*high)).trim_end().to_owned()
}

/// A p-value.
pub fn p_value(claim: &Claim) -> String {
    if claim.n == 0 {
        return NOTHING.to_owned();
    }
    number(claim.p_value, Style::Significant3)
}

/// A count with its digits in groups of three.
pub fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn fixed(value: f64, decimals: usize) -> String {
    let text = format!("{value:.decimals$}");
    // A number that rounds to zero has no sign.
    let unsigned = text.trim_start_matches('-');
    if unsigned.chars().all(|digit| matches!(digit, '0' | '.')) { unsigned.to_owned() } else { signed(&text) }
}

fn significant(value: f64) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    let scientific = format!("{value:.2e}");
    // The exponent after rounding: 0.0009999 is 0.00100, not 1.00e-3.
    let exponent: i32 = scientific.split('e').nth(1).and_then(|text| text.parse().ok()).unwrap_or(0);
    if (-3..6).contains(&exponent) {
        fixed(value, (2 - exponent).max(0) as usize)
    } else {
        signed(&scientific)
    }
}

/// Number text with true minus signs.
pub fn signed(text: &str) -> String {
    text.replace('-', "−")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn styles_print_what_they_promise() {
        assert_eq!(number(0.0512, Style::Percent), "5.12 %");
        assert_eq!(number(-0.00001, Style::Percent), "0.00 %");
        assert_eq!(number(-1.23456, Style::Fixed3), "−1.235");
        let significant = |value| number(value, Style::Significant3);
        assert_eq!(significant(0.0), "0");
        assert_eq!(significant(0.12345), "0.123");
        assert_eq!(significant(0.001), "0.00100");
        assert_eq!(significant(0.0009999), "0.00100");
        assert_eq!(significant(0.000999), "9.99e−4");
        assert_eq!(significant(9.999), "10.0");
        assert_eq!(significant(1234.5), "1234");
        assert_eq!(significant(-2e-17), "−2.00e−17");
        assert_eq!(significant(1.5e9), "1.50e9");
    }

    #[test]
    fn counts_are_grouped_by_three() {
        assert_eq!([0, 999, 1000, 124_439_808].map(grouped), ["0", "999", "1,000", "124,439,808"]);
    }

    #[test]
    fn estimates_carry_their_interval() {
        let cell = Cell::Estimate { value: 0.5, low: 0.25, high: 0.75, style: Style::Percent };
        assert_eq!(text(&cell), "50.00 % [25.00, 75.00]");
        assert_eq!(text(&Cell::Empty(())), NOTHING);
    }

    #[test]
    fn effects_share_their_decimals() {
        let mut claim = crate::report::fabricated::results().claims.remove(0);
        (claim.effect, claim.low, claim.high, claim.unit) = (0.31234, 0.2812, 0.3401, "nats".to_owned());
        assert_eq!(effect(&claim), "0.312 [0.281, 0.340] nats");
        (claim.effect, claim.low, claim.high) = (-45.2, -51.7, -39.1);
        assert_eq!(effect(&claim), "−45 [−52, −39] nats");
        (claim.effect, claim.low, claim.high, claim.unit) = (0.5, 0.5, 0.5, String::new());
        assert_eq!(effect(&claim), "0.500 [0.500, 0.500]");
    }
}
