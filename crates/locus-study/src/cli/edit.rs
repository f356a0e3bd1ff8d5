//! `locus edit`: writes one or many requests and measures them before and after.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use locus_data::{EditRequest, requests};
use locus_editors::{Fact, Patch, SimilarKeys};
use locus_gpt2::{Checkpoint, Gpt2, ParamMask, Scalar};
use serde::Serialize;

use super::destination::{check_folder, lock_file, lock_folder};
use super::editors::{ChosenEditor, EditorArgs};
use super::error::{OVERFLOW, Unusable};
use super::global::{Dtype, Global};
use super::output::note;
use super::patch::random_scope;
use super::sequential::{SequenceArgs, print_growth};
use super::skipped::SkippedRecords;
use crate::protocol::{self, Group, GrowthPoint, PreparedRequest, Written, write_groups};

/// Cosine of two keys from which an editor can hardly tell two facts apart.
const SIMILAR: f64 = 0.99;

#[derive(Debug, Args)]
pub struct EditArgs {
    #[command(flatten)]
    editor: EditorArgs,
    /// Requests: a JSON array, an object by id or JSONL, in the layout of CounterFact, MQuAKE, RippleEdits, zsRE,
    /// WikiBigEdit, EasyEdit or KnowEdit
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
    #[command(flatten)]
    sequence: SequenceArgs,
    /// Stop at the first record that cannot be edited, instead of leaving it out
    #[arg(long)]
    strict: bool,
    /// Put the end-of-text token before every prompt [default: nothing]
    #[arg(long)]
    bos: bool,
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

impl ScopeName {
    /// The name used in files and on the command line.
    fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }
}

/// One request in the output; NLLs are per token, in nats.
#[derive(Serialize)]
struct Outcome {
    case_id: u64,
    pre_new: f64,
    /// Null when the request has no true target.
    pre_true: Option<f64>,
    post_new: f64,
    post_true: Option<f64>,
    steps: usize,
    /// Whether the new target is no likelier than before.
    failed: bool,
    /// Norms, denominators and residuals of the method.
    #[serde(skip_serializing_if = "serde_json::Map::is_empty")]
    measures: serde_json::Map<String, serde_json::Value>,
    /// Requests of the same patch that this one cannot be told from.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    conflicts: Vec<ConflictWith>,
}

/// A request that another one cannot be told from.
#[derive(Serialize)]
struct ConflictWith {
    case_id: u64,
    #[serde(flatten)]
    kind: ConflictKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
enum ConflictKind {
    /// The prompts are one, the targets are not.
    Contradiction,
    /// Both are written for nearly the same key.
    SimilarKey { cosine: f64 },
}

impl From<Written> for Outcome {
    fn from(written: Written) -> Self {
        let Written { case_id, pre_new, pre_true, post_new, post_true, steps, measures } = written;
        let failed = post_new.partial_cmp(&pre_new).is_none_or(std::cmp::Ordering::is_ge);
        let measures = measures.into_iter().map(|(name, value)| (name, value.into())).collect();
        let conflicts = Vec::new();
        Outcome { case_id, pre_new, pre_true, post_new, post_true, steps, failed, measures, conflicts }
    }
}

impl Outcome {
    fn is_finite(&self) -> bool {
        let true_side = self.pre_true.into_iter().chain(self.post_true);
        true_side.chain([self.pre_new, self.post_new]).all(f64::is_finite)
    }
}

impl EditArgs {
    pub fn run(&self, global: &Global) -> Result<()> {
        let chosen = self.editor.chosen(global)?;
        if self.print_config {
            global.refuse_out("--print-config prints the constants")?;
            return Ok(write!(super::output::stdout(), "{}", chosen.print()?)?);
        }
        match global.dtype {
            Dtype::F32 => self.run_as::<f32>(global, &chosen),
            Dtype::F64 => self.run_as::<f64>(global, &chosen),
        }
    }

