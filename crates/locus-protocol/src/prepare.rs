//! Requests made ready for an editor, one by one, so that one that cannot be edited is known before any is
//! (`locus edit`).

use anyhow::{Context, Result};
use locus_data::EditRequest;
use locus_editors::Fact;
use locus_gpt2::{Config, Tokenizer};

use crate::requests::PreparedRequest;

/// What requests are made ready with.
#[derive(Clone, Debug)]
pub struct Preparation<'a> {
    /// Tokenizer of the model.
    pub tokenizer: &'a Tokenizer,
    /// Configuration of the model.
    pub config: &'a Config,
    /// Texts put before the prompt when keys and values are found; `None` for editors that need no subject.
    pub prefixes: Option<Vec<String>>,
    /// Token before every prompt.
    pub before: Option<u32>,
}

impl Preparation<'_> {
    /// Makes a request ready: as it is measured, and as the editor takes it. Both have one prompt.
    ///
    /// # Errors
    /// When the new target is the true one, a text is empty or gives no token, the prompt behind one of the prefixes is
    /// longer than the model's context, or a token is not in its vocabulary.
    pub fn prepare(&self, request: &EditRequest) -> Result<(PreparedRequest, Fact)> {
        let Preparation { tokenizer, config, prefixes, before } = self;
        let at = || format!("request {}", request.case_id);
        let EditRequest { prompt, subject, target_new, target_true, .. } = request;
        if target_true.as_deref().map(str::trim) == Some(target_new.trim()) {
            anyhow::bail!("{}: the new target {target_new:?} is the true one; expected another", at());
        }
        let mut prepared = PreparedRequest::new(tokenizer, request)?;
        let mut fact = match prefixes {
            None => Fact::bare(prepared.token_request()),
            Some(prefixes) => {
                Fact::from_text(tokenizer, prompt, subject, target_new, prefixes).with_context(at)?
            }
        };
        if let Some(token) = *before {
            (prepared, fact) = (prepared.after(token), fact.after(token));
        }
        prepared.check(config)?;
        fact.check(config).with_context(at)?;
        Ok((prepared, fact))
    }
}
