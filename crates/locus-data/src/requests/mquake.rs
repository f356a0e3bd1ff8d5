//! MQuAKE: records with a list of rewrites, all of which are requests.

use serde_json::Value;

use super::counterfact::rewrite;
use super::draft::{Draft, Layout};
use super::record::Record;
use crate::Result;

pub(super) const LAYOUT: Layout = Layout {
    is: |value| value.get("requested_rewrite").is_some_and(Value::is_array),
    read,
    number: "case_id",
};

fn read(record: Record) -> Vec<Result<Draft>> {
    const FIELD: &str = "requested_rewrite";
    let n = record.get(FIELD).and_then(Value::as_array).map_or(0, Vec::len);
    if n == 0 {
        return vec![Err(record.error(FIELD, "is empty".into(), "at least one rewrite"))];
    }
    let mut drafts: Vec<Result<Draft>> = (0..n).map(|i| rewrite(record, &format!("{FIELD}.{i}"))).collect();
    if let Some(draft) = drafts.iter_mut().flatten().next() {
        draft.unread = record.questions(&["questions"]);
    }
    drafts
}
