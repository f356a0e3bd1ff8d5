//! Parts that the benchmarks share.

use std::os::unix::process::CommandExt;
use std::process::Command;

/// Replaces this process by one whose environment has the settings of the BLAS and the allocator, if any is missing.
pub fn start_over_with_settings() {
    let mut settings = locus_gpt2::blas_environment();
    settings.push(("MIMALLOC_PURGE_DELAY", "10000"));
    settings.retain(|(name, _)| std::env::var_os(name).is_none());
    if settings.is_empty() {
        return;
    }
    let program = std::env::current_exe().expect("a running program has a path");
    // The same process, so that its memory is that of the work.
    let error = Command::new(program).args(std::env::args_os().skip(1)).envs(settings).exec();
    panic!("the program cannot be started again: {error}");
}
