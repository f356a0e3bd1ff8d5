//! One table as CSV with raw values and as Markdown.

use std::io;

use super::cell;
use super::check::invalid;
use crate::results::{Cell, Table};

/// The table as CSV: raw values with all their digits. A column `x` of estimates becomes three: `x`, `x low` and
/// `x high`.
pub fn csv(table: &Table) -> io::Result<String> {
    let estimates: Vec<bool> = (0..table.columns.len())
        .map(|index| table.rows.iter().any(|row| matches!(row[index], Cell::Estimate { .. })))
        .collect();
    let mut writer = csv::Writer::from_writer(Vec::new());
    let head = table.columns.iter().zip(&estimates).flat_map(|(name, &wide)| {
        let ends = [format!("{name} low"), format!("{name} high")];
        std::iter::once(name.clone()).chain(ends.into_iter().filter(move |_| wide))
    });
    writer.write_record(head)?;
    for row in &table.rows {
        let fields = row.iter().zip(&estimates).flat_map(|(cell, &wide)| {
            let [value, low, high] = raw(cell);
            std::iter::once(value).chain([low, high].into_iter().filter(move |_| wide))
        });
        writer.write_record(fields)?;
    }
    String::from_utf8(writer.into_inner().map_err(|error| error.into_error())?).map_err(invalid)
}

/// Value and interval of a cell, with as many digits as are needed to read the same number back.
fn raw(cell: &Cell) -> [String; 3] {
    let none = String::new;
    match cell {
        Cell::Count(count) => [count.to_string(), none(), none()],
        Cell::Number { value, .. } => [format!("{value:?}"), none(), none()],
        Cell::Estimate { value, low, high, .. } => {
            [format!("{value:?}"), format!("{low:?}"), format!("{high:?}")]
        }
        Cell::Text(text) => [text.clone(), none(), none()],
        Cell::Empty(()) => [none(), none(), none()],
    }
}

/// The table as GitHub-flavoured Markdown, without title and notes; nothing for a table without rows.
pub fn markdown(table: &Table) -> String {
    if table.rows.is_empty() {
        return String::new();
    }
    let line = |fields: Vec<String>| format!("| {} |\n", fields.join(" | "));
    let mut text = line(table.columns.iter().map(|name| escape(name)).collect());
    let rule = |index| if cell::is_numeric(&table.rows, index) { "---:" } else { "---" };
    text += &line((0..table.columns.len()).map(|index| rule(index).to_owned()).collect());
    for row in &table.rows {
        text += &line(row.iter().map(|cell| escape(&cell::text(cell))).collect());
    }
    text
}

/// Escapes text so that Markdown shows it unchanged, on one line.
pub fn escape(text: &str) -> String {
    let letters: Vec<char> = text.chars().collect();
    let mut escaped = String::with_capacity(text.len());
    for (index, &letter) in letters.iter().enumerate() {
        let word = |at: Option<usize>| {
            at.and_then(|at| letters.get(at)).is_some_and(|letter| letter.is_alphanumeric())
        };
        match letter {
            '\n' | '\r' => escaped.push(' '),
            // Between letters an underscore is plain text, and `blimp\_dna1` would be ugly to read as source.
            '_' if word(index.checked_sub(1)) && word(Some(index + 1)) => escaped.push('_'),
            // Brackets make a link only when another bracket or a parenthesis follows them, which it never does after
            // an interval.
            '|' | '\\' | '`' | '*' | '_' | '<' | '&' | '#' | '~' => escaped.extend(['\\', letter]),
            '(' | '[' | ':' if index > 0 && letters[index - 1] == ']' => escaped.extend(['\\', letter]),
            _ => escaped.push(letter),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fabricated;
    use crate::results::Style;

    /// Reads the CSV back and compares every number with its source, to the last bit.
    #[test]
    fn every_number_of_every_table_parses_back() {
        let mut tables = fabricated::results().tables;
        let hard = [5e-324, 1.7976931348623157e308, 0.1 + 0.2, -0.0, 1e21, 123_456_789.123_456_79];
        let number = |value| vec![Cell::Number { value, style: Style::Percent }];
        let (title, notes, columns) = (String::new(), Vec::new(), vec!["hard, to \"read\"".to_owned()]);
        tables.push(Table {
            id: "H".into(),
            title,
            notes,
            columns,
            rows: hard.into_iter().map(number).collect(),
        });
        let mut numbers = 0;
        for table in &tables {
            let text = csv(table).unwrap();
            let mut reader = csv::Reader::from_reader(text.as_bytes());
            let names: Vec<String> = reader.headers().unwrap().iter().map(str::to_owned).collect();
            let lines: Vec<csv::StringRecord> = reader.records().collect::<Result<_, _>>().unwrap();
            assert_eq!(lines.len(), table.rows.len());
            for (row, line) in table.rows.iter().zip(&lines) {
                for (name, cell) in table.columns.iter().zip(row) {
                    let field = |name: &str| &line[names.iter().position(|other| other == name).unwrap()];
                    let bits = |name: &str| field(name).parse::<f64>().unwrap().to_bits();
                    match cell {
                        Cell::Count(count) => assert_eq!(field(name).parse(), Ok(*count)),
                        Cell::Number { value, .. } => assert_eq!(bits(name), value.to_bits()),
                        Cell::Estimate { value, low, high, .. } => {
                            assert_eq!(bits(name), value.to_bits());
                            assert_eq!(bits(&format!("{name} low")), low.to_bits());
                            assert_eq!(bits(&format!("{name} high")), high.to_bits());
                        }
                        Cell::Text(text) => assert_eq!(field(name), text),
                        Cell::Empty(()) => assert_eq!(field(name), ""),
                    }
                    numbers += 1;
                }
            }
        }
        assert!(numbers > 400);
    }

    #[test]
    fn markdown_rows_have_one_field_per_column() {
        let table = &fabricated::results().tables[0];
        let text = markdown(table);
        assert_eq!(text.lines().count(), table.rows.len() + 2);
        for line in text.lines() {
            let bars = line.replace("\\|", "").matches('|').count();
            assert_eq!(bars, table.columns.len() + 1, "{line}");
        }
    }

    #[test]
    fn markup_in_text_is_shown_and_not_obeyed() {
        assert_eq!(escape("a|b *c* <d>\n_e_"), "a\\|b \\*c\\* \\<d> \\_e\\_");
        assert_eq!(escape("blimp_dna1 0.5 [0.4, 0.6]"), "blimp_dna1 0.5 [0.4, 0.6]");
        assert_eq!(escape("[a](b)"), "[a]\\(b)");
    }
}
