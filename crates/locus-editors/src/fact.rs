//! What an editor is asked to write: tokens, and where the subject ends.

use locus_gpt2::Config;

use crate::error::{Error, Result};

/// One target to write: after `prompt`, say `target`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRequest {
    /// Tokens of the prompt, subject included.
    pub prompt: Vec<u32>,
    /// Tokens of the new target.
    pub target: Vec<u32>,
}

/// A prompt and the position at which a fact is looked up: that of the subject's last token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Tokens of the prompt.
    pub tokens: Vec<u32>,
    /// Position of the subject's last token.
    pub lookup: usize,
}

/// A fact as the locate-then-edit methods need it: the prompt bare and behind a few prefixes, so that what is written
/// does not depend on what stands before the subject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fact {
    /// The prompt: first as it is, then behind each prefix.
    pub rows: Vec<Row>,
    /// A prompt about the subject ("SUBJECT is a") after whose subject the model should go on as before.
    pub essence: Row,
    /// Tokens of the new target.
    pub target: Vec<u32>,
}

impl Fact {
    /// The bare prompt and its target.
    pub fn request(&self) -> TokenRequest {
        TokenRequest { prompt: self.rows[0].tokens.clone(), target: self.target.clone() }
    }

    /// That every row fits the model with all but the last token of the target behind it.
    ///
    /// # Errors
    /// When there is no row or no target, a token is unknown, a row is too long or its subject lies outside of it.
    pub fn check(&self, config: &Config) -> Result<()> {
        if self.rows.is_empty() {
            return Err(Error::Request("a fact has no prompt; expected at least the bare one".into()));
        }
        if self.target.is_empty() {
            return Err(Error::Request("the target has no tokens; expected at least one".into()));
        }
        for row in self.rows.iter().chain([&self.essence]) {
            if row.lookup >= row.tokens.len() {
                return Err(Error::Request(format!(
                    "the subject's last token is at position {} of a prompt of {} tokens",
                    row.lookup,
                    row.tokens.len()
                )));
            }
            let length = row.tokens.len() + self.target.len() - 1;
            if length > config.n_positions {
                return Err(Error::Request(format!(
                    "prompt and target have {length} tokens; the model takes at most {}",
                    config.n_positions
                )));
            }
            let unknown = |token: &&u32| **token as usize >= config.vocab_size;
            if let Some(token) = row.tokens.iter().chain(&self.target).find(unknown) {
                return Err(Error::Request(format!(
                    "token {token} is not among the {} of the model",
                    config.vocab_size
                )));
            }
        }
        Ok(())
    }
}
