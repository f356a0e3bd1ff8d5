//! Every measure of a benchmark on planted edits against an independent NumPy script (`fixtures/golden/benchmark.py`),
//! in f64; and what is kept on disk.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use locus_data::requests::{Beside, parse_benchmark, read_snippets};
use locus_editors::{Edit, EditMemory, Editor, Error, Fact, Patch, Report, TokenRequest, UltraEdit};
use locus_gpt2::ndarray::{Array2, Axis, concatenate};
use locus_gpt2::{BlockParam, Checkpoint, Gpt2, ParamId, ParamMask, Sampling};
use locus_metrics::text::TfIdf;
use locus_protocol::benchmark::{
    Benchmark, Case, CaseResult, CaseSummary, Contestant, EditorSummary, Generation, Judged, Mode,
    Observation,
};
use locus_protocol::progress::{ProgressDisplay, Stage};
use locus_protocol::{NeutralText, Store};
use serde_json::{Value, json};

const AGREES: f64 = 1e-9;

fn golden_folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/golden")
}

fn stage() -> Stage {
    ProgressDisplay::new(true).stage("test", 1)
}

/// A prompt, and the factors of the change of a matrix that is made for it.
type Change = (Vec<u32>, Array2<f64>, Array2<f64>);

/// Adds to one matrix what the script adds for the facts, found by their prompts.
struct Planted {
    id: ParamId,
    changes: Vec<Change>,
}

impl Editor<f64> for Planted {
    fn name(&self) -> &'static str {
        "planted"
    }

    fn edit(&self, model: &Gpt2<f64>, facts: &[Fact], _: Option<&ParamMask>) -> Result<Edit<f64>, Error> {
        let of = |fact: &Fact| self.changes.iter().find(|(prompt, ..)| *prompt == fact.contexts[0].tokens);
        let changes: Vec<&Change> = facts.iter().map(|fact| of(fact).unwrap()).collect();
        let u: Vec<_> = changes.iter().map(|(_, u, _)| u.view()).collect();
        let r: Vec<_> = changes.iter().map(|(.., r)| r.view()).collect();
        let factors = [u, r].map(|parts| concatenate(Axis(1), &parts).unwrap());
        let [u, r] = factors;
        let patch = Patch::low_rank(model, [(self.id, u, r)]);
        Report { steps: 1, ..Report::default() }.into_edit(model, patch, facts)
    }
}

/// The script's requests and edits, ready to run.
struct Golden {
    values: Value,
    checkpoint: Checkpoint<f64>,
    cases: Vec<Case>,
    facts: Vec<Fact>,
    changes: Vec<Change>,
}

fn matrix(value: &Value) -> Array2<f64> {
    let rows: Vec<Vec<f64>> = serde_json::from_value(value.clone()).unwrap();
    Array2::from_shape_vec((rows.len(), rows[0].len()), rows.concat()).unwrap()
}

impl Golden {
    fn read() -> Self {
        let text = std::fs::read_to_string(golden_folder().join("benchmark.json")).unwrap();
        let values: Value = serde_json::from_str(&text).unwrap();
        let checkpoint = Checkpoint::from_pretrained(golden_folder().join("score")).unwrap();
        let records = parse_benchmark("requests", values["requests"].to_string().as_bytes()).unwrap();
        assert!(records.skipped.is_empty(), "{:?}", records.skipped);
        let (mut cases, mut facts, mut changes) = (Vec::new(), Vec::new(), Vec::new());
        for (_, (request, beside)) in &records.usable {
            let tokens = |text: &str| checkpoint.tokenizer.encode(text).unwrap();
            let prompt = tokens(&request.full_prompt());
            let target = tokens(&format!(" {}", request.target_new));
            facts.push(Fact::bare(TokenRequest { prompt: prompt.clone(), target }));
            let edit = &values["edits"][request.case_id.to_string()];
            changes.push((prompt, matrix(&edit["u"]), matrix(&edit["r"])));
            let config = checkpoint.model.config();
            cases.push(Case::new(&checkpoint.tokenizer, config, request, beside, None).unwrap());
        }
        Golden { values, checkpoint, cases, facts, changes }
    }

