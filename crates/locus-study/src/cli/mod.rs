//! The command line: arguments in, files and exit codes out.
//!
//! Exit codes: 0 done, 1 the run failed, 2 unusable arguments or input. Errors are one line on stderr.

mod bos;
mod destination;
mod discover;
mod edit;
mod editors;
mod error;
mod fetch;
mod global;
mod organism;
mod patch;
mod reproduce;
mod score;
mod selftest;
mod skipped;
mod stats;
mod trace;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use self::error::{Unusable, exit_code, is_broken_pipe};
use self::global::Global;

/// Where in GPT-2 does knowledge sit, and what happens when you edit it there?
#[derive(Debug, Parser)]
#[command(name = "locus", version, max_term_width = 110)]
struct Args {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Rebuild every table of the study and write the report
    Reproduce(reproduce::Reproduce),
    /// NLL per token of targets after prompts, JSONL in and out
    Score(score::Score),
    /// Find a circuit of edges: attribution patching, exact patching, controls
    Discover(discover::Discover),
    /// Edit facts and compare the model's answers before and after
    Edit(edit::EditArgs),
    /// List and merge patches, write patched models
    Patch(patch::PatchArgs),
    /// Collect the statistics of MLP keys that ROME and MEMIT need
    Stats(stats::Stats),
    /// Causal tracing: which states carry a fact
    Trace(trace::TraceArgs),
    /// Rebuild the embedded model and its data from their seed
    Organism(organism::Organism),
    /// Find planted circuits on this machine
    Selftest(selftest::Selftest),
    /// Download a model or data set by the manifest and verify it
    Fetch(fetch::Fetch),
}

/// Parses the arguments, runs the command and reports its outcome.
pub fn main() -> ExitCode {
    if let Some(code) = restart_with_library_settings() {
        return code;
    }
    let args = Args::parse();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            // One line, even if an error's sources have several.
            eprintln!("locus: {}", format!("{error:#}").replace('\n', " "));
            ExitCode::from(exit_code(&error))
        }
    }
}

fn run(args: &Args) -> Result<()> {
    let global = &args.global;
    if let Some(threads) = global.threads {
        if threads == 0 {
            return Err(Unusable("--threads is 0; expected at least 1".into()).into());
        }
        rayon::ThreadPoolBuilder::new().num_threads(threads).build_global()?;
    }
    match &args.command {
        Command::Reproduce(command) => command.run(global),
        Command::Score(command) => command.run(global),
        Command::Discover(command) => command.run(global),
        Command::Edit(command) => command.run(global),
        Command::Patch(command) => command.run(global),
        Command::Stats(command) => command.run(global),
        Command::Trace(command) => command.run(global),
        Command::Organism(command) => command.run(global),
        Command::Selftest(command) => command.run(),
        Command::Fetch(command) => command.run(global),
    }
}

/// Starts the program once more with the settings that its libraries read from the environment when they are loaded,
/// waits for that child and returns its exit code; `None` when no setting was missing. Settings of kernels and memory
/// that the caller chose are kept.
fn restart_with_library_settings() -> Option<ExitCode> {
    let mut settings = locus_gpt2::blas_environment();
    // mimalloc: freed memory stays with the process, so that its pages need not be cleared again for the next pass.
    settings.push(("MIMALLOC_PURGE_DELAY", "-1"));
    settings.retain(|(name, value)| match std::env::var_os(name) {
        None => true,
        // With more than one thread, results would depend on the number of threads.
        Some(set) => *name == "OPENBLAS_NUM_THREADS" && set != *value,
    });
    if settings.is_empty() {
        return None;
    }
    let mut command = std::process::Command::new(std::env::current_exe().ok()?);
    command.args(std::env::args_os().skip(1)).envs(settings);
    let status = command.status().ok()?;
    Some(ExitCode::from(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1)))
}
