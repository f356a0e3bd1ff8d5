//! Means of measurements that two things vary: items (requests) and the groups they are measured in (families of tasks).
//!
//! A difference measured on many requests with the circuits of a few families of tasks holds for other requests and
//! other families only when it is large against the variation over both. With `m_f` the mean of family `f` of `F` and
//! `m` their mean, every family weighing alike,
//!
//! ```text
//! V_items    = R / (R - 1) sum_r u_r^2,   u_r = 1/F sum_f sum_(cells of item r in f) (v - m_f) / n_f
//! V_families = sum_f (m_f - m)^2 / (F (F - 1))
//! t          = m / sqrt(V_items + V_families)
//! critical t = (V_items t_(R-1) + V_families t_(F-1)) / (V_items + V_families)
//! ```
//!
//! The statistic is the root of Clark's quasi-F (1973, "The language-as-fixed-effect fallacy", `min F'`), in which noise
//! of the items is part of both variances. The critical value is Cochran and Cox's (1950) for sums of variances with
//! few degrees of freedom; Satterthwaite's, which Clark uses, rejects 8 % instead of 5 % with three families. With a
//! single family or a single item the other variance is used alone. Resampling would not do here: three families have
//! ten distinct resamples, and their percentile intervals are too narrow.

use std::collections::BTreeMap;

use statrs::distribution::{ContinuousCDF, StudentsT};

/// Level of confidence of every interval.
const COVERAGE: f64 = 0.95;
/// Power at which the smallest visible effect is stated.
const POWER: f64 = 0.8;

/// One measurement of an item in a group.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cell<K, G> {
    /// The item, or the cluster of items that are not independent of each other.
    pub item: K,
    /// The group.
    pub group: G,
    /// The value.
    pub value: f64,
}

/// A mean with its standard error, interval and test against 0.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// The mean.
    pub value: f64,
    /// Variances of the mean with their degrees of freedom.
    variances: [(f64, f64); 2],
    /// Lower end of the 95 % interval.
    pub low: f64,
    /// Upper end of the 95 % interval.
    pub high: f64,
    /// Two-sided p-value of the hypothesis that the mean is 0.
    pub p_value: f64,
    /// Distance from 0 at which an effect would have been told from 0 in 80 % of such measurements.
    pub smallest_visible: f64,
}

impl Estimate {
    /// An estimate from its value, standard error and degrees of freedom; `None` when one of them is not a finite number,
    /// the error is below 0 or the degrees of freedom are not above 0.
    ///
    /// ```
    /// let estimate = locus_metrics::two_way::Estimate::new(1.0, 0.5, 10.0).unwrap();
    /// // SciPy: t.ppf(0.975, 10) = 2.2281388519649385
    /// assert!((estimate.high - (1.0 + 0.5 * 2.2281388519649385)).abs() < 1e-9);
    /// ```
    pub fn new(value: f64, standard_error: f64, df: f64) -> Option<Self> {
        if standard_error < 0.0 {
            return None;
        }
        Estimate::of_variances(value, [(standard_error * standard_error, df), (0.0, df)])
    }

    fn of_variances(value: f64, variances: [(f64, f64); 2]) -> Option<Self> {
        let [(a, df_a), (b, df_b)] = variances;
        let usable = [value, a, b].iter().all(|x| x.is_finite()) && df_a > 0.0 && df_b > 0.0;
        if !usable {
            return None;
        }
        let t = [df_a, df_b].map(|df| StudentsT::new(0.0, 1.0, df).expect("degrees of freedom above 0"));
        let total = a + b;
        // The quantile of the mixture; its weights do not matter when there is no variance.
        let quantile = |p: f64| {
            let [t_a, t_b] = [t[0].inverse_cdf(p), t[1].inverse_cdf(p)];
            if total > 0.0 { (a * t_a + b * t_b) / total } else { t_a }
        };
        let standard_error = total.sqrt();
        let critical = quantile((1.0 + COVERAGE) / 2.0);
        let p_value = match (standard_error > 0.0, value == 0.0) {
            (true, _) => two_sided_p(&quantile, (value / standard_error).abs()),
            (false, true) => 1.0,
            (false, false) => 0.0,
        };
        Some(Estimate {
            value,
            variances,
            low: value - critical * standard_error,
            high: value + critical * standard_error,
            p_value,
            smallest_visible: (critical + quantile(POWER)) * standard_error,
        })
    }

