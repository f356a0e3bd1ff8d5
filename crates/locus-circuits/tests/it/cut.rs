//! Masks of an exact size, cut from scores.

use locus_circuits::masks::{count_at_density, top_k};
use locus_gpt2::{Config, Gpt2, ParamMask};
use proptest::prelude::*;

use crate::support::{cases, flat, inside, with_blocks};

fn config() -> Config {
    Config::new(2, 2, 4, 5, 6)
}

fn population() -> usize {
    ParamMask::n_maskable(&config())
}

fn params(scores: &[f64]) -> Gpt2<f64> {
    with_blocks(&Gpt2::zeros(&config()), scores)
}

/// Scores of few values, so with many ties; both zeros and both infinities are among them.
fn scores() -> impl Strategy<Value = Vec<f64>> {
    const VALUES: [f64; 8] =
        [f64::NEG_INFINITY, -2.5, -0.0, 0.0, 1e-300, 1.0, 1.0 + f64::EPSILON, f64::INFINITY];
    let tied = prop::sample::select(VALUES.to_vec());
    prop::collection::vec(prop_oneof![tied, -1.0f64..1.0], population())
}

proptest! {
    #![proptest_config(cases(64))]

    /// Against sorting all scores, best first and equal ones in parameter order.
    #[test]
    fn the_best_are_kept(scores in scores(), count in 1usize..=population()) {
        let mask = top_k(&params(&scores), count);
        prop_assert_eq!(mask.count(), count);
        let mut order: Vec<usize> = (0..scores.len()).collect();
        order.sort_by(|&a, &b| scores[b].partial_cmp(&scores[a]).unwrap());
        let mut expected = vec![false; scores.len()];
        order[..count].iter().for_each(|&j| expected[j] = true);
        prop_assert_eq!(inside(&mask), expected);
    }

    #[test]
    fn smaller_cuts_lie_inside_larger_ones(scores in scores(), a in 1usize..=population(), b in 1usize..=population()) {
        let (small, large) = (top_k(&params(&scores), a.min(b)), top_k(&params(&scores), a.max(b)));
        prop_assert_eq!(small.intersection_counts(&large).iter().sum::<usize>(), small.count());
    }

    /// The mask depends only on the order of the scores.
    #[test]
    fn monotone_changes_do_not_matter(scores in prop::collection::vec(-5i32..5, population()), count in 1usize..=population()) {
        let scores: Vec<f64> = scores.into_iter().map(f64::from).collect();
        let moved: Vec<f64> = scores.iter().map(|x| x.exp() * 3.0 - 7.0).collect();
        prop_assert_eq!(top_k(&params(&scores), count), top_k(&params(&moved), count));
        prop_assert_eq!(top_k(&params(&scores), count), top_k(&params(&scores).cast::<f32>(), count));
    }

    #[test]
    fn counts_are_the_nearest(density in 0.0f64..=1.0, other in 0.0f64..=1.0) {
        let count = count_at_density(&config(), density);
        prop_assert!((1..=population()).contains(&count));
        prop_assert!(count == 1 || (count as f64 - density * population() as f64).abs() <= 0.5);
        prop_assert!(density > other || count <= count_at_density(&config(), other));
    }
}

#[test]
fn all_of_them() {
    let zeros = params(&vec![0.0; population()]);
    assert_eq!(top_k(&zeros, population()), ParamMask::full(&config()));
    assert_eq!(flat(&zeros).len(), population());
    assert_eq!(count_at_density(&config(), 1.0), population());
    assert_eq!(count_at_density(&config(), 0.0), 1);
}

#[test]
#[should_panic(expected = "0 of")]
fn nothing_is_no_circuit() {
    top_k(&params(&vec![0.0; population()]), 0);
}

#[test]
#[should_panic(expected = "scores are not NaN")]
fn nan_is_no_score() {
    top_k(&params(&vec![f64::NAN; population()]), 3);
}
