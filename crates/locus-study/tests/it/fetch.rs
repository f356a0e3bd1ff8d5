//! `locus fetch`: its list, its environment, its exit codes.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crate::support::{Sandbox, locus, shared_data};

/// Runs `locus fetch` with variables in its environment and none of the network's from outside.
fn fetch(folder: &Path, args: &[&str], variables: &[(&str, &str)]) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_locus"));
    command.arg("fetch").args(args).current_dir(folder).env("LOCUS_CACHE", folder.join("cache"));
    for name in ["HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE"] {
        command.env_remove(name).env_remove(name.to_lowercase());
    }
    let output = command.envs(variables.iter().copied()).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// A server of the files in a folder; 404 for all others. Returns its address and the number of requests.
fn serve(folder: Option<std::path::PathBuf>) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let count = Arc::new(AtomicUsize::new(0));
    let requests = Arc::clone(&count);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
            let first = lines.by_ref().take_while(|line| !line.is_empty()).next().unwrap_or_default();
            while lines.next().is_some_and(|line| !line.is_empty()) {}
            requests.fetch_add(1, Ordering::SeqCst);
            let name = first.split(' ').nth(1).unwrap_or_default().trim_start_matches('/').to_owned();
            let body = folder.as_ref().and_then(|folder| std::fs::read(folder.join(name)).ok());
            let status = if body.is_some() { "200 OK" } else { "404 Not Found" };
            let body = body.unwrap_or_default();
            let length = body.len();
            let _ =
                write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
            let _ = stream.write_all(&body);
        }
    });
    (base, count)
}

#[test]
fn lists_what_there_is_with_sizes() {
    let list = locus(&Sandbox::empty().path(""), &["fetch"], "").done();
    for (name, size) in [("study", "1.2 MB"), ("gpt2 ", "549.5 MB"), ("gpt2-xl", "~6.4 GB")] {
        let line = list.lines().find(|line| line.starts_with(name)).unwrap();
        assert!(line.contains(size) && !line.contains("fetched"), "{line}");
    }
    assert_eq!(locus(&Sandbox::empty().path(""), &["fetch", "--list"], "").done(), list);
    let both = locus(&Sandbox::empty().path(""), &["fetch", "study", "--list"], "");
    assert_eq!(both.code, Some(2), "{both:?}");
}

#[test]
fn a_refusal_is_a_failed_run_and_leaves_no_folder() {
    let sandbox = Sandbox::empty();
    let (base, _) = serve(None);
    let (code, out, err) = fetch(&sandbox.path(""), &["text", "--base", &base], &[]);
    assert_eq!((code, out.as_str()), (Some(1), ""), "{err}");
    assert_eq!(
        err,
        format!("locus: {base}/valid.txt: the server answered 404 Not Found; expected the file\n")
    );
    assert!(!sandbox.path("cache").exists());
}

#[test]
fn addresses_that_cannot_be_used_are_unusable_input() {
    let sandbox = Sandbox::empty();
    let secret = "http://me:secret@[";
    for (args, variables, named) in [
        (&["nothing"][..], &[][..], "no entry is named"),
        (&["text", "--base", "ftp://a"], &[], "the base address \"ftp://a\" is unusable"),
        (&["text", "--base", secret], &[], "the base address (not shown"),
        (&["text"], &[("HTTPS_PROXY", secret)], "HTTPS_PROXY: the proxy (not shown"),
        (&["text"], &[("all_proxy", "gopher://a")], "all_proxy: the proxy \"gopher://a\" is unusable"),
        (&["text"], &[("SSL_CERT_FILE", "absent.pem")], "absent.pem: cannot read"),
        (&["--base", "http://a"], &[], "NAME"),
    ] {
        let (code, _, err) = fetch(&sandbox.path(""), args, variables);
        assert_eq!(code, Some(2), "{args:?} {variables:?}: {err}");
        assert!(err.contains(named) && !err.contains("secret"), "{err}");
    }
}

#[test]
fn proxies_of_the_environment() {
    let sandbox = Sandbox::empty();
    let (proxy, asked) = serve(None);
    let (base, _) = serve(None);
    let proxied = |variables: &[(&str, &str)]| {
        let before = asked.load(Ordering::SeqCst);
        let (code, _, err) = fetch(&sandbox.path(""), &["text", "--base", &base], variables);
        assert_eq!(code, Some(1), "{err}");
        asked.load(Ordering::SeqCst) > before
    };
    assert!(proxied(&[("HTTPS_PROXY", &proxy)]));
    assert!(proxied(&[("http_proxy", &proxy)]));
    assert!(proxied(&[("HTTPS_PROXY", ""), ("ALL_PROXY", &proxy)]));
    assert!(!proxied(&[("HTTPS_PROXY", ""), ("ALL_PROXY", " ")]));
    assert!(!proxied(&[("HTTPS_PROXY", &proxy), ("NO_PROXY", "localhost,127.0.0.1")]));
    assert!(!proxied(&[("ALL_PROXY", &proxy), ("no_proxy", "*")]));
    // Nobody listens there: an error of one line, not a panic.
    assert!(!proxied(&[("ALL_PROXY", "socks5://me:secret@127.0.0.1:9")]));
}

/// The authors' data from a mirror, twice.
#[test]
fn fetches_the_study() {
    let Some(data) = shared_data() else { return };
    let sandbox = Sandbox::empty();
    let (base, asked) = serve(Some(data.join("study")));
    for (state, requests) in [("  verified", 15), ("  already there, verified", 15)] {
        let (code, out, err) = fetch(&sandbox.path(""), &["study", "--base", &base], &[]);
        assert_eq!(code, Some(0), "{err}");
        assert_eq!(out.lines().filter(|line| line.ends_with(state)).count(), 15, "{out}");
        assert_eq!(asked.load(Ordering::SeqCst), requests);
        assert!(err.starts_with("study: 15 done in "), "{err}");
    }
}
