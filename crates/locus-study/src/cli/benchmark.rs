//! `locus benchmark`: editors x requests, every definition of success side by side.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use locus_data::requests;
use locus_editors::{Fact, KeyMoments};
use locus_files::{sha256_file, write_atomically};
use locus_gpt2::{Checkpoint, Scalar};
use locus_metrics::text::TfIdf;
use serde_json::{Value, json};

use super::benchmark_page::page;
use super::destination::{check_folder, lock_folder};
use super::editors::{ChosenEditor, EditorArgs, EditorsArgs};
use super::error::{Unusable, in_range};
use super::global::{Dtype, Global};
use super::scope::ScopeArgs;
use super::skipped::SkippedRecords;
use crate::protocol::benchmark::{
    Benchmark, Case, CaseSummary, Contestant, EditorSummary, Generation, Judged, MEASURES, Mode, Observation,
    SCORES,
};
use crate::protocol::{NeutralText, Store};

/// Longest text that is generated from a prompt, in tokens.
const LONGEST_TEXT: usize = 1024;

#[derive(Debug, Args)]
#[group(skip)]
pub struct BenchmarkArgs {
    #[command(flatten)]
    editors: EditorsArgs,
    /// Requests: a JSON array, an object by id or JSONL, in the layout of CounterFact, MQuAKE, RippleEdits, zsRE,
    /// WikiBigEdit, EasyEdit or KnowEdit
    #[arg(long, value_name = "FILE")]
    requests: PathBuf,
    /// Use only the first records of the file
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Whether edits are made one at a time, in groups, or one after the other into one model
    #[arg(long, value_enum, default_value_t = ModeName::Single)]
    mode: ModeName,
    /// Requests that are written together [default: all with --mode batch, 1 with --mode sequential]
    #[arg(long, value_name = "N")]
    batch: Option<usize>,
    #[command(flatten)]
    scope: ScopeArgs,
    /// Text on which drift is measured (its first 256 tokens, in whole lines)
    #[arg(long, value_name = "FILE")]
    neutral: Option<PathBuf>,
    /// Continue the file's generation prompts to N tokens and measure fluency (ROME: 100)
    #[arg(long, value_name = "N")]
    generate: Option<usize>,
    /// Texts of reference for consistency, CounterFact's attribute_snippets.json
    #[arg(long, value_name = "FILE", requires = "generate")]
    snippets: Option<PathBuf>,
    /// Write the patches too
    #[arg(long)]
    patches: bool,
    /// Stop at the first record that cannot be edited, instead of leaving it out
    #[arg(long)]
    strict: bool,
    /// Put the end-of-text token before every prompt [default: nothing]
    #[arg(long)]
    bos: bool,
    /// Take finished requests from an earlier run in the folder of --out
    #[arg(long)]
    resume: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ModeName {
    /// Each edit into the unedited model
    Single,
    /// Groups of edits together, each group into the unedited model
    Batch,
    /// Each edit into the model that the last one left; all are measured at the end
    Sequential,
}

/// Weights of terms, and the joined texts of reference by fact.
type References = (TfIdf, BTreeMap<[String; 2], String>);

/// The requests that every editor can write.
struct Prepared {
    cases: Vec<Case>,
    /// The facts of the cases for each editor.
    facts: Vec<Vec<Fact>>,
}

impl BenchmarkArgs {
    pub fn run(&self, global: &Global) -> Result<()> {
        let chosen = self.editors.chosen(global)?;
        match global.dtype {
            Dtype::F32 => self.run_as::<f32>(global, &chosen),
            Dtype::F64 => self.run_as::<f64>(global, &chosen),
        }
    }