    fn run_as<F: Scalar>(&self, global: &Global, chosen: &ChosenEditor) -> Result<()> {
        let path = self.requests.as_deref().expect("clap asks for it");
        let records = requests::read_records(path)?;
        let together = !self.sequence.sequential && (self.together || chosen.writes_many());
        let alone = together || self.sequence.sequential || records.usable.len() + records.skipped.len() == 1;
        self.check_out(global, path, alone, &records.usable)?;
        let checkpoint = global.checkpoint::<F>()?;
        let mask = self.mask(&checkpoint, global.seed)?;
        let mut skipped = SkippedRecords::new(path, records.skipped);
        let preparation = chosen.preparation(&checkpoint, global.seed, self.bos)?;
        let (mut prepared, mut facts) = (Vec::new(), Vec::new());
        for (record, request) in &records.usable {
            match preparation.prepare(request) {
                Ok((request, fact)) => {
                    prepared.push(request);
                    facts.push(fact);
                }
                Err(error) => skipped.add(*record, Some(request.case_id), &error),
            }
        }
        skipped.report(prepared.len(), self.strict)?;
        if records.unread > 0 {
            note(&format!(
                "{}: {} further questions (portability, locality, several hops, generation) are not read",
                path.display(),
                records.unread
            ));
        }
        let start = match &mask {
            Some(mask) if self.isolate => mask.ablate_complement(&checkpoint.model),
            _ => checkpoint.model.clone(),
        };
        let neutral = self.sequence.neutral(&checkpoint, self.editor.text())?;
        let conflicts = if together { conflicts(chosen, &start, &prepared, &facts)? } else { Vec::new() };
        let editor = chosen.editor(&self.editor, global, &checkpoint)?;
        let groups: Vec<Group> = if together {
            vec![(prepared.as_slice(), facts.as_slice())]
        } else {
            let n = self.sequence.batch;
            prepared.chunks(n).zip(facts.chunks(n)).collect()
        };
        let provenance = chosen.provenance()?;
        let lock = |out: &PathBuf| if alone { lock_file(out) } else { lock_folder(out) };
        let _lock = global.out.as_ref().map(lock).transpose()?;
        let stage = global.progress().stage("edits", groups.len() + usize::from(self.sequence.sequential));
        let mask = mask.as_ref();
        let done = |requests: &[PreparedRequest], outcome: protocol::Outcome<F>| -> Result<()> {
            let path = global.out.as_ref().map(|out| patch_path(out, alone, requests[0].case_id));
            match (outcome, path) {
                (Err(why), path) => {
                    note(&format!("request {}: {why}", requests[0].case_id));
                    // What an earlier run left in the folder is not the patch of this one.
                    if let Some(path) = path.filter(|path| !alone && path.is_file()) {
                        std::fs::remove_file(&path).with_context(|| path.display().to_string())?;
                    }
                }
                (Ok((patch, edited)), Some(path)) if patch.deltas().next().is_some() => {
                    let mut provenance = serde_json::json!({
                        "editor": editor.name(), "constants": provenance,
                        "case_ids": requests.iter().map(|request| request.case_id).collect::<Vec<_>>(),
                        "isolated": self.isolate, "scope": self.scope.name(),
                        "mask_sha256": mask.map(ParamMask::sha256), "seed": global.seed, "version": env!("CARGO_PKG_VERSION"),
                    });
                    if self.bos {
                        provenance["bos"] = true.into();
                    }
                    if self.sequence.sequential {
                        provenance["sequential"] = true.into();
                    }
                    let patch = if self.dense { Patch::between(&start, edited) } else { patch };
                    patch.write(&path, start.config(), &provenance)?;
                }
                _ => {}
            }
            stage.inc();
            Ok(())
        };
        let mut growth: Vec<GrowthPoint> = Vec::new();
        let written = if self.sequence.sequential {
            let sequence =
                self.sequence.write(&start, editor.as_ref(), &groups, mask, neutral.as_ref(), &|| {
                    stage.inc();
                })?;
            done(prepared.as_slice(), Ok((sequence.patch, &sequence.model)))?;
            growth = sequence.growth;
            sequence.written
        } else {
            write_groups(&start, editor.as_ref(), &groups, mask, &done)?
        };
        stage.finish();
        let mut outcomes: Vec<Outcome> = written.into_iter().map(Outcome::from).collect();
        for (pair, kind) in &conflicts {
            for [own, other] in [*pair, [pair[1], pair[0]]] {
                let case_id = outcomes[other].case_id;
                outcomes[own].conflicts.push(ConflictWith { case_id, kind: *kind });
            }
        }
        print_outcomes(&outcomes, &skipped, global.json)?;
        let not_finite = outcomes.iter().filter(|o| !o.is_finite()).map(|o| o.case_id.to_string());
        let not_finite: Vec<String> = not_finite.collect();
        anyhow::ensure!(
            not_finite.is_empty(),
            "{} of {} edits have an NLL that is not finite: {}; {OVERFLOW}",
            not_finite.len(),
            outcomes.len(),
            not_finite.join(", ")
        );
        print_growth(&growth, global.json)?;
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

    /// Checks, before any work, that patches can be written to `--out`: one file or, unless there is one patch alone, a
    /// folder with a file per request.
    fn check_out(
        &self,
        global: &Global,
        file: &Path,
        alone: bool,
        requests: &[(usize, EditRequest)],
    ) -> Result<()> {
        let Some(out) = &global.out else { return Ok(()) };
        let inputs: Vec<&Path> = [file]
            .into_iter()
            .chain(self.mask.as_deref())
            .chain(self.editor.inputs())
            .chain(self.sequence.inputs())
            .collect();
        if alone {
            return global.check_file("--out", out, &inputs);
        }
        if out.extension().is_some_and(|extension| extension == "safetensors") && !out.is_dir() {
            let why = format!(
                "--out {}: several patches need a folder; expected its name, or --together",
                out.display()
            );
            return Err(Unusable(why).into());
        }
        check_folder("--out", out, &[], &[])?;
        check_other_patches(out, requests)?;
        // In a folder that can be written to, only what is there already can be in the way.
        let paths = requests.iter().map(|(_, request)| patch_path(out, alone, request.case_id));
        paths.filter(|path| path.exists()).try_for_each(|path| global.check_file("--out", &path, &inputs))
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
            ScopeName::Random => Some(random_scope(&mask, config, seed)),
            ScopeName::Full => unreachable!("refused above"),
        })
    }
}

