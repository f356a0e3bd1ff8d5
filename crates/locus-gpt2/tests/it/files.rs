//! Files: round trips, identical bytes, and one clear line for each kind of broken input.

use std::path::Path;

use locus_gpt2::{
    Batch, BlockParam, Checkpoint, Config, Gpt2, ParamId, ParamMask, PromptTargets, Tokenizer,
    write_checkpoint,
};
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};

use crate::support::golden_folder;

fn model() -> Gpt2<f32> {
    Gpt2::init(&Config::new(2, 2, 6, 8, 11), &mut ChaCha8Rng::seed_from_u64(5))
}

/// A folder with a complete small checkpoint that a test may break.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for file in ["config.json", "model.safetensors", "tokenizer.json"] {
        std::fs::copy(golden_folder().join("score").join(file), folder.path().join(file)).unwrap();
    }
    folder
}

fn edit_config(folder: &Path, field: &str, value: serde_json::Value) {
    let path = folder.join("config.json");
    let mut json: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    json[field] = value;
    std::fs::write(&path, json.to_string()).unwrap();
}

fn error(folder: &Path) -> String {
    let error = Checkpoint::<f32>::from_pretrained(folder).expect_err("the checkpoint is broken").to_string();
    assert!(!error.contains('\n'), "one line: {error}");
    error
}

#[test]
fn checkpoints_round_trip_with_identical_bytes() {
    let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let model = model();
    for folder in [&a, &b] {
        write_checkpoint(folder.path(), &model, "{}").unwrap();
    }
    let bytes = |folder: &tempfile::TempDir| std::fs::read(folder.path().join("model.safetensors")).unwrap();
    assert_eq!(bytes(&a), bytes(&b));
    let config = Config::read(&a.path().join("config.json")).unwrap();
    let read = Gpt2::<f32>::read(&a.path().join("model.safetensors"), &config).unwrap();
    assert_eq!(read.sha256(), model.sha256());
    assert_eq!(std::fs::read_dir(a.path()).unwrap().count(), 2, "no temporary file stays behind");
}

#[test]
fn masks_round_trip_and_absent_tensors_are_unmasked() {
    let model = model();
    let config = model.config();
    let path = tempfile::tempdir().unwrap().keep().join("mask.safetensors");
    let mask = ParamMask::random(config, 100, &mut ChaCha8Rng::seed_from_u64(1));
    mask.write(&path, "{}").unwrap();
    assert_eq!(ParamMask::read(&path, config).unwrap(), mask);
    let other = Config::new(2, 2, 8, 8, 11);
    let why = ParamMask::read(&path, &other).unwrap_err().to_string();
    assert!(why.contains("mask.safetensors") && why.contains("expected U8"), "{why}");
    locus_gpt2::write_safetensors(&path, &[], "{}").unwrap();
    assert_eq!(ParamMask::read(&path, config).unwrap(), ParamMask::full(config));
}

#[test]
fn broken_checkpoints_say_what_where_and_what_was_expected() {
    let broken = folder();
    std::fs::remove_file(broken.path().join("model.safetensors")).unwrap();
    assert!(error(broken.path()).contains("model.safetensors"));

    let broken = folder();
    let weights = broken.path().join("model.safetensors");
    let bytes = std::fs::read(&weights).unwrap();
    for length in [0, 4, 40, bytes.len() / 2, bytes.len() - 1] {
        std::fs::write(&weights, &bytes[..length]).unwrap();
        let why = error(broken.path());
        assert!(
            why.contains("model.safetensors") && why.contains("safetensors file") || why.contains("empty"),
            "{why}"
        );
    }

    let broken = folder();
    edit_config(broken.path(), "n_embd", 32.into());
    let why = error(broken.path());
    assert!(why.contains("has shape") && why.contains("config.json asks for"), "{why}");

    let broken = folder();
    edit_config(broken.path(), "n_layer", 3.into());
    let why = error(broken.path());
    assert!(why.contains("h.2.ln_1.weight is missing"), "{why}");

    let broken = folder();
    edit_config(broken.path(), "n_layer", serde_json::Value::Null);
    let why = error(broken.path());
    assert!(why.contains("config.json") && why.contains("not a GPT-2 config"), "{why}");

    let broken = folder();
    edit_config(broken.path(), "vocab_size", 10.into());
    let why = error(broken.path());
    assert!(why.contains("wte.weight has shape [400, 16]; config.json asks for [10, 16]"), "{why}");

    let broken = folder();
    edit_config(broken.path(), "activation_function", "relu".into());
    assert!(error(broken.path()).contains("expected \"gelu_new\""));

    let broken = folder();
    std::fs::write(broken.path().join("tokenizer.json"), "{}").unwrap();
    assert!(error(broken.path()).contains("tokenizer.json: not a tokenizer"));
}

#[test]
fn weights_that_are_not_finite_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut model = model();
    model.get_mut(ParamId::Block(1, BlockParam::MlpInBias))[3] = f32::NAN;
    let path = folder.path().join("model.safetensors");
    model.write(&path, "{}").unwrap();
    let why = Gpt2::<f32>::read(&path, model.config()).unwrap_err().to_string();
    assert!(why.contains("h.1.mlp.c_fc.bias has NaN at index 3; expected finite numbers"), "{why}");
}

#[test]
fn unusable_batches_are_refused() {
    let config = Config::new(1, 1, 4, 3, 5);
    let why = |sequences: &[Vec<u32>]| Batch::<f32>::new(&config, sequences).unwrap_err().to_string();
    assert!(why(&[vec![1], vec![]]).contains("sequence 1 has no tokens"));
    assert!(why(&[vec![1; 4]]).contains("at most 3"));
    assert!(why(&[vec![5]]).contains("vocabulary has 5"));
    let no_target = PromptTargets::<f32>::new(&config, &[(vec![1], vec![])]).unwrap_err().to_string();
    assert!(no_target.contains("target 0 has no tokens"));
}

/// GPT-2's own vocabulary, when the shared test data is there: known ids, exact round trip, leading spaces kept.
#[test]
fn gpt2_tokenizer() {
    let shared = std::env::var_os("LOCUS_SHARED_DATA").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data"),
        std::path::PathBuf::from,
    );
    let folder = shared.join("gpt2-tokenizer");
    if !folder.exists() {
        assert!(std::env::var_os("CI").is_none(), "{} is absent", folder.display());
        println!("skipped: {} is absent", folder.display());
        return;
    }
    let tokenizer = Tokenizer::read(&folder).unwrap();
    assert_eq!(tokenizer.vocab_size(), 50_257);
    assert_eq!(tokenizer.encode("Hello world").unwrap(), [15496, 995]);
    assert_eq!(tokenizer.encode(" cat").unwrap(), [3797]);
    assert_eq!(tokenizer.encode("").unwrap(), [0u32; 0]);
    let text = " A caf\u{e9}, 3.5% \u{2014} it's\n\nfine ";
    assert_eq!(tokenizer.decode(&tokenizer.encode(text).unwrap()).unwrap(), text);
}
