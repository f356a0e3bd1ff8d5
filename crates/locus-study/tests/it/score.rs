//! `locus score` against `transformers`, against a pass written out in the test, and against itself.

use locus_gpt2::{Checkpoint, PromptTargets};
use serde::Deserialize;

use crate::support::{Sandbox, assert_near, fixture, nll_by_hand};

#[derive(Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
struct Line {
    prompt: String,
    target: String,
    tokens: usize,
    nll_per_token: f64,
}

fn lines(text: &str) -> Vec<Line> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The golden checkpoint, which has a byte-level tokenizer, and its prompts.
fn golden() -> Sandbox {
    let sandbox = Sandbox::empty();
    for file in ["config.json", "model.safetensors", "tokenizer.json"] {
        sandbox.copy(&fixture("golden/score").join(file), &format!("model/{file}"));
    }
    sandbox.copy(&fixture("golden/score/prompts.jsonl"), "prompts.jsonl");
    sandbox
}

const SCORE: &str = "score --model model --in prompts.jsonl";

/// Order, echo, number of tokens and NLL, as computed once by `transformers`.
#[test]
fn lines_are_those_of_transformers() {
    let sandbox = golden();
    let expected = lines(&std::fs::read_to_string(fixture("golden/score/expected.jsonl")).unwrap());
    assert!(expected.len() >= 12);
    for (dtype, tolerance) in [("f64", 1e-9), ("f32", 1e-5)] {
        let scored = lines(&sandbox.locus(&format!("{SCORE} --dtype {dtype}")).done());
        assert_eq!(scored.len(), expected.len());
        for (line, expected) in scored.iter().zip(&expected) {
            assert_eq!((&line.prompt, &line.target), (&expected.prompt, &expected.target));
            assert_eq!(line.tokens, expected.tokens, "{line:?}");
            assert_near(&line.prompt, line.nll_per_token, expected.nll_per_token, tolerance);
        }
    }
}

#[test]
fn nlls_are_the_librarys_and_those_of_a_pass_by_hand() {
    let sandbox = golden();
    let single = lines(&sandbox.locus(SCORE).done());
    let double = lines(&sandbox.locus(&format!("{SCORE} --dtype f64")).done());
    let Checkpoint { model, tokenizer } = Checkpoint::<f32>::from_pretrained(sandbox.path("model")).unwrap();
    let wide = Checkpoint::<f64>::from_pretrained(sandbox.path("model")).unwrap().model;
    assert!(single.len() >= 12);
    for (single, double) in single.iter().zip(&double) {
        let prompt = tokenizer.encode(&single.prompt).unwrap();
        let target = tokenizer.encode(&single.target).unwrap();
        let laid = PromptTargets::new(model.config(), &[(&prompt, &target)]).unwrap();
        assert_near("library", single.nll_per_token, laid.nll_per_token(&model)[0], 1e-6);
        assert_near("by hand", double.nll_per_token, nll_by_hand(&wide, &prompt, &target), 1e-9);
        assert_near("precisions", single.nll_per_token, double.nll_per_token, 1e-5);
        assert_eq!(single.tokens, target.len());
    }
}

/// Blanks are part of what is scored, and no token spans the border.
#[test]
fn prompt_and_target_are_tokenised_separately_and_as_given() {
    let sandbox = golden();
    let of = |pairs: &[(&str, &str)]| {
        let input: String = pairs
            .iter()
            .map(|(prompt, target)| {
                serde_json::json!({"prompt": prompt, "target": target}).to_string() + "\n"
            })
            .collect();
        lines(&sandbox.locus_reading("score --model model --in -", &input).done())
    };
    let scored = of(&[("The capital of France is", " Paris"), ("The capital of France is", "Paris")]);
    assert_ne!(scored[0].tokens, scored[1].tokens);
    assert_ne!(scored[0].nll_per_token, scored[1].nll_per_token);
    let trailing = of(&[("The capital of France is ", "Paris")]);
    assert_eq!(trailing[0].tokens, scored[1].tokens);
    assert_ne!(trailing[0].nll_per_token, scored[1].nll_per_token);
    assert_ne!(trailing[0].nll_per_token, scored[0].nll_per_token);

    let (prompt, target) = ("The young doc", "tor sings");
    let tokenizer = Checkpoint::<f32>::from_pretrained(sandbox.path("model")).unwrap().tokenizer;
    let [together, first, second] =
        [&format!("{prompt}{target}"), prompt, target].map(|text| tokenizer.encode(text).unwrap().len());
    assert_ne!(together, first + second, "the pair does not show what it should");
    assert_eq!(of(&[(prompt, target)])[0].tokens, second);
}

