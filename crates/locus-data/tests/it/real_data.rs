//! The real files, from `../shared/data` beside the workspace or from `LOCUS_SHARED_DATA`.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use locus_data::{
    EditRequest, EntryKind, Manifest, StudyData, groups, labelled, requests, sample_groups, split_groups,
    task_names,
};

/// The folder; `None`, with a visible message, on a machine that has none. CI must have it.
fn data() -> Option<PathBuf> {
    let dir = std::env::var_os("LOCUS_SHARED_DATA")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data"), PathBuf::from);
    if dir.is_dir() {
        return Some(dir);
    }
    assert!(std::env::var_os("CI").is_none(), "{}: the real data is missing; CI needs it", dir.display());
    // Not `eprintln`, which the test harness swallows when a test passes.
    let _ = writeln!(std::io::stderr(), "SKIPPED: {}: no real data; set LOCUS_SHARED_DATA", dir.display());
    None
}

#[test]
fn the_study_has_the_rows_it_says() {
    let Some(dir) = data() else { return };
    let data = StudyData::read(dir.join("study")).unwrap();
    let names: Vec<&str> = data.tasks.iter().map(|task| task.name.as_str()).collect();
    assert_eq!(names, task_names());
    for task in &data.tasks {
        let expected = match task.name.split('_').next() {
            Some("hierarchy") => 396,
            Some("blimp") => 2000,
            _ => 1000,
        };
        assert_eq!(task.rows.len(), expected, "{}", task.name);
        assert_eq!(2 * task.rows.iter().filter(|row| row.label == 1).count(), expected, "{}", task.name);
    }
    assert_eq!(data.sources.len(), 15);
    assert_eq!(data.neutral, None);

    assert_eq!(data.requests.len(), 198);
    for (i, request) in data.requests.iter().enumerate() {
        assert_eq!(request.case_id, i as u64);
        assert_eq!((request.paraphrase_prompts.len(), request.neighborhood_prompts.len()), (2, 0));
    }
    assert_eq!(data.requests[0].full_prompt(), "A British Shorthair is a kind of");
}

#[test]
fn groups_of_the_studys_rows() {
    let Some(dir) = data() else { return };
    let data = StudyData::read(dir.join("study")).unwrap();
    // Number of groups, and rows of the largest.
    let expected = [
        ("hierarchy", 24, 140),
        ("blimp_dna1", 1000, 2),
        ("blimp_dna2", 1000, 2),
        ("blimp_dnai1", 997, 4),
        ("blimp_dnai2", 998, 4),
        ("blimp_dnawa1", 1000, 2),
        ("blimp_dnawa2", 1000, 2),
        ("blimp_dnawai1", 1000, 2),
        ("blimp_dnawai2", 1000, 2),
    ];
    for task in &data.tasks {
        let groups = groups::groups(&task.rows);
        let number = groups.iter().max().unwrap() + 1;
        let largest = (0..number).map(|g| groups.iter().filter(|&&other| other == g).count()).max().unwrap();
        match expected.iter().find(|(name, ..)| *name == task.name) {
            Some(&(name, n, rows)) => assert_eq!((name, number, largest), (name, n, rows)),
            None => assert!(number > 950 && largest <= 20, "{}: {number} groups, {largest}", task.name),
        }
        if task.name.starts_with("blimp") {
            // The twin of a row is a thousand rows further down. "The Clintons sell this ox." of dnai2 has another one
            // as well, "... this oxen.", which is more alike than "... these ox."
            let twins = groups::twins(&task.rows);
            let elsewhere = twins.iter().filter(|(good, bad)| good + 1000 != *bad).count();
            let expected = if task.name == "blimp_dnai2" { 2 } else { 0 };
            assert_eq!((twins.len(), elsewhere), (1000, expected), "{}", task.name);
        }
        let labels: Vec<usize> = task.rows.iter().map(|row| usize::from(row.label)).collect();
        let split = split_groups(&groups, &labels, 0.8, 1, &task.name);
        let positive = |rows: &[usize]| rows.iter().map(|&row| labels[row]).sum::<usize>();
        let rows = task.rows.len();
        assert!(split.held_out.len().abs_diff(rows / 5) <= 2, "{}: {}", task.name, split.held_out.len());
        assert!((2 * positive(&split.held_out)).abs_diff(split.held_out.len()) <= 2, "{}", task.name);
        let sample = sample_groups(&groups, &labels, 320, 1, &task.name);
        assert!((300..=320).contains(&sample.len()), "{}: {}", task.name, sample.len());
        assert!((2 * positive(&sample)).abs_diff(sample.len()) <= 4, "{}", task.name);
    }
}