/// Pairs of requests that one patch cannot serve both, by their positions; said on stderr.
///
/// # Errors
/// When contradictory facts are to be merged.
fn conflicts<F: Scalar>(
    chosen: &ChosenEditor,
    start: &Gpt2<F>,
    requests: &[PreparedRequest],
    facts: &[Fact],
) -> Result<Vec<([usize; 2], ConflictKind)>> {
    let mut found: Vec<([usize; 2], ConflictKind)> = Vec::new();
    for (i, fact) in facts.iter().enumerate() {
        let later = facts[i + 1..].iter().zip(i + 1..).filter(|(other, _)| fact.contradicts(other));
        found.extend(later.map(|(_, j)| ([i, j], ConflictKind::Contradiction)));
    }
    let name = |(pair, kind): &([usize; 2], ConflictKind)| {
        let [a, b] = pair.map(|i| requests[i].case_id);
        match kind {
            ConflictKind::Contradiction => format!("{a} and {b}"),
            ConflictKind::SimilarKey { cosine } => format!("{a} and {b} ({cosine:.4})"),
        }
    };
    let list = |pairs: &[([usize; 2], ConflictKind)]| {
        const SHOWN: usize = 20;
        let shown: Vec<String> = pairs.iter().take(SHOWN).map(name).collect();
        let more = pairs.len().saturating_sub(SHOWN);
        format!(
            "{}{}",
            shown.join(", "),
            if more > 0 { format!(" and {more} more pairs") } else { String::new() }
        )
    };
    let contradictions = found.len();
    if contradictions > 0 {
        let what = "one prompt and different targets";
        if chosen.memit().is_some_and(|memit| memit.merge) {
            let why = format!("--merge: cases {} have {what}; such facts cannot be merged", list(&found));
            return Err(Unusable(why).into());
        }
        note(&format!("these facts contradict each other ({what}): cases {}", list(&found)));
    }
    if let Some(memit) = chosen.memit() {
        for SimilarKeys { facts: pair, cosine } in memit.similar_keys(start, facts, SIMILAR)? {
            if !facts[pair[0]].contradicts(&facts[pair[1]]) {
                found.push((pair, ConflictKind::SimilarKey { cosine }));
            }
        }
        if found.len() > contradictions {
            let hint = if memit.merge { "" } else { "; --merge gives facts about one subject one value" };
            let pairs = list(&found[contradictions..]);
            note(&format!("these facts have nearly one key (cosine above {SIMILAR}): cases {pairs}{hint}"));
        }
    }
    Ok(found)
}

/// Refuses a folder with patches of other requests, which would be taken for those of this run.
fn check_other_patches(folder: &Path, requests: &[(usize, EditRequest)]) -> Result<()> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Ok(()) };
    let own: std::collections::HashSet<String> =
        requests.iter().map(|(_, request)| format!("{}.safetensors", request.case_id)).collect();
    for entry in entries {
        let name = entry.with_context(|| folder.display().to_string())?.file_name();
        let name = name.to_string_lossy();
        if name.ends_with(".safetensors") && !own.contains(name.as_ref()) {
            let why = format!(
                "--out {}: holds {name}, which is no patch of these requests; expected a folder without others",
                folder.display()
            );
            return Err(Unusable(why).into());
        }
    }
    Ok(())
}

/// Path of a request's patch: the file itself when there is one patch, a file per case in a folder for several.
fn patch_path(out: &Path, alone: bool, case_id: u64) -> PathBuf {
    if alone { out.to_owned() } else { out.join(format!("{case_id}.safetensors")) }
}

fn print_outcomes(outcomes: &[Outcome], skipped: &SkippedRecords, json: bool) -> Result<()> {
    let mut out = super::output::stdout();
    if json {
        for outcome in outcomes {
            writeln!(out, "{}", serde_json::to_string(outcome)?)?;
        }
        if let Some(skipped) = skipped.json() {
            writeln!(out, "{}", serde_json::json!({ "skipped": skipped }))?;
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
            "{:>8} {:>10.4} {:>10.4} {:>10} {:>10} {:>6}{}",
            o.case_id,
            o.pre_new,
            o.post_new,
            cell(o.pre_true),
            cell(o.post_true),
            o.steps,
            if o.failed { "  failed" } else { "" }
        )?;
    }
    let mean = |of: fn(&Outcome) -> Option<f64>| {
        let values: Vec<f64> = outcomes.iter().filter_map(of).collect();
        (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
    };
    writeln!(
        out,
        "{:>8} {:>10} {:>10} {:>10} {:>10}",
        "mean",
        cell(mean(|o| Some(o.pre_new))),
        cell(mean(|o| Some(o.post_new))),
        cell(mean(|o| o.pre_true)),
        cell(mean(|o| o.post_true))
    )?;
    Ok(())
}

/// An NLL, or a dash where there is no true target.
fn cell(nll: Option<f64>) -> String {
    nll.map_or_else(|| "-".into(), |nll| format!("{nll:.4}"))
}
