//! Downloads from servers that misbehave, through proxies, over TLS, and by several processes at once.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use locus_data::fetch::{FetchOptions, Fetched, Verified, fetch};
use locus_data::{DataError, Entry, Manifest};
use locus_files::sha256;

/// A server that hands every connection, with the head of its first request, to `answer`. Returns its address and the
/// heads seen so far.
fn serve(answer: impl Fn(&str, &mut TcpStream) + Send + Sync + 'static) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let heads = Arc::new(Mutex::new(Vec::new()));
    let (seen, answer) = (Arc::clone(&heads), Arc::new(answer));
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, seen, answer) = (stream.unwrap(), Arc::clone(&seen), Arc::clone(&answer));
            thread::spawn(move || {
                let lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
                let head: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
                let head = head.join("\n");
                seen.lock().unwrap().push(head.clone());
                answer(&head, &mut stream);
            });
        }
    });
    (address, heads)
}

/// A server that writes the same bytes to everyone.
fn say(bytes: impl Into<Vec<u8>>) -> String {
    let bytes = bytes.into();
    let (address, _) = serve(move |_, stream| {
        let _ = stream.write_all(&bytes);
    });
    format!("http://{address}")
}

fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())
}

fn entry(files: &str) -> Entry {
    let text = format!(
        "[[entry]]\nname = \"e\"\nkind = \"data\"\nlicence = \"MIT\"\norigin = \"test\"\nbase = \"http://nowhere.invalid\"\n\
         files = [{files}]\n"
    );
    Manifest::parse("M.toml", &text).unwrap().entry("e").unwrap().clone()
}

fn pinned(content: &[u8]) -> Entry {
    entry(&format!("{{ path = \"file\", sha256 = \"{}\", bytes = {} }}", sha256(content), content.len()))
}

fn unpinned() -> Entry {
    entry("{ path = \"file\", sha256 = \"\" }")
}

fn impatient(base: &str) -> FetchOptions<'_> {
    FetchOptions { base: Some(base), stall_timeout: Duration::from_millis(300), ..FetchOptions::default() }
}

fn get(entry: &Entry, dir: &Path, options: FetchOptions) -> Result<Fetched, DataError> {
    fetch(entry, dir, options, &mut |_| ()).map(|mut files| files.remove(0))
}

