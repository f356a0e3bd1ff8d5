//! `locus circuit`, and the way from `discover` to it.

use locus_circuits::edges::{CircuitFile, edge_mask};
use locus_gpt2::{Config, ParamMask};
use serde_json::Value;

use crate::support::{Sandbox, fixture};

/// Finds a circuit of the organism on half of 40 pairs, `c.json`.
fn found(options: &str) -> (Sandbox, String, Value) {
    let sandbox = Sandbox::empty();
    let organism = format!("--model {} --task hierarchy --limit 40", fixture("organism").display());
    let out = sandbox.locus(&format!("discover {organism} --method eap-ig-inputs --json {options}")).done();
    (sandbox, organism, serde_json::from_str(out.lines().next().unwrap()).unwrap())
}

fn value(measure: &Value) -> f64 {
    measure["value"].as_f64().unwrap_or_else(|| panic!("{measure}"))
}

#[test]
fn what_discover_finds_is_measured_on_other_pairs() {
    let (sandbox, organism, printed) = found("--out c.json --mask-out m.safetensors");
    assert_eq!((printed["pairs"].as_u64(), printed["held_out"].as_u64()), (Some(20), Some(20)));
    let edges = printed["circuit_edges"].as_array().unwrap();
    assert_eq!(printed["edges"], edges.len());
    let file = CircuitFile::read(&sandbox.path("c.json")).unwrap();
    let first = file.scores.graph().parse(edges[0]["edge"].as_str().unwrap()).unwrap();
    assert!(file.circuit.contains(first) && edges[0]["score"] == file.scores.get(first));
    assert_eq!(file.provenance["split"]["found_on"].as_array().unwrap().len(), 20);

    let evaluate = format!("circuit evaluate --circuit c.json {organism} --removals 4");
    let run = |options: &str| -> Value {
        serde_json::from_str(&sandbox.locus(&format!("{evaluate} --json {options}")).done()).unwrap()
    };
    let report = run("--draws 2 --out report.json");
    let measured = &report["evaluation"];
    assert_eq!(measured["pairs"], 20);
    assert!(report["provenance"]["measured_on"].as_str().unwrap().starts_with("held out"), "{report}");
    assert_eq!(report, serde_json::from_str::<Value>(&sandbox.read("report.json")).unwrap());
    // Discovery and evaluation agree on the circuit of the file.
    let circuit = &measured["circuit"];
    let faithfulness = printed["faithfulness"].as_f64().unwrap();
    assert!((value(&circuit["faithfulness"]) - faithfulness).abs() < 1e-6, "{circuit}");
    assert_eq!(circuit["size"], edges.len());
    assert!(value(&circuit["faithfulness"]) > value(&circuit["random"]) + 0.3, "{circuit}");
    assert!(value(&circuit["complement"]) < 0.5, "{circuit}");
    assert_eq!(circuit["removals"].as_array().unwrap().len(), 4);
    let curve = measured["curve"].as_array().unwrap();
    assert_eq!((curve.len(), curve[9]["selected"].as_u64()), (10, Some(479)));
    for order in ["absolute", "signed", "random"] {
        assert!((value(&curve[9][order]) - 1.0).abs() < 1e-5, "{order}: {}", curve[9]);
    }
    let (areas, random) = (&measured["areas"], &measured["random_areas"]);
    assert!(value(&areas["cpr"]) > value(&random["cpr"]) && value(&areas["cmd"]) < value(&random["cmd"]));

    // Neither the seed nor the number of pairs lets a pair of the discovery slip in.
    let others = run("--draws 2 --seed 5");
    assert_eq!(others["evaluation"]["clean"]["value"], measured["clean"]["value"]);
    assert_eq!(run("--split discovery --draws 0")["evaluation"]["pairs"], 20);
    assert_eq!(run("--split all --draws 0")["evaluation"]["pairs"], 40);
    let table = sandbox.locus(&format!("{evaluate} --draws 2")).done();
    for line in ["CPR, by score", "CMD, by |score|", "same kinds", "incompleteness", "minimality"] {
        assert!(table.contains(line), "{table}");
    }

    // The mask of the circuit, with its weights alone.
    let masked = sandbox
        .locus(&format!("circuit evaluate --circuit m.safetensors {organism} --draws 2 --json"))
        .done();
    let masked: Value = serde_json::from_str(&masked).unwrap();
    let circuit = &masked["evaluation"]["circuit"];
    assert_eq!(masked["provenance"]["ablation"], "zero weights");
    assert!(circuit["size"].as_u64().unwrap() > 0 && masked["evaluation"]["areas"].is_null());
    assert!(value(&circuit["faithfulness"]) > value(&circuit["matched"]), "{circuit}");
}

