//! Clean and corrupted prompts with correct and incorrect answers, as text: the pairs on which circuits are discovered.
//!
//! | file | `clean`, `corrupted` | answers |
//! |---|---|---|
//! | JSONL | strings | `correct`, `incorrect`: arrays of strings |
//! | CSV | columns | columns `correct`, `incorrect` that hold JSON arrays |
//! | CSV of greater-than | columns | from the column `label` (Hanna et al. 2023, arXiv 2305.00586) |
//! | CSV of indirect objects | columns | from the column `corrupted_hard` (Wang et al. 2022, arXiv 2211.00593) |
//!
//! The last two are the files of `hannamw/EAP-IG`. Further fields and columns are ignored.

use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use crate::error::quoted;
use crate::{DataError, Records, Result, Skipped, files};

/// Two prompts and the answers to the first.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct PromptPair {
    /// Prompt on which the behaviour shows.
    pub clean: String,
    /// Prompt without what the behaviour depends on.
    pub corrupted: String,
    /// Correct answers to the clean prompt, exactly as they follow it, with the leading space.
    pub correct: Vec<String>,
    /// Incorrect answers to the clean prompt, likewise.
    pub incorrect: Vec<String>,
    /// Line of the file, from 1.
    #[serde(skip)]
    pub line: u64,
}

/// Where a file has its answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnswerColumns {
    /// In `correct` and `incorrect`: arrays in JSONL, cells that hold JSON arrays in CSV.
    Lists,
    /// In the column `label` of a CSV of spans of years: the last two digits of the first year. Correct are the
    /// two-digit numbers above it, incorrect the others, all without a space because they continue the century.
    GreaterThan,
    /// In the column `corrupted_hard` of a CSV of sentences with an indirect object: the clean sentence with the second
    /// mention of the subject replaced by the indirect object. Correct is that name, incorrect the subject, both after
    /// a space. Columns of token ids are ignored, as they belong to one tokenizer.
    IndirectObject,
}

impl AnswerColumns {
    /// Names of the columns that hold the answers.
    fn names(self) -> &'static [&'static str] {
        match self {
            AnswerColumns::Lists => &["correct", "incorrect"],
            AnswerColumns::GreaterThan => &["label"],
            AnswerColumns::IndirectObject => &["corrupted_hard"],
        }
    }

    /// Columns that a file needs, for messages.
    fn expected(self) -> &'static str {
        match self {
            AnswerColumns::Lists => "columns clean,corrupted,correct,incorrect",
            AnswerColumns::GreaterThan => "columns clean,corrupted,label",
            AnswerColumns::IndirectObject => "columns clean,corrupted,corrupted_hard",
        }
    }
}

/// Former and present names of fields and columns.
const RENAMED: [(&str, &str); 2] = [("good", "correct"), ("bad", "incorrect")];

const JSONL: &str = "one {\"clean\",\"corrupted\",\"correct\":[...],\"incorrect\":[...]} a line";

/// Reads a file: CSV when its name ends in `.csv` or its answers are not [`AnswerColumns::Lists`], else JSONL. See
/// [`parse_csv`] and [`parse_jsonl`].
///
/// # Errors
/// If the file cannot be read or parsed.
pub fn read(path: impl AsRef<Path>, answers: AnswerColumns) -> Result<Vec<PromptPair>> {
    read_records(path, answers)?.all()
}

/// Reads a file as [`read`] does, leaving out the lines of JSONL that lack a field or have another type in it, and the
/// rows of CSV whose cells hold no answers.
///
/// # Errors
/// If the file cannot be read, or is not JSON or CSV in UTF-8 with records in it.
pub fn read_records(path: impl AsRef<Path>, answers: AnswerColumns) -> Result<Records<PromptPair>> {
    let path = path.as_ref();
    let (name, bytes) = (path.display().to_string(), files::read(path)?);
    let csv = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("csv"));
    if csv || answers != AnswerColumns::Lists {
        csv_records(&name, &bytes, answers)
    } else {
        jsonl_records(&name, &bytes)
    }
}

