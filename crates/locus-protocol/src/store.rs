//! [`Store`]: finished units of work on disk, so that a run that was interrupted can be resumed.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use locus_circuits::masks::MaskProgress;
use locus_files::{OutputLock, sha256};
use locus_gpt2::Config;
use locus_gpt2::internal::write_atomically;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::plan::PlannedUnit;
use crate::settings::Preset;
use crate::training_file::TrainingFile;

/// Finished units of work on disk.
#[derive(Clone, Debug)]
pub struct Store {
    folder: PathBuf,
    resume: bool,
    /// Text that names what every unit depends on.
    common: String,
}

/// A piece of work whose result is kept under a name.
#[derive(Clone, Debug)]
pub struct Unit<'a> {
    store: &'a Store,
    key: String,
    fingerprint: String,
}

/// First line of a unit's file; the second one is the result, as JSON.
#[derive(Serialize, Deserialize)]
struct Head {
    fingerprint: String,
    sha256: String,
}

/// Name of the file in `work` that lists the units of the run.
const PLAN: &str = "plan.json";

/// The units of a run, as kept in its folder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WrittenPlan {
    /// Names of the units, each after those that it needs.
    pub units: Vec<String>,
}

/// How far a unit has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// The result is there, whole.
    Done,
    /// A process is at work on it.
    Running,
    /// Not begun, or begun and left.
    Left,
}

impl WrittenPlan {
    /// The plan of a run's folder.
    ///
    /// # Errors
    /// When there is none, or it cannot be read.
    pub fn read(folder: &Path) -> Result<Self> {
        let path = folder.join("work").join(PLAN);
        let text = locus_files::read_to_string(&path).with_context(|| path.display().to_string())?;
        serde_json::from_str(&text).with_context(|| path.display().to_string())
    }

    /// How far each unit has come, in the order of the plan.
    ///
    /// # Errors
    /// When the folder cannot be written to, which the look at locks needs.
    pub fn status(&self, folder: &Path) -> Result<Vec<(&str, Status)>> {
        let mut all = Vec::with_capacity(self.units.len());
        for name in &self.units {
            let path = folder.join("work").join(format!("{name}.jsonl"));
            let status = if intact(&path).is_some() {
                Status::Done
            } else if OutputLock::file(&path)?.is_none() {
                Status::Running
            } else {
                Status::Left
            };
            all.push((name.as_str(), status));
        }
        Ok(all)
    }
}

/// First line and result of a unit's file, if the result is whole.
fn intact(path: &Path) -> Option<(Head, String)> {
    let text = locus_files::read_to_string(path).ok()?;
    let (head, result) = text.strip_suffix('\n')?.split_once('\n')?;
    let head: Head = serde_json::from_str(head).ok()?;
    (head.sha256 == sha256(result.as_bytes())).then(|| (head, result.to_owned()))
}

