//! Edit requests: JSON files in the layouts in which the field distributes them, told apart record by record.
//!
//! | layout | recognised by | read from |
//! |---|---|---|
//! | CounterFact, HierarchyData | `requested_rewrite` | the fields of [`EditRequest`]; the only layout that is written |
//! | MQuAKE | a list in `requested_rewrite` | every rewrite of the list, as in CounterFact |
//! | RippleEdits | `edit` | the sentence `edit.prompt`, subject and answers told apart (see below) |
//! | zsRE (MEND) | `src` | `src`, `alt` (new target), the first of `answers` (true target), `rephrase` |
//! | WikiBigEdit | `update` | `update`, `ans` (new target), `rephrase` |
//! | known_1000 (ROME) | `attribute` | `prompt`, `attribute` (true target); nothing to edit |
//! | EasyEdit, flat | `prompt`, `target_new` | these, `ground_truth`, `rephrase_prompt`, `locality_prompt` |
//! | KnowEdit | `prompt`, `target_new`; `text` | as EasyEdit's; WikiBio has `text`, `concept`, `labels` |
//!
//! A file is a JSON array of records, an object of them by id, or JSONL. Unknown fields are ignored. Questions that
//! have answers of their own (KnowEdit's about portability and locality, RippleEdits' tests, MQuAKE's over several
//! hops, zsRE's and WikiBigEdit's unrelated ones, CounterFact's prompts to generate from) are counted in
//! [`Records::unread`](crate::Records) and not read. A record numbers itself in `case_id` (`known_id`), otherwise by
//! its key in an object, otherwise by its place in the file, from 0; a further rewrite of a record, and a record whose
//! place is the number of another, gets a number that no record has, counted from the number of records.
//!
//! Texts are put in order here and nowhere else: white space around prompts, subjects and targets is dropped, so that
//! an edit and its measurement see one text. Where a layout has complete prompts, the first occurrence of the subject
//! as a word becomes `{}` ([`find_subject`](crate::find_subject)), and the subject is spelled as in the prompt.
//!
//! RippleEdits has sentences ("The name of the spouse of X is Y."), and no text of the subject. The answer is what
//! follows the last "is" or "are" that the sentence shares with that of `edit.original_fact`, if there is one. The
//! subject is that of `edit.subject`, or the capitalised words between `of` or `by` and the verb; where neither is
//! there, the record cannot be used.
//!
//! Two choices keep what [`EditRequest`] promises. A locality prompt becomes a neighbourhood prompt only if its answer
//! is the request's true target, which leaves out zsRE's unrelated `loc` questions. A zsRE record with an empty `alt`
//! (no counterfactual could be made) is left out, as in EasyEdit's loader.

mod counterfact;
mod draft;
mod file;
mod flat;
mod known;
mod layout;
mod mquake;
mod record;
mod ripple;
mod wikibig;
mod zsre;

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::path::Path;

use serde::{Deserialize, Serialize};

use self::draft::Draft;
use self::layout::{layout_of, recognises};
use self::record::Record;
use crate::records::{Records, Skipped};
use crate::{DataError, Result, files};

const EXPECTED: &str = "edit requests: a JSON array of records, an object of them by id, or one a line";
const FACTS: &str = "known facts: a JSON array of records, an object of them by id, or one a line";

/// One fact to edit: `prompt` with `subject` in place of `{}`, continued by `target_true` before the edit and by
/// `target_new` after it.
///
/// Texts have no white space around them; code that tokenises a target after a prompt adds a space.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EditRequest {
    /// Number of the request, unique in its file.
    pub case_id: u64,
    /// Prompt template with exactly one `{}`.
    pub prompt: String,
    /// Subject, which takes the place of the `{}`.
    pub subject: String,
    /// Counterfactual continuation.
    pub target_new: String,
    /// True continuation; `None` when the record states none.
    pub target_true: Option<String>,
    /// Complete prompts (subject filled in) that ask for the fact in other words.
    pub paraphrase_prompts: Vec<String>,
    /// Complete prompts about other subjects whose true continuation is `target_true`, too, and should not change.
    pub neighborhood_prompts: Vec<String>,
}

impl EditRequest {
    /// Prompt with the subject filled in, without white space around either.
    pub fn full_prompt(&self) -> String {
        self.prompt.trim().replacen("{}", self.subject.trim(), 1)
    }
}

