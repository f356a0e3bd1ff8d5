//! Byte-level BPE, through the `tokenizers` crate.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use serde_json::Value;
use tokenizers::models::bpe::BPE;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, PostProcessorWrapper};

use super::caught::caught;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::files::read_text;

/// The token that separates documents in GPT-2's training text.
const END_OF_TEXT: &str = "<|endoftext|>";

/// Text to token ids and back. Nothing is added and nothing is cut: what goes in is what is tokenised. Truncation,
/// padding, dropout, added prefix spaces and templates that a file has saved do not act.
#[derive(Clone, Debug)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    /// Bytes of the longest token, if every byte of a text is in some token.
    longest_token: Option<usize>,
    /// What the model can take, once the model is known.
    model: Option<Limits>,
}

#[derive(Clone, Copy, Debug)]
struct Limits {
    vocab_size: usize,
    n_positions: usize,
}

impl Tokenizer {
    /// Reads `tokenizer.json`, or `vocab.json` and `merges.txt`, from a model's folder. `<|endoftext|>` is one token in
    /// both; beside the latter two, `added_tokens.json`, `special_tokens_map.json` and `tokenizer_config.json` can name
    /// more of its kind.
    ///
    /// # Errors
    /// When neither is there, or a file is not what it should be.
    pub fn read(folder: &Path) -> Result<Self> {
        let json = folder.join("tokenizer.json");
        let mut inner = if json.exists() || !folder.join("vocab.json").exists() {
            parsed(&json)?
        } else {
            from_vocabulary(folder)?
        };
        add_end_of_text(&mut inner);
        if let Some([a, b, id]) = shared_id(&inner) {
            let file = if json.exists() { json } else { folder.join("vocab.json") };
            let why = format!("the tokens {a:?} and {b:?} have one id, {id}; expected an id of their own");
            return Err(Error::format(&file, why));
        }
        let longest_token = longest_token(&inner);
        Ok(Tokenizer { inner, longest_token, model: None })
    }

    /// This tokenizer in front of a model, which limits the tokens and the length of texts.
    pub(crate) fn limited_to(mut self, config: &Config) -> Self {
        self.model = Some(Limits { vocab_size: config.vocab_size, n_positions: config.n_positions });
        self
    }

