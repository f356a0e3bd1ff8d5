//! The study's requests: tokenised, with the prompts and targets that an edit is judged on, and their connected
//! components.

use anyhow::{Context, Result};
use locus_data::EditRequest;
use locus_data::groups::{connected, entity};
use locus_editors::TokenRequest;
use locus_gpt2::{Config, Gpt2, PromptTargets, Scalar, Tokenizer, compiled};

use crate::records::{Level, RequestInfo, Wording};

/// Other requests' targets that a true target is compared with, at most.
const OTHERS: usize = 20;

/// A request with its prompt and both targets tokenised.
#[derive(Clone, Debug)]
pub struct PreparedRequest {
    /// Number of the request.
    pub case_id: u64,
    /// Level in the hierarchy: even cases are hyponyms, odd ones hypernyms.
    pub level: Level,
    pub(crate) prompt: Vec<u32>,
    pub(crate) target_new: Vec<u32>,
    pub(crate) target_true: Option<Vec<u32>>,
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
            target_true: request.target_true.as_ref().map(|text| target("target_true", text)).transpose()?,
        })
    }

    /// The request behind a token, such as that of the beginning of a text.
    #[must_use]
    pub fn after(mut self, token: u32) -> Self {
        self.prompt.insert(0, token);
        self
    }

    /// Checks that the prompt with either target fits a model.
    ///
    /// # Errors
    /// When it is longer than the context or a token is unknown.
    pub fn check(&self, config: &Config) -> Result<()> {
        self.targets::<f32>(config).map(|_| ())
    }

    /// Mean NLL per token, in nats, of the new and, if there is one, of the true target.
    ///
    /// # Errors
    /// When the request does not fit the model's context.
    pub fn nll<F: Scalar>(&self, model: &Gpt2<F>) -> Result<(f64, Option<f64>)> {
        let nll = F::run::<NllJob>((self, model))?;
        Ok((nll[0], nll.get(1).copied()))
    }

    /// The prompt with the new target, and with the true one.
    fn targets<F: Scalar>(&self, config: &Config) -> Result<PromptTargets<F>> {
        let targets = [&self.target_new].into_iter().chain(&self.target_true);
        let pairs: Vec<_> = targets.map(|target| (&self.prompt, target)).collect();
        PromptTargets::new(config, &pairs).with_context(|| format!("request {}", self.case_id))
    }

    /// Tokens of the prompt.
    pub fn prompt(&self) -> &[u32] {
        &self.prompt
    }

    /// Tokens of the new target.
    pub fn target_new(&self) -> &[u32] {
        &self.target_new
    }

    /// Tokens of the true target; `None` when the request states none.
    pub fn target_true(&self) -> Option<&[u32]> {
        self.target_true.as_deref()
    }

    /// The request as an editor takes it.
    pub fn token_request(&self) -> TokenRequest {
        TokenRequest { prompt: self.prompt.clone(), target: self.target_new.clone() }
    }
}

/// A request with everything that its edit is judged on, as tokens.
#[derive(Clone, Debug)]
pub struct StudyRequest {
    /// The prompt with both targets.
    pub request: PreparedRequest,
    /// Prompt and targets in words; `None` without a true target.
    pub wording: Option<Wording>,
    /// Tokens of the true target.
    pub target_true: Vec<u32>,
    /// Component of requests that share entities.
    pub component: usize,
    /// Prompts that ask for the fact in other words.
    pub paraphrases: Vec<Vec<u32>>,
    /// Prompts about other subjects with the same true target.
    pub neighbourhood: Vec<Vec<u32>>,
    /// True targets of other requests of the same level, evenly spread over the file.
    pub others: Vec<Vec<u32>>,
}

impl StudyRequest {
    /// Tokenises requests.
    ///
    /// # Errors
    /// When a prompt or target gives no token, or a request has no true target.
    pub fn prepare(tokenizer: &Tokenizer, requests: &[EditRequest]) -> Result<Vec<Self>> {
        let prepared: Vec<PreparedRequest> =
            requests.iter().map(|request| PreparedRequest::new(tokenizer, request)).collect::<Result<_>>()?;
        let components = components(requests);
        requests
            .iter()
            .zip(&prepared)
            .zip(components)
            .map(|((text, request), component)| {
                let prompts = |field: &str, prompts: &[String]| -> Result<Vec<Vec<u32>>> {
                    let tokens = |prompt: &String| Ok(tokenizer.encode_some(field, prompt)?);
                    prompts.iter().map(tokens).collect::<Result<_>>()
                };
                let at = || format!("request {}", text.case_id);
                let target_true = request.target_true.clone().context("target_true is missing");
                Ok(StudyRequest {
                    request: request.clone(),
                    wording: text.target_true.clone().map(|target_true| Wording {
                        prompt: text.full_prompt(),
                        target_new: text.target_new.clone(),
                        target_true,
                    }),
                    target_true: target_true.with_context(at)?,
                    component,
                    paraphrases: prompts("paraphrase", &text.paraphrase_prompts).with_context(at)?,
                    neighbourhood: prompts("neighbourhood", &text.neighborhood_prompts).with_context(at)?,
                    others: others(request, &prepared),
                })
            })
            .collect()
    }

    /// What the records say of the request.
    pub fn info(&self) -> RequestInfo {
        let PreparedRequest { case_id, level, .. } = self.request;
        RequestInfo { case_id, level, component: self.component, wording: self.wording.clone() }
    }
}

/// True targets of other requests of a request's level that are neither of its own targets, each once.
fn others(request: &PreparedRequest, all: &[PreparedRequest]) -> Vec<Vec<u32>> {
    let mut targets: Vec<&[u32]> = Vec::new();
    for other in all.iter().filter(|other| other.level == request.level) {
        let Some(target) = other.target_true() else { continue };
        let own = Some(target) == request.target_true() || target == request.target_new();
        if !own && !targets.contains(&target) {
            targets.push(target);
        }
    }
    let n = targets.len().min(OTHERS);
    (0..n).map(|i| targets[i * targets.len() / n].to_vec()).collect()
}

/// The connected component of each request: requests are connected when a subject or true target of one is a subject or
/// true target of the other, articles and case aside. Components are numbered in the order of their first request.
pub fn components(requests: &[EditRequest]) -> Vec<usize> {
    let entities = requests.iter().map(|request| {
        let texts = [&request.subject].into_iter().chain(&request.target_true);
        texts.map(|text| entity(text)).collect::<Vec<_>>()
    });
    connected(&entities.collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(case_id: u64, subject: &str, target_true: &str) -> EditRequest {
        EditRequest {
            case_id,
            prompt: "{} is a kind of".into(),
            subject: subject.into(),
            target_new: "stone".into(),
            target_true: Some(target_true.into()),
            paraphrase_prompts: Vec::new(),
            neighborhood_prompts: Vec::new(),
        }
    }

    #[test]
    fn requests_with_an_entity_in_common_are_one_component() {
        let requests = [
            request(0, "A British Shorthair", "cat"),
            request(1, "A cat", "animal"),
            request(2, "An oak", "tree"),
            request(3, "The Tree", "plant"),
            request(4, "A dog", "Animal"),
        ];
        assert_eq!(components(&requests), [0, 0, 1, 1, 0]);
        assert_eq!(components(&[]), Vec::<usize>::new());
    }

    #[test]
    fn two_components_that_meet_late_become_one() {
        let requests =
            [request(0, "a", "b"), request(1, "c", "d"), request(2, "e", "f"), request(3, "b", "c")];
        assert_eq!(components(&requests), [0, 0, 1, 0]);
    }
}
