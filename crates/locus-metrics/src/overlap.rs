//! Overlap of two subsets of one population, beside what chance gives.
//!
//! With `a` and `b` the sizes of the subsets, `i` of their intersection and `N` of the population:
//!
//! ```text
//! J        = i / (a + b - i)                                          Jaccard (1901)
//! E[i]     = a b / N                                                  mean of the hypergeometric distribution
//! lift     = i / E[i]
//! kappa    = (p_o - p_e) / (1 - p_e)                                  Cohen (1960), the subsets as raters
//! p_o      = (i + N - a - b + i) / N,  p_e = (a b + (N - a)(N - b)) / N^2
//! ```
//!
//! Two independent masks that each keep half of the parameters have a Jaccard index of 1/3. An index means nothing
//! without that number, so every measure here comes with what chance gives.
//!
//! ```
//! use locus_metrics::overlap::Counts;
//!
//! let halves = Counts::new(300, 500, 500, 1000).expect("sizes that fit together");
//! assert_eq!(halves.jaccard(), Some(3.0 / 7.0));
//! assert_eq!(halves.expected_jaccard(), Some(1.0 / 3.0));
//! assert_eq!(halves.lift(), Some(1.2));
//! ```

use crate::hypergeometric::Hypergeometric;

/// Sizes of two subsets, of what they share, and of the population they are taken from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    intersection: usize,
    a: usize,
    b: usize,
    population: usize,
}

impl Counts {
    /// Counts of two subsets; `None` when they contradict each other: an intersection larger than a subset, or subsets
    /// that do not fit into the population.
    pub fn new(intersection: usize, a: usize, b: usize, population: usize) -> Option<Self> {
        let union = (a + b).checked_sub(intersection)?;
        let fits = intersection <= a.min(b) && union <= population;
        fits.then_some(Self { intersection, a, b, population })
    }

    /// Intersection over union; `None` when both subsets are empty.
    pub fn jaccard(self) -> Option<f64> {
        self.jaccard_of(self.intersection as f64)
    }

    /// Jaccard index of subsets of these sizes that share `intersection` elements, for example the number expected of
    /// subsets that are independent within every stratum. `None` when there is no union.
    pub fn jaccard_of(self, intersection: f64) -> Option<f64> {
        ratio(intersection, (self.a + self.b) as f64 - intersection)
    }

    /// Number of shared elements expected of independent subsets, `a b / N`; `None` of an empty population.
    pub fn expected_intersection(self) -> Option<f64> {
        ratio(self.a as f64 * self.b as f64, self.population as f64)
    }

    /// Jaccard index at the expected intersection of independent subsets: close to the expected index, but not equal to
    /// it. `None` when both subsets are empty.
    pub fn expected_jaccard(self) -> Option<f64> {
        self.jaccard_of(self.expected_intersection()?)
    }

    /// Shared elements over the number expected of independent subsets; 1 is chance. `None` when a subset is empty.
    pub fn lift(self) -> Option<f64> {
        self.lift_over(self.expected_intersection()?)
    }

    /// Shared elements over another expectation; `None` when that is 0.
    pub fn lift_over(self, expected_intersection: f64) -> Option<f64> {
        ratio(self.intersection as f64, expected_intersection)
    }

    /// Cohen's kappa of the two subsets as raters of every element: 0 is chance, 1 is identity. `None` when both
    /// subsets are empty or both are the whole population.
    pub fn kappa(self) -> Option<f64> {
        let n = self.population as f64;
        let (a, b) = (self.a as f64, self.b as f64);
        let observed = (n - a - b + 2.0 * self.intersection as f64) / n;
        let by_chance = (a * b + (n - a) * (n - b)) / (n * n);
        ratio(observed - by_chance, 1.0 - by_chance)
    }

    /// The central 95 % of the Jaccard index of independent subsets of these sizes: the smallest and largest value with
    /// at most 2.5 % of the hypergeometric distribution beyond it. `None` when both subsets are empty.
    ///
    /// ```
    /// let counts = locus_metrics::overlap::Counts::new(10, 20, 20, 1000).unwrap();
    /// let (low, high) = counts.chance_interval().unwrap();
    /// assert!(low == 0.0 && high < 0.06 && counts.jaccard() > Some(high));
    /// ```
    pub fn chance_interval(self) -> Option<(f64, f64)> {
        let Self { a, b, population, .. } = self;
        let (low, high) = Hypergeometric::new(a, b, population)?.interval();
        Some((self.jaccard_of(low as f64)?, self.jaccard_of(high as f64)?))
    }
}

