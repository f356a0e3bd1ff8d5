//! What the program says about itself: completions, manual pages, help, version, names of models; and that a copied
//! binary has its model with it.

use std::fs;
use std::process::Command;

use crate::support::Sandbox;

/// The commands that `locus --help` lists.
fn commands(sandbox: &Sandbox) -> Vec<String> {
    let help = sandbox.locus("--help").done();
    let listed =
        help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    // Descriptions that go on are indented further.
    let names = listed.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let names: Vec<String> = names.map(|line| line.split_whitespace().next().unwrap().to_owned()).collect();
    assert!(names.len() > 12 && names.contains(&"inspect".to_owned()), "{names:?}");
    names
}

#[test]
fn every_command_has_completions_and_a_manual_page() {
    let sandbox = Sandbox::empty();
    let commands = commands(&sandbox);
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = sandbox.locus(&format!("completions {shell}")).done();
        for command in &commands {
            assert!(script.contains(command.as_str()), "{shell}: {command}");
        }
        assert!(script.contains("against"), "{shell}: options");
    }
    let printed = sandbox.locus("man pages").done();
    for command in commands.iter().filter(|command| *command != "help") {
        let page = sandbox.read(&format!("pages/locus-{command}.1"));
        assert!(page.contains(&format!("locus\\-{}", command.replace('-', "\\-"))), "{page}");
        assert!(printed.contains(&format!("locus-{command}.1")), "{printed}");
    }
    assert!(sandbox.read("pages/locus.1").contains("LOCUS_CACHE"));
    assert!(sandbox.read("pages/locus-patch-merge.1").contains("merge"));
    // The machine that wrote a page is not in it.
    assert!(!sandbox.read("pages/locus.1").contains("CPU:"));
    let refused = sandbox.locus("completions tcsh");
    assert_eq!(refused.code, Some(2), "{refused:?}");
}

#[test]
fn help_has_groups_and_wrapped_lines() {
    let sandbox = Sandbox::empty();
    for command in commands(&sandbox) {
        let help = sandbox.locus(&format!("help {command}")).done();
        let longest = help.lines().map(|line| line.chars().count()).max().unwrap();
        assert!(longest <= 110, "{command}: a line of {longest} characters");
    }
    let help = sandbox.locus("help inspect").done();
    let (own, global) = help.split_once("Global options:").expect(&help);
    for (option, part) in [("--heads", own), ("--model", global), ("--json", global), ("--quiet", global)] {
        assert!(part.contains(option), "{option}: {help}");
    }
    assert!(!own.contains("--model"), "{help}");
    assert!(sandbox.locus("--help").done().contains("LOCUS_CACHE"));
}

#[test]
fn the_long_version_names_build_and_machine() {
    let sandbox = Sandbox::empty();
    let long = sandbox.locus("--version").done();
    for part in [concat!("locus ", env!("CARGO_PKG_VERSION"), "\n"), "BLAS: ", "kernels", "CPU: "] {
        assert!(long.contains(part), "{part}: {long}");
    }
    assert_eq!(sandbox.locus("-V").done(), concat!("locus ", env!("CARGO_PKG_VERSION"), "\n"));
}

#[test]
fn mistyped_models_are_answered_with_what_there_is() {
    let sandbox = Sandbox::new();
    for (given, meant) in [("gtp2", "gpt2"), ("organsm", "organism"), ("modle", "model")] {
        let run = sandbox.locus(&format!("inspect x --model {given}"));
        assert_eq!(run.code, Some(2), "{run:?}");
        assert!(run.stderr.contains(&format!("did you mean {meant}?")), "{run:?}");
        assert!(run.stderr.contains("organism, gpt2, gpt2-medium"), "{run:?}");
        assert_eq!(run.stderr.lines().count(), 1, "{run:?}");
    }
}

/// A copy of the program in a folder of its own, outside of any checkout.
#[test]
fn a_copied_program_has_its_model_with_it() {
    let sandbox = Sandbox::empty();
    let program = sandbox.path("locus-copy");
    fs::copy(env!("CARGO_BIN_EXE_locus"), &program).unwrap();
    let run = |line: &str| {
        let mut command = Command::new(&program);
        command
            .args(line.split_whitespace())
            .current_dir(sandbox.path(""))
            .env("LOCUS_CACHE", sandbox.path("cache"));
        let output = command.output().unwrap();
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let text = run("generate monarch --tokens 3 --json");
    let again = run("generate monarch --tokens 3 --json");
    assert_eq!(text, again);
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(json["provenance"]["model"], "organism");
    // The study's data and text are there, too: this table needs no circuits.
    run("reproduce --quick --tables X3 --out out");
    assert!(sandbox.read("out/results.json").contains("X3"));
    assert_eq!(fs::read_dir(sandbox.path("cache")).unwrap().count(), 1);
}
