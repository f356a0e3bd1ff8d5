//! The two kinds of data the study works on: labelled sentences and edit requests.

use serde::{Deserialize, Serialize};

/// One row of a binary text-classification set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Labelled {
    /// The sentence, exactly as in the file.
    pub text: String,
    /// 0 or 1; 1 is the acceptable, true or affirmed class.
    pub label: u8,
}

/// One fact to edit: `prompt` with `subject` in place of `{}`, continued by `target_true` before the edit and by
/// `target_new` after it. Targets carry no leading space; whoever tokenises them after a prompt adds one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EditRequest {
    /// Number of the request in its file.
    pub case_id: u64,
    /// Prompt template with exactly one `{}`.
    pub prompt: String,
    /// What fills the `{}`.
    pub subject: String,
    /// The counterfactual continuation.
    pub target_new: String,
    /// The true continuation.
    pub target_true: String,
    /// Complete prompts (subject filled in) that ask the same in other words.
    pub paraphrase_prompts: Vec<String>,
    /// Complete prompts about other subjects whose true continuation is `target_true` and must not change.
    pub neighborhood_prompts: Vec<String>,
}

impl EditRequest {
    /// The prompt with the subject filled in.
    pub fn full_prompt(&self) -> String {
        self.prompt.replacen("{}", &self.subject, 1)
    }
}
