//! `locus score`: NLL per token of targets after prompts.

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use locus_gpt2::{Checkpoint, PromptTargets, Scalar};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::error::Unusable;
use super::global::{Dtype, Global};

#[derive(Debug, Args)]
pub struct Score {
    /// JSONL file of {"prompt","target"}; `-` is stdin. Start the target with a space: prompt and target are tokenised separately, exactly as written
    #[arg(long = "in", value_name = "FILE")]
    input: PathBuf,
}

#[derive(Deserialize)]
struct Line {
    prompt: String,
    target: String,
}

#[derive(Serialize)]
struct Scored<'a> {
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

    /// Everything is read and checked before the first line is printed.
    fn run_as<F: Scalar>(&self, global: &Global) -> Result<()> {
        let lines = self.read()?;
        let Checkpoint { model, tokenizer } = global.checkpoint::<F>()?;
        let prepared: Vec<PromptTargets<F>> = lines
            .par_iter()
            .map(|(number, line)| {
                let lay_out = || {
                    let prompt = tokenizer.encode_some("prompt", &line.prompt)?;
                    let target = tokenizer.encode_some("target", &line.target)?;
                    PromptTargets::new(model.config(), &[(prompt, target)])
                };
                lay_out().with_context(|| format!("{}: line {number}", self.input.display()))
            })
            .collect::<Result<_>>()?;
        let scores: Vec<f64> = prepared.par_iter().map(|laid| laid.nll_per_token(&model)[0]).collect();
        let mut out = std::io::stdout().lock();
        for ((line, laid), nll_per_token) in lines.iter().map(|(_, line)| line).zip(&prepared).zip(scores) {
            let scored = Scored {
                prompt: &line.prompt,
                target: &line.target,
                tokens: laid.targets.len(),
                nll_per_token,
            };
            writeln!(out, "{}", serde_json::to_string(&scored)?)?;
        }
        Ok(())
    }

    /// The lines that are not blank, with their numbers from 1.
    fn read(&self) -> Result<Vec<(usize, Line)>> {
        let name = self.input.display();
        let text = if self.input.as_os_str() == "-" {
            std::io::read_to_string(std::io::stdin())
        } else {
            std::fs::read_to_string(&self.input)
        };
        let text = text.map_err(|e| Unusable(format!("{name}: {e}")))?;
        text.lines()
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
