//! `locus reproduce --quick`: all files are there, and equal inputs give equal bytes however they were computed.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use locus_gpt2::Config;
use serde_json::Value;

use crate::support::{Sandbox, files_below, fixture, locus, shared_data, tiny_config};
use crate::tables;

/// Runs `reproduce --quick` with three densities; the model's own data are the organism's.
struct Study {
    sandbox: Sandbox,
}

impl Study {
    fn new() -> Self {
        let sandbox = Sandbox::empty();
        sandbox.put_model("model", &tiny_config());
        for (path, _) in files_below(&fixture("organism/data")) {
            sandbox.copy(&path, &format!("model/data/{}", path.file_name().unwrap().to_str().unwrap()));
        }
        Study { sandbox }
    }

    fn run(&self, options: &str) -> String {
        let line = format!("reproduce --quick --quiet --model model --densities 0.25 {options}");
        self.sandbox.locus(&line).done()
    }

    fn out(&self, name: &str) -> PathBuf {
        self.sandbox.path(name)
    }
}

/// Every file of a report and its content; what the run keeps for itself is left out.
fn report(out: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let own = |path: &Path| path.starts_with(out.join("work")) || path.starts_with(out.join("masks"));
    files_below(out)
        .into_iter()
        .filter(|(path, _)| !own(path))
        .map(|(path, _)| (path.strip_prefix(out).unwrap().to_owned(), std::fs::read(&path).unwrap()))
        .collect()
}

/// Names of files that differ or are in one report only.
pub fn differences(a: &Path, b: &Path) -> Vec<PathBuf> {
    let (a, b) = (report(a), report(b));
    let only = |a: &[(PathBuf, Vec<u8>)], b: &[(PathBuf, Vec<u8>)]| -> Vec<PathBuf> {
        a.iter().filter(|file| !b.contains(file)).map(|(path, _)| path.clone()).collect()
    };
    let mut differences = [only(&a, &b), only(&b, &a)].concat();
    differences.sort();
    differences.dedup();
    differences
}

/// When each finished unit of work and each mask was written.
pub fn written(out: &Path) -> Vec<(PathBuf, SystemTime)> {
    ["work", "masks"]
        .iter()
        .flat_map(|folder| files_below(&out.join(folder)))
        .filter(|(path, _)| !path.ends_with("plan.json"))
        .map(|(path, _)| (path.clone(), path.metadata().unwrap().modified().unwrap()))
        .collect()
}

fn results(out: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(out.join("results.json")).unwrap()).unwrap()
}

/// Checks that a report is complete, with every table's CSV equal to what `results.json` holds.
fn check_report(out: &Path, tasks: &[&str]) {
    for file in ["results.json", "report.html", "report.md"] {
        assert!(out.join(file).metadata().is_ok_and(|file| file.len() > 1000), "{file}");
    }
    for table in ["T1", "T2", "T3", "T4", "T5", "T6", "T7", "X1", "X1b", "X1c", "X2"] {
        assert!(out.join(format!("tables/{table}.csv")).is_file(), "{table}");
    }
    assert!(tables::check(out) > 200);

    let results = results(out);
    // Editors are compared where there is neutral text.
    let sources = results["provenance"]["data_sha256"].to_string();
    let compared = !results["records"]["editor_outcomes"].as_array().unwrap().is_empty();
    assert_eq!(compared, sources.contains("neutral.txt"));
    let claims: Vec<&str> =
        results["claims"].as_array().unwrap().iter().map(|claim| claim["id"].as_str().unwrap()).collect();
    assert_eq!(claims, ["C1", "C2", "C3", "C4", "C5", "C6", "C7"]);
    let extractions = results["records"]["extractions"].as_array().unwrap();
    for task in tasks {
        assert!(extractions.iter().any(|record| record["task"] == *task), "{task}");
    }
    let html = std::fs::read_to_string(out.join("report.html")).unwrap();
    let sha256 = results["provenance"]["model_sha256"].as_str().unwrap();
    assert!(html.contains(sha256), "the page does not say which weights it is about");
    assert!(html.len() <= 700_000, "{} bytes", html.len());
    assert!(html.contains("id=\"example\"") && html.contains("is a kind of"), "no request in words");
}

const QUICK_TASKS: [&str; 3] = ["hierarchy", "blimp_dna1", "persona_e"];

