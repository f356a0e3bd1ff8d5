//! Manifests in TOML: what can be downloaded, from where, under which licence, and the SHA-256 of every file.
//!
//! ```toml
//! [[entry]]
//! name = "pairs"
//! kind = "data"                                    # or "model"
//! licence = "MIT"
//! origin = "GitHub hannamw/EAP-IG"
//! base = "https://raw.githubusercontent.com/hannamw/EAP-IG"
//! files = [
//!     { path = "a.csv", sha256 = "<64 digits>", bytes = 1200 },        # from base/a.csv, exactly 1200 bytes
//!     { path = "b.csv", sha256 = "", remote = "0123abc/data/b.csv" },  # from base/0123abc/data/b.csv; not pinned
//!     { path = "c.csv", sha256 = "", bytes = 5000 },                   # not pinned; about 5000 bytes
//! ]
//! ```

use std::collections::BTreeSet;
use std::path::{Component, Path};

use serde::Deserialize;

use crate::error::quoted;
use crate::{DataError, Result, files};

/// A list of data sets and models that can be downloaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// File it was read from, for messages.
    pub file: String,
    /// Entries in the order of the file.
    pub entries: Vec<Entry>,
}

/// A data set or model: files that are fetched together.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Name, for example `gpt2`: lowercase letters, digits and hyphens.
    pub name: String,
    /// Whether this is a data set or a model.
    pub kind: EntryKind,
    /// Licence, as the authors state it.
    pub licence: String,
    /// Publisher, in words.
    pub origin: String,
    /// Address under which the files are, without a final slash.
    pub base: String,
    /// Files of the entry.
    pub files: Vec<RemoteFile>,
}

/// Kind of an entry of the manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EntryKind {
    /// A data set.
    Data,
    /// A model: `config.json`, `model.safetensors`, `tokenizer.json`.
    Model,
}

/// A file of an [`Entry`].
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RemoteFile {
    /// Path below the destination folder.
    pub path: String,
    /// SHA-256 in lowercase hexadecimal; empty while nobody has pinned it.
    pub sha256: String,
    /// Length in bytes: exact for a pinned file, about right for others.
    pub bytes: Option<u64>,
    /// Path below `base`, where it differs from `path`.
    pub remote: Option<String>,
}

/// Longest download in bytes of a file whose length the manifest does not give.
pub const LARGEST: u64 = 16 << 30;

impl RemoteFile {
    /// Hash that the file must have; `None` when it is not pinned.
    pub fn pinned(&self) -> Option<&str> {
        Some(self.sha256.as_str()).filter(|hash| !hash.is_empty())
    }

    /// Length in bytes that the file must have; `None` when it is not known exactly.
    pub fn exact_bytes(&self) -> Option<u64> {
        self.bytes.filter(|_| self.pinned().is_some())
    }

    /// Length in bytes beyond which a download is given up: the exact one, otherwise twice the approximate one (but at
    /// least a mebibyte), otherwise [`LARGEST`].
    pub fn most_bytes(&self) -> u64 {
        match (self.exact_bytes(), self.bytes) {
            (Some(exact), _) => exact,
            (None, Some(about)) => about.saturating_mul(2).max(1 << 20),
            (None, None) => LARGEST,
        }
    }

    /// Address of the file below `base`.
    pub fn url(&self, base: &str) -> String {
        format!("{}/{}", base.trim_end_matches('/'), self.remote.as_ref().unwrap_or(&self.path))
    }
}

impl Manifest {
    /// Reads a file as [`parse`](Self::parse) does.
    ///
    /// # Errors
    /// If the file cannot be read or parsed.
    pub fn read(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        Self::parse(&path.display().to_string(), &String::from_utf8_lossy(&files::read(path)?))
    }

    /// Parses a manifest; `file` names it in errors.
    ///
    /// # Errors
    /// If the text is not TOML of the layout above, two entries have one name, or an entry has an unusable name, base
    /// address, hash or path (paths must stay inside the destination folder).
    pub fn parse(file: &str, text: &str) -> Result<Self> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Document {
            entry: Vec<Entry>,
        }

        let document: Document = toml::from_str(text).map_err(|e| {
            let start = e.span().map_or(0, |span| span.start);
            DataError::Syntax {
                file: file.to_owned(),
                line: 1 + text.bytes().take(start).filter(|byte| *byte == b'\n').count() as u64,
                problem: e.message().replace('\n', " "),
                expected: "[[entry]] tables in TOML with name, kind, licence, origin, base and files",
            }
        })?;

        let mut names = BTreeSet::new();
        for entry in &document.entry {
            entry.check(file)?;
            if !names.insert(&entry.name) {
                return Err(entry.error(file, "name".into(), &entry.name, "a name that no other entry has"));
            }
        }
        Ok(Self { file: file.to_owned(), entries: document.entry })
    }

    /// Entry of that name.
    ///
    /// # Errors
    /// If there is none; the message lists the names.
    pub fn entry(&self, name: &str) -> Result<&Entry> {
        self.entries.iter().find(|entry| entry.name == name).ok_or_else(|| DataError::UnknownEntry {
            file: self.file.clone(),
            name: quoted(name),
            known: self.entries.iter().map(|entry| entry.name.as_str()).collect::<Vec<_>>().join(", "),
        })
    }
}

