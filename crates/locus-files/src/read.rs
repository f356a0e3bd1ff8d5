//! Reading: regular files only, so that a FIFO without a writer or a device without an end cannot hold up a run.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::path::Path;

/// Opens a regular file, or a link to one.
///
/// # Errors
/// If there is no file or it may not be read; if the path names a folder (`IsADirectory`) or a FIFO, device or socket
/// (`InvalidInput`), which is not opened.
pub fn open(path: impl AsRef<Path>) -> io::Result<File> {
    let path = path.as_ref();
    check_regular(&fs::metadata(path)?)?;
    File::open(path)
}

/// All bytes of a regular file.
///
/// # Errors
/// As [`open`], and if reading fails.
pub fn read(path: impl AsRef<Path>) -> io::Result<Vec<u8>> {
    let mut file = open(path)?;
    let mut bytes = Vec::new();
    if let Ok(meta) = file.metadata() {
        // More is no harm, and a length too large for memory shows while reading.
        bytes.reserve(usize::try_from(meta.len()).unwrap_or(0).min(1 << 30));
    }
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The text of a regular file.
///
/// # Errors
/// As [`read`], and if the bytes are not UTF-8 (`InvalidData`, with the place of the first that is not).
pub fn read_to_string(path: impl AsRef<Path>) -> io::Result<String> {
    String::from_utf8(read(path)?).map_err(|e| {
        let place = e.utf8_error().valid_up_to();
        let line = 1 + e.as_bytes()[..place].iter().filter(|&&byte| byte == b'\n').count();
        io::Error::new(ErrorKind::InvalidData, format!("line {line}: not UTF-8; expected text"))
    })
}

/// Refuses what is not a regular file.
///
/// # Errors
/// `IsADirectory` for a folder, `InvalidInput` for anything else.
fn check_regular(meta: &fs::Metadata) -> io::Result<()> {
    if meta.is_file() {
        return Ok(());
    }
    if meta.is_dir() {
        return Err(io::Error::new(ErrorKind::IsADirectory, "is a folder; expected a file"));
    }
    Err(io::Error::new(ErrorKind::InvalidInput, "is a pipe, device or socket; expected a regular file"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_that_is_not_utf_8_is_refused_with_its_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        fs::write(&path, b"one\ntwo \xff\n").unwrap();
        let why = read_to_string(&path).unwrap_err();
        assert_eq!(
            (why.kind(), why.to_string().as_str()),
            (ErrorKind::InvalidData, "line 2: not UTF-8; expected text")
        );
        fs::write(&path, "one\nzwei \u{e4}\n").unwrap();
        assert_eq!(read_to_string(&path).unwrap(), "one\nzwei \u{e4}\n");
    }

    #[test]
    fn folders_are_no_files() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(open(dir.path()).unwrap_err().kind(), ErrorKind::IsADirectory);
        assert_eq!(read(dir.path().join("absent")).unwrap_err().kind(), ErrorKind::NotFound);
    }

    /// A FIFO that nobody writes to would block, and `/dev/zero` never ends.
    #[cfg(unix)]
    #[test]
    fn pipes_and_devices_are_refused_without_being_opened() {
        let dir = tempfile::tempdir().unwrap();
        let fifo = dir.path().join("fifo");
        let made = std::process::Command::new("mkfifo").arg(&fifo).status().unwrap();
        assert!(made.success());
        for path in [fifo.as_path(), Path::new("/dev/zero")] {
            assert_eq!(read(path).unwrap_err().kind(), ErrorKind::InvalidInput);
        }
    }
}