    fn run_as<F: Scalar>(&self, global: &Global, chosen: &[(EditorArgs, ChosenEditor)]) -> Result<()> {
        self.check(global)?;
        let records = requests::read_benchmark(&self.requests)?;
        let references = self.snippets.as_deref().map(references).transpose()?;
        let checkpoint = global.checkpoint::<F>()?;
        let mask = self.scope.mask(&checkpoint, global.seed)?;
        let start = self.scope.start(&checkpoint.model, mask.as_ref());
        let within = |record: usize| self.limit.is_none_or(|limit| record < limit);
        let unread = records.skipped.into_iter().filter(|skipped| within(skipped.record)).collect();
        let mut skipped = SkippedRecords::new(&self.requests, unread);
        let usable: Vec<_> = records.usable.into_iter().filter(|(record, _)| within(*record)).collect();
        let prepared = self.prepare(global, chosen, &checkpoint, &usable, &mut skipped)?;
        let Prepared { cases, facts } = &prepared;
        skipped.report(cases.len(), self.strict)?;
        let neutral = self.neutral::<F>(&Checkpoint { model: start.clone(), ..checkpoint.clone() })?;
        let mut provenance = self.provenance(global, &checkpoint, mask.as_ref().map(|mask| mask.sha256()))?;
        let common = common(&provenance);
        let measured = chosen.iter().find(|(_, editor)| editor.needs_statistics());
        provenance["statistics"] =
            measured.map_or(Ok(Value::Null), |(args, _)| args.statistics_identity())?;
        let store = global.out.as_ref().map(|out| Store::new(out, self.resume, common));
        let _lock = global.out.as_deref().map(lock_folder).transpose()?;
        let generation = self.generate.map(|tokens| Generation::new(tokens, global.seed));
        let benchmark = Benchmark {
            start: &start,
            mask: mask.as_ref(),
            cases,
            neutral: neutral.as_ref(),
            generation: generation.map(|generation| (generation, &checkpoint.tokenizer)),
            mode: self.mode(cases.len()),
            store: store.as_ref(),
        };
        let progress = global.progress().of_steps(chosen.len() + 2);
        let stage = progress.stage("unedited", cases.len());
        let before = benchmark.unedited(&stage)?;
        stage.finish();
        let subjects: Vec<&str> = cases.iter().map(|case| case.subject.as_str()).collect();
        let judged = |i: usize, after: &Observation, drift| {
            let reference = references
                .as_ref()
                .and_then(|(tf_idf, texts)| Some((tf_idf, texts.get(cases[i].new_fact.as_ref()?)?.as_str())));
            let judged = Judged { case: &cases[i], before: &before[i], after, drift, reference };
            CaseSummary::new(&judged, None, 0)
        };
        let unedited = before.iter().enumerate().map(|(i, after)| judged(i, after, None)).collect();
        let mut editors = vec![EditorSummary::new("unedited", Value::Null, unedited, &subjects, global.seed)];
        let moments: Mutex<Option<BTreeMap<usize, KeyMoments>>> = Mutex::new(None);
        for ((args, editor), facts) in chosen.iter().zip(facts) {
            let make = || {
                let mut moments = moments.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                if moments.is_none() && editor.needs_statistics() {
                    *moments = Some(EditorsArgs::moments(chosen, global, &checkpoint)?);
                }
                editor.editor_from(args, &checkpoint, moments.as_ref().unwrap_or(&BTreeMap::new()))
            };
            let constants = editor.provenance()?;
            let contestant = self.contestant(global, args, editor, facts, &make, &provenance)?;
            let stage = progress.stage(args.name(), cases.len());
            let results = benchmark.run(&contestant, &stage)?;
            stage.finish();
            let requests = results.into_iter().enumerate().map(|(i, result)| CaseSummary {
                refused: result.refused,
                steps: result.steps,
                ..judged(i, &result.after, result.drift)
            });
            let requests = requests.collect();
            editors.push(EditorSummary::new(args.name(), constants, requests, &subjects, global.seed));
        }
        self.write(global, provenance, &editors, skipped.json())
    }

