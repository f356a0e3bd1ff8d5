//! Clean and corrupted prompts with their answers, as text: JSONL or CSV.

use std::path::Path;

use serde::Deserialize;

use crate::error::quoted;
use crate::{DataError, files};

/// Two prompts and the answers to the first.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct PromptPair {
    /// The prompt on which the behaviour shows.
    pub clean: String,
    /// The same without what the behaviour depends on.
    pub corrupted: String,
    /// Right answers to the clean prompt, exactly as they follow it: leading space included.
    pub good: Vec<String>,
    /// Wrong ones.
    pub bad: Vec<String>,
    /// Line of the file, from 1.
    #[serde(skip)]
    pub line: u64,
}

/// Where a file has its answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnswerColumns {
    /// In `good` and `bad`: arrays in JSONL, cells that hold JSON arrays in CSV.
    Lists,
    /// A CSV of spans of years with the last two digits of the first year in `label`: good are the two-digit numbers
    /// above it, bad the others, all without a space (they continue the century).
    GreaterThan,
    /// A CSV of indirect-object sentences whose `corrupted_hard` swaps the second mention of the subject for the
    /// indirect object: good is that name, bad the subject, both after a space. Columns of token ids are ignored; they
    /// belong to one tokenizer.
    IndirectObject,
}

const JSONL: &str = "one {\"clean\",\"corrupted\",\"good\":[...],\"bad\":[...]} a line";

/// Reads a file: CSV when its name ends in `.csv`, else JSONL. See [`parse_jsonl`] and [`parse_csv`].
pub fn read(path: &Path, answers: AnswerColumns) -> Result<Vec<PromptPair>, DataError> {
    let (name, bytes) = (path.display().to_string(), files::read(path)?);
    let csv = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("csv"));
    if csv || answers != AnswerColumns::Lists {
        parse_csv(&name, &bytes, answers)
    } else {
        parse_jsonl(&name, &bytes)
    }
}

/// Parses JSONL; blank lines are skipped. `file` names it in errors.
pub fn parse_jsonl(file: &str, bytes: &[u8]) -> Result<Vec<PromptPair>, DataError> {
    let syntax = |line: u64, problem: String| DataError::Syntax {
        file: file.to_owned(),
        line,
        problem,
        expected: JSONL,
    };
    let text = std::str::from_utf8(files::without_bom(bytes))
        .map_err(|_| syntax(1, "text is not UTF-8".to_owned()))?;
    let mut pairs = Vec::new();
    for (line, text) in (1..).zip(text.lines()).filter(|(_, text)| !text.trim().is_empty()) {
        let mut pair: PromptPair =
            serde_json::from_str(text).map_err(|e| syntax(line, e.to_string().replace('\n', " ")))?;
        pair.line = line;
        pairs.push(pair);
    }
    some(file, pairs)
}

/// Parses CSV with the columns `clean`, `corrupted` and those of the answers; others are ignored.
pub fn parse_csv(file: &str, bytes: &[u8], answers: AnswerColumns) -> Result<Vec<PromptPair>, DataError> {
    let mut reader = csv::Reader::from_reader(files::without_bom(bytes));
    let syntax = |e: csv::Error| DataError::Syntax {
        file: file.to_owned(),
        line: e.position().map_or(1, csv::Position::line),
        problem: e.to_string(),
        expected: "UTF-8 CSV with one length of rows",
    };
    let header = reader.headers().map_err(syntax)?.clone();
    let column = |name: &'static str| {
        header.iter().position(|h| h == name).ok_or_else(|| DataError::Syntax {
            file: file.to_owned(),
            line: 1,
            problem: format!("column \"{name}\" is missing"),
            expected: match answers {
                AnswerColumns::Lists => "columns clean,corrupted,good,bad",
                AnswerColumns::GreaterThan => "columns clean,corrupted,label",
                AnswerColumns::IndirectObject => "columns clean,corrupted,corrupted_hard",
            },
        })
    };
    let (clean_at, corrupted_at) = (column("clean")?, column("corrupted")?);
    let answers_at: Vec<(&'static str, usize)> = match answers {
        AnswerColumns::Lists => vec![("good", column("good")?), ("bad", column("bad")?)],
        AnswerColumns::GreaterThan => vec![("label", column("label")?)],
        AnswerColumns::IndirectObject => vec![("corrupted_hard", column("corrupted_hard")?)],
    };
    let mut pairs = Vec::new();
    for record in reader.records() {
        let record = record.map_err(syntax)?;
        let line = record.position().map_or(0, csv::Position::line);
        let wrong = |(column, at): (&'static str, usize), expected| DataError::Cell {
            file: file.to_owned(),
            line,
            column,
            found: quoted(&record[at]),
            expected,
        };
        let clean = record[clean_at].to_owned();
        let (good, bad) = match answers {
            AnswerColumns::Lists => {
                let list = |which: (&'static str, usize)| {
                    serde_json::from_str::<Vec<String>>(&record[which.1])
                        .map_err(|_| wrong(which, "a JSON array of strings"))
                };
                (list(answers_at[0])?, list(answers_at[1])?)
            }
            AnswerColumns::GreaterThan => {
                let year: u32 = record[answers_at[0].1].parse().unwrap_or(99);
                if year > 98 {
                    return Err(wrong(answers_at[0], "a number from 0 to 98"));
                }
                let digits = |range: std::ops::Range<u32>| range.map(|year| format!("{year:02}")).collect();
                (digits(year + 1..100), digits(0..year + 1))
            }
            AnswerColumns::IndirectObject => {
                let swapped = clean.split(' ').zip(record[answers_at[0].1].split(' ')).find(|(a, b)| a != b);
                let Some((subject, object)) = swapped else {
                    return Err(wrong(answers_at[0], "the clean sentence with one name swapped"));
                };
                (vec![format!(" {object}")], vec![format!(" {subject}")])
            }
        };
        pairs.push(PromptPair { clean, corrupted: record[corrupted_at].to_owned(), good, bad, line });
    }
    some(file, pairs)
}