/// A true fact to trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownText {
    /// Number of the fact, unique in its file.
    pub case_id: u64,
    /// Complete prompt.
    pub prompt: String,
    /// Bytes of the subject in the prompt.
    pub subject: Range<usize>,
    /// True continuation.
    pub attribute: String,
}

/// Reads a file as [`parse`] does.
///
/// # Errors
/// If the file cannot be read or parsed.
pub fn read(path: impl AsRef<Path>) -> Result<Vec<EditRequest>> {
    read_records(path)?.all()
}

/// Reads a file as [`parse_records`] does.
///
/// # Errors
/// If the file cannot be read or is not JSON with records in it.
pub fn read_records(path: impl AsRef<Path>) -> Result<Records<EditRequest>> {
    let path = path.as_ref();
    parse_records(&path.display().to_string(), &files::read(path)?)
}

/// Reads the true facts of a file, of which edit requests state one each; see [`parse_records`].
///
/// # Errors
/// If the file cannot be read or is not JSON with records in it.
pub fn read_known(path: impl AsRef<Path>) -> Result<Records<KnownText>> {
    let path = path.as_ref();
    drafts(&path.display().to_string(), &files::read(path)?, FACTS, known_text)
}

/// Parses the bytes of a file; `file` names it in errors. Every prompt of the result has exactly one `{}`, no subject
/// or target is empty, and no `case_id` occurs twice.
///
/// ```
/// let json = br#"[{"prompt": "A cat is a kind of", "subject": "A cat", "ground_truth": "animal", "target_new": "plant"}]"#;
/// let requests = locus_data::requests::parse("mine.json", json)?;
/// assert_eq!(requests[0].prompt, "{} is a kind of");
/// assert_eq!(requests[0].full_prompt(), "A cat is a kind of");
/// # Ok::<(), locus_data::DataError>(())
/// ```
///
/// # Errors
/// If the bytes are not JSON with records in it, or a record is in no known layout, lacks a field, has another type in
/// it, or breaks one of the promises above.
pub fn parse(file: &str, bytes: &[u8]) -> Result<Vec<EditRequest>> {
    parse_records(file, bytes)?.all()
}

/// Parses the bytes of a file as [`parse`] does, leaving out the records that cannot be used.
///
/// # Errors
/// If the bytes are not JSON with records in it.
pub fn parse_records(file: &str, bytes: &[u8]) -> Result<Records<EditRequest>> {
    drafts(file, bytes, EXPECTED, |_, case_id, draft| {
        Ok(EditRequest {
            case_id,
            prompt: draft.prompt,
            subject: draft.subject,
            target_new: draft.target_new?,
            target_true: draft.target_true?,
            paraphrase_prompts: draft.paraphrase_prompts,
            neighborhood_prompts: draft.neighborhood_prompts,
        })
    })
}

fn known_text(record: Record, case_id: u64, draft: Draft) -> Result<KnownText> {
    let start = draft.prompt.find("{}").unwrap_or_default();
    let missing =
        || record.error("attribute", "is missing".into(), "the true answer, in the layout's own field");
    Ok(KnownText {
        case_id,
        attribute: draft.target_true?.ok_or_else(missing)?,
        subject: start..start + draft.subject.len(),
        prompt: draft.prompt.replacen("{}", &draft.subject, 1),
    })
}

