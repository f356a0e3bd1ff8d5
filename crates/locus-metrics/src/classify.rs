//! Agreement of predicted classes with labels, or with the classes of another model.
//!
//! Balanced agreement is balanced accuracy (Brodersen et al. 2010) with the reference's classes as labels: the mean
//! over classes `c` of `#{prediction = c and reference = c} / #{reference = c}`.

use std::collections::BTreeMap;

/// Share of rows on which prediction and label are equal; `None` without rows.
///
/// # Panics
/// If the lengths differ.
pub fn accuracy<C: PartialEq>(predicted: &[C], labels: &[C]) -> Option<f64> {
    assert_eq!(predicted.len(), labels.len(), "one label per prediction");
    let right = predicted.iter().zip(labels).filter(|(a, b)| a == b).count();
    (!labels.is_empty()).then(|| right as f64 / labels.len() as f64)
}

/// Share of rows on which two models choose the same class: [`accuracy`] with the reference's classes as labels. `None`
/// without rows.
///
/// # Panics
/// If the lengths differ.
pub fn agreement<C: PartialEq>(predicted: &[C], reference: &[C]) -> Option<f64> {
    accuracy(predicted, reference)
}

/// Mean over the classes that the reference chooses of the agreement on that class's rows; `None` without rows.
///
/// A constant prediction scores one over the number of classes here, however large each class is. Plain agreement
/// rewards guessing the largest class.
///
/// ```
/// use locus_metrics::classify::{agreement, balanced_agreement};
/// let (constant, reference) = ([1, 1, 1, 1], [1, 1, 1, 0]);
/// assert_eq!(agreement(&constant, &reference), Some(0.75));
/// assert_eq!(balanced_agreement(&constant, &reference), Some(0.5));
/// ```
///
/// # Panics
/// If the lengths differ.
pub fn balanced_agreement<C: Ord>(predicted: &[C], reference: &[C]) -> Option<f64> {
    assert_eq!(predicted.len(), reference.len(), "one reference class per prediction");
    let mut classes: BTreeMap<&C, (usize, usize)> = BTreeMap::new();
    for (p, r) in predicted.iter().zip(reference) {
        let (same, rows) = classes.entry(r).or_default();
        *same += usize::from(p == r);
        *rows += 1;
    }
    let recalls: Vec<f64> = classes.values().map(|&(same, rows)| same as f64 / rows as f64).collect();
    crate::token::mean(&recalls)
}

/// Normal quantile of a one-sided test at 0.5 %: many tasks are tested, and one of fourteen at chance would pass at 5 %.
const ONE_SIDED: f64 = 2.5758293035489004;

/// Whether a share of `n` items is above one half beyond doubt ([`above`]).
///
/// ```
/// use locus_metrics::classify::above_chance;
///
/// assert!(above_chance(0.55, 1000) && !above_chance(0.55, 100));
/// ```
pub fn above_chance(share: f64, n: usize) -> bool {
    above(share, n, 0.5)
}

/// Whether a share of `n` items is above a bar beyond doubt: the lower end of Wilson's one-sided 99.5 % interval is.
pub fn above(share: f64, n: usize, bar: f64) -> bool {
    if n == 0 {
        return false;
    }
    let (n, z) = (n as f64, ONE_SIDED);
    let centre = share + z * z / (2.0 * n);
    let half = z * (share * (1.0 - share) / n + z * z / (4.0 * n * n)).sqrt();
    (centre - half) / (1.0 + z * z / n) > bar
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chance_is_told_from_more() {
        assert!(!above_chance(0.5, 1000) && !above_chance(1.0, 0) && !above_chance(1.0, 2));
        assert!(above_chance(1.0, 10));
        assert!(above(0.9, 100, 0.7) && !above(0.75, 100, 0.7) && !above(1.0, 100, 1.0));
    }
    use proptest::prelude::*;

    #[test]
    fn shares_by_hand() {
        assert_eq!(accuracy(&[0, 1, 1, 0, 1], &[0, 1, 0, 0, 0]), Some(0.6));
        // Class 0: two of three; class 1: one of two.
        let balanced = balanced_agreement(&[0, 0, 1, 1, 0], &[0, 0, 0, 1, 1]).unwrap();
        assert!((balanced - (2.0 / 3.0 + 0.5) / 2.0).abs() < 1e-15);
        assert_eq!(accuracy::<u8>(&[], &[]), None);
        assert_eq!(balanced_agreement::<u8>(&[], &[]), None);
    }

    #[test]
    #[should_panic(expected = "one label per prediction")]
    fn every_prediction_has_a_label() {
        accuracy(&[0, 1], &[0]);
    }

    #[test]
    #[should_panic(expected = "one label per prediction")]
    fn models_agree_on_the_same_rows() {
        agreement(&[0], &[0, 1]);
    }

    #[test]
    #[should_panic(expected = "one reference class per prediction")]
    fn balance_needs_the_same_rows() {
        balanced_agreement(&[0], &[0, 1]);
    }

    proptest! {
        #[test]
        fn balance_changes_nothing_when_classes_are_equally_frequent(
            rows in prop::collection::vec((0u8..2, 0u8..2), 1..30),
        ) {
            // Mirror every row so that the reference is balanced.
            let predicted: Vec<u8> = rows.iter().flat_map(|r| [r.0, 1 - r.0]).collect();
            let reference: Vec<u8> = rows.iter().flat_map(|r| [r.1, 1 - r.1]).collect();
            let plain = agreement(&predicted, &reference);
            let balanced = balanced_agreement(&predicted, &reference);
            prop_assert!((plain.unwrap() - balanced.unwrap()).abs() < 1e-12);
        }

        #[test]
        fn a_model_agrees_with_itself(classes in prop::collection::vec(0u8..3, 1..30)) {
            prop_assert_eq!(agreement(&classes, &classes), Some(1.0));
            prop_assert_eq!(balanced_agreement(&classes, &classes), Some(1.0));
        }
    }
}