fn some(file: &str, pairs: Vec<PromptPair>) -> Result<Vec<PromptPair>, DataError> {
    if pairs.is_empty() {
        return Err(DataError::Empty { file: file.to_owned(), expected: "at least one pair of prompts" });
    }
    Ok(pairs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(clean: &str, corrupted: &str, good: &[&str], bad: &[&str], line: u64) -> PromptPair {
        let strings = |list: &[&str]| list.iter().map(|&s| s.to_owned()).collect();
        PromptPair {
            clean: clean.into(),
            corrupted: corrupted.into(),
            good: strings(good),
            bad: strings(bad),
            line,
        }
    }

    #[test]
    fn jsonl_and_csv_say_the_same() {
        let jsonl = br#"
{"clean":"a b","corrupted":"a c","good":[" x"," y"],"bad":[" z"]}"#;
        let csv =
            b"bad,clean,corrupted,extra,good\n\"[\"\" z\"\"]\",a b,a c,1,\"[\"\" x\"\", \"\" y\"\"]\"\n";
        let expected = [pair("a b", "a c", &[" x", " y"], &[" z"], 2)];
        assert_eq!(parse_jsonl("x.jsonl", jsonl).unwrap(), expected);
        assert_eq!(parse_csv("x.csv", csv, AnswerColumns::Lists).unwrap(), expected);
    }

    #[test]
    fn answers_of_known_tasks() {
        let years = b"clean,corrupted,label\nfrom 1797 to 17,from 1701 to 17,97\n";
        let read = parse_csv("x.csv", years, AnswerColumns::GreaterThan).unwrap();
        assert_eq!(read[0].good, ["98", "99"]);
        assert_eq!((read[0].bad.len(), read[0].bad[0].as_str()), (98, "00"));
        let names = b",clean,corrupted,corrupted_hard\n4,\"Then, Al and Bo met. Al gave\",\"Then, Al and Bo met. Cy gave\",\"Then, Al and Bo met. Bo gave\"\n";
        let read = parse_csv("x.csv", names, AnswerColumns::IndirectObject).unwrap();
        assert_eq!((&read[0].good[0], &read[0].bad[0]), (&" Bo".to_owned(), &" Al".to_owned()));
    }

    #[test]
    fn errors_name_the_place() {
        let jsonl = |bytes: &[u8]| parse_jsonl("x.jsonl", bytes).unwrap_err().to_string();
        assert!(jsonl(b"{}").starts_with("x.jsonl: line 1: missing field `clean`"));
        assert!(jsonl(b"\nnot json").starts_with("x.jsonl: line 2: "));
        assert!(jsonl(b"").starts_with("x.jsonl: holds no records"));
        let csv = |bytes: &[u8], answers| parse_csv("x.csv", bytes, answers).unwrap_err().to_string();
        assert_eq!(
            csv(b"clean,corrupted,good\n", AnswerColumns::Lists),
            "x.csv: line 1: column \"bad\" is missing; expected columns clean,corrupted,good,bad"
        );
        assert_eq!(
            csv(b"clean,corrupted,good,bad\na,b,c,[]\n", AnswerColumns::Lists),
            "x.csv: line 2: column \"good\" is \"c\"; expected a JSON array of strings"
        );
        assert_eq!(
            csv(b"clean,corrupted,label\na,b,99\n", AnswerColumns::GreaterThan),
            "x.csv: line 2: column \"label\" is \"99\"; expected a number from 0 to 98"
        );
    }
}
