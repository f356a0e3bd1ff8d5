//! Downloads of a manifest entry's files: resumed where they broke off, verified, and only then put in place.
//!
//! A file goes to `FILE.part` first, which a later call continues and which only one process at a time writes. With a
//! known hash any part may be continued, because the hash decides in the end. Without one, the server's entity tag is
//! kept in `FILE.part.etag` and the part is continued only if the server still has that version (RFC 9110, section
//! 13.1.5).
//!
//! The hash is that of the file on disk. A file that the manifest does not pin gets a record `FILE.sha256` when it is
//! first fetched (the layout of `sha256sum`); later calls hold the file, and any new download of it, to that record.

mod client;
mod no_proxy;
mod part;

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use self::client::Client;
use self::part::Part;
use crate::manifest::{Entry, RemoteFile, is_sha256};
use crate::{DataError, Result, files};

/// A downloaded file in its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// Path of the file.
    pub path: PathBuf,
    /// SHA-256 of the file.
    pub sha256: String,
    /// What that hash was compared with.
    pub verified: Verified,
    /// Whether the file was in its place before.
    pub reused: bool,
}

/// What the hash of a file was compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verified {
    /// The manifest's hash.
    Manifest,
    /// The hash of the first download, kept in `FILE.sha256`.
    FirstFetch,
    /// Nothing: nobody vouches for the file. Compare it by other means, then pin it.
    Not,
}

/// How far the download of a file has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FetchProgress<'a> {
    /// Number of the file within its entry, from 0.
    pub index: usize,
    /// The file's path below the destination folder.
    pub file: &'a str,
    /// Bytes on disk.
    pub done: u64,
    /// Bytes of the whole file, where manifest or server tell it.
    pub total: Option<u64>,
}

/// Where files are fetched from, and how. The default is the entry's own address without a proxy; proxies in the
/// environment are not looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FetchOptions<'a> {
    /// Base address (of a mirror) in place of the entry's.
    pub base: Option<&'a str>,
    /// Address of an HTTP or SOCKS proxy, for example `http://proxy.example:3128` or `socks5h://localhost:1080`.
    pub proxy: Option<&'a str>,
    /// Hosts that are reached without the proxy, as in `NO_PROXY`: names (with all names below them), addresses and
    /// networks (`10.0.0.0/8`), separated by commas; `*` means every host.
    pub no_proxy: Option<&'a str>,
    /// PEM file with the certificate authorities to trust, in place of the system's.
    pub ca_file: Option<&'a Path>,
    /// Longest silence of a server, a proxy or another process that fetches the same file.
    pub stall_timeout: Duration,
}

impl Default for FetchOptions<'_> {
    fn default() -> Self {
        Self {
            base: None,
            proxy: None,
            no_proxy: None,
            ca_file: None,
            stall_timeout: Duration::from_secs(30),
        }
    }
}

/// Fetches all files of an entry into a folder, one after the other.
///
/// A file gets its name once it is complete and its hash is the expected one; a download with another hash is deleted.
/// Files that are in place already are checked, not fetched again. While another process fetches the same file, the
/// call waits for it. Redirects are followed, from HTTPS only to HTTPS.
///
/// # Errors
/// If an address or the file of authorities is unusable, a transfer breaks off or stalls (a later call continues it),
/// the server refuses or sends something else than the file, a file cannot be written, or a hash is not the expected
/// one. Folders that were created for nothing are removed.
pub fn fetch(
    entry: &Entry,
    dest_dir: impl AsRef<Path>,
    options: FetchOptions,
    progress: &mut dyn FnMut(FetchProgress),
) -> Result<Vec<Fetched>> {
    let client = Client::new(options)?;
    let base = options.base.unwrap_or(&entry.base);
    client::check_base(base)?;
    let files = entry.files.iter().enumerate();
    files
        .map(|(index, file)| {
            let mut progress = |done, total| {
                progress(FetchProgress {
                    index,
                    file: &file.path,
                    done,
                    total: file.exact_bytes().or(total),
                });
            };
            fetch_file(&client, file, &file.url(base), dest_dir.as_ref(), &mut progress)
        })
        .collect()
}

