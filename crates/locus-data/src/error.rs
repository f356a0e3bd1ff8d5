//! Everything that can be wrong with a data file, a manifest or a download.

use std::io;
use std::path::Path;

/// Result of this crate's functions.
pub type Result<T> = std::result::Result<T, DataError>;

/// An error of this crate. Every message is one line: the file or address, the place in it, what was found and what was
/// expected.
///
/// Lines are counted from 1, as in editors. Records of a JSON array are counted from 0, as in `jq '.[3]'`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// A file or folder that the operating system refused to read, write or create.
    #[error("{file}: cannot {action}: {cause}")]
    Io {
        /// The file or folder.
        file: String,
        /// What was attempted: `read`, `write`, ...
        action: &'static str,
        /// The system's reason. The message includes it, so it is not a `source()`, which would be printed twice.
        cause: io::Error,
    },
    /// A file without records.
    #[error("{file}: holds no records; expected {expected}")]
    Empty {
        /// The file.
        file: String,
        /// What it should hold.
        expected: &'static str,
    },
    /// A file in another format than expected.
    #[error("{file}: line {line}: {problem}; expected {expected}")]
    Syntax {
        /// The file.
        file: String,
        /// Line, from 1.
        line: u64,
        /// What is wrong there.
        problem: String,
        /// What would have been right.
        expected: &'static str,
    },
    /// A CSV file without a column that it needs.
    #[error("{file}: column \"{column}\" is missing; expected columns text,label")]
    Column {
        /// The file.
        file: String,
        /// The column.
        column: &'static str,
    },
    /// A CSV cell with an unusable value.
    #[error("{file}: line {line}: column \"{column}\" is {found}; expected {expected}")]
    Cell {
        /// The file.
        file: String,
        /// Line on which the row starts, from 1.
        line: u64,
        /// The column.
        column: &'static str,
        /// What the cell holds, quoted.
        found: String,
        /// What it should hold.
        expected: &'static str,
    },
    /// A JSON record without a field that it needs, or with an unusable value in one.
    #[error("{file}: record {record}: field {field} {problem}; expected {expected}")]
    Field {
        /// The file.
        file: String,
        /// Number of the record, from 0.
        record: usize,
        /// Dotted path of the field.
        field: String,
        /// What is wrong with it.
        problem: String,
        /// What it should hold.
        expected: &'static str,
    },
    /// A JSON record in no known layout of edit requests.
    #[error(
        "{file}: record {record}: is in no known layout; expected that of CounterFact or MQuAKE (requested_rewrite), \
         RippleEdits (edit), zsRE (src), WikiBigEdit (update), known_1000 (attribute), or EasyEdit or KnowEdit \
         (prompt, subject, target_new)"
    )]
    Layout {
        /// The file.
        file: String,
        /// Number of the record, from 0.
        record: usize,
    },
    /// An unusable entry of the manifest.
    #[error("{file}: entry \"{entry}\": field {field} is {found}; expected {expected}")]
    Manifest {
        /// The manifest.
        file: String,
        /// Name of the entry.
        entry: String,
        /// Dotted path of the field.
        field: String,
        /// What it holds, quoted.
        found: String,
        /// What it should hold.
        expected: &'static str,
    },
    /// A name that no entry of the manifest has.
    #[error("{file}: no entry is named {name}; expected one of {known}")]
    UnknownEntry {
        /// The manifest.
        file: String,
        /// The name asked for, quoted.
        name: String,
        /// The names there are.
        known: String,
    },
    /// An address of a proxy or of files that cannot be used.
    #[error("{what} is unusable; expected {expected}")]
    Address {
        /// Which address, quoted if it can hold no password.
        what: String,
        /// What would have been right.
        expected: &'static str,
    },
    /// A failed download. What had arrived is kept for the next attempt.
    #[error("{url}: {problem}")]
    Transfer {
        /// The address.
        url: String,
        /// What happened.
        problem: String,
    },
    /// A file with another hash than the manifest, or the record of its first download, has.
    #[error("{file}: SHA-256 is {found}; expected {expected} ({note})")]
    Hash {
        /// The file.
        file: String,
        /// The hash it has.
        found: String,
        /// The hash it should have.
        expected: String,
        /// What happened to the file.
        note: &'static str,
    },
}

impl DataError {
    pub(crate) fn io(path: &Path, action: &'static str, cause: io::Error) -> Self {
        Self::Io { file: path.display().to_string(), action, cause }
    }
}

/// `text` quoted for a message: on one line, and cut when it is long.
pub(crate) fn quoted(text: &str) -> String {
    const LONGEST: usize = 60;
    if text.chars().count() <= LONGEST {
        format!("{text:?}")
    } else {
        let start: String = text.chars().take(LONGEST).collect();
        format!("{start:?}...")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_one_line_without_a_final_period() {
        let error = DataError::Cell {
            file: "a.csv".into(),
            line: 7,
            column: "label",
            found: quoted("two\nlines"),
            expected: "0 or 1",
        };
        assert_eq!(error.to_string(), r#"a.csv: line 7: column "label" is "two\nlines"; expected 0 or 1"#);
    }

    #[test]
    fn long_values_are_cut_at_a_character() {
        let text = quoted(&"ä".repeat(200));
        assert_eq!(text, format!("\"{}\"...", "ä".repeat(60)));
    }
}
