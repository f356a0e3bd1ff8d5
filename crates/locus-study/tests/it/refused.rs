//! What holds for every unusable input: exit code 2, one line on stderr that says where, nothing printed or written.

use crate::support::Sandbox;

/// The three commands that read a model, as they work in an unspoiled [`Sandbox`].
pub const SCORE: &str = "score --model model --in prompts.jsonl";
pub const EDIT: &str = "edit --editor study-ft --model model --requests requests.json";
pub const REPRODUCE: &str = "reproduce --quick --model model --data data";
pub const ALL: &[&str] = &[SCORE, EDIT, REPRODUCE];

/// One way to spoil the input.
pub struct Case {
    pub what: &'static str,
    pub commands: &'static [&'static str],
    pub spoil: fn(&Sandbox),
    /// What the line must name.
    pub says: &'static [&'static str],
}

/// A case of arguments that are wrong in an unspoiled sandbox.
pub fn arguments(command: &'static [&'static str; 1], says: &'static [&'static str]) -> Case {
    Case { what: "arguments", commands: command, spoil: |_| (), says }
}

/// Runs every case and reports all that are not refused as they should be.
#[track_caller]
pub fn check(cases: &[Case]) {
    let problems: Vec<String> = cases.iter().flat_map(problems).collect();
    assert!(problems.is_empty(), "{} problems\n{}", problems.len(), problems.join("\n"));
}

/// The option `--out` for a command that writes files.
pub fn out(command: &str, name: &str) -> String {
    let writes = command.starts_with("reproduce")
        || command.starts_with("edit") && !command.contains("--print-config");
    if writes { format!(" --out {name}") } else { String::new() }
}

fn problems(case: &Case) -> Vec<String> {
    let sandbox = Sandbox::new();
    (case.spoil)(&sandbox);
    let before = sandbox.files();
    let mut problems = Vec::new();
    for command in case.commands {
        let run = sandbox.locus(&format!("{command} --quiet{}", out(command, "new/out")));
        let mut expect = |holds: bool, what: &str| {
            if !holds {
                problems.push(format!("{} ({command}): {what}: {run:?}", case.what));
            }
        };
        expect(run.code == Some(2), "expected exit code 2");
        expect(run.stdout.is_empty(), "expected nothing on stdout");
        expect(run.stderr.starts_with("locus: "), "expected a line that begins with the program's name");
        expect(run.stderr.ends_with('\n') && run.stderr.lines().count() == 1, "expected exactly one line");
        for part in case.says {
            expect(run.stderr.contains(part), &format!("expected {part:?} in the message"));
        }
        expect(!sandbox.path("new").exists(), "something was written at --out");
        expect(sandbox.files() == before, "files have changed");
    }
    problems
}

/// Without this, a broken sandbox would make every case pass.
#[test]
fn an_unspoiled_sandbox_is_accepted() {
    let sandbox = Sandbox::new();
    for command in ALL {
        let name = format!("new/out-{}", &command[..4]);
        let run = sandbox.locus(&format!("{command} --quiet{}", out(command, &name)));
        assert_eq!(run.code, Some(0), "{run:?}");
        assert_eq!(run.stderr, "", "--quiet");
        assert!(!run.stdout.is_empty());
    }
    let editor = "--config editor.toml --mask mask.safetensors --scope circuit --isolate";
    sandbox.locus(&format!("{EDIT} {editor} --out new/patches")).done();
    assert!(sandbox.path("new/patches").exists());
}
