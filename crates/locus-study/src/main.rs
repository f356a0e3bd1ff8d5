//! The command line tool `locus`.

use std::process::ExitCode;

/// The allocator keeps freed memory for the next pass, while the system's returns large blocks and requests them again.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    locus_study::cli::main()
}
