//! Writing that is all or nothing.
//!
//! A new file gets a temporary name first (`.locus-*.tmp`, in the folder where it will stand) and stays locked
//! while it has that name. The system lets go of the lock when its process ends, however that happens: a temporary file
//! without a lock is one that a killed process left, and the next process that writes to the folder removes it.

use std::collections::BTreeSet;
use std::error::Error;
use std::fs::{self, File, TryLockError};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tempfile::{NamedTempFile, TempDir, TempPath};

/// What the names of temporary files begin and end with.
pub(crate) const TEMPORARY: (&str, &str) = (".locus-", ".tmp");

/// What the names of lock files end with; they begin like temporary ones.
pub(crate) const LOCK: &str = ".lock";

/// How often a folder that is still being filled is deleted at most.
const FOLDER_ATTEMPTS: usize = 20;

/// What this process has under temporary names, files and folders, and where it has looked for files that killed
/// processes left.
struct Unfinished {
    files: BTreeSet<PathBuf>,
    tidied: BTreeSet<PathBuf>,
}

static UNFINISHED: Mutex<Unfinished> =
    Mutex::new(Unfinished { files: BTreeSet::new(), tidied: BTreeSet::new() });

fn unfinished() -> MutexGuard<'static, Unfinished> {
    UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Writes a file all or nothing: at every moment the destination is absent, the old file, or the whole new one.
///
/// The bytes go to a temporary file in the destination's folder, which is created if need be, and reach the disk before
/// that file is renamed over the destination. The new file has the permissions of any file that the user creates (0666
/// without the bits of the umask).
///
/// # Errors
/// If the folder cannot be created or the file not written; nothing is left behind then but folders. The error answers
/// to [`is_output`].
pub fn write_atomically(path: impl AsRef<Path>, bytes: &[u8]) -> io::Result<()> {
    let mut file = NewFile::beside(path.as_ref())?;
    file.write_all(bytes)?;
    put_in_place([file])
}

/// A file that is being written under a temporary name. Dropped, it is deleted; [`put_in_place`] gives it its name.
#[derive(Debug)]
pub struct NewFile {
    file: File,
    temporary: TempPath,
    destination: PathBuf,
}

impl NewFile {
    /// An empty file in the folder of `destination`, which is created if need be, with the permissions of an ordinary
    /// file.
    ///
    /// # Errors
    /// If the folder or the file cannot be created.
    pub fn beside(destination: &Path) -> io::Result<Self> {
        let folder = folder_of(destination);
        fs::create_dir_all(folder).map_err(|error| match error.kind() {
            // Only a file in the place of a folder: folders that exist are no error.
            ErrorKind::AlreadyExists => output_error(
                ErrorKind::NotADirectory,
                format!("{} is a file; expected a folder", folder.display()),
            ),
            _ => output(error),
        })?;
        let mut unfinished = unfinished();
        if unfinished.tidied.insert(folder.to_owned()) {
            remove_abandoned(folder);
        }
        let (file, temporary) = loop {
            let (file, temporary) = temporary_in(folder).map_err(output)?.into_parts();
            if is_claimed(&file, &temporary) {
                break (file, temporary);
            }
        };
        unfinished.files.insert(temporary.to_path_buf());
        Ok(NewFile { file, temporary, destination: destination.to_owned() })
    }

    /// The file's path until it is in place, for writers that open files themselves.
    pub fn temporary(&self) -> &Path {
        &self.temporary
    }

    /// The file's path once it is in place.
    pub fn destination(&self) -> &Path {
        &self.destination
    }
}

impl Write for NewFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes).map_err(output)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush().map_err(output)
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        // The path deletes its file when it is dropped in turn.
        unfinished().files.remove(&*self.temporary);
    }
}

