//! The command line tool `locus`.

use std::process::ExitCode;

fn main() -> ExitCode {
    locus_study::cli::main()
}
