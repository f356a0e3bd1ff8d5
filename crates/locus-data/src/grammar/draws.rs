//! Random streams of the grammar, uniform and weighted draws, and decks that draw without replacement.
//!
//! Every purpose has its own ChaCha stream, so more documents do not change the task sets of a seed. A generator is
//! always the last argument.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::seed::shuffle_by;

/// Purpose of a random stream. The discriminant is the ChaCha stream number, on which every corpus depends.
#[derive(Clone, Copy, Debug)]
pub(super) enum Purpose {
    /// Facts that become edit requests, and their foils.
    Requests = 1,
    /// Rows of the agreement sets.
    Agreement = 2,
    /// Rows of the persona sets.
    Persona = 3,
    /// Lines of the neutral text.
    Neutral = 4,
    /// Training documents.
    Documents = 5,
}

/// Stream of a purpose.
pub(super) fn stream(seed: u64, purpose: Purpose) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(purpose as u64);
    rng
}

/// Uniform index below `n`, drawn as `u32` so that the stream does not depend on the pointer width.
pub(super) fn below(n: usize, rng: &mut ChaCha8Rng) -> usize {
    let n = u32::try_from(n).expect("word lists are short");
    rng.random_range(0..n) as usize
}

/// A fair coin.
pub(super) fn coin(rng: &mut ChaCha8Rng) -> bool {
    below(2, rng) == 1
}

/// Uniform element of a non-empty slice.
pub(super) fn pick<'a, T>(items: &'a [T], rng: &mut ChaCha8Rng) -> &'a T {
    &items[below(items.len(), rng)]
}

/// Index of a weight, drawn with a probability proportional to the weight.
pub(super) fn weighted(weights: impl Iterator<Item = u32> + Clone, rng: &mut ChaCha8Rng) -> usize {
    let mut left = rng.random_range(0..weights.clone().sum::<u32>());
    for (i, w) in weights.enumerate() {
        if left < w {
            return i;
        }
        left -= w;
    }
    unreachable!("the draw is below the sum of the weights")
}

/// Puts items into a random order by the draws of this module.
pub(super) fn shuffle<T>(items: &mut [T], rng: &mut ChaCha8Rng) {
    shuffle_by(items, |n| below(n, rng));
}

/// Cards that are drawn without replacement, and shuffled again when all are drawn: the numbers of draws of two cards
/// differ by at most one.
#[derive(Clone, Debug)]
pub(super) struct Deck<T> {
    cards: Vec<T>,
    next: usize,
}

impl<T: Copy> Deck<T> {
    /// Deck that is shuffled before its first draw.
    pub(super) fn new(cards: Vec<T>) -> Self {
        assert!(!cards.is_empty(), "a deck needs a card");
        let next = cards.len();
        Self { cards, next }
    }

    /// Next card.
    pub(super) fn draw(&mut self, rng: &mut ChaCha8Rng) -> T {
        if self.next == self.cards.len() {
            shuffle(&mut self.cards, rng);
            self.next = 0;
        }
        self.next += 1;
        self.cards[self.next - 1]
    }
}
