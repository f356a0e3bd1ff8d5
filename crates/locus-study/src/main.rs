//! The command line tool `locus`.

use std::process::ExitCode;

/// Keeps freed memory for the next pass; the system's allocator gives large blocks back and takes them again.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    locus_study::cli::main()
}
