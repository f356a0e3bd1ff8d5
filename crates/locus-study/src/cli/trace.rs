//! `locus trace`: causal tracing of known facts.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use locus_circuits::{KnownFact, Tracing};
use locus_data::{KnownText, requests};
use locus_gpt2::internal::write_atomically;
use locus_gpt2::{Checkpoint, Gpt2, Scalar, Tokenizer};
use serde_json::json;

use super::destination::ending;
use super::error::{Unusable, in_range};
use super::global::{Dtype, Global};
use super::skipped::{SkippedRecords, is_empty_file};
use crate::protocol::trace_all;
use crate::records::TracingRecord;
use crate::{figures, records::Records, report};

#[derive(Debug, Args)]
pub struct TraceArgs {
    /// Known facts: a JSON array, an object by id or JSONL of {"prompt","subject","attribute"}, or edit requests with a
    /// true target; answers of several tokens are skipped
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
    /// Stop at the first fact that cannot be traced, instead of leaving it out
    #[arg(long)]
    strict: bool,
    /// Put the end-of-text token before every prompt [default: nothing]
    #[arg(long)]
    bos: bool,
}

/// Formats of tracing results, by the endings of their files.
const FORMATS: [&str; 2] = ["json", "svg"];
/// Largest number of corrupted copies, of which all states are held at once; ten were published.
const MOST_SAMPLES: usize = 1000;
/// Largest number of layers and of facts.
const MOST: usize = 1_000_000;
/// Largest noise, in standard deviations of the subjects' embeddings.
const MOST_NOISE: f64 = 1e6;

impl TraceArgs {
    pub fn run(&self, global: &Global) -> Result<()> {
        match global.dtype {
            Dtype::F32 => self.run_as::<f32>(global),
            Dtype::F64 => self.run_as::<f64>(global),
        }
    }

    fn run_as<F: Scalar>(&self, global: &Global) -> Result<()> {
        in_range("--samples", self.samples, MOST_SAMPLES)?;
        for (name, n) in [("--window", self.window), ("--facts", self.facts)] {
            n.map_or(Ok(()), |n| in_range(name, n, MOST))?;
        }
        if !(0.0..=MOST_NOISE).contains(&self.noise) {
            let why = format!("--noise is {}; expected a number from 0 to {MOST_NOISE:e}", self.noise);
            return Err(Unusable(why).into());
        }
        global.check_out_file(&[&self.task])?;
        global.out.as_deref().map_or(Ok("json"), |out| ending("--out", out, &FORMATS))?;
        let mut records = requests::read_known(&self.task).map_err(|error| {
            if is_empty_file(&error) {
                let place = self.task.display();
                return Unusable(format!("{place}: has no facts; expected at least one")).into();
            }
            anyhow::Error::from(error)
        })?;
        let most = self.facts.unwrap_or(usize::MAX);
        records.usable.retain(|(record, _)| *record < most);
        records.skipped.retain(|skipped| skipped.record < most);
        let Checkpoint { model, tokenizer } = global.checkpoint::<F>()?;
        let before = self.bos.then(|| tokenizer.end_of_text()).transpose()?;
        let mut skipped = SkippedRecords::new(&self.task, records.skipped);
        let mut facts = Vec::with_capacity(records.usable.len());
        for (record, text) in records.usable {
            let fact = traceable(&model, &tokenizer, &text, before);
            match fact {
                Ok(fact) => facts.push(fact),
                Err(error) => skipped.add(record, Some(text.case_id), &error),
            }
        }
        skipped.report(facts.len(), self.strict)?;
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
            let mut provenance = json!({
                "model_sha256": model.sha256(), "seed": global.seed, "version": env!("CARGO_PKG_VERSION"),
            });
            if self.bos {
                provenance["bos"] = true.into();
            }
            if ending("--out", out, &FORMATS)? == "svg" {
                let records = Records { tracing: Some(record.clone()), ..Records::default() };
                let map = figures::tracing(&records).into_iter().next().expect("there are facts");
                write_atomically(out, report::draw(&map).as_bytes())?;
            } else {
                let text =
                    serde_json::to_string_pretty(&json!({ "provenance": provenance, "tracing": record }))?;
                write_atomically(out, format!("{text}\n").as_bytes())?;
            }
        }
        print(&record, &skipped, global.json)
    }
}

/// A fact of the file as tokens. One with a longer answer is kept when the model does not even begin it, which makes it
/// a fact that the model does not know.
fn traceable<F: Scalar>(
    model: &Gpt2<F>,
    tokenizer: &Tokenizer,
    text: &KnownText,
    before: Option<u32>,
) -> Result<KnownFact> {
    let KnownText { prompt, subject, attribute, .. } = text;
    let answer = tokenizer.encode_some("attribute", &format!(" {attribute}"))?;
    let (prompt, subject) = tokenizer.locate(prompt, subject.clone())?;
    let mut fact = KnownFact { prompt, subject, answer: answer[0] };
    if let Some(token) = before {
        fact = fact.after(token);
    }
    fact.fits(model.config())?;
    if answer.len() > 1 && fact.is_known(model)? {
        let n = answer.len();
        return Err(
            Unusable(format!("attribute {attribute:?} is {n} tokens; expected one, to be traced")).into()
        );
    }
    Ok(fact)
}

fn print(record: &TracingRecord, skipped: &SkippedRecords, json: bool) -> Result<()> {
    use std::io::Write;
    let mut out = super::output::stdout();
    if json {
        writeln!(out, "{}", serde_json::to_string(record)?)?;
        if let Some(skipped) = skipped.json() {
            writeln!(out, "{}", json!({ "skipped": skipped }))?;
        }
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
