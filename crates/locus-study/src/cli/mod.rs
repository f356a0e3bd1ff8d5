//! The command line: arguments in, files and exit codes out.
//!
//! Exit codes: 0 done, 1 the run failed, 2 unusable arguments or input; 129, 130 and 143 stopped by SIGHUP, SIGINT and
//! SIGTERM. Errors are one line on stderr.

mod benchmark;
mod benchmark_page;
mod circuit;
mod destination;
mod discover;
mod edge_count;
mod edit;
mod edit_output;
mod editors;
mod embedded;
mod error;
mod estimate;
mod fetch;
mod generate;
mod global;
mod inspect;
mod jobs;
mod manual;
mod memory;
mod models;
mod organism;
mod output;
mod pair_source;
mod panics;
mod patch;
mod patch_list;
mod plan;
mod prompt;
mod report;
mod reproduce;
mod restart;
mod scope;
mod score;
mod search;
mod selftest;
mod sequential;
mod signals;
mod skipped;
mod stats;
mod study_options;
mod trace;
mod version;
mod workflow;

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use anyhow::Result;
use clap::{CommandFactory, Parser, Subcommand};

use self::error::{Unusable, exit_code, is_broken_pipe};
use self::global::{Global, JsonOption, ModelOptions, OutOption, SeedOption, ThreadsOption};

/// Variables that the program reads, for the help.
const ENVIRONMENT: &str = "\
Environment:
  LOCUS_CACHE           Fetched files and the unpacked organism [default: ~/.cache/locus]
  RAYON_NUM_THREADS     Threads, where --threads is not given [default: all cores]
  OPENBLAS_CORETYPE     Kernels of OpenBLAS [default: by the processor; see --version]
  OPENBLAS_NUM_THREADS  Always set to 1: more would make results depend on the number of threads
  MIMALLOC_PURGE_DELAY  Milliseconds until freed memory goes back to the system [default: 10000]
  NO_COLOR              No colours in help and errors
  RUST_BACKTRACE        Where a fault of the program happened
  Proxies and certificates: see `locus fetch --help`

`--model organism` is fixtures/organism in the current folder or one above it, otherwise above the
program, otherwise the copy that is part of the program, which is unpacked to LOCUS_CACHE.";

/// Where in GPT-2 does knowledge sit, and what happens when you edit it there?
#[derive(Debug, Parser)]
#[command(name = "locus", version, long_version = version::long(), max_term_width = 110, after_help = ENVIRONMENT)]
struct Args {
    /// Show no progress
    #[arg(long, global = true, help_heading = global::HEADING)]
    quiet: bool,
    #[command(subcommand)]
    command: Command,
}

/// Options of a command that measures a model at random and writes what it finds.
#[derive(Debug, clap::Args)]
struct AllOptions {
    #[command(flatten)]
    model: ModelOptions,
    #[command(flatten)]
    seed: SeedOption,
    #[command(flatten)]
    threads: ThreadsOption,
    #[command(flatten)]
    out: OutOption,
    #[command(flatten)]
    json: JsonOption,
}