fn names(dir: &Path) -> Vec<String> {
    let items = std::fs::read_dir(dir).unwrap();
    let mut names: Vec<String> = items.map(|item| item.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// A server that goes silent at any point, or talks without an end, is given up.
#[test]
fn nothing_waits_for_ever() {
    type Behaviour = fn(&mut TcpStream) -> std::io::Result<()>;
    let silence = || thread::sleep(Duration::from_secs(20));
    let behaviours: [(&str, Behaviour); 6] = [
        ("nothing came for", |_| Ok(())),
        ("nothing came for", |stream| stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Le")),
        ("broke off after 3 of 5 bytes (nothing came for", |stream| {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc")
        }),
        ("nothing came for", |stream| {
            loop {
                stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
                thread::sleep(Duration::from_millis(5));
            }
        }),
        ("", |stream| {
            stream.write_all(b"HTTP/1.1 200 OK\r\n")?;
            loop {
                stream.write_all(b"X-More: and more\r\n")?;
            }
        }),
        ("the server answered 302", |stream| {
            stream.write_all(b"HTTP/1.1 302 Found\r\nContent-Length: 99999999999\r\n\r\n")?;
            loop {
                stream.write_all(&[b'x'; 1000])?;
            }
        }),
    ];
    for (expected, behaviour) in behaviours {
        let (address, _) = serve(move |_, stream| {
            let _ = behaviour(stream);
            silence();
        });
        let (dir, start) = (tempfile::tempdir().unwrap(), Instant::now());
        let message =
            get(&unpinned(), dir.path(), impatient(&format!("http://{address}"))).unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
        assert!(start.elapsed() < Duration::from_secs(10), "{message}");
    }
}

/// Whatever a server says ends in the file or in one line; never in a panic, and never in another file.
#[test]
fn odd_answers_are_refused() {
    let long = "x".repeat(2_000_000);
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (b"".into(), ""),
        (b"\r\n\r\n".into(), ""),
        (b"SSH-2.0-OpenSSH\r\n".into(), ""),
        (vec![0; 3000], ""),
        (b"HTTP/1.1 999 Odd\r\n\r\n".into(), "the server answered 999"),
        (b"HTTP/1.1 204 No Content\r\n\r\n".into(), "the server answered 204"),
        (
            b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-4/5\r\nContent-Length: 5\r\n\r\nabcde"
                .into(),
            "206",
        ),
        (b"HTTP/1.1 304 Not Modified\r\n\r\n".into(), "304"),
        (b"HTTP/1.1 302 Found\r\n\r\n".into(), "does not say where to"),
        (b"HTTP/1.1 302 Found\r\nLocation: ftp://a.b/c\r\n\r\n".into(), "redirects from http to \"ftp\""),
        (b"HTTP/1.1 302 Found\r\nLocation: file:///etc/passwd\r\n\r\n".into(), "expected an address"),
        (b"HTTP/1.1 302 Found\r\nLocation: http://u:secret@[::\r\n\r\n".into(), "expected an address"),
        (b"HTTP/1.1 302 Found\r\nLocation: \xff\xfe\r\n\r\n".into(), "does not say where to"),
        (
            b"HTTP/1.1 302 Found\r\nLocation: again\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".into(),
            "more than 10 times",
        ),
        (b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 5\r\n\r\nabcde".into(), "\"gzip\""),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nabcde".into(), ""),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551615\r\n\r\nabcde".into(), "expected"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\nabcde".into(), ""),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\nabcde\r\n0\r\n\r\n".into(), ""),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\nabcde\r\n".into(), ""),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabcde".into(), ""),
        (format!("HTTP/1.1 200 OK\r\nX: {long}\r\n\r\n").into(), ""),
        (ok("wrong").into(), "the download was deleted"),
        (ok("abcdef").into(), "the server has 6 bytes; expected 5"),
    ];
    for (answer, expected) in cases {
        let shown = String::from_utf8_lossy(&answer[..answer.len().min(80)]).into_owned();
        let base = say(answer);
        let dir = tempfile::tempdir().unwrap();
        let message = get(&pinned(b"abcde"), dir.path(), impatient(&base)).unwrap_err().to_string();
        assert!(message.contains(expected), "{shown:?}: {message}");
        assert!(!message.contains('\n') && !message.contains("secret"), "{shown:?}: {message}");
        assert!(!names(dir.path()).contains(&"file".to_owned()), "{shown:?}");
    }
}