    fn benchmark<'a>(
        &'a self,
        mode: Mode,
        neutral: Option<&'a NeutralText<f64>>,
        store: Option<&'a Store>,
    ) -> Benchmark<'a, f64> {
        let tokens = self.values["generated"].as_u64().unwrap() as usize;
        let generation = Generation { tokens, top_k: 1, seed: 1 };
        Benchmark {
            start: &self.checkpoint.model,
            mask: None,
            cases: &self.cases,
            neutral,
            generation: Some((generation, &self.checkpoint.tokenizer)),
            mode,
            store,
        }
    }

    fn planted(&self) -> Box<dyn Editor<f64>> {
        let layer = self.values["layer"].as_u64().unwrap() as usize;
        Box::new(Planted {
            id: ParamId::Block(layer, BlockParam::MlpOutWeight),
            changes: self.changes.clone(),
        })
    }

    fn neutral(&self) -> NeutralText<f64> {
        let lines: Vec<String> = serde_json::from_value(self.values["neutral"].clone()).unwrap();
        NeutralText::new(&self.checkpoint, &lines.join("\n")).unwrap().unwrap()
    }
}

/// Compares every number of the script with that of the crate; neither side may have one that the other lacks.
fn compare(what: &str, expected: &Value, summary: &EditorSummary) {
    let same = |place: &str, expected: &Value, actual: &[(&str, f64)]| {
        let expected = expected.as_object().unwrap();
        let mut keys: Vec<&str> = actual.iter().map(|(key, _)| *key).collect();
        let mut wanted: Vec<&str> = expected.keys().map(String::as_str).collect();
        keys.sort_unstable();
        wanted.sort_unstable();
        assert_eq!(keys, wanted, "{place}");
        for (key, value) in actual {
            let expected = expected[*key].as_f64().unwrap();
            assert!((value - expected).abs() <= AGREES, "{place}: {key}: {value} against {expected}");
        }
    };
    let by_case = expected["requests"].as_object().unwrap();
    assert_eq!(by_case.len(), summary.requests.len());
    for request in &summary.requests {
        let values: Vec<_> = request.values.iter().map(|(key, value)| (*key, *value)).collect();
        same(&format!("{what}, case {}", request.case_id), &by_case[&request.case_id.to_string()], &values);
    }
    let means: Vec<_> = summary.measures.iter().map(|(key, mean)| (*key, mean.interval.value)).collect();
    same(&format!("{what}, means"), &expected["means"], &means);
    for (key, mean) in &summary.measures {
        assert!(mean.interval.low <= mean.interval.high, "{key}: {:?}", mean.interval);
    }
}

#[test]
fn every_number_agrees_with_numpy() {
    let golden = Golden::read();
    let folder = tempfile::tempdir().unwrap();
    let snippets = folder.path().join("snippets.json");
    std::fs::write(&snippets, golden.values["snippets"].to_string()).unwrap();
    let texts = read_snippets(&snippets).unwrap();
    let tf_idf = TfIdf::fit(texts.values().flatten());
    let neutral = golden.neutral();
    let before = golden.benchmark(Mode::Single, None, None).unedited(&stage()).unwrap();
    let summary = |name: &str, after: Vec<(&Observation, Option<_>)>| {
        let requests = after.into_iter().enumerate().map(|(i, (after, drift))| {
            let joined = golden.cases[i].new_fact.as_ref().and_then(|fact| Some(texts.get(fact)?.join(" ")));
            let reference = joined.as_deref().map(|text| (&tf_idf, text));
            let judged = Judged { case: &golden.cases[i], before: &before[i], after, drift, reference };
            CaseSummary::new(&judged, None, 0)
        });
        let subjects: Vec<&str> = golden.cases.iter().map(|case| case.subject.as_str()).collect();
        EditorSummary::new(name, Value::Null, requests.collect(), &subjects, 1)
    };
    let unedited = before.iter().map(|observation| (observation, None)).collect();
    compare("unedited", &golden.values["unedited"], &summary("unedited", unedited));
    let make = || Ok(golden.planted());
    for (name, mode) in [("single", Mode::Single), ("sequential", Mode::Sequential(2))] {
        let contestant = Contestant {
            name: "planted",
            facts: &golden.facts,
            make: &make,
            depends: Value::Null,
            patches: None,
            provenance: json!({}),
        };
        let results = golden.benchmark(mode, Some(&neutral), None).run(&contestant, &stage()).unwrap();
        let after = results.iter().map(|result| (&result.after, result.drift)).collect();
        compare(name, &golden.values[name], &summary(name, after));
    }
}

