//! Division of groups of rows between two sides, balanced by label.

use rand_chacha::ChaCha8Rng;

use super::Split;
use crate::seed::shuffle;

/// A group on its side.
struct Group {
    rows: Vec<usize>,
    /// Rows of each label.
    counts: Vec<f64>,
    train: bool,
}

impl Group {
    /// Change of the training side's rows of each label if the group went to the other side.
    fn change(&self) -> impl Iterator<Item = f64> {
        let sign = if self.train { -1.0 } else { 1.0 };
        self.counts.iter().map(move |count| sign * count)
    }
}

/// All groups, each on one side.
pub struct Sides {
    groups: Vec<Group>,
    /// Rows of each label that the training side has more than its share.
    excess: Vec<f64>,
}

/// Divides groups as [`split_groups`](super::split_groups) describes.
pub fn divide(groups: &[usize], labels: &[usize], train_share: f64, rng: &mut ChaCha8Rng) -> Sides {
    assert_eq!(groups.len(), labels.len(), "one label per group number");
    let classes = labels.iter().max().map_or(0, |label| label + 1);
    let numbers = crate::groups::equal(groups);
    let empty = || Group { rows: Vec::new(), counts: vec![0.0; classes], train: false };
    let mut all: Vec<Group> = (0..numbers.iter().max().map_or(0, |last| last + 1)).map(|_| empty()).collect();
    for (row, (&number, &label)) in numbers.iter().zip(labels).enumerate() {
        all[number].rows.push(row);
        all[number].counts[label] += 1.0;
    }
    shuffle(&mut all, rng);
    let large = 0.1 * groups.len() as f64 * train_share.min(1.0 - train_share);
    all.sort_by_key(|group| {
        let size = group.rows.len();
        std::cmp::Reverse(if size as f64 > large { size } else { 0 })
    });

    let totals: Vec<f64> =
        (0..classes).map(|label| labels.iter().filter(|&&other| other == label).count() as f64).collect();
    // Rows of each label that the sides lack.
    let mut train: Vec<f64> = totals.iter().map(|total| total * train_share).collect();
    let mut held_out: Vec<f64> = totals.iter().zip(&train).map(|(total, train)| total - train).collect();
    for group in &mut all {
        let lack =
            |side: &[f64]| side.iter().zip(&group.counts).map(|(lack, count)| lack * count).sum::<f64>();
        group.train = lack(&train) >= lack(&held_out);
        let side = if group.train { &mut train } else { &mut held_out };
        side.iter_mut().zip(&group.counts).for_each(|(lack, count)| *lack -= count);
    }
    let excess = train.iter().map(|lack| -lack).collect();
    let mut sides = Sides { groups: all, excess };
    sides.improve();
    sides
}

impl Sides {
    /// Moves single groups, or exchanges two, for as long as the sum of the squared excesses falls.
    fn improve(&mut self) {
        loop {
            let kinds = self.kinds();
            let mut moves: Vec<Vec<usize>> = kinds.iter().map(|&group| vec![group]).collect();
            let (train, held_out): (Vec<usize>, Vec<usize>) =
                kinds.into_iter().partition(|&group| self.groups[group].train);
            for &a in &train {
                moves.extend(held_out.iter().map(|&b| vec![a, b]));
            }
            let best = moves.into_iter().map(|moved| (self.cost_after(&moved), moved));
            let best = best.min_by(|(a, _), (b, _)| a.total_cmp(b));
            // A step must gain more than rounding can feign, or it could be undone and done again for ever.
            match best {
                Some((cost, moved)) if cost < self.cost_after(&[]) - 1e-6 => {
                    moved.into_iter().for_each(|group| self.move_group(group));
                }
                _ => return,
            }
        }
    }

    /// Takes groups from the training side until it has at most `most` rows, each time the one that costs least.
    pub fn shrink_to(&mut self, most: usize) {
        let rows =
            |sides: &Sides| sides.groups.iter().filter(|g| g.train).map(|g| g.rows.len()).sum::<usize>();
        while rows(self) > most {
            let from_train = self.kinds().into_iter().filter(|&group| self.groups[group].train);
            let costs = from_train.map(|group| (self.cost_after(&[group]), group));
            let (_, group) =
                costs.min_by(|(a, _), (b, _)| a.total_cmp(b)).expect("there are rows to train on");
            self.move_group(group);
        }
    }

    /// One group of each kind; groups of one kind are on one side and have equal counts. The last in the order of the
    /// groups stands for its kind, which is random among equals.
    fn kinds(&self) -> Vec<usize> {
        let mut kinds = std::collections::BTreeMap::new();
        for (index, group) in self.groups.iter().enumerate() {
            let counts: Vec<u64> = group.counts.iter().map(|&count| count as u64).collect();
            kinds.insert((group.train, counts), index);
        }
        kinds.into_values().collect()
    }

    /// Sum of the squared excesses if these groups went to their other sides.
    fn cost_after(&self, moved: &[usize]) -> f64 {
        let mut excess = self.excess.clone();
        for &group in moved {
            excess.iter_mut().zip(self.groups[group].change()).for_each(|(excess, change)| *excess += change);
        }
        excess.iter().map(|excess| excess * excess).sum()
    }

    fn move_group(&mut self, group: usize) {
        let group = &mut self.groups[group];
        self.excess.iter_mut().zip(group.change()).for_each(|(excess, change)| *excess += change);
        group.train = !group.train;
    }

    /// The rows of the two sides, ascending.
    pub fn split(&self) -> Split {
        let side = |train| {
            let rows = self.groups.iter().filter(|group| group.train == train).flat_map(|group| &group.rows);
            let mut rows: Vec<usize> = rows.copied().collect();
            rows.sort_unstable();
            rows
        };
        Split { train: side(true), held_out: side(false) }
    }
}