    /// Standard error of the value.
    pub fn standard_error(&self) -> f64 {
        (self.variances[0].0 + self.variances[1].0).sqrt()
    }

    /// The estimate of the value minus a constant.
    pub fn minus(self, constant: f64) -> Option<Self> {
        Estimate::of_variances(self.value - constant, self.variances)
    }

    /// The estimate of the value divided by a constant above 0.
    pub fn over(self, constant: f64) -> Option<Self> {
        let square = constant * constant;
        Estimate::of_variances(self.value / constant, self.variances.map(|(v, df)| (v / square, df)))
    }
}

/// The p at which the quantile `1 - p / 2` is `t`, by the Illinois method on the logarithm of p.
fn two_sided_p(quantile: &impl Fn(f64) -> f64, t: f64) -> f64 {
    // Beyond this the quantile of a distribution with two degrees of freedom is no longer exact.
    const SMALLEST: f64 = 1e-12;
    let excess = |log_p: f64| quantile(1.0 - log_p.exp() / 2.0) - t;
    let (mut low, mut high) = ((SMALLEST.ln(), excess(SMALLEST.ln())), (0.0, -t));
    if low.1 <= 0.0 {
        return SMALLEST;
    }
    for _ in 0..60 {
        let middle = (low.0 * high.1 - high.0 * low.1) / (high.1 - low.1);
        let found = (middle, excess(middle));
        if found.1.abs() <= 1e-12 * t || high.0 - low.0 <= 1e-13 {
            return middle.exp();
        }
        if found.1 > 0.0 {
            low = found;
            high.1 *= 0.5;
        } else {
            high = found;
            low.1 *= 0.5;
        }
    }
    (0.5 * (low.0 + high.0)).exp()
}

/// The mean over groups of the means over items, as in the head of this module; `None` with fewer than two items and
/// fewer than two groups, or when a value is not finite.
///
/// Two families that agree to the decimal say more than two that do not:
/// ```
/// use locus_metrics::two_way::{Cell, mean};
///
/// let cells = |persona: f64| -> Vec<Cell<usize, &str>> {
///     let noise = [0.1, -0.1, 0.2, -0.2, 0.0, 0.05, -0.05, 0.0];
///     let of = |group, by: f64| move |(item, &value): (usize, &f64)| Cell { item, group, value: value + by };
///     let blimp = noise.iter().enumerate().map(of("blimp", 1.0));
///     blimp.chain(noise.iter().enumerate().map(of("persona", persona))).collect()
/// };
/// let (agree, differ) = (mean(&cells(1.0)).unwrap(), mean(&cells(0.4)).unwrap());
/// assert!(agree.p_value < 1e-3 && differ.p_value > 0.05);
/// ```
pub fn mean<K: Ord, G: Ord>(cells: &[Cell<K, G>]) -> Option<Estimate> {
    let mut groups: BTreeMap<&G, Vec<&Cell<K, G>>> = BTreeMap::new();
    cells.iter().for_each(|cell| groups.entry(&cell.group).or_default().push(cell));
    let f = groups.len() as f64;
    let mut of_item: BTreeMap<&K, f64> = BTreeMap::new();
    let mut means = Vec::new();
    for cells in groups.values() {
        let n = cells.len() as f64;
        let mean = cells.iter().map(|cell| cell.value).sum::<f64>() / n;
        for cell in cells {
            *of_item.entry(&cell.item).or_default() += (cell.value - mean) / (n * f);
        }
        means.push(mean);
    }
    let r = of_item.len() as f64;
    let value = means.iter().sum::<f64>() / f;
    let of_items = r / (r - 1.0) * of_item.values().map(|u| u * u).sum::<f64>();
    let of_groups = means.iter().map(|mean| (mean - value) * (mean - value)).sum::<f64>() / (f * (f - 1.0));
    let (items, groups) = ((of_items, r - 1.0), (of_groups, f - 1.0));
    match (r > 1.0, f > 1.0) {
        (true, true) => Estimate::of_variances(value, [items, groups]),
        (true, false) => Estimate::of_variances(value, [items, (0.0, r - 1.0)]),
        (false, true) => Estimate::of_variances(value, [groups, (0.0, f - 1.0)]),
        (false, false) => None,
    }
}

