//! `locus selftest`.

use locus_gpt2::Tokenizer;
use locus_protocol::selftest::KnownText;

use crate::support::{Sandbox, locus, shared_data};

#[test]
fn checks_a_model() {
    let sandbox = Sandbox::new();
    let out = locus(&sandbox.path(""), &["selftest", "--model", "model", "--threads", "2"], "").done();
    let states: Vec<(&str, &str)> = out.lines().map(|line| (line[..6].trim(), line[7..23].trim())).collect();
    let expected = [
        ("ok", "threads"),
        ("-", "known losses"),
        ("ok", "gradients"),
        ("ok", "edges from input"),
        ("ok", "edges to logits"),
    ];
    assert_eq!(states, expected, "{out}");
}

#[test]
fn options_that_would_change_nothing_are_refused() {
    let sandbox = Sandbox::empty();
    for (args, named) in [
        (&["--out", "x"][..], "--out"),
        (&["--json"], "--json"),
        (&["--dtype", "f64"], "--dtype"),
        (&["--seed", "2"], "--model"),
        (&["--model", "model", "--json"], "--json"),
    ] {
        let run = locus(&sandbox.path(""), &[&["selftest"], args].concat(), "");
        assert_eq!(run.code, Some(2), "{run:?}");
        assert!(run.stderr.contains(named) && run.stdout.is_empty(), "{run:?}");
    }
}

#[test]
fn a_model_that_is_not_there_is_unusable_input() {
    let run = locus(&Sandbox::empty().path(""), &["selftest", "--model", "absent"], "");
    assert_eq!(run.code, Some(2), "{run:?}");
    assert_eq!(run.stderr.lines().count(), 1, "{run:?}");
}

/// OpenAI's vocabulary makes of the text what llm.c's test reads: its first tokens, and as many as it needs.
#[test]
fn the_known_text_has_its_tokens() {
    let Some(data) = shared_data() else { return };
    let text = KnownText::new(&Tokenizer::read(&data.join("gpt2-tokenizer")).unwrap()).unwrap();
    // <|endoftext|>First Citizen:\nBefore we proceed any further, hear me speak.\n\n<|endoftext|>All:
    let first = [
        50256, 5962, 22307, 25, 198, 8421, 356, 5120, 597, 2252, 11, 3285, 502, 2740, 13, 628, 50256, 3237,
        25,
    ];
    assert_eq!(text.rows[0][..first.len()], first);
    assert_eq!(text.rows.iter().map(Vec::len).collect::<Vec<_>>(), [64; 4]);
    assert_eq!(text.next[..255], text.rows.concat()[1..]);
}
