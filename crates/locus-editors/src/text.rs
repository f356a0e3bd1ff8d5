//! Facts from text: where the subject ends, and what may stand before the prompt.

use locus_gpt2::{Checkpoint, Gpt2, Sampling, Scalar, Tokenizer};
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};

use crate::error::{Error, Result};
use crate::fact::{Context, Fact};

/// Placeholder of the subject in a prompt.
const PLACE: &str = "{}";

/// Beginnings of plain English sentences, each of about five to ten tokens of GPT-2's: the prefixes used with its
/// tokenizer. The released ROME draws such texts anew in every process, without a seed.
pub const PREFIXES: [&str; 20] = [
    "The weather was fine that day.",
    "He said that it was late.",
    "In the end, nothing changed.",
    "She had been there before.",
    "It is not easy to say.",
    "We met them in the morning.",
    "There was a long silence.",
    "They had a good time together.",
    "I have never seen it before.",
    "The door was left open.",
    "After a while, the two of them went home.",
    "It was the first time that this had happened.",
    "A few years ago, things were very different.",
    "The people in the room began to talk again.",
    "You can find the answer in most books.",
    "Because of the rain, the game was stopped early.",
    "As far as we know, this is still true.",
    "The report was read by everyone in the office.",
    "On the other hand, there may be another reason.",
    "Many of them would like to know more about it.",
];

/// Lengths, in tokens, of the prefixes that are drawn from a model with a tokenizer of its own.
const PREFIX_TOKENS: [usize; 5] = [4, 4, 9, 9, 9];
/// Vocabulary of GPT-2's tokenizer, for which prefixes are written down.
const GPT2_VOCABULARY: usize = 50_257;
/// Token that separates documents: prefixes are drawn as the beginnings of documents.
const END_OF_TEXT: &str = "<|endoftext|>";

impl Fact {
    /// A fact from a prompt with one `{}` for the subject. White space around prompt, subject and target is dropped; a
    /// space separates a prefix from the prompt, and the prompt from the target. Prefix, prompt and subject are
    /// tokenised as one text, the target separately. The subject ends at the token that covers its last byte, also when
    /// that token reaches beyond it, as `.,` does after "F.C.".
    ///
    /// # Errors
    /// When the prompt does not have exactly one `{}`, subject or target are empty, or a text cannot be tokenised.
    pub fn from_text(
        tokenizer: &Tokenizer,
        prompt: &str,
        subject: &str,
        target: &str,
        prefixes: &[impl AsRef<str>],
    ) -> Result<Fact> {
        let prompt = prompt.trim();
        let Some((before, after)) = prompt.split_once(PLACE).filter(|(_, after)| !after.contains(PLACE))
        else {
            return Err(Error::Request(format!("prompt {prompt:?}; expected exactly one {PLACE} in it")));
        };
        let (subject, target) = (subject.trim(), target.trim());
        if subject.is_empty() {
            return Err(Error::Request("the subject is empty; expected at least one word".into()));
        }
        if target.is_empty() {
            return Err(Error::Request("the target is empty; expected at least one word".into()));
        }
        let context = |before: &str, after: &str| -> Result<Context> {
            let text = format!("{before}{subject}{after}");
            let (tokens, place) = tokenizer.locate(&text, before.len()..before.len() + subject.len())?;
            Ok(Context { tokens, subject_last: place.end - 1 })
        };
        let mut contexts = vec![context(before, after)?];
        for prefix in prefixes {
            contexts.push(context(&format!("{} {before}", prefix.as_ref()), after)?);
        }
        Ok(Fact {
            contexts,
            kl_prompt: context("", " is a")?,
            target: tokenizer.encode_some("target", &format!(" {target}"))?,
        })
    }
}

/// Texts to put before prompts when keys and target vectors are computed: [`PREFIXES`] for GPT-2's tokenizer, otherwise
/// drawn from the model with the seed.
///
/// # Errors
/// When the tokenizer has no end-of-text token to begin with.
pub fn prefixes<F: Scalar>(checkpoint: &Checkpoint<F>, seed: u64) -> Result<Vec<String>> {
    let Checkpoint { model, tokenizer } = checkpoint;
    if tokenizer.vocab_size() >= GPT2_VOCABULARY {
        return Ok(PREFIXES.map(str::to_owned).to_vec());
    }
    let missing = || Error::Request(format!("the tokenizer has no token {END_OF_TEXT}"));
    let start = tokenizer.token_id(END_OF_TEXT).ok_or_else(missing)?;
    sample_prefixes(model, tokenizer, start, &PREFIX_TOKENS, seed)
}

/// Lines of a text as tokens, each cut to the model's context, up to and with the line that reaches `most_tokens`.
/// Blank lines are left out.
///
/// # Errors
/// When a line cannot be tokenised.
pub fn token_lines<F: Scalar>(
    checkpoint: &Checkpoint<F>,
    text: &str,
    most_tokens: usize,
) -> Result<Vec<Vec<u32>>> {
    let mut lines = Vec::new();
    let mut tokens = 0;
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        if tokens >= most_tokens {
            break;
        }
        let line = checkpoint.tokenizer.encode_start(line, checkpoint.model.config().n_positions)?;
        tokens += line.len();
        lines.push(line);
    }
    Ok(lines)
}

/// Draws texts from the model to put before prompts, as the released ROME does, but with a seed: one text per number of
/// tokens in `lengths`, continuing the token `start` (end of text), each token from the five likeliest. Line breaks and
/// braces become spaces, and each text ends with a full stop.
///
/// # Errors
/// When a length does not fit the model.
pub fn sample_prefixes<F: Scalar>(
    model: &Gpt2<F>,
    tokenizer: &Tokenizer,
    start: u32,
    lengths: &[usize],
    seed: u64,
) -> Result<Vec<String>> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut prefixes = Vec::with_capacity(lengths.len());
    for &length in lengths {
        let sampling = Sampling::Draw { temperature: 1.0, top_k: 5, top_p: 1.0, rng: &mut rng };
        let drawn = model.generate(&[start], length, sampling)?;
        let drawn: Vec<u32> = drawn.into_iter().filter(|&token| token != start).collect();
        let text = tokenizer.decode(&drawn)?;
        let words: Vec<&str> = text.split(|c: char| c.is_whitespace() || "{}".contains(c)).collect();
        let words: Vec<&str> = words.into_iter().filter(|word| !word.is_empty()).collect();
        let text = words.join(" ");
        prefixes.push(format!("{}.", text.trim_end_matches(|c: char| c.is_ascii_punctuation())));
    }
    Ok(prefixes)
}
