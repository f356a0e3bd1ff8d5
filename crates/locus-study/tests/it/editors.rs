//! `locus edit` with every editor, `stats`, `patch` and `trace`, on the organism.

use locus_editors::{KeyStatistics, Patch};
use locus_gpt2::Checkpoint;
use serde_json::Value;

use crate::support::{Run, Sandbox, fixture};

/// A folder with the first requests of the organism's data and some of its text.
fn sandbox() -> Sandbox {
    let sandbox = Sandbox::empty();
    let requests = locus_data::requests::read(fixture("organism/data/hierarchy_data.json")).unwrap();
    locus_data::requests::write(sandbox.path("requests.json"), &requests[..3]).unwrap();
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

#[test]
fn every_editor_raises_the_target() {
    let sandbox = sandbox();
    let checkpoint = Checkpoint::<f32>::from_pretrained(fixture("organism")).unwrap();
    for editor in ["ft", "ft-l", "ft-m", "lora", "r-rome", "rome", "p-rome"] {
        let line = format!("edit --editor {editor} --requests requests.json --json --out {editor}");
        let line = if editor.contains("rome") { format!("{line} --text text.txt") } else { line };
        let outcomes = lines(&organism(&sandbox, &line).done());
        assert_eq!(outcomes.len(), 3, "{editor}");
        for outcome in &outcomes {
            assert!(outcome["post_new"].as_f64() < outcome["pre_new"].as_f64(), "{editor}: {outcome}");
            assert_eq!(outcome["measures"].is_object(), editor.contains("rome"), "{editor}: {outcome}");
            let path = sandbox.path(&format!("{editor}/{}.safetensors", outcome["case_id"]));
            let patch = Patch::<f32>::read(&path, checkpoint.model.config()).unwrap();
            assert_ne!(patch.apply(&checkpoint.model).unwrap().sha256(), checkpoint.model.sha256());
        }
    }
    // All requests in one patch, MEMIT's own way, and one after the other for others.
    for editor in ["memit", "alpha-edit", "emmet", "ultra-edit", "r-rome --together"] {
        let text = if editor == "ultra-edit" { "" } else { "--text text.txt" };
        let line =
            format!("edit --editor {editor} --requests requests.json {text} --json --out one.safetensors");
        let outcomes = lines(&organism(&sandbox, &line).done());
        assert!(outcomes.iter().all(|o| o["post_new"].as_f64() < o["pre_new"].as_f64()), "{editor}");
        let patch = Patch::<f32>::read(&sandbox.path("one.safetensors"), checkpoint.model.config()).unwrap();
        assert_eq!(patch.deltas().count(), 1, "{editor}: one layer for the organism");
    }
}

#[test]
fn patches_are_listed_applied_merged_and_taken_back() {
    let sandbox = sandbox();
    let edit = "edit --editor r-rome --requests requests.json --text text.txt --out patches --json";
    organism(&sandbox, edit).done();
    let listed = lines(&organism(&sandbox, "patch list patches/0.safetensors --json").done());
    assert_eq!(listed[0]["fits_model"], true);
    assert_eq!(listed[0]["changes"][0]["kind"], "low-rank");

    // A second edit on top of the first, of other requests: applied in order, or merged into one.
    organism(&sandbox, "patch apply patches/0.safetensors --out edited").done();
    let requests = locus_data::requests::read(sandbox.path("requests.json")).unwrap();
    locus_data::requests::write(sandbox.path("others.json"), &requests[1..]).unwrap();
    let second = edit.replace("--out patches", "--out second").replace("requests.json", "others.json");
    let second = format!("{second} --model edited --quiet");
    sandbox.locus(&second).done();
    let both = "patches/0.safetensors second/1.safetensors";
    organism(&sandbox, &format!("patch apply {both} --out twice")).done();
    organism(&sandbox, &format!("patch merge {both} --out merged.safetensors")).done();
    organism(&sandbox, "patch apply merged.safetensors --out once").done();
    let read = |name: &str| Checkpoint::<f32>::from_pretrained(sandbox.path(name)).unwrap().model;
    let (twice, once) = (read("twice"), read("once"));
    for id in twice.ids() {
        let wide = |values: &[f32]| values.iter().map(|&x| f64::from(x)).collect::<Vec<_>>();
        locus_testkit::assert_close("merged", &wide(once.get(id)), &wide(twice.get(id)), 1e-6);
    }
    // Leaving the second out takes it back, to the bit.
    organism(&sandbox, "patch apply patches/0.safetensors --out back").done();
    assert_eq!(read("back").sha256(), read("edited").sha256());

    // The wrong order, and a truncated file.
    let wrong = organism(&sandbox, "patch apply second/1.safetensors --out wrong");
    assert_eq!(wrong.code, Some(2), "{wrong:?}");
    assert!(wrong.stderr.contains("belongs to a model with SHA-256"), "{wrong:?}");
    let bytes = std::fs::read(sandbox.path("patches/0.safetensors")).unwrap();
    std::fs::write(sandbox.path("cut.safetensors"), &bytes[..bytes.len() - 7]).unwrap();
    let cut = organism(&sandbox, "patch apply cut.safetensors --out wrong");
    assert_eq!(cut.code, Some(2));
    assert!(cut.stderr.contains("not a complete safetensors file") && cut.stderr.lines().count() == 1);
    assert!(!sandbox.path("wrong").exists(), "nothing is written");
}

#[test]
fn statistics_are_collected_and_gone_on_with() {
    let sandbox = sandbox();
    let stats = "stats --text text.txt --layers 0,1 --json --out keys.safetensors";
    let first = lines(&organism(&sandbox, &format!("{stats} --tokens 900")).done());
    assert_eq!(first.len(), 2);
    assert!(first[0]["keys"].as_u64().unwrap() >= 900);
    let whole = lines(&organism(&sandbox, stats).done());
    assert!(whole[0]["keys"].as_u64() > first[0]["keys"].as_u64());
    let again = lines(&organism(&sandbox, &format!("{stats} --resume")).done());
    assert_eq!(again, whole, "nothing is counted twice");
    let (statistics, provenance) = KeyStatistics::read(&sandbox.path("keys.safetensors")).unwrap();
    assert_eq!(statistics.layers.len(), 2);
    assert!(provenance["model_sha256"].is_string());
    let with_file = "edit --editor r-rome --requests requests.json --json";
    let from_file = organism(&sandbox, &format!("{with_file} --stats keys.safetensors")).done();
    assert_eq!(from_file, organism(&sandbox, &format!("{with_file} --text text.txt")).done());

    let other = organism(&sandbox, "stats --text text.txt --layers 1 --resume --out keys.safetensors");
    assert_eq!(other.code, Some(2));
    assert!(
        other.stderr.contains("collected with another model, text or set of layers; cannot resume it"),
        "{other:?}"
    );
    let beyond = organism(&sandbox, "stats --text text.txt --layers 4 --out other.safetensors");
    assert_eq!(beyond.code, Some(2));
    assert!(beyond.stderr.contains("layer 4 is not in the model; expected 0 to 3"), "{beyond:?}");
    assert!(!sandbox.path("other.safetensors").exists());
}

#[test]
fn constants_of_located_editors() {
    let sandbox = sandbox();
    let printed = organism(&sandbox, "edit --editor r-rome --print-config").done();
    assert!(printed.contains("# prefixes = [") && printed.contains("[optimisation]"), "{printed}");
    sandbox.write("printed.toml", &printed);
    sandbox
        .write("fewer.toml", "prefixes = [\"They cooked a meal.\"]\nlayer = 1\n[optimisation]\nsteps = 3\n");
    let edit = |config: &str| {
        organism(
            &sandbox,
            &format!("edit --editor r-rome --requests requests.json --text text.txt --json {config}"),
        )
    };
    assert_eq!(edit("--config printed.toml").done(), edit("").done());
    assert!(lines(&edit("--config fewer.toml").stdout).iter().all(|outcome| outcome["steps"] == 2));
    for (text, why) in [
        ("optimisation = []", "optimisation is no table"),
        ("layer = 9", "layer 9 is not in the model; expected 0 to 3"),
        ("variant = \"rome\"", "the constants are for rome; --editor is r-rome"),
        ("speed = 1", "unknown field `speed`"),
        ("ridge = nan", "ridge is not a number"),
        ("[optimisation]\nclamp = 0.0", "clamp is 0; expected a number above 0"),
    ] {
        sandbox.write("wrong.toml", text);
        let run = edit("--config wrong.toml");
        assert_eq!(run.code, Some(2), "{run:?}");
        assert!(run.stderr.contains(why) && run.stderr.contains("wrong.toml"), "{run:?}");
    }
}

#[test]
fn requests_that_cannot_be_edited() {
    let sandbox = sandbox();
    let good = std::fs::read_to_string(sandbox.path("requests.json")).unwrap();
    let edit = "edit --editor r-rome --text text.txt --requests wrong.json --strict --out out";
    for (from, to, why) in [
        ("\"{} is a kind of\"", "\"it is a kind of\"", "exactly one {} in it"),
        ("\"str\": \"wasp\"", "\"str\": \" \"", "target_new"),
        ("\"A monarch\"", "\"\"", "subject"),
    ] {
        assert!(good.contains(from), "{from}");
        sandbox.write("wrong.json", good.replacen(from, to, 1));
        let run = organism(&sandbox, edit);
        assert_eq!(run.code, Some(2), "{run:?}");
        assert!(run.stderr.contains(why) && run.stderr.lines().count() == 1, "{run:?}");
    }
    sandbox.write("wrong.json", &good);
    let missing = organism(&sandbox, "edit --editor memit --requests wrong.json --out out");
    assert_eq!(missing.code, Some(2));
    assert!(missing.stderr.contains("needs key statistics: --stats FILE"), "{missing:?}");
    assert!(!sandbox.path("out").exists(), "nothing is written");
    // An edit that does not work says so with exit code 1, and its model is not written.
    sandbox.write("tiny.toml", "max_update = 1e-6");
    let refused = organism(&sandbox, &format!("{edit} --config tiny.toml"));
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(
        refused.stderr.contains("3 of 3 edits failed") && refused.stdout.contains("failed"),
        "{refused:?}"
    );
    assert!(!sandbox.path("out").exists());
}

fn trace(sandbox: &Sandbox, facts: &str, options: &str) -> Run {
    sandbox.write("facts.json", facts);
    organism(sandbox, &format!("trace --task facts.json {options}"))
}

#[test]
fn facts_are_traced() {
    let sandbox = sandbox();
    let facts = r#"[
        {"prompt": "A monarch is a kind of", "subject": "A monarch", "attribute": "butterfly", "known_id": 1},
        {"prompt": "It is known that a tuba is a kind of", "subject": "a tuba", "attribute": "horn"},
        {"prompt": "A tuba is a kind of", "subject": "A tuba", "attribute": "carpet"}
    ]"#;
    let record = &lines(&trace(&sandbox, facts, "--json").done())[0];
    assert_eq!((record["facts"].as_u64(), record["unknown"].as_u64()), (Some(2), Some(1)));
    let total = record["clean"].as_f64().unwrap() - record["corrupted"].as_f64().unwrap();
    let last = record["effects"]
        .as_array()
        .unwrap()
        .iter()
        .find(|e| e["what"] == "hidden" && e["place"] == "last token");
    assert!((last.unwrap()["by_layer"][3]["value"].as_f64().unwrap() - total).abs() < 1e-5, "{record}");
    assert!(total > 0.1, "{record}");
    // One fact a line is the same; the drawing and the record are files.
    let per_line =
        r#"{"prompt": "A monarch is a kind of", "subject": "A monarch", "attribute": "butterfly"}"#;
    let table = trace(&sandbox, per_line, "--out map.svg").done();
    assert!(table.contains("total effect") && table.contains("last subject token"), "{table}");
    let svg = std::fs::read_to_string(sandbox.path("map.svg")).unwrap();
    assert!(svg.starts_with("<svg") || svg.starts_with("<?xml"), "{}", &svg[..80]);
    trace(&sandbox, per_line, "--out record.json").done();
    let record: Value = serde_json::from_slice(&std::fs::read(sandbox.path("record.json")).unwrap()).unwrap();
    assert!(record["provenance"]["model_sha256"].is_string() && record["tracing"]["facts"] == 1);
    for (facts, options, why, code) in [
        (
            r#"[{"prompt": "A tuba is", "subject": "A horn", "attribute": "x"}]"#,
            "",
            "\"A horn\" is not in the prompt",
            2,
        ),
        (r#"[{"prompt": "A tuba is", "subject": "A tuba"}]"#, "", "attribute", 2),
        ("[]", "", "has no facts", 2),
        (per_line, "--noise -1", "--noise is -1", 2),
        (per_line, "--samples 0", "--samples is 0", 2),
        (per_line, "--samples 18446744073709551615", "expected at most 1000", 2),
        (r#"[{"prompt": "A tuba is", "subject": "A tuba", "attribute": " "}]"#, "", "attribute is empty", 2),
        (
            r#"[{"prompt": "A tuba is a kind of", "subject": "A tuba", "attribute": "carpet"}]"#,
            "",
            "answers all 1 facts wrongly",
            1,
        ),
    ] {
        let options = options.replace("--noise -1", "--noise=-1");
        let run = trace(&sandbox, facts, &format!("{options} --out wrong.json"));
        assert_eq!(run.code, Some(code), "{run:?}");
        assert!(run.stderr.contains(why) && run.stderr.lines().count() == 1, "{run:?}");
        assert!(!sandbox.path("wrong.json").exists());
    }
}
