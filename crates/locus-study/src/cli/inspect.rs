//! `locus inspect`: a prompt looked at, as a terminal table, JSON and one HTML page.

use std::io::Write;

use anyhow::Result;
use clap::Args;
use locus_gpt2::internal::write_atomically;
use locus_gpt2::{Checkpoint, Config, Scalar, Tokenizer};

use super::error::{Unusable, in_range};
use super::global::{Dtype, Global};
use super::output::{note, one_line};
use super::prompt::PromptOptions;
use crate::protocol::{Candidate, Inspection, Question, inspect};
use crate::report::{InspectedPrompt, InspectedToken, component_name, inspection_page};

/// Largest number of continuations.
const MOST: usize = 1000;
/// Number of components that the terminal shows, by the size of what they add.
const COMPONENTS: usize = 12;
/// Number of keys that the terminal shows for a head.
const KEYS: usize = 5;

#[derive(Debug, Args)]
#[group(skip)]
pub struct Inspect {
    #[command(flatten)]
    prompt: PromptOptions,
    /// Text whose first token is asked about; begin it with its space [default: the likeliest continuation]
    #[arg(long, value_name = "TEXT")]
    target: Option<String>,
    /// Text whose first token the target is compared with [default: the mean logit of all tokens]
    #[arg(long, value_name = "TEXT")]
    against: Option<String>,
    /// Heads whose attention is shown, as LAYER.HEAD counted from 0 [default: the four that add most to the target]
    #[arg(long, value_delimiter = ',', value_name = "LAYER.HEAD")]
    heads: Vec<String>,
    /// Number of continuations
    #[arg(long, default_value_t = 10, value_name = "K")]
    top: usize,
}

impl Inspect {
    pub fn run(&self, global: &Global) -> Result<()> {
        match global.dtype {
            Dtype::F32 => self.run_as::<f32>(global),
            Dtype::F64 => self.run_as::<f64>(global),
        }
    }

    fn run_as<F: Scalar>(&self, global: &Global) -> Result<()> {
        in_range("--top", self.top, MOST)?;
        let as_page = match &global.out {
            None => false,
            Some(out) => match out.extension().and_then(|extension| extension.to_str()) {
                Some("html") => true,
                Some("json") => false,
                _ => {
                    let why = format!("--out {}: expected a name that ends in .html or .json", out.display());
                    return Err(Unusable(why).into());
                }
            },
        };
        global.check_out_file(&self.prompt.inputs())?;
        let checkpoint = global.checkpoint::<F>()?;
        let Checkpoint { model, tokenizer } = &checkpoint;
        let heads = self.heads(model.config())?;
        let tokens = self.prompt.tokens(&checkpoint)?;
        let token =
            |name: &str, text: &Option<String>| text.as_ref().map(|text| first_token(tokenizer, name, text));
        let text = |token: u32| tokenizer.decode(&[token]).unwrap_or_else(|_| format!("<{token}>"));
        let mut question = Question {
            prompt: &tokens,
            target: token("target", &self.target).transpose()?,
            against: token("against", &self.against).transpose()?,
            heads: (!heads.is_empty()).then_some(&heads[..]),
            top: self.top,
            text: &text,
        };
        let patched = self.prompt.patched(model)?;
        let before = inspect(model, &question)?;
        // Both sides answer one question.
        let chosen: Vec<(usize, usize)> = before.attention.iter().map(|one| (one.layer, one.head)).collect();
        (question.target, question.heads) = (Some(before.target.id), Some(chosen.as_slice()));
        let after = patched.as_ref().map(|model| inspect(model, &question)).transpose()?;
        let inspected = InspectedPrompt {
            provenance: self.prompt.provenance(global, model)?,
            prompt: self.prompt.prompt.clone(),
            tokens: tokens.iter().map(|&id| InspectedToken { id, text: text(id) }).collect(),
            before,
            after,
        };
        let json = serde_json::to_string(&inspected)?;
        if let Some(out) = &global.out {
            let file = if as_page { inspection_page(&inspected) } else { format!("{json}\n") };
            write_atomically(out, file.as_bytes())?;
        }
        match global.json {
            true => writeln!(super::output::stdout(), "{json}")?,
            false => print(&inspected)?,
        }
        Ok(())
    }

    /// The heads of `--heads`, each of which the model has.
    fn heads(&self, config: &Config) -> Result<Vec<(usize, usize)>> {
        let head = |text: &String| -> Result<(usize, usize)> {
            let number = |text: &str| text.trim().parse::<usize>().ok();
            let parsed = text.split_once('.').and_then(|(layer, head)| Some((number(layer)?, number(head)?)));
            match parsed {
                Some((layer, head)) if layer < config.n_layer && head < config.n_head => Ok((layer, head)),
                _ => {
                    let (layer, head) = (config.n_layer - 1, config.n_head - 1);
                    let why = format!(
                        "--heads: {text:?} is no head of the model; expected LAYER.HEAD from 0.0 to {layer}.{head}"
                    );
                    Err(Unusable(why).into())
                }
            }
        };
        self.heads.iter().map(head).collect()
    }
}

