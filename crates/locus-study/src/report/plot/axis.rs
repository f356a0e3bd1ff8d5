//! Axes: nice ticks on linear and logarithmic scales, and the parts that all charts with axes share.

use super::svg::{Anchor, Svg, text_width};
use crate::report::cell::signed;

/// Size of tick labels, in pixels; `figure.css` says the same.
pub const TICK_SIZE: f64 = 12.0;

/// The rectangle that data are drawn in, in pixels.
#[derive(Clone, Copy, Debug)]
pub struct Area {
    /// Left edge.
    pub left: f64,
    /// Right edge.
    pub right: f64,
    /// Upper edge.
    pub top: f64,
    /// Lower edge.
    pub bottom: f64,
}

/// A scale from data to pixels with its ticks. The ticks of a linear scale include both of its ends.
#[derive(Clone, Debug)]
pub struct Axis {
    low: f64,
    high: f64,
    log: bool,
    /// Ticks, ascending: value and label.
    pub ticks: Vec<(f64, String)>,
}

impl Axis {
    /// A linear scale around `values`, which begins at zero where that takes little room or bars need it (`from_zero`).
    pub fn linear(values: impl Iterator<Item = f64>, from_zero: bool) -> Self {
        let (mut low, mut high) = range(values).unwrap_or((0.0, 1.0));
        if from_zero || (low > 0.0 && low < 0.6 * high) {
            low = low.min(0.0);
            high = high.max(0.0);
        }
        if high - low <= 1e-12 * high.abs().max(low.abs()) {
            let margin = if high == 0.0 { 1.0 } else { 0.1 * high.abs() };
            (low, high) = if from_zero { (low, high + margin) } else { (low - margin, high + margin) };
        }
        let ticks = nice_ticks(low, high, 6);
        let (low, high) = (ticks[0].0, ticks[ticks.len() - 1].0);
        Self { low, high, log: false, ticks }
    }

    /// A linear scale around `values`, with ticks at whole numbers alone where all of them are whole: nothing lies between
    /// two layers.
    pub fn whole_or_linear(values: impl Iterator<Item = f64>) -> Self {
        let values: Vec<f64> = values.collect();
        let mut axis = Self::linear(values.iter().copied(), false);
        if values.iter().all(|value| value.fract() == 0.0) {
            axis.ticks.retain(|(value, _)| value.fract() == 0.0);
            for (_, label) in &mut axis.ticks {
                if let Some(whole) = label.strip_suffix(".0") {
                    *label = whole.to_owned();
                }
            }
        }
        axis
    }

    /// A logarithmic scale around the positive `values`, with a margin of 8 % at both ends.
    pub fn logarithmic(values: impl Iterator<Item = f64>) -> Self {
        let (low, high) = range(values.filter(|&value| value > 0.0)).unwrap_or((0.1, 1.0));
        let margin = if low == high { 0.5 } else { 0.08 * (high / low).ln() };
        let (low, high) = (low * (-margin).exp(), high * margin.exp());
        Self { low, high, log: true, ticks: log_ticks(low, high) }
    }

    /// Position of `value` on a line of pixels from `start` (low end) to `end`.
    pub fn place(&self, value: f64, start: f64, end: f64) -> f64 {
        let share = if self.log {
            (value / self.low).ln() / (self.high / self.low).ln()
        } else {
            (value - self.low) / (self.high - self.low)
        };
        start + share * (end - start)
    }

    /// Height of `value` in `area`.
    pub fn y(&self, value: f64, area: Area) -> f64 {
        self.place(value, area.bottom, area.top)
    }

    /// Horizontal position of `value` in `area`.
    pub fn x(&self, value: f64, area: Area) -> f64 {
        self.place(value, area.left, area.right)
    }

    /// Whether the scale can show `value`.
    pub fn shows(&self, value: f64) -> bool {
        value.is_finite() && (!self.log || value > 0.0)
    }

    /// Width of the widest tick label.
    pub fn label_width(&self) -> f64 {
        self.ticks.iter().map(|(_, label)| text_width(label, TICK_SIZE)).fold(0.0, f64::max)
    }

