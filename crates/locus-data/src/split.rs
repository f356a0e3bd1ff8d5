//! Random splits of rows into a training and a held-out part, the same for the same arguments on every platform.

use crate::seed::{shuffle, stream};

mod balanced;

use balanced::{Sides, divide};

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

/// Splits rows at random so that all rows of a group are on one side: `train_share` of the rows are trained on, and of
/// the rows of each label, both as nearly as whole groups permit.
///
/// `groups` and `labels` have a number for each row. Groups of more than a tenth of the smaller side are placed first,
/// the largest before the others; the order of the rest is random. Each goes to the side that lacks more of its labels,
/// and groups are then moved and exchanged for as long as that brings the counts of the labels closer to the share.
///
/// ```
/// let groups = [0, 1, 2, 3, 4, 0, 1, 2, 3, 4];
/// let labels = [1, 1, 1, 1, 1, 0, 0, 0, 0, 0];
/// let split = locus_data::split_groups(&groups, &labels, 0.8, 42, "blimp_dna1");
/// assert_eq!((split.train.len(), split.held_out.len()), (8, 2));
/// assert_eq!(split.held_out[0] + 5, split.held_out[1]);
/// ```
///
/// # Panics
/// If `train_share` is not within 0 and 1, or there is not one label per group number.
pub fn split_groups(groups: &[usize], labels: &[usize], train_share: f64, seed: u64, name: &str) -> Split {
    assert!((0.0..=1.0).contains(&train_share), "train_share is {train_share}; expected 0 to 1");
    divide(groups, labels, train_share, &mut stream(seed, &format!("split groups/{name}"), 0)).split()
}

/// Draws at most `most` rows at random, in whole groups and with the label shares of all rows, as nearly as whole groups
/// permit; ascending. All rows if there are no more than `most`, and none if every group is larger than that.
///
/// # Panics
/// If there is not one label per group number.
pub fn sample_groups(groups: &[usize], labels: &[usize], most: usize, seed: u64, name: &str) -> Vec<usize> {
    if groups.len() <= most {
        return (0..groups.len()).collect();
    }
    let share = most as f64 / groups.len() as f64;
    let mut sides: Sides = divide(groups, labels, share, &mut stream(seed, &format!("sample/{name}"), 0));
    sides.shrink_to(most);
    sides.split().train
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

    /// A group number and a label for each row; groups of at most six rows, in any mixture of two or three labels.
    fn grouped() -> impl Strategy<Value = (Vec<usize>, Vec<usize>)> {
        let group = |classes| proptest::collection::vec(0usize..classes, 1..=6);
        (2usize..=3, any::<u64>())
            .prop_flat_map(move |(classes, seed)| {
                (proptest::collection::vec(group(classes), 1..120), Just(seed))
            })
            .prop_map(|(groups, seed)| {
                let mut rows: Vec<(usize, usize)> = Vec::new();
                for (number, labels) in groups.into_iter().enumerate() {
                    rows.extend(labels.into_iter().map(|label| (number, label)));
                }
                shuffle(&mut rows, &mut stream(seed, "rows", 0));
                rows.into_iter().unzip()
            })
    }

    fn with_label(rows: &[usize], labels: &[usize], label: usize) -> f64 {
        rows.iter().filter(|&&row| labels[row] == label).count() as f64
    }

    proptest! {
        #[test]
        fn groups_stay_whole_and_labels_keep_their_shares(
            (groups, labels) in grouped(), share in 0.0..=1.0f64, seed: u64,
        ) {
            let split = split_groups(&groups, &labels, share, seed, "p");
            prop_assert_eq!(&split, &split_groups(&groups, &labels, share, seed, "p"));
            let Split { train, held_out } = split;
            prop_assert!(train.is_sorted() && held_out.is_sorted());
            let mut all = [train.as_slice(), &held_out].concat();
            all.sort_unstable();
            prop_assert_eq!(&all, &(0..groups.len()).collect::<Vec<_>>());
            prop_assert!(train.iter().all(|&a| held_out.iter().all(|&b| groups[a] != groups[b])));
            let size = |group| groups.iter().filter(|&&other| other == group).count();
            let largest = groups.iter().map(|&group| size(group)).max().unwrap() as f64;
            prop_assert!((train.len() as f64 - share * all.len() as f64).abs() <= largest);
            for label in 0..3 {
                let expected = share * with_label(&all, &labels, label);
                let found = with_label(&train, &labels, label);
                prop_assert!((found - expected).abs() <= largest, "label {}: {} of {}", label, found, expected);
            }
        }

        #[test]
        fn samples_are_whole_groups_with_all_labels((groups, labels) in grouped(), most in 0usize..500, seed: u64) {
            let rows = sample_groups(&groups, &labels, most, seed, "p");
            prop_assert!(rows.is_sorted() && rows.len() <= most.min(groups.len()));
            let taken = |row: &usize| rows.binary_search(row).is_ok();
            let whole = |&row: &usize| (0..groups.len()).all(|other| groups[other] != groups[row] || taken(&other));
            prop_assert!(rows.iter().all(whole));
            prop_assert!(rows.len() + 12 > most.min(groups.len()), "{} of {}", rows.len(), most);
            let share = rows.len() as f64 / groups.len() as f64;
            for label in 0..3 {
                let all = labels.iter().filter(|&&other| other == label).count() as f64;
                prop_assert!((with_label(&rows, &labels, label) - share * all).abs() <= 12.0);
            }
        }
    }

    #[test]
    fn the_order_of_a_file_does_not_decide_what_is_drawn() {
        // All rows of one label, then their twins.
        let groups: Vec<usize> = (0..1000).chain(0..1000).collect();
        let labels: Vec<usize> = (0..2000).map(|row| usize::from(row < 1000)).collect();
        let rows = sample_groups(&groups, &labels, 320, 1, "blimp_dna1");
        assert_eq!((rows.len(), with_label(&rows, &labels, 1)), (320, 160.0));
        assert_ne!(rows, sample_groups(&groups, &labels, 320, 2, "blimp_dna1"));
        let split = split_groups(&groups, &labels, 0.8, 1, "blimp_dna1");
        assert_eq!((split.train.len(), with_label(&split.held_out, &labels, 1)), (1600, 200.0));
        assert_ne!(split, split_groups(&groups, &labels, 0.8, 2, "blimp_dna1"));
    }

    #[test]
    fn values_never_change() {
        let groups: Vec<usize> = (0..20).map(|row| row / 2).collect();
        let labels: Vec<usize> = (0..20).map(|row| row % 2).collect();
        assert_eq!(split_groups(&groups, &labels, 0.8, 42, "hierarchy").held_out, GOLDEN_GROUPS);
        assert_eq!(split(20, 0.8, 42, "hierarchy").held_out, [1, 12, 13, 14]);
    }

    const GOLDEN_GROUPS: [usize; 4] = [6, 7, 12, 13];

    #[test]
    #[should_panic(expected = "train_share is 1.5")]
    fn a_share_is_a_share() {
        split(3, 1.5, 0, "");
    }
}
