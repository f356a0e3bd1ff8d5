//! What each fuzz target does with its bytes: a reader of the project gets them as a file and must return, with a value
//! or with an error of one line. Values that were read are used once, because some faults show only then.

use std::fmt::Display;
use std::fs;
use std::path::Path;

use locus_data::pairs::AnswerColumns;
use locus_data::{Manifest, labelled, pairs, requests};
use locus_editors::{KeyMoments, KeyStatistics, Patch};
use locus_gpt2::{Config, Gpt2, ParamMask, Tokenizer};

/// The smallest model in which every tensor has another shape than its neighbours.
pub fn model_config() -> Config {
    Config::new(1, 1, 2, 3, 5)
}

/// Calls a reader with a file of these bytes in a folder of its own.
fn with_file<T>(name: &str, bytes: &[u8], read: impl FnOnce(&Path) -> T) -> T {
    let folder = tempfile::tempdir().expect("the system has a folder for temporary files");
    let path = folder.path().join(name);
    fs::write(&path, bytes).expect("temporary files can be written");
    read(&path)
}

/// The value, after a look at the error.
fn checked<T, E: Display>(result: Result<T, E>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(error) => {
            let message = error.to_string();
            assert!(!message.is_empty() && !message.contains('\n'), "not one line: {message:?}");
            None
        }
    }
}

pub fn weights(bytes: &[u8]) {
    with_file("model.safetensors", bytes, |path| {
        if let Some(model) = checked(Gpt2::<f32>::read(path, &model_config())) {
            model.sha256();
        }
    });
}

pub fn config(bytes: &[u8]) {
    with_file("config.json", bytes, |path| checked(Config::read(path)));
}

pub fn tokenizer(bytes: &[u8]) {
    with_file("tokenizer.json", bytes, |path| {
        let folder = path.parent().expect("a file is in a folder");
        let Some(tokenizer) = checked(Tokenizer::read(folder)) else { return };
        for text in [
            "",
            " a",
            "A cat is a kind of animal",
            "\u{1F600}\n\0 \u{301}",
            "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        ] {
            if let Some(ids) = checked(tokenizer.encode(text)) {
                checked(tokenizer.decode(&ids));
            }
        }
    });
}

pub fn mask(bytes: &[u8]) {
    with_file("mask.safetensors", bytes, |path| checked(ParamMask::read(path, &model_config())));
}

pub fn patch(bytes: &[u8]) {
    with_file("patch.safetensors", bytes, |path| {
        if let Some(patch) = checked(Patch::<f32>::read(path, &model_config())) {
            patch.norm();
        }
    });
}

pub fn key_statistics(bytes: &[u8]) {
    with_file("statistics.safetensors", bytes, |path| {
        if let Some((statistics, _)) = checked(KeyStatistics::read(path)) {
            checked(statistics.covariances(1e-4));
        }
    });
}

pub fn key_statistics_npz(bytes: &[u8]) {
    with_file("statistics.npz", bytes, |path| {
        if let Some(statistics) = checked(KeyMoments::read_npz(path)) {
            statistics.mean();
        }
    });
}

pub fn labelled_csv(bytes: &[u8]) {
    checked(labelled::parse("labelled.csv", bytes));
}

pub fn requests(bytes: &[u8]) {
    checked(requests::parse("requests.json", bytes));
}

pub fn pairs_jsonl(bytes: &[u8]) {
    checked(pairs::parse_jsonl("pairs.jsonl", bytes));
}

pub fn pairs_csv(bytes: &[u8]) {
    checked(pairs::parse_csv("pairs.csv", bytes, AnswerColumns::Lists));
}

pub fn manifest(bytes: &[u8]) {
    checked(Manifest::parse("MANIFEST.toml", &String::from_utf8_lossy(bytes)));
}