/// Gives files their names. All of them have reached the disk before the first is renamed, and a process that is told
/// to stop ([`discard_unfinished`]) renames either all of them or none.
///
/// # Errors
/// If a file cannot be brought to the disk, and then nothing has changed, or if it cannot be renamed. The error answers
/// to [`is_output`].
pub fn put_in_place(files: impl IntoIterator<Item = NewFile>) -> io::Result<()> {
    let files: Vec<NewFile> = files.into_iter().collect();
    for file in &files {
        // Without this, a crash after the rename could leave an empty file where the old one was.
        file.file.sync_all().map_err(output)?;
    }
    let several = files.len() > 1;
    let mut failed = None;
    {
        let _whole = unfinished();
        for file in &files {
            if let Err(error) = fs::rename(&file.temporary, &file.destination) {
                failed = Some((error, file.destination.display().to_string()));
                break;
            }
        }
    }
    // Files that were renamed are found missing under their temporary names, which is no error.
    drop(files);
    match failed {
        None => Ok(()),
        Some((error, name)) if several => Err(output_error(error.kind(), format!("{name}: {error}"))),
        Some((error, _)) => Err(output(error)),
    }
}

/// Has a file, or a folder with what is in it, deleted by [`discard_unfinished`].
pub(crate) fn remember_unfinished(path: &Path) {
    unfinished().files.insert(path.to_owned());
}

/// Takes back [`remember_unfinished`].
pub(crate) fn forget_unfinished(path: &Path) {
    unfinished().files.remove(path);
}

/// Deletes all that this process has under temporary names, and its lock files, and keeps other threads from beginning
/// or finishing more: to be called when the process is about to end.
pub fn discard_unfinished() {
    let unfinished = unfinished();
    for path in &unfinished.files {
        if path.is_dir() {
            // Another thread may be about to put one more file into it.
            let _ = (0..FOLDER_ATTEMPTS).any(|_| fs::remove_dir_all(path).is_ok());
        } else {
            let _ = fs::remove_file(path);
        }
    }
    std::mem::forget(unfinished);
}

/// Removes the temporary files and folders and the lock files that killed processes left in a folder. Those of running
/// processes stay, and so does whatever cannot be looked at.
pub fn remove_abandoned(folder: &Path) {
    let (prefix, suffix) = TEMPORARY;
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let ours = entries.filter(|entry| {
        let name = entry.file_name();
        name.to_str()
            .is_some_and(|name| name.starts_with(prefix) && (name.ends_with(suffix) || name.ends_with(LOCK)))
    });
    for entry in ours {
        let (path, Ok(kind)) = (entry.path(), entry.file_type()) else { continue };
        // The lock is held until the file is gone: see `is_claimed`.
        let held = |file: io::Result<File>| file.ok().filter(|file| file.try_lock().is_ok());
        if kind.is_file() {
            if let Some(_held) = held(File::options().write(true).open(&path)) {
                let _ = fs::remove_file(path);
            }
        } else if kind.is_dir()
            && let Some(_held) = held(File::open(&path))
        {
            let _ = fs::remove_dir_all(path);
        }
    }
}

/// Locks a new file or folder, and says whether no other process took it for one that a killed process had left, which
/// it is until it is locked ([`remove_abandoned`]). Where the file system has no locks, nothing is removed either.
fn is_claimed(file: &File, path: &Path) -> bool {
    !matches!(file.try_lock(), Err(TryLockError::WouldBlock)) && is_at(file, path)
}

/// Whether an open file is still the one that a path names.
#[cfg(unix)]
pub(crate) fn is_at(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;

    let number = |meta: fs::Metadata| (meta.dev(), meta.ino());
    match (file.metadata(), fs::metadata(path)) {
        (Ok(open), Ok(named)) => number(open) == number(named),
        _ => false,
    }
}

#[cfg(not(unix))]
pub(crate) fn is_at(_: &File, path: &Path) -> bool {
    path.exists()
}

/// A new temporary file in a folder that exists, with the permissions of any new file.
fn temporary_in(folder: &Path) -> io::Result<NamedTempFile> {
    let (prefix, suffix) = TEMPORARY;
    let create = |path: &Path| File::options().write(true).create_new(true).open(path);
    tempfile::Builder::new().prefix(prefix).suffix(suffix).make_in(folder, create)
}