/// On the authors' own files, where they are.
#[test]
fn the_studys_data_go_through() {
    let Some(data) = shared_data() else { return };
    let sandbox = Sandbox::empty();
    // A longer context, because the organism's tokenizer splits real English into many tokens.
    sandbox.put_model("model", &Config { n_layer: 1, n_embd: 8, n_positions: 256, ..tiny_config() });
    let data = data.join("study");
    let args = ["reproduce", "--quick", "--model", "model", "--out", "out", "--json", "--data"];
    let run = locus(&sandbox.path(""), &[&args[..], &[data.to_str().unwrap()]].concat(), "");
    assert!(run.stderr.lines().any(|line| line.contains("edits: ")), "progress is told: {run:?}");
    let stdout = run.done();

    let out = sandbox.path("out");
    check_report(&out, &QUICK_TASKS);
    let results = results(&out);
    let printed: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(printed, results["claims"], "--json prints the claims");
    let sources = results["provenance"]["data_sha256"].as_array().unwrap();
    assert_eq!(sources.len(), 15);
    for source in sources {
        let bytes = std::fs::read(data.join(source[0].as_str().unwrap())).unwrap();
        assert_eq!(source[1], locus_files::sha256(&bytes), "{source}");
    }
}

/// Notes of a table that say what could not be measured.
fn not_measured(results: &Value, id: &str) -> Vec<String> {
    let table = results["tables"].as_array().unwrap().iter().find(|table| table["id"] == id);
    let notes = table.unwrap_or_else(|| panic!("no table {id}"))["notes"].as_array().unwrap();
    let notes = notes.iter().map(|note| note.as_str().unwrap().to_owned());
    notes.filter(|note| note.starts_with("Not measured: ")).collect()
}

/// Files in the authors' layout, whose rows of one label come first and which have no neutral text.
#[test]
fn the_authors_layout_goes_through() {
    let sandbox = Sandbox::empty();
    sandbox.put_model("model", &tiny_config());
    let data = fixture("authors-layout");
    let line = |options: &str| {
        format!(
            "reproduce --quick --quiet --model model --densities 0.5 --data {} --tables T1,X1,X2 {options}",
            data.display()
        )
    };
    sandbox.locus(&line("--out groups")).done();
    let results_of = |name: &str| results(&sandbox.path(name));
    let groups = results_of("groups");
    tables::check(&sandbox.path("groups"));

    assert_eq!(not_measured(&groups, "T1"), Vec::<String>::new());
    let extractions = groups["records"]["extractions"].as_array().unwrap();
    for task in QUICK_TASKS {
        let rows = |record: &&Value| record["task"] == task && record["held_out_rows"].as_u64() >= Some(8);
        assert!(extractions.iter().any(|record| rows(&record)), "{task}");
    }
    let discoveries = groups["records"]["discoveries"].as_array().unwrap();
    for task in ["hierarchy", "blimp_dna1"] {
        let measured = discoveries.iter().any(|record| record["task"] == task);
        let said = not_measured(&groups, "X1").iter().any(|note| note.contains(task));
        assert!(measured != said, "{task}: measured {measured}, said otherwise {said}");
    }
    let notes = not_measured(&groups, "X2");
    assert!(notes.len() == 1 && notes[0].contains("no neutral.txt"), "{notes:?}");
    for page in ["report.html", "report.md"] {
        let page = sandbox.read(&format!("groups/{page}"));
        assert!(page.contains("Not measured: key statistics and drift need a text"));
    }

    // With a text X2 runs, and the published split gives other circuits.
    sandbox.copy(&fixture("organism/data/neutral.txt"), "text.txt");
    sandbox.locus(&line("--out rows --split rows --text text.txt")).done();
    let rows = results_of("rows");
    assert!(!rows["records"]["editor_outcomes"].as_array().unwrap().is_empty());
    let notes = not_measured(&rows, "X2");
    assert!(notes.len() == 1 && notes[0].contains("neighbourhood"), "{notes:?}");
    assert_ne!(rows["records"]["extractions"], groups["records"]["extractions"]);
    let conventions = |results: &Value| results["provenance"]["conventions"].to_string();
    assert!(conventions(&groups).contains("whole groups") && conventions(&rows).contains("one by one"));
}