#[test]
fn threads_do_not_show() {
    let (sandbox, organism, _) = found("--out c.json");
    for threads in [1, 2] {
        let options = format!("--draws 1 --removals 2 --threads {threads} --out {threads}.json");
        sandbox.locus(&format!("circuit evaluate --circuit c.json {organism} {options}")).done();
    }
    assert_eq!(sandbox.read("1.json"), sandbox.read("2.json"));
}

/// A file of another program says nothing of pairs or conventions.
#[test]
fn files_of_other_programs_are_measured_on_one_half() {
    let (sandbox, organism, _) = found("--out c.json");
    let mut file: Value = serde_json::from_str(&sandbox.read("c.json")).unwrap();
    for ours in ["conventions", "provenance"] {
        file.as_object_mut().unwrap().remove(ours);
    }
    sandbox.write("theirs.json", file.to_string());
    let evaluate =
        format!("circuit evaluate --circuit theirs.json {organism} --draws 1 --removals 0 --edges 20%");
    let report: Value = serde_json::from_str(&sandbox.locus(&format!("{evaluate} --json")).done()).unwrap();
    assert_eq!(report["evaluation"]["pairs"], 20);
    let how = report["provenance"]["measured_on"].as_str().unwrap();
    assert!(how.contains("the file does not say on which pairs it was found"), "{how}");
    assert_eq!(report["provenance"]["metric"], "logit-diff");
    let size = report["evaluation"]["circuit"]["size"].as_u64().unwrap();
    assert!((48..=95).contains(&size), "{size}");
}

#[test]
fn layouts_convert_into_each_other() {
    let (sandbox, _, _) = found("--out c.json --mask-out m.safetensors");
    let model = format!("--model {}", fixture("organism").display());
    let convert = |from: &str, to: &str| sandbox.locus(&format!("circuit convert {from} {to} {model}"));
    for (from, to) in [
        ("c.json", "again.json"),
        ("c.json", "c.csv"),
        ("c.csv", "from_csv.json"),
        ("c.csv", "c.dot"),
        ("c.dot", "from_dot.csv"),
        ("c.json", "c.safetensors"),
        ("m.safetensors", "from_mask.json"),
    ] {
        convert(from, to).done();
    }
    assert_eq!(sandbox.read("again.json"), sandbox.read("c.json"), "to the byte");
    let read = |name: &str| CircuitFile::read(&sandbox.path(name)).unwrap();
    let (file, from_csv) = (read("c.json"), read("from_csv.json"));
    assert_eq!(
        (&from_csv.scores, &from_csv.circuit, from_csv.width),
        (&file.scores, &file.circuit, file.width)
    );
    assert_eq!(read("from_dot.csv").circuit, file.circuit);
    let config = Config::read(&fixture("organism/config.json")).unwrap();
    let [mask, discovered] =
        ["c.safetensors", "m.safetensors"].map(|name| ParamMask::read(&sandbox.path(name), &config).unwrap());
    assert_eq!(mask, discovered);
    let from_mask = read("from_mask.json");
    assert_eq!(edge_mask(&from_mask.circuit, &config), mask);
    assert!(file.circuit.edges().all(|edge| from_mask.circuit.contains(edge)));

    let run = convert("c.json", "c.png");
    assert!(run.code == Some(2) && run.stderr.contains("c.png: is no file of a circuit"), "{run:?}");
    let run = convert("c.json", "c.json");
    assert!(run.code == Some(2) && run.stderr.contains("is an input of this run"), "{run:?}");
    let run = convert("c.safetensors", "d.safetensors");
    assert!(run.code == Some(2) && run.stderr.contains("both files are masks"), "{run:?}");
}

/// The circuit inside a page: its JSON, read as a file of a circuit.
fn inside(page: &str) -> CircuitFile {
    let (_, rest) = page.split_once("<script type=\"application/json\" id=\"data\">").unwrap();
    CircuitFile::from_json(rest.split_once("</script>").unwrap().0).unwrap()
}

