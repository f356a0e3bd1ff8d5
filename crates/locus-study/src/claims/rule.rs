//! The rule that decides every verdict.

use locus_metrics::Interval;

use crate::results::Verdict;

/// Significance level of every test.
pub(super) const ALPHA: f64 = 0.05;

/// The verdict on an effect: supported when the test rejects and the whole interval lies within the claimed range; not
/// supported when the test rejects and the whole interval lies outside of it, on one side; otherwise undecided.
///
/// The test is of "no effect". Because either verdict needs a rejection, runs with few requests or tasks, whose
/// bootstrap intervals are too narrow, do not decide anything.
pub(super) fn verdict(effect: &Interval, p_value: f64, claimed: (f64, f64)) -> Verdict {
    let (from, to) = claimed;
    if p_value >= ALPHA {
        Verdict::Undecided
    } else if effect.low > from && effect.high < to {
        Verdict::Supported
    } else if effect.high < from || effect.low > to {
        Verdict::NotSupported
    } else {
        Verdict::Undecided
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ABOVE_ZERO: (f64, f64) = (0.0, f64::INFINITY);
    const MODERATE: (f64, f64) = (0.0, 0.5);

    #[test]
    fn interval_and_test_decide_together() {
        for (low, high, p, claimed, expected) in [
            (0.1, 0.3, 0.01, ABOVE_ZERO, Verdict::Supported),
            (-0.3, -0.1, 0.01, ABOVE_ZERO, Verdict::NotSupported),
            (-0.1, 0.3, 0.01, ABOVE_ZERO, Verdict::Undecided),
            (0.1, 0.3, 0.05, ABOVE_ZERO, Verdict::Undecided),
            (-0.3, -0.1, 0.2, ABOVE_ZERO, Verdict::Undecided),
            (0.0, 0.0, 1.0, ABOVE_ZERO, Verdict::Undecided),
            (0.1, 0.3, 0.01, MODERATE, Verdict::Supported),
            (0.6, 0.7, 0.01, MODERATE, Verdict::NotSupported),
            (0.4, 0.6, 0.01, MODERATE, Verdict::Undecided),
        ] {
            let effect = Interval { value: (low + high) / 2.0, low, high };
            assert_eq!(verdict(&effect, p, claimed), expected, "{low}..{high}, p = {p}, {claimed:?}");
        }
    }

    #[test]
    fn what_is_not_a_number_decides_nothing() {
        let effect = Interval { value: f64::NAN, low: f64::NAN, high: f64::NAN };
        assert_eq!(verdict(&effect, 0.0, ABOVE_ZERO), Verdict::Undecided);
    }
}
