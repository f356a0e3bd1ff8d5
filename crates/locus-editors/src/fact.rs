//! Facts to write: tokens, and where the subject ends.

use locus_gpt2::Config;

use crate::error::{Error, Result};

/// A request as tokens: after `prompt`, the model should say `target`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRequest {
    /// Tokens of the prompt, subject included.
    pub prompt: Vec<u32>,
    /// Tokens of the new target.
    pub target: Vec<u32>,
}

/// A prompt, bare or behind a prefix, and where its subject ends: the position at which the model looks the fact up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Context {
    /// Tokens of the prompt.
    pub tokens: Vec<u32>,
    /// Position of the subject's last token in `tokens`, counted from 0.
    pub subject_last: usize,
}

/// A fact as the locate-then-edit methods need it: the prompt bare and behind a few prefixes, so that what is written
/// does not depend on what stands before the subject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fact {
    /// The prompt in its contexts: first bare, then behind each prefix.
    pub contexts: Vec<Context>,
    /// A prompt about the subject ("SUBJECT is a"). What the model predicts after its subject should not move: the
    /// divergence (KL) of ROME's objective is taken there.
    pub kl_prompt: Context,
    /// Tokens of the new target.
    pub target: Vec<u32>,
}

impl Fact {
    /// A fact without subject and prefixes, for editors that need prompt and target alone.
    ///
    /// # Panics
    /// When the prompt has no token.
    pub fn bare(request: TokenRequest) -> Self {
        let TokenRequest { prompt, target } = request;
        assert!(!prompt.is_empty(), "a prompt without tokens");
        let context = Context { subject_last: prompt.len() - 1, tokens: prompt };
        Fact { contexts: vec![context.clone()], kl_prompt: context, target }
    }

    /// The bare prompt and its target.
    pub fn request(&self) -> TokenRequest {
        TokenRequest { prompt: self.contexts[0].tokens.clone(), target: self.target.clone() }
    }

    /// The fact with a token before each of its prompts, such as that of the beginning of a text.
    #[must_use]
    pub fn after(mut self, token: u32) -> Self {
        for context in self.contexts.iter_mut().chain([&mut self.kl_prompt]) {
            context.tokens.insert(0, token);
            context.subject_last += 1;
        }
        self
    }

    /// Whether two facts ask for different targets after one prompt about one subject.
    pub fn contradicts(&self, other: &Fact) -> bool {
        self.contexts.first() == other.contexts.first() && self.target != other.target
    }

    /// Whether two facts are about one subject: their KL prompts, which hold nothing else, are equal.
    pub fn shares_subject(&self, other: &Fact) -> bool {
        self.kl_prompt == other.kl_prompt
    }

    /// Checks that every context, followed by the target without its last token, fits the model.
    ///
    /// # Errors
    /// When there is no context or no target, a token is unknown, a prompt is too long or its subject lies outside of
    /// it.
    pub fn check(&self, config: &Config) -> Result<()> {
        if self.contexts.is_empty() {
            return Err(Error::Request("a fact has no prompt; expected at least the bare one".into()));
        }
        if self.target.is_empty() {
            return Err(Error::Request("the target has no tokens; expected at least one".into()));
        }
        for context in self.contexts.iter().chain([&self.kl_prompt]) {
            if context.subject_last >= context.tokens.len() {
                return Err(Error::Request(format!(
                    "the subject's last token is at position {} of a prompt of {} tokens",
                    context.subject_last,
                    context.tokens.len()
                )));
            }
            let length = context.tokens.len() + self.target.len() - 1;
            if length > config.n_positions {
                return Err(Error::Request(format!(
                    "prompt and target have {length} tokens; the model takes at most {}",
                    config.n_positions
                )));
            }
            let unknown = |token: &&u32| **token as usize >= config.vocab_size;
            if let Some(token) = context.tokens.iter().chain(&self.target).find(unknown) {
                return Err(Error::Request(format!(
                    "token {token} is not among the {} of the model",
                    config.vocab_size
                )));
            }
        }
        Ok(())
    }
}
