//! A download that is not complete: `FILE.part`, written by one process at a time.

use std::fs::{self, File, TryLockError};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use ureq::http::{Response, header};

use super::client::{Client, transfer};
use super::{beside, is_regular};
use crate::manifest::RemoteFile;
use crate::{DataError, Result, files};

/// Time between two looks at a part that another process holds.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// An open and locked `FILE.part`. Left behind, it stays for the next attempt, unless it is empty.
pub(super) struct Part {
    path: PathBuf,
    /// File with the entity tag of the version that is being fetched; used only when no hash is known.
    etag: PathBuf,
    file: File,
}

impl Part {
    /// Opens the part of a file. While another process holds it, the call waits, as long as the part grows at least
    /// once in a while (`patience`), and reports its length.
    pub(super) fn open(
        target: &Path,
        patience: Duration,
        progress: &mut dyn FnMut(u64, Option<u64>),
    ) -> Result<Self> {
        let (path, etag) = (beside(target, ".part"), beside(target, ".part.etag"));
        loop {
            is_regular(&path)?;
            // Whoever held the part before may have removed the folder with it.
            files::create_dir(path.parent().unwrap_or(Path::new(".")))?;
            let opened = File::options().create(true).truncate(false).read(true).write(true).open(&path);
            let file = match opened {
                Err(e) if e.kind() == ErrorKind::NotFound => continue,
                opened => opened.map_err(|e| DataError::io(&path, "write", e))?,
            };
            lock(&file, patience, progress).map_err(|e| DataError::io(&path, "lock", e))?;
            // Whoever held the part before may have deleted or renamed it; then the lock is on nothing that counts.
            if is_at(&file, &path).map_err(|e| DataError::io(&path, "read", e))? {
                return Ok(Self { path, etag, file });
            }
        }
    }

    /// Completes the file. `known`: whether a hash will decide about the whole.
    pub(super) fn download(
        &mut self,
        client: &Client,
        url: &str,
        remote: &RemoteFile,
        known: bool,
        progress: &mut dyn FnMut(u64, Option<u64>),
    ) -> Result<()> {
        // Without a hash or an entity tag, two halves of different versions would go unnoticed.
        let etag = if known { None } else { self.stored_etag() };
        if !known && etag.is_none() {
            self.clear()?;
        }
        let have = self.file.metadata().map_err(|e| DataError::io(&self.path, "read", e))?.len();
        if have > 0 {
            let response = client.get(url, Some((have, etag.as_deref())))?;
            match response.status().as_u16() {
                206 if goes_on_to_the_end(&response, have) => {
                    return self.append(client, url, remote, response, have, progress);
                }
                // The whole file instead of the rest: the server knows no ranges, or the file has changed.
                200 => return self.restart(client, url, remote, response, known, progress),
                // Nothing is left to send: the part is complete and was only not renamed.
                416 if content_range(&response).is_some_and(|range| range.total == Some(have)) => {
                    return Ok(());
                }
                // The part is not the beginning of the file.
                206 | 416 => {}
                _ => return Err(refused(url, &response)),
            }
        }
        let response = client.get(url, None)?;
        match response.status().as_u16() {
            200 => self.restart(client, url, remote, response, known, progress),
            _ => Err(refused(url, &response)),
        }
    }

    /// Begins the file anew with the body of a response.
    fn restart(
        &mut self,
        client: &Client,
        url: &str,
        remote: &RemoteFile,
        response: Response<ureq::Body>,
        known: bool,
        progress: &mut dyn FnMut(u64, Option<u64>),
    ) -> Result<()> {
        check_length(url, remote, response.body().content_length())?;
        let chunked = response.headers().contains_key(header::TRANSFER_ENCODING);
        if !known && !chunked && response.body().content_length().is_none() {
            let problem = "the server does not say how long the file is; expected a Content-Length";
            return Err(transfer(url, problem));
        }
        self.clear()?;
        if !known && let Some(etag) = strong_etag(&response) {
            fs::write(&self.etag, etag).map_err(|e| DataError::io(&self.etag, "write", e))?;
        }
        self.append(client, url, remote, response, 0, progress)
    }

    /// Writes the body of a response behind the first `have` bytes.
    fn append(
        &mut self,
        client: &Client,
        url: &str,
        remote: &RemoteFile,
        mut response: Response<ureq::Body>,
        mut have: u64,
        progress: &mut dyn FnMut(u64, Option<u64>),
    ) -> Result<()> {
        let path = &self.path;
        let failed = |e| DataError::io(path, "write", e);
        let total = response.body().content_length().map(|rest| have.saturating_add(rest));
        check_length(url, remote, total)?;
        let total = remote.exact_bytes().or(total);
        let of_total = total.map_or(String::new(), |total| format!(" of {total}"));
        let broke_off = |have: u64, why: &str| {
            transfer(url, format!("broke off after {have}{of_total} bytes ({why}); fetch again to continue"))
        };
        self.file.seek(SeekFrom::Start(have)).map_err(failed)?;
        let mut body = response.body_mut().as_reader();
        let mut buffer = vec![0; 1 << 16];
        progress(have, total);
        loop {
            let n = body.read(&mut buffer).map_err(|e| broke_off(have, &client.read_problem(&e)))?;
            if n == 0 {
                break;
            }
            if have + n as u64 > remote.most_bytes() {
                let problem = format!("the server sends more than {} bytes; given up", remote.most_bytes());
                self.clear()?;
                return Err(transfer(url, problem));
            }
            self.file.write_all(&buffer[..n]).map_err(failed)?;
            have += n as u64;
            progress(have, total);
        }
        if total.is_some_and(|total| total != have) {
            return Err(broke_off(have, "the server sent no more"));
        }
        self.file.sync_all().map_err(failed)
    }