#[test]
fn labelled_files_are_rewritten_byte_for_byte() {
    let Some(dir) = data() else { return };
    let files = std::fs::read_dir(dir.join("study")).unwrap().map(|item| item.unwrap().path());
    let files: Vec<_> = files.filter(|path| path.extension().is_some_and(|end| end == "csv")).collect();
    assert_eq!(files.len(), 14);
    for path in files {
        let rows = labelled::read(&path).unwrap();
        assert_eq!(labelled::render(&rows), std::fs::read_to_string(&path).unwrap(), "{}", path.display());
    }
}

fn check_round_trip(list: &[EditRequest]) {
    assert_eq!(requests::parse("again", requests::render(list).as_bytes()).unwrap(), list);
}

#[test]
fn counterfact_in_the_flat_layout() {
    let Some(dir) = data() else { return };
    let list = requests::read(dir.join("counterfact/counterfact-edit-1k.json")).unwrap();
    assert_eq!(list.len(), 1000);
    assert_eq!(list[0].case_id, 3087);
    assert_eq!(list[0].prompt, "{} professionally plays the sport");
    assert_eq!(list[0].full_prompt(), "David Robinson professionally plays the sport");
    assert!(list.iter().all(|r| r.paraphrase_prompts.len() == 1 && r.neighborhood_prompts.len() == 1));
    check_round_trip(&list);
}

#[test]
fn zsre() {
    let Some(dir) = data() else { return };
    let list = requests::read(dir.join("zsre/zsre_mend_train-1k.json")).unwrap();
    // Two of the thousand have no alternative answer.
    assert_eq!(list.len(), 998);
    assert!(list.iter().all(|r| ![534, 723].contains(&r.case_id)));
    assert_eq!(list[0].prompt, "What is the product made by {}?");
    assert_eq!(
        (list[0].target_new.as_str(), list[0].target_true.as_deref()),
        ("unmanned aircraft", Some("uniform"))
    );
    check_round_trip(&list);
}

#[test]
fn known_facts() {
    let Some(dir) = data() else { return };
    let facts = requests::read_known(dir.join("tracing/known_1000.json")).unwrap();
    assert_eq!((facts.usable.len(), facts.skipped.len()), (1209, 0));
    let (_, fact) = &facts.usable[824];
    assert_eq!(
        (fact.case_id, &fact.prompt[fact.subject.clone()]),
        (824, "Co-operative Commonwealth Federation (Ontario Section)")
    );
    // Requests state true facts, too.
    let facts = requests::read_known(dir.join("counterfact/counterfact-edit-1k.json")).unwrap();
    assert_eq!((facts.usable.len(), facts.usable[0].1.attribute.as_str()), (1000, "basketball"));
}

#[test]
fn the_manifest_pins_what_is_here() {
    let Some(dir) = data() else { return };
    let manifest =
        Manifest::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/MANIFEST.toml")).unwrap();
    let sums = std::fs::read_to_string(dir.join("SHA256SUMS")).unwrap();
    let sums: BTreeMap<&str, &str> =
        sums.lines().filter_map(|line| line.split_once("  ")).map(|(hash, path)| (path, hash)).collect();
    let mut listed = 0;
    // Models are not among the data here.
    for entry in manifest.entries.iter().filter(|entry| entry.kind == EntryKind::Data) {
        for file in &entry.files {
            if let Some(hash) = file.pinned() {
                let path = format!("{}/{}", entry.name, file.path);
                assert_eq!(sums.get(path.as_str()), Some(&hash), "{path}");
                listed += 1;
            }
        }
    }
    assert_eq!(listed, sums.len());
}