/// Parses JSONL; blank lines are skipped, and `file` names the file in errors.
///
/// ```
/// let line = br#"{"clean":"A rose is a","corrupted":"An oak is a","correct":[" flower"],"incorrect":[" tree"]}"#;
/// let pairs = locus_data::pairs::parse_jsonl("pairs.jsonl", line)?;
/// assert_eq!(pairs[0].correct, [" flower"]);
/// # Ok::<(), locus_data::DataError>(())
/// ```
///
/// # Errors
/// If the bytes are not UTF-8, there is no pair, a line is not JSON, lacks a field, has another type in it, or has a
/// field under its former name.
pub fn parse_jsonl(file: &str, bytes: &[u8]) -> Result<Vec<PromptPair>> {
    jsonl_records(file, bytes)?.all()
}

fn jsonl_records(file: &str, bytes: &[u8]) -> Result<Records<PromptPair>> {
    let syntax = |line: u64, problem: String| DataError::Syntax {
        file: file.to_owned(),
        line,
        problem,
        expected: JSONL,
    };
    // A line is parsed alone, so the line that serde_json names is always the first.
    let told = |error: &serde_json::Error| {
        error.to_string().replace('\n', " ").replace(" at line 1 column", " at column")
    };
    let mut pairs = Records::new();
    let lines = files::without_bom(bytes).split(|&byte| byte == b'\n');
    for (line, text) in (1..).zip(lines) {
        let text = std::str::from_utf8(text).map_err(|_| syntax(line, "text is not UTF-8".to_owned()))?;
        if text.trim().is_empty() {
            continue;
        }
        let value: Value = serde_json::from_str(text).map_err(|error| syntax(line, told(&error)))?;
        let record = pairs.usable.len() + pairs.skipped.len();
        match PromptPair::deserialize(&value) {
            Ok(pair) => pairs.usable.push((record, PromptPair { line, ..pair })),
            Err(error) => {
                let problem = match renamed(&value) {
                    Some((old, new)) => format!("field \"{old}\" is now called \"{new}\""),
                    None => told(&error),
                };
                pairs.skipped.push(Skipped {
                    record,
                    case_id: None,
                    reason: syntax(line, problem),
                    foreseen: false,
                });
            }
        }
    }
    some(file, pairs)
}

/// Parses CSV with the columns `clean`, `corrupted` and those of the answers; `file` names the file in errors.
///
/// # Errors
/// If the bytes are not CSV in UTF-8, there is no pair, a column is missing or has its former name, or a cell does not
/// hold answers.
pub fn parse_csv(file: &str, bytes: &[u8], answers: AnswerColumns) -> Result<Vec<PromptPair>> {
    csv_records(file, bytes, answers)?.all()
}

