//! `locus edit`: one or many requests, before and after.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use locus_data::seed::stream;
use locus_editors::StudyFineTuning;
use locus_gpt2::{Checkpoint, ParamMask, Scalar};
use rayon::prelude::*;
use serde::Serialize;

use super::Unusable;
use super::global::{Dtype, Global};
use crate::protocol::PreparedRequest;

#[derive(Debug, Args)]
pub struct Edit {
    /// How the edit is made
    #[arg(long, value_enum)]
    editor: EditorName,
    /// JSON file of requests (CounterFact layout or EasyEdit's flat one)
    #[arg(long, value_name = "FILE", required_unless_present = "print_config")]
    requests: Option<PathBuf>,
    /// Parameter mask of a circuit (safetensors)
    #[arg(long, value_name = "FILE")]
    mask: Option<PathBuf>,
    /// Which parameters may change
    #[arg(long, value_enum, default_value_t = EditScope::Full)]
    scope: EditScope,
    /// Set every block parameter outside the scope to zero first, as the study does
    #[arg(long)]
    isolate: bool,
    /// The editor's constants, TOML or JSON; see --print-config
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print the editor's constants with their defaults and stop
    #[arg(long)]
    print_config: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum EditorName {
    /// The study's fine-tuning: SGD with every parameter clamped near its start
    StudyFt,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum EditScope {
    /// The parameters of the mask
    Circuit,
    /// The block parameters outside the mask
    Complement,
    /// All parameters
    Full,
    /// As many random block parameters as the mask has
    Random,
}

/// One request, NLL per token in nats.
#[derive(Serialize)]
struct Outcome {
    case_id: u64,
    pre_new: f64,
    pre_true: f64,
    post_new: f64,
    post_true: f64,
    steps: usize,
}

impl Edit {
    pub fn run(&self, global: &Global) -> Result<()> {
        let editor = self.editor()?;
        if self.print_config {
            print!("{}", toml::to_string(&editor)?);
            return Ok(());
        }
        match global.dtype {
            Dtype::F32 => self.run_as::<f32>(global, &editor),
            Dtype::F64 => self.run_as::<f64>(global, &editor),
        }
    }

    fn editor(&self) -> Result<StudyFineTuning> {
        let Some(path) = &self.config else { return Ok(StudyFineTuning::default()) };
        let text = std::fs::read_to_string(path).map_err(|e| Unusable(format!("{}: {e}", path.display())))?;
        // TOML's messages span several lines; the first names the problem.
        let parsed: Result<StudyFineTuning, String> = if path.extension().is_some_and(|ext| ext == "json") {
            serde_json::from_str(&text).map_err(|e| e.to_string())
        } else {
            toml::from_str(&text).map_err(|e| e.message().to_owned())
        };
        let editor = parsed.map_err(|why| Unusable(format!("{}: {why}", path.display())))?;
        editor.check().with_context(|| path.display().to_string())?;
        Ok(editor)
    }

    fn run_as<F: Scalar>(&self, global: &Global, editor: &StudyFineTuning) -> Result<()> {
        let path = self.requests.as_deref().expect("clap asks for it");
        let requests = locus_data::requests::read(path)?;
        let checkpoint = global.checkpoint::<F>()?;
        let mask = self.mask(&checkpoint, global.seed)?;
        let prepared: Vec<PreparedRequest> = requests
            .iter()
            .map(|request| PreparedRequest::new(&checkpoint, request))
            .collect::<Result<_>>()
            .with_context(|| path.display().to_string())?;
        for request in &prepared {
            request.nll(&checkpoint.model).with_context(|| path.display().to_string())?;
        }
        let start = match &mask {
            Some(mask) if self.isolate => mask.isolate(&checkpoint.model),
            _ => checkpoint.model.clone(),
        };
        let stage = global.progress().stage("edits", prepared.len());
        let outcomes: Vec<Outcome> = prepared
            .par_iter()
            .map(|request| {
                let (pre_new, pre_true) = request.nll(&start)?;
                let (edited, report) = editor.fine_tune(&start, &request.token_request(), mask.as_ref())?;
                let (post_new, post_true) = request.nll(&edited)?;
                if let Some(out) = &global.out {
                    let path = patch_path(out, prepared.len(), request.case_id);
                    let provenance = serde_json::json!({
                        "editor": "study-ft", "constants": editor, "case_id": request.case_id,
                        "isolated": self.isolate, "mask_sha256": mask.as_ref().map(ParamMask::sha256),
                        "version": env!("CARGO_PKG_VERSION"),
                    });
                    locus_editors::Patch::between(&start, &edited).write(
                        &path,
                        start.config(),
                        &provenance,
                    )?;
                }
                stage.inc();
                Ok(Outcome {
                    case_id: request.case_id,
                    pre_new,
                    pre_true,
                    post_new,
                    post_true,
                    steps: report.steps,
                })
            })
            .collect::<Result<_>>()?;
        stage.finish();
        print_outcomes(&outcomes, global.json)
    }

    /// The scope as a mask; `None` is every parameter.
    fn mask<F: Scalar>(&self, checkpoint: &Checkpoint<F>, seed: u64) -> Result<Option<ParamMask>> {
        let config = checkpoint.model.config();
        let Some(path) = &self.mask else {
            return match self.scope {
                EditScope::Full if self.isolate => {
                    Err(Unusable("--isolate needs --mask FILE and a --scope other than full".into()).into())
                }
                EditScope::Full => Ok(None),
                _ => Err(Unusable("this --scope needs --mask FILE".into()).into()),
            };
        };
        if self.scope == EditScope::Full {
            let why = "--mask has no effect with --scope full; expected circuit, complement or random";
            return Err(Unusable(why.into()).into());
        }
        let mask = ParamMask::read(path, config)?;
        Ok(match self.scope {
            EditScope::Circuit => Some(mask),
            EditScope::Complement => Some(mask.complement()),
            EditScope::Random => {
                Some(ParamMask::random(config, mask.count(), &mut stream(seed, "random scope", 0)))
            }
            EditScope::Full => unreachable!("refused above"),
        })
    }
}

/// The file for a single request, a file per case in a folder for many.
fn patch_path(out: &Path, n: usize, case_id: u64) -> PathBuf {
    if n == 1 { out.to_owned() } else { out.join(format!("{case_id}.safetensors")) }
}

fn print_outcomes(outcomes: &[Outcome], json: bool) -> Result<()> {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    if json {
        for outcome in outcomes {
            writeln!(out, "{}", serde_json::to_string(outcome)?)?;
        }
        return Ok(());
    }
    writeln!(out, "NLL per token (nats)")?;
    writeln!(
        out,
        "{:>8} {:>10} {:>10} {:>10} {:>10} {:>6}",
        "case", "new", "-> after", "true", "-> after", "steps"
    )?;
    for o in outcomes {
        writeln!(
            out,
            "{:>8} {:>10.4} {:>10.4} {:>10.4} {:>10.4} {:>6}",
            o.case_id, o.pre_new, o.post_new, o.pre_true, o.post_true, o.steps
        )?;
    }
    let mean = |of: fn(&Outcome) -> f64| outcomes.iter().map(of).sum::<f64>() / outcomes.len().max(1) as f64;
    writeln!(
        out,
        "{:>8} {:>10.4} {:>10.4} {:>10.4} {:>10.4}",
        "mean",
        mean(|o| o.pre_new),
        mean(|o| o.post_new),
        mean(|o| o.pre_true),
        mean(|o| o.post_true)
    )?;
    Ok(())
}
