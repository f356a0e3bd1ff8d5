//! Writes the seeds that are made by the project's own writers: `cargo run --example write_seeds` in this folder.

use std::path::Path;

use locus_editors::{KeyStatistics, Patch};
use locus_gpt2::rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};
use locus_gpt2::{Gpt2, ParamId, ParamMask};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let config = locus_fuzz::model_config();
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds");
    let at = |target: &str, name: &str| {
        let folder = seeds.join(target);
        std::fs::create_dir_all(&folder).map(|()| folder.join(name))
    };
    let model = Gpt2::<f32>::init(&config, &mut ChaCha8Rng::seed_from_u64(1));
    model.write(&at("weights", "small.safetensors")?, "")?;
    ParamMask::full(&config).write(&at("mask", "full.safetensors")?, "")?;
    let mut edited = model.clone();
    edited.get_mut(ParamId::FinalNormBias)[0] += 1.0;
    Patch::between(&model, &edited).write(
        &at("patch", "dense.safetensors")?,
        &config,
        &serde_json::json!({}),
    )?;
    let mut statistics = KeyStatistics::empty(&model, &[0])?;
    statistics.collect(&model, &[vec![1, 2], vec![3, 4]], &mut |_| true)?;
    statistics.write(&at("key_statistics", "layer0.safetensors")?, &serde_json::json!({}))?;
    Ok(())
}