/// The first token of a text; says so when there are more.
fn first_token(tokenizer: &Tokenizer, name: &str, text: &str) -> Result<u32> {
    let tokens = tokenizer.encode_some(name, text)?;
    if tokens.len() > 1 {
        let first = tokenizer.decode(&tokens[..1])?;
        note(&format!("--{name} {text:?} is {} tokens; the first, {first:?}, is looked at", tokens.len()));
    }
    Ok(tokens[0])
}

/// A token's text in quotes, on one line.
fn quoted(text: &str) -> String {
    one_line(&format!("{text:?}"))
}

/// The terminal's view; what came after a patch stands to the right.
fn print(inspected: &InspectedPrompt) -> Result<()> {
    let InspectedPrompt { tokens, before, after, .. } = inspected;
    let sides: Vec<&Inspection> = [before].into_iter().chain(after).collect();
    let mut out = super::output::stdout();
    let words: Vec<String> = tokens.iter().map(|token| quoted(&token.text)).collect();
    writeln!(out, "{} tokens: {}", tokens.len(), words.join(" "))?;
    if sides.len() == 2 {
        writeln!(out, "left: the model; right: with the patch")?;
    }

    writeln!(out, "\nContinuations")?;
    for i in 0..before.next.len() {
        let cells: Vec<String> = sides.iter().map(|side| likely(&side.next[i])).collect();
        writeln!(out, "{:>4}  {}", i + 1, cells.join("   "))?;
    }

    let against = match &before.against {
        Some(other) => {
            format!("logit of {} minus that of {}", quoted(&before.target.text), quoted(&other.text))
        }
        None => format!("logit of {} minus the mean logit", quoted(&before.target.text)),
    };
    writeln!(out, "\nLogit lens at the last token; difference: {against}")?;
    let head = format!("{:<28} {:>9} {:>6} {:>10}", "likeliest", "P(target)", "rank", "difference");
    writeln!(out, "layer {}", vec![head; sides.len()].join("   "))?;
    for layer in 0..before.lens.len() {
        let cell = |side: &&Inspection| {
            let lens = &side.lens[layer];
            let best = lens.likeliest.last().expect("a prompt has tokens");
            let share = format!("{:.4}", lens.probability);
            format!("{} {share:>9} {:>6} {:>+10.4}", likely(best), lens.rank, lens.logit_difference)
        };
        writeln!(out, "{layer:>5} {}", sides.iter().map(cell).collect::<Vec<_>>().join("   "))?;
    }

    writeln!(out, "\nAttribution: what each component adds to the difference")?;
    let size = |i: usize| sides.iter().map(|side| side.attribution[i].value.abs()).fold(0.0, f64::max);
    let mut order: Vec<usize> = (0..before.attribution.len()).collect();
    order.sort_by(|&a, &b| size(b).total_cmp(&size(a)));
    let (shown, others) = order.split_at(COMPONENTS.min(order.len()));
    let mut line = |name: &str, parts: &[usize]| {
        let sum = |side: &&Inspection| {
            let sum: f64 = parts.iter().map(|&i| side.attribution[i].value).sum();
            format!("{sum:>+10.4}")
        };
        writeln!(out, "  {name:<22} {}", sides.iter().map(sum).collect::<Vec<_>>().join("   "))
    };
    for &i in shown {
        line(&component_name(&before.attribution[i]), &[i])?;
    }
    if !others.is_empty() {
        line(&format!("{} others", others.len()), others)?;
    }
    line("sum", &order)?;

    writeln!(out, "\nAttention of the last token, by the keys it looks at most")?;
    for i in 0..before.attention.len() {
        for (side, mark) in sides.iter().zip(["", "*"]) {
            let pattern = &side.attention[i];
            let row = pattern.weights.last().expect("a prompt has tokens");
            let mut keys: Vec<usize> = (0..row.len()).collect();
            keys.sort_by(|&a, &b| row[b].total_cmp(&row[a]));
            let key = |&key: &usize| format!("{} {:.3}", words[key], row[key]);
            let keys: Vec<String> = keys.iter().take(KEYS).map(key).collect();
            let name = format!("{}.{}{mark}", pattern.layer, pattern.head);
            writeln!(out, "  {name:<7} {}", keys.join("  "))?;
        }
    }
    if sides.len() == 2 {
        writeln!(out, "  *: with the patch")?;
    }
    Ok(())
}

/// A token with its probability, 28 columns wide.
fn likely(candidate: &Candidate) -> String {
    let text: String = quoted(&candidate.text).chars().take(19).collect();
    format!("{text:<19} {:>8.4}", candidate.probability)
}