#[test]
fn pages_show_what_the_files_say() {
    let (sandbox, organism, printed) = found("--out c.json");
    let file = CircuitFile::read(&sandbox.path("c.json")).unwrap();
    let discover = format!("discover {organism} --method eap-ig-inputs --out x.html --threads");
    sandbox.locus(&format!("{discover} 1")).done();
    let page = sandbox.read("x.html");
    let shown = inside(&page);
    assert_eq!((&shown.circuit, &shown.conventions), (&file.circuit, &file.conventions));
    assert_eq!(shown.provenance, file.provenance);
    assert!(file.circuit.edges().all(|edge| shown.scores.get(edge) == file.scores.get(edge)));
    for text in [
        "<h1>Circuit of organism for hierarchy</h1>".to_owned(),
        format!("{} of 479 edges", file.circuit.count()),
        format!("its faithfulness is {:.3} [", printed["faithfulness"].as_f64().unwrap()),
        "Measured on 20 held-out pairs.".to_owned(),
    ] {
        assert!(page.contains(&text), "{text}");
    }
    // Neither threads nor what was there before show.
    sandbox.locus(&format!("{discover} 2")).done();
    assert_eq!(sandbox.read("x.html"), page);

    let evaluate = format!("circuit evaluate --circuit c.json {organism} --draws 2 --removals 2");
    sandbox.locus(&format!("{evaluate} --edges 30 --out e.json --html e.html")).done();
    let (page, report) = (sandbox.read("e.html"), sandbox.read("e.json"));
    let report: Value = serde_json::from_str(&report).unwrap();
    let shown = inside(&page);
    assert_eq!(shown.circuit.count(), report["evaluation"]["circuit"]["size"].as_u64().unwrap() as usize);
    for measure in ["faithfulness", "complement", "random", "matched", "incompleteness"] {
        let number = format!("{:.3}", value(&report["evaluation"]["circuit"][measure]));
        let number = number.replace("-0.000", "0.000").replace('-', "−");
        let cell = format!("<td data-label=\"faithfulness\">{number} ");
        assert!(page.contains(&cell), "{measure}: {cell}");
    }
    assert_eq!(page.matches("<title>by absolute score: ").count(), 10, "sizes of the curve");
    let (_, rest) = page.split_once("id=\"data\">").unwrap();
    let data: Value = serde_json::from_str(rest.split_once("</script>").unwrap().0).unwrap();
    assert_eq!(data["evaluation"], report);
    // What the page saves is a circuit like any other.
    sandbox.write("saved.json", data.to_string());
    sandbox.locus(&format!("circuit evaluate --circuit saved.json {organism} --draws 0 --removals 0")).done();

    for (wrong, says) in [
        ("--html e.png", "the ending .png is no format"),
        ("--html c.json", "the ending .json is no format"),
        ("--out both.html --html both.html", "name one file"),
    ] {
        let run = sandbox.locus(&format!("{evaluate} {wrong} --quiet"));
        assert!(run.code == Some(2) && run.stderr.contains(says), "{run:?}");
    }
    let run = sandbox.locus(&format!("discover {organism} --units neurons --out n.html --quiet"));
    assert!(run.code == Some(2) && run.stderr.contains("neurons have no edges to draw"), "{run:?}");
}

#[test]
fn attribution_graphs_name_model_task_and_scores() {
    let (sandbox, _, _) = found("--out c.json --mask-out m.safetensors");
    let model = format!("--model {}", fixture("organism").display());
    let convert = |line: &str| sandbox.locus(&format!("circuit convert {line} --to neuronpedia {model}"));
    convert("c.json graph.json").done();
    let graph: Value = serde_json::from_str(&sandbox.read("graph.json")).unwrap();
    let file = CircuitFile::read(&sandbox.path("c.json")).unwrap();
    let metadata = &graph["metadata"];
    assert_eq!((&metadata["slug"], &metadata["scan"]), (&"graph".into(), &"organism".into()));
    assert_eq!(metadata["prompt"], "task hierarchy");
    assert_eq!(metadata["generation_settings"]["method"], "eap-ig-inputs");
    let links = graph["links"].as_array().unwrap();
    let total: f64 = links.iter().map(|link| link["weight"].as_f64().unwrap()).sum();
    let scores: f64 = file.circuit.edges().map(|edge| file.scores.get(edge)).sum();
    assert!((total - scores).abs() < 1e-9 * scores.abs(), "{total} against {scores}");

    for (wrong, says) in [
        ("c.json graph.csv", "the ending .csv is no format"),
        ("m.safetensors n.json", "a mask has no scores"),
        ("c.json c.json", "is an input of this run"),
    ] {
        let run = convert(wrong);
        assert!(run.code == Some(2) && run.stderr.contains(says), "{run:?}");
    }
}