impl Entry {
    /// Length in bytes of all files together; `None` when the manifest lacks one.
    pub fn bytes(&self) -> Option<u64> {
        self.files.iter().try_fold(0u64, |sum, file| sum.checked_add(file.bytes?))
    }

    fn check(&self, file: &str) -> Result<()> {
        let is_name = !self.name.is_empty()
            && self.name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if !is_name {
            return Err(self.error(file, "name".into(), &self.name, "lowercase letters, digits and hyphens"));
        }
        if !["https://", "http://"].iter().any(|scheme| self.base.starts_with(scheme)) {
            return Err(self.error(
                file,
                "base".into(),
                &self.base,
                "an address that starts with https:// or http://",
            ));
        }
        if self.files.is_empty() {
            return Err(self.error(file, "files".into(), "", "at least one file"));
        }
        let mut paths = BTreeSet::new();
        for (i, remote) in self.files.iter().enumerate() {
            if !stays_inside(&remote.path) {
                let expected = "a relative path without .. that uses /";
                return Err(self.error(file, format!("files.{i}.path"), &remote.path, expected));
            }
            if !paths.insert(&remote.path) {
                return Err(self.error(
                    file,
                    format!("files.{i}.path"),
                    &remote.path,
                    "a path that no other file has",
                ));
            }
            if !(remote.sha256.is_empty() || is_sha256(&remote.sha256)) {
                let expected = "64 lowercase hexadecimal digits, or nothing";
                return Err(self.error(file, format!("files.{i}.sha256"), &remote.sha256, expected));
            }
        }
        Ok(())
    }

    fn error(&self, file: &str, field: String, found: &str, expected: &'static str) -> DataError {
        DataError::Manifest {
            file: file.to_owned(),
            entry: self.name.escape_debug().to_string(),
            field,
            found: quoted(found),
            expected,
        }
    }
}

/// Whether a path, joined to a folder, stays inside that folder on every system.
fn stays_inside(path: &str) -> bool {
    !path.is_empty()
        && !path.contains('\\')
        && Path::new(path).components().all(|part| matches!(part, Component::Normal(_)))
}

/// Whether a text is a SHA-256 in lowercase hexadecimal.
pub(crate) fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_file(file: &str) -> String {
        format!(
            "[[entry]]\nname = \"x\"\nkind = \"data\"\nlicence = \"MIT\"\norigin = \"me\"\nbase = \"https://a.b/c\"\nfiles = [{file}]\n"
        )
    }

    fn message(text: &str) -> String {
        Manifest::parse("M.toml", text).unwrap_err().to_string()
    }

    #[test]
    fn addresses_are_base_and_path() {
        let text =
            with_file(r#"{ path = "d/e.csv", sha256 = "" }, { path = "f", sha256 = "", remote = "main/g" }"#);
        let manifest = Manifest::parse("M.toml", &text).unwrap();
        let entry = manifest.entry("x").unwrap();
        assert_eq!(entry.files[0].url(&entry.base), "https://a.b/c/d/e.csv");
        assert_eq!(entry.files[1].url("http://mirror/"), "http://mirror/main/g");
        assert_eq!(entry.files[0].pinned(), None);
        assert_eq!(
            manifest.entry("y").unwrap_err().to_string(),
            "M.toml: no entry is named \"y\"; expected one of x"
        );
    }

    #[test]
    fn errors_name_entry_and_field() {
        for path in ["", "/etc/passwd", "../a", "a/../b", "a\\\\b", "."] {
            let text = message(&with_file(&format!("{{ path = \"{path}\", sha256 = \"\" }}")));
            assert!(text.starts_with("M.toml: entry \"x\": field files.0.path is "), "{text}");
        }
        assert_eq!(
            message(&with_file(r#"{ path = "a", sha256 = "AB" }"#)),
            "M.toml: entry \"x\": field files.0.sha256 is \"AB\"; expected 64 lowercase hexadecimal digits, or nothing"
        );
        assert_eq!(
            message(&with_file("")),
            "M.toml: entry \"x\": field files is \"\"; expected at least one file"
        );
        let valid = with_file(r#"{ path = "a", sha256 = "" }"#);
        assert_eq!(
            message(&(valid.clone() + &valid)),
            "M.toml: entry \"x\": field name is \"x\"; expected a name that no other entry has"
        );
        assert!(message(&valid.replace("https", "ftp")).contains("field base is \"ftp://a.b/c\""));
        let unknown = message(&valid.replace("licence", "license"));
        assert!(unknown.starts_with("M.toml: line 4: unknown field `license`"), "{unknown}");
        assert_eq!(unknown.lines().count(), 1);
    }
}
