//! Overlap of the circuits of two tasks (T5): how many parameters they share, and how many independent masks would.
//!
//! With `a_t`, `b_t` the parameters kept in tensor `t` of size `n_t`, independent masks share `sum_t a_t b_t / n_t`;
//! masks that also prefer certain sizes of weights share the sum over tensors and classes of |w|. Two circuits of one
//! task with different seeds are the ceiling: what the recipe finds again.

use locus_circuits::masks::WeightStrata;
use locus_gpt2::ParamMask;

use crate::extract::Extracted;
use crate::records::{Overlap, Schedule, Scope};
use crate::settings::MAIN_DENSITIES;

/// Overlap of every pair of tasks, and of every task's circuits with different seeds, for each preset at both main
/// densities.
pub fn overlaps(extracted: &[Extracted], strata: &WeightStrata) -> Vec<Overlap> {
    let mut overlaps = Vec::new();
    for preset in crate::settings::Preset::ALL {
        for density in MAIN_DENSITIES {
            let circuits: Vec<&Extracted> = extracted
                .iter()
                .filter(|Extracted { record, .. }| {
                    record.preset == preset.name()
                        && record.target_density == density
                        && (record.scope, record.schedule) == (Scope::Circuit, Schedule::Sweep)
                        && record.reached
                })
                .collect();
            let first: Vec<&Extracted> = circuits.iter().copied().filter(|c| c.record.draw == 0).collect();
            for (i, a) in first.iter().enumerate() {
                overlaps.extend(first[i + 1..].iter().map(|b| overlap(a, b, strata)));
                let again = circuits.iter().filter(|b| b.record.draw > 0 && b.record.task == a.record.task);
                overlaps.extend(again.map(|b| overlap(a, b, strata)));
            }
        }
    }
    overlaps
}

fn overlap(a: &Extracted, b: &Extracted, strata: &WeightStrata) -> Overlap {
    let (counts_a, counts_b) = (a.mask.counts(), b.mask.counts());
    let expected =
        counts_a.iter().zip(&counts_b).map(|(&(_, a, size), &(_, b, _))| a as f64 * b as f64 / size as f64);
    Overlap {
        preset: a.record.preset.clone(),
        target_density: a.record.target_density,
        task_a: a.record.task.clone(),
        task_b: b.record.task.clone(),
        draw_b: b.record.draw,
        intersection: a.mask.intersection_counts(&b.mask).iter().sum(),
        size_a: a.mask.count(),
        size_b: b.mask.count(),
        population: ParamMask::n_maskable(a.mask.config()),
        expected_intersection_stratified: expected.sum(),
        expected_intersection_matched: strata.expected_intersection(&a.mask, &b.mask),
    }
}
