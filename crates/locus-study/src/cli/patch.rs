//! `locus patch`: look at patches, merge them, and write patched models.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use locus_editors::{Delta, EditHistory, Patch};
use locus_gpt2::internal::printable;
use locus_gpt2::{Checkpoint, Gpt2, Scalar, holds_model, write_edited_checkpoint};
use serde_json::json;

use super::destination::{check_folder, is_same};
use super::error::Unusable;
use super::global::{Dtype, Global};
use super::output::note;

#[derive(Debug, Args)]
pub struct PatchArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List what patches change and which weights they were made for
    List(Files),
    /// Apply patches to --model in the order given and write a checkpoint folder that differs from --model in weights
    /// alone. To undo the last patch, apply all but the last
    Apply(Apply),
    /// Write one patch that equals several applied in order
    Merge(Files),
}

#[derive(Debug, Args)]
struct Files {
    /// Patches (safetensors), in order
    #[arg(required = true, value_name = "FILE")]
    patches: Vec<PathBuf>,
}

#[derive(Debug, Args)]
struct Apply {
    #[command(flatten)]
    files: Files,
    /// Replace the model that --out holds
    #[arg(long)]
    force: bool,
}

impl PatchArgs {
    pub fn run(&self, global: &Global) -> Result<()> {
        match global.dtype {
            Dtype::F32 => self.run_as::<f32>(global),
            Dtype::F64 => self.run_as::<f64>(global),
        }
    }

    /// Checks the options that only some verbs take, and where they write.
    fn check(&self, files: &Files, global: &Global) -> Result<()> {
        let inputs: Vec<&Path> = files.patches.iter().map(PathBuf::as_path).collect();
        if global.json && !matches!(self.verb, Verb::List(_)) {
            return Err(Unusable("--json has no effect: only `patch list` prints".into()).into());
        }
        if matches!(self.verb, Verb::List(_)) {
            return global.refuse_out("`patch list` prints");
        }
        let Some(out) = &global.out else {
            return Err(Unusable("this needs --out PATH to write to".into()).into());
        };
        if matches!(self.verb, Verb::Merge(_)) {
            return global.check_out_file(&inputs);
        }
        check_folder("--out", out, &["config.json", "model.safetensors", "tokenizer.json"], &[])?;
        let force = matches!(&self.verb, Verb::Apply(Apply { force: true, .. }));
        check_destination(&global.model_folder()?, out, &inputs, force)
    }

    fn run_as<F: Scalar>(&self, global: &Global) -> Result<()> {
        let (Verb::List(files) | Verb::Apply(Apply { files, .. }) | Verb::Merge(files)) = &self.verb;
        self.check(files, global)?;
        // Verbs that write have been refused without --out.
        let out = global.out.as_deref().unwrap_or(Path::new("."));
        let Checkpoint { model, .. } = global.checkpoint::<F>()?;
        let patches: Vec<Patch<F>> = files
            .patches
            .iter()
            .map(|path| Patch::read(path, model.config()))
            .collect::<locus_editors::Result<_>>()?;
        match &self.verb {
            Verb::List(_) => list(files, &patches, &model, global.json),
            Verb::Apply(_) => {
                let history = stack(files, patches, model.clone())?;
                let provenance = json!({
                    "patches": files.patches.iter().map(|path| path.file_name().map(|n| n.to_string_lossy().into_owned())).collect::<Vec<_>>(),
                    "base_sha256": history.patches()[0].base_sha256(), "version": env!("CARGO_PKG_VERSION"),
                });
                let (from, models) = (global.model_folder()?, (&model, history.model()));
                if write_edited_checkpoint(&from, out, models, &provenance.to_string())? {
                    note("the model is stored in 16 bits, to which the changed weights were rounded");
                }
                Ok(())
            }
            Verb::Merge(_) => {
                let config = model.config().clone();
                let merged = stack(files, patches, model)?.merged().expect("clap asks for a patch");
                let provenance =
                    json!({ "merged": files.patches.len(), "version": env!("CARGO_PKG_VERSION") });
                Ok(merged.write(out, &config, &provenance)?)
            }
        }
    }
}

