//! Edits in sequence, sums of patches, isolated patches, and what patches state of themselves.

use std::path::Path;

use locus_editors::{Error, Patch};
use locus_gpt2::{Checkpoint, Gpt2, ParamMask};
use locus_testkit::assert_close;
use serde_json::Value;

use crate::support::{Run, Sandbox, assert_near, fixture, half_mask, nll_by_hand, tiny_config};

const REQUESTS: usize = 12;

/// A folder with requests of the organism's data, alone and together, and some of its text.
fn sandbox() -> Sandbox {
    let sandbox = Sandbox::empty();
    let requests = locus_data::requests::read(fixture("organism/data/hierarchy_data.json")).unwrap();
    locus_data::requests::write(sandbox.path("requests.json"), &requests[..REQUESTS]).unwrap();
    locus_data::requests::write(sandbox.path("first.json"), &requests[..1]).unwrap();
    locus_data::requests::write(sandbox.path("second.json"), &requests[1..2]).unwrap();
    locus_data::requests::write(sandbox.path("both.json"), &requests[..2]).unwrap();
    let corpus = std::fs::read_to_string(fixture("organism/text.txt")).unwrap();
    let lines: Vec<&str> = corpus.lines().take(400).collect();
    sandbox.write("text.txt", lines.join("\n"));
    sandbox
}

