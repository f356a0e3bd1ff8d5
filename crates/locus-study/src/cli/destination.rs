//! Places that results go to, checked before the work that makes them.

use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context, Result};

use super::error::Unusable;

/// Checks that a file can be written at `path`, or with `folder` that files can be written in it. Nothing is left
/// behind.
///
/// # Errors
/// When something else is there, or the folder above cannot be written to.
pub fn check(path: &Path, folder: bool) -> Result<()> {
    let wrong = |why: &str| Unusable(format!("--out {}: {why}", path.display()));
    match std::fs::metadata(path) {
        Ok(found) if folder && !found.is_dir() => return Err(wrong("is a file; expected a folder").into()),
        Ok(found) if !folder && found.is_dir() => return Err(wrong("is a folder; expected a file").into()),
        // A device or a pipe is written as it is.
        Ok(found) if !found.is_file() && !found.is_dir() => return Ok(()),
        _ => {}
    }
    let start = if folder { Some(path) } else { path.parent() };
    let above = start
        .into_iter()
        .flat_map(Path::ancestors)
        .find(|place| place.as_os_str().is_empty() || place.exists());
    let place = above.filter(|place| !place.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !place.is_dir() {
        return Err(wrong(&format!("{} is no folder", place.display())).into());
    }
    match tempfile::tempfile_in(place) {
        Ok(_) => Ok(()),
        // A full disk is no mistake of the caller's.
        Err(error) if error.kind() == ErrorKind::StorageFull => {
            Err(error).with_context(|| wrong("cannot be written").to_string())
        }
        Err(error) => Err(wrong(&format!("cannot be written: {error}")).into()),
    }
}
