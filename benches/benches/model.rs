//! The forward pass at GPT-2 small's size.

use criterion::{Criterion, criterion_group};
use locus_gpt2::{Batch, Config, Gpt2};
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};
use std::hint::black_box;

fn batch(config: &Config, sequences: usize, length: usize) -> Batch<f32> {
    let vocab = config.vocab_size;
    let tokens = |i: usize| (0..length).map(|j| ((i * 131 + j * 17) % vocab) as u32).collect::<Vec<_>>();
    Batch::new(config, &(0..sequences).map(tokens).collect::<Vec<_>>()).expect("tokens fit")
}

fn gpt2_small(c: &mut Criterion) {
    let config = Config::gpt2_small();
    let model = Gpt2::<f32>::init(&config, &mut ChaCha8Rng::seed_from_u64(1));
    let mut group = c.benchmark_group("gpt2-small");
    group.sample_size(10);
    for (sequences, length) in [(1, 16), (8, 16), (8, 64)] {
        let batch = batch(&config, sequences, length);
        group.bench_function(format!("forward {sequences}x{length}"), |b| {
            b.iter(|| black_box(model.run(&batch).hidden()))
        });
    }
    group.finish();
}

criterion_group!(benches, gpt2_small);

fn main() {
    locus_benches::start_over_with_settings();
    benches();
    Criterion::default().configure_from_args().final_summary();
}
