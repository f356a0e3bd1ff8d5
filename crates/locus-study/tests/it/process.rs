//! The program as a process among others: signals, locks, output that cannot be written, limits.
#![cfg(unix)]

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::{Run, Sandbox, files_below, fixture};

/// The program in a folder, not yet started; blanks separate the arguments.
fn command(sandbox: &Sandbox, line: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_locus"));
    command
        .args(line.split_whitespace())
        .current_dir(sandbox.path(""))
        .env("LOCUS_CACHE", sandbox.path("cache"))
        .env_remove("OPENBLAS_NUM_THREADS")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn ended(child: Child) -> Run {
    // Ends only when no process holds the pipes any more: a child left behind would keep the test waiting.
    let output = child.wait_with_output().unwrap();
    Run {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// A run that takes minutes, begun and at work: its output folder `out` has files.
fn long_run(sandbox: &Sandbox) -> Child {
    let model = fixture("organism").canonicalize().unwrap();
    let child = command(sandbox, &format!("reproduce --quick --model {} --out out", model.display())).spawn();
    let begun = Instant::now();
    while !sandbox.path("out").exists() {
        assert!(begun.elapsed() < Duration::from_secs(100), "no output folder");
        std::thread::sleep(Duration::from_millis(10));
    }
    child.unwrap()
}

fn kill(child: &Child, signal: &str) {
    let sent = Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
}

#[track_caller]
fn one_line(run: &Run) -> &str {
    assert!(run.stderr.starts_with("locus: ") && run.stderr.lines().count() == 1, "{run:?}");
    run.stderr.trim_end()
}

/// Whether the tests themselves run under `nohup`.
fn ignores_sighup() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap_or("0").trim();
    u64::from_str_radix(mask, 16).is_ok_and(|mask| mask & 1 == 1)
}

/// The process that the caller started does the work itself, and stops when it is told to.
#[test]
fn signals_stop_the_work_and_say_how_to_go_on() {
    std::thread::scope(|scope| {
        for (name, code) in [("TERM", 143), ("INT", 130), ("HUP", 129)] {
            if name == "HUP" && ignores_sighup() {
                continue;
            }
            scope.spawn(move || {
                let sandbox = Sandbox::empty();
                let child = long_run(&sandbox);
                kill(&child, &format!("-{name}"));
                let begun = Instant::now();
                let run = ended(child);
                assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
                assert_eq!(run.code, Some(code), "{run:?}");
                let last = run.stderr.lines().last().unwrap_or_default();
                assert!(last.starts_with(&format!("locus: stopped by SIG{name}; ")), "{run:?}");
                assert!(last.contains("--resume"), "{run:?}");
                let left = files_below(&sandbox.path("out"));
                assert!(!left.iter().any(|(path, _)| path.ends_with(".tmp")), "{left:?}");
            });
        }
    });
}

/// `nohup` keeps a run alive when its terminal goes.
#[test]
#[cfg(target_os = "linux")]
fn an_ignored_sighup_stays_ignored() {
    let sandbox = Sandbox::new();
    let line = format!("trap '' HUP; exec {} score --model model --in -", env!("CARGO_BIN_EXE_locus"));
    let mut child = Command::new("sh")
        .args(["-c", &line])
        .current_dir(sandbox.path(""))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // The program waits for its input; by then the signals are watched.
    std::thread::sleep(Duration::from_millis(500));
    kill(&child, "-HUP");
    std::thread::sleep(Duration::from_millis(200));
    drop(child.stdin.take());
    assert_eq!(ended(child).code, Some(0));
}

#[test]
fn a_folder_is_used_by_one_run_at_a_time() {
    let sandbox = Sandbox::new();
    let mut first = long_run(&sandbox);
    let second = sandbox.locus("reproduce --quick --model model --data data --seed 2 --out out --quiet");
    assert_eq!(second.code, Some(2), "{second:?}");
    assert_eq!(one_line(&second), "locus: out is in use by another run");
    kill(&first, "-KILL");
    first.wait().unwrap();
    // What the killed run left, as it would have left a file that it was writing.
    fs::create_dir_all(sandbox.path("out/tables")).unwrap();
    sandbox.write("out/tables/.locus-abcdef.tmp", "half");
    sandbox.locus("reproduce --quick --model model --data data --tables T6 --out out --quiet").done();
    let left = files_below(&sandbox.path("out"));
    assert!(!left.iter().any(|(path, _)| path.display().to_string().contains(".locus-")), "{left:?}");
}

const EDIT: &str = "edit --editor study-ft --model model --requests requests.json";

fn commands_that_print() -> Vec<String> {
    let edit = format!("{EDIT} --json");
    let all = [
        "--help",
        "--version",
        "edit --help",
        "edit --editor study-ft --model model --print-config",
        "fetch",
        "score --model model --in prompts.jsonl",
        "discover --model model --task pairs.jsonl --select greedy",
        &edit,
    ];
    all.map(str::to_owned).to_vec()
}

#[test]
fn a_full_stdout_is_a_failure_in_one_line() {
    let sandbox = Sandbox::new();
    let full = || File::options().write(true).open("/dev/full").unwrap();
    for line in commands_that_print() {
        let run = ended(command(&sandbox, &format!("{line} --quiet")).stdout(full()).spawn().unwrap());
        assert_eq!(run.code, Some(1), "{line}: {run:?}");
        assert!(one_line(&run).starts_with("locus: stdout: No space left"), "{line}: {run:?}");
        let run = ended(command(&sandbox, &line).stdout(full()).stderr(full()).spawn().unwrap());
        assert_eq!(run.code, Some(1), "{line}: {run:?}");
    }
}

#[test]
fn a_reader_that_has_enough_is_no_failure() {
    let sandbox = Sandbox::new();
    for line in commands_that_print() {
        let mut child = command(&sandbox, &format!("{line} --quiet")).spawn().unwrap();
        drop(child.stdout.take());
        let run = ended(child);
        assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""), "{line}");
    }
}