#[test]
fn overlap_stands_beside_chance() {
    let (sandbox, organism, _) = found("--out c.json --mask-out c.safetensors");
    for (name, method) in [("random", "random"), ("eap", "eap")] {
        let out = format!("--method {method} --out {name}.json --mask-out {name}.safetensors");
        sandbox.locus(&format!("discover {organism} {out}")).done();
    }
    let out = sandbox.locus("circuit compare c.json eap.json random.json --json --out overlap.json").done();
    let found: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(found.len(), 3, "every two of three");
    let all = |i: usize| &found[i]["overlap"]["all"];
    let number = |value: &Value| value.as_f64().unwrap();
    assert!(number(&all(0)["jaccard"]) > 4.0 * number(&all(0)["expected_jaccard"]), "{}", all(0));
    assert!(number(&all(0)["p_more"]) < 1e-6, "{}", all(0));
    assert!(number(&all(1)["p_more"]) > 1e-4, "c.json against random.json: {}", all(1));
    assert!(number(&found[0]["overlap"]["score_correlation"]) > 0.3, "{}", found[0]);
    assert_eq!(found[0]["overlap"]["layers"].as_array().unwrap().len(), 5);
    let file: Value = serde_json::from_str(&sandbox.read("overlap.json")).unwrap();
    assert_eq!(file["comparisons"].as_array().unwrap(), &found);

    let table = sandbox.locus("circuit compare c.json c.json").done();
    assert!(table.contains("layer 3") && table.contains("logits") && table.contains("1.000"), "{table}");
    let model = format!("--model {}", fixture("organism").display());
    let masks =
        sandbox.locus(&format!("circuit compare c.safetensors eap.safetensors {model} --json")).done();
    let masks: Value = serde_json::from_str(&masks).unwrap();
    assert_eq!(masks["overlap"]["unit"], "parameters");
    let run = sandbox.locus(&format!("circuit compare c.json eap.safetensors {model}"));
    assert!(run.code == Some(2) && run.stderr.contains("expected two of a kind"), "{run:?}");
}

#[test]
fn tasks_by_name() {
    let sandbox = Sandbox::empty();
    let model = format!("--model {}", fixture("organism").display());
    for task in ["agreement", "ioi"] {
        let line = format!("discover {model} --task {task} --limit 12 --method eap --json");
        let printed: Value = serde_json::from_str(&sandbox.locus(&line).done()).unwrap();
        assert_eq!((printed["pairs"].as_u64(), printed["held_out"].as_u64()), (Some(6), Some(6)), "{task}");
        assert!(task == "ioi" || printed["faithfulness"].as_f64().unwrap() > 0.5, "{printed}");
    }
    for (wrong, says) in [
        ("--task greater-than", "no single tokens for the two-digit numbers"),
        (
            "--task sva",
            "--task sva: cannot read such a file; expected one, or the name of a task: hierarchy,",
        ),
        ("--task ioi --limit 0", "--limit is 0"),
        ("--task ioi --held-out 1", "--held-out is 1"),
        ("--task ioi --pairs pairs.jsonl", "cannot be used with"),
        ("--task ioi --edges 200%", "no number of edges"),
        ("--task ioi --out c.png", "c.png: is no file of a circuit"),
    ] {
        let run = sandbox.locus(&format!("discover {model} {wrong} --quiet"));
        assert_eq!((run.code, run.stdout.as_str()), (Some(2), ""), "{run:?}");
        assert!(run.stderr.contains(says), "{run:?}");
    }
}