#[test]
fn an_endless_body_is_bounded() {
    let endless = |head: &'static str| {
        let (address, _) = serve(move |_, stream| {
            let mut write = || {
                stream.write_all(head.as_bytes())?;
                loop {
                    stream.write_all(b"1000\r\n")?;
                    stream.write_all(&[b'x'; 4096])?;
                    stream.write_all(b"\r\n")?;
                }
            };
            let _: std::io::Result<()> = write();
        });
        format!("http://{address}")
    };
    let chunked = endless("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    let closed = endless("HTTP/1.1 200 OK\r\n\r\n");
    let about = entry("{ path = \"file\", sha256 = \"\", bytes = 100 }");
    for (entry, base, expected) in [
        (pinned(&[b'x'; 10_000]), &chunked, "sends more than 10000 bytes"),
        (pinned(&[b'x'; 10_000]), &closed, "sends more than 10000 bytes"),
        (about, &chunked, "sends more than 1048576 bytes"),
        (unpinned(), &closed, "does not say how long the file is"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let message = get(&entry, dir.path(), impatient(base)).unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
        assert!(names(dir.path()).is_empty());
    }
}

#[test]
fn redirects_lead_to_the_file_and_take_the_range_along() {
    let (there, asked) = serve(|head, stream| {
        let (status, body) = if head.contains("range: bytes=2-") {
            ("206 Partial Content\r\nContent-Range: bytes 2-4/5", "cde")
        } else {
            ("200 OK", "abcde")
        };
        let length = body.len();
        let _ = write!(
            stream,
            "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
        );
    });
    let target = there.clone();
    let (address, _) = serve(move |head, stream| {
        let to = if head.starts_with("GET /file ") { "/next".into() } else { format!("//{target}/x?sign=s") };
        let _ = write!(
            stream,
            "HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        );
    });
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("file.part"), "ab").unwrap();
    let got = get(&pinned(b"abcde"), dir.path(), impatient(&format!("http://{address}"))).unwrap();
    assert_eq!(std::fs::read(got.path).unwrap(), b"abcde");
    let head = asked.lock().unwrap()[0].clone();
    assert!(head.starts_with("GET /x?sign=s ") && head.contains("accept-encoding: identity"), "{head}");
}

/// Passwords in addresses are used and never shown.
#[test]
fn addresses_are_named_without_passwords() {
    let (address, asked) = serve(|_, stream| {
        let _ = write!(stream, "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    });
    let dir = tempfile::tempdir().unwrap();
    let base = format!("http://me:secret@{address}");
    let message = get(&unpinned(), dir.path(), impatient(&base)).unwrap_err().to_string();
    assert_eq!(
        message,
        format!("http://***@{address}/file: the server answered 403 Forbidden; expected the file")
    );
    assert!(asked.lock().unwrap()[0].contains("authorization: Basic bWU6c2VjcmV0"));

    for base in
        ["", "a.b", "ftp://a.b", "http://", "http://a b", "http:///a", "http://me:secret@[", "\u{1b}http://a"]
    {
        let message = get(&unpinned(), dir.path(), impatient(base)).unwrap_err().to_string();
        assert!(message.starts_with("the base address ") && !message.contains("secret"), "{message}");
        assert!(!message.contains('\u{1b}'), "{message}");
    }
    for proxy in
        ["", "no proxy", "ftp://a.b", "http://me:secret@a.b:x:y", "http://me:secret@", "http://me:%ff@a.b"]
    {
        let options = FetchOptions { proxy: Some(proxy), ..impatient("http://nowhere.invalid") };
        let message = get(&unpinned(), dir.path(), options).unwrap_err().to_string();
        assert!(message.starts_with("the proxy ") && !message.contains("secret"), "{message}");
        assert!(message.contains("is unusable; expected an address such as"), "{message}");
    }
    for proxy in ["http://me:secret@127.0.0.1:1", "socks5://me:secret@127.0.0.1:1"] {
        let options = FetchOptions { proxy: Some(proxy), ..impatient("http://nowhere.invalid") };
        let message = get(&unpinned(), dir.path(), options).unwrap_err().to_string();
        assert!(!message.contains("secret"), "{message}");
    }
}

#[test]
fn a_proxy_is_asked_for_all_hosts_but_those_excepted() {
    let (proxy, asked) = serve(|_, stream| {
        let _ = stream.write_all(ok("abcde").as_bytes());
    });
    let proxy = format!("http://{proxy}");
    let dir = tempfile::tempdir().unwrap();
    // The server is no proxy; what counts is that it is asked, and for what.
    let through = FetchOptions { proxy: Some(&proxy), ..impatient("http://nowhere.invalid") };
    let _ = get(&pinned(b"abcde"), dir.path(), through);
    assert!(asked.lock().unwrap()[0].contains("nowhere.invalid"));

    let base = say(ok("abcde"));
    let except = FetchOptions { proxy: Some(&proxy), no_proxy: Some("a.b,127.0.0.0/8"), ..impatient(&base) };
    get(&pinned(b"abcde"), dir.path(), except).unwrap();
    assert_eq!(asked.lock().unwrap().len(), 1);
}

/// SOCKS 5 (RFC 1928) with the name resolved by the proxy.
#[test]
fn a_socks_proxy_is_used() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let proxy = format!("socks5h://{}", listener.local_addr().unwrap());
    let served = thread::spawn(move || {
        let mut stream = listener.accept().unwrap().0;
        let mut greeting = [0; 2];
        stream.read_exact(&mut greeting).unwrap();
        stream.read_exact(&mut vec![0; greeting[1].into()]).unwrap();
        stream.write_all(&[5, 0]).unwrap();
        let mut request = [0; 5];
        stream.read_exact(&mut request).unwrap();
        let mut host = vec![0; request[4].into()];
        stream.read_exact(&mut host).unwrap();
        stream.read_exact(&mut [0; 2]).unwrap();
        stream.write_all(&[5, 0, 0, 1, 127, 0, 0, 1, 0, 80]).unwrap();
        let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
        while lines.next().is_some_and(|line| !line.unwrap().is_empty()) {}
        stream.write_all(ok("abcde").as_bytes()).unwrap();
        host
    });
    let dir = tempfile::tempdir().unwrap();
    let options =
        FetchOptions { proxy: Some(&proxy), base: Some("http://nowhere.invalid"), ..FetchOptions::default() };
    get(&pinned(b"abcde"), dir.path(), options).unwrap();
    assert_eq!(served.join().unwrap(), b"nowhere.invalid");
}

/// The system's authorities do not know the test's; a file can name it.
#[test]
fn an_own_authority_is_trusted_when_named() {
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};

    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tls");
    let certificate = CertificateDer::from_pem_file(folder.join("server.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(folder.join("server.key")).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let base = format!("https://127.0.0.1:{}", listener.local_addr().unwrap().port());
    thread::spawn(move || {
        for stream in listener.incoming() {
            let connection = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
            let mut stream = rustls::StreamOwned::new(connection, stream.unwrap());
            let mut lines = BufReader::new(&mut stream).lines().map_while(Result::ok);
            if lines.by_ref().take_while(|line| !line.is_empty()).count() > 0 {
                let _ = stream.write_all(ok("abcde").as_bytes());
                stream.conn.send_close_notify();
                let _ = stream.flush();
            }
        }
    });

    let dir = tempfile::tempdir().unwrap();
    let options = FetchOptions { base: Some(&base), ..FetchOptions::default() };
    let message = get(&pinned(b"abcde"), dir.path(), options).unwrap_err().to_string();
    assert!(message.contains("SSL_CERT_FILE can name a file"), "{message}");
    let ca = folder.join("ca.pem");
    get(&pinned(b"abcde"), dir.path(), FetchOptions { ca_file: Some(&ca), ..options }).unwrap();

    let (absent, empty) = (dir.path().join("absent"), dir.path().join("empty"));
    std::fs::write(&empty, "no certificate").unwrap();
    for (file, expected) in
        [(&absent, "absent: cannot read: "), (&empty, "expected certificate authorities in PEM")]
    {
        let message =
            get(&unpinned(), dir.path(), FetchOptions { ca_file: Some(file), ..options }).unwrap_err();
        assert!(message.to_string().contains(expected), "{message}");
    }
}

/// Several fetches into one folder at once: one of them downloads, the others wait for it, and all report the file on
/// the disk.
#[test]
fn fetches_into_one_folder_do_not_mix() {
    let content: Vec<u8> = (0..200_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    for entry in [pinned(&content), unpinned()] {
        let (body, sent) = (content.clone(), Arc::new(AtomicUsize::new(0)));
        let count = Arc::clone(&sent);
        let (address, _) = serve(move |_, stream| {
            count.fetch_add(1, Ordering::SeqCst);
            let _ = write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
            for piece in body.chunks(20_000) {
                thread::sleep(Duration::from_millis(20));
                if stream.write_all(piece).is_err() {
                    return;
                }
            }
        });
        let (base, dir, start) = (format!("http://{address}"), tempfile::tempdir().unwrap(), Barrier::new(4));
        thread::scope(|scope| {
            let fetches: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        start.wait();
                        let options = FetchOptions { base: Some(&base), ..FetchOptions::default() };
                        get(&entry, &dir.path().join("new"), options).unwrap()
                    })
                })
                .collect();
            for fetch in fetches {
                assert_eq!(fetch.join().unwrap().sha256, sha256(&content));
            }
        });
        assert_eq!(std::fs::read(dir.path().join("new/file")).unwrap(), content);
        assert!(
            names(&dir.path().join("new"))
                .iter()
                .all(|name| ["file", "file.sha256"].contains(&name.as_str()))
        );
        assert_eq!(sent.load(Ordering::SeqCst), 1);
    }
}

/// Someone who holds the part and makes no headway is named after a while.
#[test]
fn a_stuck_fetch_elsewhere_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let held = std::fs::File::create(dir.path().join("file.part")).unwrap();
    held.lock().unwrap();
    let base = say(ok("abcde"));
    let options = FetchOptions { stall_timeout: Duration::from_millis(50), ..impatient(&base) };
    let message = get(&pinned(b"abcde"), dir.path(), options).unwrap_err().to_string();
    assert!(message.contains("another process is fetching this file and has made no headway"), "{message}");
    drop(held);
    get(&pinned(b"abcde"), dir.path(), impatient(&base)).unwrap();
}

