//! Random numbers of statistics: named streams of one seed.
//!
//! A stream is ChaCha8 seeded with the run's seed, at a stream number that is the FNV-1a hash of its purpose.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

/// One of the 2^64 independent ChaCha8 streams of a seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stream {
    seed: u64,
    index: u64,
}

impl Stream {
    /// Stream number `index` of `seed`.
    pub const fn new(seed: u64, index: u64) -> Self {
        Self { seed, index }
    }

    /// Stream of `seed` that belongs to a purpose, for example `"T2/blimp_dna1/circuit"`.
    ///
    /// Streams are named instead of counted so that no result changes when another one is added or left out.
    pub const fn named(seed: u64, purpose: &str) -> Self {
        // FNV-1a with 64 bits is the same on every platform and release; `std`'s hasher promises neither.
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        let bytes = purpose.as_bytes();
        let mut i = 0;
        while i < bytes.len() {
            hash = (hash ^ bytes[i] as u64).wrapping_mul(0x0000_0100_0000_01b3);
            i += 1;
        }
        Self::new(seed, hash)
    }

    pub(crate) fn rng(self) -> ChaCha8Rng {
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        rng.set_stream(self.index);
        rng
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::Rng;

    #[test]
    fn names_hash_as_fnv_1a_does() {
        assert_eq!(Stream::named(0, ""), Stream::new(0, 0xcbf2_9ce4_8422_2325));
        assert_eq!(Stream::named(0, "foobar"), Stream::new(0, 0x8594_4171_f739_67e8));
    }

    #[test]
    fn seed_and_index_both_matter() {
        let first = |seed, index| Stream::new(seed, index).rng().next_u64();
        assert_eq!(first(1, 2), first(1, 2));
        assert_ne!(first(1, 2), first(1, 3));
        assert_ne!(first(1, 2), first(2, 2));
    }
}
