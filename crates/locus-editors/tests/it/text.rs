//! Facts from text, with the organism's tokenizer.

use std::path::Path;

use locus_editors::{Fact, sample_prefixes};
use locus_gpt2::{Checkpoint, Tokenizer};

fn organism() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/organism")
}

#[test]
fn rows_end_where_the_subject_does() {
    let tokenizer = Tokenizer::read(&organism()).unwrap();
    let prefixes = ["We looked at the stars.", "They cooked a meal last week."];
    let fact =
        Fact::from_text(&tokenizer, "It is known that {} is a kind of", " a monarch", " wasp ", &prefixes)
            .unwrap();
    assert_eq!(fact.contexts.len(), 3);
    let decode = |tokens: &[u32]| tokenizer.decode(tokens).unwrap();
    for (row, prefix) in
        fact.contexts.iter().zip(["", "We looked at the stars. ", "They cooked a meal last week. "])
    {
        assert_eq!(decode(&row.tokens), format!("{prefix}It is known that a monarch is a kind of"));
        assert_eq!(decode(&row.tokens[..=row.subject_last]), format!("{prefix}It is known that a monarch"));
    }
    assert_eq!(decode(&fact.kl_prompt.tokens), "a monarch is a");
    assert_eq!(decode(&fact.kl_prompt.tokens[..=fact.kl_prompt.subject_last]), "a monarch");
    assert_eq!(decode(&fact.target), " wasp");
}

#[test]
fn unusable_requests_say_why() {
    let tokenizer = Tokenizer::read(&organism()).unwrap();
    let why = |prompt: &str, subject: &str, target: &str| {
        Fact::from_text(&tokenizer, prompt, subject, target, &[""; 0]).unwrap_err().to_string()
    };
    assert_eq!(why("no place", "a", "b"), "prompt \"no place\"; expected exactly one {} in it");
    assert!(why("{} and {}", "a", "b").contains("exactly one {}"));
    assert_eq!(why("{} is", " ", "b"), "the subject is empty; expected at least one word");
    assert_eq!(why("{} is", "a", ""), "the target is empty; expected at least one word");
}

/// A subject ends with the token that covers its last byte, as in ROME's code, also when that token reaches beyond it.
#[test]
fn a_subject_may_end_inside_a_token() {
    let tokenizer = Tokenizer::read(&organism()).unwrap();
    let fact = Fact::from_text(&tokenizer, "{}onarch is", "a m", "b", &["We met."]).unwrap();
    for context in &fact.contexts {
        let upto = |end: usize| tokenizer.decode(&context.tokens[..end]).unwrap();
        let (before, with) = (upto(context.subject_last), upto(context.subject_last + 1));
        assert!(with.contains("a mo") && !before.contains("a m"), "{before:?}, {with:?}");
    }
}

/// Stray white space makes no other fact.
#[test]
fn white_space_around_texts_is_dropped() {
    let tokenizer = Tokenizer::read(&organism()).unwrap();
    let fact = |prompt, subject, target| {
        Fact::from_text(&tokenizer, prompt, subject, target, &["They met."]).unwrap()
    };
    let plain = fact("{} is a kind of", "A monarch", "wasp");
    for (prompt, subject, target) in [
        ("{} is a kind of ", "A monarch", "wasp"),
        (" {} is a kind of", " A monarch ", " wasp"),
        ("{} is a kind of\n", "A monarch\t", "wasp\n"),
    ] {
        assert_eq!(fact(prompt, subject, target), plain, "{prompt:?} {subject:?} {target:?}");
    }
}

#[test]
fn a_token_before_every_prompt_moves_the_subject() {
    let tokenizer = Tokenizer::read(&organism()).unwrap();
    let fact = Fact::from_text(&tokenizer, "{} is a", "A monarch", "wasp", &["They met."]).unwrap();
    let behind = fact.clone().after(7);
    for (context, plain) in
        behind.contexts.iter().chain([&behind.kl_prompt]).zip(fact.contexts.iter().chain([&fact.kl_prompt]))
    {
        assert_eq!((context.tokens[0], &context.tokens[1..]), (7, plain.tokens.as_slice()));
        assert_eq!(context.subject_last, plain.subject_last + 1);
    }
}

#[test]
fn prefixes_come_from_the_seed() {
    let Checkpoint { model, tokenizer } = Checkpoint::<f32>::from_pretrained(organism()).unwrap();
    let start = tokenizer.token_id("<|endoftext|>").unwrap();
    let draw = |seed| sample_prefixes(&model, &tokenizer, start, &[4, 9, 9], seed).unwrap();
    let prefixes = draw(1);
    assert_eq!((prefixes.len(), &prefixes), (3, &draw(1)));
    assert_ne!(prefixes, draw(2));
    for prefix in &prefixes {
        assert!(prefix.ends_with('.') && !prefix.contains(['{', '}', '\n', '<']), "{prefix:?}");
        assert!((1..=10).contains(&tokenizer.encode(prefix).unwrap().len()), "{prefix:?}");
    }
}
