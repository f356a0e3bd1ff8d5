//! What a benchmark asks beside an edit's own prompts: questions that follow from it (portability), questions that do
//! not bear on it (locality), and prompts for free text.
//!
//! | fields | found in | become |
//! |---|---|---|
//! | `portability`, `locality`: lists of `prompt` and `ground_truth` by kind | KnowEdit | questions of that kind |
//! | `portability`: `New Question`, `New Answer` | EasyEdit's zsRE | a question, `one-hop` |
//! | `portability_prompt`, `locality_prompt` and their `..._ground_truth` | EasyEdit | questions, `one-hop`, `other` |
//! | `loc`, `loc_ans` | zsRE (MEND), WikiBigEdit | a question, `other`; it ends with a question mark, as in ROME |
//! | `mhop`, `mhop_ans` | WikiBigEdit | a question, `multi-hop` |
//! | `questions`, `new_answer` | MQuAKE, of one rewrite | questions, `multi-hop` |
//! | `Compositionality_I` and the like: `test_queries` | RippleEdits | questions of that kind |
//! | `generation_prompts` | CounterFact | prompts for free text |
//!
//! Where several answers are right, the first is taken. A question without an answer is left out.

use serde_json::Value;

use super::record::{Record, kind};
use crate::Result;

/// A question with its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// What the file calls questions of its kind.
    pub kind: String,
    /// Complete prompt.
    pub prompt: String,
    /// The right answer, after the edit for a question that follows from it.
    pub answer: String,
}

/// What a benchmark asks beside the prompts of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Beside {
    /// Questions whose answers follow from the edit.
    pub portability: Vec<Question>,
    /// Questions whose answers should not change.
    pub locality: Vec<Question>,
    /// Prompts for free text about the subject.
    pub generation_prompts: Vec<String>,
    /// Wikidata's ids of the relation and of the new target, by which CounterFact's `attribute_snippets.json` lists
    /// texts of reference.
    pub new_fact: Option<[String; 2]>,
}

/// Kinds of RippleEdits' tests; those of the last two ask for what should stay as it is.
const RIPPLES: [&str; 6] = [
    "Logical_Generalization",
    "Compositionality_I",
    "Compositionality_II",
    "Subject_Aliasing",
    "Relation_Specificity",
    "Forgetfulness",
];
const KEPT_RIPPLES: usize = 2;

/// What a record has beside its request.
pub(super) fn read(record: Record) -> Result<Beside> {
    let mut found = Beside {
        portability: nested(record, "portability")?,
        locality: nested(record, "locality")?,
        generation_prompts: record.texts("generation_prompts")?,
        new_fact: new_fact(record),
    };
    let ask = |list: &mut Vec<Question>, kind: &str, prompts: &str, answer: &str| -> Result<()> {
        let lists = [prompts, answer].map(|field| record.get(field).is_some_and(Value::is_array));
        for (i, prompt) in record.texts(prompts)?.into_iter().enumerate() {
            // Lists of both go together; one answer may be that of several questions.
            let place = if lists == [true; 2] { format!("{answer}.{i}") } else { answer.to_owned() };
            list.extend(question(record, kind, prompt, &place)?);
        }
        Ok(())
    };
    let Beside { portability, locality, .. } = &mut found;
    ask(portability, "one-hop", "portability.New Question", "portability.New Answer")?;
    ask(portability, "one-hop", "portability_prompt", "portability_ground_truth")?;
    ask(portability, "multi-hop", "mhop", "mhop_ans")?;
    if record.get("requested_rewrite").and_then(Value::as_array).is_some_and(|list| list.len() == 1) {
        ask(portability, "multi-hop", "questions", "new_answer")?;
    }
    ask(locality, "other", "locality_prompt", "locality_ground_truth")?;
    if record.get("loc").is_some() {
        let text = record.text("loc")?;
        let mark = if text.ends_with('?') { "" } else { "?" };
        locality.extend(question(record, "other", format!("{text}{mark}"), "loc_ans")?);
    }
    for (i, kind) in RIPPLES.into_iter().enumerate() {
        let list = if i < RIPPLES.len() - KEPT_RIPPLES { &mut *portability } else { &mut *locality };
        for test in 0..items(record, kind) {
            let queries = format!("{kind}.{test}.test_queries");
            for query in 0..items(record, &queries) {
                let at = format!("{queries}.{query}");
                let prompt = record.owned(&format!("{at}.prompt"))?;
                list.extend(question(record, kind, prompt, &format!("{at}.answers.0.value"))?);
            }
        }
    }
    Ok(found)
}

/// Number of items of an array; 0 where there is none.
fn items(record: Record, field: &str) -> usize {
    record.get(field).and_then(Value::as_array).map_or(0, Vec::len)
}

/// A question whose answer is in a field; `None` when it has none.
fn question(record: Record, kind: &str, prompt: String, answer: &str) -> Result<Option<Question>> {
    let mut place = answer.to_owned();
    while let Some(Value::Array(list)) = record.get(&place) {
        if list.is_empty() {
            return Ok(None);
        }
        place.push_str(".0");
    }
    let answer = match record.get(&place) {
        None => return Ok(None),
        Some(Value::String(text)) if text.trim().is_empty() => return Ok(None),
        Some(_) => record.owned(&place)?,
    };
    Ok(Some(Question { kind: kind.to_owned(), prompt, answer }))
}

