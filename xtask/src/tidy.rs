//! House rules: module docs, file sizes, lints opted into, nothing unfinished, no path of one machine.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// Most lines of a Rust file.
const MOST_LINES: usize = 600;

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
        if line.ends_with([' ', '\t']) {
            found.push(format!("line {} ends in a blank", i + 1));
        }
    }
    found
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
}
