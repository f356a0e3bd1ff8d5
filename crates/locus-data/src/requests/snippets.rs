//! Texts of reference by fact: CounterFact's `attribute_snippets.json`, a JSON array of `relation_id`, `target_id` and
//! `samples`, each with its `text`.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use crate::{DataError, Result, files};

const EXPECTED: &str = "a JSON array of {\"relation_id\", \"target_id\", \"samples\": [{\"text\"}]}";

#[derive(Deserialize)]
struct Snippets {
    relation_id: String,
    target_id: String,
    samples: Vec<Sample>,
}

#[derive(Deserialize)]
struct Sample {
    text: String,
}

/// Reads texts about things of which a fact is true, by the ids of relation and target
/// ([`Beside::new_fact`](super::Beside::new_fact)).
///
/// # Errors
/// If the file cannot be read, is no such list or holds no text.
pub fn read_snippets(path: impl AsRef<Path>) -> Result<BTreeMap<[String; 2], Vec<String>>> {
    let path = path.as_ref();
    let file = || path.display().to_string();
    let list: Vec<Snippets> = serde_json::from_slice(&files::read(path)?).map_err(|error| {
        let (line, problem) = (error.line() as u64, error.to_string());
        DataError::Syntax { file: file(), line, problem, expected: EXPECTED }
    })?;
    let mut texts: BTreeMap<[String; 2], Vec<String>> = BTreeMap::new();
    for Snippets { relation_id, target_id, samples } in list {
        let of_fact = texts.entry([relation_id, target_id]).or_default();
        of_fact.extend(samples.into_iter().map(|sample| sample.text));
    }
    texts.retain(|_, of_fact| !of_fact.is_empty());
    if texts.is_empty() {
        return Err(DataError::Empty { file: file(), expected: EXPECTED });
    }
    Ok(texts)
}
