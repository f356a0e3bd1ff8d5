//! Random splits of rows into a training and a held-out part, the same for the same arguments on every platform.

use crate::seed::{shuffle, stream};

/// Numbers of the items that are trained on, and of those that are held out for measuring; both ascending.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split {
    /// Items to train on.
    pub train: Vec<usize>,
    /// Items to measure on: all others.
    pub held_out: Vec<usize>,
}

/// Splits items `0..n` at random: `train_share` of them, rounded, are trained on. `name` (for example a task's) keeps
/// splits of one seed independent of each other.
///
/// ```
/// let split = locus_data::split(10, 0.8, 42, "hierarchy");
/// assert_eq!((split.train.len(), split.held_out.len()), (8, 2));
/// ```
///
/// # Panics
/// If `train_share` is not within 0 and 1.
pub fn split(n: usize, train_share: f64, seed: u64, name: &str) -> Split {
    assert!((0.0..=1.0).contains(&train_share), "train_share is {train_share}; expected 0 to 1");
    let mut train: Vec<usize> = (0..n).collect();
    shuffle(&mut train, &mut stream(seed, &format!("split/{name}"), 0));
    let mut held_out = train.split_off((n as f64 * train_share).round() as usize);
    train.sort_unstable();
    held_out.sort_unstable();
    Split { train, held_out }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn parts_are_disjoint_complete_and_of_the_right_size(n in 0usize..500, share in 0.0..=1.0f64, seed: u64) {
            let Split { train, held_out } = split(n, share, seed, "p");
            prop_assert_eq!(train.len(), (n as f64 * share).round() as usize);
            prop_assert!(train.is_sorted() && held_out.is_sorted());
            let mut all = [train, held_out].concat();
            all.sort_unstable();
            prop_assert_eq!(all, (0..n).collect::<Vec<_>>());
        }

        #[test]
        fn depends_on_its_arguments_only(n in 50usize..500, seed: u64) {
            let first = split(n, 0.8, seed, "a");
            prop_assert_eq!(&first, &split(n, 0.8, seed, "a"));
            // Two splits of 50 items agree with probability below 1e-10.
            prop_assert_ne!(&first, &split(n, 0.8, seed, "b"));
            prop_assert_ne!(&first, &split(n, 0.8, seed ^ 1, "a"));
        }
    }

    #[test]
    fn values_never_change() {
        assert_eq!(split(20, 0.8, 42, "hierarchy").held_out, [1, 12, 13, 14]);
    }

    #[test]
    #[should_panic(expected = "train_share is 1.5")]
    fn a_share_is_a_share() {
        split(3, 1.5, 0, "");
    }
}
