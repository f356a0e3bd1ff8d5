//! The command line tool `locus`.

use std::process::ExitCode;

/// Keeps freed memory for the next pass; the system's allocator gives large blocks back and takes them again.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    keep_freed_memory();
    locus_study::cli::main()
}

/// Freed memory stays with the process: the next pass takes it again, and the system need not clear its pages anew.
#[allow(unsafe_code)]
fn keep_freed_memory() {
    /// `mi_option_purge_delay` of mimalloc's C header: milliseconds after which freed memory goes back, -1 for never.
    const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;
    // SAFETY: sets an integer of the allocator, at the start of the only thread.
    unsafe { libmimalloc_sys::mi_option_set(PURGE_DELAY, -1) };
}
