//! `locus edit`: writes one or many requests and measures them before and after.

use std::collections::HashMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};
use clap::Args;
use locus_data::requests::Beside;
use locus_data::{EditRequest, requests};
use locus_editors::{Fact, Patch, SimilarKeys};
use locus_gpt2::{Gpt2, ParamMask, Scalar};

use super::destination::{check_folder, lock_file, lock_folder};
use super::edit_output::{ConflictKind, ConflictWith, Outcome, print};
use super::editors::{ChosenEditor, EditorArgs};
use super::error::{OVERFLOW, Unusable};
use super::global::{Dtype, Global};
use super::output::note;
use super::scope::ScopeArgs;
use super::sequential::{SequenceArgs, print_growth};
use super::skipped::SkippedRecords;
use crate::protocol::benchmark::Case;
use crate::protocol::{self, Group, GrowthPoint, Preparation, write_groups};

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
    #[command(flatten)]
    scope: ScopeArgs,
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
        let mask = self.scope.mask(&checkpoint, global.seed)?;
        let mut skipped = SkippedRecords::new(path, records.skipped);
        let preparation = chosen.preparation(&checkpoint, global.seed, self.bos)?;
        let (mut texts, mut cases, mut facts) = (Vec::new(), Vec::new(), Vec::new());
        for (record, request) in &records.usable {
            match preparation.prepare(request) {
                Ok((_, fact)) => {
                    texts.push(request);
                    cases.push(case(&preparation, request)?);
                    facts.push(fact);
                }
                Err(error) => skipped.add(*record, Some(request.case_id), &error),
            }
        }
        skipped.report(cases.len(), self.strict)?;
        if records.unread > 0 {
            note(&format!(
                "{}: {} further questions (portability, locality, several hops, generation) are not read; \
                 `locus benchmark` reads those of KnowEdit and RippleEdits",
                path.display(),
                records.unread
            ));
        }
        let start = self.scope.start(&checkpoint.model, mask.as_ref());
        let neutral = self.sequence.neutral(&checkpoint, self.editor.text())?;
        let conflicts = if together { conflicts(chosen, &start, &cases, &facts)? } else { Vec::new() };
        let editor = chosen.editor(&self.editor, global, &checkpoint)?;
        let groups: Vec<Group> = if together {
            vec![(cases.as_slice(), facts.as_slice())]
        } else {
            let n = self.sequence.batch;
            cases.chunks(n).zip(facts.chunks(n)).collect()
        };
        let provenance = chosen.provenance()?;
        let lock = |out: &PathBuf| if alone { lock_file(out) } else { lock_folder(out) };
        let _lock = global.out.as_ref().map(lock).transpose()?;
        let stage = global.progress().stage("edits", groups.len() + usize::from(self.sequence.sequential));
        let mask = mask.as_ref();
        let path = |case_id: u64| global.out.as_ref().map(|out| patch_path(out, alone, case_id));
        let files = Mutex::new(HashMap::new());
        let done = |requests: &[Case], outcome: protocol::Outcome<F>| -> Result<()> {
            match (outcome, path(requests[0].case_id)) {
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
                        "isolated": self.scope.isolate, "scope": self.scope.name(), "mask_sha256": mask.map(ParamMask::sha256),
                        "seed": global.seed, "version": env!("CARGO_PKG_VERSION"),
                    });
                    if self.bos {
                        provenance["bos"] = true.into();
                    }
                    if self.sequence.sequential {
                        provenance["sequential"] = true.into();
                    }
                    let patch = if self.dense { Patch::between(&start, edited) } else { patch };
                    patch.write(&path, start.config(), &provenance)?;
                    let mut files = files.lock().unwrap_or_else(PoisonError::into_inner);
                    files.extend(requests.iter().map(|request| (request.case_id, path.clone())));
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
            done(cases.as_slice(), Ok((sequence.patch, &sequence.model)))?;
            growth = sequence.growth;
            sequence.written
        } else {
            write_groups(&start, editor.as_ref(), &groups, mask, &done)?
        };
        stage.finish();
        let files = files.into_inner().unwrap_or_else(PoisonError::into_inner);
        let told = texts.into_iter().zip(&cases).zip(written).map(|((request, case), written)| {
            let file = files.get(&written.case_id).cloned();
            Outcome::new(&checkpoint.tokenizer, request, case, written, file)
        });
        let mut outcomes: Vec<Outcome> = told.collect::<Result<_>>()?;
        for (pair, kind) in &conflicts {
            for [own, other] in [*pair, [pair[1], pair[0]]] {
                let case_id = outcomes[other].case_id;
                outcomes[own].conflicts.push(ConflictWith { case_id, kind: *kind });
            }
        }
        print(&outcomes, &skipped, global.json)?;
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
            .chain(self.scope.input())
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
}

/// What is asked about a request; prompts beside its own are left out, and said to be, when one cannot be used.
fn case(preparation: &Preparation, request: &EditRequest) -> Result<Case> {
    let Preparation { tokenizer, config, before, .. } = preparation;
    let case = |request: &EditRequest| Case::new(tokenizer, config, request, &Beside::default(), *before);
    case(request).or_else(|error| {
        note(&format!("request {}: only its own prompt is measured: {error:#}", request.case_id));
        let (paraphrase_prompts, neighborhood_prompts) = (Vec::new(), Vec::new());
        case(&EditRequest { paraphrase_prompts, neighborhood_prompts, ..request.clone() })
    })
}

/// Pairs of requests that one patch cannot serve both, by their positions; said on stderr.
///
/// # Errors
/// When contradictory facts are to be merged.
fn conflicts<F: Scalar>(
    chosen: &ChosenEditor,
    start: &Gpt2<F>,
    requests: &[Case],
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
