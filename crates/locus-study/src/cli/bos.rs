//! The token before every prompt (`--bos`).

use anyhow::Result;
use locus_gpt2::Tokenizer;

use super::error::Unusable;

/// The end-of-text token when it is wanted: what GPT-2 was trained to see before a text.
pub fn bos(tokenizer: &Tokenizer, wanted: bool) -> Result<Option<u32>> {
    const END_OF_TEXT: &str = "<|endoftext|>";
    let missing = || Unusable(format!("--bos: the tokenizer has no token {END_OF_TEXT}"));
    Ok(wanted.then(|| tokenizer.token_id(END_OF_TEXT).ok_or_else(missing)).transpose()?)
}
