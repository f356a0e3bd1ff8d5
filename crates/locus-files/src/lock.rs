//! Exclusive use of what a long run writes to.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use crate::write::{LOCK, TEMPORARY, folder_of, forget_unfinished, is_at, remember_unfinished};

/// Exclusive use of an output folder or file, until it is dropped or the process ends, however that happens.
///
/// A folder is locked itself, without a file in it. For a file there is an empty lock file beside it, which is removed
/// with the lock. Where the file system has no locks, nothing is locked. Folders that were created for the lock are
/// removed with it if they are still empty.
#[derive(Debug)]
pub struct OutputLock {
    /// The lock; none where the file system has none.
    _held: Option<File>,
    lock_file: Option<PathBuf>,
    created: Vec<PathBuf>,
}

impl OutputLock {
    /// Locks a folder, which is created if need be; `None` if another run holds it.
    ///
    /// # Errors
    /// If the folder cannot be created.
    pub fn folder(folder: impl AsRef<Path>) -> io::Result<Option<Self>> {
        OutputLock::folder_with(folder.as_ref(), File::try_lock)
    }

    /// Locks a folder together with any number of processes that do the same, and against those that want it for
    /// themselves; `None` if one of these holds it.
    ///
    /// # Errors
    /// If the folder cannot be created.
    pub fn shared_folder(folder: impl AsRef<Path>) -> io::Result<Option<Self>> {
        OutputLock::folder_with(folder.as_ref(), File::try_lock_shared)
    }

    fn folder_with(
        folder: &Path,
        lock: impl Fn(&File) -> Result<(), TryLockError>,
    ) -> io::Result<Option<Self>> {
        let created = create_folder(folder)?;
        let held = match File::open(folder).map(|file| (lock(&file), file)) {
            Ok((Ok(()), file)) => Some(file),
            Ok((Err(TryLockError::WouldBlock), _)) => return Ok(None),
            Ok((Err(TryLockError::Error(_)), _)) | Err(_) => None,
        };
        Ok(Some(OutputLock { _held: held, lock_file: None, created }))
    }

    /// Locks a file, which need not exist; `None` if another run holds it.
    ///
    /// # Errors
    /// If its folder cannot be created or written to.
    pub fn file(path: impl AsRef<Path>) -> io::Result<Option<Self>> {
        let folder = folder_of(path.as_ref());
        let created = create_folder(folder)?;
        // Of fixed length, so that any name that a file may have can be locked.
        let name = path.as_ref().file_name().unwrap_or_default();
        let hash = crate::sha256(name.as_encoded_bytes());
        let lock_file = folder.join(format!("{}{}{LOCK}", TEMPORARY.0, &hash[..16]));
        loop {
            let file = File::options().create(true).truncate(false).write(true).open(&lock_file)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(_)) => {
                    let _ = fs::remove_file(&lock_file);
                    return Ok(Some(OutputLock { _held: None, lock_file: None, created }));
                }
            }
            // Between opening and locking, the run before may have ended and removed the file.
            if is_at(&file, &lock_file) {
                remember_unfinished(&lock_file);
                return Ok(Some(OutputLock { _held: Some(file), lock_file: Some(lock_file), created }));
            }
        }
    }
}

impl Drop for OutputLock {
    fn drop(&mut self) {
        if let Some(path) = &self.lock_file {
            let _ = fs::remove_file(path);
            forget_unfinished(path);
        }
        for folder in self.created.iter().rev() {
            let _ = fs::remove_dir(folder);
        }
    }
}

/// Creates a folder and those above it. Returns those that were missing, from the top down.
fn create_folder(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut missing: Vec<PathBuf> = folder
        .ancestors()
        .take_while(|at| !at.as_os_str().is_empty() && !at.exists())
        .map(Path::to_owned)
        .collect();
    missing.reverse();
    fs::create_dir_all(folder)?;
    Ok(missing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_run_at_a_time_uses_a_folder() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("a/b");
        let first = OutputLock::folder(&folder).unwrap().unwrap();
        assert!(OutputLock::folder(&folder).unwrap().is_none());
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 0, "the lock is no file");
        assert!(OutputLock::folder(dir.path()).unwrap().is_some(), "the folder above is another one");
        drop(first);
        assert!(!dir.path().join("a").exists(), "empty folders go with the lock that made them");

        let second = OutputLock::folder(&folder).unwrap().unwrap();
        fs::write(folder.join("result"), b"").unwrap();
        drop(second);
        assert!(folder.join("result").exists());
        assert!(OutputLock::folder(&folder).unwrap().is_some());
    }

    #[test]
    fn many_share_a_folder_that_nobody_has_alone() {
        let dir = tempfile::tempdir().unwrap();
        let [first, second] = [0; 2].map(|_| OutputLock::shared_folder(dir.path()).unwrap().unwrap());
        drop(first);
        assert!(OutputLock::folder(dir.path()).unwrap().is_none());
        drop(second);
        let alone = OutputLock::folder(dir.path()).unwrap().unwrap();
        assert!(OutputLock::shared_folder(dir.path()).unwrap().is_none());
        drop(alone);
    }

    #[test]
    fn one_run_at_a_time_writes_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let first = OutputLock::file(dir.path().join("x")).unwrap().unwrap();
        assert!(OutputLock::file(dir.path().join("x")).unwrap().is_none());
        let other = OutputLock::file(dir.path().join("y")).unwrap().unwrap();
        drop(first);
        drop(OutputLock::file(dir.path().join("x")).unwrap().unwrap());
        drop(other);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "lock files are removed");
    }

    /// A lock file that a killed run left is no lock.
    #[test]
    fn a_lock_ends_with_its_process() {
        let dir = tempfile::tempdir().unwrap();
        let lock = OutputLock::file(dir.path().join("x")).unwrap().unwrap();
        let path = lock.lock_file.clone().unwrap();
        drop(lock);
        fs::write(&path, b"").unwrap();
        assert!(OutputLock::file(dir.path().join("x")).unwrap().is_some());
        assert!(!path.exists());
    }
}
