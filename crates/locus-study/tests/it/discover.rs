//! `locus discover` and `locus selftest`.

use locus_circuits::edges::{
    Attribution, CircuitFile, Pair, ProbDiff, QuadratureRule, StandardAblation, attribute_edges, edge_mask,
};
use locus_data::StudyData;
use locus_gpt2::{Checkpoint, ParamMask, Tokenizer};
use locus_protocol::{PAIR_TASKS, agreement_pairs};
use locus_testkit::assert_close;
use serde_json::Value;

use crate::refused::{Case, check};
use crate::support::{PAIRS, Sandbox, fixture, shared_data};

const DISCOVER: &str = "discover --model model --task pairs.jsonl";
fn pairs(sandbox: &Sandbox) -> (Checkpoint<f64>, Vec<Pair>) {
    let checkpoint = Checkpoint::<f64>::from_pretrained(sandbox.path("model")).unwrap();
    let ids = |text: &Value| checkpoint.tokenizer.encode(text.as_str().unwrap()).unwrap();
    let all = |texts: &Value| texts.as_array().unwrap().iter().flat_map(ids).collect();
    let pairs = PAIRS
        .lines()
        .map(|line| {
            let line: Value = serde_json::from_str(line).unwrap();
            Pair {
                clean: ids(&line["clean"]),
                corrupted: ids(&line["corrupted"]),
                correct: all(&line["correct"]),
                incorrect: all(&line["incorrect"]),
            }
        })
        .collect();
    (checkpoint, pairs)
}

#[test]
fn scores_are_the_librarys_in_the_layout_of_eap_ig() {
    let sandbox = Sandbox::new();
    let (checkpoint, pairs) = pairs(&sandbox);
    let method = "--method eap-ig-inputs --ig-rule left --ig-steps 3 --metric prob-diff";
    let line = sandbox
        .locus(&format!(
            "{DISCOVER} {method} --dtype f64 --edges 12 --json --out new/scores.json --mask-out mask.st"
        ))
        .done();
    let CircuitFile { scores, circuit, .. } = CircuitFile::read(&sandbox.path("new/scores.json")).unwrap();
    let rule = Attribution::IgInputs(QuadratureRule::Left, 3);
    let expected =
        attribute_edges(&checkpoint.model, &pairs, &ProbDiff, rule, &StandardAblation::Corrupted).unwrap();
    assert_close("scores", scores.matrix().as_slice().unwrap(), expected.matrix().as_slice().unwrap(), 1e-12);
    let file: Value = serde_json::from_str(&sandbox.read("new/scores.json")).unwrap();
    assert_eq!(file["edges"].as_object().unwrap().len(), 46);
    assert_eq!(file["cfg"]["n_layers"], 2);
    let conventions = &file["conventions"];
    assert_eq!(conventions["sign"], "delta_loss_when_corrupted");
    assert_eq!(conventions["ig_rule"], "left");
    assert_eq!(conventions["ablation"], "corrupted");
    assert_eq!((conventions["ig_steps"].as_u64(), conventions["bos"].as_bool()), (Some(3), Some(false)));
    let printed: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(printed["edges"], circuit.count());
    assert_eq!((printed["requested"].as_u64(), printed["graph"].as_u64()), (Some(12), Some(46)));
    let config = checkpoint.model.config();
    assert_eq!(ParamMask::read(&sandbox.path("mask.st"), config).unwrap(), edge_mask(&circuit, config));
}

#[test]
fn every_method_runs_and_threads_do_not_show() {
    let sandbox = Sandbox::new();
    for method in [
        "eap",
        "clean-corrupted",
        "eap-ig-inputs",
        "eap-ig-activations",
        "relp",
        "atp-qk",
        "atp-star",
        "exact",
        "activation-magnitude",
        "random",
        "acdc --threshold 0.001",
        "edge-pruning --steps 20 --edges 12 --rivals 2",
    ] {
        for extension in ["json", "csv", "dot"] {
            for threads in [1, 2] {
                sandbox
                    .locus(&format!(
                        "{DISCOVER} --method {method} --threads {threads} --out {threads}.{extension}"
                    ))
                    .done();
            }
            let one = sandbox.read(&format!("1.{extension}"));
            assert_eq!(one, sandbox.read(&format!("2.{extension}")), "{method} {extension}");
        }
    }
    for ablation in ["zero", "mean", "mean-per-position"] {
        let out =
            sandbox.locus(&format!("{DISCOVER} --method eap --ablation {ablation} --select greedy --signed"));
        assert!(out.done().contains("faithfulness"));
    }
}