/// A task with one class is left out and named; the run goes on.
#[test]
fn a_task_with_one_class_is_left_out() {
    let sandbox = Sandbox::new();
    let one_class: String = (0..20).map(|i| format!("{i},persona number {i} is right,1\n")).collect();
    sandbox.write("data/persona_e.csv", format!(",text,label\n{one_class}"));
    let line = "reproduce --quick --quiet --model model --data data --densities 0.5 --tables T1 --out out";
    sandbox.locus(line).done();
    let results = results(&sandbox.path("out"));
    let expected = "Not measured: persona_e: every row has label 1; expected two classes.";
    assert_eq!(not_measured(&results, "T1"), [expected]);
    let extractions = results["records"]["extractions"].as_array().unwrap();
    assert!(!extractions.is_empty() && extractions.iter().all(|record| record["task"] != "persona_e"));
}

#[test]
fn equal_runs_give_equal_bytes() {
    let study = Study::new();
    let first = study.out("one");
    study.run("--threads 1 --out one");
    check_report(&first, &QUICK_TASKS);

    let second = study.out("two");
    study.run("--threads 2 --out two");
    assert_eq!(differences(&first, &second), Vec::<PathBuf>::new(), "one thread against two");

    // Resuming takes all of it.
    let before = written(&second);
    assert!(before.len() > 20, "{before:?}");
    let stdout = study.run("--threads 2 --out two --resume");
    assert!(stdout.lines().count() >= 8, "{stdout}");
    assert_eq!(written(&second), before, "units were computed again");
    assert_eq!(differences(&first, &second), Vec::<PathBuf>::new(), "resumed");

    // `--tables` is a view: it takes the units that it needs, and leaves the others as they are.
    study.run("--threads 2 --out two --resume --tables T1,X1");
    assert_eq!(written(&second), before, "units were computed again for a view");
    let ids = |out: &Path| -> Vec<String> {
        let results = results(out);
        let tables = results["tables"].as_array().unwrap().iter();
        tables.map(|table| table["id"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(ids(&second), ["T1", "X1", "X1b", "X1c"]);
    study.run("--threads 2 --out two --resume");
    assert_eq!(written(&second), before, "units were computed again after a view");
    assert_eq!(differences(&first, &second), Vec::<PathBuf>::new(), "resumed after a view");

    // A finished run is rendered anew from its records: the same bytes, or other tables elsewhere.
    std::fs::remove_file(second.join("report.html")).unwrap();
    let printed = study.sandbox.locus("report two").done();
    assert_eq!(printed, stdout);
    assert_eq!(differences(&first, &second), Vec::<PathBuf>::new(), "rendered anew");
    // The file of the results names the run, too; another name does not say where the report belongs.
    assert_eq!(study.sandbox.locus("report two/results.json").done(), stdout);
    assert_eq!(differences(&first, &second), Vec::<PathBuf>::new(), "named by its results");
    let run = study.sandbox.locus("report two/report.md");
    assert!(run.code == Some(2) && run.stderr.contains("the folder of a run or its results.json"), "{run:?}");
    study.sandbox.locus("report two --tables t2 --out view").done();
    assert_eq!(ids(&study.out("view")), ["T2"]);
    let run = study.sandbox.locus("report nothing");
    assert!(run.code == Some(2) && run.stderr.contains("nothing"), "{run:?}");
}

/// Committed runs are what `locus report` makes of their records today.
#[test]
fn committed_reports_follow_from_their_records() {
    let sandbox = Sandbox::empty();
    let runs: Vec<PathBuf> = std::fs::read_dir(fixture("../docs/results"))
        .unwrap()
        .map(|run| run.unwrap().path())
        .filter(|run| run.is_dir())
        .collect();
    assert!(!runs.is_empty());
    for run in runs {
        let name = run.file_name().unwrap().to_str().unwrap();
        locus(&sandbox.path(""), &["report", run.to_str().unwrap(), "--out", name], "").done();
        assert_eq!(differences(&run, &sandbox.path(name)), Vec::<PathBuf>::new(), "{name}");
    }
}

/// Resuming with another seed takes nothing: the result is that of a fresh run with that seed.
#[test]
fn other_seeds_give_other_bytes() {
    let study = Study::new();
    let (fresh, resumed) = (study.out("fresh"), study.out("resumed"));
    study.run("--threads 2 --tables T1 --out fresh --seed 2");
    study.run("--threads 2 --tables T1 --out resumed");
    let [other, own] = [&fresh, &resumed].map(|out| results(out));
    assert_ne!(other["records"]["extractions"], own["records"]["extractions"]);
    assert_eq!(other["provenance"]["seed"], 2);

    // Both seeds side by side.
    let page = study.sandbox.locus("aggregate fresh resumed").done();
    assert!(page.contains("# 2 runs of the study") && page.contains("| C7 |"), "{page}");
    study.sandbox.locus("aggregate fresh resumed --out both.json").done();
    let both: Value = serde_json::from_str(&study.sandbox.read("both.json")).unwrap();
    assert_eq!(both["runs"].as_array().unwrap().len(), 2);

    let before = written(&resumed);
    study.run("--threads 1 --tables T1 --out resumed --resume --seed 2");
    assert_eq!(differences(&fresh, &resumed), Vec::<PathBuf>::new(), "resumed with another seed");
    let after = written(&resumed);
    let old: Vec<_> = after.iter().filter(|unit| before.contains(unit)).collect();
    assert!(old.is_empty() && after.len() == before.len(), "{old:?}");
    let run = study.sandbox.locus("aggregate fresh resumed");
    assert!(run.code == Some(2) && run.stderr.contains("is the same run as fresh"), "{run:?}");
}

/// A run that was interrupted: only what is missing is computed, and nothing that was tampered with is taken.
#[test]
fn resuming_fills_gaps() {
    let sandbox = Sandbox::new();
    let run = |options: &str| {
        let line = format!("reproduce --quick --quiet --model model --data data --densities 0.5 {options}");
        sandbox.locus(&line)
    };
    run("--out whole").done();
    let (whole, gaps) = (sandbox.path("whole"), sandbox.path("gaps"));
    for (path, _) in files_below(&whole) {
        let copy = gaps.join(path.strip_prefix(&whole).unwrap());
        std::fs::create_dir_all(copy.parent().unwrap()).unwrap();
        std::fs::copy(path, copy).unwrap();
    }

    let unit = |name: &str| ["gaps", "work", name].join("/");
    let lost = ["circuit-scheduled-top-k-persona_e.jsonl", "edit--none-1-full-0.jsonl"].map(unit);
    lost.iter().for_each(|unit| sandbox.remove(unit));
    let half_written = unit("edit-scheduled-top-k-hierarchy-0.5-circuit-0.jsonl");
    sandbox.truncate(&half_written);
    sandbox.remove("gaps/results.json");
    let before = written(&gaps);
    run("--out gaps --resume").done();
    assert_eq!(differences(&whole, &gaps), Vec::<PathBuf>::new());
    let fresh: Vec<PathBuf> =
        written(&gaps).into_iter().filter(|unit| !before.contains(unit)).map(|(path, _)| path).collect();
    let expected = [&lost[0], &lost[1], &half_written].map(|unit| sandbox.path(unit));
    assert!(expected.iter().all(|unit| fresh.contains(unit)), "{fresh:?}");
    let masks = fresh.iter().filter(|path| path.starts_with(gaps.join("masks"))).count();
    assert_eq!(fresh.len(), expected.len() + masks, "more was computed than was missing: {fresh:?}");

    // A mask that was changed is trained again, and with it nothing that does not depend on it.
    let mask = "gaps/masks/scheduled-top-k/hierarchy-0.5.safetensors";
    let before = written(&gaps);
    let good = std::fs::read(sandbox.path(mask)).unwrap();
    let mut bytes = good.clone();
    *bytes.last_mut().unwrap() ^= 1;
    sandbox.write(mask, bytes);
    run("--out gaps --resume").done();
    assert_eq!(differences(&whole, &gaps), Vec::<PathBuf>::new());
    assert_eq!(std::fs::read(sandbox.path(mask)).unwrap(), good);
    let now = written(&gaps);
    let fresh: Vec<_> = now.iter().filter(|unit| !before.contains(unit)).collect();
    let units = fresh.iter().filter(|(path, _)| path.starts_with(gaps.join("work"))).count();
    assert_eq!(units, 1, "{fresh:?}");
}

/// `--tables` leaves out what was not asked for, and the work behind it.
#[test]
fn only_the_tables_asked_for() {
    let sandbox = Sandbox::new();
    let line = "reproduce --quick --quiet --model model --data data --tables t1,T6 --out out";
    sandbox.locus(line).done();
    let out = sandbox.path("out");
    assert!(tables::check(&out) > 50);
    let results = results(&out);
    let ids: Vec<&str> =
        results["tables"].as_array().unwrap().iter().map(|table| table["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["T1", "T6", "T6b"]);
    assert_eq!(results["records"]["edits"], Value::Array(Vec::new()));
}