#[test]
fn stdin_is_read_and_blank_lines_are_skipped() {
    let sandbox = golden();
    let expected = sandbox.locus(SCORE).done();
    let input = sandbox.read("prompts.jsonl");
    assert_eq!(sandbox.locus_reading("score --model model --in -", &input).done(), expected);

    let spaced = format!("\n  \n{}\t\n\n", input.replace('\n', "\n\n \n"));
    assert_eq!(sandbox.locus_reading("score --model model --in -", &spaced).done(), expected);
    sandbox.write("prompts.jsonl", format!("\u{feff}{}", spaced.replace('\n', "\r\n")));
    assert_eq!(sandbox.locus(SCORE).done(), expected);

    assert_eq!(sandbox.locus_reading("score --model model --in -", "\n \n").done(), "");
    let run = sandbox.locus_reading("score --model model --in - --quiet", "\n{}\n");
    assert_eq!((run.code, run.stdout.as_str()), (Some(2), ""));
    assert!(run.stderr.starts_with("locus: stdin: line 2: missing field `prompt`"), "{run:?}");
}

/// The order of the output is the order of the input, whatever the threads do.
#[test]
fn the_number_of_threads_does_not_show() {
    let sandbox = golden();
    let input: Vec<String> = sandbox.read("prompts.jsonl").lines().map(str::to_owned).collect();
    let many: String = (0..20).flat_map(|_| &input).map(|line| format!("{line}\n")).collect();
    let with = |threads: usize| {
        let line = format!("score --model model --in - --threads {threads}");
        sandbox.locus_reading(&line, &many).done()
    };
    let one = with(1);
    assert_eq!(lines(&one).len(), 20 * input.len());
    assert_eq!(one, with(2));
    assert_eq!(one, with(3));
}

/// `--bos` puts the end-of-text token before the prompt, as writing it there does.
#[test]
fn end_of_text_before_the_prompt() {
    let sandbox = golden();
    let score = |prompt: &str, option: &str| {
        let input = serde_json::json!({"prompt": prompt, "target": " Paris"}).to_string();
        lines(&sandbox.locus_reading(&format!("score --model model --in - {option}"), &input).done())
            .remove(0)
    };
    let prompt = "The capital of France is";
    let (with, written) = (score(prompt, "--bos"), score(&format!("<|endoftext|>{prompt}"), ""));
    assert_eq!((with.tokens, with.nll_per_token), (written.tokens, written.nll_per_token));
    assert_eq!(with.prompt, prompt);
    assert_ne!(with.nll_per_token, score(prompt, "").nll_per_token);
}

/// An edit whose weights overflow is refused, and no patch is written that no reader would take.
#[test]
fn weights_that_overflow() {
    let sandbox = Sandbox::new();
    sandbox.write("editor.toml", "lr = 1e300\n");
    let edit =
        "edit --editor ft-m --model model --requests requests.json --config editor.toml --quiet --json";
    let run = sandbox.locus(&format!("{edit} --out new"));
    assert_eq!(run.code, Some(1), "{run:?}");
    assert!(run.stderr.contains("no longer finite") && !run.stdout.contains("_new\":null"), "{run:?}");
    assert!(!sandbox.path("new/4.safetensors").exists());
}

/// A model whose states overflow fails the run, whatever is asked of it; nothing is written.
#[test]
fn numbers_that_overflow() {
    let sandbox = Sandbox::new();
    let mut model = crate::support::random_model(&crate::support::tiny_config());
    model.blocks_mut().for_each(|(_, weights)| weights.iter_mut().for_each(|w| *w *= 1e25));
    model.write(&sandbox.path("model/model.safetensors"), "a test").unwrap();
    sandbox.write("text.txt", "A cat is a kind of animal.\n");
    for command in [
        "score --in prompts.jsonl",
        "discover --task pairs.jsonl --out new/out.json --mask-out new/mask.safetensors",
        "stats --text text.txt --layers 0,1 --out new/keys.safetensors",
        "edit --editor study-ft --requests requests.json --out new",
        "trace --task requests.json --out new/tracing.json",
    ] {
        let run = sandbox.locus(&format!("{command} --model model --quiet --json"));
        assert_eq!((run.code, run.stdout.as_str()), (Some(1), ""), "{command}: {run:?}");
        assert!(run.stderr.contains("number type's range") && run.stderr.lines().count() == 1, "{run:?}");
        assert!(!sandbox.path("new").exists(), "{command}");
    }
}