/// Progress and messages go nowhere then, and what was computed is printed.
#[test]
fn a_stderr_that_cannot_be_written_to_loses_nothing() {
    let sandbox = Sandbox::new();
    let line = format!("{EDIT} --json");
    let expected = sandbox.locus(&line).done();
    let full = File::options().write(true).open("/dev/full").unwrap();
    assert_eq!(ended(command(&sandbox, &line).stderr(full).spawn().unwrap()).done(), expected);
    let mut child = command(&sandbox, &line).spawn().unwrap();
    drop(child.stderr.take());
    assert_eq!(ended(child).done(), expected);
}

/// A file that outgrows the caller's limit is like one that fills the disk: exit code 1 and nothing half-written.
#[test]
fn output_that_does_not_fit_is_a_failed_run() {
    let sandbox = Sandbox::new();
    let before = sandbox.files();
    for line in [
        format!("{EDIT} --out patches"),
        "stats --model model --text prompts.jsonl --layers 0 --out new.safetensors".into(),
        "discover --model model --task pairs.jsonl --select greedy --out new.json".into(),
    ] {
        let program = env!("CARGO_BIN_EXE_locus");
        let child = Command::new("sh")
            .args(["-c", &format!("ulimit -f 1; exec {program} {line} --quiet")])
            .current_dir(sandbox.path(""))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let run = ended(child.unwrap());
        assert_eq!(run.code, Some(1), "{line}: {run:?}");
        assert!(one_line(&run).contains("File too large"), "{line}: {run:?}");
        assert_eq!(sandbox.files(), before, "{line}");
        assert!(!sandbox.path("patches").exists());
    }
}

/// A FIFO that nobody writes to would be waited for without end.
#[test]
fn inputs_are_regular_files() {
    let inputs = [
        ("prompts.jsonl", "score --model model --in prompts.jsonl"),
        ("model/config.json", "score --model model --in prompts.jsonl"),
        ("model/model.safetensors", "score --model model --in prompts.jsonl"),
        ("model/tokenizer.json", "score --model model --in prompts.jsonl"),
        ("requests.json", EDIT),
        ("pairs.jsonl", "discover --model model --task pairs.jsonl"),
        ("pairs.jsonl", "trace --model model --task pairs.jsonl"),
        ("editor.toml", "edit --editor study-ft --model model --requests requests.json --config editor.toml"),
        (
            "mask.safetensors",
            "edit --editor study-ft --model model --requests requests.json --mask mask.safetensors --scope circuit",
        ),
        ("mask.safetensors", "patch list --model model mask.safetensors"),
        (
            "mask.safetensors",
            "edit --editor rome --model model --requests requests.json --stats mask.safetensors",
        ),
        ("text.txt", "stats --model model --text text.txt --layers 0 --out new"),
        ("data/blimp_dna1.csv", "reproduce --model model --data data --out new"),
    ];
    for (name, line) in inputs {
        let sandbox = Sandbox::new();
        let path = sandbox.path(name);
        let _ = fs::remove_file(&path);
        assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
        check_refused(&sandbox, line, name);
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        check_refused(&sandbox, line, name);
        fs::remove_dir(&path).unwrap();
        std::os::unix::fs::symlink(&path, &path).unwrap();
        check_refused(&sandbox, line, name);
    }
}

