//! CounterFact and HierarchyData: `requested_rewrite` with the prompt, the subject and both targets.

use super::draft::{Draft, Layout};
use super::record::Record;
use crate::Result;
use crate::error::quoted;

pub(super) const LAYOUT: Layout = Layout {
    is: |value| value.get("requested_rewrite").is_some(),
    read: |record| vec![read(record)],
    number: "case_id",
};

fn read(record: Record) -> Result<Draft> {
    Ok(Draft {
        paraphrase_prompts: record.texts("paraphrase_prompts")?,
        neighborhood_prompts: record.texts("neighborhood_prompts")?,
        unread: record.questions(&["attribute_prompts", "generation_prompts"]),
        ..rewrite(record, "requested_rewrite")?
    })
}

/// The rewrite at a path: a template, a subject, and targets with the text in `str`.
pub(super) fn rewrite(record: Record, path: &str) -> Result<Draft> {
    let at = |field: &str| format!("{path}.{field}");
    let prompt = record.text(&at("prompt"))?;
    if prompt.matches("{}").count() != 1 {
        let problem = format!("is {}", quoted(prompt));
        return Err(record.error(&at("prompt"), problem, "exactly one {} in it"));
    }
    let place = |field: &str| match record.get(&at(field)) {
        Some(text) if text.is_string() => at(field),
        _ => at(&format!("{field}.str")),
    };
    let true_side = match record.get(&at("target_true")) {
        None => Ok(None),
        Some(_) => record.answer(&place("target_true")),
    };
    let subject = record.owned(&at("subject"))?;
    Ok(Draft::new((prompt.to_owned(), subject), record.target(&place("target_new")), true_side))
}