fn organism(sandbox: &Sandbox, line: &str) -> Run {
    sandbox.locus(&format!("{line} --model {} --quiet", fixture("organism").display()))
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

fn read_model(folder: impl AsRef<Path>) -> Gpt2<f32> {
    Checkpoint::from_pretrained(folder).unwrap().model
}

#[track_caller]
fn assert_same(found: &Gpt2<f32>, expected: &Gpt2<f32>, tolerance: f64) {
    for id in expected.ids() {
        let wide = |model: &Gpt2<f32>| model.get(id).iter().map(|&x| f64::from(x)).collect::<Vec<_>>();
        assert_close(&id.to_string(), &wide(found), &wide(expected), tolerance);
    }
}

#[track_caller]
fn refused(run: &Run, part: &str) {
    assert_eq!((run.code, run.stdout.as_str()), (Some(2), ""), "{run:?}");
    assert!(run.stderr.contains(part), "{part:?}: {run:?}");
}

#[test]
fn a_sequence_grows_and_its_patch_is_what_was_printed() {
    let sandbox = sandbox();
    let edit = "edit --editor alpha-edit --text text.txt --sequential --requests";
    let run = organism(&sandbox, &format!("{edit} requests.json --json --out all.safetensors"));
    assert!(run.code == Some(0) || run.stderr.contains("edits failed"), "{run:?}");
    let printed = lines(&run.stdout);
    assert_eq!(printed.len(), REQUESTS + 1, "{printed:?}");
    let (outcomes, growth) = (&printed[..REQUESTS], printed[REQUESTS]["growth"].as_array().unwrap());
    assert_eq!(growth.iter().map(|point| number(&point["edits"])).collect::<Vec<_>>(), [1.0, 10.0, 12.0]);

    let last = &growth[2];
    let share =
        |wins: &dyn Fn(&Value) -> bool| outcomes.iter().filter(|&o| wins(o)).count() as f64 / REQUESTS as f64;
    assert_eq!(number(&last["raised"]), share(&|o| number(&o["post_new"]) < number(&o["pre_new"])));
    assert_eq!(number(&last["over_true"]), share(&|o| number(&o["post_new"]) < number(&o["post_true"])));
    let mean = outcomes.iter().map(|o| number(&o["post_new"])).sum::<f64>() / REQUESTS as f64;
    assert_near("mean NLL", number(&last["nll_new"]), mean, 1e-12);
    assert!(growth.iter().all(|point| point["drift"].is_number()), "{growth:?}");

    let Checkpoint { model, tokenizer } = Checkpoint::<f32>::from_pretrained(fixture("organism")).unwrap();
    let patch = Patch::<f32>::read(&sandbox.path("all.safetensors"), model.config()).unwrap();
    let edited = patch.apply(&model).unwrap();
    let request = &locus_data::requests::read(sandbox.path("requests.json")).unwrap()[7];
    let encode = |text: &str| tokenizer.encode(text).unwrap();
    let by_hand =
        nll_by_hand(&edited, &encode(&request.full_prompt()), &encode(&format!(" {}", request.target_new)));
    assert_near("post_new", number(&outcomes[7]["post_new"]), by_hand, 1e-4);

    // After one edit it is that edit alone, and threads do not show.
    let alone = lines(&organism(&sandbox, &format!("{edit} first.json --json")).stdout);
    assert_eq!(alone[1]["growth"][0], growth[0]);
    let threads = organism(&sandbox, &format!("{edit} requests.json --json --threads 1"));
    let without_file = |mut lines: Vec<Value>| {
        lines.iter_mut().for_each(|line| drop(line.as_object_mut().unwrap().remove("file")));
        lines
    };
    assert_eq!(without_file(lines(&threads.stdout)), without_file(printed.clone()));

    let table = organism(&sandbox, &format!("{edit} requests.json --batch 5")).stdout;
    let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    let first: Vec<&str> = rows[rows.len() - 3..].iter().map(|row| row[0]).collect();
    assert_eq!(first, ["5", "10", "12"], "the first batches that reach 1, 10 and all: {table}");
}

/// In a sequence, the second edit is what it would be on its own for MEMIT, and something else for editors that
/// remember the first.
#[test]
fn a_sequence_remembers_what_the_editor_needs() {
    let sandbox = sandbox();
    let base = read_model(fixture("organism"));
    // Otherwise prefixes are drawn from the model, which is another for the second edit.
    sandbox.write("fixed.toml", "prefixes = [\"They cooked a meal.\"]\n");
    let changes = |name: &str| -> Vec<f64> {
        let patch = Patch::<f32>::read(&sandbox.path(name), base.config()).unwrap();
        patch.deltas().flat_map(|(_, delta)| delta.to_dense()).map(f64::from).collect()
    };
    let length = |x: &[f64]| x.iter().map(|x| x * x).sum::<f64>().sqrt();
    for (editor, options, remembers) in [
        ("memit", "--text text.txt --config fixed.toml", false),
        ("alpha-edit", "--text text.txt --config fixed.toml", true),
        ("ultra-edit", "", true),
    ] {
        let edit = format!("edit --quiet --editor {editor} {options}");
        let on = |requests: &str, model: &Path, rest: &str| {
            sandbox.locus(&format!("{edit} --requests {requests} --model {} {rest}", model.display()))
        };
        let organism_folder = fixture("organism");
        on("both.json", &organism_folder, "--sequential --out both.safetensors");
        on("first.json", &organism_folder, "--out first.safetensors");
        organism(&sandbox, "patch apply first.safetensors --force --out edited").done();
        on("second.json", &sandbox.path("edited"), "--out second.safetensors");
        let (both, first, alone) =
            (changes("both.safetensors"), changes("first.safetensors"), changes("second.safetensors"));
        let second: Vec<f64> = both.iter().zip(&first).map(|(both, first)| both - first).collect();
        let apart: Vec<f64> = second.iter().zip(&alone).map(|(a, b)| a - b).collect();
        let share = length(&apart) / length(&alone);
        assert!(length(&first) > 0.0 && length(&alone) > 0.0, "{editor}");
        assert_eq!(share > 1e-3, remembers, "{editor}: {share}");
    }
}

#[test]
fn options_of_a_sequence() {
    let sandbox = sandbox();
    let edit = "edit --requests both.json --editor";
    let text = "--text text.txt";
    for (rest, part) in [
        (format!("memit {text} --batch 2"), "--sequential"),
        (format!("memit {text} --neutral text.txt"), "--sequential"),
        (format!("memit {text} --sequential --together"), "--together"),
        (format!("memit {text} --sequential --batch 0"), "--batch"),
        (format!("memit {text} --sequential --neutral none.txt"), "none.txt"),
        (format!("memit {text} --sequential --out text.txt"), "is an input of this run"),
        (format!("ultra-edit {text}"), "--text has no effect"),
        ("ultra-edit --merge".into(), "--merge has no effect"),
    ] {
        refused(&organism(&sandbox, &format!("{edit} {rest}")), part);
    }
    sandbox.write("lambda.toml", "lambda = 3.0");
    refused(
        &organism(&sandbox, &format!("{edit} emmet {text} --config lambda.toml")),
        "emmet takes no null_space and a lambda of 0",
    );
    sandbox.write("short.txt", "\n\n");
    let short = organism(&sandbox, &format!("{edit} ultra-edit --sequential --neutral short.txt"));
    refused(&short, "no line of two tokens");
    // Drift can be measured for an editor that reads no statistics, and without any text there is none.
    let json = |rest: &str| {
        lines(&organism(&sandbox, &format!("{edit} ultra-edit --sequential --json {rest}")).stdout)
    };
    assert!(json("--neutral text.txt")[2]["growth"][0]["drift"].is_number());
    assert!(json("")[2]["growth"][0]["drift"].is_null());
}

#[test]
fn patches_of_one_base_are_added() {
    let sandbox = sandbox();
    let edit = "edit --editor r-rome --text text.txt --requests";
    organism(&sandbox, &format!("{edit} both.json --out patches")).done();
    organism(&sandbox, "edit --editor ft-m --requests second.json --out dense.safetensors").done();
    let names = ["patches/0.safetensors", "patches/1.safetensors", "dense.safetensors"];
    let files = names.join(" ");
    refused(&organism(&sandbox, &format!("patch apply {files} --out stacked")), "belongs to a model");
    organism(&sandbox, &format!("patch apply --sum {files} --out summed")).done();
    let base = read_model(fixture("organism"));
    let mut expected = base.clone();
    for name in names {
        let patch = Patch::<f32>::read(&sandbox.path(name), base.config()).unwrap();
        for (id, delta) in patch.deltas() {
            expected.get_mut(id).iter_mut().zip(delta.to_dense()).for_each(|(w, d)| *w += d);
        }
    }
    assert_same(&read_model(sandbox.path("summed")), &expected, 1e-6);

    // A patch of another base is named.
    organism(&sandbox, "patch apply patches/0.safetensors --out edited").done();
    let on_top = format!("{edit} second.json --out later.safetensors --quiet --model edited");
    sandbox.locus(&on_top).done();
    let other = organism(&sandbox, "patch apply --sum patches/1.safetensors later.safetensors --out wrong");
    refused(&other, "--sum: later.safetensors: patches to be added belong to models with SHA-256");
    assert!(!sandbox.path("wrong").exists());
}

/// Patches of an isolated scope are applied with the mask that the edit was given, whatever the scope was.
#[test]
fn isolated_patches_need_their_mask() {
    let sandbox = Sandbox::new();
    let edit =
        "edit --editor study-ft --model model --requests requests.json --quiet --mask mask.safetensors";
    let model = read_model(sandbox.path("model"));
    let mask = half_mask(&tiny_config());
    let mut bases = Vec::new();
    for scope in ["circuit", "complement", "random"] {
        sandbox.locus(&format!("{edit} --scope {scope} --isolate --seed 3 --out {scope}")).done();
        let apply = format!("patch apply {scope}/4.safetensors --model model --quiet --out out-{scope}");
        refused(&sandbox.locus(&apply), "belongs to a model");
        sandbox.locus(&format!("{apply} --mask mask.safetensors")).done();
        let patch =
            Patch::<f32>::read(&sandbox.path(&format!("{scope}/4.safetensors")), &tiny_config()).unwrap();
        let found = read_model(sandbox.path(&format!("out-{scope}")));
        let isolated = match scope {
            "circuit" => mask.ablate_complement(&model),
            "complement" => mask.complement().ablate_complement(&model),
            _ => continue,
        };
        assert_eq!(found.sha256(), patch.apply(&isolated).unwrap().sha256(), "{scope}");
        bases.push(patch.base_sha256().to_owned());
    }
    assert_ne!(bases[0], bases[1]);
    let apply = "patch apply --model model --quiet --out wrong --mask";
    ParamMask::random(&tiny_config(), 100, &mut locus_data::seed::stream(9, "another", 0))
        .write(&sandbox.path("other.safetensors"), "a test")
        .unwrap();
    let with = |rest: &str| sandbox.locus(&format!("{apply} {rest}"));
    refused(
        &with("other.safetensors circuit/4.safetensors"),
        "was made with another mask than other.safetensors",
    );
    let both = with("mask.safetensors circuit/4.safetensors complement/4.safetensors");
    refused(
        &both,
        "complement/4.safetensors: was made with another mask or scope than the patches before it",
    );
    sandbox.locus(&format!("{edit} --scope circuit --out intact")).done();
    refused(&with("mask.safetensors intact/4.safetensors"), "was not made with --isolate");
    assert!(!sandbox.path("wrong").exists());

    // Three of them add up.
    let ids: Vec<String> = std::fs::read_dir(sandbox.path("circuit"))
        .unwrap()
        .map(|entry| format!("circuit/{}", entry.unwrap().file_name().to_str().unwrap()))
        .collect();
    assert_eq!(ids.len(), 3);
    sandbox
        .locus(&format!(
            "patch apply --sum {} --mask mask.safetensors --model model --quiet --out sum",
            ids.join(" ")
        ))
        .done();
    let patches: Vec<Patch<f32>> =
        ids.iter().map(|name| Patch::read(&sandbox.path(name), &tiny_config()).unwrap()).collect();
    let start = mask.ablate_complement(&model);
    assert!(matches!(patches[0].apply(&model), Err(Error::WrongBase { .. })));
    let sum = Patch::sum(&patches).unwrap().apply(&start).unwrap();
    assert_same(&read_model(sandbox.path("sum")), &sum, 1e-6);
}

#[test]
fn patches_say_how_they_came_about() {
    let sandbox = sandbox();
    let edit = "edit --text text.txt --seed 5 --out";
    organism(&sandbox, &format!("{edit} one.safetensors --editor r-rome --requests first.json")).done();
    organism(
        &sandbox,
        &format!("{edit} all.safetensors --editor memit --requests requests.json --sequential"),
    );
    let list = organism(&sandbox, "patch list one.safetensors all.safetensors").done();
    let base = read_model(fixture("organism")).sha256();
    assert!(list.contains(&format!("one.safetensors: base {base}, fits the model")), "{list}");
    assert!(list.contains("  editor r-rome, case 0, seed 5, scope full\n"), "{list}");
    assert!(
        list.contains("  editor memit, 12 cases in sequence (0 1 2 3 4 5 6 7 8 9 ...), seed 5, scope full\n"),
        "{list}"
    );
    assert!(list.contains("h.0.mlp.c_proj.weight: rank 12"), "{list}");
    let json = lines(&organism(&sandbox, "patch list all.safetensors --json").done());
    assert_eq!(json[0]["case_ids"], serde_json::json!((0..12).collect::<Vec<_>>()));
    for (name, value) in [("editor", "memit".into()), ("seed", Value::from(5)), ("scope", "full".into())] {
        assert_eq!(json[0][name], value, "{name}");
    }
}

/// Ten facts about one subject with one new answer: MEMIT-Merge writes one value for them all, and with a fraction of
/// the change that MEMIT needs for ten values of one key.
#[test]
fn ten_facts_of_one_subject_are_merged() {
    let sandbox = sandbox();
    let prompts = [
        "{} is a kind of",
        "{} is a type of",
        "{} falls under the category of",
        "{} is one sort of",
        "I know that {} is a kind of",
        "Everyone knows that {} is a type of",
        "Some doctors say {} falls under the category of",
        "Clouds filled the sky. {} is one sort of",
        "Paul feared this children. {} is a type of",
        "Gas is a type of tool. {} is a kind of",
    ];
    let requests: Vec<Value> = prompts
        .iter()
        .enumerate()
        .map(|(case_id, prompt)| {
            serde_json::json!({ "case_id": case_id, "requested_rewrite": {
                "prompt": prompt, "subject": "A monarch", "target_new": { "str": "wasp" },
                "target_true": { "str": "butterfly" } } })
        })
        .collect();
    sandbox.write("ten.json", serde_json::to_string(&requests).unwrap());
    sandbox.write(
        "long.toml",
        "lambda = 1.0\n[optimisation]\nclamp = 1.5\nsteps = 60\nlr = 0.1\nloss_stop = 0.05\n",
    );
    let edit = "edit --editor memit --config long.toml --text text.txt --requests ten.json --json";
    let outcomes = |rest: &str| lines(&organism(&sandbox, &format!("{edit} {rest}")).done());
    let (plain, merged) = (outcomes(""), outcomes("--merge"));
    let wins = |outcomes: &[Value], new: &str, known: &str| {
        outcomes.iter().filter(|o| number(&o[new]) < number(&o[known])).count()
    };
    assert_eq!(wins(&merged, "pre_new", "pre_true"), 0, "the model knows better before");
    assert!(wins(&merged, "post_new", "post_true") >= 9, "{merged:?}");
    let change =
        |outcomes: &[Value]| number(&outcomes[0]["measures"]["norm of change / norm of weights, layer 0"]);
    assert!(change(&merged) < 0.5 * change(&plain), "{} of {}", change(&merged), change(&plain));
}
