//! Edit requests: JSON arrays of records in three layouts, each recognised by a field.
//!
//! | layout | recognised by | read from |
//! |---|---|---|
//! | CounterFact, HierarchyData | `requested_rewrite` | the fields of [`EditRequest`]; the only layout that is written |
//! | zsRE (MEND) | `src` | `src`, `alt` (new target), the first of `answers` (true target), `rephrase` |
//! | EasyEdit, flat | neither | `prompt`, `target_new`, `ground_truth`, `rephrase_prompt`, `locality_prompt` |
//!
//! Unknown fields are ignored. A missing `case_id` is the number of the record in the file, from 0. Leading spaces of
//! targets are dropped. In the last two layouts the prompt contains the subject, whose first occurrence becomes `{}`.
//!
//! Two choices keep what [`EditRequest`] promises. A locality prompt becomes a neighbourhood prompt only if its answer
//! is the request's true target, which leaves out zsRE's unrelated `loc` questions. A zsRE record with an empty `alt`
//! (no counterfactual could be made) is left out, as in EasyEdit's loader.

use std::collections::HashMap;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::quoted;
use crate::{DataError, Result, files};

const EXPECTED: &str = "a JSON array of edit requests";

/// One fact to edit: `prompt` with `subject` in place of `{}`, continued by `target_true` before the edit and by
/// `target_new` after it.
///
/// Targets have no leading space; code that tokenises them after a prompt adds one.
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
    /// True continuation.
    pub target_true: String,
    /// Complete prompts (subject filled in) that ask for the fact in other words.
    pub paraphrase_prompts: Vec<String>,
    /// Complete prompts about other subjects whose true continuation is `target_true`, too, and should not change.
    pub neighborhood_prompts: Vec<String>,
}

impl EditRequest {
    /// Prompt with the subject filled in.
    pub fn full_prompt(&self) -> String {
        self.prompt.replacen("{}", &self.subject, 1)
    }
}

