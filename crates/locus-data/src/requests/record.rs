//! Fields of one record, with errors that name it.

use serde_json::Value;

use crate::error::quoted;
use crate::{DataError, Result, find_subject};

/// One record, with the place that errors name.
#[derive(Clone, Copy)]
pub(super) struct Record<'a> {
    pub file: &'a str,
    pub index: usize,
    pub value: &'a Value,
}

impl<'a> Record<'a> {
    /// Value at a dotted path; `null` counts as absent.
    pub fn get(self, field: &str) -> Option<&'a Value> {
        let step = |value: &'a Value, key: &str| match value {
            Value::Array(items) => items.get(key.parse::<usize>().ok()?),
            _ => value.get(key),
        };
        field.split('.').try_fold(self.value, step).filter(|v| !v.is_null())
    }

    /// String with text in it, without the spaces around it: where all texts of requests are put in order.
    pub fn text(self, field: &str) -> Result<&'a str> {
        match self.get(field) {
            None => Err(self.error(field, "is missing".into(), "a string")),
            Some(Value::String(text)) if text.trim().is_empty() => {
                Err(self.error(field, "is empty".into(), "a string with text in it"))
            }
            Some(Value::String(text)) => Ok(text.trim()),
            Some(other) => Err(self.error(field, format!("is {}", kind(other)), "a string")),
        }
    }

    /// [`Record::text`] as an own string.
    pub fn owned(self, field: &str) -> Result<String> {
        Ok(self.text(field)?.to_owned())
    }

    /// Target in a field that holds a string, or lists whose first item holds it.
    pub fn target(self, field: &str) -> Result<String> {
        let mut place = field.to_owned();
        while let Some(Value::Array(_)) = self.get(&place) {
            place.push_str(".0");
        }
        self.owned(&place)
    }

    /// True answer in a field; `None` when the record has no such field or it holds an empty list.
    pub fn answer(self, field: &str) -> Result<Option<String>> {
        match self.get(field) {
            None => Ok(None),
            Some(Value::Array(items)) if items.is_empty() => Ok(None),
            Some(_) => self.target(field).map(Some),
        }
    }

    /// Strings of a field that holds one string, an array of them, or nothing.
    pub fn texts(self, field: &str) -> Result<Vec<String>> {
        match self.get(field) {
            None => Ok(Vec::new()),
            Some(Value::Array(items)) => {
                (0..items.len()).map(|i| self.owned(&format!("{field}.{i}"))).collect()
            }
            Some(_) => Ok(vec![self.owned(field)?]),
        }
    }

    /// Number of questions in some fields, at whatever depth: strings, and objects with a `prompt`.
    pub fn questions(self, fields: &[&str]) -> usize {
        fn count(value: &Value) -> usize {
            match value {
                Value::String(_) => 1,
                Value::Array(items) => items.iter().map(count).sum(),
                Value::Object(fields) => match fields.get("prompt") {
                    Some(prompt) => count(prompt),
                    None => fields.values().filter(|value| !value.is_string()).map(count).sum(),
                },
                _ => 0,
            }
        }
        fields.iter().filter_map(|field| self.get(field)).map(count).sum()
    }

    /// Template of a complete prompt, in which `{}` takes the place of the subject, and the subject as the prompt spells
    /// it.
    pub fn template(self, prompt_field: &str, subject_field: &str) -> Result<(String, String)> {
        let (prompt, subject) = (self.text(prompt_field)?, self.text(subject_field)?);
        let Some(place) = find_subject(prompt, subject) else {
            let problem = format!(
                "is {}: the subject {} is not in the prompt as a word",
                quoted(prompt),
                quoted(subject)
            );
            return Err(self.error(prompt_field, problem, "the subject in it"));
        };
        let template = format!("{}{{}}{}", &prompt[..place.start], &prompt[place.end..]);
        if template.matches("{}").count() != 1 {
            let problem = format!("is {}", quoted(prompt));
            return Err(self.error(prompt_field, problem, "no {} beside the subject"));
        }
        Ok((template, prompt[place].to_owned()))
    }

    /// Number that a record gives itself in a field.
    pub fn number(self, field: &str) -> Result<Option<u64>> {
        self.get(field)
            .map(|value| {
                let problem = || format!("is {}", quoted(&value.to_string()));
                value.as_u64().ok_or_else(|| self.error(field, problem(), "a number from 0"))
            })
            .transpose()
    }

    pub fn error(self, field: &str, problem: String, expected: &'static str) -> DataError {
        DataError::Field {
            file: self.file.to_owned(),
            record: self.index,
            field: field.to_owned(),
            problem,
            expected,
        }
    }
}

/// Name of a value's type, for messages.
pub(super) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}