    /// SHA-256 of what is on the disk.
    pub(super) fn sha256(&mut self) -> Result<String> {
        self.file
            .rewind()
            .and_then(|()| locus_files::sha256_reader(&mut self.file))
            .map_err(|e| DataError::io(&self.path, "read", e))
    }

    /// Gives the complete file its name.
    pub(super) fn put_in_place(self, target: &Path) -> Result<()> {
        remove(&self.etag)?;
        fs::rename(&self.path, target).map_err(|e| DataError::io(target, "write", e))
    }

    /// Deletes the part.
    pub(super) fn delete(self) -> Result<()> {
        remove(&self.etag)?;
        remove(&self.path)
    }

    /// Empties the part.
    fn clear(&mut self) -> Result<()> {
        remove(&self.etag)?;
        self.file.set_len(0).map_err(|e| DataError::io(&self.path, "write", e))
    }

    fn stored_etag(&self) -> Option<String> {
        let etag = fs::metadata(&self.etag).ok()?.is_file().then(|| fs::read_to_string(&self.etag))?.ok()?;
        Some(etag).filter(|etag| is_strong(etag))
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // An empty part is worth nothing. One that was renamed is not at its path any more.
        if self.file.metadata().is_ok_and(|meta| meta.len() == 0)
            && is_at(&self.file, &self.path).unwrap_or(false)
        {
            let _ = remove(&self.path).and_then(|()| remove(&self.etag));
        }
    }
}

/// Locks a part, waiting for whoever holds it.
fn lock(file: &File, patience: Duration, progress: &mut dyn FnMut(u64, Option<u64>)) -> io::Result<()> {
    let (mut len, mut since) = (None, Instant::now());
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(e)) => return Err(e),
        }
        let now = file.metadata()?.len();
        if len != Some(now) {
            (len, since) = (Some(now), Instant::now());
            progress(now, None);
        }
        if since.elapsed() > patience {
            let problem = format!(
                "another process is fetching this file and has made no headway for {} s",
                patience.as_secs_f64()
            );
            return Err(io::Error::new(ErrorKind::WouldBlock, problem));
        }
        thread::sleep(LOOK_AGAIN.min(patience));
    }
}

/// Whether an open file is the one at a path.
fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let there = match fs::metadata(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(false),
        there => there?,
    };
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let open = file.metadata()?;
        Ok((open.dev(), open.ino()) == (there.dev(), there.ino()))
    }
    // Elsewhere an open file cannot be told from another one; it cannot be deleted there either.
    #[cfg(not(unix))]
    {
        let _ = (file, there);
        Ok(true)
    }
}

/// Refuses a length that cannot be the file's.
fn check_length(url: &str, remote: &RemoteFile, announced: Option<u64>) -> Result<()> {
    let Some(announced) = announced else { return Ok(()) };
    if let Some(exact) = remote.exact_bytes().filter(|&exact| exact != announced) {
        return Err(transfer(url, format!("the server has {announced} bytes; expected {exact}")));
    }
    if announced > remote.most_bytes() {
        let most = remote.most_bytes();
        return Err(transfer(url, format!("the server has {announced} bytes; expected {most} at most")));
    }
    Ok(())
}

fn refused(url: &str, response: &Response<ureq::Body>) -> DataError {
    transfer(url, format!("the server answered {}; expected the file", response.status()))
}

/// The header `Content-Range`.
struct ContentRange {
    /// First and last byte; none in `bytes */10`.
    range: Option<(u64, u64)>,
    /// Length of the whole file; none in `bytes 5-9/*`.
    total: Option<u64>,
}

fn content_range(response: &Response<ureq::Body>) -> Option<ContentRange> {
    let value = response.headers().get(header::CONTENT_RANGE)?.to_str().ok()?;
    let (range, total) = value.strip_prefix("bytes ")?.split_once('/')?;
    let range =
        range.split_once('-').and_then(|(first, last)| Some((first.parse().ok()?, last.parse().ok()?)));
    Some(ContentRange { range, total: total.parse().ok() })
}

/// Whether a partial answer holds everything from `have` to the file's end.
fn goes_on_to_the_end(response: &Response<ureq::Body>, have: u64) -> bool {
    let Some(ContentRange { range: Some((first, last)), total }) = content_range(response) else {
        return false;
    };
    let announced = response.body().content_length();
    let length = last.checked_sub(first).and_then(|n| n.checked_add(1));
    first == have
        && length.is_some()
        && total.is_some_and(|total| Some(total) == last.checked_add(1))
        && announced.is_none_or(|announced| Some(announced) == length)
}

/// Entity tag of a response if it promises equality byte for byte (RFC 9110, section 8.8.1), which `W/"..."` does not.
fn strong_etag(response: &Response<ureq::Body>) -> Option<&str> {
    let etag = response.headers().get(header::ETAG)?.to_str().ok()?;
    is_strong(etag).then_some(etag)
}

/// Whether a text is a strong entity tag and fits into a header.
fn is_strong(etag: &str) -> bool {
    etag.len() >= 2
        && etag.starts_with('"')
        && etag.ends_with('"')
        && etag.bytes().all(|b| (b' '..=b'~').contains(&b))
}

/// Deletes a file, if there is one.
fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(DataError::io(path, "delete", e)),
        _ => Ok(()),
    }
}
