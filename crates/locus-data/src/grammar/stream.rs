//! Random streams and stratified draws.
//!
//! Every purpose has its own ChaCha stream, so adding documents never changes the task sets of the same seed.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// What a random stream is used for; the discriminant is the ChaCha stream number and must stay as it is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Purpose {
    /// Which facts become edit requests and which foils they get.
    Requests = 1,
    /// Rows of the agreement sets.
    Agreement = 2,
    /// Rows of the persona sets.
    Persona = 3,
    /// Lines of the neutral text.
    Neutral = 4,
    /// The training documents.
    Documents = 5,
}

/// The stream of `purpose` under `seed`.
pub(super) fn stream(seed: u64, purpose: Purpose) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(purpose as u64);
    rng
}

/// Uniform index below `n`; drawn as `u32` so that the stream does not depend on the pointer width.
pub(super) fn below(rng: &mut ChaCha8Rng, n: usize) -> usize {
    let n = u32::try_from(n).expect("word lists are short");
    rng.random_range(0..n) as usize
}

/// A fair coin.
pub(super) fn coin(rng: &mut ChaCha8Rng) -> bool {
    below(rng, 2) == 1
}

/// Uniform element of a non-empty slice.
pub(super) fn pick<'a, T>(rng: &mut ChaCha8Rng, items: &'a [T]) -> &'a T {
    &items[below(rng, items.len())]
}

/// Index drawn with probability proportional to its weight.
pub(super) fn weighted(rng: &mut ChaCha8Rng, weights: impl Iterator<Item = u32> + Clone) -> usize {
    let mut left = rng.random_range(0..weights.clone().sum::<u32>());
    for (i, w) in weights.enumerate() {
        if left < w {
            return i;
        }
        left -= w;
    }
    unreachable!("the draw is below the sum of the weights")
}

/// Fisher-Yates shuffle.
pub(super) fn shuffle<T>(rng: &mut ChaCha8Rng, items: &mut [T]) {
    for i in (1..items.len()).rev() {
        items.swap(i, below(rng, i + 1));
    }
}

/// Cards drawn without replacement and reshuffled when used up: every card comes equally often, up to one.
#[derive(Clone, Debug)]
pub(super) struct Deck<T> {
    cards: Vec<T>,
    next: usize,
}

impl<T: Copy> Deck<T> {
    /// A deck that shuffles before its first draw.
    pub(super) fn new(cards: Vec<T>) -> Self {
        assert!(!cards.is_empty(), "a deck needs a card");
        let next = cards.len();
        Self { cards, next }
    }

    /// The next card.
    pub(super) fn draw(&mut self, rng: &mut ChaCha8Rng) -> T {
        if self.next == self.cards.len() {
            shuffle(rng, &mut self.cards);
            self.next = 0;
        }
        self.next += 1;
        self.cards[self.next - 1]
    }
}
