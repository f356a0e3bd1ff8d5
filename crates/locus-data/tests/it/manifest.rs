//! The project's own manifest.

use std::path::Path;

use locus_data::Manifest;
use locus_data::manifest::EntryKind;

#[test]
fn lists_data_and_models() {
    let manifest =
        Manifest::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/MANIFEST.toml")).unwrap();
    assert_eq!(manifest.entry("study").unwrap().files.len(), 15);
    assert_eq!(manifest.entry("blimp").unwrap().files.len(), 67);
    for name in ["gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl"] {
        let model = manifest.entry(name).unwrap();
        assert_eq!(model.kind, EntryKind::Model);
        let files: Vec<&str> = model.files.iter().map(|file| file.path.as_str()).collect();
        assert_eq!(files, ["config.json", "model.safetensors", "tokenizer.json"]);
    }
    for entry in manifest.entries.iter().filter(|entry| entry.kind == EntryKind::Data) {
        assert!(entry.files.iter().all(|file| file.exact_bytes().is_some()), "{}", entry.name);
    }
    // The files whose hashes independent public lists agree on; of the larger models, only the revision is known.
    assert!(manifest.entry("gpt2").unwrap().files.iter().all(|file| file.exact_bytes().is_some()));
    assert!(manifest.entries.iter().all(|entry| entry.bytes().is_some()));
}
