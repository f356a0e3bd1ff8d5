//! zsRE as distributed with MEND: the question `src`, its true `answers` and a counterfactual one, `alt`.

use super::draft::{Draft, Layout};
use super::record::Record;
use crate::Result;

pub(super) const LAYOUT: Layout =
    Layout { is: |value| value.get("src").is_some(), read: |record| vec![read(record)], number: "case_id" };

fn read(record: Record) -> Result<Draft> {
    let no_counterfactual = record.get("alt").and_then(|alt| alt.as_str()) == Some("");
    Ok(Draft {
        paraphrase_prompts: record.texts("rephrase")?,
        foreseen: no_counterfactual,
        unread: record.questions(&["loc"]),
        ..Draft::new(record.template("src", "subject")?, record.target("alt"), record.answer("answers"))
    })
}
