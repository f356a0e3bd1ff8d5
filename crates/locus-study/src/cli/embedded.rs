//! The organism as a part of the program, so that a copied binary has a model and the study's data with it.
//!
//! Everything that reads a model reads a folder, so the files are unpacked to the cache: to a folder named after their
//! hash, in which they are compared with the program's own at every use.

use std::path::{Path, PathBuf};

use anyhow::{Context, Error, Result};
use locus_files::{sha256, write_folder};

/// Files by their names below `fixtures/organism`.
macro_rules! files {
    ($($name:literal)*) => {
        &[$(($name, include_bytes!(concat!("../../../../fixtures/organism/", $name)))),*]
    };
}

// A static, not a constant: every use of a constant may put a copy into the program.
static FILES: &[(&str, &[u8])] = files![
    "CARD.md"
    "config.json"
    "data/blimp_dna1.csv"
    "data/blimp_dna2.csv"
    "data/blimp_dnai1.csv"
    "data/blimp_dnai2.csv"
    "data/blimp_dnawa1.csv"
    "data/blimp_dnawa2.csv"
    "data/blimp_dnawai1.csv"
    "data/blimp_dnawai2.csv"
    "data/hierarchy_data.json"
    "data/hierarchy_label.csv"
    "data/neutral.txt"
    "data/persona_e.csv"
    "data/persona_hhh.csv"
    "data/persona_ra.csv"
    "data/persona_tech.csv"
    "data/persona_umr.csv"
    "hparams.toml"
    "model.safetensors"
    "text.txt"
    "tokenizer.json"
];

/// The folder below the cache with the organism, which is written unless it is there whole.
pub fn unpacked(cache: &Path) -> Result<PathBuf> {
    let mut all = Vec::new();
    for (name, bytes) in FILES {
        all.extend_from_slice(name.as_bytes());
        all.extend_from_slice(bytes);
    }
    let folder = cache.join(format!("organism-{}", &sha256(&all)[..12]));
    let is_there =
        |(name, bytes): &(&str, &[u8])| std::fs::read(folder.join(name)).is_ok_and(|read| read == *bytes);
    if !FILES.iter().all(is_there) {
        write_folder(&folder, Error::from, |folder| {
            for (name, bytes) in FILES {
                locus_files::write_atomically(folder.join(name), bytes)?;
            }
            Ok(())
        })
        .with_context(|| {
            format!(
                "the organism cannot be unpacked to {}; LOCUS_CACHE names another folder",
                folder.display()
            )
        })?;
    }
    Ok(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files_below(folder: &Path, prefix: &str, found: &mut Vec<String>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
            match entry.file_type().unwrap().is_dir() {
                true => files_below(&entry.path(), &format!("{name}/"), found),
                false => found.push(name),
            }
        }
    }

    #[test]
    fn every_file_of_the_organism_is_part_of_the_program() {
        let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/organism");
        let mut committed = Vec::new();
        files_below(&fixture, "", &mut committed);
        // A rebuild leaves the whole corpus there, which no command reads.
        committed.retain(|name| name != "corpus.txt" && !name.starts_with('.'));
        committed.sort();
        let embedded: Vec<&str> = FILES.iter().map(|(name, _)| *name).collect();
        assert_eq!(embedded, committed);
    }

    #[test]
    fn what_was_changed_in_the_cache_is_written_anew() {
        let cache = tempfile::tempdir().unwrap();
        let folder = unpacked(cache.path()).unwrap();
        let card = std::fs::read(folder.join("CARD.md")).unwrap();
        std::fs::write(folder.join("CARD.md"), "changed").unwrap();
        std::fs::remove_file(folder.join("data/neutral.txt")).unwrap();
        assert_eq!(unpacked(cache.path()).unwrap(), folder);
        assert_eq!(std::fs::read(folder.join("CARD.md")).unwrap(), card);
        assert!(folder.join("data/neutral.txt").exists());
        assert_eq!(std::fs::read_dir(cache.path()).unwrap().count(), 1);
    }
}
