//! `locus score`: NLL per token of targets after prompts.

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Args;
use locus_gpt2::Scalar;
use serde::{Deserialize, Serialize};

use super::error::{OVERFLOW, Unusable};
use super::global::{Dtype, Global};
use crate::protocol::{Scored, score};

#[derive(Debug, Args)]
#[group(skip)]
pub struct Score {
    /// JSONL file of {"prompt","target"}; `-` is stdin. Start the target with a space: prompt and target are tokenised
    /// separately, exactly as written
    #[arg(long = "in", value_name = "FILE")]
    input: PathBuf,
    /// Put the end-of-text token before every prompt, as TransformerLens does; without this, prompts stand alone
    #[arg(long)]
    bos: bool,
}

#[derive(Deserialize)]
struct Given {
    prompt: String,
    target: String,
}

#[derive(Serialize)]
struct Line<'a> {
    prompt: &'a str,
    target: &'a str,
    tokens: usize,
    nll_per_token: f64,
}

impl Score {
    pub fn run(&self, global: &Global) -> Result<()> {
        match global.dtype {
            Dtype::F32 => self.run_as::<f32>(global),
            Dtype::F64 => self.run_as::<f64>(global),
        }
    }

    /// Scores the lines; all of them are read and checked before the first result is printed.
    fn run_as<F: Scalar>(&self, global: &Global) -> Result<()> {
        let lines = self.read()?;
        let checkpoint = global.checkpoint::<F>()?;
        let pairs: Vec<[&str; 2]> = lines.iter().map(|(_, line)| [&*line.prompt, &*line.target]).collect();
        let place = |i: usize| format!("{}: line {}", self.name(), lines[i].0);
        let scores = score(&checkpoint, &pairs, self.bos, &place)?;
        if let Some(i) = scores.iter().position(|score| !score.nll_per_token.is_finite()) {
            let found = scores[i].nll_per_token;
            bail!("{}: the NLL is {found}; {OVERFLOW}", place(i));
        }
        let mut out = super::output::stdout();
        for ([prompt, target], score) in pairs.into_iter().zip(scores) {
            let Scored { tokens, nll_per_token } = score;
            let scored = Line { prompt, target, tokens, nll_per_token };
            writeln!(out, "{}", serde_json::to_string(&scored)?)?;
        }
        Ok(())
    }

    /// The name of the input in messages.
    fn name(&self) -> String {
        if self.input.as_os_str() == "-" { "stdin".into() } else { self.input.display().to_string() }
    }

    /// The lines that are not blank, with their numbers, counted from 1.
    fn read(&self) -> Result<Vec<(usize, Given)>> {
        let name = self.name();
        let text = if self.input.as_os_str() == "-" {
            std::io::read_to_string(std::io::stdin())
        } else {
            locus_files::read_to_string(&self.input)
        };
        let text = text.map_err(|e| Unusable(format!("{name}: {e}")))?;
        // Some editors begin a file with a byte order mark.
        text.trim_start_matches('\u{feff}')
            .lines()
            .enumerate()
            .filter(|(_, line)| !line.trim().is_empty())
            .map(|(i, line)| {
                let number = i + 1;
                let parsed = serde_json::from_str(line).map_err(|e| {
                    Unusable(format!("{name}: line {number}: {e}; expected {{\"prompt\",\"target\"}}"))
                })?;
                Ok((number, parsed))
            })
            .collect()
    }
}