/// Reads a file as [`parse`] does.
///
/// # Errors
/// If the file cannot be read or parsed.
pub fn read(path: impl AsRef<Path>) -> Result<Vec<EditRequest>> {
    let path = path.as_ref();
    parse(&path.display().to_string(), &files::read(path)?)
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
/// If the bytes are not a JSON array, there is no record, or a record lacks a field, has another type in it, or breaks
/// one of the promises above.
pub fn parse(file: &str, bytes: &[u8]) -> Result<Vec<EditRequest>> {
    let syntax =
        |line, problem| DataError::Syntax { file: file.to_owned(), line, problem, expected: EXPECTED };
    let value: Value = serde_json::from_slice(files::without_bom(bytes)).map_err(|e| {
        // serde_json appends the place, which the message already has.
        let text = e.to_string();
        let text = text.split(" at line ").next().unwrap_or_default();
        syntax(e.line() as u64, format!("column {}: not JSON ({text})", e.column()))
    })?;
    let Value::Array(records) = value else {
        return Err(syntax(1, format!("the file holds {}", kind(&value))));
    };

    let mut requests = Vec::with_capacity(records.len());
    let mut seen = HashMap::with_capacity(records.len());
    for (index, value) in records.iter().enumerate() {
        let record = Record { file, index, value };
        let request = if value.get("requested_rewrite").is_some() {
            record.nested()?
        } else if value.get("src").is_some() {
            match record.zsre()? {
                Some(request) => request,
                None => continue,
            }
        } else {
            record.flat()?
        };
        if let Some(earlier) = seen.insert(request.case_id, index) {
            let problem = format!("is {} as in record {earlier}", request.case_id);
            return Err(record.error("case_id", problem, "a number that no other record has"));
        }
        requests.push(request);
    }
    if requests.is_empty() {
        return Err(DataError::Empty { file: file.to_owned(), expected: EXPECTED });
    }
    Ok(requests)
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

/// One element of the array, with the place that errors name.
#[derive(Clone, Copy)]
struct Record<'a> {
    file: &'a str,
    index: usize,
    value: &'a Value,
}

impl<'a> Record<'a> {
    /// Request from CounterFact's layout.
    fn nested(self) -> Result<EditRequest> {
        let prompt = self.text("requested_rewrite.prompt")?;
        if prompt.matches("{}").count() != 1 {
            return Err(self.error(
                "requested_rewrite.prompt",
                format!("is {}", quoted(prompt)),
                "exactly one {} in it",
            ));
        }
        Ok(EditRequest {
            case_id: self.case_id()?,
            prompt: prompt.to_owned(),
            subject: self.text("requested_rewrite.subject")?.to_owned(),
            target_new: self.target("requested_rewrite.target_new.str")?,
            target_true: self.target("requested_rewrite.target_true.str")?,
            paraphrase_prompts: self.texts("paraphrase_prompts")?,
            neighborhood_prompts: self.texts("neighborhood_prompts")?,
        })
    }

    /// Request from EasyEdit's flat layout.
    fn flat(self) -> Result<EditRequest> {
        let target_true = self.target("ground_truth")?;
        let same_answer = match self.get("locality_ground_truth") {
            None => true,
            Some(_) => self.target("locality_ground_truth")? == target_true,
        };
        Ok(EditRequest {
            case_id: self.case_id()?,
            prompt: self.template("prompt")?,
            subject: self.text("subject")?.to_owned(),
            target_new: self.target("target_new")?,
            target_true,
            paraphrase_prompts: self.texts("rephrase_prompt")?,
            neighborhood_prompts: if same_answer { self.texts("locality_prompt")? } else { Vec::new() },
        })
    }

    /// Request from zsRE's layout; `None` when the record has no counterfactual.
    fn zsre(self) -> Result<Option<EditRequest>> {
        if self.get("alt") == Some(&Value::String(String::new())) {
            return Ok(None);
        }
        Ok(Some(EditRequest {
            case_id: self.case_id()?,
            prompt: self.template("src")?,
            subject: self.text("subject")?.to_owned(),
            target_new: self.target("alt")?,
            target_true: self.target("answers.0")?,
            paraphrase_prompts: self.texts("rephrase")?,
            neighborhood_prompts: Vec::new(),
        }))
    }

    /// Value at a dotted path; `null` counts as absent.
    fn get(self, field: &str) -> Option<&'a Value> {
        let step = |value: &'a Value, key: &str| match value {
            Value::Array(items) => items.get(key.parse::<usize>().ok()?),
            _ => value.get(key),
        };
        field.split('.').try_fold(self.value, step).filter(|v| !v.is_null())
    }

    /// String that is not blank.
    fn text(self, field: &str) -> Result<&'a str> {
        match self.get(field) {
            None => Err(self.error(field, "is missing".into(), "a string")),
            Some(Value::String(text)) if text.trim().is_empty() => {
                Err(self.error(field, "is empty".into(), "a string with text in it"))
            }
            Some(Value::String(text)) => Ok(text),
            Some(other) => Err(self.error(field, format!("is {}", kind(other)), "a string")),
        }
    }

    /// Target without its leading spaces.
    fn target(self, field: &str) -> Result<String> {
        Ok(self.text(field)?.trim_start_matches(' ').to_owned())
    }

    /// Strings of a field that holds one string, an array of them, or nothing.
    fn texts(self, field: &str) -> Result<Vec<String>> {
        match self.get(field) {
            None => Ok(Vec::new()),
            Some(Value::Array(items)) => {
                (0..items.len()).map(|i| Ok(self.text(&format!("{field}.{i}"))?.to_owned())).collect()
            }
            Some(_) => Ok(vec![self.text(field)?.to_owned()]),
        }
    }

    /// Template of a complete prompt: its first mention of the subject becomes `{}`.
    fn template(self, field: &str) -> Result<String> {
        let (prompt, subject) = (self.text(field)?, self.text("subject")?);
        let problem = || format!("is {}", quoted(prompt));
        if !prompt.contains(subject) {
            return Err(self.error(field, problem(), "the subject in it"));
        }
        let template = prompt.replacen(subject, "{}", 1);
        if template.matches("{}").count() != 1 {
            return Err(self.error(field, problem(), "no {} beside the subject"));
        }
        Ok(template)
    }

    fn case_id(self) -> Result<u64> {
        match self.get("case_id") {
            None => Ok(self.index as u64),
            Some(value) => value.as_u64().ok_or_else(|| {
                self.error("case_id", format!("is {}", quoted(&value.to_string())), "a number from 0")
            }),
        }
    }

    fn error(self, field: &str, problem: String, expected: &'static str) -> DataError {
        DataError::Field {
            file: self.file.to_owned(),
            record: self.index,
            field: field.to_owned(),
            problem,
            expected,
        }
    }
}

