//! Overlap of the circuits of two tasks (T5): how many parameters they share, and how many independent masks would.
//!
//! With `a_t`, `b_t` the parameters kept in tensor `t` of size `n_t`, independent masks share `sum_t a_t b_t / n_t`.

use locus_gpt2::ParamMask;

use crate::extract::Extracted;
use crate::records::Overlap;
use crate::settings::{MAIN_DENSITIES, Preset};

/// Overlap of every pair of tasks, for the circuits of a preset at both main densities.
pub fn overlaps(extracted: &[Extracted], preset: Preset) -> Vec<Overlap> {
    let mut overlaps = Vec::new();
    for density in MAIN_DENSITIES {
        let circuits: Vec<&Extracted> = extracted
            .iter()
            .filter(|e| e.record.preset == preset.name() && e.record.target_density == density)
            .collect();
        for (i, a) in circuits.iter().enumerate() {
            for b in &circuits[i + 1..] {
                overlaps.push(overlap(a, b));
            }
        }
    }
    overlaps
}

fn overlap(a: &Extracted, b: &Extracted) -> Overlap {
    let (counts_a, counts_b) = (a.mask.counts(), b.mask.counts());
    let expected =
        counts_a.iter().zip(&counts_b).map(|(&(_, a, size), &(_, b, _))| a as f64 * b as f64 / size as f64);
    Overlap {
        preset: a.record.preset.clone(),
        target_density: a.record.target_density,
        task_a: a.record.task.clone(),
        task_b: b.record.task.clone(),
        intersection: a.mask.intersection_counts(&b.mask).iter().sum(),
        size_a: a.mask.count(),
        size_b: b.mask.count(),
        population: ParamMask::n_maskable(a.mask.config()),
        expected_intersection_stratified: expected.sum(),
    }
}
