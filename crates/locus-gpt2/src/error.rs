//! Errors of this crate: one line that says what is wrong, where, and what was expected.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

/// Anything that can be wrong with a file this crate reads or the text it is given.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file cannot be opened, read or written.
    #[error("{}: {cause}", printable(&path.display().to_string()))]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says. Part of the message, hence not a `source()` that would be printed twice.
        cause: std::io::Error,
    },
    /// The file is not what it should be.
    #[error("{}: {}", printable(&path.display().to_string()), printable(why))]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong and what was expected.
        why: String,
    },
    /// The input does not fit the model.
    #[error("{}", printable(.0))]
    Input(String),
}

/// A text with its control characters written out (`\\u{1b}`), so that what a file holds cannot steer a terminal.
pub fn printable(text: &str) -> Cow<'_, str> {
    if !text.contains(char::is_control) {
        return Cow::Borrowed(text);
    }
    let escaped = |c: char| if c.is_control() { c.escape_default().collect() } else { String::from(c) };
    Cow::Owned(text.chars().map(escaped).collect())
}

impl Error {
    /// An [`Error::Io`].
    pub fn io(path: &Path, cause: std::io::Error) -> Self {
        Error::Io { path: path.to_owned(), cause }
    }

    /// An [`Error::Format`].
    pub fn format(path: &Path, why: impl Into<String>) -> Self {
        Error::Format { path: path.to_owned(), why: why.into() }
    }
}

/// Result with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;