/// Whether a file can be created in a folder that exists: tried, and undone.
///
/// # Errors
/// If none can.
pub fn check_writable(folder: &Path) -> io::Result<()> {
    temporary_in(folder).map(drop)
}

/// The folder that a file lies in.
pub(crate) fn folder_of(path: &Path) -> &Path {
    // The parent of a bare file name is the empty path.
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// The mark of errors of output, with what the system said.
#[derive(Debug)]
struct Output(String);

impl std::fmt::Display for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for Output {}

/// An error that answers to [`is_output`], in the words given.
pub fn output_error(kind: ErrorKind, words: impl Into<String>) -> io::Error {
    io::Error::new(kind, Output(words.into()))
}

fn output(error: io::Error) -> io::Error {
    if is_output(&error) { error } else { output_error(error.kind(), error.to_string()) }
}

/// Whether an error comes from writing a file here and not from reading one: the run failed, its input may be fine.
pub fn is_output(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<Output>())
}

/// Fills a folder all or nothing: a temporary folder beside it (`.locus-*.tmp`) is filled and then takes its name.
/// If the folder exists, the files are moved into it one by one, over files of the same names, once all of them are
/// there.
///
/// `wrong` makes an error of the caller's from one of this function's own, which answers to [`is_output`].
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
    let wrong = |error| wrong(output(error));
    let folder = NewFolder::in_folder(folder_of(path)).map_err(wrong)?;
    let result = fill(folder.temporary.path())?;
    let placed = {
        let _whole = unfinished();
        let filled = folder.temporary.path();
        if path.exists() { move_into(filled, path) } else { fs::rename(filled, path) }
    };
    placed.map_err(wrong)?;
    Ok(result)
}

/// A folder that is being filled under a temporary name. Dropped, it is deleted with what is in it.
struct NewFolder {
    temporary: TempDir,
    /// Held while the process lives; none where the file system has no locks.
    _lock: Option<File>,
}

impl NewFolder {
    /// An empty folder in another one, which is created if need be.
    fn in_folder(above: &Path) -> io::Result<Self> {
        fs::create_dir_all(above)?;
        let mut unfinished = unfinished();
        if unfinished.tidied.insert(above.to_owned()) {
            remove_abandoned(above);
        }
        let (prefix, suffix) = TEMPORARY;
        let mut builder = tempfile::Builder::new();
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o777));
        builder.prefix(prefix).suffix(suffix);
        let (temporary, lock) = loop {
            let temporary = builder.tempdir_in(above)?;
            let lock = File::open(temporary.path());
            if lock.as_ref().is_ok_and(|folder| is_claimed(folder, temporary.path())) {
                break (temporary, lock.ok());
            }
            // A folder that cannot be opened although it is there can be filled nevertheless.
            if lock.is_err() && temporary.path().exists() {
                break (temporary, None);
            }
        };
        unfinished.files.insert(temporary.path().to_owned());
        Ok(NewFolder { temporary, _lock: lock })
    }
}