fn csv_records(file: &str, bytes: &[u8], answers: AnswerColumns) -> Result<Records<PromptPair>> {
    let mut reader = csv::Reader::from_reader(files::without_bom(bytes));
    let syntax = |e: csv::Error| DataError::Syntax {
        file: file.to_owned(),
        line: e.position().map_or(1, csv::Position::line),
        problem: e.to_string(),
        expected: "UTF-8 CSV whose rows all have as many cells as the header",
    };
    let header = reader.headers().map_err(syntax)?.clone();
    let place = |name: &str| header.iter().position(|column| column == name);
    let column = |name: &str| {
        place(name).ok_or_else(|| {
            let problem = match RENAMED.iter().find(|(old, new)| *new == name && place(old).is_some()) {
                Some((old, new)) => format!("column \"{old}\" is now called \"{new}\""),
                None => format!("column \"{name}\" is missing"),
            };
            DataError::Syntax { file: file.to_owned(), line: 1, problem, expected: answers.expected() }
        })
    };
    let (clean_at, corrupted_at) = (column("clean")?, column("corrupted")?);
    let answers_at: Vec<usize> = answers.names().iter().map(|name| column(name)).collect::<Result<_>>()?;
    let mut pairs = Records::new();
    for (number, record) in reader.records().enumerate() {
        let record = record.map_err(syntax)?;
        let line = record.position().map_or(0, csv::Position::line);
        let cell = |i: usize| &record[answers_at[i]];
        let wrong = |i: usize, expected| DataError::Cell {
            file: file.to_owned(),
            line,
            column: answers.names()[i],
            found: quoted(cell(i)),
            expected,
        };
        let clean = record[clean_at].to_owned();
        let lists = || match answers {
            AnswerColumns::Lists => {
                let list = |i| serde_json::from_str(cell(i)).map_err(|_| wrong(i, "a JSON array of strings"));
                Ok((list(0)?, list(1)?))
            }
            AnswerColumns::GreaterThan => {
                let year: u32 = cell(0).parse().unwrap_or(99);
                if year > 98 {
                    return Err(wrong(0, "a number from 0 to 98"));
                }
                let digits = |range: std::ops::Range<u32>| range.map(|year| format!("{year:02}")).collect();
                Ok((digits(year + 1..100), digits(0..year + 1)))
            }
            AnswerColumns::IndirectObject => {
                let swapped = clean.split(' ').zip(cell(0).split(' ')).find(|(a, b)| a != b);
                let Some((subject, object)) = swapped else {
                    return Err(wrong(0, "the clean sentence with one name swapped"));
                };
                Ok((vec![format!(" {object}")], vec![format!(" {subject}")]))
            }
        };
        match lists() {
            Ok((correct, incorrect)) => {
                let corrupted = record[corrupted_at].to_owned();
                pairs.usable.push((number, PromptPair { clean, corrupted, correct, incorrect, line }));
            }
            Err(reason) => {
                pairs.skipped.push(Skipped { record: number, case_id: None, reason, foreseen: false });
            }
        }
    }
    some(file, pairs)
}

/// Former and present name of a field that a JSON object has under its former name alone.
fn renamed(object: &Value) -> Option<(&'static str, &'static str)> {
    RENAMED.into_iter().find(|(old, new)| object.get(old).is_some() && object.get(new).is_none())
}

