//! `locus trace`: causal tracing of known facts.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use locus_circuits::{KnownFact, Tracing};
use locus_gpt2::internal::write_atomically;
use locus_gpt2::{Checkpoint, Scalar};
use serde::Deserialize;
use serde_json::json;

use super::error::Unusable;
use super::global::{Dtype, Global};
use crate::protocol::trace_all;
use crate::records::TracingRecord;
use crate::{figures, records::Records, report};

#[derive(Debug, Args)]
pub struct TraceArgs {
    /// Known facts: a JSON array or JSONL of {"prompt","subject","attribute"}
    #[arg(long, value_name = "FILE")]
    task: PathBuf,
    /// Number of corrupted copies of each prompt
    #[arg(long, default_value_t = 10, value_name = "N")]
    samples: usize,
    /// Standard deviation of the noise, as a multiple of that of the subjects' embeddings
    #[arg(long, default_value_t = 3.0, value_name = "X")]
    noise: f64,
    /// Number of layers restored together, for MLP and attention [default: 10 of 48, scaled to the model]
    #[arg(long, value_name = "N")]
    window: Option<usize>,
    /// Largest number of facts to trace, from the beginning of the file
    #[arg(long, value_name = "N")]
    facts: Option<usize>,
}

/// One fact of the file; other fields are ignored.
#[derive(Debug, Deserialize)]
struct Known {
    prompt: String,
    subject: String,
    attribute: String,
}

impl TraceArgs {
    pub fn run(&self, global: &Global) -> Result<()> {
        match global.dtype {
            Dtype::F32 => self.run_as::<f32>(global),
            Dtype::F64 => self.run_as::<f64>(global),
        }
    }

    fn run_as<F: Scalar>(&self, global: &Global) -> Result<()> {
        for (name, n) in
            [("--samples", Some(self.samples)), ("--window", self.window), ("--facts", self.facts)]
        {
            if n == Some(0) {
                return Err(Unusable(format!("{name} is 0; expected at least 1")).into());
            }
        }
        if !self.noise.is_finite() || self.noise < 0.0 {
            return Err(
                Unusable(format!("--noise is {}; expected a number of at least 0", self.noise)).into()
            );
        }
        global.check_out_file(&[&self.task])?;
        let mut texts = self.read()?;
        texts.truncate(self.facts.unwrap_or(usize::MAX));
        let Checkpoint { model, tokenizer } = global.checkpoint::<F>()?;
        let facts = texts
            .iter()
            .enumerate()
            .map(|(i, Known { prompt, subject, attribute })| {
                KnownFact::from_text(&tokenizer, prompt, subject, attribute)
                    .with_context(|| format!("{}: fact {i}", self.task.display()))
            })
            .collect::<Result<Vec<_>>>()?;
        let stage = global.progress().stage("facts", facts.len());
        let how = |known: &[_]| {
            let published = Tracing::new(&model, known, global.seed);
            Tracing {
                samples: self.samples,
                noise: published.noise * self.noise / 3.0,
                window: self.window.unwrap_or(published.window),
                ..published
            }
        };
        let found = trace_all(&model, &facts, &how, &mut || stage.inc())?;
        stage.finish();
        let Some(record) = found else {
            anyhow::bail!(
                "the model answers all {} facts wrongly, so there is nothing to trace",
                facts.len()
            );
        };
        if let Some(out) = &global.out {
            let provenance = json!({
                "model_sha256": model.sha256(), "seed": global.seed, "version": env!("CARGO_PKG_VERSION"),
            });
            if out.extension().is_some_and(|ext| ext == "svg") {
                let records = Records { tracing: Some(record.clone()), ..Records::default() };
                let map = figures::tracing(&records).into_iter().next().expect("there are facts");
                write_atomically(out, report::draw(&map).as_bytes())?;
            } else {
                let text =
                    serde_json::to_string_pretty(&json!({ "provenance": provenance, "tracing": record }))?;
                write_atomically(out, format!("{text}\n").as_bytes())?;
            }
        }
        print(&record, global.json)
    }

    /// Reads the facts, an array or one per line.
    fn read(&self) -> Result<Vec<Known>> {
        let place = self.task.display();
        let text = locus_files::read_to_string(&self.task).map_err(|e| Unusable(format!("{place}: {e}")))?;
        let facts: Vec<Known> = if text.trim_start().starts_with('[') {
            serde_json::from_str(&text).map_err(|e| Unusable(format!("{place}: {e}")))?
        } else {
            let parse = |(i, line): (usize, &str)| {
                serde_json::from_str(line).map_err(|e| Unusable(format!("{place}: line {}: {e}", i + 1)))
            };
            text.lines()
                .enumerate()
                .filter(|(_, line)| !line.trim().is_empty())
                .map(parse)
                .collect::<Result<_, _>>()?
        };
        if facts.is_empty() {
            return Err(Unusable(format!("{place}: has no facts; expected at least one")).into());
        }
        Ok(facts)
    }
}

fn print(record: &TracingRecord, json: bool) -> Result<()> {
    use std::io::Write;
    let mut out = super::output::stdout();
    if json {
        writeln!(out, "{}", serde_json::to_string(record)?)?;
        return Ok(());
    }
    writeln!(
        out,
        "{} facts traced; {} skipped because the model answers them wrongly",
        record.facts, record.unknown
    )?;
    let total = record.clean - record.corrupted;
    writeln!(
        out,
        "P(answer): clean {:.4}, corrupted {:.4}, total effect {total:.4}; indirect effects by layer:",
        record.clean, record.corrupted
    )?;
    for effect in record.effects.iter().filter(|effect| effect.facts > 0) {
        write!(out, "{:<26} {:<22}", effect.what, effect.place)?;
        for x in &effect.by_layer {
            write!(out, " {:>+7.4}", x.value)?;
        }
        writeln!(out)?;
    }
    Ok(())
}
