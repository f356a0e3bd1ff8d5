//! Small random models and batches.

use std::path::PathBuf;

use locus_gpt2::{Batch, Config, Gpt2, ParamId};
use proptest::prelude::*;
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};

pub fn golden_folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/golden")
}

/// The whole input of a property: a model's shape and seed, and ragged sequences.
#[derive(Clone, Debug)]
pub struct Problem {
    pub config: Config,
    pub seed: u64,
    pub sequences: Vec<Vec<u32>>,
}

impl Problem {
    /// Weights large enough that every non-linearity is felt, biases and gains included.
    pub fn model(&self) -> Gpt2<f64> {
        let mut config = self.config.clone();
        config.initializer_range = 0.3;
        let mut model = Gpt2::<f64>::init(&config, &mut ChaCha8Rng::seed_from_u64(self.seed));
        for (i, id) in ParamId::all(&config).filter(|id| id.is_vector()).enumerate() {
            let noise = locus_testkit::random_vector(id.len(&config), self.seed ^ (i as u64 + 1));
            model.get_mut(id).iter_mut().zip(noise).for_each(|(w, noise)| *w += 0.2 * noise);
        }
        model
    }

    pub fn batch(&self) -> Batch<f64> {
        Batch::new(&self.config, &self.sequences).expect("problems fit their model")
    }
}

pub fn problem() -> impl Strategy<Value = Problem> {
    let shape = (1usize..=3, 1usize..=3, 1usize..=5, 4usize..=10, 3usize..=23);
    (shape, any::<u64>()).prop_flat_map(|((layers, heads, width, positions, vocab), seed)| {
        let mut config =
            Config::new(layers, heads, heads * width + if heads == 1 { 1 } else { 0 }, positions, vocab);
        // A quarter of the cases each: every property holds for every scale of attention.
        config.scale_attn_weights = seed & 1 == 0;
        config.scale_attn_by_inverse_layer_idx = seed & 2 == 0;
        let sequence = prop::collection::vec(0..vocab as u32, 1..=positions);
        prop::collection::vec(sequence, 1..=4).prop_map(move |sequences| Problem {
            config: config.clone(),
            seed,
            sequences,
        })
    })
}

/// Few cases: each is a whole model, and proptest keeps the failures.
pub fn cases(n: u32) -> ProptestConfig {
    // A fixed seed: the same tests run everywhere.
    let rng_seed = proptest::test_runner::RngSeed::Fixed(u64::from(n));
    ProptestConfig { cases: n, failure_persistence: None, rng_seed, ..ProptestConfig::default() }
}

/// What a call panics with.
pub fn panic_of<T>(call: impl FnOnce() -> T) -> String {
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(call));
    let payload = caught.err().expect("the call panics");
    match payload.downcast_ref::<String>() {
        Some(message) => message.clone(),
        None => (*payload.downcast_ref::<&str>().expect("a message")).to_owned(),
    }
}

/// Asserts that a call panics with a message that has all of the parts.
pub fn panics_with<T>(parts: &[&str], call: impl FnOnce() -> T) {
    let message = panic_of(call);
    for part in parts {
        assert!(message.contains(part), "{part:?} is not in {message:?}");
    }
}

/// A model with random weights of the given layers, heads and width.
pub fn model(n_layer: usize, n_head: usize, n_embd: usize) -> Gpt2<f64> {
    let config = Config::new(n_layer, n_head, n_embd, 8, 11);
    Problem { config, seed: 5, sequences: Vec::new() }.model()
}
