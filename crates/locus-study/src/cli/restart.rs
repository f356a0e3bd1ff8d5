//! The libraries' settings: they are read from the environment when the libraries are loaded, so the program starts
//! itself once more with them.

use std::path::PathBuf;
use std::process::{Command, ExitCode};

/// Holds the number of the process that has restarted itself, which is not done twice.
const RESTARTED: &str = "LOCUS_RESTARTED";

/// Replaces the program by itself with the settings that its libraries read; the process stays, so that signals and
/// limits reach the work. Returns when no setting was missing or the program cannot be started again. Settings of
/// kernels and memory that the caller chose are kept.
///
/// Where a process cannot be replaced, a child does the work, and its exit code is returned.
pub fn with_library_settings() -> Option<ExitCode> {
    let mut settings = locus_gpt2::blas_environment();
    // mimalloc: freed memory stays with the process for ten seconds, longer than a step of GPT-2 small, so that its pages
    // need not be cleared again for the next pass; what a stage leaves behind goes back.
    settings.push(("MIMALLOC_PURGE_DELAY", "10000"));
    settings.retain(|(name, value)| match std::env::var_os(name) {
        None => true,
        // With more than one thread, results would depend on the number of threads.
        Some(set) => *name == "OPENBLAS_NUM_THREADS" && set != *value,
    });
    let process = std::process::id().to_string();
    // A child has another number than the process that started it.
    let restarted = std::env::var_os(RESTARTED).is_some_and(|number| !cfg!(unix) || number == *process);
    if settings.is_empty() || restarted {
        return None;
    }
    // The second names the running program even if its file was moved or replaced.
    let programs = [std::env::current_exe().ok(), Some(PathBuf::from("/proc/self/exe"))];
    programs.into_iter().flatten().find_map(|program| {
        let mut command = Command::new(program);
        command.args(std::env::args_os().skip(1)).envs(settings.iter().copied()).env(RESTARTED, &process);
        become_it(command)
    })
}

/// Does not return unless the program cannot be started.
#[cfg(unix)]
fn become_it(mut command: Command) -> Option<ExitCode> {
    use std::os::unix::process::CommandExt;

    if let Some(name) = std::env::args_os().next() {
        command.arg0(name);
    }
    let _ = command.exec();
    None
}

#[cfg(not(unix))]
fn become_it(mut command: Command) -> Option<ExitCode> {
    let status = command.status().ok()?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    if code.is_none() {
        super::output::note(&format!("the run ended with {status}"));
    }
    Some(ExitCode::from(code.unwrap_or(1)))
}
