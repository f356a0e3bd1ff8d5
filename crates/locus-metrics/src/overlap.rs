//! Overlap of two subsets of one population, beside what chance gives.
//!
//! Two independent masks that each keep half of the parameters have a Jaccard index of 1/3. An index means
//! nothing without that number, so every measure here comes with its expectation.

use crate::normal::upper_tail;

/// Jaccard index expected of independent subsets with densities `a` and `b`: `ab / (a + b - ab)`; `None` when
/// both are empty.
///
/// ```
/// let at_half = locus_metrics::overlap::expected_jaccard(0.5, 0.5).unwrap();
/// assert!((at_half - 1.0 / 3.0).abs() < 1e-15);
/// ```
pub fn expected_jaccard(a: f64, b: f64) -> Option<f64> {
    ratio(a * b, a + b - a * b)
}

/// Sizes of two subsets, of what they share, and of the population they are taken from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    intersection: usize,
    a: usize,
    b: usize,
    population: usize,
}

impl Counts {
    /// Counts of two subsets; `None` when they contradict each other (a shared part larger than a subset, or
    /// subsets that do not fit into the population).
    pub fn new(intersection: usize, a: usize, b: usize, population: usize) -> Option<Self> {
        let union = (a + b).checked_sub(intersection)?;
        let fits = intersection <= a.min(b) && union <= population;
        fits.then_some(Self { intersection, a, b, population })
    }

    /// Shared part over union; `None` when both subsets are empty.
    pub fn jaccard(self) -> Option<f64> {
        self.jaccard_of(self.intersection as f64)
    }

    /// The Jaccard index of subsets with these sizes that share `intersection` elements, for example as many
    /// as an expectation taken stratum by stratum says.
    pub fn jaccard_of(self, intersection: f64) -> Option<f64> {
        ratio(intersection, (self.a + self.b) as f64 - intersection)
    }

    /// Number of shared elements expected of independent subsets: `ab / N`.
    pub fn expected_intersection(self) -> Option<f64> {
        ratio(self.a as f64 * self.b as f64, self.population as f64)
    }

    /// Jaccard index expected of independent subsets.
    pub fn expected_jaccard(self) -> Option<f64> {
        self.jaccard_of(self.expected_intersection()?)
    }

    /// Shared elements over the number expected of independent subsets; 1 is chance.
    pub fn lift(self) -> Option<f64> {
        self.lift_over(self.expected_intersection()?)
    }

    /// Shared elements over another expectation.
    pub fn lift_over(self, expected_intersection: f64) -> Option<f64> {
        ratio(self.intersection as f64, expected_intersection)
    }

    /// Cohen's kappa of the two masks as raters of every element: 0 is chance, 1 is identity. `None` when
    /// both masks are empty or both are everything.
    pub fn kappa(self) -> Option<f64> {
        let n = self.population as f64;
        let (a, b) = (self.a as f64, self.b as f64);
        let observed = (n - a - b + 2.0 * self.intersection as f64) / n;
        let by_chance = (a * b + (n - a) * (n - b)) / (n * n);
        ratio(observed - by_chance, 1.0 - by_chance)
    }

    /// Standard score of the shared part under the hypergeometric distribution; `None` when it has no
    /// variance.
    pub fn z_score(self) -> Option<f64> {
        self.standardised(self.intersection as f64)
    }

    /// P(X >= x) of at least this many shared elements under the hypergeometric distribution, by the normal
    /// approximation with continuity correction.
    ///
    /// Good in the body of the distribution. Far in the tail of skewed counts (p below about 1e-3 with few
    /// expected elements) it is too small by orders of magnitude: read such values as "very small".
    pub fn tail_p(self) -> Option<f64> {
        self.standardised(self.intersection as f64 - 0.5).map(upper_tail)
    }

    fn standardised(self, x: f64) -> Option<f64> {
        let (n, a, b) = (self.population as f64, self.a as f64, self.b as f64);
        let variance = a / n * (b / n) * (n - a) * ((n - b) / (n - 1.0));
        ratio(x - self.expected_intersection()?, variance.sqrt())
    }
}

/// `None` instead of a division by zero (or by a NaN that comes of an empty population).
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
        close(expected_jaccard(0.05, 0.05), 0.0025 / 0.0975, 1e-15);
    }

    #[test]
    fn the_hypergeometric_agrees_with_scipy() {
        // scipy 1.17.1, hypergeom.mean and .std; the tail from norm.sf with continuity correction
        let counts = Counts::new(20, 100, 80, 1000).unwrap();
        close(counts.z_score(), 4.660192196073873, 1e-12);
        close(counts.tail_p(), 3.984454318888072e-6, 1e-10);
        // Near the middle the approximation is good: hypergeom.sf(259, 1000, 500, 500) = 0.11473809423750515.
        close(Counts::new(260, 500, 500, 1000).unwrap().tail_p(), 0.11473809423750515, 0.002);
        close(Counts::new(40, 800, 500, 32_491).unwrap().z_score(), 8.052518611725484, 1e-12);
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
        assert_eq!(
            (nothing.jaccard(), nothing.lift(), nothing.kappa(), nothing.z_score()),
            (None, None, None, None)
        );
        let everything = Counts::new(10, 10, 10, 10).unwrap();
        assert_eq!(everything.jaccard(), Some(1.0));
        assert_eq!((everything.kappa(), everything.z_score(), everything.tail_p()), (None, None, None));
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
            // All four measures agree on which side of chance the overlap lies.
            let above = ab.lift().unwrap() > 1.0 + 1e-9;
            let below = ab.lift().unwrap() < 1.0 - 1e-9;
            prop_assert!(!above || ab.kappa().unwrap() > 0.0);
            prop_assert!(!below || ab.kappa().unwrap() < 0.0);
            prop_assert!(!above || ab.jaccard() > ab.expected_jaccard());
            prop_assert!(!below || ab.jaccard() < ab.expected_jaccard());
            prop_assert!(!above || ab.z_score().unwrap() > 0.0);
        }
    }
}
