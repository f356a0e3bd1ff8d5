//! A small random model, text for its key statistics and facts about it.

use std::sync::Arc;

use locus_editors::{Fact, KeyCovariance, KeyStatistics, Row};
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
    let lookup = seed as usize % 4;
    let mut rows = vec![Row { tokens: prompt.clone(), lookup }];
    for i in 0..prefixes {
        let prefix = tokens(1 + i % 4);
        rows.push(Row { lookup: prefix.len() + lookup, tokens: [prefix, prompt.clone()].concat() });
    }
    let essence = Row { tokens: [&prompt[..=lookup], &tokens(2)].concat(), lookup };
    Fact { rows, essence, target: tokens(1 + seed as usize % 3) }
}

/// A state at the lookups of rows, one row each.
pub fn states(model: &Gpt2<f64>, rows: &[Row], layer: usize, site: HookPoint) -> Array2<f64> {
    let sequences: Vec<&[u32]> = rows.iter().map(|row| row.tokens.as_slice()).collect();
    let batch = Batch::new(model.config(), &sequences).unwrap();
    let lookups: Vec<usize> =
        batch.sequences().zip(rows).map(|(rows, row)| rows.start + row.lookup).collect();
    let mut found = Array2::zeros((0, 0));
    let mut take = |at: usize, visited: HookPoint, state: ArrayViewMut2<f64>| {
        if (at, visited) == (layer, site) {
            found = state.select(Axis(0), &lookups);
        }
    };
    model.run(&batch).with_hooks(&mut take).tape();
    found
}
