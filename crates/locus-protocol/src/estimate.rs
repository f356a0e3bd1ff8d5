//! How much of a run is left, by an estimate that finished units correct.

use std::collections::BTreeMap;

/// The estimate of a run, corrected by what its finished units have taken.
#[derive(Clone, Debug)]
pub struct Estimate {
    /// Seconds of each unit.
    units: BTreeMap<String, f64>,
}

impl Estimate {
    /// Share of the estimated work after which the time that was taken says more than the estimate.
    const TRUSTED: f64 = 0.05;

    /// Of units that are still to be done, with the estimated seconds of each.
    pub fn new(units: impl IntoIterator<Item = (String, f64)>) -> Self {
        Estimate { units: units.into_iter().collect() }
    }

    /// Seconds left when the units of which `is_done` says so have taken `elapsed` seconds in all.
    pub fn left(&self, is_done: impl Fn(&str) -> bool, elapsed: f64) -> f64 {
        let all: f64 = self.units.values().sum();
        let done = self.units.iter().filter(|(name, _)| is_done(name));
        let done: f64 = done.map(|(_, seconds)| seconds).sum();
        let correction = if done > Self::TRUSTED * all { elapsed / done } else { 1.0 };
        (correction * (all - done)).max(0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Units that took twice their estimate make the rest count twice; before any is done, the estimate stands.
    #[test]
    fn finished_units_correct_the_estimate() {
        let units = [("a", 10.0), ("b", 20.0), ("c", 30.0)];
        let estimate = Estimate::new(units.map(|(name, seconds)| (name.to_owned(), seconds)));
        assert_eq!(estimate.left(|_| false, 7.0), 60.0);
        assert_eq!(estimate.left(|unit| unit == "b", 40.0), 80.0);
        assert_eq!(estimate.left(|_| true, 99.0), 0.0);
    }
}