/// Each command with the shared options that act on it.
#[derive(Debug, Subcommand)]
enum Command {
    /// Rebuild every table of the study and write the report
    Reproduce {
        #[command(flatten)]
        command: reproduce::Reproduce,
        #[command(flatten)]
        options: AllOptions,
    },
    /// Units of work of such a run with their estimated cost, as JSON, a Snakemake workflow or Slurm arrays
    Plan {
        #[command(flatten)]
        command: plan::Plan,
        #[command(flatten)]
        model: ModelOptions,
        #[command(flatten)]
        seed: SeedOption,
        #[command(flatten)]
        threads: ThreadsOption,
        #[command(flatten)]
        out: OutOption,
    },
    /// Do one unit of a plan; any number of processes may share the folder
    RunUnit {
        #[command(flatten)]
        command: plan::RunUnit,
        #[command(flatten)]
        model: ModelOptions,
        #[command(flatten)]
        seed: SeedOption,
        #[command(flatten)]
        threads: ThreadsOption,
        #[command(flatten)]
        out: OutOption,
    },
    /// How far a run has come: units done, running and left
    Status {
        #[command(flatten)]
        command: plan::StatusArgs,
        #[command(flatten)]
        json: JsonOption,
    },
    /// Render a finished run anew: tables, figures and claims from its records
    Report {
        #[command(flatten)]
        command: report::Report,
        #[command(flatten)]
        out: OutOption,
        #[command(flatten)]
        json: JsonOption,
    },
    /// Spread of verdicts and effects over several runs
    Aggregate {
        #[command(flatten)]
        command: report::AggregateArgs,
        #[command(flatten)]
        out: OutOption,
        #[command(flatten)]
        json: JsonOption,
    },
    /// NLL per token of targets after prompts, JSONL in and out
    Score {
        #[command(flatten)]
        command: score::Score,
        #[command(flatten)]
        model: ModelOptions,
        #[command(flatten)]
        threads: ThreadsOption,
        // Nothing else is printed, so the option is granted always.
        #[command(flatten)]
        json: JsonOption,
    },
    /// Look at a model on a prompt: continuations, logit lens, logit attribution, attention; before and after a patch
    Inspect {
        #[command(flatten)]
        command: inspect::Inspect,
        #[command(flatten)]
        model: ModelOptions,
        #[command(flatten)]
        threads: ThreadsOption,
        #[command(flatten)]
        out: OutOption,
        #[command(flatten)]
        json: JsonOption,
    },
    /// Continue a prompt
    Generate {
        #[command(flatten)]
        command: generate::Generate,
        #[command(flatten)]
        model: ModelOptions,
        #[command(flatten)]
        seed: SeedOption,
        #[command(flatten)]
        threads: ThreadsOption,
        #[command(flatten)]
        json: JsonOption,
    },
    /// Find a circuit of edges: attribution patching, exact patching, controls
    Discover {
        #[command(flatten)]
        command: discover::Discover,
        #[command(flatten)]
        options: AllOptions,
    },
    /// Measure circuits on disk, compare them, convert their files
    Circuit {
        #[command(subcommand)]
        command: circuit::CircuitCommand,
    },
    /// Edit facts and compare the model's answers before and after
    Edit {
        #[command(flatten)]
        command: edit::EditArgs,
        #[command(flatten)]
        options: AllOptions,
    },
    /// Measure editors on a file of requests, every definition of success side by side
    Benchmark {
        #[command(flatten)]
        command: benchmark::BenchmarkArgs,
        #[command(flatten)]
        options: AllOptions,
    },
    /// List and merge patches, write patched models
    Patch {
        #[command(flatten)]
        command: patch::PatchArgs,
        #[command(flatten)]
        model: ModelOptions,
        #[command(flatten)]
        threads: ThreadsOption,
        #[command(flatten)]
        out: OutOption,
        #[command(flatten)]
        json: JsonOption,
    },
    /// Collect the statistics of MLP keys that ROME and MEMIT need
    Stats {
        #[command(flatten)]
        command: stats::Stats,
        #[command(flatten)]
        model: ModelOptions,
        #[command(flatten)]
        threads: ThreadsOption,
        #[command(flatten)]
        out: OutOption,
        #[command(flatten)]
        json: JsonOption,
    },
    /// Causal tracing: which states carry a fact
    Trace {
        #[command(flatten)]
        command: trace::TraceArgs,
        #[command(flatten)]
        options: AllOptions,
    },
    /// Rebuild the embedded model and its data from their seed
    Organism {
        #[command(flatten)]
        command: organism::Organism,
        #[command(flatten)]
        threads: ThreadsOption,
        #[command(flatten)]
        out: OutOption,
    },
    /// Find planted circuits on this machine, or check a model (--model) against its own gradients and known losses
    Selftest {
        #[command(flatten)]
        command: selftest::Selftest,
        #[command(flatten)]
        threads: ThreadsOption,
    },
    /// Download a model or data set by the manifest and verify it
    Fetch {
        #[command(flatten)]
        command: fetch::Fetch,
        #[command(flatten)]
        out: OutOption,
    },
    /// Print the completions of a shell
    Completions {
        #[command(flatten)]
        command: manual::Completions,
    },
    /// Write the manual pages
    Man {
        #[command(flatten)]
        command: manual::ManPages,
    },
}

/// Parses the arguments, runs the command and reports its outcome.
pub fn main() -> ExitCode {
    if let Some(code) = restart::with_library_settings() {
        return code;
    }
    panics::record();
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(refused) => return explain(&refused),
    };
    signals::watch(args.command.resume());
    let outcome = panics::caught(|| {
        run(&args)?;
        // What does not end a line may not have been written yet.
        Ok(output::stdout().flush()?)
    });
    ended(outcome)
}

