//! `locus edit`: writes one or many requests and measures them before and after.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use locus_data::EditRequest;
use locus_data::seed::stream;
use locus_editors::Patch;
use locus_gpt2::{Checkpoint, ParamMask, Scalar};
use serde::Serialize;

use super::destination::{check_folder, lock_file, lock_folder};
use super::editors::{ChosenEditor, EditorArgs};
use super::error::Unusable;
use super::global::{Dtype, Global};
use crate::protocol::{self, Group, PreparedRequest, Written, write_groups};

#[derive(Debug, Args)]
pub struct EditArgs {
    #[command(flatten)]
    editor: EditorArgs,
    /// JSON file of requests (CounterFact layout, zsRE or EasyEdit's flat one)
    #[arg(long, value_name = "FILE", required_unless_present = "print_config")]
    requests: Option<PathBuf>,
    /// Parameter mask of a circuit (safetensors)
    #[arg(long, value_name = "FILE")]
    mask: Option<PathBuf>,
    /// Parameters that may change
    #[arg(long, value_enum, default_value_t = ScopeName::Full)]
    scope: ScopeName,
    /// Set every block parameter outside the scope to zero first, as the study does
    #[arg(long)]
    isolate: bool,
    /// Write all requests into one model and one patch: together (MEMIT, fine-tuning) or in turn (ROME, study-ft)
    #[arg(long)]
    together: bool,
    /// Write patches as dense tensors instead of low-rank factors
    #[arg(long)]
    dense: bool,
    /// Print the editor's constants with their defaults and stop
    #[arg(long)]
    print_config: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ScopeName {
    /// The parameters of the mask
    Circuit,
    /// The block parameters outside the mask
    Complement,
    /// All parameters
    Full,
    /// As many random block parameters as the mask has
    Random,
}

/// One request in the output; NLLs are per token, in nats.
#[derive(Serialize)]
struct Outcome {
    case_id: u64,
    pre_new: f64,
    pre_true: f64,
    post_new: f64,
    post_true: f64,
    steps: usize,
    /// Whether the new target is no likelier than before.
    failed: bool,
    /// Norms, denominators and residuals of the method.
    #[serde(skip_serializing_if = "serde_json::Map::is_empty")]
    measures: serde_json::Map<String, serde_json::Value>,
}

impl From<Written> for Outcome {
    fn from(written: Written) -> Self {
        let Written { case_id, pre_new, pre_true, post_new, post_true, steps, measures } = written;
        let failed = post_new.is_nan() || post_new >= pre_new;
        let measures = measures.into_iter().map(|(name, value)| (name, value.into())).collect();
        Outcome { case_id, pre_new, pre_true, post_new, post_true, steps, failed, measures }
    }
}

impl EditArgs {
    pub fn run(&self, global: &Global) -> Result<()> {
        let chosen = self.editor.chosen(global)?;
        if self.print_config {
            use std::io::Write;
            global.refuse_out("--print-config prints the constants")?;
            super::output::stdout().write_all(chosen.print()?.as_bytes())?;
            return Ok(());
        }
        match global.dtype {
            Dtype::F32 => self.run_as::<f32>(global, &chosen),
            Dtype::F64 => self.run_as::<f64>(global, &chosen),
        }
    }