    /// Draws grid lines, tick labels and the label of a vertical axis at the left of `area`.
    pub fn draw_y(&self, svg: &mut Svg, area: Area, label: &str) {
        for (value, text) in &self.ticks {
            let y = self.y(*value, area);
            svg.line(
                (area.left, y),
                (area.right, y),
                if *value == 0.0 && !self.log { "zero" } else { "grid" },
            );
            svg.text((area.left - 8.0, y + 4.0), Anchor::End, "tick", &signed(text));
        }
        let middle = (area.top + area.bottom) / 2.0;
        svg.turned_text((18.0, middle), -90.0, Anchor::Middle, "label", label);
    }

    /// Draws grid lines, tick labels and the label of a horizontal axis below `area`.
    pub fn draw_x(&self, svg: &mut Svg, area: Area, label: &str) {
        let mut free_from = f64::NEG_INFINITY;
        for (value, text) in &self.ticks {
            let x = self.x(*value, area);
            svg.line(
                (x, area.top),
                (x, area.bottom),
                if *value == 0.0 && !self.log { "zero" } else { "grid" },
            );
            let half = text_width(text, TICK_SIZE) / 2.0;
            if x - half >= free_from {
                svg.text((x, area.bottom + 18.0), Anchor::Middle, "tick", &signed(text));
                free_from = x + half + 4.0;
            }
        }
        let middle = (area.left + area.right) / 2.0;
        svg.text((middle, area.bottom + 40.0), Anchor::Middle, "label", label);
    }
}

/// Smallest and largest of the finite values.
fn range(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    values.filter(|value| value.is_finite()).fold(None, |range, value| {
        let (low, high) = range.unwrap_or((value, value));
        Some((low.min(value), high.max(value)))
    })
}

/// About `count` multiples of 1, 2 or 5 times a power of ten, from the last at or below `low` to the first at or above
/// `high`.
pub fn nice_ticks(low: f64, high: f64, count: usize) -> Vec<(f64, String)> {
    let rough = (high - low) / count.max(1) as f64;
    let mut exponent = rough.log10().floor() as i32;
    let mut mantissa = 10.0;
    for candidate in [1.0, 2.0, 5.0] {
        if candidate * power_of_ten(exponent) >= rough * (1.0 - 1e-9) {
            mantissa = candidate;
            break;
        }
    }
    if mantissa == 10.0 {
        (mantissa, exponent) = (1.0, exponent + 1);
    }
    let step = mantissa * power_of_ten(exponent);
    // Rounding must not add an empty interval beyond a value that lies on a tick.
    let (first, last) = ((low / step + 1e-9).floor() as i64, (high / step - 1e-9).ceil() as i64);
    (first..=last)
        .map(|index| {
            // Division by a power of ten gives the double nearest to the decimal, multiplication by 0.1 does not.
            let scaled = index as f64 * mantissa;
            let value =
                if exponent < 0 { scaled / power_of_ten(-exponent) } else { scaled * power_of_ten(exponent) };
            (value, tick_label(value, exponent))
        })
        .collect()
}

/// Ticks at 1, 2 and 5 times powers of ten within [`low`, `high`]; powers of ten alone where that makes more than ten.
fn log_ticks(low: f64, high: f64) -> Vec<(f64, String)> {
    let (first, last) = (low.log10().floor() as i32, high.log10().ceil() as i32);
    let ticks = |mantissas: &[f64]| -> Vec<(f64, String)> {
        (first..=last)
            .flat_map(|exponent| mantissas.iter().map(move |mantissa| (*mantissa, exponent)))
            .map(|(mantissa, exponent)| {
                let power = power_of_ten(exponent.abs());
                let value = if exponent < 0 { mantissa / power } else { mantissa * power };
                (value, tick_label(value, exponent))
            })
            .filter(|(value, _)| (low..=high).contains(value))
            .collect()
    };
    let fine = ticks(&[1.0, 2.0, 5.0]);
    match fine.len() {
        // A range this short is nearly linear.
        0..=2 => {
            nice_ticks(low, high, 6).into_iter().filter(|(value, _)| (low..=high).contains(value)).collect()
        }
        3..=10 => fine,
        _ => ticks(&[1.0]),
    }
}

/// A tick's label, with the fewest decimals that distinguish multiples of `10^exponent`; scientific where plain digits
/// would not be readable.
fn tick_label(value: f64, exponent: i32) -> String {
    if value == 0.0 {
        "0".to_owned()
    } else if exponent < -4 || value.abs() >= 1e6 {
        format!("{value:e}")
    } else if exponent < 0 {
        let decimals = exponent.unsigned_abs() as usize;
        format!("{value:.decimals$}")
    } else {
        format!("{value}")
    }
}

