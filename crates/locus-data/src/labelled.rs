//! Labelled sentences in CSV files of the study's layout: an index column without a name, `text` and `label`.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::quoted;
use crate::{DataError, Result, files};

const EXPECTED: &str = "a header with the columns text,label and at least one row";
const EXPECTED_SYNTAX: &str = "UTF-8 CSV whose rows all have as many cells as the header";

/// One row of a binary text-classification set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Labelled {
    /// Sentence, exactly as in the file.
    pub text: String,
    /// 0 or 1, where 1 is the acceptable, true or affirmed class.
    pub label: u8,
}

/// Reads a file as [`parse`] does.
///
/// # Errors
/// If the file cannot be read or parsed.
pub fn read(path: impl AsRef<Path>) -> Result<Vec<Labelled>> {
    let path = path.as_ref();
    parse(&path.display().to_string(), &files::read(path)?)
}

/// Parses the bytes of a file; `file` names it in errors. Columns may have any order, and other columns are ignored.
///
/// ```
/// let rows = locus_data::labelled::parse("mine.csv", b"label,text\n1,A cat is an animal\n0,A cat is a plant\n")?;
/// assert_eq!((rows[0].text.as_str(), rows[0].label), ("A cat is an animal", 1));
/// # Ok::<(), locus_data::DataError>(())
/// ```
///
/// # Errors
/// If the bytes are not CSV in UTF-8, a column is missing, there is no row, a label is neither 0 nor 1, or a text is
/// blank.
pub fn parse(file: &str, bytes: &[u8]) -> Result<Vec<Labelled>> {
    let file = || file.to_owned();
    let syntax = |e: csv::Error| {
        let problem = match e.kind() {
            csv::ErrorKind::Utf8 { .. } => "text is not UTF-8".to_owned(),
            csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
                format!("the row has {len} cells and the header {expected_len}")
            }
            _ => e.to_string(),
        };
        let line = e.position().map_or(1, csv::Position::line);
        DataError::Syntax { file: file(), line, problem, expected: EXPECTED_SYNTAX }
    };

    let mut reader = csv::Reader::from_reader(files::without_bom(bytes));
    let header = reader.headers().map_err(syntax)?.clone();
    if header.is_empty() {
        return Err(DataError::Empty { file: file(), expected: EXPECTED });
    }
    let column = |name| {
        header.iter().position(|h| h == name).ok_or_else(|| DataError::Column { file: file(), column: name })
    };
    let (text_at, label_at) = (column("text")?, column("label")?);

    let mut rows = Vec::new();
    for record in reader.records() {
        let record = record.map_err(syntax)?;
        let cell = |column, found: &str, expected| DataError::Cell {
            file: file(),
            line: record.position().map_or(0, csv::Position::line),
            column,
            found: quoted(found),
            expected,
        };
        let (text, label) = (&record[text_at], &record[label_at]);
        if text.trim().is_empty() {
            return Err(cell("text", text, "a sentence"));
        }
        let label = match label {
            "0" => 0,
            "1" => 1,
            other => return Err(cell("label", other, "0 or 1")),
        };
        rows.push(Labelled { text: text.to_owned(), label });
    }
    if rows.is_empty() {
        return Err(DataError::Empty { file: file(), expected: EXPECTED });
    }
    Ok(rows)
}

/// Text of a file that holds `rows`, in the layout of the study's files. Rows are not checked, as [`parse`] does that.
pub fn render(rows: &[Labelled]) -> String {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(["", "text", "label"]).expect("memory takes everything");
    for (index, row) in rows.iter().enumerate() {
        let (index, label) = (index.to_string(), row.label.to_string());
        writer.write_record([&index, &row.text, &label]).expect("memory takes everything");
    }
    let bytes = writer.into_inner().expect("memory takes everything");
    String::from_utf8(bytes).expect("made of strings")
}

/// Writes `rows` to a file, all or nothing.
///
/// # Errors
/// If the file cannot be written.
pub fn write(path: impl AsRef<Path>, rows: &[Labelled]) -> Result<()> {
    files::write_atomically(path, render(rows).as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(bytes: &[u8]) -> String {
        parse("x.csv", bytes).unwrap_err().to_string()
    }

    #[test]
    fn column_order_is_free_and_others_are_ignored() {
        let rows =
            parse("x.csv", b"\xef\xbb\xbflabel,source,text\r\n1,web,\"a, \"\"b\"\"\"\r\n0,,c\r\n").unwrap();
        assert_eq!(
            rows,
            [Labelled { text: "a, \"b\"".into(), label: 1 }, Labelled { text: "c".into(), label: 0 }]
        );
    }

    #[test]
    fn errors_name_the_place() {
        assert_eq!(
            message(b",text\n0,a\n"),
            r#"x.csv: column "label" is missing; expected columns text,label"#
        );
        assert_eq!(
            message(b",text,label\n0,\"a\nb\",1\n1,c,2\n"),
            r#"x.csv: line 4: column "label" is "2"; expected 0 or 1"#
        );
        assert_eq!(
            message(b"text,label\n \t,1\n"),
            r#"x.csv: line 2: column "text" is " \t"; expected a sentence"#
        );
        assert_eq!(
            message(b"text,label\na,1,2\n"),
            format!("x.csv: line 2: the row has 3 cells and the header 2; expected {EXPECTED_SYNTAX}")
        );
        assert_eq!(
            message(b"text,label\na,1\n\xff,1\n"),
            format!("x.csv: line 3: text is not UTF-8; expected {EXPECTED_SYNTAX}")
        );
        for empty in [&b""[..], b"text,label\n"] {
            assert_eq!(message(empty), format!("x.csv: holds no records; expected {EXPECTED}"));
        }
    }

    #[test]
    fn layout_is_the_studys() {
        let rows = [Labelled { text: "a".into(), label: 1 }, Labelled { text: "b, c".into(), label: 0 }];
        assert_eq!(render(&rows), ",text,label\n0,a,1\n1,\"b, c\",0\n");
    }
}