#[track_caller]
fn check_refused(sandbox: &Sandbox, line: &str, says: &str) {
    let run = sandbox.locus(&format!("{line} --quiet"));
    assert_eq!((run.code, run.stdout.as_str()), (Some(2), ""), "{line}: {run:?}");
    assert!(one_line(&run).contains(says), "{line}: {run:?}");
}

#[test]
fn destinations_are_checked_before_the_work() {
    let sandbox = Sandbox::new();
    let long = "x".repeat(300);
    sandbox.write("file", "");
    for folder in ["used/work/x.json", "taken/report.html"] {
        fs::create_dir_all(sandbox.path(folder)).unwrap();
    }
    fs::create_dir_all(sandbox.path("spoiled")).unwrap();
    sandbox.write("spoiled/work", "");
    let reproduce = "reproduce --quick --model model --data data";
    let discover = "discover --model model --task pairs.jsonl";
    let stats = "stats --model model --text prompts.jsonl --layers 0";
    let cases = [
        (format!("{reproduce} --out file"), "--out file: is a file"),
        (format!("{reproduce} --out file/below"), "file is a file"),
        (format!("{reproduce} --out spoiled"), "work in it is no folder"),
        (format!("{reproduce} --out used"), "x.json in it is a folder"),
        (format!("{reproduce} --out taken"), "report.html in it is no file"),
        (format!("{reproduce} --out /proc/x"), "--out /proc/x: "),
        (format!("{reproduce} --out {long}"), "name of 300 bytes"),
        (format!("{discover} --out data"), "--out data: is a folder"),
        (format!("{discover} --out new/"), "--out new/: is a folder"),
        (format!("{discover} --mask-out data"), "--mask-out data: is a folder"),
        (format!("{discover} --out /dev/null"), "is a pipe, device or socket"),
        (format!("{discover} --out one --mask-out ./one"), "--out and --mask-out name one file"),
        (format!("{stats} --out file/below"), "file is a file"),
        (format!("{stats} --out /sys/x"), "--out /sys/x: "),
        (format!("{EDIT} --out file"), "--out file: is a file"),
        (format!("{EDIT} --out patches.safetensors"), "several patches need a folder"),
        (format!("{EDIT} --together --out data"), "--out data: is a folder"),
        ("patch apply --model model mask.safetensors --out file".into(), "--out file: is a file"),
        ("patch apply --model model mask.safetensors --out model".into(), "would overwrite the model"),
        ("organism --out file".into(), "--out file: is a file"),
        ("fetch study --out file".into(), "--out file: is a file"),
    ];
    let before = sandbox.files();
    for (line, says) in cases {
        check_refused(&sandbox, &line, says);
        assert_eq!(sandbox.files(), before, "{line}");
    }
}

#[test]
fn inputs_are_not_overwritten() {
    let sandbox = Sandbox::new();
    std::os::unix::fs::symlink(sandbox.path("pairs.jsonl"), sandbox.path("link")).unwrap();
    let scope = "--scope circuit --mask mask.safetensors";
    let cases = [
        format!("{EDIT} --together --out requests.json"),
        format!("{EDIT} --together {scope} --out ./mask.safetensors"),
        format!("{EDIT} --together --out model/model.safetensors"),
        "stats --model model --text prompts.jsonl --layers 0 --out data/../prompts.jsonl".into(),
        "discover --model model --task pairs.jsonl --out pairs.jsonl".into(),
        "discover --model model --task link --out pairs.jsonl".into(),
        "discover --model model --task pairs.jsonl --mask-out pairs.jsonl".into(),
        "discover --model model --task pairs.jsonl --mask-out model/config.json".into(),
        "trace --model model --task pairs.jsonl --out pairs.jsonl".into(),
        "patch merge --model model mask.safetensors --out mask.safetensors".into(),
        "reproduce --quick --model model --data data --tables X2 --text run/report.md --out run".into(),
        "reproduce --quick --model model --data run/work --out run".into(),
        "aggregate run --out run/results.json".into(),
    ];
    for (file, _) in files_below(&sandbox.path("data")) {
        sandbox.copy(&file, &format!("run/work/{}", file.file_name().unwrap().display()));
    }
    for name in ["run/report.md", "run/results.json"] {
        sandbox.copy(&sandbox.path("prompts.jsonl"), name);
    }
    let content =
        || sandbox.files().into_iter().map(|(path, _)| (fs::read(&path).unwrap(), path)).collect::<Vec<_>>();
    let before = content();
    for line in cases {
        check_refused(&sandbox, &line, "which is not overwritten");
        assert_eq!(content(), before, "{line}");
    }
}

