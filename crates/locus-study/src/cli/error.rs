//! Exit codes: which errors are the caller's (2), which are failures of the run (1), and which are none.

use std::io::ErrorKind;

/// Input that a command cannot use: exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Unusable(pub String);

/// Why a result can be no number.
pub const OVERFLOW: &str = "the model's states are beyond the number type's range";

/// Exit code of an error: 2 when arguments or input cannot be used, otherwise 1.
pub fn exit_code(error: &anyhow::Error) -> u8 {
    let unusable = error.chain().any(|cause| {
        if let Some(error) = cause.downcast_ref::<locus_gpt2::Error>() {
            return match error {
                locus_gpt2::Error::Io { cause, .. } => is_absent(cause.kind()),
                _ => true,
            };
        }
        if let Some(error) = cause.downcast_ref::<locus_data::DataError>() {
            return match error {
                locus_data::DataError::Io { cause, .. } => is_absent(cause.kind()),
                locus_data::DataError::Transfer { .. } | locus_data::DataError::Hash { .. } => false,
                _ => true,
            };
        }
        cause.is::<locus_editors::Error>() || cause.is::<locus_tasks::Error>() || cause.is::<Unusable>()
    });
    if unusable { 2 } else { 1 }
}

/// Whether a file that the caller named cannot be read, which is the caller's mistake; a full disk is not.
fn is_absent(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::NotFound
            | ErrorKind::PermissionDenied
            | ErrorKind::NotADirectory
            | ErrorKind::IsADirectory
    )
}

/// Whether the reader of the output has closed the pipe.
pub fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == ErrorKind::BrokenPipe)
    })
}
