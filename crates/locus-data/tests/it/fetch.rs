//! Downloads from a server that is part of the test.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;

use locus_data::fetch::{FetchOptions, Fetched, Verified, fetch};
use locus_data::{DataError, Entry, Manifest};
use locus_files::sha256;

/// Request of a client: the target, and the start of the range if there was one.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Asked {
    target: String,
    from: Option<usize>,
    if_range: Option<String>,
}

/// How the server behaves.
#[derive(Clone, Copy, Default)]
struct Manners {
    ignores_ranges: bool,
    /// Closes the connection after this many bytes of the body.
    cut: Option<usize>,
    etag: Option<&'static str>,
}

struct Server {
    base: String,
    log: Arc<Mutex<Vec<Asked>>>,
}

impl Server {
    /// Serves `content` at `/file`, until the test's process ends.
    fn start(content: &[u8], manners: Manners) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let log = Arc::new(Mutex::new(Vec::new()));
        let (content, seen) = (content.to_vec(), Arc::clone(&log));
        thread::spawn(move || {
            for stream in listener.incoming() {
                // A client may hang up on us; that is its right.
                let _ = answer(stream.unwrap(), &content, manners, &seen);
            }
        });
        Self { base, log }
    }

    fn asked(&self) -> Vec<Asked> {
        self.log.lock().unwrap().clone()
    }
}

fn answer(
    mut stream: TcpStream,
    content: &[u8],
    manners: Manners,
    log: &Mutex<Vec<Asked>>,
) -> std::io::Result<()> {
    let head: Vec<String> = BufReader::new(stream.try_clone()?)
        .lines()
        .map_while(Result::ok)
        .take_while(|line| !line.is_empty())
        .collect();
    let target = head.first().and_then(|line| line.split(' ').nth(1)).unwrap_or_default().to_owned();
    let value = |name: &str| {
        head.iter().find_map(|line| {
            let (key, value) = line.split_once(": ")?;
            key.eq_ignore_ascii_case(name).then(|| value.to_owned())
        })
    };
    let from = value("range")
        .and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok());
    let if_range = value("if-range");
    log.lock().unwrap().push(Asked { target: target.clone(), from, if_range: if_range.clone() });

    let etag = manners.etag.map(|tag| format!("ETag: {tag}\r\n")).unwrap_or_default();
    let fresh = if_range.is_none() || if_range.as_deref() == manners.etag;
    let len = content.len();
    let (status, extra, body) = match from.filter(|_| fresh && !manners.ignores_ranges) {
        _ if !target.ends_with("/file") => ("404 Not Found", String::new(), &b"no such file"[..]),
        Some(from) if from >= len => {
            ("416 Range Not Satisfiable", format!("Content-Range: bytes */{len}\r\n"), &[][..])
        }
        Some(from) => (
            "206 Partial Content",
            format!("Content-Range: bytes {from}-{}/{len}\r\n", len - 1),
            &content[from..],
        ),
        None => ("200 OK", String::new(), content),
    };
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\n{etag}{extra}Connection: close\r\n\r\n",
        body.len()
    )?;
    stream.write_all(&body[..manners.cut.unwrap_or(body.len()).min(body.len())])
}