/// Quotient; `None` instead of a division by zero or by the NaN of an empty population.
fn ratio(numerator: f64, denominator: f64) -> Option<f64> {
    (denominator > 0.0).then(|| numerator / denominator)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn close(got: Option<f64>, expected: f64, tolerance: f64) {
        let got = got.expect("defined");
        assert!((got - expected).abs() <= tolerance * expected.abs(), "{got} for {expected}");
    }

    #[test]
    fn measures_by_hand() {
        let counts = Counts::new(20, 100, 80, 1000).unwrap();
        close(counts.jaccard(), 0.125, 1e-15);
        close(counts.expected_intersection(), 8.0, 1e-15);
        close(counts.expected_jaccard(), 8.0 / 172.0, 1e-15);
        close(counts.lift(), 2.5, 1e-15);
        close(counts.lift_over(16.0), 1.25, 1e-15);
        // scikit-learn's formula evaluated in Python
        close(counts.kappa(), 0.14634146341463425, 1e-13);
        // Two independent masks of 5 %: d^2 / (2 d - d^2)
        close(Counts::new(0, 50, 50, 1000).unwrap().expected_jaccard(), 0.0025 / 0.0975, 1e-15);
    }

    /// From sums of binomial coefficients in Python: 3 to 13 shared elements; all of a subset that must be shared.
    #[test]
    fn chance_intervals() {
        let counts = Counts::new(20, 100, 80, 1000).unwrap();
        let (low, high) = counts.chance_interval().unwrap();
        close(Some(low), 3.0 / 177.0, 1e-15);
        close(Some(high), 13.0 / 167.0, 1e-15);
        let forced = Counts::new(10, 10, 10, 10).unwrap();
        assert_eq!(forced.chance_interval(), Some((1.0, 1.0)));
        assert_eq!(Counts::new(0, 0, 0, 10).unwrap().chance_interval(), None);
    }

    #[test]
    fn contradictory_counts_are_refused() {
        assert_eq!(Counts::new(5, 4, 9, 100), None);
        assert_eq!(Counts::new(0, 60, 60, 100), None);
        assert_eq!(Counts::new(9, 2, 3, 100), None);
        assert!(Counts::new(20, 60, 60, 100).is_some());
    }

    #[test]
    fn nothing_and_everything_have_no_overlap_statistics() {
        let nothing = Counts::new(0, 0, 0, 10).unwrap();
        assert_eq!((nothing.jaccard(), nothing.lift(), nothing.kappa()), (None, None, None));
        let everything = Counts::new(10, 10, 10, 10).unwrap();
        assert_eq!(everything.jaccard(), Some(1.0));
        assert_eq!((everything.lift(), everything.kappa()), (Some(1.0), None));
        let no_population = Counts::new(0, 0, 0, 0).unwrap();
        assert_eq!((no_population.kappa(), no_population.expected_intersection()), (None, None));
    }

    proptest! {
        #[test]
        fn measures_are_symmetric_and_bounded(
            (shared, only_a, only_b, rest) in (0usize..50, 0usize..50, 0usize..50, 1usize..50),
        ) {
            let (a, b) = (shared + only_a, shared + only_b);
            prop_assume!(a > 0 && b > 0);
            let population = shared + only_a + only_b + rest;
            let ab = Counts::new(shared, a, b, population).unwrap();
            let ba = Counts::new(shared, b, a, population).unwrap();
            prop_assert_eq!((ab.jaccard(), ab.lift()), (ba.jaccard(), ba.lift()));
            prop_assert!((ab.kappa().unwrap() - ba.kappa().unwrap()).abs() < 1e-12);
            prop_assert!((0.0..=1.0).contains(&ab.jaccard().unwrap()));
            prop_assert!(ab.kappa().unwrap() <= 1.0 + 1e-12);
            // All measures agree on which side of chance the overlap lies.
            let above = ab.lift().unwrap() > 1.0 + 1e-9;
            let below = ab.lift().unwrap() < 1.0 - 1e-9;
            prop_assert!(!above || ab.kappa().unwrap() > 0.0);
            prop_assert!(!below || ab.kappa().unwrap() < 0.0);
            prop_assert!(!above || ab.jaccard() > ab.expected_jaccard());
            prop_assert!(!below || ab.jaccard() < ab.expected_jaccard());
        }
    }
}
