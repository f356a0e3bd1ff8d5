//! `locus plan`, `run-unit` and `status`: a run in parts gives the bytes of one run.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::reproduce::{differences, written};
use crate::support::Sandbox;

/// One task, edited at one density and its own: all kinds of unit but those of X1 to X3 in a few seconds.
const STUDY: &str = "--quick --model model --data data --tasks hierarchy --densities 0.5 --mask-seeds 1";

fn units(sandbox: &Sandbox, study: &str) -> Vec<(String, Vec<String>)> {
    let plan: Value = serde_json::from_str(&sandbox.locus(&format!("plan {study}")).done()).unwrap();
    assert!(plan["hours"].as_f64().unwrap() > 0.0);
    let words = study.split(' ').collect::<Vec<_>>();
    assert_eq!(plan["options"], serde_json::to_value(words).unwrap());
    let units = plan["units"].as_array().unwrap().iter().map(|unit| {
        assert!(unit["flops"].as_f64().unwrap() > 0.0 && unit["seconds"].as_f64().unwrap() > 0.0);
        assert!(unit["memory_bytes"].as_u64().unwrap() > 0);
        let needs = unit["needs"].as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_owned());
        (unit["name"].as_str().unwrap().to_owned(), needs.collect())
    });
    units.collect()
}

/// Units one by one, latest first as far as their needs allow, then `reproduce --resume`: the bytes of one run, and
/// nothing is computed again.
#[test]
fn a_run_in_parts_is_the_run() {
    let sandbox = Sandbox::new();
    let study = format!("{STUDY} --tables T1,T7,X2,X3");
    sandbox.locus(&format!("reproduce {study} --quiet --out whole")).done();
    let mut left = units(&sandbox, &study);
    let n = left.len();
    let mut done: Vec<String> = Vec::new();
    while !left.is_empty() {
        let ready = left.iter().rposition(|(_, needs)| needs.iter().all(|name| done.contains(name)));
        let (name, _) = left.remove(ready.expect("the plan has no circle"));
        sandbox.locus(&format!("run-unit {name} {study} --quiet --out parts")).done();
        done.push(name);
        if done.len() == 3 {
            let status: Value = serde_json::from_str(&sandbox.locus("status parts --json").done()).unwrap();
            assert_eq!((&status["done"], &status["report"]), (&3.into(), &false.into()));
            assert_eq!(status["left"].as_array().unwrap().len(), n - 3);
        }
    }
    let before = written(&sandbox.path("parts"));
    sandbox.locus(&format!("reproduce {study} --quiet --resume --out parts")).done();
    assert_eq!(differences(&sandbox.path("whole"), &sandbox.path("parts")), Vec::<std::path::PathBuf>::new());
    assert_eq!(written(&sandbox.path("parts")), before, "something was computed again");
    let status = sandbox.locus("status parts").done();
    assert!(status.contains(&format!("{n} of {n} units done, 0 running, 0 left")), "{status}");
}

/// Two processes on one machine give the bytes of one; a run that is resumed computes nothing again, and says so
/// before.
#[test]
fn jobs_give_the_run_of_one_process() {
    let sandbox = Sandbox::new();
    let study = format!("{STUDY} --tables T1,T7");
    sandbox.locus(&format!("reproduce {study} --quiet --out whole")).done();
    let jobs = |options: &str| {
        sandbox.locus(&format!("reproduce --jobs 2 --threads 2 {study} --quiet --out parts {options}")).done()
    };
    jobs("");
    assert_eq!(differences(&sandbox.path("whole"), &sandbox.path("parts")), Vec::<std::path::PathBuf>::new());
    let before = written(&sandbox.path("parts"));
    jobs("--resume");
    assert_eq!(written(&sandbox.path("parts")), before, "something was computed again");
    let run = sandbox.locus(&format!("reproduce {study} --resume --out parts"));
    assert!(run.stderr.contains("locus: 0 of ") && run.stderr.contains(" units left, about 0 s"), "{run:?}");
    // Without --resume, what an earlier run has left is not taken.
    sandbox.write("parts/work/calibration.jsonl", "of another run");
    jobs("");
    assert_eq!(differences(&sandbox.path("whole"), &sandbox.path("parts")), Vec::<std::path::PathBuf>::new());
    assert_ne!(written(&sandbox.path("parts")), before);
}

#[test]
fn units_say_what_they_need() {
    let sandbox = Sandbox::new();
    let study = format!("{STUDY} --tables T1 --out out");
    let run = sandbox.locus(&format!("run-unit controls-scheduled-top-k-hierarchy {study}"));
    assert_eq!(run.code, Some(1), "{run:?}");
    assert!(run.stderr.contains("needs circuit-scheduled-top-k-hierarchy, which is not finished"), "{run:?}");
    let run = sandbox.locus(&format!("run-unit nonsense {study}"));
    assert_eq!(run.code, Some(2), "{run:?}");
    assert!(run.stderr.contains("\"nonsense\" is no unit of this run"), "{run:?}");
    let run = sandbox.locus("status .");
    assert_eq!(run.code, Some(2), "{run:?}");
    let run = sandbox.locus(&format!("plan {STUDY} --tasks hierarchie"));
    assert_eq!(run.code, Some(2), "{run:?}");
    assert!(run.stderr.contains("is no task"), "{run:?}");
}

/// The Slurm script under a stand-in for `sbatch` that does the jobs at once, and the folder that it leaves.
#[cfg(unix)]
#[test]
fn slurm_arrays_do_the_run() {
    use std::os::unix::fs::PermissionsExt;

    let sandbox = Sandbox::new();
    let study = format!("{STUDY} --tables T1");
    sandbox.locus(&format!("reproduce {study} --quiet --out whole")).done();
    let script = sandbox.locus(&format!("plan {study} --format slurm --out parts")).done();
    sandbox.write("run.sh", script);
    let stand_in = r#"#!/usr/bin/env bash
set -euo pipefail
last=0
for word in "$@"; do [[ $word == --array=0-* ]] && last=${word#--array=0-}; done
script=$(cat)
for ((i = 0; i <= last; i++)); do SLURM_ARRAY_TASK_ID=$i bash -c "$script" >&2; done
echo 7
"#;
    std::fs::create_dir(sandbox.path("bin")).unwrap();
    sandbox.write("bin/sbatch", stand_in);
    let executable = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(sandbox.path("bin/sbatch"), executable).unwrap();
    let locus = Path::new(env!("CARGO_BIN_EXE_locus")).parent().unwrap();
    let path = std::env::var("PATH").unwrap();
    let path = format!("{}:{}:{path}", sandbox.path("bin").display(), locus.display());
    let run = Command::new("bash")
        .arg("run.sh")
        .current_dir(sandbox.path("."))
        .env("PATH", path)
        .env("LOCUS_CACHE", sandbox.path("cache"))
        .output()
        .unwrap();
    assert!(run.status.success(), "{run:?}");
    assert_eq!(differences(&sandbox.path("whole"), &sandbox.path("parts")), Vec::<std::path::PathBuf>::new());
}
