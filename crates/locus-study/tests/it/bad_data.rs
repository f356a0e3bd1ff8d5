//! Data, requests and prompts that cannot be used.

use crate::refused::{Case, EDIT, REPRODUCE, SCORE, check};
use crate::support::Sandbox;

#[test]
fn labelled_files() {
    check(&[
        Case {
            what: "no column text",
            commands: &[REPRODUCE],
            spoil: |s| s.replace("data/blimp_dna1.csv", "text", "sentence"),
            says: &["data/blimp_dna1.csv: column \"text\" is missing"],
        },
        Case {
            what: "no column label",
            commands: &[REPRODUCE],
            spoil: |s| s.replace("data/persona_umr.csv", "label", "class"),
            says: &["data/persona_umr.csv: column \"label\" is missing"],
        },
        Case {
            what: "a bad label",
            commands: &[REPRODUCE],
            spoil: |s| s.replace("data/hierarchy_label.csv", "right,1", "right,yes"),
            says: &["data/hierarchy_label.csv: line 2: column \"label\" is \"yes\""],
        },
        Case {
            what: "a row of another length",
            commands: &[REPRODUCE],
            spoil: |s| s.replace("data/persona_e.csv", "wrong,0", "wrong,0,0"),
            says: &["data/persona_e.csv: line 3: the row has 4 cells and the header 3"],
        },
        Case {
            what: "no row",
            commands: &[REPRODUCE],
            spoil: |s| s.write("data/persona_ra.csv", ",text,label\n"),
            says: &["data/persona_ra.csv: holds no records"],
        },
        Case {
            what: "a row without text",
            commands: &[REPRODUCE],
            spoil: |s| s.write("data/persona_ra.csv", ",text,label\n0,a,1\n1, ,0\n"),
            says: &["data/persona_ra.csv: line 3: column \"text\" is \" \""],
        },
        Case {
            what: "no UTF-8",
            commands: &[REPRODUCE],
            spoil: |s| s.write("data/persona_hhh.csv", b",text,label\n0,\xff,1\n"),
            says: &["data/persona_hhh.csv: line 2: text is not UTF-8"],
        },
    ]);
}

/// All fourteen labelled files and the requests are needed, also those that the quick profile does not use.
#[test]
fn every_file_of_the_study_is_needed() {
    let sandbox = Sandbox::new();
    let files = sandbox.files();
    let data: Vec<_> =
        files.iter().filter(|(path, _)| path.parent() == Some(&sandbox.path("data"))).collect();
    assert_eq!(data.len(), 15);
    for (path, _) in data {
        let aside = path.with_extension("aside");
        std::fs::rename(path, &aside).unwrap();
        let run = sandbox.locus(&format!("{REPRODUCE} --quiet --out new/out"));
        std::fs::rename(&aside, path).unwrap();
        let name = format!("data/{}: cannot read", path.file_name().unwrap().to_str().unwrap());
        assert_eq!((run.code, run.stdout.as_str()), (Some(2), ""), "{name}");
        assert!(run.stderr.starts_with("locus: ") && run.stderr.lines().count() == 1, "{run:?}");
        assert!(run.stderr.contains(&name), "{run:?}");
        assert_eq!(sandbox.files(), files, "something was written");
    }
}

#[test]
fn no_data_folder() {
    check(&[Case {
        what: "no data folder",
        commands: &["reproduce --quick --model model --data elsewhere"],
        spoil: |_| (),
        says: &["elsewhere: no such folder"],
    }]);
}

/// One file that goes to `edit` and, as part of the study's data, to `reproduce`.
const BOTH: &[&str] = &[STRICT_EDIT, REPRODUCE];
/// Without `--strict`, `edit` leaves records out that it cannot use.
const STRICT_EDIT: &str = "edit --editor study-ft --model model --requests requests.json --strict";
const FILES: [&str; 2] = ["requests.json", "data/hierarchy_data.json"];

fn replace_in_both(sandbox: &Sandbox, from: &str, to: &str) {
    FILES.iter().for_each(|file| sandbox.replace(file, from, to));
}