impl Store {
    /// Keeps the names of the run's units, for those who ask how far it has come.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write_plan(&self, units: &[PlannedUnit]) -> Result<()> {
        let plan = WrittenPlan { units: units.iter().map(|unit| unit.name.clone()).collect() };
        let text = serde_json::to_string_pretty(&plan)? + "\n";
        let path = self.folder.join("work").join(PLAN);
        if std::fs::read_to_string(&path).is_ok_and(|written| written == text) {
            return Ok(());
        }
        Ok(write_atomically(path, text.as_bytes())?)
    }

    /// Whether a resumed run finds a whole result of a unit; whether it is of this run is seen when it is read.
    pub fn has_result(&self, name: &str) -> bool {
        self.resume && intact(&self.folder.join("work").join(format!("{name}.jsonl"))).is_some()
    }

    /// Forgets the results of units, so that no process takes those of an earlier run for finished.
    ///
    /// # Errors
    /// When a file cannot be removed.
    pub fn forget(&self, units: &[PlannedUnit]) -> Result<()> {
        for unit in units {
            let path = self.folder.join("work").join(format!("{}.jsonl", unit.name));
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(error).with_context(|| path.display().to_string());
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Exclusive use of a unit's file; `None` while another process is at work on the unit.
    ///
    /// # Errors
    /// When the folder cannot be written to.
    pub fn lock(&self, name: &str) -> Result<Option<OutputLock>> {
        Ok(OutputLock::file(self.folder.join("work").join(format!("{name}.jsonl")))?)
    }

    /// A store in the run's output folder. `common` names what every unit depends on: version, seed, number type, model
    /// and data. With `resume`, units of an earlier run that depended on the same things are not computed again.
    pub fn new(folder: &Path, resume: bool, common: String) -> Self {
        Store { folder: folder.to_owned(), resume, common }
    }

    /// The file of a circuit's mask.
    pub fn mask_path(&self, preset: Preset, task: &str, density: f64) -> PathBuf {
        self.folder.join("masks").join(preset.name()).join(format!("{task}-{density}.safetensors"))
    }

    /// The unit with a name, and what it depends on beside what all units depend on.
    pub fn unit(&self, key: impl Into<String>, depends: impl Serialize) -> Unit<'_> {
        let key = key.into();
        let depends = serde_json::to_string(&depends).expect("what units depend on is plain data");
        let fingerprint = sha256([self.common.as_str(), &key, &depends].join("\n").as_bytes());
        Unit { store: self, key, fingerprint }
    }
}

