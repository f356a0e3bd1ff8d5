//! README and the book: their links, and every command that they show, in the order of each page, in a folder with the
//! organism.
//!
//! A block marked `sh` runs as it stands and must not fail; later blocks of a page find what earlier ones wrote.
//! A block marked `sh,long` (minutes, the network, or programs that are not part of this project) does not run, but its
//! command lines must be ones that the program accepts. The shell itself splits both into words.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use locus_study::cli;

use crate::support::{Sandbox, files_below};

/// Commands that `cargo xtask` does not hand to `locus`.
const XTASK: [&str; 4] = ["setup", "tidy", "examples", "bench"];

/// Languages of blocks that hold no commands.
const OTHERS: [&str; 6] = ["text", "json", "toml", "rust", "python", "csv"];

/// Counts the calls of `locus`, and notes those that fail, wherever in a pipe they stand.
const RUN: &str = r#"
locus() {
    echo "$*" >>"$CALLS"
    command locus "$@" || { echo "exit code $?: locus $*" >>"$FAILED"; return 1; }
}
cargo() { echo "cargo in a block marked sh: $*" >>"$FAILED"; return 1; }
"#;

/// Writes down the words of each call and finds no other program.
const PARSE: &str = r#"
PATH=/nonexistent
note() { for word do printf '%s\037' "$word"; done >>"$CALLS"; echo >>"$CALLS"; }
locus() { note locus "$@"; }
cargo() { note cargo "$@"; }
"#;

struct Block {
    line: usize,
    long: bool,
    script: String,
}

