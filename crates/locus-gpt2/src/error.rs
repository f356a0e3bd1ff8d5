//! Errors of this crate: one line that says what is wrong, where, and what was expected.

use std::path::{Path, PathBuf};

/// Anything that can be wrong with a file this crate reads or the text it is given.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file cannot be opened, read or written.
    #[error("{}: {cause}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says. Part of the message, hence not a `source()` that would be printed twice.
        cause: std::io::Error,
    },
    /// The file is not what it should be.
    #[error("{}: {why}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong and what was expected.
        why: String,
    },
    /// The input does not fit the model.
    #[error("{0}")]
    Input(String),
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
