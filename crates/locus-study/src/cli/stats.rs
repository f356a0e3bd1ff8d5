//! `locus stats`: collects second moments of MLP keys over a text.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;
use locus_editors::KeyStatistics;
use locus_files::sha256;
use locus_gpt2::{Checkpoint, Scalar};
use serde_json::{Value, json};

use super::destination::lock_file;
use super::error::{OVERFLOW, Unusable, in_range};
use super::global::{Dtype, Global};
use locus_editors::token_lines;

/// Largest number of tokens that key statistics are asked for; a text is held in memory, 4 bytes a token.
pub const MOST_TOKENS: usize = 1_000_000_000;

/// Time between writes of the state, so that little is lost when the run is interrupted.
const CHECKPOINT: Duration = Duration::from_secs(60);

#[derive(Debug, Args)]
#[group(skip)]
pub struct Stats {
    /// Text to collect from; each line is a sequence
    #[arg(long, value_name = "FILE")]
    text: PathBuf,
    /// Layers, counted from 0; all are collected in one pass
    #[arg(long, value_delimiter = ',', required = true, value_name = "N,...")]
    layers: Vec<usize>,
    /// Minimum number of tokens to read from --text (the text may have fewer)
    #[arg(long, default_value_t = 100_000, value_name = "N")]
    tokens: usize,
    /// Resume an earlier run from the file of --out
    #[arg(long)]
    resume: bool,
}

impl Stats {
    pub fn run(&self, global: &Global) -> Result<()> {
        match global.dtype {
            Dtype::F32 => self.run_as::<f32>(global),
            Dtype::F64 => self.run_as::<f64>(global),
        }
    }

    fn run_as<F: Scalar>(&self, global: &Global) -> Result<()> {
        let Some(out) = &global.out else {
            return Err(Unusable("stats needs --out FILE to write to".into()).into());
        };
        in_range("--tokens", self.tokens, MOST_TOKENS)?;
        global.check_out_file(&[&self.text])?;
        if out.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("npz")) {
            // `edit --stats` would take it for the statistics published with ROME.
            let why = format!(
                "--out {}: statistics are written as safetensors; expected another ending",
                out.display()
            );
            return Err(Unusable(why).into());
        }
        let checkpoint = global.checkpoint::<F>()?;
        let text = tokenise(&checkpoint, &self.text, self.tokens)?;
        let bytes: Vec<u8> = text.iter().flatten().flat_map(|token| token.to_le_bytes()).collect();
        let provenance = json!({
            "model_sha256": checkpoint.model.sha256(), "tokens_sha256": sha256(&bytes),
            "site": "input of mlp.c_proj, all positions", "version": env!("CARGO_PKG_VERSION"),
        });
        let mut statistics = KeyStatistics::empty(&checkpoint.model, &self.layers)?;
        let _lock = lock_file(out)?;
        let resumed = self.resume && out.exists();
        if resumed {
            let (found, of) = KeyStatistics::read(out)?;
            if of != provenance || !found.layers.keys().eq(statistics.layers.keys()) {
                let why = format!(
                    "{}: was collected with another model, text or set of layers; cannot resume it",
                    out.display()
                );
                return Err(Unusable(why).into());
            }
            statistics = found;
        }
        let stage = global.progress().stage("key statistics", text.len());
        let (mut done, mut written) = (0, Instant::now());
        let mut failed = None;
        statistics
            .collect(&checkpoint.model, &text, &mut |now| {
                (done..now.sequences).for_each(|_| stage.inc());
                done = now.sequences;
                if written.elapsed() > CHECKPOINT {
                    written = Instant::now();
                    failed = written_whole(now, out, &provenance).err();
                }
                failed.is_none()
            })
            .with_context(|| (if resumed { out } else { &self.text }).display().to_string())?;
        stage.finish();
        if let Some(error) = failed {
            return Err(error);
        }
        written_whole(&statistics, out, &provenance)?;
        print(&statistics, global.json)
    }
}

/// Writes statistics, all of which must be numbers.
fn written_whole(statistics: &KeyStatistics, out: &Path, provenance: &Value) -> Result<()> {
    let of_keys = statistics.layers.iter().filter(|(_, moments)| moments.count() > 0);
    for (layer, moments) in of_keys {
        if let Some(found) = moments.mean().iter().find(|x| !x.is_finite()) {
            bail!("layer {layer}: a moment is {found}; {OVERFLOW}");
        }
    }
    Ok(statistics.write(out, provenance)?)
}

/// Lines of a text as tokens, each cut to the model's context, up to and with the line that reaches `tokens` tokens.
pub fn tokenise<F: Scalar>(checkpoint: &Checkpoint<F>, path: &Path, tokens: usize) -> Result<Vec<Vec<u32>>> {
    let text = locus_files::read_to_string(path).map_err(|e| Unusable(format!("{}: {e}", path.display())))?;
    let lines = token_lines(checkpoint, &text, tokens).with_context(|| path.display().to_string())?;
    if lines.is_empty() {
        return Err(Unusable(format!("{}: has no text; expected lines of it", path.display())).into());
    }
    Ok(lines)
}

/// Prints for each layer the number of keys, and how far the two halves of the text agree on `C^-1 k` for a typical
/// key.
fn print(statistics: &KeyStatistics, json: bool) -> Result<()> {
    const RIDGE: f64 = 1e-5;
    use std::io::Write;
    let mut out = super::output::stdout();
    if !json {
        writeln!(out, "{:>5} {:>9} {:>8} {:>20}", "layer", "keys", "neurons", "agreement of halves")?;
    }
    for (layer, moments) in &statistics.layers {
        if moments.count() == 0 {
            return Err(Unusable(format!("no key of layer {layer} was seen")).into());
        }
        let mean = moments.mean();
        let neurons = mean.nrows();
        // A typical key: the root mean square of each neuron.
        let key: Vec<f64> = mean.diag().iter().map(|x| x.sqrt()).collect();
        let agreement = moments.agreement(RIDGE, &key)?;
        if json {
            let line = json!({ "layer": layer, "keys": moments.count(), "neurons": neurons, "agreement": agreement });
            writeln!(out, "{line}")?;
        } else {
            let agreement = agreement.map_or_else(|| "-".into(), |cosine| format!("{cosine:.4}"));
            writeln!(out, "{layer:>5} {:>9} {neurons:>8} {agreement:>20}", moments.count())?;
        }
    }
    Ok(())
}
