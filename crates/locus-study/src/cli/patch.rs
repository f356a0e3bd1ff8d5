//! `locus patch`: look at patches, merge them, and write patched models.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use locus_data::seed::stream;
use locus_editors::{EditHistory, Patch};
use locus_gpt2::{Checkpoint, Config, Gpt2, ParamMask, Scalar, holds_model, write_edited_checkpoint};
use serde_json::json;

use super::destination::{check_folder, is_same};
use super::error::Unusable;
use super::global::{Dtype, Global};
use super::output::note;
use super::patch_list::list;

#[derive(Debug, Args)]
pub struct PatchArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List what patches change, which weights they were made for, and how they came about
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
    /// Add patches that were all made for the same weights, instead of applying each on top of the ones before it
    #[arg(long)]
    sum: bool,
    /// Parameter mask (safetensors) that `edit --isolate` was given: patches made so apply to the model isolated by it
    #[arg(long, value_name = "FILE")]
    mask: Option<PathBuf>,
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

    fn run_as<F: Scalar>(&self, global: &Global) -> Result<()> {
        match &self.verb {
            Verb::List(files) => {
                global.refuse_out("`patch list` prints")?;
                let model = global.checkpoint::<F>()?.model;
                list(&files.patches, &files.read(model.config())?, &model, global.json)
            }
            Verb::Apply(apply) => apply.run::<F>(global),
            Verb::Merge(files) => files.merge::<F>(global),
        }
    }
}

/// The path of `--out`, for a verb that writes.
fn destination(global: &Global) -> Result<&Path> {
    if global.json {
        return Err(Unusable("--json has no effect: only `patch list` prints".into()).into());
    }
    global.out.as_deref().ok_or_else(|| Unusable("this needs --out PATH to write to".into()).into())
}

impl Files {
    fn read<F: Scalar>(&self, config: &Config) -> Result<Vec<Patch<F>>> {
        Ok(self.patches.iter().map(|path| Patch::read(path, config)).collect::<locus_editors::Result<_>>()?)
    }

    /// Stacks the patches; each must belong to the model that the ones before it make.
    fn stack<F: Scalar>(&self, patches: Vec<Patch<F>>, model: Gpt2<F>) -> Result<EditHistory<F>> {
        let mut history = EditHistory::new(model);
        for (path, patch) in self.patches.iter().zip(patches) {
            history.apply(patch).with_context(|| path.display().to_string())?;
        }
        Ok(history)
    }

    fn merge<F: Scalar>(&self, global: &Global) -> Result<()> {
        let out = destination(global)?;
        global.check_out_file(&self.patches.iter().map(PathBuf::as_path).collect::<Vec<_>>())?;
        let model = global.checkpoint::<F>()?.model;
        let config = model.config().clone();
        let patches = self.read(&config)?;
        let merged = self.stack(patches, model)?.merged().expect("clap asks for a patch");
        let provenance = json!({ "merged": self.patches.len(), "version": env!("CARGO_PKG_VERSION") });
        Ok(merged.write(out, &config, &provenance)?)
    }
}

impl Apply {
    fn run<F: Scalar>(&self, global: &Global) -> Result<()> {
        let out = destination(global)?;
        check_folder("--out", out, &["config.json", "model.safetensors", "tokenizer.json"], &[])?;
        let inputs: Vec<&Path> = self.files.patches.iter().chain(&self.mask).map(PathBuf::as_path).collect();
        check_destination(&global.model_folder()?, out, &inputs, self.force)?;
        let Checkpoint { model, .. } = global.checkpoint::<F>()?;
        let patches: Vec<Patch<F>> = self.files.read(model.config())?;
        let base = match &self.mask {
            Some(mask) => self.isolated(mask, &model)?,
            None => model.clone(),
        };
        let base_sha256 = patches[0].base_sha256().to_owned();
        let edited = if self.sum {
            self.sum(&patches)?.apply(&base)?
        } else {
            self.files.stack(patches, base)?.model().clone()
        };
        let name = |path: &PathBuf| path.file_name().map(|name| name.to_string_lossy().into_owned());
        let names: Vec<_> = self.files.patches.iter().map(name).collect();
        let mut provenance = json!({
            "patches": names, "base_sha256": base_sha256, "version": env!("CARGO_PKG_VERSION"),
        });
        if self.sum {
            provenance["sum"] = true.into();
        }
        let from = global.model_folder()?;
        if write_edited_checkpoint(&from, out, (&model, &edited), &provenance.to_string())? {
            note("the model is stored in 16 bits, to which the changed weights were rounded");
        }
        Ok(())
    }

    /// The sum of the patches; an error names the first file whose base is another.
    fn sum<F: Scalar>(&self, patches: &[Patch<F>]) -> Result<Patch<F>> {
        let base = patches[0].base_sha256();
        let other = patches.iter().zip(&self.files.patches).find(|(patch, _)| patch.base_sha256() != base);
        Patch::sum(patches).with_context(|| match other {
            Some((_, path)) => format!("--sum: {}", path.display()),
            None => "--sum".into(),
        })
    }

    /// The model isolated by the mask with which the patches were made: that of the file, its complement or a random
    /// one of its size, whichever has the hash that the patches state.
    fn isolated<F: Scalar>(&self, path: &Path, model: &Gpt2<F>) -> Result<Gpt2<F>> {
        let given = ParamMask::read_for(path, model)?;
        let mut isolated: Option<(ParamMask, String)> = None;
        for patch in &self.files.patches {
            let provenance = Patch::<F>::read_provenance(patch)?;
            let unusable = |why: String| Unusable(format!("{}: {why}", patch.display()));
            let stated = provenance["mask_sha256"].as_str().filter(|_| provenance["isolated"] == true);
            let Some(stated) = stated else {
                let why = "was not made with --isolate; expected none with --mask that was not";
                return Err(unusable(why.into()).into());
            };
            if isolated.as_ref().is_some_and(|(_, sha256)| sha256 == stated) {
                continue;
            }
            if isolated.is_some() {
                let why =
                    "was made with another mask or scope than the patches before it; expected one for all";
                return Err(unusable(why.into()).into());
            }
            let seed = provenance["seed"].as_u64();
            let random = seed.map(|seed| random_scope(&given, model.config(), seed));
            let scopes = [Some(given.clone()), Some(given.complement()), random];
            let found = scopes.into_iter().flatten().find(|mask| mask.sha256() == stated);
            let found = found
                .ok_or_else(|| unusable(format!("was made with another mask than {}", path.display())))?;
            isolated = Some((found, stated.to_owned()));
        }
        let (mask, _) = isolated.expect("clap asks for a patch");
        Ok(mask.ablate_complement(model))
    }
}

/// As many random block parameters as a mask has: `--scope random` of `locus edit`.
pub fn random_scope(mask: &ParamMask, config: &Config, seed: u64) -> ParamMask {
    ParamMask::random(config, mask.count(), &mut stream(seed, "random scope", 0))
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
        let why = format!(
            "--out {shown} would overwrite the model; expected a folder that neither lies in that of --model nor \
             holds it"
        );
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
