//! Files read whole, with errors that name the file.

use std::fs::File;
use std::path::Path;

use crate::error::{Error, Result};

/// Opens a file. What is no ordinary file (a folder, a pipe, a device) is refused before it is opened, for a pipe would
/// wait for its writer.
///
/// # Errors
/// When it is absent, not an ordinary file or cannot be opened.
pub(crate) fn open(path: &Path) -> Result<File> {
    locus_files::open(path).map_err(|e| Error::io(path, e))
}

/// The bytes of a file.
///
/// # Errors
/// As [`open`], and when reading fails.
pub(crate) fn read_bytes(path: &Path) -> Result<Vec<u8>> {
    locus_files::read(path).map_err(|e| Error::io(path, e))
}

/// The text of a file.
///
/// # Errors
/// As [`read_bytes`], and when the file is not UTF-8.
pub(crate) fn read_text(path: &Path) -> Result<String> {
    String::from_utf8(read_bytes(path)?)
        .map_err(|e| Error::format(path, format!("is not UTF-8: {}", e.utf8_error())))
}
