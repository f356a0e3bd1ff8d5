//! Where randomness comes from: streams derived from (seed, purpose, index), and the few draws the project needs.
//!
//! A stream depends on nothing but its three names, so work can be cut up over threads, or a stage left out, without
//! moving any other stage's numbers. The draws are written out here rather than taken from `rand`, whose sampling
//! algorithms may change between versions: a seed in a published table must keep its meaning.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use sha2::{Digest, Sha256};

/// The stream of random numbers of one purpose, e.g. `stream(seed, "split/hierarchy", 0)`.
///
/// ```
/// use locus_data::seed::{below, stream};
/// let dice = |index| below(&mut stream(7, "dice", index), 6);
/// assert_eq!(dice(0), dice(0));
/// ```
pub fn stream(seed: u64, purpose: &str, index: u64) -> ChaCha8Rng {
    let mut hasher = Sha256::new();
    // All parts but one have a fixed length: different triples are different messages.
    hasher.update(b"locus stream 1");
    hasher.update(seed.to_le_bytes());
    hasher.update(index.to_le_bytes());
    hasher.update(purpose.as_bytes());
    ChaCha8Rng::from_seed(hasher.finalize().into())
}

/// A number below `bound`, by widening multiplication. Its bias is below `bound / 2^64`.
///
/// # Panics
/// If `bound` is 0.
pub fn below(rng: &mut ChaCha8Rng, bound: usize) -> usize {
    assert!(bound > 0, "no number is below 0");
    ((u128::from(rng.next_u64()) * bound as u128) >> 64) as usize
}

/// Fisher-Yates, from the end.
pub fn shuffle<T>(rng: &mut ChaCha8Rng, items: &mut [T]) {
    for last in (1..items.len()).rev() {
        items.swap(last, below(rng, last + 1));
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
        let drawn: Vec<usize> = (0..8).map(|_| below(&mut rng, 1000)).collect();
        assert_eq!(drawn, GOLDEN_DRAWS);
        let mut items: Vec<usize> = (0..8).collect();
        shuffle(&mut rng, &mut items);
        assert_eq!(items, GOLDEN_SHUFFLE);
    }

    // Computed by an independent implementation of SHA-256 and ChaCha8 (in Python).
    const GOLDEN_DRAWS: [usize; 8] = [141, 811, 412, 749, 327, 616, 666, 980];
    const GOLDEN_SHUFFLE: [usize; 8] = [5, 1, 3, 4, 2, 6, 7, 0];

    #[test]
    fn shuffles_evenly() {
        let mut counts = [[0; 4]; 4];
        for index in 0..4000 {
            let mut items = [0, 1, 2, 3];
            shuffle(&mut stream(0, "even", index), &mut items);
            for (place, item) in items.into_iter().enumerate() {
                counts[place][item] += 1;
            }
        }
        // 1,000 expected, standard deviation 27.
        assert!(counts.iter().flatten().all(|n| (880..1120).contains(n)), "{counts:?}");
    }
}
