//! `locus discover` with nodes and neurons as units.

use serde_json::Value;

use crate::refused::{arguments, check};
use crate::support::Sandbox;

const DISCOVER: &str = "discover --model model --task pairs.jsonl --seed 1";

#[test]
fn circuits_of_nodes() {
    let sandbox = Sandbox::new();
    let printed =
        sandbox.locus(&format!("{DISCOVER} --method relp --units nodes --top 3 --json --out n.json")).done();
    let nodes: Value = serde_json::from_str(printed.lines().next().unwrap()).unwrap();
    let names = |value: &Value| value["node"].as_str().unwrap().to_owned();
    let chosen: Vec<String> = nodes["nodes"].as_array().unwrap().iter().map(names).collect();
    assert_eq!((chosen.len(), nodes["of"].as_u64()), (3, Some(7)));
    let file: Value = serde_json::from_str(&sandbox.read("n.json")).unwrap();
    let mut inside = 0;
    for (name, edge) in file["edges"].as_object().unwrap() {
        if edge["in_graph"].as_bool().unwrap() {
            let (source, destination) = name.split_once("->").unwrap();
            let reader = destination.split('<').next().unwrap();
            assert!(chosen.iter().any(|node| node == source), "{name}");
            assert!(reader == "logits" || chosen.iter().any(|node| node == reader), "{name}");
            inside += 1;
        }
    }
    assert!(inside > 0);
    let all = sandbox.locus(&format!("{DISCOVER} --method eap --units nodes --top 7 --json")).done();
    let measured: Value = serde_json::from_str(all.lines().nth(1).unwrap()).unwrap();
    let [clean, circuit] = ["clean", "circuit"].map(|key| measured[key].as_f64().unwrap());
    assert!((clean - circuit).abs() < 1e-5 * clean.abs().max(1.0), "{all}");
}

#[test]
fn circuits_of_neurons() {
    let sandbox = Sandbox::new();
    for threads in [1, 2] {
        let command = format!("{DISCOVER} --method relp --units neurons --top 9 --threads {threads}");
        assert!(sandbox.locus(&format!("{command} --out {threads}.csv")).done().contains("circuit: 9 of"));
        sandbox.locus(&format!("{command} --json --out {threads}.json")).done();
    }
    for extension in ["csv", "json"] {
        let [one, two] = [1, 2].map(|threads| sandbox.read(&format!("{threads}.{extension}")));
        assert_eq!(one, two);
    }
    let rows = sandbox.read("1.csv");
    assert_eq!(rows.lines().filter(|row| row.ends_with(",true")).count(), 9);
    let file: Value = serde_json::from_str(&sandbox.read("1.json")).unwrap();
    assert_eq!(file["neurons"].as_object().unwrap().len(), rows.lines().count() - 1);
    assert_eq!(file["conventions"]["method"], "relp");
}

#[test]
fn units_that_make_no_sense_are_refused() {
    check(&[
        arguments(&["discover --model model --task pairs.jsonl --top 3"], &["--top", "--units"]),
        arguments(
            &["discover --model model --task pairs.jsonl --units nodes --top 8"],
            &["--top is 8", "1 to 7, the nodes"],
        ),
        arguments(
            &["discover --model model --task pairs.jsonl --units neurons --method atp-star"],
            &["edges alone", "relp"],
        ),
        arguments(
            &["discover --model model --task pairs.jsonl --units neurons --method eap --ablation zero"],
            &["--ablation corrupted"],
        ),
        arguments(&["discover --model model --task pairs.jsonl --method relp --metric kl"], &["--metric kl"]),
    ]);
}