/// Whether a command line, the program's name first, is one that [`main`] accepts; nothing is run and no file is read.
///
/// # Errors
///
/// What [`main`] would print before it ends with exit code 2, or the help that is asked for.
pub fn check(words: &[&str]) -> Result<(), String> {
    Args::try_parse_from(words).map(drop).map_err(|refused| refused.to_string())
}

/// The exit code of an outcome, which is reported.
fn ended(outcome: Result<()>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            output::note(&format!("{error:#}"));
            ExitCode::from(exit_code(&error))
        }
    }
}

/// Prints the help that was asked for, or what is wrong with the arguments.
fn explain(refused: &clap::Error) -> ExitCode {
    if !refused.use_stderr() {
        let printed = refused.print().and_then(|()| std::io::stdout().flush());
        return ended(printed.map_err(|error| anyhow::Error::from(error).context("stdout")));
    }
    let hostile = std::env::args_os().any(|arg| arg.to_string_lossy().contains(output::is_control));
    if hostile || !std::io::stderr().is_terminal() {
        let text = refused.render().to_string();
        let lines: Vec<String> = text.lines().map(output::one_line).collect();
        let _ = std::io::stderr().write_all((lines.join("\n") + "\n").as_bytes());
    } else {
        // In colour; a terminal that is gone reads nothing.
        let _ = refused.print();
    }
    ExitCode::from(2)
}

impl Command {
    /// How to go on with a run that was stopped, for the end of the line that says so.
    fn resume(&self) -> &'static str {
        match self {
            Command::Reproduce { .. } | Command::Stats { .. } | Command::Benchmark { .. } => {
                "; what was finished is kept: the same command with --resume continues"
            }
            Command::RunUnit { .. } => "; what was finished is kept: the same command continues",
            Command::Fetch { .. } => "; what has arrived is kept: the same command continues",
            _ => "",
        }
    }

    /// The shared options that the command takes.
    fn global(&self, quiet: bool) -> Global {
        let global = Global::new(quiet);
        match self {
            Command::Reproduce { options, .. }
            | Command::Discover { options, .. }
            | Command::Edit { options, .. }
            | Command::Benchmark { options, .. }
            | Command::Trace { options, .. } => {
                let AllOptions { model, seed, threads, out, json } = options;
                global.model(model).seed(seed).threads(threads).out(out).json(json)
            }
            Command::Plan { model, seed, threads, out, .. }
            | Command::RunUnit { model, seed, threads, out, .. } => {
                global.model(model).seed(seed).threads(threads).out(out)
            }
            Command::Status { json, .. } => global.json(json),
            Command::Circuit { command } => command.global(global),
            Command::Patch { model, threads, out, json, .. }
            | Command::Stats { model, threads, out, json, .. }
            | Command::Inspect { model, threads, out, json, .. } => {
                global.model(model).threads(threads).out(out).json(json)
            }
            Command::Generate { model, seed, threads, json, .. } => {
                global.model(model).seed(seed).threads(threads).json(json)
            }
            Command::Score { model, threads, json, .. } => global.model(model).threads(threads).json(json),
            Command::Organism { threads, out, .. } => global.threads(threads).out(out),
            Command::Selftest { threads, .. } => global.threads(threads),
            Command::Report { out, json, .. } | Command::Aggregate { out, json, .. } => {
                global.out(out).json(json)
            }
            Command::Fetch { out, .. } => global.out(out),
            Command::Completions { .. } | Command::Man { .. } => global,
        }
    }
}

fn run(args: &Args) -> Result<()> {
    let global = &args.command.global(args.quiet);
    start_threads(global.threads)?;
    match &args.command {
        Command::Reproduce { command, .. } => command.run(global),
        Command::Plan { command, .. } => command.run(global),
        Command::RunUnit { command, .. } => command.run(global),
        Command::Status { command, .. } => command.run(global),
        Command::Report { command, .. } => command.run(global),
        Command::Aggregate { command, .. } => command.run(global),
        Command::Score { command, .. } => command.run(global),
        Command::Discover { command, .. } => command.run(global),
        Command::Circuit { command } => command.run(global),
        Command::Edit { command, .. } => command.run(global),
        Command::Benchmark { command, .. } => command.run(global),
        Command::Patch { command, .. } => command.run(global),
        Command::Stats { command, .. } => command.run(global),
        Command::Trace { command, .. } => command.run(global),
        Command::Organism { command, .. } => command.run(global),
        Command::Selftest { command, .. } => command.run(global),
        Command::Fetch { command, .. } => command.run(global),
        Command::Inspect { command, .. } => command.run(global),
        Command::Generate { command, .. } => command.run(global),
        Command::Completions { command } => command.run(Args::command()),
        Command::Man { command } => command.run(Args::command()),
    }
}

