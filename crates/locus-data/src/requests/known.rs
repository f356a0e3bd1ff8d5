//! Known facts of ROME's `known_1000.json`: a prompt, its subject and the true `attribute`, nothing to edit.

use super::draft::{Draft, Layout};
use super::record::Record;
use crate::Result;

pub(super) const LAYOUT: Layout = Layout {
    is: |value| value.get("attribute").is_some() && value.get("target_new").is_none(),
    read: |record| vec![read(record)],
    number: "known_id",
};

fn read(record: Record) -> Result<Draft> {
    let nothing =
        record.error("target_new", "is missing".into(), "a new target, which known facts do not have");
    Ok(Draft::new(record.template("prompt", "subject")?, Err(nothing), record.target("attribute").map(Some)))
}