#[test]
fn requests() {
    check(&[
        Case {
            what: "a target missing",
            commands: BOTH,
            spoil: |s| replace_in_both(s, "\"str\": \"wasp\"", "\"id\": \"Q1\""),
            says: &[".json: record 0: field requested_rewrite.target_new.str is missing"],
        },
        Case {
            what: "a subject missing",
            commands: BOTH,
            spoil: |s| replace_in_both(s, "\"subject\": \"A robin\"", "\"object\": \"A robin\""),
            says: &[".json: record 2: field requested_rewrite.subject is missing"],
        },
        Case {
            what: "an empty target",
            commands: BOTH,
            spoil: |s| replace_in_both(s, "\"wasp\"", "\"\""),
            says: &[".json: record 0: field requested_rewrite.target_new.str is empty"],
        },
        Case {
            what: "a true target of blanks",
            commands: BOTH,
            spoil: |s| replace_in_both(s, "\"insect\"", "\" \\n \""),
            says: &[".json: record 1: field requested_rewrite.target_true.str is empty"],
        },
        Case {
            what: "a prompt without a place for the subject",
            commands: BOTH,
            spoil: |s| replace_in_both(s, "{} is a", "It is a"),
            says: &[".json: record 0: field requested_rewrite.prompt", "expected exactly one {}"],
        },
        Case {
            what: "two requests of one number",
            commands: BOTH,
            spoil: |s| replace_in_both(s, "\"case_id\": 6", "\"case_id\": 4"),
            says: &[".json: record 2: field case_id is 4 as in record 0"],
        },
        Case {
            what: "requests cut off",
            commands: BOTH,
            spoil: |s| FILES.iter().for_each(|file| s.truncate(file)),
            says: &[".json: line ", "not JSON"],
        },
        Case {
            what: "something else than requests",
            commands: BOTH,
            spoil: |s| FILES.iter().for_each(|file| s.write(file, "{}")),
            says: &[".json: line 1: the file holds an object"],
        },
        Case {
            what: "no requests",
            commands: BOTH,
            spoil: |s| FILES.iter().for_each(|file| s.write(file, "[]")),
            says: &[".json: holds no records"],
        },
    ]);
}

/// The messages above are the same for both files; this is which of them is named.
#[test]
fn the_file_of_the_requests_is_named() {
    check(&[
        Case {
            what: "requests.json missing",
            commands: &[EDIT],
            spoil: |s| s.remove(FILES[0]),
            says: &["requests.json: cannot read"],
        },
        Case {
            what: "requests.json cut off",
            commands: &[EDIT],
            spoil: |s| s.truncate(FILES[0]),
            says: &["locus: requests.json: line "],
        },
        Case {
            what: "hierarchy_data.json cut off",
            commands: &[REPRODUCE],
            spoil: |s| s.truncate(FILES[1]),
            says: &["locus: data/hierarchy_data.json: line "],
        },
    ]);
}

/// Adds a third line after a blank one: numbers are those of the file.
fn add_prompt(sandbox: &Sandbox, line: &str) {
    sandbox.write("prompts.jsonl", sandbox.read("prompts.jsonl") + "\n" + line + "\n");
}

#[test]
fn prompts() {
    check(&[
        Case {
            what: "no file",
            commands: &[SCORE],
            spoil: |s| s.remove("prompts.jsonl"),
            says: &["prompts.jsonl: ", "No such file"],
        },
        Case {
            what: "a field missing",
            commands: &[SCORE],
            spoil: |s| add_prompt(s, "{\"prompt\": \"A cat\"}"),
            says: &["prompts.jsonl: line 3: missing field `target`"],
        },
        Case {
            what: "a number for a text",
            commands: &[SCORE],
            spoil: |s| add_prompt(s, "{\"prompt\": 3, \"target\": \" x\"}"),
            says: &["prompts.jsonl: line 3: ", "expected a string"],
        },
        Case {
            what: "no JSON",
            commands: &[SCORE],
            spoil: |s| add_prompt(s, "{\"prompt\": \"A cat\", "),
            says: &["prompts.jsonl: line 3: ", "EOF"],
        },
        Case {
            what: "an empty target",
            commands: &[SCORE],
            spoil: |s| add_prompt(s, "{\"prompt\": \"A cat\", \"target\": \"\"}"),
            says: &["prompts.jsonl: line 3: target \"\" tokenises to nothing"],
        },
        Case {
            what: "an empty prompt",
            commands: &[SCORE],
            spoil: |s| add_prompt(s, "{\"prompt\": \"\", \"target\": \" x\"}"),
            says: &["prompts.jsonl: line 3: prompt \"\" tokenises to nothing"],
        },
        Case {
            what: "no UTF-8",
            commands: &[SCORE],
            spoil: |s| s.write("prompts.jsonl", b"{\"prompt\": \"\xff\", \"target\": \" x\"}"),
            says: &["prompts.jsonl: ", "UTF-8"],
        },
    ]);
}