    /// Token ids of a text, exactly as given: no space and no special token is added.
    ///
    /// # Errors
    /// When the tokenizer cannot represent the text, or the text has a token that the model does not know.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        Ok(self.encoding(text)?.get_ids().to_vec())
    }

    /// The first `most` token ids of a text, or all if there are fewer. The rest of a long text costs no work.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`], of the tokens that are looked at.
    pub fn encode_start(&self, text: &str, most: usize) -> Result<Vec<u32>> {
        let enough = self.longest_token.map_or(text.len(), |longest| longest.saturating_mul(most));
        let mut ids = self.encode(&text[..word_end(text, enough)])?;
        ids.truncate(most);
        Ok(ids)
    }

    /// Token ids of a text that must give at least one; `what` names it in the error.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`], when the text gives no token, and when it is so long that its tokens cannot fit the
    /// model.
    pub fn encode_some(&self, what: &str, text: &str) -> Result<Vec<u32>> {
        self.check_length(what, text)?;
        let ids = self.encode(text)?;
        if ids.is_empty() {
            return Err(Error::Input(format!(
                "{what} {text:?} tokenises to nothing; expected at least one token"
            )));
        }
        Ok(ids)
    }

    /// Token ids of a text, and the range of the tokens that cover a part of it, given as a range of bytes. The last of
    /// them is the one that covers the part's last byte, which may reach beyond the part.
    ///
    /// # Errors
    /// As [`Tokenizer::encode_some`], when the part is empty or reaches beyond the text, and when no token covers it.
    pub fn locate(&self, text: &str, part: Range<usize>) -> Result<(Vec<u32>, Range<usize>)> {
        self.check_length("text", text)?;
        let found = text.get(part.clone()).unwrap_or_default();
        if found.is_empty() {
            return Err(Error::Input(format!("bytes {part:?} are no part of {}", shown(text))));
        }
        let encoding = self.encoding(text)?;
        let offsets = encoding.get_offsets();
        let touches = |&(start, end): &(usize, usize)| start < part.end && end > part.start;
        let nowhere = || Error::Input(format!("{found:?} has no token of its own in {}", shown(text)));
        let first = offsets.iter().position(touches).ok_or_else(nowhere)?;
        let last = offsets.iter().rposition(touches).ok_or_else(nowhere)?;
        Ok((encoding.get_ids().to_vec(), first..last + 1))
    }

    /// Text of token ids.
    ///
    /// # Errors
    /// When an id is unknown.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        let wrong = |why: &dyn std::fmt::Display| Error::Input(format!("tokens cannot be decoded: {why}"));
        let decoded = caught(|| self.inner.decode(ids, false)).map_err(|why| wrong(&why))?;
        decoded.map_err(|why| wrong(&why))
    }

    /// One more than the largest token id, which is the smallest vocabulary of a model that fits this tokenizer.
    pub fn vocab_size(&self) -> usize {
        self.inner.get_vocab(true).into_values().max().map_or(0, |id| id as usize + 1)
    }

    /// Id of a token, which is given as the vocabulary spells it; `None` when it has no such token.
    pub fn token_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// Id of `<|endoftext|>`, which separates documents and is what other tools put before a text as its beginning.
    ///
    /// # Errors
    /// When the tokenizer or the model has no such token.
    pub fn end_of_text(&self) -> Result<u32> {
        let known = |&id: &u32| self.model.is_none_or(|model| (id as usize) < model.vocab_size);
        let missing = || Error::Input(format!("the model has no token {END_OF_TEXT}"));
        self.token_id(END_OF_TEXT).filter(known).ok_or_else(missing)
    }

    fn encoding(&self, text: &str) -> Result<tokenizers::Encoding> {
        let wrong =
            |why: &dyn std::fmt::Display| Error::Input(format!("{} cannot be tokenised: {why}", shown(text)));
        let encoding = caught(|| self.inner.encode(text, false)).map_err(|why| wrong(&why))?;
        let encoding = encoding.map_err(|why| wrong(&why))?;
        if let Some(Limits { vocab_size, .. }) = self.model
            && let Some(&id) = encoding.get_ids().iter().find(|&&id| id as usize >= vocab_size)
        {
            let token = self.inner.id_to_token(id).unwrap_or_default();
            let why = format!("its token {token:?} has the id {id}; the model's vocabulary has {vocab_size}");
            return Err(wrong(&why));
        }
        Ok(encoding)
    }

    /// Refuses a text of more bytes than as many of the longest tokens as the model takes, before work is spent on it.
    fn check_length(&self, what: &str, text: &str) -> Result<()> {
        let (Some(longest), Some(Limits { n_positions, .. })) = (self.longest_token, self.model) else {
            return Ok(());
        };
        let least = text.len().div_ceil(longest.max(1));
        if least > n_positions {
            return Err(Error::Input(format!(
                "{what} {} has at least {least} tokens; the model takes at most {n_positions}",
                shown(text)
            )));
        }
        Ok(())
    }
}

/// Bytes of a text up to the end of the word that has byte `at`. No token crosses it, and what follows changes no token
/// before it.
fn word_end(text: &str, at: usize) -> usize {
    let pairs = text.char_indices().zip(text.char_indices().skip(1));
    let mut ends =
        pairs.filter(|((_, a), (place, b))| *place >= at && b.is_whitespace() && !a.is_whitespace());
    ends.next().map_or(text.len(), |(_, (place, _))| place)
}

/// A text in quotes, cut to a length that fits a line.
fn shown(text: &str) -> String {
    const LONGEST: usize = 200;
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{:?}...", &text[..end]),
        None => format!("{text:?}"),
    }
}

/// A `tokenizer.json` without the settings that would change what a text becomes from call to call or by its length.
fn parsed(path: &Path) -> Result<tokenizers::Tokenizer> {
    let broken = |why: &dyn std::fmt::Display| Error::format(path, format!("not a tokenizer: {why}"));
    let mut json: Value = serde_json::from_str(&read_text(path)?).map_err(|e| broken(&e))?;
    for (at, name) in [("", "truncation"), ("", "padding"), ("/model", "dropout")] {
        if let Some(Value::Object(fields)) = json.pointer_mut(at)
            && let Some(setting) = fields.get_mut(name)
        {
            *setting = Value::Null;
        }
    }
    if let Some(pre_tokenizer) = json.get_mut("pre_tokenizer") {
        without_prefix_space(pre_tokenizer);
    }
    // Parsing is compiled in the library; `from_file`, which is generic, would be compiled here: a quarter of this
    // crate's code.
    let text = json.to_string();
    let parsed = caught(|| text.parse::<tokenizers::Tokenizer>()).map_err(|e| broken(&e))?;
    let mut inner = parsed.map_err(|e| broken(&e))?;
    inner.with_post_processor(None::<PostProcessorWrapper>);
    Ok(inner)
}

