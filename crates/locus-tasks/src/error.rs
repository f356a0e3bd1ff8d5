//! Errors of this crate: one line that names the file or the task, and what was found.

/// Anything that can be wrong with a task.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file cannot be read or parsed.
    #[error(transparent)]
    Data(#[from] locus_data::DataError),
    /// A text cannot be tokenised or does not fit the model.
    #[error("task {task}: {cause}")]
    Text {
        /// Name of the task.
        task: String,
        /// Error of the model or its tokenizer. Part of the message and hence not a `source()`, which would be printed
        /// twice.
        cause: locus_gpt2::Error,
    },
    /// One side of the split has no rows.
    #[error("task {task}: {rows} rows leave none to {side}; expected more rows or another share")]
    Rows {
        /// Name of the task.
        task: String,
        /// Rows of the task.
        rows: usize,
        /// Side of the split that has no rows: `train on` or `measure on`.
        side: &'static str,
    },
    /// All rows, or all on one side of the split, have one label.
    #[error("task {task}: every {rows} has label {label}; expected two classes")]
    OneClass {
        /// Name of the task.
        task: String,
        /// Rows that were looked at: `row`, `row to train on` or `row to measure on`.
        rows: &'static str,
        /// Label that they have.
        label: usize,
    },
}

/// Result with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;