/// Adjusts p-values for their number by Holm 1979: the k-th smallest of m is multiplied by m - k + 1, and none is
/// smaller than one before it.
///
/// ```
/// let adjusted = locus_metrics::two_way::holm(&[0.01, 0.04, 0.03]);
/// assert_eq!(adjusted, [0.03, 0.06, 0.06]);
/// ```
pub fn holm(p_values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p_values.len()).collect();
    order.sort_by(|&a, &b| p_values[a].total_cmp(&p_values[b]));
    let mut adjusted = vec![0.0; p_values.len()];
    let mut largest: f64 = 0.0;
    for (k, &i) in order.iter().enumerate() {
        largest = largest.max((p_values[i] * (p_values.len() - k) as f64).min(1.0));
        adjusted[i] = largest;
    }
    adjusted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(item: usize, group: usize, value: f64) -> Cell<usize, usize> {
        Cell { item, group, value }
    }

    #[test]
    fn one_group_is_a_t_test_and_one_item_as_well() {
        // SciPy 1.17.1: ttest_1samp([1.2, -0.4, 2.2, 0.3, -0.1], 0)
        let values = [1.2, -0.4, 2.2, 0.3, -0.1];
        for by_item in [true, false] {
            let cells: Vec<_> = values
                .iter()
                .enumerate()
                .map(|(i, &v)| if by_item { cell(i, 0, v) } else { cell(0, i, v) })
                .collect();
            let found = mean(&cells).unwrap();
            assert!((found.value - 0.64).abs() < 1e-12);
            assert!((found.p_value - 0.24822210350427762).abs() < 1e-9, "{}", found.p_value);
            assert!((found.low + 0.6758123768307192).abs() < 1e-9, "{}", found.low);
        }
        assert_eq!(mean(&[cell(0, 0, 1.0)]), None);
        assert_eq!(mean::<usize, usize>(&[]), None);
        assert_eq!(mean(&[cell(0, 0, 1.0), cell(1, 0, f64::NAN)]), None);
    }

    #[test]
    fn both_variances_count() {
        // Two items, two groups, cells 1 2 / 3 6: group means 1.5 and 4.5, mean 3.
        let cells = [cell(0, 0, 1.0), cell(1, 0, 2.0), cell(0, 1, 3.0), cell(1, 1, 6.0)];
        let found = mean(&cells).unwrap();
        // u_0 = (-0.5 - 1.5) / 4 = -0.5 = -u_1; V_items = 2 * 0.5 = 1; V_groups = 2 * 2.25 / 2 = 2.25.
        assert!((found.standard_error() - 3.25f64.sqrt()).abs() < 1e-12);
        // Both have one degree of freedom: t.ppf(0.975, 1) = 12.706204736174694
        assert!((found.high - 3.0 - 12.706204736174694 * 3.25f64.sqrt()).abs() < 1e-6, "{}", found.high);
    }

    #[test]
    fn groups_weigh_alike_whatever_their_cells() {
        let cells = [cell(0, 0, 1.0), cell(1, 0, 1.0), cell(2, 0, 1.0), cell(0, 1, 3.0)];
        assert_eq!(mean(&cells).unwrap().value, 2.0);
    }

    #[test]
    fn without_variation_anything_but_0_is_seen() {
        let same = |v| mean(&[cell(0, 0, v), cell(1, 0, v), cell(0, 1, v)]).unwrap();
        assert_eq!((same(0.5).p_value, same(0.0).p_value), (0.0, 1.0));
        assert_eq!((same(0.5).low, same(0.5).high), (0.5, 0.5));
    }

    #[test]
    fn a_difference_of_no_size_is_found_as_often_as_stated() {
        use rand::RngExt;
        let mut rng = crate::Stream::named(3, "two way").rng();
        let mut normal = || {
            let uniform: f64 = (0..12).map(|_| rng.random::<f64>()).sum();
            uniform - 6.0
        };
        let worlds = 1000;
        let mut found = 0;
        for _ in 0..worlds {
            let families: Vec<f64> = (0..3).map(|_| normal()).collect();
            let items: Vec<f64> = (0..20).map(|_| normal()).collect();
            let cells: Vec<_> =
                (0..60).map(|i| cell(i % 20, i / 20, families[i / 20] + items[i % 20] + normal())).collect();
            found += usize::from(mean(&cells).unwrap().p_value < 0.05);
        }
        // 5 % of 1,000, and three standard deviations.
        assert!(found <= 71, "{found} of {worlds}");
    }
}
