//! The CSV files of a report against the tables in its `results.json`, both read without the library's types.

use std::path::Path;

use serde_json::Value;

use crate::support::files_below;

/// Checks every cell of every table, and returns how many numbers there were.
pub fn check(out: &Path) -> usize {
    let results: Value = serde_json::from_slice(&std::fs::read(out.join("results.json")).unwrap()).unwrap();
    let tables = results["tables"].as_array().unwrap();
    let mut numbers = 0;
    for table in tables {
        let id = table["id"].as_str().unwrap();
        let mut reader = csv::Reader::from_path(out.join(format!("tables/{id}.csv"))).unwrap();
        let head: Vec<String> = reader.headers().unwrap().iter().map(str::to_owned).collect();
        let lines: Vec<csv::StringRecord> = reader.records().collect::<Result<_, _>>().unwrap();
        let rows = table["rows"].as_array().unwrap();
        let said = table["notes"].to_string().contains("Not measured: ");
        assert!(!rows.is_empty() || said, "{id} has no rows and does not say why");
        assert_eq!(lines.len(), rows.len(), "{id}");
        for (line, row) in lines.iter().zip(rows) {
            let mut fields = head.iter().zip(line).peekable();
            let cells = row.as_array().unwrap();
            let columns = table["columns"].as_array().unwrap();
            assert_eq!(cells.len(), columns.len(), "{id}");
            for (column, cell) in columns.iter().zip(cells) {
                let column = column.as_str().unwrap();
                let (name, field) = fields.next().unwrap_or_else(|| panic!("{id}: no field for {column}"));
                assert_eq!(name, column, "{id}");
                numbers += agree(&format!("{id}, {column}"), field, value(cell));
                // A column with estimates has two more, which are blank beside other cells.
                for end in ["low", "high"] {
                    if fields.peek().is_some_and(|(name, _)| **name == format!("{column} {end}")) {
                        let (name, field) = fields.next().unwrap();
                        numbers += agree(&format!("{id}, {name}"), field, &cell[end]);
                    } else {
                        assert!(
                            cell.get(end).is_none(),
                            "{id}: {column} has an interval that is not in the CSV"
                        );
                    }
                }
            }
            assert_eq!(fields.next(), None, "{id}: a field that is not in results.json");
        }
    }
    let on_disk = files_below(&out.join("tables"));
    let csv = on_disk.iter().filter(|(path, _)| path.extension().is_some_and(|end| end == "csv")).count();
    assert_eq!(csv, tables.len(), "a CSV file that is not in results.json");
    numbers
}

/// The value of a cell: the cell itself where it is a count, words or nothing.
fn value(cell: &Value) -> &Value {
    cell.get("value").unwrap_or(cell)
}

/// Whether a field is the same number, word or nothing; 1 if it is a number.
fn agree(place: &str, field: &str, value: &Value) -> usize {
    match value {
        Value::Null => assert_eq!(field, "", "{place}"),
        Value::String(text) => assert_eq!(field, text, "{place}"),
        Value::Number(number) => {
            let written: f64 = field.parse().unwrap_or_else(|_| panic!("{place}: {field:?} is no number"));
            assert_eq!(Some(written), number.as_f64(), "{place}");
            return 1;
        }
        other => panic!("{place}: {other} in a cell"),
    }
    0
}