/// All pairs of a file, which must have a record.
fn some(file: &str, pairs: Records<PromptPair>) -> Result<Records<PromptPair>> {
    if pairs.usable.is_empty() && pairs.skipped.is_empty() {
        return Err(DataError::Empty { file: file.to_owned(), expected: "at least one pair of prompts" });
    }
    Ok(pairs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(clean: &str, corrupted: &str, correct: &[&str], incorrect: &[&str], line: u64) -> PromptPair {
        let strings = |list: &[&str]| list.iter().map(|&s| s.to_owned()).collect();
        PromptPair {
            clean: clean.into(),
            corrupted: corrupted.into(),
            correct: strings(correct),
            incorrect: strings(incorrect),
            line,
        }
    }

    #[test]
    fn jsonl_and_csv_say_the_same() {
        let jsonl = br#"
{"clean":"a b","corrupted":"a c","correct":[" x"," y"],"incorrect":[" z"]}"#;
        let csv =
            b"incorrect,clean,corrupted,extra,correct\n\"[\"\" z\"\"]\",a b,a c,1,\"[\"\" x\"\", \"\" y\"\"]\"\n";
        let expected = [pair("a b", "a c", &[" x", " y"], &[" z"], 2)];
        assert_eq!(parse_jsonl("x.jsonl", jsonl).unwrap(), expected);
        assert_eq!(parse_csv("x.csv", csv, AnswerColumns::Lists).unwrap(), expected);
    }

    #[test]
    fn answers_of_known_tasks() {
        let years = b"clean,corrupted,label\nfrom 1797 to 17,from 1701 to 17,97\n";
        let read = parse_csv("x.csv", years, AnswerColumns::GreaterThan).unwrap();
        assert_eq!(read[0].correct, ["98", "99"]);
        assert_eq!((read[0].incorrect.len(), read[0].incorrect[0].as_str()), (98, "00"));
        let names = b",clean,corrupted,corrupted_hard\n4,\"Then, Al and Bo met. Al gave\",\"Then, Al and Bo met. Cy gave\",\"Then, Al and Bo met. Bo gave\"\n";
        let read = parse_csv("x.csv", names, AnswerColumns::IndirectObject).unwrap();
        assert_eq!((&read[0].correct[0], &read[0].incorrect[0]), (&" Bo".to_owned(), &" Al".to_owned()));
    }

    #[test]
    fn errors_name_the_place() {
        let jsonl = |bytes: &[u8]| parse_jsonl("x.jsonl", bytes).unwrap_err().to_string();
        assert!(jsonl(b"{}").starts_with("x.jsonl: line 1: missing field `clean`"));
        let why = jsonl(b"\nnot json");
        assert!(why.starts_with("x.jsonl: line 2: ") && !why.contains("line 1"), "{why}");
        // Text that is not UTF-8 is on the line on which it is.
        let why = jsonl(b"{\"clean\":\"a\",\"corrupted\":\"b\",\"correct\":[],\"incorrect\":[]}\n\n\xff");
        assert!(why.starts_with("x.jsonl: line 3: text is not UTF-8"), "{why}");
        assert!(jsonl(b"").starts_with("x.jsonl: holds no records"));
        let csv = |bytes: &[u8], answers| parse_csv("x.csv", bytes, answers).unwrap_err().to_string();
        assert_eq!(
            csv(b"clean,corrupted,correct\n", AnswerColumns::Lists),
            "x.csv: line 1: column \"incorrect\" is missing; expected columns clean,corrupted,correct,incorrect"
        );
        assert_eq!(
            csv(b"clean,corrupted,correct,incorrect\na,b,c,[]\n", AnswerColumns::Lists),
            "x.csv: line 2: column \"correct\" is \"c\"; expected a JSON array of strings"
        );
        assert_eq!(
            csv(b"clean,corrupted,label\na,b,99\n", AnswerColumns::GreaterThan),
            "x.csv: line 2: column \"label\" is \"99\"; expected a number from 0 to 98"
        );
    }

    #[test]
    fn records_that_cannot_be_used_are_left_out() {
        let good = r#"{"clean":"a","corrupted":"b","correct":[" x"],"incorrect":[" y"]}"#;
        let read = jsonl_records("x.jsonl", format!("{{}}\n{good}\n\n3\n").as_bytes()).unwrap();
        assert_eq!((read.usable[0].0, read.usable[0].1.line), (1, 2));
        let skipped: Vec<(usize, String)> =
            read.skipped.iter().map(|s| (s.record, s.reason.to_string())).collect();
        assert!(skipped[1].0 == 2 && skipped[1].1.starts_with("x.jsonl: line 4: "), "{skipped:?}");
        let years = b"clean,corrupted,label\na,b,99\na,b,3\n";
        let read = csv_records("x.csv", years, AnswerColumns::GreaterThan).unwrap();
        assert_eq!((read.usable.len(), read.skipped[0].record), (1, 0));
    }

    #[test]
    fn former_names_are_refused_with_the_new_ones() {
        let line = |fields: &str| {
            parse_jsonl("x.jsonl", format!("\n{{\"clean\":\"a\",\"corrupted\":\"b\",{fields}}}").as_bytes())
        };
        let message = |fields: &str| line(fields).unwrap_err().to_string();
        assert_eq!(
            message(r#""good":[" x"],"bad":[" y"]"#),
            format!("x.jsonl: line 2: field \"good\" is now called \"correct\"; expected {JSONL}")
        );
        assert!(message(r#""correct":[" x"],"bad":[" y"]"#).contains("\"bad\" is now called \"incorrect\""));
        // A field of the user's own that happens to have such a name is ignored as any other.
        assert!(line(r#""correct":[" x"],"incorrect":[" y"],"good":true"#).is_ok());
        assert_eq!(
            parse_csv("x.csv", b"clean,corrupted,good,bad\n", AnswerColumns::Lists).unwrap_err().to_string(),
            "x.csv: line 1: column \"good\" is now called \"correct\"; \
             expected columns clean,corrupted,correct,incorrect"
        );
    }
}
