//! `locus circuit`: measure circuits that are on disk, compare them, find rivals, and turn one layout into another.

mod compare;
mod convert;
mod evaluate;
mod input;
mod rivals;

use anyhow::Result;
use clap::Subcommand;

use super::AllOptions;
use super::global::{Global, JsonOption, ModelOptions, OutOption};

/// Each verb with the shared options that act on it.
#[derive(Debug, Subcommand)]
pub(super) enum CircuitCommand {
    /// Measure a circuit of `discover`, EAP-IG or MIB, or a mask: curve over all sizes, CPR, CMD, complement, random
    /// circuits, completeness, minimality
    Evaluate {
        #[command(flatten)]
        command: evaluate::Evaluate,
        #[command(flatten)]
        options: AllOptions,
    },
    /// What circuits share, beside what chance gives
    Compare {
        #[command(flatten)]
        command: compare::Compare,
        #[command(flatten)]
        model: ModelOptions,
        #[command(flatten)]
        out: OutOption,
        #[command(flatten)]
        json: JsonOption,
    },
    /// Find circuits of parameters that all do one task and share as little as they can
    Rivals {
        #[command(flatten)]
        command: rivals::Rivals,
        #[command(flatten)]
        options: AllOptions,
    },
    /// Write a circuit in the layout of another extension: .json (EAP-IG, MIB), .csv, .dot, .safetensors (a mask), or as
    /// Neuronpedia's attribution graph
    Convert {
        #[command(flatten)]
        command: convert::Convert,
        #[command(flatten)]
        model: ModelOptions,
    },
}

impl CircuitCommand {
    /// The shared options that the verb takes.
    pub fn global(&self, global: Global) -> Global {
        match self {
            CircuitCommand::Evaluate { options, .. } | CircuitCommand::Rivals { options, .. } => {
                let AllOptions { model, seed, threads, out, json } = options;
                global.model(model).seed(seed).threads(threads).out(out).json(json)
            }
            CircuitCommand::Compare { model, out, json, .. } => global.model(model).out(out).json(json),
            CircuitCommand::Convert { model, .. } => global.model(model),
        }
    }

    pub fn run(&self, global: &Global) -> Result<()> {
        match self {
            CircuitCommand::Evaluate { command, .. } => command.run(global),
            CircuitCommand::Compare { command, .. } => command.run(global),
            CircuitCommand::Rivals { command, .. } => command.run(global),
            CircuitCommand::Convert { command, .. } => command.run(global),
        }
    }
}