impl Block {
    /// Number of its lines that begin with a command of ours.
    fn commands(&self) -> usize {
        let ours = |line: &&str| line.starts_with("locus ") || line.starts_with("cargo ");
        self.script.lines().map(str::trim_start).filter(ours).count()
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// README and all pages of the book: name and text.
fn pages() -> Vec<(String, String)> {
    let book = root().join("docs/src");
    let pages = files_below(&book).into_iter().map(|(path, _)| path);
    let pages = pages.filter(|path| path.extension().is_some_and(|extension| extension == "md"));
    let all = [root().join("README.md")].into_iter().chain(pages);
    all.map(|path| {
        let name = path.strip_prefix(&book).ok().or(path.file_name().map(Path::new)).unwrap();
        (name.display().to_string(), fs::read_to_string(&path).unwrap())
    })
    .collect()
}

/// The shell blocks of a page; every block must say what it holds.
fn blocks(page: &str, text: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut lines = text.lines().enumerate();
    while let Some((start, line)) = lines.next() {
        let Some(info) = line.trim_start().strip_prefix("```") else { continue };
        let body = lines.by_ref().map(|(_, line)| line).take_while(|line| line.trim_start() != "```");
        let script: String = body.flat_map(|line| [line, "\n"]).collect();
        match info {
            "sh" | "sh,long" => blocks.push(Block { line: start + 1, long: info == "sh,long", script }),
            _ => {
                let language = info.split(',').next().unwrap();
                let expected = "expected sh, sh,long or a language without commands";
                assert!(OTHERS.contains(&language), "{page}:{}: a block of {info:?}; {expected}", start + 1);
            }
        }
    }
    blocks
}

/// Runs a script in a folder, and returns its exit code, what it says, and the lines of the files CALLS and FAILED.
fn shell(folder: &Path, options: &str, script: &str) -> (bool, String, Vec<String>, String) {
    let notes = tempfile::tempdir().unwrap();
    let (calls, failed) = (notes.path().join("calls"), notes.path().join("failed"));
    let binary = Path::new(env!("CARGO_BIN_EXE_locus")).parent().unwrap();
    let mut path = std::ffi::OsString::from(binary);
    path.push(":/usr/local/bin:/usr/bin:/bin");
    let output = Command::new("/bin/sh")
        .args([options, script])
        .current_dir(folder)
        .env("PATH", path)
        .env("HOME", folder)
        .env("LOCUS_CACHE", folder.join("cache"))
        .env("CALLS", &calls)
        .env("FAILED", &failed)
        .env_remove("OPENBLAS_NUM_THREADS")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let read = |path: &Path| fs::read_to_string(path).unwrap_or_default();
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let calls = read(&calls).lines().map(str::to_owned).collect();
    (output.status.success(), said, calls, read(&failed))
}

/// Runs a block; the number of calls of `locus`.
fn run(page: &str, block: &Block, folder: &Path) -> usize {
    let (done, said, calls, failed) = shell(folder, "-euc", &format!("{RUN}{}", block.script));
    assert!(done && failed.is_empty(), "{page}:{}: {failed}\n{said}", block.line);
    assert!(calls.len() >= block.commands(), "{page}:{}: only {calls:?} ran", block.line);
    calls.len()
}

/// Checks the command lines of a block; the number of those that are ours.
fn parse(page: &str, block: &Block) -> usize {
    let folder = tempfile::tempdir().unwrap();
    let (_, said, calls, _) = shell(folder.path(), "-c", &format!("{PARSE}{}", block.script));
    assert!(calls.len() >= block.commands(), "{page}:{}: only {calls:?} were read\n{said}", block.line);
    let mut ours = 0;
    for call in &calls {
        let words: Vec<&str> = call.trim_end_matches('\u{1f}').split('\u{1f}').collect();
        let handed_over = match words.as_slice() {
            ["locus", rest @ ..] => rest,
            ["cargo", "xtask", command, ..] if XTASK.contains(command) => continue,
            ["cargo", "xtask", rest @ ..] => rest,
            ["cargo", "run", "--release", "-p", "locus-study", rest @ ..] => {
                let start = rest.iter().position(|word| *word == "--").expect("the program's own arguments");
                &rest[start + 1..]
            }
            _ => continue,
        };
        let line: Vec<&str> = ["locus"].iter().chain(handed_over).copied().collect();
        let refused = cli::check(&line).err().unwrap_or_default();
        assert!(refused.is_empty(), "{page}:{}: {}\n{refused}", block.line, line.join(" "));
        ours += 1;
    }
    ours
}

#[test]
fn commands_of_readme_and_book_run() {
    let (mut ran, mut parsed) = (0, 0);
    let mut list = String::new();
    for (page, text) in pages() {
        let blocks = blocks(&page, &text);
        if blocks.is_empty() {
            continue;
        }
        let sandbox = Sandbox::empty();
        if blocks.iter().any(|block| !block.long) {
            let organism = root().join("fixtures/organism");
            for (file, _) in files_below(&organism) {
                let name = file.strip_prefix(&organism).unwrap().display().to_string();
                sandbox.copy(&file, &format!("fixtures/organism/{name}"));
            }
        }
        let (before, parsed_before) = (ran, parsed);
        for block in &blocks {
            match block.long {
                true => parsed += parse(&page, block),
                false => ran += run(&page, block, &sandbox.path("")),
            }
        }
        list += &format!("{page}: {} run, {} parsed\n", ran - before, parsed - parsed_before);
    }
    // Not `eprintln`, which the test harness swallows when a test passes.
    let _ = writeln!(std::io::stderr(), "{list}commands of README and book: {ran} run, {parsed} only parsed");
    assert!(ran >= 20 && parsed >= 5, "{list}");
}

#[test]
fn links_lead_to_files() {
    for (page, text) in pages() {
        let folder = if page == "README.md" { root() } else { root().join("docs/src") };
        let path = folder.join(&page);
        let mut code = false;
        let prose = text.lines().filter(|line| {
            code ^= line.trim_start().starts_with("```");
            !code
        });
        for link in prose.flat_map(|line| line.split("](").skip(1)) {
            let target = link.split([')', '#']).next().unwrap();
            let elsewhere = target.is_empty() || target.starts_with("https://");
            assert!(elsewhere || path.with_file_name(target).exists(), "{page}: a link to {target}");
        }
    }
}

/// A command line that the program refuses fails the test of the pages, in either kind of block.
#[test]
fn wrong_commands_are_found() {
    let block = |script: &str| Block { line: 1, long: false, script: script.into() };
    let folder = tempfile::tempdir().unwrap();
    let fails =
        |check: &dyn Fn() -> usize| std::panic::catch_unwind(std::panic::AssertUnwindSafe(check)).is_err();
    assert_eq!(run("page", &block("locus -V | cat >version\n"), folder.path()), 1);
    assert!(fs::read_to_string(folder.path().join("version")).unwrap().starts_with("locus "));
    assert!(fails(&|| run("page", &block("locus generate | cat\n"), folder.path())));
    assert_eq!(
        parse("page", &block("cargo xtask setup && \\\n  cargo xtask reproduce --tables 'T1,X2' >out\n")),
        1
    );
    assert!(fails(&|| parse("page", &block("cargo xtask reproduce --tabels T1\n"))));
    assert!(fails(&|| parse("page", &block("locus edit --requests a b >missing/out\n"))));
    let pages = "text\n```sh\nlocus a \\\n  b\n```\n- list\n  ```sh,long\n  locus c\n  ```\n";
    let found = blocks("page", pages);
    let found: Vec<_> = found.iter().map(|b| (b.line, b.long, b.commands())).collect();
    assert_eq!(found, [(2, false, 1), (7, true, 1)]);
    assert!(fails(&|| blocks("page", "```console\n$ locus\n```\n").len()));
}
