//! Where models are: in a folder, in the cache under the name they are fetched by, and the organism, which is part of
//! the program.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::embedded;
use super::error::Unusable;

/// Models that `locus fetch` knows by name.
pub const HUB_MODELS: [&str; 4] = ["gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl"];

/// Largest number of mistyped letters for which a name is still taken for another one.
const MISTYPED: usize = 2;

/// The folder of the model that `--model` names.
///
/// # Errors
/// When there is no such model, or it has not been fetched.
pub fn model_folder(name: &str) -> Result<PathBuf> {
    if name == "organism" {
        return organism_folder();
    }
    if HUB_MODELS.contains(&name) {
        let folder = cache_folder()?.join(name);
        if !is_model(&folder) {
            let why = format!("model {name} is not fetched yet; run: locus fetch {name}");
            return Err(Unusable(why).into());
        }
        return Ok(folder);
    }
    let folder = PathBuf::from(name);
    if !folder.exists() {
        return Err(Unusable(unknown(name)).into());
    }
    Ok(folder)
}

/// Finds `fixtures/organism` in the current folder or one above it, otherwise in a folder above the program, otherwise
/// unpacks the one that is part of the program to the cache.
pub fn organism_folder() -> Result<PathBuf> {
    match organism_of_checkout() {
        Some(folder) => Ok(folder),
        None => embedded::unpacked(&cache_folder()?),
    }
}

/// The organism of a checkout of the repository in which the program runs or lies.
pub fn organism_of_checkout() -> Option<PathBuf> {
    let starts = [std::env::current_dir().ok(), std::env::current_exe().ok()];
    let mut folders = starts.iter().flatten().flat_map(|start| start.ancestors());
    folders.find_map(|folder| Some(folder.join("fixtures/organism")).filter(|folder| is_model(folder)))
}

/// Folder for fetched files: `$LOCUS_CACHE`, otherwise `~/.cache/locus`.
pub fn cache_folder() -> Result<PathBuf> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    if let Some(folder) = set("LOCUS_CACHE") {
        return Ok(PathBuf::from(folder));
    }
    let home = set("HOME").context("neither LOCUS_CACHE nor HOME is set")?;
    Ok(Path::new(&home).join(".cache/locus"))
}

fn is_model(folder: &Path) -> bool {
    folder.join("config.json").exists()
}

/// What to say about a name that is no model's: what was looked for, the likely meaning, and what there is.
fn unknown(name: &str) -> String {
    let looked = Path::new(name).join("config.json");
    let meant = match meant(name) {
        Some(meant) => format!("did you mean {meant}? Expected"),
        None => "expected".into(),
    };
    let fetched = |name: &&&str| cache_folder().is_ok_and(|cache| is_model(&cache.join(name)));
    let fetched: Vec<&str> = HUB_MODELS.iter().filter(fetched).copied().collect();
    let fetched = if fetched.is_empty() { "none yet".to_owned() } else { fetched.join(", ") };
    format!(
        "--model {name}: {}: No such file or directory; {meant} a model's folder, or one of organism, {} (fetched: {fetched})",
        looked.display(),
        HUB_MODELS.join(", ")
    )
}

/// The model, by name or by folder, that a mistyped name is nearest to.
fn meant(name: &str) -> Option<String> {
    let path = Path::new(name);
    let above = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let beside = std::fs::read_dir(above).into_iter().flatten().flatten();
    let folders = beside.map(|entry| entry.path()).filter(|path| is_model(path));
    let folders = folders.map(|path| path.strip_prefix(".").unwrap_or(&path).display().to_string());
    let names = ["organism"].into_iter().chain(HUB_MODELS).map(str::to_owned).chain(folders);
    let distance = |known: &String| strsim::damerau_levenshtein(name, known);
    names.filter(|known| distance(known) <= MISTYPED).min_by_key(distance)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistyped_names_are_recognised() {
        for (name, expected) in [
            ("gtp2", Some("gpt2")),
            ("gpt2-medum", Some("gpt2-medium")),
            ("organsim", Some("organism")),
            ("/nowhere/at/all", None),
            ("llama", None),
        ] {
            assert_eq!(meant(name).as_deref(), expected, "{name}");
        }
        let folder = tempfile::tempdir().unwrap();
        let model = folder.path().join("my-model");
        std::fs::create_dir(&model).unwrap();
        std::fs::write(model.join("config.json"), "{}").unwrap();
        let mistyped = folder.path().join("my-modle").display().to_string();
        assert_eq!(meant(&mistyped), Some(model.display().to_string()));
        assert!(unknown(&mistyped).contains("did you mean"));
    }
}