fn fetch_file(
    client: &Client,
    file: &RemoteFile,
    url: &str,
    dest_dir: &Path,
    progress: &mut dyn FnMut(u64, Option<u64>),
) -> Result<Fetched> {
    let path = dest_dir.join(&file.path);
    let record = beside(&path, ".sha256");
    let (known, verified) = match file.pinned() {
        Some(hash) => (Some(hash.to_owned()), Verified::Manifest),
        None => match read_record(&record)? {
            Some(hash) => (Some(hash), Verified::FirstFetch),
            None => (None, Verified::Not),
        },
    };
    let check = |found: &str, note| match &known {
        Some(expected) if expected != found => Err(DataError::Hash {
            file: path.display().to_string(),
            found: found.to_owned(),
            expected: expected.clone(),
            note,
        }),
        _ => Ok(()),
    };
    let reuse = || {
        let sha256 = files::sha256(&path)?;
        check(&sha256, "delete the file to fetch it again")?;
        Ok(Fetched { path: path.clone(), sha256, verified, reused: true })
    };
    if is_regular(&path)? {
        return reuse();
    }

    let folders = NewFolders::create(path.parent().unwrap_or(dest_dir))?;
    let mut part = Part::open(&path, 4 * client.patience, progress)?;
    // Another process may have finished the file while this one waited.
    if is_regular(&path)? {
        part.delete()?;
        return reuse();
    }
    part.download(client, url, file, known.is_some(), progress)?;
    let sha256 = part.sha256()?;
    if let Err(error) = check(&sha256, "the download was deleted") {
        part.delete()?;
        return Err(error);
    }
    if known.is_none() {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        files::write_atomically(&record, format!("{sha256}  {name}\n").as_bytes())?;
    }
    part.put_in_place(&path)?;
    folders.keep();
    Ok(Fetched { path, sha256, verified, reused: false })
}

/// `path` with a suffix behind its name.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Whether there is a file. Anything else there (a folder, a pipe) is an error: reading it might never end.
fn is_regular(path: &Path) -> Result<bool> {
    match fs::metadata(path) {
        Ok(meta) if meta.is_file() => Ok(true),
        Ok(_) => {
            let cause = std::io::Error::new(ErrorKind::IsADirectory, "there is something that is not a file");
            Err(DataError::io(path, "write", cause))
        }
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(false),
        Err(e) => Err(DataError::io(path, "read", e)),
    }
}

/// Hash in a record of a first fetch, if there is one.
fn read_record(path: &Path) -> Result<Option<String>> {
    if !is_regular(path)? {
        return Ok(None);
    }
    let text = String::from_utf8_lossy(&files::read(path)?).into_owned();
    match text.split_whitespace().next() {
        Some(hash) if is_sha256(hash) => Ok(Some(hash.to_owned())),
        _ => Err(DataError::Syntax {
            file: path.display().to_string(),
            line: 1,
            problem: "no SHA-256".to_owned(),
            expected: "64 lowercase hexadecimal digits, as sha256sum writes them",
        }),
    }
}

/// Folders that did not exist before; empty ones are removed again unless they are to be kept.
struct NewFolders(Vec<PathBuf>);

impl NewFolders {
    fn create(folder: &Path) -> Result<Self> {
        let missing = folder.ancestors().take_while(|path| !path.as_os_str().is_empty() && !path.exists());
        let new = Self(missing.map(Path::to_owned).collect());
        files::create_dir(folder)?;
        Ok(new)
    }

    fn keep(mut self) {
        self.0.clear();
    }
}

impl Drop for NewFolders {
    fn drop(&mut self) {
        for folder in &self.0 {
            // A folder with something in it stays, and is not removed by this call.
            let _ = fs::remove_dir(folder);
        }
    }
}