    /// Checks the options and the destination before any work.
    fn check(&self, global: &Global) -> Result<()> {
        if let Some(limit) = self.limit {
            in_range("--limit", limit, usize::MAX)?;
        }
        if let Some(batch) = self.batch {
            in_range("--batch", batch, usize::MAX)?;
            if self.mode == ModeName::Single {
                let why = "--batch has no effect with --mode single; expected batch or sequential";
                return Err(Unusable(why.into()).into());
            }
        }
        if let Some(tokens) = self.generate {
            in_range("--generate", tokens, LONGEST_TEXT)?;
        }
        let Some(out) = &global.out else {
            let options = [("--resume", self.resume), ("--patches", self.patches)];
            return match options.iter().find(|(_, given)| *given) {
                Some((option, _)) => Err(Unusable(format!("{option} needs --out DIR")).into()),
                None => Ok(()),
            };
        };
        check_folder("--out", out, &["benchmark.json", "benchmark.md"], &["work", "patches"])?;
        let given = [Some(self.requests.as_path()), self.scope.input(), self.neutral.as_deref()];
        let inputs: Vec<&Path> = given
            .into_iter()
            .flatten()
            .chain(self.snippets.as_deref())
            .chain(self.editors.inputs())
            .collect();
        for name in ["benchmark.json", "benchmark.md"] {
            global.check_file("--out", &out.join(name), &inputs)?;
        }
        Ok(())
    }

    fn mode(&self, cases: usize) -> Mode {
        match self.mode {
            ModeName::Single => Mode::Single,
            ModeName::Batch => Mode::Batch(self.batch.unwrap_or(cases).min(cases)),
            ModeName::Sequential => Mode::Sequential(self.batch.unwrap_or(1).min(cases)),
        }
    }

    /// Makes the requests ready for every editor; one that some editor cannot write is left out for all of them.
    fn prepare<F: Scalar>(
        &self,
        global: &Global,
        chosen: &[(EditorArgs, ChosenEditor)],
        checkpoint: &Checkpoint<F>,
        usable: &[(usize, (locus_data::EditRequest, requests::Beside))],
        skipped: &mut SkippedRecords,
    ) -> Result<Prepared> {
        let preparations = chosen
            .iter()
            .map(|(_, editor)| editor.preparation(checkpoint, global.seed, self.bos))
            .collect::<Result<Vec<_>>>()?;
        let Checkpoint { model, tokenizer } = checkpoint;
        let before = self.bos.then(|| tokenizer.end_of_text()).transpose()?;
        let mut prepared = Prepared { cases: Vec::new(), facts: vec![Vec::new(); chosen.len()] };
        for (record, (request, beside)) in usable {
            let ready = || -> Result<(Case, Vec<Fact>)> {
                let facts = preparations
                    .iter()
                    .map(|preparation| Ok(preparation.prepare(request)?.1))
                    .collect::<Result<_>>()?;
                let case = Case::new(tokenizer, model.config(), request, beside, before)
                    .with_context(|| format!("request {}", request.case_id))?;
                Ok((case, facts))
            };
            match ready() {
                Ok((case, facts)) => {
                    prepared.cases.push(case);
                    prepared.facts.iter_mut().zip(facts).for_each(|(list, fact)| list.push(fact));
                }
                Err(error) => skipped.add(*record, Some(request.case_id), &error),
            }
        }
        Ok(prepared)
    }

    fn neutral<F: Scalar>(&self, start: &Checkpoint<F>) -> Result<Option<NeutralText<F>>> {
        let Some(path) = &self.neutral else { return Ok(None) };
        let unusable = |why: String| Unusable(format!("{}: {why}", path.display()));
        let text = locus_files::read_to_string(path).map_err(|e| unusable(e.to_string()))?;
        match NeutralText::new(start, &text)? {
            Some(text) => Ok(Some(text)),
            None => Err(unusable("has no line of two tokens or more; expected text".into()).into()),
        }
    }

