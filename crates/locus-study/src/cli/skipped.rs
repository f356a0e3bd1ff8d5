//! Records that a command cannot use: listed, counted and left out, or with `--strict` refused.

use std::path::Path;

use locus_data::{DataError, Skipped};
use serde_json::{Value, json};

use super::error::Unusable;
use super::output::note;

/// The records of a file that cannot be used.
pub struct SkippedRecords<'a> {
    file: &'a Path,
    list: Vec<SkippedRecord>,
}

/// A record that cannot be used.
struct SkippedRecord {
    /// Number of the record in the file, from 0.
    record: usize,
    case_id: Option<u64>,
    reason: String,
    /// The reason with the file and the place in it.
    error: String,
    /// Whether the layout provides for such records.
    foreseen: bool,
}

impl<'a> SkippedRecords<'a> {
    /// The records that could not be read.
    pub fn new(file: &'a Path, unread: Vec<Skipped>) -> Self {
        let place = file.display();
        let skipped = |Skipped { record, case_id, reason, foreseen }| {
            let error = reason.to_string();
            let own = error.strip_prefix(&format!("{place}: ")).unwrap_or(&error);
            let reason = own.strip_prefix(&format!("record {record}: ")).unwrap_or(own).to_owned();
            SkippedRecord { record, case_id, reason, error, foreseen }
        };
        SkippedRecords { file, list: unread.into_iter().map(skipped).collect() }
    }

    /// Adds a record that was read and cannot be used.
    pub fn add(&mut self, record: usize, case_id: Option<u64>, error: &anyhow::Error) {
        let reason = format!("{error:#}");
        let error = format!("{}: record {record}: {reason}", self.file.display());
        self.list.push(SkippedRecord { record, case_id, reason, error, foreseen: false });
    }

    /// Adds a record of a file whose records are known by their lines, counted from 1.
    pub fn add_line(&mut self, record: usize, line: u64, error: &anyhow::Error) {
        let reason = format!("line {line}: {error:#}");
        let error = format!("{}: {reason}", self.file.display());
        self.list.push(SkippedRecord { record, case_id: None, reason, error, foreseen: false });
    }

    /// Lists what was skipped on stderr; `usable` is the number of records that can be used.
    ///
    /// # Errors
    /// When there is none, or with `strict` when a record was skipped whose gap the layout does not provide for.
    pub fn report(&mut self, usable: usize, strict: bool) -> Result<(), Unusable> {
        self.list.sort_by_key(|skipped| skipped.record);
        let (file, all) = (self.file.display(), self.list.len() + usable);
        if let Some(first) = self.list.iter().find(|skipped| strict && !skipped.foreseen) {
            return Err(Unusable(first.error.clone()));
        }
        match &self.list[..] {
            [] => return Ok(()),
            [only] if usable == 0 => return Err(Unusable(only.error.clone())),
            [first, ..] if usable == 0 => {
                return Err(Unusable(format!(
                    "{file}: none of its {all} records can be used: {}",
                    first.error
                )));
            }
            _ => {}
        }
        for SkippedRecord { record, case_id, reason, .. } in &self.list {
            let case = case_id.map(|case| format!(" (case {case})")).unwrap_or_default();
            note(&format!("{file}: record {record}{case} skipped: {reason}"));
        }
        note(&format!("{file}: {} of {all} records skipped", self.list.len()));
        Ok(())
    }

    /// The list for `--json`; `None` when nothing was skipped.
    pub fn json(&self) -> Option<Value> {
        let one = |skipped: &SkippedRecord| {
            let SkippedRecord { record, case_id, reason, .. } = skipped;
            json!({ "record": record, "case_id": case_id, "reason": reason })
        };
        (!self.list.is_empty()).then(|| self.list.iter().map(one).collect())
    }
}

/// Whether an error says that a file holds no record at all.
pub fn is_empty_file(error: &DataError) -> bool {
    matches!(error, DataError::Empty { .. })
}
