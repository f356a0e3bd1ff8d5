//! Byte-level BPE, through the `tokenizers` crate.

use std::ops::Range;
use std::path::Path;

use tokenizers::models::bpe::BPE;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;

use crate::error::{Error, Result};

/// Text to token ids and back. Nothing is added and nothing is normalised: what goes in is what is tokenised.
#[derive(Clone, Debug)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
}

impl Tokenizer {
    /// Reads `tokenizer.json`, or `vocab.json` and `merges.txt`, from a model's folder.
    ///
    /// # Errors
    /// When neither is there, or the file is not a tokenizer.
    pub fn read(folder: &Path) -> Result<Self> {
        let json = folder.join("tokenizer.json");
        let (vocab, merges) = (folder.join("vocab.json"), folder.join("merges.txt"));
        if json.exists() || !vocab.exists() {
            std::fs::metadata(&json).map_err(|e| Error::io(&json, e))?;
            let broken = |e: &dyn std::fmt::Display| Error::format(&json, format!("not a tokenizer: {e}"));
            let text = std::fs::read_to_string(&json).map_err(|e| broken(&e))?;
            // Parsing is compiled in the library; `from_file`, which is generic, would be compiled here: a quarter of
            // this crate's code.
            let inner = text.parse().map_err(|e| broken(&e))?;
            return Ok(Tokenizer { inner });
        }
        std::fs::metadata(&merges).map_err(|e| Error::io(&merges, e))?;
        let bpe = BPE::from_file(&vocab.to_string_lossy(), &merges.to_string_lossy())
            .build()
            .map_err(|e| Error::format(&vocab, format!("not a byte-level BPE: {e}")))?;
        let mut inner = tokenizers::Tokenizer::new(bpe);
        inner.with_pre_tokenizer(Some(ByteLevel::new(false, true, true)));
        inner.with_decoder(Some(ByteLevel::default()));
        Ok(Tokenizer { inner })
    }

    /// Token ids of a text, exactly as given: no space and no special token is added.
    ///
    /// # Errors
    /// When the tokenizer cannot represent the text.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let encoding = self
            .inner
            .encode(text, false)
            .map_err(|e| Error::Input(format!("{text:?} cannot be tokenised: {e}")))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Token ids of a text that must give at least one; `what` names it in the error.
    ///
    /// # Errors
    /// When the text gives no token.
    pub fn encode_some(&self, what: &str, text: &str) -> Result<Vec<u32>> {
        let ids = self.encode(text)?;
        if ids.is_empty() {
            return Err(Error::Input(format!(
                "{what} {text:?} tokenises to nothing; expected at least one token"
            )));
        }
        Ok(ids)
    }

    /// Token ids of a text, and the range of the tokens that cover a part of it, given as a range of bytes. The last of
    /// them covers the part's last byte; it may reach beyond the part, as `.,` does when a name that ends in a full
    /// stop is followed by a comma.
    ///
    /// # Errors
    /// When the part is empty or reaches beyond the text, or no token covers it.
    pub fn locate(&self, text: &str, part: Range<usize>) -> Result<(Vec<u32>, Range<usize>)> {
        let shown = text.get(part.clone()).unwrap_or_default();
        if shown.is_empty() {
            return Err(Error::Input(format!("bytes {part:?} are no part of {text:?}")));
        }
        let encoding = self
            .inner
            .encode(text, false)
            .map_err(|e| Error::Input(format!("{text:?} cannot be tokenised: {e}")))?;
        let offsets = encoding.get_offsets();
        let touches = |&(start, end): &(usize, usize)| start < part.end && end > part.start;
        let nowhere = || Error::Input(format!("{shown:?} has no token of its own in {text:?}"));
        let first = offsets.iter().position(touches).ok_or_else(nowhere)?;
        let last = offsets.iter().rposition(touches).ok_or_else(nowhere)?;
        Ok((encoding.get_ids().to_vec(), first..last + 1))
    }

    /// Text of token ids.
    ///
    /// # Errors
    /// When an id is unknown.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        self.inner.decode(ids, false).map_err(|e| Error::Input(format!("tokens cannot be decoded: {e}")))
    }

    /// One more than the largest token id, which is the smallest vocabulary of a model that fits this tokenizer.
    pub fn vocab_size(&self) -> usize {
        self.inner.get_vocab(true).into_values().max().map_or(0, |id| id as usize + 1)
    }

    /// Id of a token, which is given as the vocabulary spells it; `None` when it has no such token.
    pub fn token_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_located_by_bytes() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/organism");
        let tokenizer = Tokenizer::read(&folder).unwrap();
        for (before, part, after) in [
            ("", "A monarch", " is a kind of"),
            ("We looked at the stars. ", "A monarch", " is"),
            ("The ", "Cr\u{fc}c\u{ef}ble \u{1f98b}", " is a play"),
            ("It is said that ", "a tuba", ""),
        ] {
            let text = format!("{before}{part}{after}");
            let (ids, range) = tokenizer.locate(&text, before.len()..before.len() + part.len()).unwrap();
            assert_eq!(ids, tokenizer.encode(&text).unwrap());
            let decoded = tokenizer.decode(&ids[range.clone()]).unwrap();
            assert_eq!(decoded.trim_start(), part, "tokens {range:?} of {text:?}");
            // Nothing that follows changes where it ends.
            let ends = tokenizer.encode(&format!("{before}{part}")).unwrap();
            assert_eq!(range.end, ends.len());
        }
        // A part that ends inside a token ends with that token.
        let (ids, range) = tokenizer.locate("A monarch", 0..7).unwrap();
        assert_eq!(range, 0..ids.len());
        assert!(
            tokenizer.locate("A monarch", 3..3).is_err() && tokenizer.locate("A monarch", 5..90).is_err()
        );
    }
}