/// Name of a value's type, for messages.
fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
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
    target_true: Target<'a>,
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
                target_true: Target { str: &request.target_true },
                subject: &request.subject,
            },
            paraphrase_prompts: &request.paraphrase_prompts,
            neighborhood_prompts: &request.neighborhood_prompts,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn one(record: &Value) -> Result<EditRequest> {
        let bytes = serde_json::to_vec(&[record]).unwrap();
        parse("x.json", &bytes).map(|mut requests| requests.remove(0))
    }

    fn message(record: &Value) -> String {
        one(record).unwrap_err().to_string()
    }

    /// Record as in ROME's `counterfact.json`.
    fn counterfact() -> Value {
        json!({
            "case_id": 7,
            "pararel_idx": 2796,
            "requested_rewrite": {
                "prompt": "The mother tongue of {} is",
                "relation_id": "P103",
                "target_new": {"str": "English", "id": "Q1860"},
                "target_true": {"str": "French", "id": "Q150"},
                "subject": "Danielle Darrieux"
            },
            "paraphrase_prompts": ["Danielle Darrieux, a native"],
            "neighborhood_prompts": ["The mother tongue of Léon Blum is"],
            "attribute_prompts": []
        })
    }

    fn flat() -> Value {
        json!({
            "case_id": 3,
            "prompt": "Anna's home, said Anna, is in",
            "subject": "Anna",
            "target_new": " Rome",
            "ground_truth": "Oslo",
            "rephrase_prompt": "Anna lives in",
            "locality_prompt": "Bert lives in",
            "locality_ground_truth": "Oslo"
        })
    }

    fn zsre() -> Value {
        json!({
            "subject": "WEFS", "src": "When was WEFS established?", "pred": "1998", "alt": "1997", "answers": ["1987"],
            "rephrase": "When has WEFS been established?", "loc": "nq question: who", "loc_ans": "me"
        })
    }

    #[test]
    fn reads_counterfact() {
        let request = one(&counterfact()).unwrap();
        assert_eq!(request.case_id, 7);
        assert_eq!(request.full_prompt(), "The mother tongue of Danielle Darrieux is");
        assert_eq!((request.target_new.as_str(), request.target_true.as_str()), ("English", "French"));
        assert_eq!(request.neighborhood_prompts, ["The mother tongue of Léon Blum is"]);
    }

    #[test]
    fn prompts_beside_the_rewrite_are_optional() {
        let mut record = counterfact();
        record.as_object_mut().unwrap().retain(|key, _| key == "requested_rewrite");
        let request = one(&record).unwrap();
        assert_eq!((request.case_id, request.paraphrase_prompts.len()), (0, 0));
    }

    #[test]
    fn reads_the_flat_layout() {
        let request = one(&flat()).unwrap();
        assert_eq!(request.prompt, "{}'s home, said Anna, is in");
        assert_eq!(request.target_new, "Rome");
        assert_eq!(request.paraphrase_prompts, ["Anna lives in"]);
        assert_eq!(request.neighborhood_prompts, ["Bert lives in"]);

        let mut other_answer = flat();
        other_answer["locality_ground_truth"] = json!("Bonn");
        assert!(one(&other_answer).unwrap().neighborhood_prompts.is_empty());
    }

    #[test]
    fn reads_zsre_without_the_records_that_have_no_alternative() {
        let mut gap = zsre();
        gap["alt"] = json!("");
        let bytes = serde_json::to_vec(&[gap, zsre()]).unwrap();
        let requests = parse("z.json", &bytes).unwrap();
        assert_eq!(requests.len(), 1);
        assert_eq!(requests[0].case_id, 1);
        assert_eq!(requests[0].prompt, "When was {} established?");
        assert_eq!((requests[0].target_new.as_str(), requests[0].target_true.as_str()), ("1997", "1987"));
        assert!(requests[0].neighborhood_prompts.is_empty());
    }

    #[test]
    fn errors_name_record_and_field() {
        let mut record = counterfact();
        record["requested_rewrite"]["target_new"] = json!({});
        assert_eq!(
            message(&record),
            "x.json: record 0: field requested_rewrite.target_new.str is missing; expected a string"
        );
        record["requested_rewrite"]["target_new"] = json!({"str": 3});
        assert_eq!(
            message(&record),
            "x.json: record 0: field requested_rewrite.target_new.str is a number; expected a string"
        );
        record["requested_rewrite"]["target_new"] = json!({"str": " "});
        assert_eq!(
            message(&record),
            "x.json: record 0: field requested_rewrite.target_new.str is empty; expected a string with text in it"
        );

        for prompt in ["no place", "{} and {}"] {
            let mut record = counterfact();
            record["requested_rewrite"]["prompt"] = json!(prompt);
            assert_eq!(
                message(&record),
                format!(
                    "x.json: record 0: field requested_rewrite.prompt is {prompt:?}; expected exactly one {{}} in it"
                )
            );
        }

        let mut record = counterfact();
        record["paraphrase_prompts"] = json!(["a", null]);
        assert_eq!(
            message(&record),
            "x.json: record 0: field paraphrase_prompts.1 is missing; expected a string"
        );
        record["case_id"] = json!(-1);
        assert_eq!(message(&record), "x.json: record 0: field case_id is \"-1\"; expected a number from 0");

        let mut record = flat();
        record["subject"] = json!("Carl");
        assert_eq!(
            message(&record),
            "x.json: record 0: field prompt is \"Anna's home, said Anna, is in\"; expected the subject in it"
        );
        record["prompt"] = json!("Carl likes {}");
        assert_eq!(
            message(&record),
            "x.json: record 0: field prompt is \"Carl likes {}\"; expected no {} beside the subject"
        );
        assert_eq!(message(&json!(3)), "x.json: record 0: field ground_truth is missing; expected a string");

        let twice = serde_json::to_vec(&[flat(), flat()]).unwrap();
        assert_eq!(
            parse("x.json", &twice).unwrap_err().to_string(),
            "x.json: record 1: field case_id is 3 as in record 0; expected a number that no other record has"
        );
    }

    #[test]
    fn errors_name_the_line_of_broken_json() {
        let message = |bytes| parse("x.json", bytes).unwrap_err().to_string();
        assert_eq!(
            message(b"[\n {]"),
            "x.json: line 2: column 3: not JSON (key must be a string); expected a JSON array of edit requests"
        );
        assert_eq!(
            message(b"{}"),
            "x.json: line 1: the file holds an object; expected a JSON array of edit requests"
        );
        assert_eq!(message(b"[]"), "x.json: holds no records; expected a JSON array of edit requests");
    }
}
