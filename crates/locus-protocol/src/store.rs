//! [`Store`]: finished units of work on disk, so that a run that was interrupted can be resumed.

use std::path::{Path, PathBuf};

use anyhow::Result;
use locus_files::sha256;
use locus_gpt2::internal::write_atomically;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::settings::Preset;

/// Finished units of work on disk.
#[derive(Clone, Debug)]
pub struct Store {
    folder: PathBuf,
    resume: bool,
    /// Text that names everything a unit's result depends on; units with another fingerprint are computed again.
    fingerprint: String,
}

#[derive(Serialize, Deserialize)]
struct Unit<T> {
    fingerprint: String,
    /// Hash of the result's JSON: one that was changed on disk is computed again.
    sha256: String,
    result: T,
}

impl<T: Serialize> Unit<T> {
    fn new(fingerprint: String, result: T) -> serde_json::Result<Self> {
        let sha256 = sha256(&serde_json::to_vec(&result)?);
        Ok(Unit { fingerprint, sha256, result })
    }

    /// Whether the result is that of the run with a fingerprint, as it was computed.
    fn is_of(&self, fingerprint: &str) -> bool {
        let same = |result: Vec<u8>| sha256(&result) == self.sha256;
        self.fingerprint == fingerprint && serde_json::to_vec(&self.result).is_ok_and(same)
    }
}

impl Store {
    /// A store in the run's output folder. The fingerprint covers settings, model, data and version.
    pub fn new(folder: &Path, resume: bool, fingerprint: String) -> Self {
        Store { folder: folder.to_owned(), resume, fingerprint }
    }

    /// Text that names the run's settings, model, data and version.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// The file of a circuit's mask.
    pub fn mask_path(&self, preset: Preset, task: &str, density: f64) -> PathBuf {
        self.folder.join("masks").join(preset.name()).join(format!("{task}-{density}.safetensors"))
    }

    /// The result of a unit: read from an identical earlier run when resuming, otherwise computed and stored.
    ///
    /// # Errors
    /// When computing fails or the result cannot be written.
    pub fn unit<T: Serialize + DeserializeOwned>(
        &self,
        key: &str,
        compute: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        self.unit_with(key, |_| true, compute)
    }

    /// As [`Store::unit`], for a result that has files besides: it is read only where they are whole, too.
    ///
    /// # Errors
    /// As [`Store::unit`].
    pub fn unit_with<T: Serialize + DeserializeOwned>(
        &self,
        key: &str,
        is_whole: impl FnOnce(&T) -> bool,
        compute: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        let path = self.folder.join("work").join(format!("{key}.json"));
        if self.resume
            && let Ok(bytes) = locus_files::read(&path)
            && let Ok(unit) = serde_json::from_slice::<Unit<T>>(&bytes)
            && unit.is_of(&self.fingerprint)
            && is_whole(&unit.result)
        {
            return Ok(unit.result);
        }
        let unit = Unit::new(self.fingerprint.clone(), compute()?)?;
        write_atomically(&path, &serde_json::to_vec(&unit)?)?;
        Ok(unit.result)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A result is read again only as it was written: another run's, a changed one and one without its files are
    /// computed.
    #[test]
    fn only_what_was_written_is_resumed() {
        let dir = tempfile::tempdir().unwrap();
        let store = |fingerprint: &str| Store::new(dir.path(), true, fingerprint.into());
        let of = |store: &Store, fresh: f64| store.unit("a", || Ok(vec![fresh, 1e-300])).unwrap()[0];
        assert_eq!(of(&store("x"), 0.1), 0.1);
        assert_eq!(of(&store("x"), 0.2), 0.1);
        assert_eq!(of(&store("y"), 0.3), 0.3);
        let path = dir.path().join("work/a.json");
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, text.replace("0.3", "0.7")).unwrap();
        assert_eq!(of(&store("y"), 0.4), 0.4, "a changed result");
        let without_files = store("y").unit_with("a", |_: &Vec<f64>| false, || Ok(vec![0.5])).unwrap();
        assert_eq!(without_files, [0.5]);
    }
}
