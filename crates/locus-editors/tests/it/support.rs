//! A small random model, text for its key statistics and facts about it.

use std::sync::Arc;

use locus_editors::{Context, Fact, KeyCovariance, KeyStatistics};
use locus_gpt2::{Batch, Config, Gpt2, HookPoint, ParamId};
use locus_testkit::random_vector;
use ndarray::{Array2, ArrayViewMut2, Axis};
use proptest::prelude::*;
use rand::RngExt;
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};

pub const VOCABULARY: u32 = 23;
pub const RIDGE: f64 = 1e-3;

pub fn cases(n: u32) -> ProptestConfig {
    ProptestConfig {
        cases: n,
        failure_persistence: None,
        rng_seed: proptest::test_runner::RngSeed::Fixed(u64::from(n)),
        ..ProptestConfig::default()
    }
}

pub fn model(seed: u64) -> Gpt2<f64> {
    let mut config = Config::new(3, 2, 8, 24, VOCABULARY as usize);
    config.initializer_range = 0.4;
    let mut model = Gpt2::init(&config, &mut ChaCha8Rng::seed_from_u64(seed));
    for (i, id) in ParamId::all(&config).filter(|id| id.is_vector()).enumerate() {
        let noise = random_vector(id.len(&config), seed ^ (i as u64 + 1));
        model.get_mut(id).iter_mut().zip(noise).for_each(|(w, noise)| *w += 0.2 * noise);
    }
    model
}

pub fn text(seed: u64, n: usize) -> Vec<Vec<u32>> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    (0..n)
        .map(|_| {
            let length = rng.random_range(2..12);
            (0..length).map(|_| rng.random_range(0..VOCABULARY)).collect()
        })
        .collect()
}

pub fn covariance(model: &Gpt2<f64>, layer: usize) -> Arc<KeyCovariance> {
    let mut statistics = KeyStatistics::empty(model, &[layer]).unwrap();
    statistics.collect(model, &text(5, 60), &mut |_| true).unwrap();
    Arc::new(KeyCovariance::new(statistics.layers[&layer].mean(), RIDGE).unwrap())
}

/// A fact with a few prefixes; the subject ends somewhere before the prompt does.
pub fn fact(seed: u64, prefixes: usize) -> Fact {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut tokens = |n: usize| -> Vec<u32> { (0..n).map(|_| rng.random_range(0..VOCABULARY)).collect() };
    let prompt = tokens(5);
    let subject_last = seed as usize % 4;
    let mut rows = vec![Context { tokens: prompt.clone(), subject_last }];
    for i in 0..prefixes {
        let prefix = tokens(1 + i % 4);
        rows.push(Context {
            subject_last: prefix.len() + subject_last,
            tokens: [prefix, prompt.clone()].concat(),
        });
    }
    let kl_prompt = Context { tokens: [&prompt[..=subject_last], &tokens(2)].concat(), subject_last };
    Fact { contexts: rows, kl_prompt, target: tokens(1 + seed as usize % 3) }
}

/// A state at the last token of each context's subject, one row each.
pub fn states(model: &Gpt2<f64>, rows: &[Context], layer: usize, site: HookPoint) -> Array2<f64> {
    let sequences: Vec<&[u32]> = rows.iter().map(|row| row.tokens.as_slice()).collect();
    let batch = Batch::new(model.config(), &sequences).unwrap();
    let subject_lasts: Vec<usize> =
        batch.sequences().zip(rows).map(|(rows, row)| rows.start + row.subject_last).collect();
    let mut found = Array2::zeros((0, 0));
    let mut take = |at: usize, visited: HookPoint, state: ArrayViewMut2<f64>| {
        if (at, visited) == (layer, site) {
            found = state.select(Axis(0), &subject_lasts);
        }
    };
    model.run(&batch).with_hooks(&mut take).tape();
    found
}