/// A CSV with lists, and the organism's knowledge: the circuit of a tenth of the edges keeps most of it.
#[test]
fn csv_on_the_organism() {
    let sandbox = Sandbox::empty();
    sandbox.write(
        "pairs.csv",
        "clean,corrupted,correct,incorrect\nA rose is a kind of,A oak is a kind of,\"[\"\" flower\"\"]\",\"[\"\" tree\"\"]\"\n",
    );
    let model = fixture("organism");
    let out = sandbox
        .locus(&format!("discover --model {} --task pairs.csv --edges 60 --json", model.display()))
        .done();
    let printed: Value = serde_json::from_str(&out).unwrap();
    assert!(printed["clean"].as_f64().unwrap() > 1.0, "{out}");
    assert!(printed["faithfulness"].as_f64().unwrap() > 0.8, "{out}");
}

/// The public pairs lie in the shared data; their answers are not single tokens of the organism's tokenizer, so that
/// the parser is what is tested: the error is about the answer, not the columns.
#[test]
fn the_public_pairs_are_understood() {
    let Some(data) = shared_data() else { return };
    let sandbox = Sandbox::new();
    for (file, kind) in [("greater_than_data.csv", "greater-than"), ("ioi_llama.csv", "ioi")] {
        let task = data.join("pairs").join(file);
        let run = sandbox
            .locus(&format!("discover --model model --task {} --task-kind {kind} --quiet", task.display()));
        assert_eq!(run.code, Some(2), "{run:?}");
        assert!(run.stderr.contains("tokens; expected"), "{run:?}");
    }
}

/// Pairs of the agreement tasks on the authors' files, where a twin is a thousand rows away, with GPT-2's tokenizer.
#[test]
fn the_authors_agreement_tasks_give_pairs() {
    let Some(data) = shared_data() else { return };
    let tokenizer = Tokenizer::read(&data.join("gpt2-tokenizer")).unwrap();
    let study = StudyData::read(data.join("study")).unwrap();
    for name in PAIR_TASKS.iter().filter(|name| name.starts_with("blimp")) {
        let pairs = agreement_pairs(&tokenizer, &study.task(name).unwrap().rows, usize::MAX).unwrap();
        assert!(pairs.len() >= 96, "{name}: {} pairs", pairs.len());
        println!("{name}: {} pairs", pairs.len());
        let equal = |pair: &Pair| pair.clean.len() == pair.corrupted.len() && pair.clean != pair.corrupted;
        assert!(pairs.iter().all(equal), "{name}");
    }
}

#[test]
fn unusable_tasks_are_refused() {
    const COMMAND: &[&str] = &["discover --model model --task pairs.jsonl --strict"];
    check(&[
        Case {
            what: "prompts of different length",
            commands: COMMAND,
            spoil: |s| s.replace("pairs.jsonl", "A oak is", "A oak tree is"),
            says: &["pairs.jsonl: line 1", "clean", "corrupted", "expected equal numbers"],
        },
        Case {
            what: "an answer of two tokens",
            commands: COMMAND,
            spoil: |s| s.replace("pairs.jsonl", "\" flower\"", "\" flower flower\""),
            says: &["pairs.jsonl: line 1", "correct", "2 tokens; expected one"],
        },
        Case {
            what: "no answer",
            commands: COMMAND,
            spoil: |s| s.replace("pairs.jsonl", "[\" flower\"]", "[]"),
            says: &["pairs.jsonl: line 1", "correct is empty"],
        },
        Case {
            what: "an answer that is correct and incorrect",
            commands: COMMAND,
            spoil: |s| s.replace("pairs.jsonl", "\" dog\"", "\" tree\""),
            says: &["pairs.jsonl: line 2", "both correct and incorrect"],
        },
        Case {
            what: "prompts that are one",
            commands: COMMAND,
            spoil: |s| s.replace("pairs.jsonl", "A oak is", "A rose is"),
            says: &["pairs.jsonl: line 1", "clean and corrupted are one prompt"],
        },
        Case {
            what: "text that is not UTF-8, on its line",
            commands: COMMAND,
            spoil: |s| s.write("pairs.jsonl", [PAIRS.as_bytes(), b"\xff\n"].concat()),
            says: &["pairs.jsonl: line 3: text is not UTF-8"],
        },
        Case {
            what: "a missing field",
            commands: COMMAND,
            spoil: |s| s.replace("pairs.jsonl", "\"incorrect\"", "\"wrong\""),
            says: &["pairs.jsonl: line 1", "missing field `incorrect`"],
        },
        Case {
            what: "a former name of a field",
            commands: COMMAND,
            spoil: |s| s.replace("pairs.jsonl", "\"correct\"", "\"good\""),
            says: &["pairs.jsonl: line 1", "field \"good\" is now called \"correct\""],
        },
        Case {
            what: "an empty file",
            commands: COMMAND,
            spoil: |s| s.write("pairs.jsonl", ""),
            says: &["pairs.jsonl", "holds no records"],
        },
        Case {
            what: "no such file",
            commands: COMMAND,
            spoil: |s| s.remove("pairs.jsonl"),
            says: &["pairs.jsonl", "cannot read"],
        },
    ]);
}

