//! Downloads of a manifest entry's files: resumed where they broke off, verified, and only then put in place.
//!
//! A file goes to `FILE.part` first, which a later call continues. With a hash in the manifest any part may be
//! continued, because the hash decides in the end. Without one, the server's entity tag is kept in `FILE.part.etag` and
//! the part is continued only if the server still has that version (RFC 9110, section 13.1.5).

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::{Digest, Sha256};
use ureq::Agent;
use ureq::http::{Response, header};

use crate::manifest::{Entry, RemoteFile};
use crate::{DataError, Result, files};

/// A downloaded file in its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// Path of the file.
    pub path: PathBuf,
    /// SHA-256 of the file.
    pub sha256: String,
    /// Whether the manifest has that hash. If not, nobody vouches for the file: compare it by other means, then pin it.
    pub pinned: bool,
    /// Whether the file was in its place before.
    pub reused: bool,
}

/// Where files are fetched from. The default is the entry's own address without a proxy; the environment is not read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FetchOptions<'a> {
    /// Base address (of a mirror) in place of the entry's.
    pub base: Option<&'a str>,
    /// Address of a proxy, for example `http://proxy.example:3128`.
    pub proxy: Option<&'a str>,
}

/// Fetches all files of an entry into a folder, one after the other.
///
/// A file gets its name once it is complete and its hash is the manifest's; a download with another hash is deleted.
/// Files that are in place already are checked, not fetched again. `progress` gets the number of bytes of the current
/// file so far, and their final number where the server tells it.
///
/// # Errors
/// If the proxy's address is unusable, a transfer breaks off (a later call continues it), the server refuses, a file
/// cannot be written, or its hash is not the manifest's.
pub fn fetch(
    entry: &Entry,
    dest_dir: impl AsRef<Path>,
    options: FetchOptions,
    progress: &mut dyn FnMut(u64, Option<u64>),
) -> Result<Vec<Fetched>> {
    let proxy = options
        .proxy
        .map(|address| {
            ureq::Proxy::new(address).map_err(|e| transfer(address, format!("unusable as a proxy: {e}")))
        })
        .transpose()?;
    let agent: Agent = Agent::config_builder()
        .proxy(proxy)
        .http_status_as_error(false)
        .timeout_connect(Some(Duration::from_secs(30)))
        .build()
        .into();
    let (base, dest_dir) = (options.base.unwrap_or(&entry.base), dest_dir.as_ref());
    entry.files.iter().map(|file| fetch_file(&agent, file, &file.url(base), dest_dir, progress)).collect()
}

fn fetch_file(
    agent: &Agent,
    file: &RemoteFile,
    url: &str,
    dest_dir: &Path,
    progress: &mut dyn FnMut(u64, Option<u64>),
) -> Result<Fetched> {
    let path = dest_dir.join(&file.path);
    let check = |found: &str, note| match file.pinned() {
        Some(expected) if expected != found => Err(DataError::Hash {
            file: path.display().to_string(),
            found: found.to_owned(),
            expected: expected.to_owned(),
            note,
        }),
        _ => Ok(()),
    };

    let reused = path.exists();
    let sha256 = if reused {
        let found = files::sha256(&path)?;
        check(&found, "delete the file to fetch it again")?;
        found
    } else {
        files::create_dir(path.parent().unwrap_or(dest_dir))?;
        let part = PartFile::beside(&path);
        let found = part.download(agent, url, file.pinned().is_some(), progress)?;
        if let Err(error) = check(&found, "the download was deleted") {
            part.discard()?;
            return Err(error);
        }
        fs::rename(&part.path, &path).map_err(|e| DataError::io(&path, "write", e))?;
        remove(&part.etag)?;
        found
    };
    Ok(Fetched { path, sha256, pinned: file.pinned().is_some(), reused })
}

/// A download that is not complete.
struct PartFile {
    path: PathBuf,
    /// File with the entity tag of the version that is being fetched; used only when the manifest has no hash.
    etag: PathBuf,
}

impl PartFile {
    fn beside(target: &Path) -> Self {
        let with = |suffix: &str| {
            let mut name = target.as_os_str().to_owned();
            name.push(suffix);
            PathBuf::from(name)
        };
        Self { path: with(".part"), etag: with(".part.etag") }
    }

    fn discard(&self) -> Result<()> {
        remove(&self.path)?;
        remove(&self.etag)
    }

