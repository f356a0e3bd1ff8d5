//! Edits inside a scope, measured before and after (T2, T3, T4, T7).

use anyhow::{Context, Result};
use locus_data::EditRequest;
use locus_editors::{ClampedSgd, TokenRequest};
use locus_gpt2::{Config, Gpt2, ParamMask, PromptTargets, Scalar, Tokenizer, compiled};
use rayon::prelude::*;

use crate::records::{EditOutcome, Level, Scope};

/// A request with its prompt and both targets tokenised.
#[derive(Clone, Debug)]
pub struct PreparedRequest {
    /// Number of the request.
    pub case_id: u64,
    /// Level in the hierarchy: even cases are hyponyms, odd ones hypernyms.
    pub level: Level,
    prompt: Vec<u32>,
    target_new: Vec<u32>,
    target_true: Vec<u32>,
}

compiled!(NllJob<'a>: <F> (&'a PreparedRequest, &'a Gpt2<F>) => Result<Vec<f64>>, nll);

fn nll<F: Scalar>((request, model): (&PreparedRequest, &Gpt2<F>)) -> Result<Vec<f64>> {
    Ok(request.targets::<F>(model.config())?.nll_per_token(model))
}

impl PreparedRequest {
    /// Tokenises a request, each target with a space before it.
    ///
    /// # Errors
    /// When a prompt or target gives no token.
    pub fn new(tokenizer: &Tokenizer, request: &EditRequest) -> Result<Self> {
        let tokens = |field: &str, text: &str| {
            tokenizer.encode_some(field, text).with_context(|| format!("request {}", request.case_id))
        };
        let target = |field: &str, text: &str| {
            let text = text.trim();
            if text.is_empty() {
                anyhow::bail!("request {}: {field} is empty; expected a word", request.case_id);
            }
            tokens(field, &format!(" {text}"))
        };
        Ok(PreparedRequest {
            case_id: request.case_id,
            level: if request.case_id.is_multiple_of(2) { Level::Hyponym } else { Level::Hypernym },
            prompt: tokens("prompt", &request.full_prompt())?,
            target_new: target("target_new", &request.target_new)?,
            target_true: target("target_true", &request.target_true)?,
        })
    }

    /// Mean NLL per token, in nats, of the new and of the true target.
    ///
    /// # Errors
    /// When the request does not fit the model's context.
    pub fn nll<F: Scalar>(&self, model: &Gpt2<F>) -> Result<(f64, f64)> {
        let nll = F::run::<NllJob>((self, model))?;
        Ok((nll[0], nll[1]))
    }

    /// The prompt with the new target, and with the true one.
    fn targets<F: Scalar>(&self, config: &Config) -> Result<PromptTargets<F>> {
        let pairs = [(&self.prompt, &self.target_new), (&self.prompt, &self.target_true)];
        PromptTargets::new(config, &pairs).with_context(|| format!("request {}", self.case_id))
    }

    /// Tokens of the prompt.
    pub fn prompt(&self) -> &[u32] {
        &self.prompt
    }

    /// Tokens of the true target.
    pub fn target_true(&self) -> &[u32] {
        &self.target_true
    }

    /// The request as an editor takes it.
    pub fn token_request(&self) -> TokenRequest {
        TokenRequest { prompt: self.prompt.clone(), target: self.target_new.clone() }
    }
}

/// Scope of edits in an isolated model: labels for the record, and the mask that is applied to the model and to its
/// gradient.
#[derive(Clone, Debug)]
pub struct IsolatedScope {
    /// Preset of the mask; empty for the intact model.
    pub preset: String,
    /// Task of the circuit, `none` for random masks and the intact model.
    pub task: String,
    /// Target density; 1 for the intact model.
    pub target_density: f64,
    /// Kind of scope.
    pub scope: Scope,
    /// The block parameters that are present and may change; `None` means all of them.
    pub mask: Option<ParamMask>,
}

impl IsolatedScope {
    /// Name of the scope, unique within a run and safe in file names.
    pub fn key(&self) -> String {
        let scope = serde_json::to_value(self.scope).expect("a plain enum");
        format!("{}-{}-{}-{}", self.preset, self.task, self.target_density, scope.as_str().expect("a string"))
    }
}

/// Edits every request independently, each starting from the masked, unedited model.
///
/// # Errors
/// When a request does not fit the model.
pub fn edit_all<F: Scalar>(
    model: &Gpt2<F>,
    requests: &[PreparedRequest],
    scope: &IsolatedScope,
    editor: &ClampedSgd,
) -> Result<Vec<EditOutcome>> {
    let start = scope.mask.as_ref().map_or_else(|| model.clone(), |mask| mask.ablate_complement(model));
    let before: Vec<(f64, f64)> =
        requests.par_iter().map(|request| request.nll(&start)).collect::<Result<_>>()?;
    let to_write: Vec<TokenRequest> = requests.iter().map(PreparedRequest::token_request).collect();
    editor.fine_tune_each(&start, &to_write, scope.mask.as_ref(), |i, edited, report| {
        let request = &requests[i];
        let (pre_new, pre_true) = before[i];
        let nll = edited.nll_per_token(&request.targets(model.config())?);
        Ok(EditOutcome {
            preset: scope.preset.clone(),
            task: scope.task.clone(),
            target_density: scope.target_density,
            scope: scope.scope,
            case_id: request.case_id,
            level: request.level,
            pre_new,
            pre_true,
            post_new: nll[0],
            post_true: nll[1],
            steps: report.steps,
        })
    })
}
