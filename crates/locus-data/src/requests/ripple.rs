//! RippleEdits: a nested `edit` whose prompt is the whole sentence, new answer included.
//!
//! The sentence is split after its last " is " or " are "; where `original_fact` is given, after the last one that both
//! sentences share, and the rest of that sentence is the true answer. The records have no text of the subject, unless
//! `edit.subject` gives it: it is taken from "The ... of SUBJECT is", with lower-case words before `of` or `by` and a
//! subject that begins with a capital letter. In any other sentence the subject cannot be told from the rest.

use serde_json::Value;

use super::draft::{Draft, Layout};
use super::record::Record;
use crate::error::quoted;
use crate::{Result, find_subject};

pub(super) const LAYOUT: Layout = Layout {
    is: |value| value.get("edit").is_some_and(Value::is_object),
    read: |record| vec![read(record)],
    number: "case_id",
};

const PROMPT: &str = "edit.prompt";
/// Fields with the questions about what an edit entails and what it leaves alone.
const TESTS: [&str; 6] = [
    "Relation_Specificity",
    "Logical_Generalization",
    "Subject_Aliasing",
    "Compositionality_I",
    "Compositionality_II",
    "Forgetfulness",
];

fn read(record: Record) -> Result<Draft> {
    let sentence = record.text(PROMPT)?;
    let original = match record.get("edit.original_fact.prompt") {
        Some(_) => Some(record.text("edit.original_fact.prompt")?),
        None => None,
    };
    let shared = original.map_or(sentence.len(), |original| {
        let same = sentence.char_indices().zip(original.chars()).find(|((_, a), b)| a != b);
        same.map_or(sentence.len().min(original.len()), |((place, _), _)| place)
    });
    let split =
        [" is ", " are "].iter().filter_map(|verb| Some(sentence[..shared].rfind(verb)? + verb.len())).max();
    let Some(split) = split else {
        let problem = format!("is {}", quoted(sentence));
        return Err(record.error(PROMPT, problem, "\"... is ANSWER.\""));
    };
    let prompt = sentence[..split].trim_end();
    let answer = |sentence: &str| sentence[split..].trim().trim_end_matches('.').trim().to_owned();
    let written = Some(answer(sentence)).filter(|text| !text.is_empty());
    let target_new = match record.get("edit.target") {
        Some(_) => record.target("edit.target"),
        None => written.ok_or_else(|| {
            record.error(PROMPT, format!("is {}", quoted(sentence)), "an answer after \"is\"")
        }),
    };
    let target_true = original.map(answer).filter(|text| !text.is_empty());

    let place = match record.get("edit.subject") {
        Some(_) => find_subject(prompt, record.text("edit.subject")?),
        None => subject_of(prompt),
    };
    let Some(place) = place else {
        let problem = format!("is {}", quoted(sentence));
        return Err(record.error(
            PROMPT,
            problem,
            "\"The ... of SUBJECT is ANSWER.\", or the subject in edit.subject",
        ));
    };
    let template = format!("{}{{}}{}", &prompt[..place.start], &prompt[place.end..]);
    if template.matches("{}").count() != 1 {
        return Err(record.error(PROMPT, format!("is {}", quoted(sentence)), "no {} beside the subject"));
    }
    let unread = record.questions(&TESTS);
    Ok(Draft { unread, ..Draft::new((template, prompt[place].to_owned()), target_new, Ok(target_true)) })
}

/// Bytes of the subject of "The ... of SUBJECT is".
fn subject_of(prompt: &str) -> Option<std::ops::Range<usize>> {
    let end = prompt.strip_suffix(" is").or_else(|| prompt.strip_suffix(" are"))?.len();
    let mut start = prompt.find(' ')? + 1;
    let mut before = "";
    for word in prompt.get(start..end)?.split(' ') {
        if !word.is_empty() && !word.starts_with(|c: char| c.is_lowercase()) {
            return ["of", "by"].contains(&before).then_some(start..end);
        }
        before = word;
        start += word.len() + 1;
    }
    None
}