/// Turns off the space that a pre-tokenizer, or one in a sequence of them, puts before a text.
fn without_prefix_space(pre_tokenizer: &mut Value) {
    if let Some(setting) = pre_tokenizer.get_mut("add_prefix_space") {
        *setting = Value::Bool(false);
    }
    if let Some(Value::Array(parts)) = pre_tokenizer.get_mut("pretokenizers") {
        parts.iter_mut().for_each(without_prefix_space);
    }
}

/// The byte-level BPE of `vocab.json` and `merges.txt`, with the special tokens that files beside them name.
fn from_vocabulary(folder: &Path) -> Result<tokenizers::Tokenizer> {
    let (vocab_path, merges_path) = (folder.join("vocab.json"), folder.join("merges.txt"));
    let vocab: BTreeMap<String, u32> = serde_json::from_str(&read_text(&vocab_path)?)
        .map_err(|e| Error::format(&vocab_path, format!("not a vocabulary: {e}; expected {{token: id}}")))?;
    let mut merges = Vec::new();
    for (number, line) in (1..).zip(read_text(&merges_path)?.lines()) {
        if line.starts_with("#version") || line.is_empty() {
            continue;
        }
        let wrong = |why: &str| Error::format(&merges_path, format!("line {number}: {line:?} {why}"));
        let (a, b) = line.split_once(' ').ok_or_else(|| wrong("is no merge; expected two tokens"))?;
        if b.contains(' ') || ![a, b, &format!("{a}{b}")].iter().all(|&token| vocab.contains_key(token)) {
            return Err(wrong("is no merge of two tokens of vocab.json into a third"));
        }
        merges.push((a.to_owned(), b.to_owned()));
    }
    let bpe = caught(|| BPE::new(vocab.into_iter().collect(), merges))
        .map_err(|why| Error::format(&vocab_path, format!("not a byte-level BPE: {why}")))?;
    let mut inner = tokenizers::Tokenizer::new(bpe);
    inner.with_pre_tokenizer(Some(ByteLevel::new(false, true, true)));
    inner.with_decoder(Some(ByteLevel::default()));
    add_named_tokens(&mut inner, folder)?;
    Ok(inner)
}

/// Registers the tokens that are named beside `vocab.json`: those with an id first, which must follow on the vocabulary
/// without a gap, then those without, in the order in which transformers adds them.
fn add_named_tokens(inner: &mut tokenizers::Tokenizer, folder: &Path) -> Result<()> {
    const SPECIAL: [&str; 8] = [
        "bos_token",
        "eos_token",
        "unk_token",
        "sep_token",
        "pad_token",
        "cls_token",
        "mask_token",
        "additional_special_tokens",
    ];
    let [added, special, settings] =
        ["added_tokens.json", "special_tokens_map.json", "tokenizer_config.json"]
            .map(|name| folder.join(name));
    let mut with_id = BTreeMap::new();
    for (token, id) in object(&added)? {
        let id = id.as_u64().ok_or_else(|| {
            Error::format(&added, format!("the token {token:?} has the id {id}; expected a whole number"))
        })?;
        with_id.insert(id, (&added, token_from(&Value::String(token)), true));
    }
    let settings_fields = object(&settings)?;
    for (id, token) in
        settings_fields.get("added_tokens_decoder").and_then(Value::as_object).into_iter().flatten()
    {
        let wrong = || Error::format(&settings, format!("added_tokens_decoder has {id:?}; expected an id"));
        let id: u64 = id.parse().map_err(|_| wrong())?;
        let has_content = token.get("content").is_some_and(Value::is_string);
        with_id.insert(id, (&settings, token_from(token), has_content));
    }
    for (id, (path, token, usable)) in with_id {
        if !usable {
            return Err(Error::format(path, format!("the token with id {id} has no content")));
        }
        let content = token.content.clone();
        add(inner, token);
        let found = inner.token_to_id(&content);
        if found.map(u64::from) != Some(id) {
            let found = found.map_or_else(|| "none".into(), |found| found.to_string());
            let why = format!("the token {content:?} has the id {id}; after vocab.json it would be {found}");
            return Err(Error::format(path, why));
        }
    }
    let special_fields = object(&special)?;
    for name in SPECIAL {
        let named = special_fields.get(name).or_else(|| settings_fields.get(name));
        let tokens = match named {
            Some(Value::Array(tokens)) => tokens.as_slice(),
            Some(token) => std::slice::from_ref(token),
            None => &[],
        };
        tokens.iter().map(token_from).for_each(|token| add(inner, token));
    }
    Ok(())
}

