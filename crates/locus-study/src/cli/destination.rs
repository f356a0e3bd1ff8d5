//! Places for results, checked before any work begins: `--out` and its like.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use locus_files::OutputLock;

use super::error::Unusable;

/// Longest name of a file or folder, in bytes, on the file systems there are.
const LONGEST_NAME: usize = 255;

/// Checks that a file can be written at the path that an option names, and that it is none of the run's inputs.
///
/// # Errors
/// When the path names a folder, a device or an input, or its folder cannot be written to.
pub fn check_file(option: &str, path: &Path, inputs: &[&Path]) -> Result<()> {
    let refuse = |why: &str| Err(Unusable(format!("{option} {}: {why}", path.display())).into());
    if path.as_os_str().is_empty() {
        return refuse("is empty; expected the name of a file");
    }
    let bytes = path.as_os_str().as_encoded_bytes();
    if path.is_dir() || bytes.last().is_some_and(|&last| std::path::is_separator(last.into())) {
        return refuse("is a folder; expected the name of a file");
    }
    if path.exists() && !path.is_file() {
        return refuse("is a pipe, device or socket; expected the name of a file");
    }
    let folder = path.parent().unwrap_or(path);
    check_can_hold(option, path, folder)?;
    if let Some(input) = inputs.iter().find(|input| is_same(path, input)) {
        return refuse(&format!("is an input of this run ({}), which is not overwritten", input.display()));
    }
    Ok(())
}

/// Checks that files can be written below the folder that an option names: that it is one if it exists, and that what
/// the run writes in it, `files` and `folders`, is not there as something else.
///
/// # Errors
/// When the path names a file, or the folder cannot be written to.
pub fn check_folder(option: &str, path: &Path, files: &[&str], folders: &[&str]) -> Result<()> {
    let refuse = |why: &str| Err(Unusable(format!("{option} {}: {why}", path.display())).into());
    if path.as_os_str().is_empty() {
        return refuse("is empty; expected the name of a folder");
    }
    if path.exists() && !path.is_dir() {
        return refuse("is a file; expected the name of a folder");
    }
    check_can_hold(option, path, path)?;
    for name in files {
        let at = path.join(name);
        if at.exists() && !at.is_file() {
            return refuse(&format!("{name} in it is no file; expected one, or another folder"));
        }
    }
    for name in folders {
        let at = path.join(name);
        if !at.exists() {
            continue;
        }
        if !at.is_dir() {
            return refuse(&format!("{name} in it is no folder; expected one, or another folder"));
        }
        check_can_hold(option, &at, &at)?;
        // A folder where a file would be written is found only at the end of the run otherwise.
        let inside = fs::read_dir(&at).into_iter().flatten().flatten().map(|entry| entry.path());
        let is_result = |path: &PathBuf| {
            path.extension()
                .is_some_and(|e| ["csv", "json", "jsonl", "md", "safetensors", "svg"].iter().any(|x| e == *x))
        };
        if let Some(wrong) = inside.into_iter().find(|path| is_result(path) && path.is_dir()) {
            return refuse(&format!("{} in it is a folder; expected a file", wrong.display()));
        }
    }
    Ok(())
}

/// Checks that a folder can be written to, or else created in one that can.
fn check_can_hold(option: &str, path: &Path, folder: &Path) -> Result<()> {
    let refuse = |why: String| Err(Unusable(format!("{option} {}: {why}", path.display())).into());
    if let Some(long) = path.components().find(|part| part.as_os_str().len() > LONGEST_NAME) {
        let n = long.as_os_str().len();
        return refuse(format!("has a name of {n} bytes; expected at most {LONGEST_NAME}"));
    }
    for at in folder.ancestors() {
        let at = if at.as_os_str().is_empty() { Path::new(".") } else { at };
        match fs::metadata(at) {
            Ok(meta) if !meta.is_dir() => {
                return refuse(format!("{} is a file; expected a folder", at.display()));
            }
            Ok(_) if is_systems_own(at) => {
                return refuse(format!("{} is no place for results", at.display()));
            }
            Ok(_) => {
                return match locus_files::check_writable(at) {
                    Ok(()) => Ok(()),
                    // Nothing is wrong with the name.
                    Err(error) if is_full(error.kind()) => {
                        Err(error).with_context(|| format!("{option} {}", path.display()))
                    }
                    Err(error) => refuse(format!("{} cannot be written to: {error}", at.display())),
                };
            }
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                if fs::symlink_metadata(at).is_ok() {
                    return refuse(format!("{} is a link to nothing", at.display()));
                }
            }
            Err(error) => return refuse(format!("{}: {error}", at.display())),
        }
    }
    refuse("there is no such folder".into())
}

fn is_full(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
}

/// Whether a folder holds what the system shows of itself (processes, devices) and not files.
fn is_systems_own(folder: &Path) -> bool {
    let Ok(folder) = folder.canonicalize() else { return false };
    folder == Path::new("/dev") || ["/proc", "/sys"].iter().any(|own| folder.starts_with(own))
}

/// The ending of a file's name, by which its format is chosen: one of `known`, in capitals or not. A name without an
/// ending has the first.
///
/// # Errors
/// When the name has another ending.
pub fn ending<'a>(option: &str, path: &Path, known: &[&'a str]) -> Result<&'a str> {
    let Some(found) = path.extension() else { return Ok(known[0]) };
    known.iter().find(|ending| found.eq_ignore_ascii_case(ending)).copied().ok_or_else(|| {
        let found = found.to_string_lossy();
        let why = format!(
            "{option} {}: the ending .{found} is no format; expected .{}",
            path.display(),
            known.join(", .")
        );
        Unusable(why).into()
    })
}

/// Whether two paths lead to one file.
pub fn is_same(a: &Path, b: &Path) -> bool {
    // A file that does not exist yet is known by its folder.
    let place = |path: &Path| match path.canonicalize() {
        Ok(place) => Some(place),
        Err(_) => {
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
            Some(folder.unwrap_or(Path::new(".")).canonicalize().ok()?.join(path.file_name()?))
        }
    };
    place(a).is_some_and(|a| place(b) == Some(a))
}

/// Locks an output folder for this run.
///
/// # Errors
/// When another run uses it, or it cannot be created.
pub fn lock_folder(path: &Path) -> Result<OutputLock> {
    held(path, OutputLock::folder(path))
}

/// Locks an output folder together with others that work on the same run.
///
/// # Errors
/// When a run has the folder for itself, or it cannot be created.
pub fn share_folder(path: &Path) -> Result<OutputLock> {
    held(path, OutputLock::shared_folder(path))
}

/// Locks an output file for this run.
///
/// # Errors
/// When another run writes it, or its folder cannot be written to.
pub fn lock_file(path: &Path) -> Result<OutputLock> {
    held(path, OutputLock::file(path))
}

fn held(path: &Path, lock: std::io::Result<Option<OutputLock>>) -> Result<OutputLock> {
    let lock = lock.with_context(|| path.display().to_string())?;
    Ok(lock.ok_or_else(|| Unusable(format!("{} is in use by another run", path.display())))?)
}
