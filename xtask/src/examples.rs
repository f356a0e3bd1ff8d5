//! `cargo xtask examples`: runs every example of every crate and expects each to succeed.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// Builds all examples at once, as `cargo test --workspace` does, so that its artifacts are used; then runs them one after
/// the other in the workspace's root folder.
pub fn run(root: &Path) -> Result<()> {
    let examples = find(&root.join("crates"))?;
    crate::cargo(root, &["build", "--workspace", "--examples"])?;
    for (package, example) in &examples {
        println!("\n-- {package}, example {example}");
        let program = crate::target(root).join("debug/examples").join(example);
        let status = Command::new(&program).current_dir(root).status();
        let status = status.with_context(|| format!("{} cannot be started", program.display()))?;
        ensure!(status.success(), "example {example} of {package} failed: {status}");
    }
    println!("\n{} examples ran", examples.len());
    Ok(())
}

/// Package and name of every example, sorted.
///
/// # Errors
/// When a package that is published has no example, or two examples would be one file.
fn find(crates: &Path) -> Result<Vec<(String, String)>> {
    let mut examples: Vec<(String, String)> = Vec::new();
    for package in entries(crates)? {
        let name = file_stem(&package);
        let files = entries(&package.join("examples")).unwrap_or_default();
        let before = examples.len();
        for file in files {
            if file.extension().is_some_and(|extension| extension == "rs") || file.join("main.rs").exists() {
                let example = file_stem(&file);
                let other = examples.iter().find(|(_, taken)| *taken == example);
                ensure!(other.is_none(), "{name} and {} both have an example {example}", other.unwrap().0);
                examples.push((name.clone(), example));
            }
        }
        let manifest = package.join("Cargo.toml");
        let manifest = std::fs::read_to_string(&manifest).with_context(|| manifest.display().to_string())?;
        let is_published = !manifest.lines().any(|line| line == "publish = false");
        ensure!(!is_published || examples.len() > before, "{name} is published and has no example");
    }
    Ok(examples)
}

/// What a folder holds, sorted.
fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    let mut paths: Vec<PathBuf> = entries.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    paths.sort();
    Ok(paths)
}

fn file_stem(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_published_crate_has_examples_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        put("b/Cargo.toml", "[package]\n");
        put("b/examples/two.rs", "");
        put("b/examples/one/main.rs", "");
        put("b/examples/data.csv", "");
        put("private/Cargo.toml", "[package]\npublish = false\n");
        let found = [("b", "one"), ("b", "two")].map(|(package, name)| (package.to_owned(), name.to_owned()));
        assert_eq!(find(folder.path()).unwrap(), found);
        let why = || find(folder.path()).unwrap_err().to_string();
        put("a/Cargo.toml", "[package]\n");
        assert_eq!(why(), "a is published and has no example");
        put("a/examples/two.rs", "");
        assert_eq!(why(), "b and a both have an example two");
    }
}
