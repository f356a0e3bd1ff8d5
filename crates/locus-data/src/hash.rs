//! SHA-256 in lowercase hexadecimal: every result names the data it came from by this.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::DataError;

/// Hash of `bytes`.
///
/// ```
/// let hash = locus_data::hash::sha256(b"abc");
/// assert_eq!(hash, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
/// ```
pub fn sha256(bytes: &[u8]) -> String {
    hex(Sha256::digest(bytes).as_slice())
}

/// Hash of a file, read piece by piece: weights need not fit into memory.
pub fn sha256_file(path: &Path) -> Result<String, DataError> {
    let mut hasher = Sha256::new();
    feed(path, &mut hasher)?;
    Ok(finish(hasher))
}

/// Feeds a whole file to a hasher that may have more to come.
pub(crate) fn feed(path: &Path, hasher: &mut Sha256) -> Result<(), DataError> {
    let failed = |e| DataError::io(path, "read", e);
    let mut file = File::open(path).map_err(failed)?;
    let mut buffer = vec![0; 1 << 16];
    loop {
        let n = file.read(&mut buffer).map_err(failed)?;
        if n == 0 {
            return Ok(());
        }
        hasher.update(&buffer[..n]);
    }
}

pub(crate) fn finish(hasher: Sha256) -> String {
    hex(hasher.finalize().as_slice())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a String takes everything");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_and_bytes_agree_across_buffer_boundaries() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        for len in [0, 1, (1 << 16) - 1, 1 << 16, 200_000] {
            let bytes: Vec<u8> = (0..len).map(|i| (i % 251) as u8).collect();
            std::fs::write(&path, &bytes).unwrap();
            assert_eq!(sha256_file(&path).unwrap(), sha256(&bytes));
        }
    }
}
