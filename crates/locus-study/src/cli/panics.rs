//! Panics, which are faults of the program: one line and exit code 1, like other failures.

use std::any::Any;
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind};
use std::sync::{Mutex, PoisonError};

use anyhow::{Result, anyhow};

/// What the last panic said, and where.
static LAST: Mutex<Option<String>> = Mutex::new(None);

/// Keeps what a panic says instead of printing it, because some are caught and handled. With `RUST_BACKTRACE` they are
/// printed as usual, too.
pub fn record() {
    let usual = std::panic::take_hook();
    let traced = std::env::var_os("RUST_BACKTRACE").is_some_and(|value| value != "0");
    std::panic::set_hook(Box::new(move |info: &PanicHookInfo| {
        let place = info.location().map_or_else(String::new, |at| format!(" ({}:{})", at.file(), at.line()));
        let text = format!("{}{place}", message(info.payload()));
        *LAST.lock().unwrap_or_else(PoisonError::into_inner) = Some(text);
        if traced {
            usual(info);
        }
    }));
}

/// Runs the work; a panic in it becomes an error.
pub fn caught(work: impl FnOnce() -> Result<()>) -> Result<()> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|payload| {
        let last = LAST.lock().unwrap_or_else(PoisonError::into_inner).take();
        let text = last.unwrap_or_else(|| message(&*payload));
        Err(anyhow!("a fault of the program, please report it: {text}"))
    })
}

fn message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_else(|| "panic".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::error::exit_code;

    #[test]
    fn a_panic_is_an_error_like_others() {
        let error = caught(|| panic!("index {} is out of range", 3)).unwrap_err();
        assert!(error.to_string().contains("index 3 is out of range"), "{error}");
        assert_eq!(exit_code(&error), 1);
    }
}
