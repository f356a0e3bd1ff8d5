//! Files written whole or not at all, with errors that name the file.

use std::path::Path;

use crate::error::{Error, Result};

/// Writes a file all or nothing ([`locus_files::write_atomically`]).
///
/// # Errors
/// When the folder cannot be created or the file not written.
pub fn write_atomically(path: impl AsRef<Path>, bytes: &[u8]) -> Result<()> {
    let path = path.as_ref();
    locus_files::write_atomically(path, bytes).map_err(|e| Error::io(path, e))
}