/// Options that would be ignored are refused.
#[test]
fn options_without_meaning() {
    let sandbox = Sandbox::new();
    for line in [
        "score --model model --in prompts.jsonl --out x",
        "score --model model --in prompts.jsonl --seed 2",
        "selftest --out x",
        "selftest --seed 2",
        "fetch --out x",
        "fetch --seed 1",
        "patch list --model model mask.safetensors --out x",
        "patch merge --model model mask.safetensors --out x --json",
        "patch apply --model model mask.safetensors",
        "organism --check --out x",
        "organism --dtype f64",
        "edit --editor study-ft --model model --print-config --out x",
        "score --model model --in prompts.jsonl --threads 1000000",
    ] {
        let run = sandbox.locus(line);
        assert_eq!((run.code, run.stdout.as_str()), (Some(2), ""), "{line}: {run:?}");
        assert!(!sandbox.path("x").exists());
    }
}

/// Texts without anything to measure on are refused before the circuits are trained.
#[test]
fn neutral_text_is_checked_at_the_start() {
    for text in ["", " \n\t\n", "a\nb\n"] {
        let sandbox = Sandbox::new();
        sandbox.write("text.txt", text);
        let reproduce = "reproduce --quick --model model --data data --out new";
        check_refused(&sandbox, &format!("{reproduce} --tables X2 --text text.txt"), "text.txt: has no text");
        sandbox.write("data/neutral.txt", text);
        check_refused(&sandbox, &format!("{reproduce} --tables X2"), "neutral.txt: has no text");
        assert!(!sandbox.path("new").exists());
    }
}

#[test]
fn messages_are_safe_to_show_and_name_what_is_wrong() {
    let sandbox = Sandbox::new();
    for args in [
        ["score", "--in", "prompts.jsonl", "--model", "\u{1b}[31mred"],
        ["score", "--in", "\u{1b}[31mred", "--model", "model"],
        ["score", "--in", "prompts.jsonl", "--\u{1b}[31mred", "model"],
    ] {
        let run = crate::support::locus(&sandbox.path(""), &args, "");
        assert_eq!(run.code, Some(2), "{run:?}");
        assert!(run.stderr.contains("red") && !run.stderr.contains('\u{1b}'), "{run:?}");
    }
    let score = "score --in prompts.jsonl --model";
    check_refused(&sandbox, &format!("{score} gtp2"), "--model gtp2: ");
    check_refused(&sandbox, &format!("{score} gtp2"), "gpt2-medium");
    assert!(!Path::new(&sandbox.path("gtp2")).exists());
}

/// The ending of a file chooses its format; one that is none is refused before the work.
#[test]
fn endings_that_are_no_format() {
    let sandbox = Sandbox::new();
    let before = sandbox.files();
    let discover = "discover --model model --task pairs.jsonl --select greedy";
    for (line, says) in [
        (
            format!("{discover} --out new.png"),
            "new.png: is no file of a circuit; expected a name that ends in .json, .csv, .dot or .html",
        ),
        ("trace --model model --task requests.json --out new.csv".into(), "expected .json, .svg"),
        ("aggregate data --out new.html".into(), "expected .md, .json"),
        (
            "stats --model model --text prompts.jsonl --layers 0 --out new.NPZ".into(),
            "statistics are written as safetensors",
        ),
    ] {
        check_refused(&sandbox, &line, says);
        assert_eq!(sandbox.files(), before, "{line}");
    }
    sandbox.locus(&format!("{discover} --out new.CSV")).done();
    assert!(sandbox.read("new.CSV").contains(','), "{}", sandbox.read("new.CSV"));
    assert!(serde_json::from_str::<serde_json::Value>(&sandbox.read("new.CSV")).is_err());
}

/// Variables of the environment do no more harm than options: empty ones count as not set, and threads have a bound.
#[test]
fn variables_that_are_empty_or_huge() {
    let sandbox = Sandbox::new();
    let score = "score --model model --in prompts.jsonl";
    let expected = sandbox.locus(score).done();
    for number in ["1000000", "18446744073709551615", "0", "-1", "two"] {
        let run = ended(command(&sandbox, score).env("RAYON_NUM_THREADS", number).spawn().unwrap());
        assert_eq!(run.done(), expected, "{number}");
    }
    let mut line = command(&sandbox, "score --model gpt2 --in prompts.jsonl");
    let run = ended(line.env("LOCUS_CACHE", "").env("HOME", "").spawn().unwrap());
    assert!(one_line(&run).contains("neither LOCUS_CACHE nor HOME is set"), "{run:?}");
}
