//! The hypergeometric distribution: how many elements two independent random subsets share.
//!
//! Of a population of `N`, one subset has `a` elements and the other `b`. The number `X` that they share has
//!
//! ```text
//! P(X = k) = C(a, k) C(N - a, b - k) / C(N, b),     max(0, a + b - N) <= k <= min(a, b)
//! P(X = k + 1) / P(X = k) = (a - k) (b - k) / ((k + 1) (N - a - b + k + 1))
//! ```
//!
//! Probabilities are built from the mode outwards by the second line and scaled to sum to 1, which needs no factorial
//! and loses no digit of a small tail. They end where they are 1e-300 of the mode's.

use crate::bootstrap::COVERAGE;

/// Weight, as a share of the mode's, below which the distribution is cut off.
const NEGLIGIBLE: f64 = 1e-300;

/// Distribution of the number of elements that two independent random subsets share.
///
/// ```
/// use locus_metrics::hypergeometric::Hypergeometric;
///
/// // Two circuits of 3 of 10 edges: P(X = 0) = C(7, 3) / C(10, 3).
/// let shared = Hypergeometric::new(3, 3, 10).expect("subsets fit");
/// assert!((shared.at_least(1) - (1.0 - 35.0 / 120.0)).abs() < 1e-15);
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Hypergeometric {
    /// Value of the first probability.
    first: usize,
    /// Probabilities of `first`, `first + 1`, ...
    probabilities: Vec<f64>,
}

impl Hypergeometric {
    /// Distribution for subsets of `a` and `b` elements; `None` when one of them is larger than the population.
    pub fn new(a: usize, b: usize, population: usize) -> Option<Self> {
        if a.max(b) > population {
            return None;
        }
        let (low, high) = ((a + b).saturating_sub(population), a.min(b));
        let mode = ((a as f64 + 1.0) * (b as f64 + 1.0) / (population as f64 + 2.0)).floor() as usize;
        let mode = mode.clamp(low, high);
        // P(k + 1) / P(k)
        let ratio = |k: usize| {
            let outside = (population + k + 1 - a - b) as f64;
            (a - k) as f64 * (b - k) as f64 / ((k + 1) as f64 * outside)
        };
        let mut below = Vec::new();
        let mut weight = 1.0;
        for k in (low..mode).rev() {
            weight /= ratio(k);
            if weight < NEGLIGIBLE {
                break;
            }
            below.push(weight);
        }
        let first = mode - below.len();
        let mut probabilities: Vec<f64> = below.into_iter().rev().collect();
        probabilities.push(1.0);
        weight = 1.0;
        for k in mode..high {
            weight *= ratio(k);
            if weight < NEGLIGIBLE {
                break;
            }
            probabilities.push(weight);
        }
        let total: f64 = probabilities.iter().sum();
        probabilities.iter_mut().for_each(|p| *p /= total);
        Some(Hypergeometric { first, probabilities })
    }

    /// `P(X >= k)`: the p-value of subsets that share `k` elements, against sharing more than chance. 0 where it is
    /// below 1e-300.
    pub fn at_least(&self, k: usize) -> f64 {
        match k.saturating_sub(self.first) {
            0 => 1.0,
            // Small terms first.
            from => self.probabilities.iter().skip(from).rev().sum::<f64>().min(1.0),
        }
    }

    /// `P(X <= k)`, against sharing less than chance.
    pub fn at_most(&self, k: usize) -> f64 {
        let Some(last) = k.checked_sub(self.first) else { return 0.0 };
        if last + 1 >= self.probabilities.len() {
            return 1.0;
        }
        self.probabilities[..=last].iter().sum::<f64>().min(1.0)
    }

    /// Numbers between which `X` lies with 95 % probability: the 2.5 % and the 97.5 % quantile, both included.
    pub fn interval(&self) -> (usize, usize) {
        let tail = (1.0 - COVERAGE) / 2.0;
        let quantile = |q: f64| {
            let mut sum = 0.0;
            let at = self.probabilities.iter().position(|p| {
                sum += p;
                sum >= q
            });
            self.first + at.unwrap_or(self.probabilities.len() - 1)
        };
        (quantile(tail), quantile(1.0 - tail))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn choose(n: usize, k: usize) -> f64 {
        if k > n {
            return 0.0;
        }
        (0..k).map(|i| (n - i) as f64 / (k - i) as f64).product()
    }

    proptest! {
        /// Against the definition.
        #[test]
        fn probabilities_are_those_of_the_definition(a in 0usize..20, b in 0usize..20, more in 0usize..20) {
            let n = a.max(b) + more;
            let chance = Hypergeometric::new(a, b, n).unwrap();
            let p = |k: usize| {
                if k > b { 0.0 } else { choose(a, k) * choose(n - a, b - k) / choose(n, b) }
            };
            for k in 0..=a.min(b) + 1 {
                let (above, below): (f64, f64) = ((k..=b).map(p).sum(), (0..=k).map(p).sum());
                prop_assert!((chance.at_least(k) - above).abs() < 1e-12, "{a} {b} {n} {k}");
                prop_assert!((chance.at_most(k) - below).abs() < 1e-12, "{a} {b} {n} {k}");
            }
            let (low, high) = chance.interval();
            prop_assert!(chance.at_most(high) >= 0.975 - 1e-12 && chance.at_least(low) >= 0.975 - 1e-12);
        }
    }

    /// Two circuits of 5 % of the edges: the mean is `a b / N`, and the interval cuts off 2.5 % on either side.
    #[test]
    fn circuits_of_gpt2_small() {
        let chance = Hypergeometric::new(1624, 1624, 32_491).unwrap();
        let mean: f64 = chance.probabilities.iter().zip(chance.first..).map(|(p, k)| p * k as f64).sum();
        assert!((mean - 1624.0 * 1624.0 / 32_491.0).abs() < 1e-8, "{mean}");
        let (low, high) = chance.interval();
        assert!(chance.at_most(low - 1) < 0.025 && chance.at_most(low) >= 0.025);
        assert!(chance.at_most(high - 1) < 0.975 && chance.at_most(high) >= 0.975);
        assert!(chance.at_least(150) < 1e-10 && chance.at_least(150) > 0.0);
    }

    #[test]
    fn the_ends() {
        assert_eq!(Hypergeometric::new(5, 1, 4), None);
        let everything = Hypergeometric::new(4, 4, 4).unwrap();
        assert_eq!(
            (everything.at_least(4), everything.at_least(5), everything.interval()),
            (1.0, 0.0, (4, 4))
        );
        let nothing = Hypergeometric::new(0, 3, 4).unwrap();
        assert_eq!((nothing.at_least(0), nothing.at_least(1), nothing.at_most(0)), (1.0, 0.0, 1.0));
    }
}
