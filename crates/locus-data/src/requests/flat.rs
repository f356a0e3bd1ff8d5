//! EasyEdit's flat layout and KnowEdit's, which is the same with further questions nested in it.
//!
//! KnowEdit's WikiBio calls the fields `text`, `concept` and `labels`.

use super::draft::{Draft, Layout};
use super::record::Record;
use crate::Result;

pub(super) const LAYOUT: Layout = Layout {
    is: |value| ["prompt", "text", "target_new"].iter().any(|field| value.get(field).is_some()),
    read: |record| vec![read(record)],
    number: "case_id",
};

fn read(record: Record) -> Result<Draft> {
    let [prompt, subject, target_new] =
        [("prompt", "text"), ("subject", "concept"), ("target_new", "labels")].map(|(name, other)| {
            if record.get(name).is_none() && record.get(other).is_some() { other } else { name }
        });
    let target_true = record.answer("ground_truth");
    let same_answer = match (record.answer("locality_ground_truth")?, &target_true) {
        (_, Ok(None)) => false,
        (None, _) => true,
        (answer, target_true) => target_true.as_ref().is_ok_and(|target_true| *target_true == answer),
    };
    let mut unread = vec!["portability", "portability_prompt", "locality"];
    if !same_answer {
        unread.push("locality_prompt");
    }
    Ok(Draft {
        paraphrase_prompts: record.texts("rephrase_prompt")?,
        neighborhood_prompts: if same_answer { record.texts("locality_prompt")? } else { Vec::new() },
        unread: record.questions(&unread),
        ..Draft::new(record.template(prompt, subject)?, record.target(target_new), target_true)
    })
}
