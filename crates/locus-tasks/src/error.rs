//! Errors of this crate: one line that names the file or the task, and what was found.

/// What can be wrong with a task.
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
        /// What the model or its tokenizer says. Part of the message, hence not a `source()` that would be printed twice.
        cause: locus_gpt2::Error,
    },
    /// One side of the split has no rows.
    #[error("task {task}: {rows} rows leave none to {side}; expected more rows or another share")]
    Rows {
        /// Name of the task.
        task: String,
        /// Rows of the task.
        rows: usize,
        /// What the missing rows are for.
        side: &'static str,
    },
}

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;