impl Unit<'_> {
    /// SHA-256 of all that the unit depends on, lowercase hex.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// The result: read from an earlier run when resuming, otherwise computed and stored.
    ///
    /// # Errors
    /// When computing fails or the result cannot be written.
    pub fn result<T: Serialize + DeserializeOwned>(&self, compute: impl FnOnce() -> Result<T>) -> Result<T> {
        if let Some(stored) = self.stored() {
            return Ok(stored);
        }
        let result = compute()?;
        self.store(&result)?;
        Ok(result)
    }

    /// The result of an earlier run. A file of another fingerprint, or one that was cut or changed, counts as absent.
    pub fn stored<T: DeserializeOwned>(&self) -> Option<T> {
        if !self.store.resume {
            return None;
        }
        let (head, result) = intact(&self.path("jsonl"))?;
        if head.fingerprint != self.fingerprint {
            return None;
        }
        serde_json::from_str(&result).ok()
    }

    /// Stores the result, and removes the unit's states, which are not needed any more.
    ///
    /// # Errors
    /// When a file cannot be written or removed.
    pub fn store<T: Serialize>(&self, result: &T) -> Result<()> {
        let result = serde_json::to_string(result)?;
        let head = Head { fingerprint: self.fingerprint.clone(), sha256: sha256(result.as_bytes()) };
        let text = format!("{}\n{result}\n", serde_json::to_string(&head)?);
        write_atomically(self.path("jsonl"), text.as_bytes())?;
        let states = format!("{}.", self.key);
        for entry in std::fs::read_dir(self.store.folder.join("work"))? {
            let (path, name) = entry.map(|entry| (entry.path(), entry.file_name()))?;
            let name = name.to_string_lossy();
            if name.starts_with(&states) && name.ends_with(".safetensors") {
                std::fs::remove_file(path)?;
            }
        }
        Ok(())
    }

    /// The file that keeps the state of one of the unit's trainings, numbered from 0, while it runs.
    pub fn training<'a>(
        &self,
        number: usize,
        config: &Config,
        progress: &'a mut dyn FnMut(MaskProgress),
    ) -> TrainingFile<'a> {
        let path = self.state_path(&number.to_string());
        TrainingFile::new(path, self.fingerprint.clone(), config, self.store.resume, progress)
    }

    /// The file of a state that is there until the unit's result is stored.
    pub fn state_path(&self, name: &str) -> PathBuf {
        self.path(&format!("{name}.safetensors"))
    }

    fn path(&self, extension: &str) -> PathBuf {
        self.store.folder.join("work").join(format!("{}.{extension}", self.key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder in the system's place for temporary files, removed at the end.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let folder = std::env::temp_dir().join(format!("locus-store-{name}-{}", std::process::id()));
            std::fs::create_dir_all(&folder).unwrap();
            Folder(folder)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            std::fs::remove_dir_all(&self.0).unwrap();
        }
    }

    #[test]
    fn units_are_taken_when_what_they_depend_on_is_the_same() {
        let folder = Folder::new("units");
        let store = |resume, common: &str| Store::new(&folder.0, resume, common.into());
        let first = store(false, "seed 1");
        let compute = |unit: Unit, result: Vec<f64>| {
            let mut computed = false;
            let result = unit.result(|| {
                computed = true;
                Ok(result)
            });
            (result.unwrap(), computed)
        };
        assert_eq!(compute(first.unit("a", 1), vec![0.1]), (vec![0.1], true));
        let resumed = store(true, "seed 1");
        assert_eq!(compute(resumed.unit("a", 1), vec![0.2]), (vec![0.1], false));
        assert_eq!(compute(first.unit("a", 1), vec![0.1]), (vec![0.1], true), "not without --resume");
        assert_eq!(compute(resumed.unit("b", 1), vec![0.3]), (vec![0.3], true), "another unit");
        assert_eq!(compute(resumed.unit("a", 2), vec![0.4]), (vec![0.4], true), "depends on something else");
        assert_eq!(compute(store(true, "seed 2").unit("a", 2), vec![0.5]), (vec![0.5], true));
    }

    #[test]
    fn status_tells_done_running_and_left_units() {
        let folder = Folder::new("status");
        let store = Store::new(&folder.0, true, String::new());
        let unit = |name: &str| PlannedUnit {
            name: name.to_owned(),
            needs: Vec::new(),
            work: crate::plan::Work::Calibration,
        };
        store.write_plan(&["a", "b", "c", "d"].map(unit)).unwrap();
        store.unit("a", ()).store(&1).unwrap();
        let _lock = store.lock("b").unwrap().unwrap();
        assert!(store.lock("b").unwrap().is_none());
        std::fs::write(folder.0.join("work/d.jsonl"), "cut").unwrap();
        let plan = WrittenPlan::read(&folder.0).unwrap();
        let expected =
            [("a", Status::Done), ("b", Status::Running), ("c", Status::Left), ("d", Status::Left)];
        assert_eq!(plan.status(&folder.0).unwrap(), expected);
    }

    /// A result that was changed inside valid JSON, cut or emptied is computed again.
    #[test]
    fn damaged_results_count_as_absent() {
        let folder = Folder::new("damage");
        let store = Store::new(&folder.0, true, String::new());
        let unit = store.unit("a", ());
        let path = folder.0.join("work/a.jsonl");
        for damage in [
            |text: &str| text.replace("0.25", "99.0"),
            |text: &str| text[..text.len() - 3].to_owned(),
            |_: &str| String::new(),
            |text: &str| text.split_once('\n').unwrap().1.to_owned(),
            |text: &str| format!("{}\n[]\n", text.split_once('\n').unwrap().0),
        ] {
            unit.store(&vec![0.25, 1.0]).unwrap();
            assert_eq!(unit.stored(), Some(vec![0.25, 1.0]));
            let text = std::fs::read_to_string(&path).unwrap();
            std::fs::write(&path, damage(&text)).unwrap();
            assert_eq!(unit.stored::<Vec<f64>>(), None);
        }
        #[cfg(unix)]
        {
            // Would be waited for without end.
            std::fs::remove_file(&path).unwrap();
            assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
            assert_eq!(unit.stored::<Vec<f64>>(), None);
            unit.store(&vec![0.25]).unwrap();
            assert_eq!(unit.stored(), Some(vec![0.25]));
        }
    }
}