fn content() -> Vec<u8> {
    (0..300_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

fn entry(path: &str, sha256: &str) -> Entry {
    let text = format!(
        "[[entry]]\nname = \"e\"\nkind = \"data\"\nlicence = \"MIT\"\norigin = \"test\"\nbase = \"http://nowhere.invalid\"\n\
         files = [{{ path = \"{path}\", sha256 = \"{sha256}\" }}]\n"
    );
    Manifest::parse("M.toml", &text).unwrap().entry("e").unwrap().clone()
}

fn mirror(server: &Server) -> FetchOptions<'_> {
    FetchOptions { base: Some(&server.base), ..FetchOptions::default() }
}

fn get(server: &Server, entry: &Entry, dir: &Path) -> Result<Fetched, DataError> {
    fetch(entry, dir, mirror(server), &mut |_| ()).map(|mut files| files.remove(0))
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(dir)
        .unwrap()
        .map(|item| item.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn fetches_verifies_and_reuses() {
    let (dir, content) = (tempfile::tempdir().unwrap(), content());
    let server = Server::start(&content, Manners::default());
    let entry = entry("sub/file", &sha256(&content));

    let mut steps = Vec::new();
    let got = fetch(&entry, dir.path(), mirror(&server), &mut |at| steps.push((at.done, at.total))).unwrap();
    let path = dir.path().join("sub/file");
    let first =
        Fetched { path: path.clone(), sha256: sha256(&content), verified: Verified::Manifest, reused: false };
    assert_eq!(got, std::slice::from_ref(&first));
    assert_eq!(std::fs::read(&path).unwrap(), content);
    assert_eq!(names(&dir.path().join("sub")), ["file"]);
    assert_eq!(steps.first(), Some(&(0, Some(300_000))));
    assert_eq!(steps.last(), Some(&(300_000, Some(300_000))));
    assert!(steps.is_sorted());

    assert_eq!(get(&server, &entry, dir.path()).unwrap(), Fetched { reused: true, ..first });
    assert_eq!(server.asked().len(), 1);
}

#[test]
fn continues_where_it_broke_off() {
    let (dir, content) = (tempfile::tempdir().unwrap(), content());
    let entry = entry("file", &sha256(&content));

    let cut = Server::start(&content, Manners { cut: Some(100_000), ..Manners::default() });
    let message = get(&cut, &entry, dir.path()).unwrap_err().to_string();
    assert!(
        message.starts_with(&format!("{}/file: broke off after 100000 of 300000 bytes (", cut.base)),
        "{message}"
    );
    assert_eq!(names(dir.path()), ["file.part"]);

    let whole = Server::start(&content, Manners::default());
    let mut first_step = None;
    fetch(&entry, dir.path(), mirror(&whole), &mut |at| {
        first_step.get_or_insert((at.done, at.total));
    })
    .unwrap();
    assert_eq!(first_step, Some((100_000, Some(300_000))));
    assert_eq!(whole.asked()[0].from, Some(100_000));
    assert_eq!(std::fs::read(dir.path().join("file")).unwrap(), content);
    assert_eq!(names(dir.path()), ["file"]);
}

#[test]
fn starts_over_when_the_server_knows_no_ranges() {
    let (dir, content) = (tempfile::tempdir().unwrap(), content());
    std::fs::write(dir.path().join("file.part"), &content[..5]).unwrap();
    let server = Server::start(&content, Manners { ignores_ranges: true, ..Manners::default() });
    get(&server, &entry("file", &sha256(&content)), dir.path()).unwrap();
    assert_eq!(server.asked().len(), 1);
    assert_eq!(std::fs::read(dir.path().join("file")).unwrap(), content);
}

#[test]
fn a_part_that_is_complete_or_too_long_is_no_trap() {
    let content = content();
    let server = Server::start(&content, Manners::default());
    let entry = entry("file", &sha256(&content));
    for (part, requests) in [(content.clone(), 1), ([&content[..], b"more"].concat(), 2)] {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("file.part"), part).unwrap();
        let before = server.asked().len();
        get(&server, &entry, dir.path()).unwrap();
        assert_eq!(server.asked().len() - before, requests);
        assert_eq!(std::fs::read(dir.path().join("file")).unwrap(), content);
    }
}

#[test]
fn a_wrong_hash_is_named_and_the_file_deleted() {
    let (dir, content) = (tempfile::tempdir().unwrap(), content());
    let server = Server::start(&content, Manners::default());
    let wanted = "0".repeat(64);
    let entry = entry("file", &wanted);
    let message = get(&server, &entry, dir.path()).unwrap_err().to_string();
    let path = dir.path().join("file");
    assert_eq!(
        message,
        format!(
            "{}: SHA-256 is {}; expected {wanted} (the download was deleted)",
            path.display(),
            sha256(&content)
        )
    );
    assert!(names(dir.path()).is_empty());

    // A file the user has put there is not ours to delete.
    std::fs::write(&path, "mine").unwrap();
    let message = get(&server, &entry, dir.path()).unwrap_err().to_string();
    assert!(message.ends_with("(delete the file to fetch it again)"), "{message}");
    assert_eq!(std::fs::read(&path).unwrap(), b"mine");
}

#[test]
fn a_refusal_is_named_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(b"", Manners::default());
    let message = get(&server, &entry("absent", ""), dir.path()).unwrap_err().to_string();
    assert_eq!(
        message,
        format!("{}/absent: the server answered 404 Not Found; expected the file", server.base)
    );
    assert!(names(dir.path()).is_empty());
}

#[test]
fn an_unpinned_file_is_held_to_its_first_fetch() {
    let (dir, content) = (tempfile::tempdir().unwrap(), content());
    let server = Server::start(&content, Manners::default());
    let entry = entry("file", "");
    let path = dir.path().join("file");
    let got = get(&server, &entry, dir.path()).unwrap();
    assert_eq!((got.sha256, got.verified), (sha256(&content), Verified::Not));
    assert_eq!(
        std::fs::read_to_string(dir.path().join("file.sha256")).unwrap(),
        format!("{}  file\n", sha256(&content))
    );
    let again = get(&server, &entry, dir.path()).unwrap();
    assert_eq!((again.verified, again.reused), (Verified::FirstFetch, true));

    // Changed on disk.
    std::fs::write(&path, "other").unwrap();
    let message = get(&server, &entry, dir.path()).unwrap_err().to_string();
    assert!(message.contains(&format!("SHA-256 is {}; expected", sha256(b"other"))), "{message}");

    // Changed on the server.
    std::fs::remove_file(&path).unwrap();
    let changed = Server::start(b"other", Manners::default());
    let message = get(&changed, &entry, dir.path()).unwrap_err().to_string();
    assert!(message.ends_with("(the download was deleted)"), "{message}");
    assert_eq!(names(dir.path()), ["file.sha256"]);
    assert_eq!(get(&server, &entry, dir.path()).unwrap().verified, Verified::FirstFetch);

    std::fs::write(dir.path().join("file.sha256"), "what\n").unwrap();
    let message = get(&server, &entry, dir.path()).unwrap_err().to_string();
    assert!(message.contains("file.sha256: line 1: no SHA-256"), "{message}");
}

#[test]
fn an_unpinned_file_is_continued_only_if_it_is_the_same_version() {
    let content = content();
    let entry = entry("file", "");
    let cut_off = |etag| {
        let dir = tempfile::tempdir().unwrap();
        let server = Server::start(&content, Manners { cut: Some(1000), etag, ..Manners::default() });
        get(&server, &entry, dir.path()).unwrap_err();
        dir
    };

    // (tag at first, tag later, what the second attempt asks for first)
    for (before, after, from) in [
        (Some("\"v1\""), Some("\"v1\""), Some(1000)),
        (Some("\"v1\""), Some("\"v2\""), Some(1000)),
        (Some("W/\"v1\""), Some("W/\"v1\""), None),
        (None, None, None),
    ] {
        let dir = cut_off(before);
        let new = if before == after { content.clone() } else { content.iter().map(|b| !b).collect() };
        let server = Server::start(&new, Manners { etag: after, ..Manners::default() });
        get(&server, &entry, dir.path()).unwrap();
        assert_eq!(server.asked()[0].from, from);
        assert_eq!(std::fs::read(dir.path().join("file")).unwrap(), new);
        assert_eq!(names(dir.path()), ["file", "file.sha256"]);
    }
}
