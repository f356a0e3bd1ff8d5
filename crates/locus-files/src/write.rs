//! Writing that is all or nothing.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use tempfile::NamedTempFile;

/// Writes a file all or nothing: at every moment the destination is absent, the old file, or the whole new one.
///
/// The bytes go to a temporary file in the destination's folder, which is created if need be, and reach the disk before
/// that file is renamed over the destination. The new file has the permissions of any file that the user creates (0666
/// without the bits of the umask).
///
/// # Errors
/// If the folder cannot be created or the file not written; nothing is left behind then but folders.
pub fn write_atomically(path: impl AsRef<Path>, bytes: &[u8]) -> io::Result<()> {
    let path = path.as_ref();
    let mut file = new_file_beside(path)?;
    file.write_all(bytes)?;
    // Without this, a crash after the rename could leave an empty file where the old one was.
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}

/// A temporary file in the folder of `path`, which is created if need be, with the permissions of an ordinary file.
///
/// # Errors
/// If the folder or the file cannot be created.
pub fn new_file_beside(path: &Path) -> io::Result<NamedTempFile> {
    // The parent of a bare file name is the empty path.
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let mut builder = tempfile::Builder::new();
    // Temporary files are private by default, and this one becomes an ordinary file. The umask is taken off by the
    // system.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    builder.tempfile_in(folder)
}

/// Fills a folder all or nothing: a temporary folder beside it is filled and then takes its name. If the folder exists,
/// the files are moved into it one by one, over files of the same names, once all of them are there.
///
/// `wrong` makes an error of the caller's from one of this function's own.
///
/// # Errors
/// If a folder cannot be created or a file not moved, and whatever `fill` returns; nothing is left behind then but
/// folders above it.
pub fn write_folder<T, E>(
    path: impl AsRef<Path>,
    wrong: impl Fn(io::Error) -> E,
    fill: impl FnOnce(&Path) -> Result<T, E>,
) -> Result<T, E> {
    let path = path.as_ref();
    let above = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(above).map_err(&wrong)?;
    let mut builder = tempfile::Builder::new();
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o777));
    let folder = builder.tempdir_in(above).map_err(&wrong)?;
    let result = fill(folder.path())?;
    if path.exists() {
        move_into(folder.path(), path).map_err(&wrong)?;
    } else {
        fs::rename(folder.path(), path).map_err(&wrong)?;
    }
    Ok(result)
}

fn move_into(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            move_into(&entry.path(), &target)?;
        } else {
            fs::rename(entry.path(), target)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replaces_the_old_file_and_leaves_nothing_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        write_atomically(&path, b"old").unwrap();
        write_atomically(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn creates_the_folders_above() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b/x");
        write_atomically(&path, b"").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"");
    }

    #[cfg(unix)]
    #[test]
    fn permissions_are_those_of_an_ordinary_file() {
        use std::os::unix::fs::PermissionsExt;

        let dir = tempfile::tempdir().unwrap();
        let mode = |name: &str| fs::metadata(dir.path().join(name)).unwrap().permissions().mode();
        fs::write(dir.path().join("ordinary"), b"").unwrap();
        write_atomically(dir.path().join("atomic"), b"").unwrap();
        assert_eq!(mode("atomic"), mode("ordinary"));
    }

    /// A failed rename (the destination is a folder) leaves the destination as it was and no temporary file.
    #[test]
    fn a_failure_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("folder");
        fs::create_dir_all(path.join("inside")).unwrap();
        assert!(write_atomically(&path, b"new").is_err());
        assert!(path.join("inside").is_dir());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    /// A reader that looks while the file is replaced finds one of the two contents whole.
    #[test]
    fn readers_never_meet_half_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        let contents = [vec![b'a'; 100_000], vec![b'b'; 200_000]];
        write_atomically(&path, &contents[0]).unwrap();
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                for round in 0..40 {
                    write_atomically(&path, &contents[round % 2]).unwrap();
                }
            });
            while !writer.is_finished() {
                let found = fs::read(&path).unwrap();
                assert!(contents.contains(&found), "{} bytes", found.len());
            }
        });
    }

    /// A folder appears whole or not at all; one that exists keeps what the new one does not have.
    #[test]
    fn folders_are_filled_all_or_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/folder");
        let fill = |text: &'static str| {
            move |folder: &Path| {
                fs::create_dir(folder.join("inside"))?;
                fs::write(folder.join("inside/x"), text)
            }
        };
        write_folder(&path, |e| e, fill("old")).unwrap();
        fs::write(path.join("mine"), "kept").unwrap();
        write_folder(&path, |e| e, fill("new")).unwrap();
        assert_eq!(fs::read(path.join("inside/x")).unwrap(), b"new");
        assert_eq!(fs::read(path.join("mine")).unwrap(), b"kept");
        let failed = write_folder(
            &path,
            |e| e,
            |folder| {
                fs::write(folder.join("half"), "")?;
                Err::<(), _>(io::Error::other("no more"))
            },
        );
        assert_eq!(failed.unwrap_err().to_string(), "no more");
        assert!(!path.join("half").exists());
        assert_eq!(fs::read_dir(dir.path().join("a")).unwrap().count(), 1, "nothing is left beside it");
    }
}
