//! The order of very many scores: bins by leading bits first, comparisons within a bin alone.
//!
//! A sort of indices reads a score from memory for each comparison, which for the 85 million block parameters of GPT-2
//! small takes minutes. Here each score is read from memory twice, and what is compared lies in the cache.

use locus_gpt2::Scalar;
use rayon::prelude::*;

/// Number of bins, which are the first bits of a score in double precision: sign, exponent and four bits more.
pub(super) const BINS: usize = 1 << 16;

/// Number of a score's bin. A larger score is in the same bin or one of a larger number; both zeros are in one.
pub(super) fn bin<F: Scalar>(score: F) -> usize {
    let score = score.as_f64() + 0.0;
    assert!(!score.is_nan(), "scores are not NaN");
    let bits = score.to_bits();
    let ordered = if score.is_sign_negative() { !bits } else { bits | 1 << 63 };
    (ordered >> 48) as usize
}

/// Indices of all scores, smallest score first; equal scores keep their order.
///
/// # Panics
/// When a score is NaN, or there are more scores than a `u32` counts.
pub(super) fn ascending<F: Scalar>(scores: &[F]) -> Vec<u32> {
    let n = u32::try_from(scores.len()).expect("parameters are counted in 32 bits");
    let mut sizes = vec![0usize; BINS];
    scores.iter().for_each(|&score| sizes[bin(score)] += 1);
    let mut next: Vec<usize> = Vec::with_capacity(BINS);
    sizes.iter().fold(0, |at, size| {
        next.push(at);
        at + size
    });
    let mut order = vec![0; scores.len()];
    for i in 0..n {
        let at = &mut next[bin(scores[i as usize])];
        order[*at] = i;
        *at += 1;
    }
    let mut rest = order.as_mut_slice();
    let mut bins = Vec::new();
    for size in sizes.into_iter().filter(|&size| size > 0) {
        let (of_bin, others) = rest.split_at_mut(size);
        bins.push(of_bin);
        rest = others;
    }
    bins.into_par_iter().for_each(|of_bin| sort(scores, of_bin));
    order
}

/// Sorts indices by their scores, and by themselves where scores are equal.
fn sort<F: Scalar>(scores: &[F], indices: &mut [u32]) {
    let mut read: Vec<(F, u32)> = indices.iter().map(|&i| (scores[i as usize], i)).collect();
    read.sort_unstable_by(|(a, i), (b, j)| a.partial_cmp(b).expect("scores are not NaN").then(i.cmp(j)));
    indices.iter_mut().zip(read).for_each(|(index, (_, i))| *index = i);
}

/// Scores that are hard to order: many ties, both zeros, neighbours in their last bits, infinities, subnormal numbers.
#[cfg(test)]
pub(super) fn awkward_scores() -> [Vec<f32>; 5] {
    let kinds: [fn(usize) -> f32; 5] = [
        |i| (i % 5) as f32 - 2.0,
        |i| if i.is_multiple_of(2) { 0.0 } else { -0.0 },
        |i| f32::from_bits(1.5f32.to_bits() + i as u32 * 31 % 7),
        |i| [f32::INFINITY, f32::NEG_INFINITY, f32::MIN_POSITIVE, -1e-40, 3e38][i % 5],
        |i| ((i * 7919 % 1000) as f32 - 500.0) * 1e-3,
    ];
    kinds.map(|kind| (0..997).map(kind).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A larger score is never in a bin of a smaller number.
    #[test]
    fn bins_are_in_the_order_of_the_scores() {
        let scores = [
            f64::NEG_INFINITY,
            -1e300,
            -2.0,
            -1.0,
            -1e-310,
            -0.0,
            0.0,
            1e-310,
            1.0,
            1.03,
            1.07,
            7e5,
            f64::INFINITY,
        ];
        assert!(scores.windows(2).all(|pair| bin(pair[0]) <= bin(pair[1])));
        assert_eq!(bin(-0.0), bin(0.0));
        assert!(bin(1.0) < bin(1.07) && bin(-1.07) < bin(-1.0));
    }

    /// Bins give the order of a stable sort: with ties, both zeros, infinities, and bins of one score and of many.
    #[test]
    fn the_order_is_that_of_a_stable_sort() {
        for all in awkward_scores() {
            for n in [0, 1, 2, all.len()] {
                let scores = &all[..n];
                let mut expected: Vec<u32> = (0..n as u32).collect();
                expected.sort_by(|&a, &b| scores[a as usize].partial_cmp(&scores[b as usize]).unwrap());
                assert_eq!(ascending(scores), expected);
            }
        }
    }

    #[test]
    #[should_panic(expected = "scores are not NaN")]
    fn nan_has_no_place() {
        ascending(&[1.0, f64::NAN]);
    }
}