    /// What the results come from.
    fn provenance<F: Scalar>(
        &self,
        global: &Global,
        checkpoint: &Checkpoint<F>,
        mask_sha256: Option<String>,
    ) -> Result<Value> {
        let hash =
            |path: &PathBuf| sha256_file(path).map_err(|e| Unusable(format!("{}: {e}", path.display())));
        let name = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
        Ok(json!({
            "version": env!("CARGO_PKG_VERSION"),
            "seed": global.seed,
            "dtype": if global.dtype == Dtype::F32 { "f32" } else { "f64" },
            "model": name(Path::new(&global.model)),
            "model_sha256": checkpoint.model.sha256(),
            "requests": name(&self.requests),
            "requests_sha256": hash(&self.requests)?,
            "limit": self.limit,
            "mode": self.mode.to_possible_value().map(|value| value.get_name().to_owned()),
            "batch": self.batch,
            "scope": self.scope.name(),
            "mask_sha256": mask_sha256,
            "isolated": self.scope.isolate,
            "neutral_sha256": self.neutral.as_ref().map(hash).transpose()?,
            "generate": self.generate,
            "snippets_sha256": self.snippets.as_ref().map(hash).transpose()?,
            "bos": self.bos,
        }))
    }

    fn contestant<'a, F: Scalar>(
        &self,
        global: &Global,
        args: &EditorArgs,
        editor: &ChosenEditor,
        facts: &'a [Fact],
        make: &'a (dyn Fn() -> Result<Box<dyn locus_editors::Editor<F>>> + Sync),
        provenance: &Value,
    ) -> Result<Contestant<'a, F>> {
        let constants = editor.provenance()?;
        let statistics = if editor.needs_statistics() { args.statistics_identity()? } else { Value::Null };
        let wanted = self.patches || self.mode == ModeName::Sequential;
        let patches = global.out.as_ref().filter(|_| wanted).map(|out| out.join("patches").join(args.name()));
        let mut of_patch = json!({
            "editor": args.name(), "constants": constants, "mask_sha256": provenance["mask_sha256"],
            "isolated": self.scope.isolate, "seed": global.seed, "version": env!("CARGO_PKG_VERSION"),
        });
        if self.bos {
            of_patch["bos"] = true.into();
        }
        // With patches that are asked for later, work is done again so that they are there.
        let depends = json!({ "constants": constants, "statistics": statistics, "patches": self.patches });
        Ok(Contestant { name: args.name(), facts, make, depends, patches, provenance: of_patch })
    }

    fn write(
        &self,
        global: &Global,
        provenance: Value,
        editors: &[EditorSummary],
        skipped: Option<Value>,
    ) -> Result<()> {
        let definitions = json!({ "measures": &MEASURES[..], "scores": &SCORES });
        let results = json!({
            "provenance": provenance, "editors": editors, "skipped": skipped.unwrap_or_else(|| json!([])),
            "definitions": definitions,
        });
        let text = serde_json::to_string_pretty(&results)? + "\n";
        let page = page(&results["provenance"], editors, &results["skipped"]);
        if let Some(out) = &global.out {
            for (name, content) in [("benchmark.json", &text), ("benchmark.md", &page)] {
                let path = out.join(name);
                write_atomically(&path, content.as_bytes()).with_context(|| path.display().to_string())?;
            }
        }
        Ok(write!(super::output::stdout(), "{}", if global.json { text } else { page })?)
    }
}

/// What all finished work depends on: how many requests there are and how they are grouped is known to each unit.
fn common(provenance: &Value) -> String {
    let mut common = provenance.clone();
    for field in ["limit", "mode", "batch", "requests", "model"] {
        common[field] = Value::Null;
    }
    common.to_string()
}

/// Texts of reference, with weights of terms fitted on all of them.
fn references(path: &Path) -> Result<References> {
    let texts = requests::read_snippets(path)?;
    let tf_idf = TfIdf::fit(texts.values().flatten());
    Ok((tf_idf, texts.into_iter().map(|(fact, texts)| (fact, texts.join(" "))).collect()))
}
