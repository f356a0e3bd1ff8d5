//! `locus generate`: a continuation of a prompt.

use std::io::Write;

use anyhow::{Result, bail};
use clap::Args;
use locus_gpt2::{Batch, Sampling, Scalar};
use serde_json::json;

use super::error::{OVERFLOW, Unusable, in_range};
use super::global::{Dtype, Global};
use super::output::{is_control, note};
use super::prompt::PromptOptions;

/// Largest number of tokens asked for; the context is the other limit.
const MOST_TOKENS: usize = 1_000_000;
/// Range of temperatures: single precision tells no more apart on either side.
const TEMPERATURES: (f64, f64) = (1e-4, 1e4);

#[derive(Debug, Args)]
#[group(skip)]
pub struct Generate {
    #[command(flatten)]
    prompt: PromptOptions,
    /// Largest number of tokens; the end-of-text token and the end of the context end it earlier
    #[arg(long, default_value_t = 20, value_name = "N")]
    tokens: usize,
    /// Divides the logits before a token is drawn; 0 takes the likeliest token at each step
    #[arg(long, default_value_t = 0.0, value_name = "T")]
    temperature: f64,
    /// Draw from the K likeliest tokens [default: all]
    #[arg(long, value_name = "K")]
    top_k: Option<usize>,
    /// Draw from the fewest tokens that have probability P together, after --temperature and --top-k [default: all]
    #[arg(long, value_name = "P")]
    top_p: Option<f64>,
}

impl Generate {
    pub fn run(&self, global: &Global) -> Result<()> {
        self.check()?;
        match global.dtype {
            Dtype::F32 => self.run_as::<f32>(global),
            Dtype::F64 => self.run_as::<f64>(global),
        }
    }

    fn check(&self) -> Result<()> {
        let refuse = |why: String| Err(Unusable(why).into());
        in_range("--tokens", self.tokens, MOST_TOKENS)?;
        self.top_k.map_or(Ok(()), |k| in_range("--top-k", k, MOST_TOKENS))?;
        let (least, most) = TEMPERATURES;
        if self.temperature != 0.0 && !(least..=most).contains(&self.temperature) {
            let found = self.temperature;
            return refuse(format!(
                "--temperature is {found}; expected 0, or a number from {least} to {most}"
            ));
        }
        if let Some(p) = self.top_p.filter(|p| !(*p > 0.0 && *p <= 1.0)) {
            return refuse(format!("--top-p is {p}; expected a share above 0 and at most 1"));
        }
        if self.temperature == 0.0 && (self.top_k.is_some() || self.top_p.is_some()) {
            let why =
                "--top-k and --top-p have no effect at --temperature 0, which takes the likeliest token";
            return refuse(why.into());
        }
        Ok(())
    }

    fn run_as<F: Scalar>(&self, global: &Global) -> Result<()> {
        let checkpoint = global.checkpoint::<F>()?;
        let prompt = self.prompt.tokens(&checkpoint)?;
        let provenance = self.prompt.provenance(global, &checkpoint.model)?;
        let model = self.prompt.patched(&checkpoint.model)?.unwrap_or(checkpoint.model);
        let (context, n) = (model.config().n_positions, prompt.len());
        let batch = Batch::new(model.config(), &[&prompt])?;
        if n == context {
            let why =
                format!("the prompt has {n} tokens, all that the model takes; expected at most {}", n - 1);
            return Err(Unusable(why).into());
        }
        let logits = model.run(&batch).reading(&batch.last_rows()).logits();
        if logits.iter().any(|logit| !logit.as_f64().is_finite()) {
            bail!("a logit is not finite; {OVERFLOW}");
        }
        let mut rng = locus_data::seed::stream(global.seed, "generate", 0);
        let sampling = match self.temperature {
            0.0 => Sampling::Greedy,
            temperature => Sampling::Draw {
                temperature,
                top_k: self.top_k.unwrap_or(usize::MAX),
                top_p: self.top_p.unwrap_or(1.0),
                rng: &mut rng,
            },
        };
        let mut tokens = model.generate(&prompt, self.tokens, sampling)?;
        let end = checkpoint.tokenizer.end_of_text().ok();
        let ended = tokens.iter().position(|token| Some(*token) == end);
        tokens.truncate(ended.unwrap_or(tokens.len()));
        let text = checkpoint.tokenizer.decode(&tokens)?;
        let ended = match ended {
            Some(_) => "end-of-text",
            None if tokens.len() < self.tokens => "context",
            None => "tokens",
        };
        let mut out = super::output::stdout();
        if global.json {
            let line = json!({
                "provenance": provenance, "seed": global.seed, "temperature": self.temperature,
                "top_k": self.top_k, "top_p": self.top_p, "prompt": self.prompt.prompt,
                "prompt_tokens": prompt, "text": text, "tokens": tokens, "ended_by": ended,
            });
            writeln!(out, "{line}")?;
            return Ok(());
        }
        writeln!(out, "{}", shown(&format!("{}{text}", self.prompt.prompt)))?;
        if ended == "context" {
            note(&format!(
                "the context of {context} tokens is full after {} of {}",
                tokens.len(),
                self.tokens
            ));
        }
        Ok(())
    }
}

/// Text with its lines and tabs, and what could move a terminal's cursor as escapes.
fn shown(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' | '\t' => shown.push(c),
            c if is_control(c) => shown.extend(c.escape_default()),
            c => shown.push(c),
        }
    }
    shown
}
