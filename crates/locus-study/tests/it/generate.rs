//! `locus generate` against `transformers`, by seed, after a patch, and its refusals.

use serde_json::Value;

use crate::support::{Sandbox, fixture, locus, tiny_config};

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

/// The greedy continuations that `transformers` gave for the golden checkpoint.
#[test]
fn greedy_text_is_that_of_transformers() {
    let sandbox = Sandbox::empty();
    for file in ["config.json", "model.safetensors", "tokenizer.json"] {
        sandbox.copy(&fixture("golden/score").join(file), &format!("model/{file}"));
    }
    let golden = json(&std::fs::read_to_string(fixture("golden/score/greedy.json")).unwrap());
    let cases = golden.as_array().unwrap();
    assert!(cases.len() > 1);
    for case in cases {
        let n = case["greedy_ids"].as_array().unwrap().len().to_string();
        let args =
            ["generate", case["prompt"].as_str().unwrap(), "--model", "model", "--json", "--tokens", &n];
        let found = json(&locus(&sandbox.path(""), &args, "").done());
        assert_eq!(found["tokens"], case["greedy_ids"], "{case}");
    }
}

#[test]
fn a_seed_decides_what_is_drawn() {
    let sandbox = Sandbox::new();
    let tokens = |options: &str| {
        let line = format!("generate rose --model model --tokens 12 --json {options}");
        json(&sandbox.locus(&line).done())["tokens"].clone()
    };
    let drawn = tokens("--temperature 1.5 --seed 3 --threads 1");
    assert_eq!(drawn, tokens("--temperature 1.5 --seed 3 --threads 2"));
    assert_ne!(drawn, tokens("--temperature 1.5 --seed 4"));
    // One candidate leaves no choice.
    let greedy = tokens("");
    assert_ne!(drawn, greedy);
    assert_eq!(greedy, tokens("--temperature 1.5 --top-k 1 --seed 5"));
    assert_eq!(greedy, tokens("--temperature 1.5 --top-p 1e-9 --seed 5"));
    assert_eq!(greedy, tokens("--temperature 0.0001 --seed 5"));
}

#[test]
fn what_cannot_be_generated_is_refused() {
    let sandbox = Sandbox::new();
    let long = "a ".repeat(tiny_config().n_positions);
    for (args, says) in [
        (vec!["x", "--temperature=-1"], "--temperature is -1"),
        (vec!["x", "--temperature", "nan"], "--temperature is NaN"),
        (vec!["x", "--tokens", "0"], "--tokens is 0"),
        (vec!["x", "--temperature", "1", "--top-p", "1.5"], "--top-p is 1.5"),
        (vec!["x", "--top-k", "3"], "no effect at --temperature 0"),
        (vec![""], "the prompt is empty"),
        (vec![&*long], "at most"),
        (vec!["x", "--patch", "nowhere.safetensors"], "nowhere.safetensors"),
    ] {
        let args = [vec!["generate"], args, vec!["--model", "model"]].concat();
        let run = locus(&sandbox.path(""), &args, "");
        assert_eq!((run.code, run.stdout.as_str()), (Some(2), ""), "{args:?}: {run:?}");
        assert!(run.stderr.contains(says), "{args:?}: {run:?}");
        assert_eq!(run.stderr.lines().count(), 1, "{run:?}");
    }
}
