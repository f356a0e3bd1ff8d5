//! Random numbers: streams named by seed, purpose and index, and draws whose results never change.
//!
//! A stream depends on its three names alone, so work can be spread over threads or a stage left out without moving the
//! numbers of another stage. The draws are written out here instead of taken from `rand`, whose sampling may change
//! with a version: a seed in a published table must keep its meaning.
//!
//! A generator is always the last argument.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use sha2::{Digest, Sha256};

/// Stream of random numbers for one purpose, for example `stream(seed, "split/hierarchy", 0)`: ChaCha8 whose key is the
/// SHA-256 of the three names.
///
/// ```
/// use locus_data::seed::{below, stream};
/// let dice = |index| below(6, &mut stream(7, "dice", index));
/// assert_eq!(dice(0), dice(0));
/// ```
pub fn stream(seed: u64, purpose: &str, index: u64) -> ChaCha8Rng {
    let mut hasher = Sha256::new();
    // All parts but the last have a fixed length, so different names are different messages.
    hasher.update(b"locus stream 1");
    hasher.update(seed.to_le_bytes());
    hasher.update(index.to_le_bytes());
    hasher.update(purpose.as_bytes());
    ChaCha8Rng::from_seed(hasher.finalize().into())
}

/// Uniform number below `bound`, by widening multiplication: the bias is below `bound / 2^64`.
///
/// # Panics
/// If `bound` is 0.
pub fn below(bound: usize, rng: &mut ChaCha8Rng) -> usize {
    assert!(bound > 0, "no number is below 0");
    ((u128::from(rng.next_u64()) * bound as u128) >> 64) as usize
}

/// Puts items into a random order, each order equally likely.
pub fn shuffle<T>(items: &mut [T], rng: &mut ChaCha8Rng) {
    shuffle_by(items, |bound| below(bound, rng));
}

/// Fisher-Yates shuffle from the last item down; `below` draws a uniform number below its argument.
pub(crate) fn shuffle_by<T>(items: &mut [T], mut below: impl FnMut(usize) -> usize) {
    for last in (1..items.len()).rev() {
        items.swap(last, below(last + 1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_of_the_name_matters() {
        let first = |seed, purpose, index| stream(seed, purpose, index).next_u64();
        let base = first(1, "a", 0);
        assert_eq!(base, first(1, "a", 0));
        for other in [first(2, "a", 0), first(1, "b", 0), first(1, "a", 1), first(1, "a\0", 0)] {
            assert_ne!(base, other);
        }
    }

    #[test]
    fn values_never_change() {
        let mut rng = stream(42, "test", 3);
        let drawn: Vec<usize> = (0..8).map(|_| below(1000, &mut rng)).collect();
        assert_eq!(drawn, GOLDEN_DRAWS);
        let mut items: Vec<usize> = (0..8).collect();
        shuffle(&mut items, &mut rng);
        assert_eq!(items, GOLDEN_SHUFFLE);
    }

    // Computed by an independent implementation of SHA-256 and ChaCha8 (in Python).
    const GOLDEN_DRAWS: [usize; 8] = [141, 811, 412, 749, 327, 616, 666, 980];
    const GOLDEN_SHUFFLE: [usize; 8] = [5, 1, 3, 4, 2, 6, 7, 0];

    #[test]
    #[should_panic(expected = "no number is below 0")]
    fn nothing_is_below_zero() {
        below(0, &mut stream(0, "none", 0));
    }

    #[test]
    fn shuffles_evenly() {
        let mut counts = [[0; 4]; 4];
        for index in 0..4000 {
            let mut items = [0, 1, 2, 3];
            shuffle(&mut items, &mut stream(0, "even", index));
            for (place, item) in items.into_iter().enumerate() {
                counts[place][item] += 1;
            }
        }
        // 1,000 expected, standard deviation 27.
        assert!(counts.iter().flatten().all(|n| (880..1120).contains(n)), "{counts:?}");
    }
}
