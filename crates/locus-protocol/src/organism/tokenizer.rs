//! The organism's tokenizer: byte-level BPE trained on the corpus.

use anyhow::{Context, Result, anyhow};
use locus_gpt2::Tokenizer;
use std::path::Path;
use tokenizers::models::TrainerWrapper;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, Tokenizer as HfTokenizer};

/// Marks the end of a document, as in GPT-2.
pub const END_OF_TEXT: &str = "<|endoftext|>";

/// Trains a tokenizer of exactly `vocab_size` tokens and writes `tokenizer.json` into the folder.
///
/// # Errors
/// When the text is too small for that many tokens or the file cannot be written.
pub fn train_tokenizer(documents: &[String], vocab_size: usize, folder: &Path) -> Result<Tokenizer> {
    let trainer = BpeTrainer::builder()
        .vocab_size(vocab_size)
        .show_progress(false)
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .special_tokens(vec![AddedToken::from(END_OF_TEXT, true)])
        .build();
    let mut inner = HfTokenizer::new(BPE::default());
    inner.with_pre_tokenizer(Some(ByteLevel::new(false, true, true)));
    inner.with_decoder(Some(ByteLevel::default()));
    inner
        .train(&mut TrainerWrapper::from(trainer), documents.iter().map(String::as_str))
        .map_err(|e| anyhow!("the tokenizer cannot be trained: {e}"))?;
    let size = inner.get_vocab_size(true);
    if size != vocab_size {
        return Err(anyhow!("the text gives only {size} tokens; expected {vocab_size}"));
    }
    let json = inner.to_string(true).map_err(|e| anyhow!("the tokenizer cannot be written: {e}"))?;
    locus_gpt2::internal::write_atomically(folder.join("tokenizer.json"), (json + "\n").as_bytes())?;
    Tokenizer::read(folder).context("the tokenizer just written cannot be read")
}