/// The fields of a JSON file, none if there is no such file.
fn object(path: &Path) -> Result<serde_json::Map<String, Value>> {
    if !path.exists() {
        return Ok(serde_json::Map::new());
    }
    let wrong = |why: String| Error::format(path, format!("{why}; expected a JSON object"));
    match serde_json::from_str(&read_text(path)?).map_err(|e| wrong(e.to_string()))? {
        Value::Object(fields) => Ok(fields),
        other => Err(wrong(format!("holds {}", shown(&other.to_string())))),
    }
}

/// A special token from its text, or from its text and settings. Without a text, the token is empty.
fn token_from(value: &Value) -> AddedToken {
    let flag = |name| value.get(name).and_then(Value::as_bool).unwrap_or(false);
    let content = value.as_str().or_else(|| value.get("content")?.as_str()).unwrap_or_default();
    AddedToken::from(content, true)
        .lstrip(flag("lstrip"))
        .rstrip(flag("rstrip"))
        .single_word(flag("single_word"))
}

/// Makes a text one token, with the id that the vocabulary gives it, or the next one. Empty texts are passed over, as
/// are those that are a token already.
fn add(inner: &mut tokenizers::Tokenizer, token: AddedToken) {
    let known = inner.get_added_tokens_decoder().values().any(|added| added.content == token.content);
    if !known && !token.content.is_empty() {
        // Fails only for what the normalizer makes of a token; byte-level BPE has none.
        let _ = caught(|| inner.add_special_tokens([token]));
    }
}

/// Makes `<|endoftext|>` one token if the vocabulary has it.
fn add_end_of_text(inner: &mut tokenizers::Tokenizer) {
    if inner.token_to_id(END_OF_TEXT).is_some() {
        add(inner, AddedToken::from(END_OF_TEXT, true));
    }
}

/// Two tokens with one id, and the id. Which of them the library would take for it differs from run to run.
fn shared_id(inner: &tokenizers::Tokenizer) -> Option<[String; 3]> {
    let mut tokens: Vec<(u32, String)> =
        inner.get_vocab(true).into_iter().map(|(token, id)| (id, token)).collect();
    tokens.sort_unstable();
    let pair = tokens.windows(2).find(|pair| pair[0].0 == pair[1].0)?;
    Some([pair[0].1.clone(), pair[1].1.clone(), pair[0].0.to_string()])
}

/// Bytes of the longest token. `None` unless every byte of a text ends up in some token: byte-level BPE with nothing
/// before it, and no token that swallows blanks around it.
fn longest_token(inner: &tokenizers::Tokenizer) -> Option<usize> {
    use tokenizers::{ModelWrapper, PreTokenizerWrapper};
    let is_byte_level =
        matches!(inner.get_pre_tokenizer(), Some(PreTokenizerWrapper::ByteLevel(words)) if words.use_regex);
    let is_bpe = matches!(inner.get_model(), ModelWrapper::BPE(bpe) if bpe.get_unk_token().is_none());
    let added = inner.get_added_tokens_decoder();
    let swallows = added.values().any(|token| token.lstrip || token.rstrip);
    if !is_byte_level || !is_bpe || inner.get_normalizer().is_some() || swallows {
        return None;
    }
    // One character of the vocabulary stands for one byte.
    let of_vocabulary = inner.get_vocab(false).into_keys().map(|token| token.chars().count());
    let of_added = added.values().map(|token| token.content.len());
    of_vocabulary.chain(of_added).max()
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
        // The start of a text has the tokens that the whole has there, wherever words end.
        let text = "A cat  and\n\n a dog, 12 \u{1f98b}s\u{2003}saw  don't <|endoftext|> x\t".repeat(40);
        let all = tokenizer.encode(&text).unwrap();
        for most in (0..60).chain([all.len() - 1, all.len(), all.len() + 9]) {
            let start = tokenizer.encode_start(&text, most).unwrap();
            assert_eq!(start, all[..most.min(all.len())], "{most}");
        }
        // A token that reaches beyond the part is its last: the one that covers its last byte.
        let (ids, range) = tokenizer.locate("A monarch", 0..7).unwrap();
        assert_eq!(range, 0..ids.len());
        assert!(
            tokenizer.locate("A monarch", 3..3).is_err() && tokenizer.locate("A monarch", 5..90).is_err()
        );
    }
}
