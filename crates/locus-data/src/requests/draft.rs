//! What a layout is, and what a record in it says.

use serde_json::Value;

use super::record::Record;
use crate::Result;

/// What a record says, in whatever layout: of an edit, a true fact or both.
pub(super) struct Draft {
    /// Prompt with `{}` in place of the subject.
    pub prompt: String,
    pub subject: String,
    pub target_new: Result<String>,
    pub target_true: Result<Option<String>>,
    pub paraphrase_prompts: Vec<String>,
    pub neighborhood_prompts: Vec<String>,
    /// Whether the layout provides for records without a new target, of which this is one.
    pub foreseen: bool,
    /// Number of further questions in the record that are not read.
    pub unread: usize,
}

impl Draft {
    /// A draft without further prompts.
    pub fn new(
        (prompt, subject): (String, String),
        target_new: Result<String>,
        target_true: Result<Option<String>>,
    ) -> Self {
        Draft {
            prompt,
            subject,
            target_new,
            target_true,
            paraphrase_prompts: Vec::new(),
            neighborhood_prompts: Vec::new(),
            foreseen: false,
            unread: 0,
        }
    }
}

/// A layout of records.
pub(super) struct Layout {
    /// Whether a record is in the layout.
    pub is: fn(&Value) -> bool,
    /// Drafts of a record: one, or one for each of its rewrites.
    pub read: fn(Record) -> Vec<Result<Draft>>,
    /// Field in which a record numbers itself.
    pub number: &'static str,
}
