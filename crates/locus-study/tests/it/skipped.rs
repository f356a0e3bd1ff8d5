//! Records that `edit` and `trace` cannot use, and facts that one patch cannot serve.

use serde_json::{Value, json};

use crate::support::{Run, Sandbox, fixture};

fn organism(sandbox: &Sandbox, line: &str) -> Run {
    sandbox.locus(&format!("{line} --model {} --quiet", fixture("organism").display()))
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn corpus(sandbox: &Sandbox) {
    let corpus = std::fs::read_to_string(fixture("organism/text.txt")).unwrap();
    let lines: Vec<&str> = corpus.lines().take(400).collect();
    sandbox.write("text.txt", lines.join("\n"));
}

fn request(case_id: u64, prompt: &str, subject: &str, new: &str, truth: Option<&str>) -> Value {
    let mut rewrite = json!({"prompt": prompt, "subject": subject, "target_new": {"str": new}});
    if let Some(truth) = truth {
        rewrite["target_true"] = json!({"str": truth});
    }
    json!({"case_id": case_id, "requested_rewrite": rewrite})
}

const KIND: &str = "{} is a kind of";

#[test]
fn records_that_cannot_be_edited_are_left_out() {
    let sandbox = Sandbox::empty();
    corpus(&sandbox);
    let long = format!("{} {KIND}", "word ".repeat(400));
    // Fits bare, but not behind the prefixes.
    let nearly = format!("{} {KIND}", "word ".repeat(55));
    let records = json!([
        request(0, KIND, "A monarch", "wasp", Some("butterfly")),
        request(1, &long, "A monarch", "wasp", Some("butterfly")),
        request(2, KIND, "A monarch", "wasp", Some("wasp ")),
        request(3, KIND, "A monarch", " ", Some("butterfly")),
        {"case_id": 4, "something": "else"},
        request(5, &nearly, "A monarch", "wasp", Some("butterfly")),
        request(6, KIND, "A tuba ", "wasp", None),
    ]);
    sandbox.write("requests.json", records.to_string());
    let edit = "edit --editor r-rome --text text.txt --requests requests.json";
    let run = organism(&sandbox, &format!("{edit} --json --out patches"));
    assert_eq!(run.code, Some(0), "{run:?}");
    let printed = lines(&run.stdout);
    let cases: Vec<u64> = printed.iter().filter_map(|line| line["case_id"].as_u64()).collect();
    assert!(cases == [0, 6] || cases == [0, 5, 6], "{printed:?}");
    let last = printed.iter().find(|line| line["case_id"] == 6).unwrap();
    assert!(last["pre_true"].is_null() && last["post_true"].is_null() && last["pre_new"].is_f64(), "{last}");
    let skipped = printed.last().unwrap()["skipped"].as_array().unwrap();
    let records: Vec<u64> = skipped.iter().map(|skipped| skipped["record"].as_u64().unwrap()).collect();
    assert_eq!(records[..4], [1, 2, 3, 4]);
    for (skipped, why) in
        skipped.iter().zip(["takes at most", "is the true one", "is empty", "in no known layout"])
    {
        assert!(skipped["reason"].as_str().unwrap().contains(why), "{skipped} {why}");
        let line = format!("record {}", skipped["record"]);
        assert!(run.stderr.lines().any(|text| text.contains(&line) && text.contains(why)), "{run:?}");
    }
    assert!(run.stderr.contains(&format!("{} of 7 records skipped", skipped.len())), "{run:?}");
    assert!(sandbox.path("patches/0.safetensors").exists() && sandbox.path("patches/6.safetensors").exists());
    let table = organism(&sandbox, edit).done();
    let row = table.lines().find(|row| row.starts_with("6 ")).unwrap();
    let words: Vec<&str> = row.split_whitespace().collect();
    assert_eq!((words[7], words[8], &words[words.len() - 2..]), ("-", "wasp", &["-", "-"][..]), "{table}");

    let strict = organism(&sandbox, &format!("{edit} --strict --out other"));
    assert_eq!((strict.code, strict.stderr.lines().count()), (Some(2), 1), "{strict:?}");
    assert!(strict.stdout.is_empty() && !sandbox.path("other").exists());

    sandbox.write(
        "requests.json",
        json!([request(1, KIND, "A", " ", None), request(2, KIND, "A", "b", Some("b"))]).to_string(),
    );
    let none = organism(&sandbox, &format!("{edit} --out other"));
    assert_eq!((none.code, none.stderr.lines().count()), (Some(2), 1), "{none:?}");
    assert!(none.stderr.contains("none of its 2 records can be used"), "{none:?}");
    assert!(!sandbox.path("other").exists());
}

/// Stray white space changes neither the edit nor its measurement.
#[test]
fn white_space_is_dropped_before_editing_and_measuring() {
    let sandbox = Sandbox::empty();
    corpus(&sandbox);
    let edit = "edit --editor r-rome --text text.txt --requests requests.json --json";
    let mut printed = Vec::new();
    for record in [
        request(0, KIND, "A monarch", "wasp", Some("butterfly")),
        request(0, "{} is a kind of ", "A monarch ", " wasp", Some("butterfly\n")),
        json!({"prompt": " A monarch is a kind of ", "subject": " A monarch", "target_new": "wasp ", "ground_truth": " butterfly"}),
    ] {
        sandbox.write("requests.json", json!([record]).to_string());
        printed.push(organism(&sandbox, edit).done());
    }
    assert_eq!(printed[1], printed[0]);
    assert_eq!(printed[2], printed[0]);
}

#[test]
fn a_token_before_every_prompt() {
    let sandbox = Sandbox::empty();
    corpus(&sandbox);
    sandbox.write(
        "requests.json",
        json!([request(0, KIND, "A monarch", "wasp", Some("butterfly"))]).to_string(),
    );
    sandbox.write(
        "prompts.jsonl",
        json!({"prompt": "<|endoftext|>A monarch is a kind of", "target": " wasp"}).to_string(),
    );
    let edit = "edit --editor r-rome --text text.txt --requests requests.json --json";
    let plain = &lines(&organism(&sandbox, edit).done())[0];
    let behind = &lines(&organism(&sandbox, &format!("{edit} --bos")).done())[0];
    let scored = &lines(&organism(&sandbox, "score --in prompts.jsonl").done())[0];
    assert_ne!(plain["pre_new"], behind["pre_new"]);
    let difference = behind["pre_new"].as_f64().unwrap() - scored["nll_per_token"].as_f64().unwrap();
    assert!(difference.abs() < 1e-5, "{behind} {scored}");

    let fact = json!({"prompt": "A monarch is a kind of", "subject": "A monarch", "attribute": "butterfly"});
    sandbox.write("facts.json", fact.to_string());
    let plain = &lines(&organism(&sandbox, "trace --task facts.json --json").done())[0];
    let behind = &lines(&organism(&sandbox, "trace --task facts.json --json --bos").done())[0];
    assert_ne!(plain["clean"], behind["clean"]);
}

#[test]
fn facts_that_cannot_be_traced_are_left_out() {
    let sandbox = Sandbox::empty();
    let good = json!({"prompt": "A monarch is a kind of", "subject": "A monarch", "attribute": "butterfly"});
    let facts = json!([
        good,
        {"prompt": "A monarch is a kind of", "subject": "monarc", "attribute": "butterfly"},
        {"prompt": "A monarch is a kind of", "subject": "A monarch", "attribute": "butterfly cat dog"},
        {"prompt": format!("{}A monarch is a kind of", "word ".repeat(400)), "subject": "A monarch", "attribute": "butterfly"},
        request(9, KIND, "A monarch", "wasp", Some("butterfly")),
        request(10, KIND, "A monarch", "wasp", None),
    ]);
    sandbox.write("facts.json", facts.to_string());
    let run = organism(&sandbox, "trace --task facts.json --json");
    assert_eq!(run.code, Some(0), "{run:?}");
    let printed = lines(&run.stdout);
    assert_eq!((printed[0]["facts"].as_u64(), printed[0]["unknown"].as_u64()), (Some(2), Some(0)));
    let skipped = printed[1]["skipped"].as_array().unwrap();
    let expected = [
        (1, "is not in the prompt as a word"),
        (2, "is 3 tokens; expected one"),
        (3, "takes at most"),
        (5, "attribute is missing"),
    ];
    assert_eq!(skipped.len(), expected.len(), "{skipped:?}");
    for (skipped, (record, why)) in skipped.iter().zip(expected) {
        assert_eq!(skipped["record"], record);
        assert!(skipped["reason"].as_str().unwrap().contains(why), "{skipped}");
    }
    let strict = organism(&sandbox, "trace --task facts.json --strict");
    assert_eq!((strict.code, strict.stderr.lines().count()), (Some(2), 1), "{strict:?}");
}

#[test]
fn contradictory_facts_are_told_and_not_merged() {
    let sandbox = Sandbox::empty();
    corpus(&sandbox);
    let edit = "edit --editor memit --text text.txt --requests requests.json --json";
    sandbox.write(
        "requests.json",
        json!([
            request(0, KIND, "A monarch", "wasp", Some("butterfly")),
            request(1001, KIND, "A monarch", "dog", Some("butterfly")),
            request(7, KIND, "A tuba", "flower", Some("horn")),
        ])
        .to_string(),
    );
    let run = organism(&sandbox, edit);
    assert!(run.stderr.contains("contradict each other") && run.stderr.contains("0 and 1001"), "{run:?}");
    let printed = lines(&run.stdout);
    assert_eq!(printed[0]["conflicts"], json!([{"case_id": 1001, "kind": "contradiction"}]));
    assert_eq!(printed[1]["conflicts"], json!([{"case_id": 0, "kind": "contradiction"}]));
    assert!(printed[2].get("conflicts").is_none(), "{}", printed[2]);
    let merged = organism(&sandbox, &format!("{edit} --merge --out patch.safetensors"));
    assert_eq!((merged.code, merged.stderr.lines().count()), (Some(2), 1), "{merged:?}");
    assert!(merged.stderr.contains("--merge: cases 0 and 1001"), "{merged:?}");
    assert!(!sandbox.path("patch.safetensors").exists());

    // Two relations of one subject are merged.
    sandbox.write(
        "requests.json",
        json!([
            request(0, KIND, "A monarch", "wasp", Some("butterfly")),
            request(1, "{} is a type of", "A monarch", "dog", Some("butterfly")),
        ])
        .to_string(),
    );
    let run = organism(&sandbox, edit);
    assert!(run.stderr.contains("have nearly one key") && run.stderr.contains("0 and 1 (1.0000)"), "{run:?}");
    let printed = lines(&run.stdout);
    assert_eq!(printed[0]["conflicts"][0]["kind"], "similar-key");
    let merged = organism(&sandbox, &format!("{edit} --merge"));
    assert!(!merged.stderr.contains("nearly one key"), "{merged:?}");
    assert!(lines(&merged.stdout).iter().all(|line| line.get("conflicts").is_none()), "{merged:?}");
    assert_ne!(merged.stdout, run.stdout);
}

#[test]
fn options_without_effect_and_odd_constants_are_refused() {
    let sandbox = Sandbox::empty();
    corpus(&sandbox);
    sandbox.write(
        "requests.json",
        json!([request(0, KIND, "A monarch", "wasp", Some("butterfly"))]).to_string(),
    );
    sandbox.write("list.json", "[]");
    sandbox.write("rank.toml", "rank = 100000\n");
    for (options, why) in [
        ("study-ft --stats nowhere", "--stats has no effect with --editor study-ft"),
        ("lora --text text.txt", "--text has no effect with --editor lora"),
        ("r-rome --text text.txt --merge", "--merge has no effect with --editor r-rome"),
        ("r-rome --text text.txt --tokens 0", "--tokens is 0"),
        ("r-rome --text text.txt --tokens 18446744073709551615", "expected at most"),
        ("study-ft --config list.json", "list.json: expected a table"),
        ("lora --config list.json", "list.json: expected a table"),
        ("lora --config rank.toml", "rank.toml: lora: rank is 100000"),
    ] {
        let run = organism(&sandbox, &format!("edit --requests requests.json --out out --editor {options}"));
        assert_eq!((run.code, run.stderr.lines().count()), (Some(2), 1), "{run:?}");
        assert!(run.stderr.contains(why), "{why}: {run:?}");
    }
}

#[test]
fn places_for_patches_are_checked_before_the_work() {
    let sandbox = Sandbox::empty();
    let two = json!([
        request(0, KIND, "A monarch", "wasp", Some("butterfly")),
        request(1, KIND, "A tuba", "flower", Some("horn")),
    ]);
    sandbox.write("requests.json", two.to_string());
    sandbox.write("file", "");
    std::fs::create_dir_all(sandbox.path("old")).unwrap();
    sandbox.write("old/77.safetensors", "");
    std::fs::create_dir_all(sandbox.path("folder")).unwrap();
    let edit = "edit --editor ft-m --requests requests.json";
    for (out, why) in [
        ("file", "is a file; expected the name of a folder"),
        ("file/below", "file is a file"),
        ("old", "holds 77.safetensors"),
        ("folder --together", "is a folder; expected the name of a file"),
    ] {
        let run = organism(&sandbox, &format!("{edit} --out {out}"));
        assert_eq!((run.code, run.stdout.as_str()), (Some(2), ""), "{run:?}");
        assert!(run.stderr.contains(why), "{why}: {run:?}");
    }
    organism(&sandbox, &format!("{edit} --out patches")).done();
    assert!(sandbox.path("patches/1.safetensors").exists());
}