/// Greedy generation that begins where teacher forcing has left the target is greedy generation from the prompt, and
/// exact match is one number under both.
#[test]
fn greedy_answers_are_those_of_generation() {
    let golden = Golden::read();
    let mut differ = 0;
    for case in &golden.cases {
        let observation = case.observe(&golden.checkpoint.model, None).unwrap();
        for (probe, answer) in case.probes.iter().zip(&observation.answers) {
            let n = probe.wanted().len();
            let made = golden.checkpoint.model.generate(&probe.prompt, n, Sampling::Greedy).unwrap();
            assert_eq!(answer.free, made, "{}", probe.text);
            assert_eq!(answer.forced == probe.wanted(), made == probe.wanted(), "{}", probe.text);
            differ += usize::from(answer.forced != answer.free);
        }
    }
    assert!(differ > 3, "teacher forcing and free generation differ in {differ} answers");
}

/// Finished work is not done again, in groups and in sequence, and gives equal results.
#[test]
fn finished_requests_are_kept() {
    let golden = Golden::read();
    let neutral = golden.neutral();
    for (mode, drifts) in
        [(Mode::Single, 5), (Mode::Batch(2), 3), (Mode::Sequential(1), 1), (Mode::Sequential(2), 1)]
    {
        let folder = tempfile::tempdir().unwrap();
        let made = AtomicUsize::new(0);
        let run = |resume: bool, depends: u64| -> Vec<CaseResult> {
            let store = Store::new(folder.path(), resume, String::new());
            let make = || {
                made.fetch_add(1, Ordering::SeqCst);
                Ok(golden.planted())
            };
            let contestant = Contestant {
                name: "planted",
                facts: &golden.facts,
                make: &make,
                depends: depends.into(),
                patches: Some(folder.path().join("patches")),
                provenance: json!({}),
            };
            golden.benchmark(mode, Some(&neutral), Some(&store)).run(&contestant, &stage()).unwrap()
        };
        let times_made = || made.swap(0, Ordering::SeqCst);
        let first = run(false, 1);
        assert_eq!(first.iter().filter(|result| result.drift.is_some()).count(), drifts, "{mode:?}");
        assert_eq!(times_made(), 1, "{mode:?}");
        assert!(run(true, 1) == first, "{mode:?}");
        assert_eq!(times_made(), 0, "{mode:?}: everything was finished");
        // One unit is lost: the rest is taken from disk.
        let lost = match mode {
            Mode::Sequential(_) => "planted-step-00002.jsonl",
            _ => "planted-8.jsonl",
        };
        std::fs::remove_file(folder.path().join("work").join(lost)).unwrap();
        assert!(run(true, 1) == first, "{mode:?}");
        assert_eq!(times_made(), 1, "{mode:?}");
        assert!(run(true, 2) == first, "{mode:?}");
        assert_eq!(times_made(), 1, "{mode:?}: other constants");
    }
}

/// UltraEdit, which remembers statistics of its features, until it has made a number of edits.
struct Interrupted {
    editor: UltraEdit,
    left: AtomicUsize,
}

impl Editor<f64> for Interrupted {
    fn name(&self) -> &'static str {
        "ultra-edit"
    }

    fn edit(&self, _: &Gpt2<f64>, _: &[Fact], _: Option<&ParamMask>) -> Result<Edit<f64>, Error> {
        unreachable!("a sequence edits with a memory")
    }

    fn edit_after(
        &self,
        memory: &mut EditMemory,
        model: &Gpt2<f64>,
        facts: &[Fact],
        mask: Option<&ParamMask>,
    ) -> Result<Edit<f64>, Error> {
        match self.left.load(Ordering::SeqCst) {
            0 => Err(Error::Request("interrupted".into())),
            left => {
                self.left.store(left - 1, Ordering::SeqCst);
                self.editor.edit_after(memory, model, facts, mask)
            }
        }
    }
}