    /// Completes the file and returns its hash.
    fn download(
        &self,
        agent: &Agent,
        url: &str,
        pinned: bool,
        progress: &mut dyn FnMut(u64, Option<u64>),
    ) -> Result<String> {
        // Without a hash or an entity tag, two halves of different versions would go unnoticed.
        let etag = fs::read_to_string(&self.etag).ok().filter(|_| !pinned);
        if !pinned && etag.is_none() {
            self.discard()?;
        }
        let have = fs::metadata(&self.path).map_or(0, |meta| meta.len());
        if have > 0 {
            let mut request = agent.get(url).header(header::RANGE, format!("bytes={have}-"));
            if let Some(etag) = &etag {
                request = request.header(header::IF_RANGE, etag);
            }
            let response = request.call().map_err(|e| transfer(url, e.to_string()))?;
            match response.status().as_u16() {
                206 if range_start(&response) == Some(have) => {
                    let mut hasher = Sha256::new();
                    locus_files::feed(&self.path, &mut hasher)
                        .map_err(|e| DataError::io(&self.path, "read", e))?;
                    return self.append(url, response, hasher, have, progress);
                }
                // The whole file instead of the rest: the server knows no ranges, or the file has changed.
                200 => return self.restart(url, response, pinned, progress),
                // Nothing is left to send: the part is complete and was only not renamed.
                416 if content_total(&response) == Some(have) => return files::sha256(&self.path),
                // The part is not the beginning of the file.
                206 | 416 => self.discard()?,
                _ => return Err(refused(url, &response)),
            }
        }
        let response = agent.get(url).call().map_err(|e| transfer(url, e.to_string()))?;
        match response.status().as_u16() {
            200 => self.restart(url, response, pinned, progress),
            _ => Err(refused(url, &response)),
        }
    }

    /// Begins the file anew with the body of a response and returns its hash.
    fn restart(
        &self,
        url: &str,
        response: Response<ureq::Body>,
        pinned: bool,
        progress: &mut dyn FnMut(u64, Option<u64>),
    ) -> Result<String> {
        self.discard()?;
        if !pinned && let Some(etag) = strong_etag(&response) {
            fs::write(&self.etag, etag).map_err(|e| DataError::io(&self.etag, "write", e))?;
        }
        self.append(url, response, Sha256::new(), 0, progress)
    }

    /// Writes the body of a response behind the `have` bytes that `hasher` was fed, and returns the hash of the file.
    fn append(
        &self,
        url: &str,
        mut response: Response<ureq::Body>,
        mut hasher: Sha256,
        mut have: u64,
        progress: &mut dyn FnMut(u64, Option<u64>),
    ) -> Result<String> {
        let failed = |e| DataError::io(&self.path, "write", e);
        let total = response.body().content_length().map(|rest| have + rest);
        let mut file = File::options().create(true).append(true).open(&self.path).map_err(failed)?;
        let mut body = response.body_mut().as_reader();
        let mut buffer = vec![0; 1 << 16];
        progress(have, total);
        loop {
            let n = body.read(&mut buffer).map_err(|e| {
                let total = total.map_or(String::new(), |total| format!(" of {total}"));
                transfer(url, format!("broke off after {have}{total} bytes ({e}); fetch again to continue"))
            })?;
            if n == 0 {
                break;
            }
            file.write_all(&buffer[..n]).map_err(failed)?;
            hasher.update(&buffer[..n]);
            have += n as u64;
            progress(have, total);
        }
        file.sync_all().map_err(failed)?;
        Ok(locus_files::hex(&hasher.finalize()))
    }
}

fn transfer(url: &str, problem: String) -> DataError {
    DataError::Transfer { url: url.to_owned(), problem }
}

fn refused(url: &str, response: &Response<ureq::Body>) -> DataError {
    transfer(url, format!("the server answered {}; expected the file", response.status()))
}

fn content_range(response: &Response<ureq::Body>) -> Option<(&str, &str)> {
    response.headers().get(header::CONTENT_RANGE)?.to_str().ok()?.strip_prefix("bytes ")?.split_once('/')
}

/// First byte of a partial answer: 5 in `bytes 5-9/10`.
fn range_start(response: &Response<ureq::Body>) -> Option<u64> {
    content_range(response)?.0.split_once('-')?.0.parse().ok()
}

/// Length of the whole file: 10 in `bytes */10`.
fn content_total(response: &Response<ureq::Body>) -> Option<u64> {
    content_range(response)?.1.parse().ok()
}

/// Entity tag of a response if it promises equality byte for byte (RFC 9110, section 8.8.1), which `W/"..."` does not.
fn strong_etag(response: &Response<ureq::Body>) -> Option<&str> {
    let etag = response.headers().get(header::ETAG)?.to_str().ok()?;
    etag.starts_with('"').then_some(etag)
}

/// Deletes a file, if there is one.
fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(DataError::io(path, "delete", e)),
        _ => Ok(()),
    }
}