#[test]
fn arguments_out_of_range_are_refused() {
    let sandbox = Sandbox::new();
    for (wrong, says) in [
        ("--edges 0", "--edges is 0; expected 1 to 46"),
        ("--edges 47", "--edges is 47"),
        ("--ig-steps 0", "--ig-steps is 0"),
        ("--ig-steps 18446744073709551615", "expected at most 10000"),
        ("--ig-steps 1000000000", "expected at most 10000"),
        ("--method eap --metric kl", "has no gradient at the clean run"),
        ("--method eap-ig-inputs --ablation zero", "--ablation corrupted"),
        ("--reference zero", "--reference is now called --ablation"),
        ("--rivals 2", "expected --method edge-pruning"),
        ("--method acdc --threshold 0", "--threshold is 0; expected a number above 0"),
        ("--method edge-pruning --steps 0", "--steps is 0"),
        ("--method edge-pruning --rivals 0", "--rivals is 0"),
        ("--method edge-pruning --hybrid --ablation zero", "--ablation corrupted"),
        (
            "--positions --method exact",
            "--positions takes scores that are sums over tokens; expected --method eap",
        ),
        ("--positions --method atp-qk", "expected --method eap"),
        ("--positions --units nodes", "--positions keeps edges"),
        ("--positions --select greedy", "expected --select top-n"),
        ("--positions --mask-out m.safetensors", "--positions has no --mask-out"),
        ("--positions", "pair 1 has "),
    ] {
        let run = sandbox.locus(&format!("{DISCOVER} {wrong} --quiet --out new/scores.json"));
        assert_eq!((run.code, run.stdout.as_str()), (Some(2), ""), "{wrong}");
        assert!(run.stderr.contains(says), "{run:?}");
        assert!(!sandbox.path("new").exists());
    }
}

/// Every two rivals are compared, beside chance; the first is the circuit that is written.
#[test]
fn rivals_are_listed_with_what_they_share() {
    let sandbox = Sandbox::new();
    let method = "--method edge-pruning --hybrid --steps 30 --edges 12 --rivals 3 --out circuit.json";
    let out = sandbox.locus(&format!("{DISCOVER} {method} --json")).done();
    let circuit = CircuitFile::from_json(&sandbox.read("circuit.json")).unwrap().circuit;
    let graph = circuit.graph();
    let listed: Value = serde_json::from_str(out.lines().last().unwrap()).unwrap();
    let rivals = listed["rivals"].as_array().unwrap();
    let names: Vec<String> = circuit.edges().map(|edge| graph.name(edge)).collect();
    assert_eq!((rivals.len(), &rivals[0]["edges"]), (3, &Value::from(names)));
    assert!(rivals.iter().all(|rival| (0.0..=1.0).contains(&rival["agreement"].as_f64().unwrap())));
    let compared: Vec<&Value> =
        listed["overlaps"].as_array().unwrap().iter().map(|o| &o["circuits"]).collect();
    assert_eq!(compared, [&Value::from([1, 2]), &Value::from([1, 3]), &Value::from([2, 3])]);
    let table = sandbox.locus(&format!("{DISCOVER} {method}")).done();
    assert!(table.contains("\noverlap ") && table.contains("\n2 and 3 "), "{table}");
    let file: Value = serde_json::from_str(&sandbox.read("circuit.json")).unwrap();
    assert_eq!(file["conventions"]["sign"], "log_alpha");
}

/// Pairs that cannot be used are listed and left out, on stderr and in JSON.
#[test]
fn unusable_pairs_are_left_out() {
    let sandbox = Sandbox::new();
    let expected = sandbox.locus(&format!("{DISCOVER} --json --seed 3")).done();
    let same =
        r#"{"clean":"A rose is a","corrupted":"A rose is a","correct":[" flower"],"incorrect":[" tree"]}"#;
    sandbox.write("pairs.jsonl", format!("{{\"clean\":3}}\n{PAIRS}\n{same}\n"));
    let run = sandbox.locus(&format!("{DISCOVER} --json --seed 3 --quiet"));
    assert_eq!(run.code, Some(0), "{run:?}");
    let (own, skipped) = run.stdout.trim_end().split_once('\n').unwrap();
    assert_eq!(own, expected.trim_end(), "the others are what they were");
    let skipped: Value = serde_json::from_str(skipped).unwrap();
    assert_eq!(
        (skipped["skipped"][0]["record"].as_u64(), skipped["skipped"][1]["record"].as_u64()),
        (Some(0), Some(3))
    );
    assert!(skipped["skipped"][1]["reason"].as_str().unwrap().starts_with("line 5: clean and corrupted"));
    assert!(run.stderr.contains("record 0 skipped: line 1: invalid type"), "{run:?}");
    assert!(run.stderr.contains("2 of 4 records skipped"), "{run:?}");

    sandbox.write("pairs.jsonl", format!("{same}\n{same}\n"));
    let run = sandbox.locus(&format!("{DISCOVER} --quiet"));
    assert_eq!((run.code, run.stderr.lines().count()), (Some(2), 1), "{run:?}");
    assert!(run.stderr.contains("none of its 2 records can be used"), "{run:?}");
    // Where the corrupted run is not looked at, it may be the clean one.
    sandbox.locus(&format!("{DISCOVER} --method eap --ablation zero --quiet")).done();
}

