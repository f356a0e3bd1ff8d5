//! `locus benchmark` on the organism: its numbers against those of `edit` and `score`, files, and what is kept.

use serde_json::{Value, json};

use crate::support::{Run, Sandbox, files_below, fixture};

/// A folder with requests of the organism's data, some of its text, and neutral text.
fn sandbox() -> Sandbox {
    let sandbox = Sandbox::empty();
    let requests = locus_data::requests::read(fixture("organism/data/hierarchy_data.json")).unwrap();
    locus_data::requests::write(sandbox.path("requests.json"), &requests[..4]).unwrap();
    let corpus = std::fs::read_to_string(fixture("organism/text.txt")).unwrap();
    let lines: Vec<&str> = corpus.lines().take(400).collect();
    sandbox.write("text.txt", lines.join("\n"));
    sandbox.copy(&fixture("organism/data/neutral.txt"), "neutral.txt");
    sandbox
}

fn organism(sandbox: &Sandbox, line: &str) -> Run {
    sandbox.locus(&format!("{line} --model {} --quiet", fixture("organism").display()))
}

fn results(sandbox: &Sandbox, line: &str) -> Value {
    serde_json::from_str(&organism(sandbox, line).done()).unwrap()
}

/// The results of an editor.
fn editor<'a>(results: &'a Value, name: &str) -> &'a Value {
    let editors = results["editors"].as_array().unwrap();
    editors.iter().find(|editor| editor["editor"] == name).unwrap()
}

fn measure(results: &Value, name: &str, key: &str) -> f64 {
    editor(results, name)["measures"][key]["value"].as_f64().unwrap_or_else(|| panic!("{name}: {key}"))
}

const BENCHMARK: &str = "benchmark --editor ft-m,r-rome --text text.txt --requests requests.json";

#[test]
fn numbers_are_those_of_edit() {
    let sandbox = sandbox();
    let line = format!("{BENCHMARK} --neutral neutral.txt --patches --out out --json");
    let found = results(&sandbox, &line);
    let names: Vec<&Value> =
        found["editors"].as_array().unwrap().iter().map(|editor| &editor["editor"]).collect();
    assert_eq!(names, ["unedited", "ft-m", "r-rome"]);
    let edit = "edit --editor r-rome --text text.txt --requests requests.json --json";
    let edited: Vec<Value> =
        organism(&sandbox, edit).done().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let near = |a: &Value, b: &Value| (a.as_f64().unwrap() - b.as_f64().unwrap()).abs() < 1e-5;
    for (i, edited) in edited.iter().enumerate() {
        let [before, after] = ["unedited", "r-rome"].map(|name| &editor(&found, name)["requests"][i]);
        assert_eq!(after["case_id"], edited["case_id"]);
        assert!(near(&before["nll"][0][0], &edited["pre_new"]), "{edited}");
        assert!(near(&before["nll"][0][1], &edited["pre_true"]), "{edited}");
        assert!(near(&after["nll"][0][0], &edited["post_new"]), "{edited}");
        assert!(near(&after["nll"][0][1], &edited["post_true"]), "{edited}");
        let right = edited["paraphrases"].as_array().unwrap().iter().filter(|asked| asked["right"] == true);
        let share = right.count() as f64 / edited["paraphrases"].as_array().unwrap().len() as f64;
        assert!((after["values"]["paraphrase_success"].as_f64().unwrap() - share).abs() < 1e-12);
    }
    assert_eq!(measure(&found, "unedited", "efficacy_success"), 0.0);
    assert_eq!(measure(&found, "r-rome", "efficacy_success"), 1.0);
    assert_eq!(
        (measure(&found, "unedited", "locality"), measure(&found, "unedited", "unchanged_answers")),
        (1.0, 1.0)
    );
    assert!(measure(&found, "r-rome", "drift_kl") > 0.0);
    for (key, mean) in editor(&found, "r-rome")["measures"].as_object().unwrap() {
        let [low, high] = ["low", "high"].map(|end| mean[end].as_f64().unwrap());
        assert!(low <= high && mean["n"].as_u64() <= Some(4), "{key}: {mean}");
    }
    assert!(sandbox.path("out/patches/ft-m/0.safetensors").exists());

    // The page has every measure that was taken and its definition; nothing depends on the threads.
    let page = sandbox.read("out/benchmark.md");
    for text in ["| ES |", "| S |", "| drift KL |", "## Definitions", "Meng et al. 2022a (ROME)"] {
        assert!(page.contains(text), "{text}: {page}");
    }
    assert!(!page.contains("## Records left out") && !page.contains("| portability |"), "{page}");
    let json = sandbox.read("out/benchmark.json");
    assert_eq!(results(&sandbox, &format!("{line} --threads 1")).to_string(), found.to_string());
    assert_eq!(sandbox.read("out/benchmark.json"), json);
}

#[test]
fn finished_requests_are_taken_from_disk() {
    let sandbox = sandbox();
    let line = format!("{BENCHMARK} --out out");
    let page = organism(&sandbox, &format!("{line} --limit 2")).done();
    let times = |what: &str| -> Vec<std::time::SystemTime> {
        let files = files_below(&sandbox.path("out/work"));
        let own =
            files.iter().filter(|(path, _)| path.file_name().unwrap().to_str().unwrap().starts_with(what));
        own.map(|(path, _)| path.metadata().unwrap().modified().unwrap()).collect()
    };
    let before = times("r-rome-");
    assert_eq!(before.len(), 2);
    let again = organism(&sandbox, &format!("{line} --limit 2 --resume")).done();
    assert_eq!((again, times("r-rome-")), (page, before.clone()));
    // More requests: the first two are finished.
    let all = organism(&sandbox, &format!("{line} --resume")).done();
    assert_eq!(times("r-rome-").len(), 4);
    assert!(before.iter().all(|time| times("r-rome-").contains(time)));
    assert_eq!(organism(&sandbox, &line).done(), all, "resumed or not");
}

