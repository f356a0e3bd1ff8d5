//! Byte-level BPE, through the `tokenizers` crate.

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
            let inner = tokenizers::Tokenizer::from_file(&json)
                .map_err(|e| Error::format(&json, format!("not a tokenizer: {e}")))?;
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

    /// The same, refusing a text that gives no token.
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

    /// Text of token ids.
    ///
    /// # Errors
    /// When an id is unknown.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        self.inner.decode(ids, false).map_err(|e| Error::Input(format!("tokens cannot be decoded: {e}")))
    }

    /// One more than the largest token id: the least vocabulary of a model that this tokenizer fits.
    pub fn vocab_size(&self) -> usize {
        self.inner.get_vocab(true).into_values().max().map_or(0, |id| id as usize + 1)
    }

    /// The id of a token given as it stands in the vocabulary.
    pub fn token_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }
}
