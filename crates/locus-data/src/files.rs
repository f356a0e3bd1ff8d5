//! Whole files in, whole files out, with errors that name the file.

use std::fs;
use std::path::Path;

use crate::{DataError, Result};

/// Reads a whole file.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>> {
    locus_files::read(path).map_err(|e| DataError::io(path, "read", e))
}

/// Creates a folder and the folders above it, where they are missing.
pub(crate) fn create_dir(dir: &Path) -> Result<()> {
    fs::create_dir_all(dir).map_err(|e| DataError::io(dir, "create the folder", e))
}

/// Writes a file all or nothing ([`locus_files::write_atomically`]).
pub(crate) fn write_atomically(path: impl AsRef<Path>, bytes: &[u8]) -> Result<()> {
    let path = path.as_ref();
    locus_files::write_atomically(path, bytes).map_err(|e| DataError::io(path, "write", e))
}

/// SHA-256 of a file.
pub(crate) fn sha256(path: &Path) -> Result<String> {
    locus_files::sha256_file(path).map_err(|e| DataError::io(path, "read", e))
}

/// Content of a text file without the byte order mark that Windows programs may put at its start.
pub(crate) fn without_bom(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_the_file_it_cannot_write() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("file"), b"").unwrap();
        let path = dir.path().join("file").join("x");
        let message = write_atomically(&path, b"").unwrap_err().to_string();
        assert!(message.starts_with(&format!("{}: cannot write: ", path.display())), "{message}");
    }
}
