//! Files of key statistics that do not belong to the model or the text.

use crate::support::{Run, Sandbox, fixture};

fn organism(sandbox: &Sandbox, line: &str) -> Run {
    sandbox.locus(&format!("{line} --model {} --quiet", fixture("organism").display()))
}

/// Replaces text of a file's metadata by text of the same length.
fn replace(sandbox: &Sandbox, from: &str, to: &str) {
    let mut bytes = std::fs::read(sandbox.path("keys.safetensors")).unwrap();
    let place = bytes
        .windows(from.len())
        .position(|part| part == from.as_bytes())
        .unwrap_or_else(|| panic!("{from}"));
    assert_eq!(from.len(), to.len());
    bytes[place..place + from.len()].copy_from_slice(to.as_bytes());
    sandbox.write("spoiled.safetensors", bytes);
}

#[test]
fn statistics_of_another_model_or_text_are_refused() {
    let sandbox = Sandbox::empty();
    let corpus = std::fs::read_to_string(fixture("organism/text.txt")).unwrap();
    sandbox.write("text.txt", corpus.lines().take(150).collect::<Vec<_>>().join("\n"));
    let requests = locus_data::requests::read(fixture("organism/data/hierarchy_data.json")).unwrap();
    locus_data::requests::write(sandbox.path("requests.json"), &requests[..1]).unwrap();
    organism(&sandbox, "stats --text text.txt --layers 0 --out keys.safetensors").done();
    let (statistics, provenance) =
        locus_editors::KeyStatistics::read(&sandbox.path("keys.safetensors")).unwrap();
    let edit = "edit --editor r-rome --requests requests.json --stats spoiled.safetensors";
    let stats = "stats --text text.txt --layers 0 --resume --out spoiled.safetensors";
    let refused = |line: &str, why: &str| {
        let before = sandbox.files();
        let run = organism(&sandbox, line);
        assert_eq!((run.code, run.stdout.as_str(), run.stderr.lines().count()), (Some(2), "", 1), "{run:?}");
        assert!(run.stderr.contains("spoiled.safetensors") && run.stderr.contains(why), "{why}: {run:?}");
        assert_eq!(sandbox.files(), before, "nothing is written");
    };
    let sha256 = provenance["model_sha256"].as_str().unwrap();
    replace(&sandbox, sha256, &"0".repeat(64));
    refused(edit, "are of a model with SHA-256");

    let n = statistics.sequences.to_string();
    let sequences = format!("\\\"sequences\\\":{n}");
    for (to, why) in [
        (format!("\\\"sequencez\\\":{n}"), "sequences"),
        (format!("\\\"sequences\\\":{}", "9".repeat(n.len())), "the text has"),
        (format!("\\\"sequences\\\":-{}", "5".repeat(n.len() - 1)), "sequences"),
        (format!("\\\"sequences\\\":{:>width$}", 0, width = n.len()), "keys"),
        (format!("\\\"sequences\\\":{:>width$}", 9, width = n.len()), "keys"),
    ] {
        replace(&sandbox, &sequences, &to);
        refused(stats, why);
    }
    // Statistics in one number type serve a model in the other.
    sandbox.copy(&sandbox.path("keys.safetensors"), "spoiled.safetensors");
    organism(&sandbox, &format!("{edit} --dtype f64")).done();
    organism(&sandbox, edit).done();
}
