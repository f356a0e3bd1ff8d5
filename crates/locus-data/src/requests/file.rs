//! Records of a JSON file: an array, an object by id, or one a line.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

use super::record::kind;
use crate::{DataError, Result, files};

/// A record, and the key that it has in an object.
pub(super) struct Raw {
    pub key: Option<String>,
    pub value: Value,
}

/// Records of a file in their order. An object is one record when `is_record` says so, else it holds records by id.
///
/// Lines are tried when the whole is not JSON and the first of them is an object.
pub(super) fn read(
    file: &str,
    bytes: &[u8],
    expected: &'static str,
    is_record: impl Fn(&Value) -> bool,
) -> Result<Vec<Raw>> {
    let bytes = files::without_bom(bytes);
    let syntax =
        |line: u64, problem: String| DataError::Syntax { file: file.to_owned(), line, problem, expected };
    let broken = |before: u64, error: &serde_json::Error| {
        // serde_json appends the place, which the message already has.
        let text = error.to_string();
        let text = text.split(" at line ").next().unwrap_or_default();
        syntax(before + error.line().max(1) as u64, format!("column {}: not JSON ({text})", error.column()))
    };
    let unnamed = |value| Raw { key: None, value };
    match serde_json::from_slice(bytes) {
        Ok(Top::Array(records)) => Ok(records.into_iter().map(unnamed).collect()),
        Ok(Top::Object(fields)) => {
            let whole = Value::Object(fields.iter().cloned().collect());
            if is_record(&whole) {
                return Ok(vec![unnamed(whole)]);
            }
            if fields.is_empty() || !fields.iter().all(|(_, value)| value.is_object()) {
                return Err(syntax(1, "the file holds an object".into()));
            }
            Ok(fields.into_iter().map(|(key, value)| Raw { key: Some(key), value }).collect())
        }
        Ok(Top::Other(what)) => Err(syntax(1, format!("the file holds {what}"))),
        Err(error) => {
            let lines = bytes.split(|&byte| byte == b'\n').zip(0u64..);
            let mut lines = lines.filter(|(line, _)| !line.trim_ascii().is_empty()).peekable();
            let first = lines.peek().map(|(line, _)| serde_json::from_slice::<Value>(line));
            if !matches!(first, Some(Ok(Value::Object(_)))) {
                return Err(broken(0, &error));
            }
            let parse = |(line, before)| {
                serde_json::from_slice(line).map(unnamed).map_err(|error| broken(before, &error))
            };
            lines.map(parse).collect()
        }
    }
}

/// Content of a file, the fields of an object in their order.
enum Top {
    Array(Vec<Value>),
    Object(Vec<(String, Value)>),
    Other(&'static str),
}

impl<'de> Deserialize<'de> for Top {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_any(TopVisitor)
    }
}

struct TopVisitor;

impl<'de> Visitor<'de> for TopVisitor {
    type Value = Top;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> std::result::Result<Top, A::Error> {
        let mut all = Vec::new();
        while let Some(item) = items.next_element()? {
            all.push(item);
        }
        Ok(Top::Array(all))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> std::result::Result<Top, A::Error> {
        let mut all = Vec::new();
        while let Some(field) = fields.next_entry()? {
            all.push(field);
        }
        Ok(Top::Object(all))
    }

    fn visit_unit<E: Error>(self) -> std::result::Result<Top, E> {
        Ok(Top::Other(kind(&Value::Null)))
    }

    fn visit_bool<E: Error>(self, _: bool) -> std::result::Result<Top, E> {
        Ok(Top::Other("a truth value"))
    }

    fn visit_i64<E: Error>(self, _: i64) -> std::result::Result<Top, E> {
        Ok(Top::Other("a number"))
    }

    fn visit_u64<E: Error>(self, _: u64) -> std::result::Result<Top, E> {
        Ok(Top::Other("a number"))
    }

    fn visit_f64<E: Error>(self, _: f64) -> std::result::Result<Top, E> {
        Ok(Top::Other("a number"))
    }

    fn visit_str<E: Error>(self, _: &str) -> std::result::Result<Top, E> {
        Ok(Top::Other("a string"))
    }
}