/// Questions by kind: each kind has a list of `prompt` and `ground_truth`, or one of them.
fn nested(record: Record, field: &str) -> Result<Vec<Question>> {
    let Some(Value::Object(kinds)) = record.get(field) else {
        return match record.get(field) {
            None | Some(Value::Array(_) | Value::String(_)) => Ok(Vec::new()),
            Some(other) => Err(record.error(field, format!("is {}", self::kind(other)), "questions by kind")),
        };
    };
    let mut questions = Vec::new();
    for (name, value) in kinds {
        let at = format!("{field}.{name}");
        let places: Vec<String> = match value {
            Value::Array(list) => (0..list.len()).map(|i| format!("{at}.{i}")).collect(),
            Value::Object(_) => vec![at],
            _ => continue,
        };
        for place in places {
            let answer = format!("{place}.ground_truth");
            match record.get(&format!("{place}.prompt")) {
                None => {}
                // One prompt after the other, with the answers in the same order.
                Some(Value::Array(prompts)) => {
                    for i in 0..prompts.len() {
                        let prompt = record.owned(&format!("{place}.prompt.{i}"))?;
                        questions.extend(question(record, name, prompt, &format!("{answer}.{i}"))?);
                    }
                }
                Some(_) => {
                    let prompt = record.owned(&format!("{place}.prompt"))?;
                    questions.extend(question(record, name, prompt, &answer)?);
                }
            }
        }
    }
    Ok(questions)
}

fn new_fact(record: Record) -> Option<[String; 2]> {
    let text = |field: &str| record.get(field).and_then(Value::as_str).map(str::to_owned);
    Some([text("requested_rewrite.relation_id")?, text("requested_rewrite.target_new.id")?])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::parse_benchmark;
    use super::*;

    fn asked(record: Value) -> Beside {
        let parsed = parse_benchmark("f", json!([record]).to_string().as_bytes()).unwrap();
        assert!(parsed.skipped.is_empty(), "{:?}", parsed.skipped);
        parsed.usable.into_iter().next().unwrap().1.1
    }

    fn pairs(questions: &[Question]) -> Vec<[&str; 3]> {
        questions.iter().map(|q| [&*q.kind, &*q.prompt, &*q.answer]).collect()
    }

    #[test]
    fn the_questions_of_each_layout() {
        let flat = json!({"prompt": "A is in", "subject": "A", "target_new": "B", "ground_truth": "C"});
        let with = |extra: Value| {
            let mut record = flat.clone();
            record.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
            asked(record)
        };
        let found = with(json!({
            "portability": {
                "Reasoning": [{"prompt": "p1", "ground_truth": [["x", "y"]]}, {"prompt": "p2", "ground_truth": []}],
                "Subject_Aliasing": {"prompt": ["p3", "p4"], "ground_truth": ["x", ["y"]]},
            },
            "locality": {"Forgetfulness": [{"prompt": " l1 ", "ground_truth": "z"}]},
        }));
        let expected =
            [["Reasoning", "p1", "x"], ["Subject_Aliasing", "p3", "x"], ["Subject_Aliasing", "p4", "y"]];
        assert_eq!(pairs(&found.portability), expected);
        assert_eq!(pairs(&found.locality), [["Forgetfulness", "l1", "z"]]);

        let found =
            with(json!({"locality_prompt": "l", "locality_ground_truth": "z", "portability_prompt": "p",
            "portability_ground_truth": "x"}));
        assert_eq!(pairs(&found.portability), [["one-hop", "p", "x"]]);
        assert_eq!(pairs(&found.locality), [["other", "l", "z"]]);

        let found = asked(
            json!({"subject": "A", "src": "Where is A?", "alt": "B", "answers": ["C"], "rephrase": "r",
            "loc": "nq question: who", "loc_ans": "z", "portability": {"Recalled Relation": "(A, b, c)",
            "New Question": "Where?", "New Answer": "There"}}),
        );
        assert_eq!(pairs(&found.locality), [["other", "nq question: who?", "z"]]);
        assert_eq!(pairs(&found.portability), [["one-hop", "Where?", "There"]]);

        let found = asked(json!({"edit": {"prompt": "The name of the spouse of Ann is Bob."},
            "Compositionality_I": [{"test_queries": [{"prompt": "p", "answers": [{"value": "x", "aliases": []}]}]}],
            "Relation_Specificity": [{"test_queries": [{"prompt": "l", "answers": [{"value": "z"}]},
            {"prompt": "without", "answers": []}]}]}));
        assert_eq!(pairs(&found.portability), [["Compositionality_I", "p", "x"]]);
        assert_eq!(pairs(&found.locality), [["Relation_Specificity", "l", "z"]]);

        let rewrite = |id: &str| json!({"prompt": "{} is in", "subject": "A", "relation_id": "P1", "target_new": {"str": "B", "id": id}});
        let found = asked(json!({"requested_rewrite": rewrite("Q1"), "generation_prompts": ["A lives in"]}));
        assert_eq!(found.generation_prompts, ["A lives in"]);
        assert_eq!(found.new_fact, Some(["P1".into(), "Q1".into()]));
        let multi = |rewrites: Value| json!({"requested_rewrite": rewrites, "questions": ["a", "b"], "new_answer": "y"});
        let found = asked(multi(json!([rewrite("Q1")])));
        assert_eq!(pairs(&found.portability), [["multi-hop", "a", "y"], ["multi-hop", "b", "y"]]);
        let several = multi(json!([rewrite("Q1"), rewrite("Q2")]));
        assert!(asked(several).portability.is_empty(), "the answer needs both rewrites");
    }

    #[test]
    fn a_question_of_another_type_names_its_place() {
        let record = json!([{"prompt": "A is in", "subject": "A", "target_new": "B",
            "portability": {"Reasoning": [{"prompt": 3, "ground_truth": "x"}]}}]);
        let parsed = parse_benchmark("f", record.to_string().as_bytes()).unwrap();
        let why = parsed.skipped[0].reason.to_string();
        let expected = "f: record 0: field portability.Reasoning.0.prompt is a number; expected a string";
        assert_eq!(why, expected);
    }
}
