//! Arguments, masks and editor constants that cannot be used.

use locus_gpt2::Config;

use crate::refused::{ALL, Case, arguments, check, out};
use crate::support::{Sandbox, half_mask, tiny_config};

#[test]
fn numbers_out_of_range() {
    check(&[
        arguments(&["reproduce --model model --data data --densities 0"], &["--densities", "0 is not"]),
        arguments(&["reproduce --model model --data data --densities 0.5,1.5"], &["--densities", "1.5"]),
        arguments(&["reproduce --model model --data data --densities nan"], &["--densities", "NaN"]),
        arguments(&["reproduce --model model --data data --densities=-0.5"], &["--densities", "-0.5"]),
        arguments(&["reproduce --model model --data data --tables T9"], &["--tables", "\"T9\"", "T1 to T7"]),
        arguments(&["reproduce --model model --data data --tables T1,"], &["--tables", "\"\""]),
        arguments(&["score --model model --in prompts.jsonl --threads 0"], &["--threads is 0"]),
        arguments(&["reproduce --model model --data data --threads 0"], &["--threads is 0"]),
        arguments(
            &["edit --editor study-ft --model model --requests requests.json --threads 0"],
            &["--threads is 0"],
        ),
    ]);
}

#[test]
fn presets() {
    check(&[
        arguments(
            &["reproduce --model model --data data --preset faithful"],
            &["--preset faithful is now called scheduled-top-k"],
        ),
        arguments(
            &["reproduce --model model --data data --preset study"],
            &["--preset study is now called published"],
        ),
        arguments(
            &["reproduce --model model --data data --preset top-k"],
            &["--preset \"top-k\" is no preset", "published or scheduled-top-k"],
        ),
    ]);
}

#[test]
fn scopes_and_masks_that_do_not_go_together() {
    check(&[
        arguments(
            &["edit --editor study-ft --model model --requests requests.json --isolate"],
            &["--isolate", "--mask"],
        ),
        arguments(
            &["edit --editor study-ft --model model --requests requests.json --scope circuit"],
            &["--scope", "--mask"],
        ),
        arguments(
            &["edit --editor study-ft --model model --requests requests.json --scope complement --isolate"],
            &["--scope", "--mask"],
        ),
        arguments(
            &["edit --editor study-ft --model model --requests requests.json --scope random"],
            &["--scope", "--mask"],
        ),
        arguments(
            &[
                "edit --editor study-ft --model model --requests requests.json --mask mask.safetensors --scope full",
            ],
            &["--mask", "--scope full"],
        ),
        arguments(
            &["edit --editor study-ft --model model --requests requests.json --mask mask.safetensors"],
            &["--mask", "--scope full"],
        ),
    ]);
}

const IN_CIRCUIT: &[&str] = &["edit --editor study-ft --model model --requests requests.json \
     --mask mask.safetensors --scope circuit --isolate"];

fn put_mask_of(sandbox: &Sandbox, config: &Config) {
    half_mask(config).write(&sandbox.path("mask.safetensors"), "a test").unwrap();
}

#[test]
fn masks() {
    check(&[
        Case {
            what: "no mask",
            commands: IN_CIRCUIT,
            spoil: |s| s.remove("mask.safetensors"),
            says: &["mask.safetensors: ", "No such file"],
        },
        Case {
            what: "a mask of a wider model",
            commands: IN_CIRCUIT,
            spoil: |s| put_mask_of(s, &Config::new(2, 2, 32, 128, 2048)),
            says: &["mask.safetensors: tensor transformer.h.", "expected U8 ["],
        },
        Case {
            what: "a mask of a deeper model",
            commands: IN_CIRCUIT,
            spoil: |s| put_mask_of(s, &Config { n_layer: 3, ..tiny_config() }),
            says: &["mask.safetensors: tensor transformer.h.2.", "not a block parameter of this model"],
        },
        Case {
            what: "weights for a mask",
            commands: IN_CIRCUIT,
            spoil: |s| s.copy(&s.path("model/model.safetensors"), "mask.safetensors"),
            says: &["mask.safetensors: tensor transformer."],
        },
        Case {
            what: "a mask cut off",
            commands: IN_CIRCUIT,
            spoil: |s| s.truncate("mask.safetensors"),
            says: &["mask.safetensors: not a complete safetensors file"],
        },
        Case {
            what: "a mask with a value between",
            commands: IN_CIRCUIT,
            spoil: |s| {
                let mut bytes = std::fs::read(s.path("mask.safetensors")).unwrap();
                *bytes.last_mut().unwrap() = 2;
                s.write("mask.safetensors", bytes);
            },
            says: &["mask.safetensors: tensor transformer.h.", "has the value 2; expected 0 or 1"],
        },
    ]);
}