#[test]
fn circuits_that_cannot_be_used_are_refused() {
    let (sandbox, organism, _) = found("--out c.json --mask-out m.safetensors");
    sandbox
        .locus(&format!("circuit convert c.json c.dot {}", organism.split(" --task").next().unwrap()))
        .done();
    sandbox.write("half.json", &sandbox.read("c.json")[..2000]);
    sandbox.write("edge.json", sandbox.read("c.json").replace("\"m0->m1\"", "\"m1->m0\""));
    sandbox.write(
        "other.json",
        r#"{"cfg":{"n_layers":2,"n_heads":2},"nodes":{},"edges":{"input->m0":{"score":1.0,"in_graph":true}}}"#,
    );
    sandbox.write("empty.json", r#"{"cfg":{"n_layers":4,"n_heads":4},"nodes":{},"edges":{}}"#);
    for (wrong, says) in [
        ("--circuit half.json", "half.json: EOF"),
        ("--circuit edge.json", "edge.json: edges.m1->m0: this graph has no such edge"),
        ("--circuit other.json", "other.json: is a circuit of 2 layers of 2 heads; the model has 4 of 4"),
        ("--circuit empty.json", "empty.json: marks 0 of 479 edges and has no scores that rank them"),
        ("--circuit gone.json", "gone.json"),
        ("--circuit c.json --edges 480", "--edges is 480; expected 1 to 479"),
        ("--circuit c.dot --edges 9", "c.dot: has no scores that rank edges"),
        ("--circuit m.safetensors --edges 4", "--edges has no effect"),
        ("--circuit m.safetensors --ablation zero", "--ablation has no effect"),
        ("--circuit c.json --out c.json", "is an input of this run"),
    ] {
        let run = sandbox.locus(&format!("circuit evaluate {organism} {wrong} --quiet"));
        assert_eq!((run.code, run.stdout.as_str(), run.stderr.lines().count()), (Some(2), "", 1), "{run:?}");
        assert!(run.stderr.contains(says), "{run:?}");
    }
}

/// Rivals are masks on disk that are what the report says; a penalty makes them share less, and what is there is not
/// trained again.
#[test]
fn rivals_of_parameters() {
    let sandbox = Sandbox::new();
    sandbox.copy(&fixture("organism/data/blimp_dna1.csv"), "mine.csv");
    let command = "circuit rivals --model model --task mine.csv --rivals 3 --density 0.3 --steps 6";
    let run = |options: &str| -> Value {
        serde_json::from_str(&sandbox.locus(&format!("{command} --json --quiet {options}")).done()).unwrap()
    };
    let report = run("--penalty 30 --out apart");
    let config = Config::read(&sandbox.path("model/config.json")).unwrap();
    let masks: Vec<ParamMask> = (1..=3)
        .map(|number| {
            ParamMask::read(&sandbox.path(&format!("apart/rival-{number}.safetensors")), &config).unwrap()
        })
        .collect();
    assert_eq!(report["rivals"].as_array().unwrap().len(), 3);
    for (mask, rival) in masks.iter().zip(report["rivals"].as_array().unwrap()) {
        assert_eq!(
            (rival["parameters"].as_u64(), &rival["mask_sha256"]),
            (Some(mask.count() as u64), &mask.sha256().into())
        );
        assert!((mask.density() - 0.3).abs() < 1e-3, "{}", mask.density());
        let agreement = value(&rival["agreement"]);
        assert!((0.0..=1.0).contains(&agreement), "{agreement}");
    }
    let overlaps = report["overlaps"].as_array().unwrap();
    let mut beyond = 0.0;
    for (overlap, (a, b)) in overlaps.iter().zip([(0, 1), (0, 2), (1, 2)]) {
        assert_eq!(overlap["circuits"], Value::from([a + 1, b + 1]));
        assert_eq!(overlap["shared"], masks[a].intersection(&masks[b]).count());
        beyond += overlap["beyond_matched"].as_f64().unwrap() / 3.0;
    }
    assert!(overlaps.len() == 3 && (report["floor"].as_f64().unwrap() - beyond).abs() < 1e-12, "{report}");
    // Without a penalty they are trained alike.
    let free = run("--penalty 0");
    let shared = |report: &Value| report["overlaps"][0]["shared"].as_u64().unwrap();
    assert!(shared(&report) < shared(&free), "{} and {}", shared(&report), shared(&free));

    let written = sandbox.read("apart/rivals.json");
    let modified = || sandbox.path("apart/rival-1.safetensors").metadata().unwrap().modified().unwrap();
    let before = modified();
    assert_eq!(run("--penalty 30 --out apart --threads 1"), report);
    assert_eq!((sandbox.read("apart/rivals.json"), modified()), (written.clone(), before));
    run("--penalty 30 --out again --threads 1");
    assert_eq!(sandbox.read("again/rivals.json"), written, "whatever the number of threads");
    let table = sandbox.locus(&format!("{command} --out apart --penalty 30")).done();
    assert!(table.contains("\n2 and 3 ") && table.contains("beyond matched masks"), "{table}");
}

#[test]
fn rivals_that_cannot_be_sought_are_refused() {
    let sandbox = Sandbox::new();
    for (wrong, says) in [
        ("--task gone.csv", "no such file; expected a CSV file, or one of"),
        ("--task hierarchy", "name the study's data with --data DIR"),
        ("--task hierarchy --data data --density 0", "--density is 0; expected a share above 0"),
        ("--task hierarchy --data data --rivals 0", "--rivals is 0"),
        ("--task hierarchy --data data --penalty=-1", "--penalty is -1; expected a number from 0"),
        ("--task hierarchy --data data --steps 0", "--steps is 0"),
        ("--task hierarchy --data data --out pairs.jsonl", "--out pairs.jsonl: is a file"),
    ] {
        let run = sandbox.locus(&format!("circuit rivals --model model {wrong} --quiet"));
        assert_eq!((run.code, run.stdout.as_str(), run.stderr.lines().count()), (Some(2), "", 1), "{run:?}");
        assert!(run.stderr.contains(says), "{run:?}");
    }
}
