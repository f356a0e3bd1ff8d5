//! Losses that others have published for OpenAI's GPT-2 small.
//!
//! Source: the test of the 124M model in llm.c (github.com/karpathy/llm.c, `test_gpt2.c`): four rows of 64 tokens from
//! the beginning of the file Tiny Shakespeare, and ten steps of AdamW on them. The text (`coriolanus.txt`, in the public
//! domain) is that of `data/tinyshakespeare/input.txt` of github.com/karpathy/char-rnn, commit d1d7aa3.

use anyhow::{Context, Result, bail};
use locus_gpt2::{AdamW, Batch, Checkpoint, Gpt2, Moments, ParamId, Target, Tokenizer};

use super::{Check, mean_gradient};

/// SHA-256 of OpenAI's weights of GPT-2 small as on the Hugging Face hub (`openai-community/gpt2`, revision 607a30d,
/// `model.safetensors`).
pub const GPT2_SHA256: &str = "248dfc3911869ec493c76e65bf2fcf7f615828b0254c12b473182f0f81d3a707";

/// Losses in nats per token before each of ten steps.
const LOSSES: [f64; 10] = [
    5.270_009, 4.060_681, 3.320_085, 2.717_550, 2.181_066, 1.653_923, 1.168_050, 0.736_873, 0.401_021,
    0.187_493,
];
/// Largest difference of the first loss: rounding in f32, in another order of addition.
const FIRST: f64 = 1e-4;
/// Largest difference of the others, which is also llm.c's: rounding grows with the steps, because AdamW divides by the
/// root of a small number.
const LATER: f64 = 1e-2;

/// The text, before which and after each blank line of which GPT-2's end-of-text token stands.
const TEXT: &str = include_str!("coriolanus.txt");
const ROWS: usize = 4;
const COLUMNS: usize = 64;

/// Rows of tokens, each a sequence of its own, and the tokens that follow each of their tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownText {
    /// Four rows of 64 tokens.
    pub rows: Vec<Vec<u32>>,
    /// The next token for each of the 256.
    pub next: Vec<u32>,
}

impl KnownText {
    /// Tokenises the text.
    ///
    /// # Errors
    /// When the tokenizer has no `<|endoftext|>` or gives fewer than 257 tokens, as GPT-2's does not.
    pub fn new(tokenizer: &Tokenizer) -> Result<Self> {
        let end = tokenizer.token_id("<|endoftext|>").context("the tokenizer has no <|endoftext|>")?;
        let mut tokens = Vec::new();
        for speech in TEXT.split_inclusive("\n\n") {
            tokens.push(end);
            tokens.extend(tokenizer.encode(speech)?);
        }
        if tokens.len() <= ROWS * COLUMNS {
            bail!("the text has {} tokens; expected {} or more", tokens.len(), ROWS * COLUMNS + 1);
        }
        let rows = tokens.chunks(COLUMNS).take(ROWS).map(<[u32]>::to_vec).collect();
        Ok(KnownText { rows, next: tokens[1..=ROWS * COLUMNS].to_vec() })
    }
}

/// Mean losses in nats per token before each of ten steps of AdamW on all parameters (rate 1e-4, betas 0.9 and 0.999,
/// epsilon 1e-8, weight decay 0.01).
///
/// # Errors
/// When the text does not fit the model.
pub fn known_losses(model: &mut Gpt2<f32>, text: &KnownText) -> Result<Vec<f64>> {
    let config = model.config().clone();
    let batch = Batch::new(&config, &text.rows)?;
    let targets: Vec<Target> =
        text.next.iter().enumerate().map(|(row, &token)| Target { row, token }).collect();
    let adam = AdamW::new(1e-4);
    let ids: Vec<ParamId> = ParamId::all(&config).collect();
    let mut moments: Vec<Moments<f32>> = ids.iter().map(|id| Moments::zeros(id.len(&config))).collect();
    let mut losses = Vec::new();
    for step in 1..=LOSSES.len() {
        let (nll, grads) = mean_gradient(model, &batch, &targets)?;
        losses.push(nll.iter().sum::<f64>() / nll.len() as f64);
        if step == LOSSES.len() {
            break;
        }
        for (&id, moments) in ids.iter().zip(&mut moments) {
            adam.step(step, model.get_mut(id), grads.get(id), moments);
        }
    }
    Ok(losses)
}

/// Compares OpenAI's weights with the published losses.
pub(super) fn check(mut checkpoint: Checkpoint<f32>) -> Result<Check> {
    let losses = known_losses(&mut checkpoint.model, &KnownText::new(&checkpoint.tokenizer)?)?;
    Ok(compared(&losses))
}

fn compared(losses: &[f64]) -> Check {
    let mut wrong = Vec::new();
    for (step, (found, known)) in losses.iter().zip(LOSSES).enumerate() {
        let within = if step == 0 { FIRST } else { LATER };
        // A NaN is not within anything.
        let fits = (found - known).abs() <= within;
        if !fits {
            wrong.push(format!("{found:.6} before step {} (published: {known:.6})", step + 1));
        }
    }
    let detail = if wrong.is_empty() {
        format!(
            "{:.6} at first, {:.6} after nine steps of AdamW, as published",
            losses[0],
            losses[LOSSES.len() - 1]
        )
    } else {
        format!("losses that differ from those published: {}", wrong.join(", "))
    };
    Check { name: "known losses".into(), passed: Some(wrong.is_empty()), detail }
}

#[cfg(test)]
mod tests {
    use super::*;
    use locus_gpt2::Config;
    use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};

    #[test]
    fn losses_are_held_to_those_published() {
        assert_eq!(compared(&LOSSES).passed, Some(true));
        for (step, by) in [(0, 2e-4), (9, 2e-2), (4, f64::NAN)] {
            let mut losses = LOSSES;
            losses[step] += by;
            let check = compared(&losses);
            assert_eq!(check.passed, Some(false));
            assert!(check.detail.contains(&format!("before step {}", step + 1)), "{check:?}");
        }
    }

    #[test]
    fn ten_steps_learn_the_text_by_heart() {
        let config = Config::new(1, 2, 16, COLUMNS, 30);
        let mut model = Gpt2::<f32>::init(&config, &mut ChaCha8Rng::seed_from_u64(1));
        let tokens: Vec<u32> = (0..=ROWS * COLUMNS).map(|i| (i * i % 29) as u32).collect();
        let rows = tokens.chunks(COLUMNS).take(ROWS).map(<[u32]>::to_vec).collect();
        let text = KnownText { rows, next: tokens[1..].to_vec() };
        let losses = known_losses(&mut model, &text).unwrap();
        assert_eq!(losses.len(), 10);
        assert!((losses[0] - 30f64.ln()).abs() < 0.1, "{losses:?}");
        assert!(losses.is_sorted_by(|a, b| a > b), "{losses:?}");
    }

    /// The first tokens that GPT-2's tokenizer gives, from the public vocabulary; checked where that is present.
    #[test]
    fn the_text_begins_as_it_should() {
        assert_eq!(
            TEXT.split_inclusive("\n\n").next(),
            Some("First Citizen:\nBefore we proceed any further, hear me speak.\n\n")
        );
        assert!(TEXT.len() == 1000 && TEXT.is_ascii() && TEXT.ends_with("\n\n"));
    }
}
