//! `results.json`: deterministic, one record per line, and checked to read back.

use std::io;

use serde::Serialize;
use serde_json::ser::{Formatter, Serializer};

use super::check::invalid;
use crate::results::Results;

/// Depth of nesting from which on values stay on the line of their parent: `records.edits[i]` still has its own line.
const DEPTH: usize = 3;

/// Formatter that breaks and indents lines at the outer levels only.
struct OuterLines {
    depth: usize,
    empty: bool,
}

impl OuterLines {
    fn open<W: ?Sized + io::Write>(&mut self, writer: &mut W, bracket: &[u8]) -> io::Result<()> {
        (self.depth, self.empty) = (self.depth + 1, true);
        writer.write_all(bracket)
    }

    fn close<W: ?Sized + io::Write>(&mut self, writer: &mut W, bracket: &[u8]) -> io::Result<()> {
        self.depth -= 1;
        if self.depth < DEPTH && !self.empty {
            self.line(writer)?;
        }
        self.empty = false;
        writer.write_all(bracket)
    }

    fn item<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        self.empty = false;
        if !first {
            writer.write_all(b",")?;
        }
        if self.depth <= DEPTH { self.line(writer) } else { Ok(()) }
    }

    fn line<W: ?Sized + io::Write>(&self, writer: &mut W) -> io::Result<()> {
        writer.write_all(b"\n")?;
        (0..self.depth).try_for_each(|_| writer.write_all(b" "))
    }
}

impl Formatter for OuterLines {
    fn begin_array<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.open(writer, b"[")
    }

    fn end_array<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.close(writer, b"]")
    }

    fn begin_array_value<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        self.item(writer, first)
    }

    fn begin_object<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.open(writer, b"{")
    }

    fn end_object<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.close(writer, b"}")
    }

    fn begin_object_key<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        self.item(writer, first)
    }
}

/// `results` as JSON.
///
/// Fails when the text does not read back to the same results. JSON has no notation for numbers that are not finite, so
/// this is where a NaN in a record comes to light; the message quotes the line that holds it.
pub fn render(results: &Results) -> io::Result<String> {
    let mut bytes = Vec::new();
    results.serialize(&mut Serializer::with_formatter(&mut bytes, OuterLines { depth: 0, empty: true }))?;
    bytes.push(b'\n');
    let text = String::from_utf8(bytes).map_err(invalid)?;
    let back: Results = serde_json::from_str(&text).map_err(|error| {
        let line = text.lines().nth(error.line().saturating_sub(1)).unwrap_or_default();
        let start: String = line.trim_start().chars().take(160).collect();
        invalid(format!("results do not survive JSON (a number that is not finite?): {error}: {start}"))
    })?;
    if back != *results {
        return Err(invalid("results do not survive JSON: what reads back is not what was written"));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::Records;
    use crate::report::fabricated;

    #[test]
    fn results_read_back_unchanged() {
        let results = fabricated::results();
        let back: Results = serde_json::from_str(&render(&results).unwrap()).unwrap();
        assert_eq!(back, results);
    }

    #[test]
    fn each_record_has_a_line_of_its_own() {
        let results = fabricated::results();
        let text = render(&results).unwrap();
        let Records { extractions, edits, overlaps, .. } = &results.records;
        let lines = text.lines().filter(|line| line.starts_with("   {\"preset\":")).count();
        assert_eq!(lines, extractions.len() + edits.len() + overlaps.len());
        assert_eq!(text.matches("{\"preset\":").count(), lines, "two records on one line");
    }

    #[test]
    fn a_number_that_is_not_finite_is_refused_with_its_place() {
        let mut results = fabricated::results();
        results.records.edits[1].post_true = f64::NAN;
        let message = render(&results).unwrap_err().to_string();
        assert!(message.contains(&results.records.edits[1].task), "{message}");
        let mut results = fabricated::results();
        results.claims[0].p_value = f64::INFINITY;
        assert!(render(&results).is_err());
    }
}