fn power_of_ten(exponent: i32) -> f64 {
    10f64.powi(exponent)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn ticks_cover_the_range_tightly_and_evenly(low in -1e6..1e6f64, log_width in -6.0..6.0f64, count in 3..10usize) {
            // Narrower than that relative to its distance from zero, the range itself is lost to rounding.
            let width = 10f64.powf(log_width).max(1e-4 * low.abs());
            let high = low + width;
            let ticks = nice_ticks(low, high, count);
            let values: Vec<f64> = ticks.iter().map(|tick| tick.0).collect();
            prop_assert!(values.len() >= 2 && values.len() <= count + 3, "{values:?}");
            let step = (values[values.len() - 1] - values[0]) / (values.len() - 1) as f64;
            let slack = 1e-6 * step;
            prop_assert!(values[0] <= low + slack && values[values.len() - 1] >= high - slack);
            prop_assert!(values[1] > low - slack && values[values.len() - 2] < high + slack, "an empty interval at an end");
            for pair in values.windows(2) {
                prop_assert!((pair[1] - pair[0] - step).abs() < slack);
            }
            let mantissa = step / 10f64.powf(step.log10().floor());
            prop_assert!([1.0, 2.0, 5.0, 10.0].iter().any(|nice| (mantissa / nice - 1.0).abs() < 1e-4), "step {step}");
        }

        #[test]
        fn tick_labels_say_the_value(low in -100.0..100.0f64, log_width in -3.0..4.0f64) {
            for (value, label) in nice_ticks(low, low + 10f64.powf(log_width), 6) {
                prop_assert_eq!(label.parse::<f64>().unwrap(), value);
            }
        }

        #[test]
        fn log_axes_show_their_values_between_their_ends(exponents in prop::collection::vec(-5.0..4.0f64, 1..20)) {
            let values: Vec<f64> = exponents.iter().map(|exponent| 10f64.powf(*exponent)).collect();
            let axis = Axis::logarithmic(values.iter().copied());
            prop_assert!(!axis.ticks.is_empty() && axis.ticks.len() <= 12, "{:?}", axis.ticks);
            for value in values {
                prop_assert!((0.0..=1.0).contains(&axis.place(value, 0.0, 1.0)));
            }
            for (value, label) in &axis.ticks {
                prop_assert_eq!(label.parse::<f64>().unwrap(), *value);
            }
        }

        #[test]
        fn linear_axes_keep_order_and_stay_inside(values in prop::collection::vec(-1e3..1e3f64, 0..20), from_zero: bool) {
            let axis = Axis::linear(values.iter().copied(), from_zero);
            for value in &values {
                prop_assert!((-1e-9..=1.0 + 1e-9).contains(&axis.place(*value, 0.0, 1.0)));
            }
            if from_zero {
                prop_assert!(axis.ticks.iter().any(|tick| tick.0 == 0.0));
            }
        }
    }

    #[test]
    fn familiar_ranges_get_familiar_ticks() {
        let labels = |axis: Axis| axis.ticks.into_iter().map(|tick| tick.1).collect::<Vec<_>>();
        assert_eq!(
            labels(Axis::linear([0.05, 0.97].into_iter(), false)),
            ["0", "0.2", "0.4", "0.6", "0.8", "1.0"]
        );
        assert_eq!(labels(Axis::whole_or_linear([0.0, 1.0, 2.0, 3.0].into_iter())), ["0", "1", "2", "3"]);
        assert_eq!(
            labels(Axis::whole_or_linear([0.0, 1.5].into_iter())),
            labels(Axis::linear([0.0, 1.5].into_iter(), false))
        );
        assert_eq!(labels(Axis::logarithmic([0.05, 0.5].into_iter())), ["0.05", "0.1", "0.2", "0.5"]);
        assert_eq!(labels(Axis::linear(std::iter::empty(), true)), ["0", "0.2", "0.4", "0.6", "0.8", "1.0"]);
        assert_eq!(labels(Axis::linear([7.0].into_iter(), false)).first().unwrap(), "6.0");
    }
}
