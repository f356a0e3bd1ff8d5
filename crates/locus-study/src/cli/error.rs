//! Exit codes: which errors are the caller's (2), which are failures of the run (1), and which are none.

use std::io::{ErrorKind, Write};

/// Input that a command cannot use: exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Unusable(pub String);

/// Checks that a number given on the command line is from 1 to `most`; `name` is that of the option.
pub fn in_range(name: &str, n: usize, most: usize) -> Result<(), Unusable> {
    match n {
        0 => Err(Unusable(format!("{name} is 0; expected at least 1"))),
        _ if n > most => Err(Unusable(format!("{name} is {n}; expected at most {most}"))),
        _ => Ok(()),
    }
}

/// Writes a line to stderr; a closed stderr does not end the work.
pub fn note(line: &str) {
    let _ = writeln!(std::io::stderr(), "locus: {}", line.replace('\n', " "));
}

/// Exit code of an error: 2 when arguments or input cannot be used, otherwise 1.
pub fn exit_code(error: &anyhow::Error) -> u8 {
    let unusable = error.chain().any(|cause| {
        // An editor's error that only passes on one of the model is that one.
        let of_model = match cause.downcast_ref::<locus_editors::Error>() {
            Some(locus_editors::Error::Model(error)) => Some(error),
            _ => cause.downcast_ref::<locus_gpt2::Error>(),
        };
        if let Some(error) = of_model {
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