const CONFIGURED: &[&str] =
    &["edit --editor study-ft --model model --requests requests.json --config editor.toml"];

#[test]
fn editor_constants() {
    check(&[
        Case {
            what: "no file",
            commands: CONFIGURED,
            spoil: |s| s.remove("editor.toml"),
            says: &["editor.toml: ", "No such file"],
        },
        Case {
            what: "an unknown field",
            commands: CONFIGURED,
            spoil: |s| s.write("editor.toml", "lr = 0.1\nrate = 0.1\n"),
            says: &["editor.toml: unknown field `rate`"],
        },
        Case {
            what: "no TOML",
            commands: CONFIGURED,
            spoil: |s| s.write("editor.toml", "lr: 0.1\n"),
            says: &["editor.toml: "],
        },
        Case {
            what: "a learning rate of 0",
            commands: CONFIGURED,
            spoil: |s| s.write("editor.toml", "lr = 0.0\n"),
            says: &["editor.toml: ", "lr is 0; expected a number above 0"],
        },
        Case {
            what: "a learning rate that is no number",
            commands: CONFIGURED,
            spoil: |s| s.write("editor.toml", "lr = nan\n"),
            says: &["editor.toml: ", "lr is not a number"],
        },
        Case {
            what: "no steps",
            commands: CONFIGURED,
            spoil: |s| s.write("editor.toml", "max_steps = 0\n"),
            says: &["editor.toml: ", "max_steps is 0; expected at least 1"],
        },
        Case {
            what: "steps below 0",
            commands: CONFIGURED,
            spoil: |s| s.write("editor.toml", "max_steps = -1\n"),
            says: &["editor.toml: ", "-1"],
        },
        Case {
            what: "a clamp below 0",
            commands: CONFIGURED,
            spoil: |s| s.write("editor.toml", "clamp = -0.5\n"),
            says: &["editor.toml: ", "clamp is -0.5; expected a number above 0"],
        },
        Case {
            what: "a loss to stop at below 0",
            commands: CONFIGURED,
            spoil: |s| s.write("editor.toml", "loss_stop = -1.0\n"),
            says: &["editor.toml: ", "loss_stop is -1"],
        },
        Case {
            what: "JSON with an unknown field",
            commands: &["edit --editor study-ft --model model --requests requests.json --config editor.json"],
            spoil: |s| s.write("editor.json", "{\n \"rate\": 1\n}"),
            says: &["editor.json: unknown field `rate`", "line 2"],
        },
        Case {
            what: "constants out of range are not printed either",
            commands: &["edit --editor study-ft --print-config --config editor.toml"],
            spoil: |s| s.write("editor.toml", "lr = -1.0\n"),
            says: &["editor.toml: ", "lr is -1"],
        },
    ]);
}

/// Arguments that clap refuses, also with 2; its messages may take several lines.
#[test]
fn usage() {
    let sandbox = Sandbox::new();
    let files = sandbox.files();
    for wrong in ["--frobnicate", "--threads -1", "--threads two", "--seed x", "--dtype f16"] {
        for command in ALL {
            let run = sandbox.locus(&format!("{command} {wrong}{}", out(command, "new/out")));
            assert_eq!((run.code, run.stdout.as_str()), (Some(2), ""), "{command} {wrong}");
            assert!(run.stderr.contains(wrong.split(' ').next_back().unwrap()), "{run:?}");
        }
    }
    for wrong in ["", "score", "edit --editor study-ft", "edit --editor rome --requests requests.json"] {
        let run = sandbox.locus(wrong);
        assert_eq!((run.code, run.stdout.as_str()), (Some(2), ""), "{wrong}");
        assert!(!run.stderr.is_empty());
    }
    assert_eq!(sandbox.files(), files);
}
