//! Downloading the files of a manifest entry: resumed where it broke off, verified, and only then put in place.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::{Digest, Sha256};
use ureq::Agent;
use ureq::http::{Response, header};

use crate::manifest::{Entry, RemoteFile};
use crate::{DataError, files, hash};

/// A file that is in place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// Where it is.
    pub path: PathBuf,
    /// Its hash.
    pub sha256: String,
    /// Whether the manifest has that hash. If not, nobody vouches for the file: compare by other means, then pin it.
    pub pinned: bool,
    /// Whether it was there already.
    pub reused: bool,
}

/// Fetches all files of an entry into a folder.
///
/// Each goes to `<file>.part` first, which a later call continues; it gets its name once it is complete and its hash is
/// the manifest's. A file with another hash is deleted. Files that are in place already are checked, not fetched again.
/// `base_override` replaces the entry's `base` (a mirror). `progress` gets the bytes of the current file so far, and
/// their final number where the server tells.
///
/// The network is used directly; behind a proxy use [`fetch_through`].
pub fn fetch(
    entry: &Entry,
    dest_dir: &Path,
    base_override: Option<&str>,
    progress: &mut dyn FnMut(u64, Option<u64>),
) -> Result<Vec<Fetched>, DataError> {
    fetch_through(None, entry, dest_dir, base_override, progress)
}

/// [`fetch`] through a proxy, e.g. `http://proxy.example:3128`. This crate does not read the environment's.
pub fn fetch_through(
    proxy: Option<&str>,
    entry: &Entry,
    dest_dir: &Path,
    base_override: Option<&str>,
    progress: &mut dyn FnMut(u64, Option<u64>),
) -> Result<Vec<Fetched>, DataError> {
    let proxy = proxy
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
    let base = base_override.unwrap_or(&entry.base);
    entry.files.iter().map(|file| fetch_file(&agent, file, &file.url(base), dest_dir, progress)).collect()
}

fn fetch_file(
    agent: &Agent,
    file: &RemoteFile,
    url: &str,
    dest_dir: &Path,
    progress: &mut dyn FnMut(u64, Option<u64>),
) -> Result<Fetched, DataError> {
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
        let found = hash::sha256_file(&path)?;
        check(&found, "delete the file to fetch it again")?;
        found
    } else {
        files::create_dir(path.parent().unwrap_or(dest_dir))?;
        let part = Part::beside(&path);
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

/// A download on its way.
struct Part {
    path: PathBuf,
    /// Holds the entity tag of the version that is being fetched, if no hash can tell versions apart afterwards.
    etag: PathBuf,
}

impl Part {
    fn beside(target: &Path) -> Self {
        let with = |suffix: &str| {
            let mut name = target.as_os_str().to_owned();
            name.push(suffix);
            PathBuf::from(name)
        };
        Self { path: with(".part"), etag: with(".part.etag") }
    }

    fn discard(&self) -> Result<(), DataError> {
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
    ) -> Result<String, DataError> {
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
                    hash::feed(&self.path, &mut hasher)?;
                    return self.append(url, response, hasher, have, progress);
                }
                // The whole file, unasked: the server knows no ranges, or the file has changed.
                200 => return self.restart(url, response, pinned, progress),
                // Nothing is left: the part is complete, and only its rename is missing.
                416 if content_total(&response) == Some(have) => return hash::sha256_file(&self.path),
                // The part does not fit the file.
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

    fn restart(
        &self,
        url: &str,
        response: Response<ureq::Body>,
        pinned: bool,
        progress: &mut dyn FnMut(u64, Option<u64>),
    ) -> Result<String, DataError> {
        self.discard()?;
        if !pinned && let Some(etag) = strong_etag(&response) {
            fs::write(&self.etag, etag).map_err(|e| DataError::io(&self.etag, "write", e))?;
        }
        self.append(url, response, Sha256::new(), 0, progress)
    }

    /// Writes the body behind what is there.
    fn append(
        &self,
        url: &str,
        mut response: Response<ureq::Body>,
        mut hasher: Sha256,
        mut have: u64,
        progress: &mut dyn FnMut(u64, Option<u64>),
    ) -> Result<String, DataError> {
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
        Ok(hash::finish(hasher))
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

/// An entity tag that promises equality byte by byte.
fn strong_etag(response: &Response<ureq::Body>) -> Option<&str> {
    let etag = response.headers().get(header::ETAG)?.to_str().ok()?;
    etag.starts_with('"').then_some(etag)
}

fn remove(path: &Path) -> Result<(), DataError> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(DataError::io(path, "delete", e)),
        _ => Ok(()),
    }
}
