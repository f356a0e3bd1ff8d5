//! WikiBigEdit: the question `update`, and the new answer `ans` to it.

use super::draft::{Draft, Layout};
use super::record::Record;
use crate::Result;

pub(super) const LAYOUT: Layout = Layout {
    is: |value| value.get("update").is_some(),
    read: |record| vec![read(record)],
    number: "case_id",
};

fn read(record: Record) -> Result<Draft> {
    Ok(Draft {
        paraphrase_prompts: record.texts("rephrase")?,
        unread: record.questions(&["personas", "mhop", "loc"]),
        ..Draft::new(record.template("update", "subject")?, record.target("ans"), Ok(None))
    })
}