/// What is verified is the file on the disk, whatever was received.
#[test]
fn the_hash_is_that_of_the_disk() {
    let dir = tempfile::tempdir().unwrap();
    let part = dir.path().join("file.part");
    std::fs::write(&part, "ab").unwrap();
    let (address, _) = serve(move |_, stream| {
        // Someone writes into the part while the rest comes.
        std::fs::write(&part, "xy").unwrap();
        let head = "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 2-4/5\r\nContent-Length: 3\r\n\r\n";
        let _ = stream.write_all(format!("{head}cde").as_bytes());
    });
    let message = get(&pinned(b"abcde"), dir.path(), impatient(&format!("http://{address}"))).unwrap_err();
    assert!(message.to_string().contains(&format!("SHA-256 is {}", sha256(b"xycde"))), "{message}");
    assert!(names(dir.path()).is_empty());
}

#[test]
fn a_failed_fetch_leaves_no_folder() {
    let dir = tempfile::tempdir().unwrap();
    for base in
        [say("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"), "http://127.0.0.1:1".into(), say("")]
    {
        get(&unpinned(), &dir.path().join("a/b"), impatient(&base)).unwrap_err();
        assert!(names(dir.path()).is_empty());
    }
}

/// A folder or a pipe where the file, its part or its record should be is named, and not waited for.
#[cfg(unix)]
#[test]
fn what_is_no_file_is_refused() {
    let base = say(ok("abcde"));
    for name in ["file", "file.part", "file.sha256"] {
        for pipe in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join(name);
            if pipe {
                assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
            } else {
                std::fs::create_dir(&path).unwrap();
            }
            let message = get(&unpinned(), dir.path(), impatient(&base)).unwrap_err().to_string();
            assert!(message.contains(name) && message.contains("not a file"), "{message}");
        }
    }
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("taken"), "").unwrap();
    let message =
        get(&unpinned(), &dir.path().join("taken/below"), impatient(&base)).unwrap_err().to_string();
    assert!(message.contains("taken"), "{message}");
}

#[test]
fn an_unpinned_file_may_come_in_chunks() {
    let base = say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n");
    let dir = tempfile::tempdir().unwrap();
    let got = get(&unpinned(), dir.path(), impatient(&base)).unwrap();
    assert_eq!((got.sha256, got.verified), (sha256(b"abcde"), Verified::Not));

    let cut = say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nd");
    let dir = tempfile::tempdir().unwrap();
    get(&unpinned(), dir.path(), impatient(&cut)).unwrap_err();
    assert!(!dir.path().join("file").exists());
}