/// Reads every record and makes of its drafts what is wanted.
fn drafts<T>(
    file: &str,
    bytes: &[u8],
    expected: &'static str,
    finish: impl Fn(Record, u64, Draft) -> Result<T>,
) -> Result<Records<T>> {
    let raw = file::read(file, bytes, expected, recognises)?;
    if raw.is_empty() {
        return Err(DataError::Empty { file: file.to_owned(), expected });
    }
    let read: Vec<(Record, Option<u64>, Result<Vec<Result<Draft>>>)> = raw
        .iter()
        .enumerate()
        .map(|(index, raw)| {
            let record = Record { file, index, value: &raw.value };
            let key = raw.key.as_deref().and_then(|key| key.parse().ok());
            let drafts = layout_of(record).and_then(|layout| {
                let number = record.number(layout.number)?.or(key);
                Ok((number, (layout.read)(record)))
            });
            match drafts {
                Ok((number, drafts)) => (record, number, Ok(drafts)),
                Err(error) => (record, key, Err(error)),
            }
        })
        .collect();
    let mut numbers = Numbers::new(read.len(), read.iter().filter_map(|(_, number, _)| *number));
    let mut records = Records::new();
    for (record, number, drafts) in read {
        let (mut case_id, drafts) =
            match drafts.and_then(|drafts| Ok((numbers.claim(record, number)?, drafts))) {
                Ok(claimed) => claimed,
                Err(reason) => {
                    let skipped = Skipped { record: record.index, case_id: number, reason, foreseen: false };
                    records.skipped.push(skipped);
                    continue;
                }
            };
        for (i, draft) in drafts.into_iter().enumerate() {
            if i > 0 {
                case_id = numbers.next();
            }
            let (foreseen, unread) =
                draft.as_ref().map_or((false, 0), |draft| (draft.foreseen, draft.unread));
            match draft.and_then(|draft| finish(record, case_id, draft)) {
                Ok(value) => {
                    records.usable.push((record.index, value));
                    records.unread += unread;
                }
                Err(reason) => records.skipped.push(Skipped {
                    record: record.index,
                    case_id: Some(case_id),
                    reason,
                    foreseen,
                }),
            }
        }
    }
    Ok(records)
}

/// The numbers of a file's records.
struct Numbers {
    /// Numbers that records give themselves.
    given: HashSet<u64>,
    /// Records by the number that they have been given here.
    taken: HashMap<u64, usize>,
    /// Numbers from here on are neither a record's place nor handed out.
    free: u64,
}

impl Numbers {
    fn new(records: usize, given: impl Iterator<Item = u64>) -> Self {
        Numbers { given: given.collect(), taken: HashMap::new(), free: records as u64 }
    }

    /// The number of a record: its own, its place in the file if no record has that number, or a new one.
    fn claim(&mut self, record: Record, own: Option<u64>) -> Result<u64> {
        let place = record.index as u64;
        let number = match own {
            Some(number) => number,
            None if !self.given.contains(&place) => place,
            None => self.next(),
        };
        if let Some(&earlier) = self.taken.get(&number) {
            let problem = format!("is {number} as in record {earlier}");
            return Err(record.error("case_id", problem, "a number that no other record has"));
        }
        self.taken.insert(number, record.index);
        Ok(number)
    }

    /// A number that no record has.
    fn next(&mut self) -> u64 {
        loop {
            self.free += 1;
            if !self.given.contains(&(self.free - 1)) {
                return self.free - 1;
            }
        }
    }
}

/// Text of a file that holds `requests`, in CounterFact's layout. Requests are not checked, as [`parse`] does that.
pub fn render(requests: &[EditRequest]) -> String {
    let records: Vec<Nested> = requests.iter().map(Nested::from).collect();
    let mut text = serde_json::to_string_pretty(&records).expect("strings and numbers always serialise");
    text.push('\n');
    text
}

/// Writes `requests` to a file, all or nothing.
///
/// # Errors
/// If the file cannot be written.
pub fn write(path: impl AsRef<Path>, requests: &[EditRequest]) -> Result<()> {
    files::write_atomically(path, render(requests).as_bytes())
}

/// Record in CounterFact's layout, with the fields in the order of HierarchyData's files.
#[derive(Serialize)]
struct Nested<'a> {
    case_id: u64,
    requested_rewrite: Rewrite<'a>,
    paraphrase_prompts: &'a [String],
    neighborhood_prompts: &'a [String],
}

#[derive(Serialize)]
struct Rewrite<'a> {
    prompt: &'a str,
    target_new: Target<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target_true: Option<Target<'a>>,
    subject: &'a str,
}

#[derive(Serialize)]
struct Target<'a> {
    str: &'a str,
}

impl<'a> From<&'a EditRequest> for Nested<'a> {
    fn from(request: &'a EditRequest) -> Self {
        Self {
            case_id: request.case_id,
            requested_rewrite: Rewrite {
                prompt: &request.prompt,
                target_new: Target { str: &request.target_new },
                target_true: request.target_true.as_deref().map(|str| Target { str }),
                subject: &request.subject,
            },
            paraphrase_prompts: &request.paraphrase_prompts,
            neighborhood_prompts: &request.neighborhood_prompts,
        }
    }
}

#[cfg(test)]
mod tests;
