//! House rules: module docs, file sizes, lints opted into, nothing unfinished, no path of one machine, doc comments that
//! stand alone, citations that can be followed, no circles of imports inside a crate.

mod circles;
mod imports;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// Most lines of a Rust file.
const MOST_LINES: usize = 600;

/// Words that no line of a doc comment begins with: what follows would need the sentence before it.
const OPENERS: [&str; 5] = ["The same", "They", "Those", "Its", "It"];

/// Macros that panic when stdout or stderr cannot be written to; put together here as below.
const PRINTING: [&str; 5] = [
    concat!("println", "!("),
    concat!("print", "!("),
    concat!("eprintln", "!("),
    concat!("eprint", "!("),
    concat!("dbg", "!("),
];

/// Citations of files that are not in the repository; put together here so that this file does not hold them.
const UNKNOWN_SOURCES: [&str; 3] =
    [concat!("STUDY", " section"), concat!("CIRCUITS.md", " section"), concat!("EDITORS", " section")];

/// Checks the tree and lists every violation.
pub fn check(root: &Path) -> Result<()> {
    let mut files = Vec::new();
    for folder in ["crates", "xtask", "benches"] {
        collect(&root.join(folder), &mut files)?;
    }
    anyhow::ensure!(files.len() > 50, "only {} files were found under {}", files.len(), root.display());
    let mut violations = Vec::new();
    for path in &files {
        let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
        let name = path.strip_prefix(root).unwrap_or(path).display();
        for why in violations_in(path, &text) {
            violations.push(format!("{name}: {why}"));
        }
    }
    for package in files.iter().filter(|path| path.ends_with("Cargo.toml")).filter_map(|path| path.parent()) {
        let src = package.join("src");
        if src.is_dir() {
            let name = package.strip_prefix(root).unwrap_or(package).display();
            violations.extend(circles::find(&src)?.into_iter().map(|circle| format!("{name}: {circle}")));
        }
    }
    if !violations.is_empty() {
        bail!("{} violations\n{}", violations.len(), violations.join("\n"));
    }
    Ok(())
}

fn violations_in(path: &Path, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    if path.extension().is_some_and(|extension| extension == "toml") {
        if !text.contains("[lints]\nworkspace = true") {
            found.push("does not opt in to the workspace's lints".to_owned());
        }
        return found;
    }
    if !text.starts_with("//!") {
        found.push("does not begin with a module doc".to_owned());
    }
    let lines = text.lines().count();
    if lines > MOST_LINES {
        found.push(format!("has {lines} lines; expected at most {MOST_LINES}"));
    }
    // Put together here so that this file does not hold the words it looks for.
    let unfinished = [
        concat!("todo", "!("),
        concat!("unimplemented", "!("),
        concat!("#[", "ignore"),
        concat!("FIX", "ME"),
    ];
    let machine = [concat!("/home", "/"), concat!("/root", "/"), concat!("/Users", "/")];
    for (i, line) in text.lines().enumerate() {
        if let Some(mark) = unfinished.iter().chain(&machine).find(|mark| line.contains(**mark)) {
            found.push(format!("line {} has {mark:?}", i + 1));
        }
        if is_of_program(path)
            && !line.trim_start().starts_with("//")
            && PRINTING.iter().any(|print| line.contains(print))
        {
            found.push(format!("line {} prints with a macro that panics; expected writeln", i + 1));
        }
        if line.ends_with([' ', '\t']) {
            found.push(format!("line {} ends in a blank", i + 1));
        }
        if let Some(opener) = banned_opener(line) {
            found.push(format!("line {} of a doc comment begins with {opener:?}", i + 1));
        }
        if let Some(source) = UNKNOWN_SOURCES.iter().find(|source| line.contains(**source)) {
            found.push(format!("line {} cites {source:?}, which is not in the repository", i + 1));
        }
    }
    found
}

/// Whether a file is a source of the crates, whose output must not panic: not an example, a test or a build script.
fn is_of_program(path: &Path) -> bool {
    let has = |folder: &str| path.components().any(|part| part.as_os_str() == folder);
    has("crates") && has("src")
}

/// The banned words that a line of a doc comment begins with.
fn banned_opener(line: &str) -> Option<&'static str> {
    let line = line.trim_start();
    let doc = line.strip_prefix("/// ").or_else(|| line.strip_prefix("//! "))?;
    OPENERS.into_iter().find(|opener| {
        let rest = doc.strip_prefix(opener);
        rest.is_some_and(|rest| !rest.starts_with(|next: char| next.is_alphanumeric() || next == '_'))
    })
}

/// Rust files and manifests below a folder, sorted.
fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let mut entries: Vec<PathBuf> = std::fs::read_dir(folder)
        .with_context(|| folder.display().to_string())?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<_>>()?;
    entries.sort();
    for path in entries {
        if path.is_dir() {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|e| e == "rs")
            || path.file_name().is_some_and(|n| n == "Cargo.toml")
        {
            files.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tree_is_tidy() {
        check(&crate::root()).unwrap();
    }

    #[test]
    fn violations_are_found() {
        let rust = Path::new("a.rs");
        assert!(violations_in(rust, "//! Doc.\nfn main() {}\n").is_empty());
        assert_eq!(violations_in(rust, "fn main() {} \n").len(), 2);
        assert_eq!(violations_in(rust, concat!("//! Doc.\ntodo", "!()\n")).len(), 1);
        assert_eq!(violations_in(rust, &"//! Doc.\n".repeat(MOST_LINES + 1)).len(), 1);
        assert_eq!(violations_in(Path::new("Cargo.toml"), "[package]\n").len(), 1);
    }

    #[test]
    fn nothing_prints_with_panics() {
        for print in PRINTING {
            let text = format!("//! Doc.\nfn f() {{ {print}\"\") }}\n/// {print}\"\")\n");
            let of = |path: &str| violations_in(Path::new(path), &text).len();
            assert_eq!(
                (of("crates/a/src/b.rs"), of("crates/a/examples/b.rs"), of("xtask/src/b.rs")),
                (1, 0, 0)
            );
        }
    }

    #[test]
    fn doc_comments_stand_alone() {
        let of = |line: &str| violations_in(Path::new("a.rs"), &format!("//! Doc.\n{line}\n"));
        for opener in OPENERS {
            let why = [format!("line 2 of a doc comment begins with {opener:?}")];
            assert_eq!(of(&format!("/// {opener} of all.")), why);
            assert_eq!(of(&format!("\t//! {opener}, too")), why);
            assert_eq!(of(&format!("    /// A first line.\n    /// {opener}'s second")).len(), 1);
            // Another word that begins alike, a plain comment, and the words inside a sentence.
            assert_eq!(of(&format!("/// {opener}em\n// {opener} is\n/// Of {opener}.")), [""; 0]);
        }
    }

    #[test]
    fn citations_can_be_followed() {
        for source in UNKNOWN_SOURCES {
            assert_eq!(violations_in(Path::new("a.rs"), &format!("//! Doc ({source} 4).\n")).len(), 1);
        }
        assert_eq!(violations_in(Path::new("a.rs"), "//! Meng et al. 2022, section 3.1.\n"), [""; 0]);
    }
}
