//! The masks of a trajectory on disk.

use std::path::{Path, PathBuf};

use anyhow::Result;
use locus_gpt2::{Config, ParamMask};

use crate::extract::Extracted;
use crate::plan::TrajectoryId;
use crate::records::Extraction;
use crate::store::{Store, Unit};

/// The masks of a trajectory on disk, beside the records of the unit that trained them.
pub(crate) struct MaskFiles<'a> {
    pub(crate) store: &'a Store,
    pub(crate) id: &'a TrajectoryId,
    pub(crate) unit: &'a Unit<'a>,
}

impl MaskFiles<'_> {
    /// Path of the mask that is measured, and of the one that is edited.
    fn paths(&self, target: f64) -> [PathBuf; 2] {
        let name = self.id.name();
        [name.clone(), format!("{name}-edited")]
            .map(|name| self.store.mask_path(self.id.preset, &name, target))
    }

    /// The masks of an earlier run; `None` when the unit or one of its masks is missing or was changed.
    pub(crate) fn stored(&self, config: &Config) -> Option<Vec<Extracted>> {
        let records: Vec<Extraction> = self.unit.stored()?;
        let read = |path: &Path, sha256: &str| {
            let mask = ParamMask::read(path, config).ok();
            mask.filter(|mask| mask.sha256() == sha256)
        };
        let read = |record: Extraction| {
            let [measured, edited] = self.paths(record.target_density);
            let mask = read(&measured, &record.mask_sha256)?;
            let edited = match &record.edited_sha256 {
                Some(sha256) => Some(read(&edited, sha256)?),
                None => None,
            };
            Some(Extracted { record, mask, edited })
        };
        records.into_iter().map(read).collect()
    }

    /// Writes the masks, then the records: a unit without its masks is never taken for finished.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub(crate) fn store(&self, found: &[Extracted]) -> Result<()> {
        for Extracted { record, mask, edited } in found {
            let [measured_path, edited_path] = self.paths(record.target_density);
            mask.write(&measured_path, self.unit.fingerprint())?;
            if let Some(edited) = edited {
                edited.write(&edited_path, self.unit.fingerprint())?;
            }
        }
        let records: Vec<&Extraction> = found.iter().map(|found| &found.record).collect();
        self.unit.store(&records)
    }
}