/// Scores at positions add up to those of the edges; the files hold what is printed.
#[test]
fn edges_at_positions() {
    let sandbox = Sandbox::new();
    let lines: Vec<&str> = PAIRS.lines().collect();
    sandbox.write("pairs.jsonl", lines[0]);
    sandbox.locus(&format!("{DISCOVER} --method eap --out plain.csv")).done();
    let command = format!("{DISCOVER} --method eap --positions --edges 20");
    let printed: Value =
        serde_json::from_str(&sandbox.locus(&format!("{command} --json --out at.csv")).done()).unwrap();
    let circuit = printed["circuit_edges"].as_array().unwrap();
    assert_eq!(printed["edges"].as_u64(), Some(circuit.len() as u64));
    assert_eq!((printed["requested"].as_u64(), printed["pairs"].as_u64()), (Some(20), Some(1)));
    let length = printed["positions"].as_u64().unwrap() as usize;
    let (mut sums, mut marked) = (std::collections::BTreeMap::<String, f64>::new(), 0);
    let text = sandbox.read("at.csv");
    let mut rows = text.lines();
    assert_eq!(rows.next(), Some("edge,position,score,in_graph"));
    for row in rows {
        let cells: Vec<&str> = row.split(',').collect();
        assert!(cells[1].parse::<usize>().unwrap() < length, "{row}");
        *sums.entry(cells[0].into()).or_default() += cells[2].parse::<f64>().unwrap();
        marked += usize::from(cells[3] == "true");
    }
    assert_eq!(marked, circuit.len());
    let mut largest = 0f64;
    for row in sandbox.read("plain.csv").lines().skip(1) {
        let cells: Vec<&str> = row.split(',').collect();
        let (name, score): (String, f64) = (format!("{}->{}", cells[0], cells[1]), cells[2].parse().unwrap());
        largest = largest.max(score.abs());
        let sum = sums.get(&name).copied().unwrap_or_default();
        assert!((sum - score).abs() < 1e-5, "{name}: {sum} against {score}");
    }
    assert!(largest > 1e-3, "{largest}");
    sandbox.locus(&format!("{command} --out at.json")).done();
    let file: Value = serde_json::from_str(&sandbox.read("at.json")).unwrap();
    assert_eq!(file["positions"].as_u64(), Some(length as u64));
    let inside = |edge: &&Value| edge["in_graph"] == true;
    let edges = file["edges_at_positions"].as_array().unwrap();
    assert_eq!(edges.iter().filter(inside).count(), circuit.len());
    assert!(file["provenance"]["model_sha256"].is_string());
    let table = sandbox.locus(&command).done();
    assert!(
        table.contains("token of the first pair") && table.contains(&format!("{length} positions")),
        "{table}"
    );
    let run = sandbox.locus(&format!("{command} --out at.dot"));
    assert!(run.code == Some(2) && run.stderr.contains("expected a name in .json or .csv"), "{run:?}");
}

/// Without a preference there is nothing to be faithful to.
#[test]
fn faithfulness_is_undefined_when_the_model_has_no_preference() {
    let sandbox = Sandbox::new();
    let pair = |clean: &str, corrupted: &str| {
        format!(
            "{{\"clean\":\"A {clean} is a\",\"corrupted\":\"A {corrupted} is a\",\"correct\":[\" tree\"],\"incorrect\":[\" dog\"]}}\n"
        )
    };
    // One difference with both signs, and a small one: the mean is not 0, but cannot be told from it.
    sandbox.write("pairs.jsonl", [pair("rose", "oak"), pair("oak", "rose"), pair("cat", "dog")].concat());
    let run = sandbox.locus(&format!("{DISCOVER} --json"));
    let printed: Value = serde_json::from_str(&run.done()).unwrap();
    assert!(printed["faithfulness"].is_null(), "{printed}");
    assert!(sandbox.locus(DISCOVER).done().contains("faithfulness undefined"));
}

#[test]
fn planted_circuits_are_found() {
    let out = Sandbox::empty().locus("selftest").done();
    assert_eq!(out.lines().filter(|line| line.starts_with("ok")).count(), 3, "{out}");
}
