//! Exit codes: which errors are the caller's (2), which are failures of the run (1), and which are none.

use std::io;

/// Input that a command cannot use: exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Unusable(pub String);

pub use crate::protocol::OVERFLOW;

/// Checks that a number given on the command line is from 1 to `most`; `name` is that of the option.
pub fn in_range(name: &str, n: usize, most: usize) -> Result<(), Unusable> {
    match n {
        0 => Err(Unusable(format!("{name} is 0; expected at least 1"))),
        _ if n > most => Err(Unusable(format!("{name} is {n}; expected at most {most}"))),
        _ => Ok(()),
    }
}

/// Exit code of an error: 2 when arguments or input cannot be used, otherwise 1.
pub fn exit_code(error: &anyhow::Error) -> u8 {
    let unusable = error.chain().any(|cause| {
        if let Some(error) = cause.downcast_ref::<locus_gpt2::Error>() {
            return is_input_of_model(error);
        }
        if let Some(error) = cause.downcast_ref::<locus_data::DataError>() {
            return is_input_of_data(error);
        }
        match cause.downcast_ref::<locus_editors::Error>() {
            Some(locus_editors::Error::Model(error)) => return is_input_of_model(error),
            Some(_) => return true,
            None => {}
        }
        match cause.downcast_ref::<locus_tasks::Error>() {
            Some(locus_tasks::Error::Data(error)) => return is_input_of_data(error),
            Some(locus_tasks::Error::Text { cause, .. }) => return is_input_of_model(cause),
            Some(_) => return true,
            None => {}
        }
        cause.is::<Unusable>()
    });
    if unusable { 2 } else { 1 }
}

fn is_input_of_model(error: &locus_gpt2::Error) -> bool {
    match error {
        locus_gpt2::Error::Io { cause, .. } => !locus_files::is_output(cause),
        _ => true,
    }
}

fn is_input_of_data(error: &locus_data::DataError) -> bool {
    match error {
        locus_data::DataError::Io { action, cause, .. } => {
            *action == "read" && !locus_files::is_output(cause)
        }
        locus_data::DataError::Transfer { .. } | locus_data::DataError::Hash { .. } => false,
        _ => true,
    }
}

/// Whether the reader of the output has closed the pipe.
pub fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .any(|cause| cause.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// A full disk is no fault of the input, whichever crate was writing; a broken input is, whatever the system calls it.
    #[test]
    fn output_is_told_from_input() {
        let full = || locus_files::output_error(io::ErrorKind::StorageFull, "no space left");
        let model = |cause| locus_gpt2::Error::io(Path::new("x"), cause);
        for error in [
            model(full()).into(),
            locus_editors::Error::Model(model(full())).into(),
            anyhow::Error::from(full()).context("report"),
        ] {
            assert_eq!(exit_code(&error), 1, "{error:#}");
        }
        for kind in [io::ErrorKind::InvalidData, io::ErrorKind::IsADirectory, io::ErrorKind::Other] {
            let error = || model(io::Error::from(kind));
            assert_eq!(exit_code(&error().into()), 2, "{kind:?}");
            assert_eq!(exit_code(&locus_editors::Error::Model(error()).into()), 2, "{kind:?}");
        }
    }
}