    fn run_as<F: Scalar>(&self, global: &Global, chosen: &ChosenEditor) -> Result<()> {
        let path = self.requests.as_deref().expect("clap asks for it");
        let requests = locus_data::requests::read(path)?;
        let together = self.together || chosen.writes_many();
        self.check_out(global, path, if together { &requests[..requests.len().min(1)] } else { &requests })?;
        let checkpoint = global.checkpoint::<F>()?;
        let mask = self.mask(&checkpoint, global.seed)?;
        let place = || path.display().to_string();
        let prepared: Vec<PreparedRequest> = requests
            .iter()
            .map(|request| PreparedRequest::new(&checkpoint.tokenizer, request))
            .collect::<Result<_>>()
            .with_context(place)?;
        for request in &prepared {
            request.nll(&checkpoint.model).with_context(place)?;
        }
        let facts = chosen.facts(&checkpoint, &requests, &prepared, global.seed).with_context(place)?;
        let editor = chosen.editor(&self.editor, global, &checkpoint)?;
        let start = match &mask {
            Some(mask) if self.isolate => mask.ablate_complement(&checkpoint.model),
            _ => checkpoint.model.clone(),
        };
        let groups: Vec<Group> = if together {
            vec![(prepared.as_slice(), facts.as_slice())]
        } else {
            prepared.chunks(1).zip(facts.chunks(1)).collect()
        };
        let provenance = chosen.provenance()?;
        let lock = |out: &PathBuf| if groups.len() == 1 { lock_file(out) } else { lock_folder(out) };
        let _lock = global.out.as_ref().map(lock).transpose()?;
        let stage = global.progress().stage("edits", groups.len());
        let mask = mask.as_ref();
        let done = |requests: &[PreparedRequest], outcome: protocol::Outcome<F>| -> Result<()> {
            match (outcome, &global.out) {
                (Err(why), _) => {
                    super::output::note(&format!("request {}: {why}", requests[0].case_id));
                }
                (Ok((patch, edited)), Some(out)) if patch.deltas().next().is_some() => {
                    let path = patch_path(out, groups.len(), requests[0].case_id);
                    let provenance = serde_json::json!({
                        "editor": editor.name(), "constants": provenance,
                        "case_ids": requests.iter().map(|request| request.case_id).collect::<Vec<_>>(),
                        "isolated": self.isolate, "mask_sha256": mask.map(ParamMask::sha256),
                        "seed": global.seed, "version": env!("CARGO_PKG_VERSION"),
                    });
                    let patch = if self.dense { Patch::between(&start, edited) } else { patch };
                    patch.write(&path, start.config(), &provenance)?;
                }
                _ => {}
            }
            stage.inc();
            Ok(())
        };
        let written = write_groups(&start, editor.as_ref(), &groups, mask, &done)?;
        stage.finish();
        let outcomes: Vec<Outcome> = written.into_iter().map(Outcome::from).collect();
        print_outcomes(&outcomes, global.json)?;
        let failed: Vec<String> =
            outcomes.iter().filter(|o| o.failed).map(|o| o.case_id.to_string()).collect();
        anyhow::ensure!(
            failed.is_empty(),
            "{} of {} edits failed; their new target is no likelier than before: {}",
            failed.len(),
            outcomes.len(),
            failed.join(", ")
        );
        Ok(())
    }

    /// Checks, before any work, that patches can be written to `--out`: one file or, for several `patches`, a folder.
    fn check_out(&self, global: &Global, requests: &Path, patches: &[EditRequest]) -> Result<()> {
        let Some(out) = &global.out else { return Ok(()) };
        let inputs: Vec<&Path> =
            [requests].into_iter().chain(self.mask.as_deref()).chain(self.editor.inputs()).collect();
        if patches.len() > 1 {
            if out.extension().is_some_and(|extension| extension == "safetensors") && !out.is_dir() {
                let n = patches.len();
                let why = format!(
                    "--out {}: {n} patches need a folder; expected its name, or --together",
                    out.display()
                );
                return Err(Unusable(why).into());
            }
            check_folder("--out", out, &[], &[])?;
        }
        for request in patches {
            let path = patch_path(out, patches.len(), request.case_id);
            // In a folder that can be written to, only what is there already can be in the way.
            if patches.len() == 1 || path.exists() {
                global.check_file("--out", &path, &inputs)?;
            }
        }
        Ok(())
    }

    /// The scope as a mask; `None` means every parameter.
    fn mask<F: Scalar>(&self, checkpoint: &Checkpoint<F>, seed: u64) -> Result<Option<ParamMask>> {
        let config = checkpoint.model.config();
        let Some(path) = &self.mask else {
            return match self.scope {
                ScopeName::Full if self.isolate => {
                    Err(Unusable("--isolate needs --mask FILE and a --scope other than full".into()).into())
                }
                ScopeName::Full => Ok(None),
                _ => Err(Unusable("this --scope needs --mask FILE".into()).into()),
            };
        };
        if self.scope == ScopeName::Full {
            let why = "--mask has no effect with --scope full; expected circuit, complement or random";
            return Err(Unusable(why.into()).into());
        }
        let mask = ParamMask::read_for(path, &checkpoint.model)?;
        Ok(match self.scope {
            ScopeName::Circuit => Some(mask),
            ScopeName::Complement => Some(mask.complement()),
            ScopeName::Random => {
                Some(ParamMask::random(config, mask.count(), &mut stream(seed, "random scope", 0)))
            }
            ScopeName::Full => unreachable!("refused above"),
        })
    }
}

/// Path of a request's patch: the file itself for a single request, a file per case in a folder for several.
fn patch_path(out: &Path, n: usize, case_id: u64) -> PathBuf {
    if n == 1 { out.to_owned() } else { out.join(format!("{case_id}.safetensors")) }
}

fn print_outcomes(outcomes: &[Outcome], json: bool) -> Result<()> {
    use std::io::Write;
    let mut out = super::output::stdout();
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
            "{:>8} {:>10.4} {:>10.4} {:>10.4} {:>10.4} {:>6}{}",
            o.case_id,
            o.pre_new,
            o.post_new,
            o.pre_true,
            o.post_true,
            o.steps,
            if o.failed { "  failed" } else { "" }
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