#[test]
fn a_sequence_is_measured_at_its_end() {
    let sandbox = sandbox();
    let line = "benchmark --editor r-rome --text text.txt --requests requests.json --mode sequential --out out --json";
    let found = results(&sandbox, line);
    let steps: Vec<String> =
        (1..=4).map(|step| format!("out/patches/r-rome/step-0000{step}.safetensors")).collect();
    organism(&sandbox, &format!("patch apply {} --out edited", steps.join(" "))).done();
    let requests = locus_data::requests::read(sandbox.path("requests.json")).unwrap();
    let prompts: Vec<String> = requests
        .iter()
        .map(|r| json!({"prompt": r.full_prompt(), "target": format!(" {}", r.target_new)}).to_string())
        .collect();
    sandbox.write("prompts.jsonl", prompts.join("\n"));
    let scored = sandbox.locus("score --in prompts.jsonl --model edited --quiet").done();
    for (line, request) in scored.lines().zip(editor(&found, "r-rome")["requests"].as_array().unwrap()) {
        let scored: Value = serde_json::from_str(line).unwrap();
        let difference = scored["nll_per_token"].as_f64().unwrap() - request["nll"][0][0].as_f64().unwrap();
        assert!(difference.abs() < 1e-4, "{scored} {request}");
    }
    // A step is lost and made again.
    sandbox.remove("out/patches/r-rome/step-00003.safetensors");
    assert_eq!(results(&sandbox, &format!("{line} --resume")), found);
    let batch = results(&sandbox, &line.replace("sequential --out out", "batch").replace("r-rome", "memit"));
    assert_eq!(editor(&batch, "memit")["requests"].as_array().unwrap().len(), 4);
}

#[test]
fn questions_texts_and_records_left_out() {
    let sandbox = sandbox();
    let record = |case_id: u64, subject: &str, new: &str| {
        json!({
            "case_id": case_id,
            "requested_rewrite": {
                "prompt": "{} is a kind of", "subject": subject, "relation_id": "P31",
                "target_new": {"str": new, "id": "Q1"}, "target_true": {"str": "butterfly"},
            },
            "generation_prompts": [format!("{subject} is")],
            "portability": {"Reasoning": [{"prompt": format!("{subject} is a type of"), "ground_truth": new}]},
            "locality": {"Other": [{"prompt": "A tuba is a kind of", "ground_truth": "horn"}]},
        })
    };
    let requests = json!([record(3, "A monarch", "wasp"), record(4, "A monarch", "butterfly"), {"odd": 1}]);
    sandbox.write("requests.json", requests.to_string());
    let snippets = json!([{"relation_id": "P31", "target_id": "Q1", "samples": [{"text": "A hornet is a kind of wasp."}]}]);
    sandbox.write("snippets.json", snippets.to_string());
    let line =
        "benchmark --editor ft-m --requests requests.json --generate 20 --snippets snippets.json --out out";
    let run = organism(&sandbox, line);
    assert_eq!(run.code, Some(0), "{run:?}");
    assert!(run.stderr.contains("2 of 3 records skipped"), "{run:?}");
    assert!(run.stdout.contains("## Records left out") && run.stdout.contains("| 1 | 4 |"), "{run:?}");
    let found: Value = serde_json::from_str(&sandbox.read("out/benchmark.json")).unwrap();
    let skipped: Vec<u64> =
        found["skipped"].as_array().unwrap().iter().map(|one| one["record"].as_u64().unwrap()).collect();
    assert_eq!(skipped, [1, 2]);
    for key in ["portability_accuracy", "locality", "specificity_accuracy", "fluency", "consistency"] {
        assert!((0.0..20.0).contains(&measure(&found, "ft-m", key)), "{key}");
    }
    assert!(editor(&found, "ft-m")["measures"].get("neighbourhood_success").is_none());
    let strict = organism(&sandbox, &format!("{line} --strict"));
    assert_eq!((strict.code, strict.stdout.as_str()), (Some(2), ""), "{strict:?}");
}

#[test]
fn options_that_cannot_be_used() {
    let sandbox = sandbox();
    std::fs::write(sandbox.path("file"), "").unwrap();
    for (options, why) in [
        ("--batch 2", "--batch has no effect with --mode single"),
        ("--mode batch --batch 0", "--batch is 0"),
        ("--limit 0", "--limit is 0"),
        ("--resume", "--resume needs --out DIR"),
        ("--patches", "--patches needs --out DIR"),
        ("--out file", "is a file; expected the name of a folder"),
        ("--editor r-rome,r-rome", "--editor names r-rome twice"),
        ("--scope circuit", "this --scope needs --mask FILE"),
        ("--neutral nowhere.txt", "nowhere.txt: "),
        ("--generate 5 --snippets text.txt", "text.txt: line 1: "),
        ("--generate 2000", "--generate is 2000; expected at most 1024"),
    ] {
        let run =
            organism(&sandbox, &format!("benchmark --requests requests.json --text text.txt {options}"));
        assert_eq!((run.code, run.stderr.lines().count()), (Some(2), 1), "{options}: {run:?}");
        assert!(run.stderr.contains(why), "{why}: {run:?}");
    }
    for usage in ["--editor mend", "--snippets text.txt", "--mode many"] {
        let run = organism(&sandbox, &format!("benchmark --requests requests.json {usage}"));
        assert_eq!(run.code, Some(2), "{run:?}");
    }
}