impl Drop for NewFolder {
    fn drop(&mut self) {
        unfinished().files.remove(self.temporary.path());
    }
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
        let error = write_atomically(&path, b"new").unwrap_err();
        assert!(is_output(&error), "{error}");
        assert!(path.join("inside").is_dir());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    /// The messages name no temporary file and no bare "File exists".
    #[test]
    fn messages_say_what_is_in_the_way() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, b"").unwrap();
        let why = write_atomically(file.join("x"), b"").unwrap_err();
        assert_eq!(why.to_string(), format!("{} is a file; expected a folder", file.display()));
        let why = check_writable(&dir.path().join("absent")).unwrap_err().to_string();
        assert!(!why.contains(TEMPORARY.0), "{why}");
        assert!(!is_output(&crate::read(dir.path().join("absent")).unwrap_err()));
    }

    #[test]
    fn files_come_together_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let new = |name: &str| {
            let mut file = NewFile::beside(&dir.path().join(name)).unwrap();
            file.write_all(name.as_bytes()).unwrap();
            file
        };
        let (first, second) = (new("a"), new("b"));
        assert!(!dir.path().join("a").exists());
        drop((first, second));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "dropped files are deleted");
        put_in_place([new("a"), new("b")]).unwrap();
        assert_eq!(
            (fs::read(dir.path().join("a")).unwrap(), fs::read(dir.path().join("b")).unwrap()),
            (b"a".into(), b"b".into())
        );
        fs::create_dir(dir.path().join("c")).unwrap();
        let why = put_in_place([new("c"), new("d")]).unwrap_err().to_string();
        assert!(why.starts_with(&dir.path().join("c").display().to_string()), "{why}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3);
    }

    /// Files of a killed process go, those of a living one stay, and so do files of other names.
    #[test]
    fn what_a_killed_process_left_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        for name in [".locus-abcdef.tmp", ".locus-abcdef.lock", ".locus-abcdef", ".other.tmp"] {
            fs::write(path(name), b"").unwrap();
        }
        let living = NewFile::beside(&path("x")).unwrap();
        for name in [".locus-abcdef.tmp", ".locus-abcdef.lock"] {
            assert!(!path(name).exists(), "the first file in a folder tidies it");
        }
        fs::write(path(".locus-ghijkl.tmp"), b"").unwrap();
        remove_abandoned(dir.path());
        assert!(!path(".locus-ghijkl.tmp").exists());
        assert!(living.temporary.exists() && path(".locus-abcdef").exists() && path(".other.tmp").exists());
        // A folder that was being filled.
        fs::create_dir_all(path(".locus-mnopqr.tmp/inside")).unwrap();
        write_folder(
            path("folder"),
            |e| e,
            |folder| {
                remove_abandoned(dir.path());
                assert!(!path(".locus-mnopqr.tmp").exists());
                fs::write(folder.join("x"), "")
            },
        )
        .unwrap();
        assert!(path("folder/x").exists());
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
        fs::write(dir.path().join("file"), "").unwrap();
        let below_file = write_folder(dir.path().join("file/below"), |e| e, |_| Ok(()));
        assert!(is_output(&below_file.unwrap_err()));
        assert_eq!(fs::read_dir(dir.path().join("a")).unwrap().count(), 1, "nothing is left beside it");
    }

    /// A process that is told to stop while it fills a folder leaves nothing of it.
    #[test]
    fn folders_that_are_being_filled_are_discarded() {
        const PLACE: &str = "LOCUS_FILES_TEST_FOLDER";
        if let Some(place) = std::env::var_os(PLACE) {
            let stopped = |folder: &Path| -> io::Result<()> {
                fs::create_dir(folder.join("inside"))?;
                fs::write(folder.join("inside/x"), "")?;
                assert!(folder.file_name().unwrap().to_str().unwrap().starts_with(".locus-"));
                discard_unfinished();
                std::process::exit(0)
            };
            write_folder(Path::new(&place).join("out"), |e| e, stopped).unwrap();
        }
        let dir = tempfile::tempdir().unwrap();
        let this = "write::tests::folders_that_are_being_filled_are_discarded";
        let mut child = std::process::Command::new(std::env::current_exe().unwrap());
        assert!(child.args(["--exact", this]).env(PLACE, dir.path()).status().unwrap().success());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    /// Another process may look for what killed processes left at any moment, also between the creation of a file and
    /// its lock.
    #[test]
    fn new_files_are_not_taken_for_abandoned_ones() {
        let dir = tempfile::tempdir().unwrap();
        let done = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    remove_abandoned(dir.path());
                }
            });
            let written = (0..500).map(|i| write_atomically(dir.path().join(i.to_string()), b"whole"));
            let written: Vec<io::Result<()>> = written.collect();
            done.store(true, std::sync::atomic::Ordering::Relaxed);
            assert!(written.iter().all(Result::is_ok), "{written:?}");
        });
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 500);
    }
}
