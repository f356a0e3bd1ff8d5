//! [`Store`]: finished units of work on disk, so that a run that was interrupted can be resumed.

use std::path::{Path, PathBuf};

use anyhow::Result;
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
    result: T,
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
        let path = self.folder.join("work").join(format!("{key}.json"));
        if self.resume
            && let Ok(bytes) = std::fs::read(&path)
            && let Ok(unit) = serde_json::from_slice::<Unit<T>>(&bytes)
            && unit.fingerprint == self.fingerprint
        {
            return Ok(unit.result);
        }
        let unit = Unit { fingerprint: self.fingerprint.clone(), result: compute()? };
        write_atomically(&path, &serde_json::to_vec(&unit)?)?;
        Ok(unit.result)
    }
}