/// Refuses a destination that is, holds or lies in the folder of the model; that is a file; where a patch would be
/// overwritten; or that holds a model or files of the same names, unless they may be replaced.
fn check_destination(model: &Path, out: &Path, patches: &[&Path], force: bool) -> Result<()> {
    let shown = out.display();
    if out.exists() && !out.is_dir() {
        return Err(
            Unusable(format!("--out {shown} is a file; expected a folder, which need not exist")).into()
        );
    }
    // A model folder that is absent is reported when it is read.
    if let (Ok(from), Ok(to)) = (model.canonicalize(), resolved(out))
        && (to.starts_with(&from) || from.starts_with(&to))
    {
        let why = format!("--out {shown} would overwrite the model; expected a folder apart from --model");
        return Err(Unusable(why).into());
    }
    if !force && holds_model(out) {
        let why =
            format!("--out {shown} holds a model already; expected another folder, or --force to replace it");
        return Err(Unusable(why).into());
    }
    let replaced = common_files(model, out);
    if let Some(patch) = patches.iter().find(|patch| replaced.iter().any(|file| is_same(file, patch))) {
        let why =
            format!("--out {shown} would overwrite the patch {}; expected another folder", patch.display());
        return Err(Unusable(why).into());
    }
    if let Some(file) = replaced.first().filter(|_| !force) {
        let why = format!(
            "--out {shown} has a file that the model has, too: {}; expected another folder, or --force to replace it",
            file.display()
        );
        return Err(Unusable(why).into());
    }
    Ok(())
}

/// Files of a folder, hidden ones aside, that have the names of files in the model's.
fn common_files(model: &Path, folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(model) else { return Vec::new() };
    let mut names: Vec<_> = entries.flatten().map(|entry| entry.file_name()).collect();
    names.retain(|name| !name.as_encoded_bytes().starts_with(b"."));
    names.sort();
    let common = names.iter().map(|name| (model.join(name), folder.join(name)));
    common
        .flat_map(|(of_model, other)| match of_model.is_dir() {
            true => common_files(&of_model, &other),
            false => Vec::from_iter(other.exists().then_some(other)),
        })
        .collect()
}

/// The path that a file or folder has or would have, without links and dots.
fn resolved(path: &Path) -> std::io::Result<PathBuf> {
    let path = std::path::absolute(path)?;
    match path.canonicalize() {
        Ok(path) => Ok(path),
        Err(why) => match (path.parent(), path.file_name()) {
            (Some(parent), Some(name)) => Ok(resolved(parent)?.join(name)),
            // Ends in dots, or is a root that cannot be read.
            (Some(parent), None) => Ok(resolved(parent)?.parent().unwrap_or(parent).to_owned()),
            _ => Err(why),
        },
    }
}

/// Stacks the patches; each must belong to the model that the ones before it make.
fn stack<F: Scalar>(files: &Files, patches: Vec<Patch<F>>, model: Gpt2<F>) -> Result<EditHistory<F>> {
    let mut history = EditHistory::new(model);
    for (path, patch) in files.patches.iter().zip(patches) {
        history.apply(patch).with_context(|| path.display().to_string())?;
    }
    Ok(history)
}

fn list<F: Scalar>(files: &Files, patches: &[Patch<F>], model: &Gpt2<F>, as_json: bool) -> Result<()> {
    use std::io::Write;
    let mut out = super::output::stdout();
    let base = model.sha256();
    for (path, patch) in files.patches.iter().zip(patches) {
        let fits = patch.base_sha256() == base;
        if as_json {
            let changes: Vec<_> = patch
                .deltas()
                .map(|(id, delta)| match delta {
                    Delta::Dense(_) => json!({ "parameter": id.to_string(), "kind": "dense" }),
                    Delta::LowRank { u, .. } => {
                        json!({ "parameter": id.to_string(), "kind": "low-rank", "rank": u.ncols() })
                    }
                })
                .collect();
            let line = json!({
                "file": path.display().to_string(), "base_sha256": patch.base_sha256(), "fits_model": fits,
                "norm": patch.norm(), "changes": changes,
            });
            writeln!(out, "{line}")?;
            continue;
        }
        let word = if fits { "fits" } else { "does not fit" };
        writeln!(
            out,
            "{}: base {}, {word} the model; norm {:.4}",
            printable(&path.display().to_string()),
            printable(patch.base_sha256()),
            patch.norm()
        )?;
        for (id, delta) in patch.deltas() {
            match delta {
                Delta::Dense(_) => writeln!(out, "  {id}: dense")?,
                Delta::LowRank { u, .. } => writeln!(out, "  {id}: rank {}", u.ncols())?,
            }
        }
    }
    Ok(())
}