/// In a sequence an editor remembers its edits, also when the sequence was interrupted: it then goes on where it was, and
/// anew where a step before is lost.
#[test]
fn a_sequence_remembers() {
    let golden = Golden::read();
    let model = &golden.checkpoint.model;
    let ultra = UltraEdit { layers: vec![0], ..UltraEdit::for_shape(1, model.config().n_embd) };
    let folders = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let run = |folder: usize, edits: usize| {
        let folder = folders[folder].path();
        let store = Store::new(folder, true, String::new());
        let made = AtomicUsize::new(0);
        let make = || {
            made.fetch_add(1, Ordering::SeqCst);
            let editor = Interrupted { editor: ultra.clone(), left: edits.into() };
            Ok(Box::new(editor) as Box<dyn Editor<f64>>)
        };
        let contestant = Contestant {
            name: "ultra-edit",
            facts: &golden.facts,
            make: &make,
            depends: Value::Null,
            patches: Some(folder.join("patches")),
            provenance: json!({}),
        };
        golden.benchmark(Mode::Sequential(1), None, Some(&store)).run(&contestant, &stage())
    };
    let n = golden.facts.len();
    let (mut edited, mut memory) = (model.clone(), EditMemory::new());
    for fact in &golden.facts {
        let edit = ultra.edit_after(&mut memory, &edited, std::slice::from_ref(fact), None).unwrap();
        edited = edit.patch.apply(&edited).unwrap();
    }
    let whole = run(0, n).unwrap();
    for (case, result) in golden.cases.iter().zip(&whole) {
        let generation = golden.benchmark(Mode::Single, None, None).generation;
        assert!(result.after == case.observe(&edited, generation).unwrap(), "request {}", case.case_id);
    }
    let states = |folder: usize| {
        let names = std::fs::read_dir(folders[folder].path().join("work"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name());
        names.filter(|name| name.to_string_lossy().ends_with(".safetensors")).collect::<Vec<_>>()
    };
    assert!(run(1, 2).unwrap_err().to_string().contains("request"));
    assert_eq!(states(1), ["ultra-edit-step-00003.memory.safetensors"]);
    assert!(run(1, n - 2).unwrap() == whole, "the first two edits were made again, or without a memory");
    assert_eq!([states(0), states(1)], [(); 2].map(|()| Vec::<std::ffi::OsString>::new()));
    std::fs::remove_file(folders[1].path().join("work/ultra-edit-step-00003.jsonl")).unwrap();
    assert!(run(1, n - 1).is_err(), "a lost step is not all that is to be done");
    assert!(run(1, 1).unwrap() == whole, "it went on where it was interrupted");
}

/// A request without anything beside it has its own measures alone.
#[test]
fn what_a_file_lacks_has_no_value() {
    let golden = Golden::read();
    let record = json!([{"prompt": "The doctor reads", "subject": "The doctor", "target_new": "bread"}]);
    let records = parse_benchmark("f", record.to_string().as_bytes()).unwrap();
    let Checkpoint { model, tokenizer } = &golden.checkpoint;
    let request = &records.usable[0].1.0;
    let case = Case::new(tokenizer, model.config(), request, &Beside::default(), None).unwrap();
    let seen = case.observe(model, None).unwrap();
    let judged = Judged { case: &case, before: &seen, after: &seen, drift: None, reference: None };
    let summary = CaseSummary::new(&judged, None, 0);
    let keys: Vec<&str> = summary.values.keys().copied().collect();
    assert_eq!(keys, ["rewrite_accuracy", "rewrite_exact", "rewrite_free_accuracy"]);
    let request = locus_data::EditRequest { paraphrase_prompts: vec!["word ".repeat(90)], ..request.clone() };
    let why = Case::new(tokenizer, model.config(), &request, &Beside::default(), None).unwrap_err();
    assert!(format!("{why:#}").starts_with("prompt \"word word"), "{why:#}");
}