/// Starts the threads that all work is divided among, if their number was given.
fn start_threads(given: Option<usize>) -> Result<()> {
    // More than the cores is of no use; far more takes the system minutes to switch between.
    let most = std::thread::available_parallelism().map_or(1, usize::from).saturating_mul(4).max(256);
    let threads = match given {
        Some(0) => return Err(Unusable("--threads is 0; expected at least 1".into()).into()),
        Some(threads) if threads > most => {
            return Err(Unusable(format!("--threads is {threads}; expected at most {most}")).into());
        }
        Some(threads) => threads,
        // Rayon would start as many as its variable says, whatever that is.
        None => match std::env::var("RAYON_NUM_THREADS").ok().and_then(|number| number.parse::<usize>().ok())
        {
            Some(threads) if threads > 0 => threads.min(most),
            _ => return Ok(()),
        },
    };
    Ok(rayon::ThreadPoolBuilder::new().num_threads(threads).build_global()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Help fits a terminal, whatever the length of a sentence in it.
    #[test]
    fn help_is_wrapped() {
        use clap::CommandFactory;

        let mut program = Args::command();
        program.build();
        for command in program.get_subcommands_mut() {
            let help = command.render_long_help().to_string();
            let longest = help.lines().max_by_key(|line| line.chars().count()).unwrap();
            assert!(longest.chars().count() <= 110, "{}: {longest}", command.get_name());
        }
    }

    /// Every command has the options that act on it and no other.
    #[test]
    fn options_are_offered_where_they_act() {
        let shared = ["--model=m", "--dtype=f64", "--seed=2", "--threads=1", "--out=o", "--json"];
        let accepted = |line: &str| -> Vec<&str> {
            let takes = |option: &&str| {
                let words = ["locus"].into_iter().chain(line.split(' ')).chain([*option]);
                Args::try_parse_from(words).is_ok()
            };
            shared.into_iter().filter(takes).collect()
        };
        for line in [
            "reproduce",
            "discover --task t",
            "edit --editor ft --requests r",
            "benchmark --requests r",
            "trace --task t",
        ] {
            assert_eq!(accepted(line), shared, "{line}");
        }
        for line in ["stats --text t --layers 0", "patch list p", "patch apply p", "patch merge p"] {
            assert_eq!(accepted(line), [shared[0], shared[1], shared[3], shared[4], shared[5]], "{line}");
        }
        assert_eq!(accepted("circuit evaluate --circuit c --task t"), shared);
        assert_eq!(accepted("circuit compare a b"), [shared[0], shared[1], shared[4], shared[5]]);
        assert_eq!(accepted("circuit convert a b"), [shared[0], shared[1]]);
        assert_eq!(accepted("score --in -"), [shared[0], shared[1], shared[3], shared[5]]);
        for line in ["plan", "run-unit u"] {
            assert_eq!(accepted(line), shared[..5], "{line}");
        }
        assert_eq!(accepted("status r"), [shared[5]]);
        assert_eq!(accepted("inspect p"), [shared[0], shared[1], shared[3], shared[4], shared[5]]);
        assert_eq!(accepted("generate p"), [shared[0], shared[1], shared[2], shared[3], shared[5]]);
        for line in ["completions bash", "man d"] {
            assert_eq!(accepted(line), [""; 0], "{line}");
        }
        assert_eq!(accepted("report r"), [shared[4], shared[5]]);
        assert_eq!(accepted("aggregate r"), [shared[4], shared[5]]);
        assert_eq!(accepted("organism"), [shared[3], shared[4]]);
        assert_eq!(accepted("selftest"), [shared[0], shared[3]]);
        assert_eq!(accepted("selftest --model m"), [shared[2], shared[3]]);
        assert_eq!(accepted("fetch gpt2"), [shared[4]]);
    }
}
