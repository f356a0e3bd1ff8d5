//! Evaluation of an edit by CounterFact's measures: efficacy, paraphrase and neighbourhood.
//!
//! A case has two targets: `o*`, which is written, and `o`, which was true before. With `P` from the mean NLL per
//! target token (as in the released code):
//!
//! | measure | prompts | success | magnitude |
//! |---|---|---|---|
//! | efficacy (ES, EM) | the one that is written | share with `P(o*) > P(o)` | mean of `P(o*) - P(o)` |
//! | paraphrase (PS, PM) | the same fact in other words | share with `P(o*) > P(o)` | mean of `P(o*) - P(o)` |
//! | neighbourhood (NS, NM) | about other subjects | share with `P(o) > P(o*)` | mean of `P(o) - P(o*)` |
//!
//! Source: Meng et al. 2022 (arXiv 2202.05262), section 3.3.

use locus_gpt2::{Gpt2, PromptTargets, Scalar, Tokenizer, compiled};
use locus_metrics::editing::{Outcome, new_wins, true_holds};

use crate::error::{Error, Result};
use crate::fact::Fact;

/// A fact to write, and the prompts on which its edit is judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EditCase {
    /// The fact that is written.
    pub fact: Fact,
    /// Tokens of the target that was true before.
    pub target_true: Vec<u32>,
    /// Tokens of prompts that state the fact in other words.
    pub paraphrases: Vec<Vec<u32>>,
    /// Tokens of prompts about other subjects, for which the true target is right and should stay so.
    pub neighbourhood: Vec<Vec<u32>>,
}

/// Mean NLLs per target token, in nats, after every prompt of a case: `[new target, true target]`.
#[derive(Clone, Debug, PartialEq)]
pub struct CaseNlls {
    /// After the prompt that is written.
    pub rewrite: [f64; 2],
    /// After the paraphrases.
    pub paraphrases: Vec<[f64; 2]>,
    /// After the neighbourhood prompts.
    pub neighbourhood: Vec<[f64; 2]>,
}

/// The three measures on one model.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EditScores {
    /// Efficacy (ES and EM).
    pub efficacy: Outcome,
    /// Paraphrase (PS and PM); `None` without paraphrases.
    pub paraphrase: Option<Outcome>,
    /// Neighbourhood (NS and NM); `None` without neighbourhood prompts.
    pub neighbourhood: Option<Outcome>,
}

/// The measures on the model as it was and as edited.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EditEvaluation {
    /// Scores of the unedited model.
    pub before: EditScores,
    /// Scores of the edited model.
    pub after: EditScores,
}

/// Measures an edit: the scores of a case on the model as it was and as edited.
///
/// # Errors
/// When a prompt or target does not fit the model, or an NLL is not a number.
pub fn evaluate_edit<F: Scalar>(
    model: &Gpt2<F>,
    edited: &Gpt2<F>,
    case: &EditCase,
) -> Result<EditEvaluation> {
    Ok(EditEvaluation { before: case.nlls(model)?.scores()?, after: case.nlls(edited)?.scores()? })
}

impl EditCase {
    /// Makes a case from text. White space around prompts and target is dropped, as in [`Fact::from_text`]; the true
    /// target is tokenised with a space before it.
    ///
    /// # Errors
    /// When a text gives no token.
    pub fn from_text(
        tokenizer: &Tokenizer,
        fact: Fact,
        target_true: &str,
        paraphrases: &[impl AsRef<str>],
        neighbourhood: &[impl AsRef<str>],
    ) -> Result<Self> {
        let prompt = |text: &str| Ok(tokenizer.encode_some("prompt", text.trim())?);
        Ok(EditCase {
            fact,
            target_true: tokenizer.encode_some("target_true", &format!(" {}", target_true.trim()))?,
            paraphrases: paraphrases.iter().map(|text| prompt(text.as_ref())).collect::<Result<_>>()?,
            neighbourhood: neighbourhood.iter().map(|text| prompt(text.as_ref())).collect::<Result<_>>()?,
        })
    }

    /// NLLs of both targets after every prompt, in one pass.
    ///
    /// # Errors
    /// When a prompt or target does not fit the model.
    pub fn nlls<F: Scalar>(&self, model: &Gpt2<F>) -> Result<CaseNlls> {
        F::run::<NllsJob>((self, model))
    }
}

compiled!(NllsJob<'a>: <F> (&'a EditCase, &'a Gpt2<F>) => Result<CaseNlls>, nlls);

fn nlls<F: Scalar>((case, model): (&EditCase, &Gpt2<F>)) -> Result<CaseNlls> {
    let EditCase { fact, target_true, paraphrases, neighbourhood } = case;
    let prompts = [&fact.contexts[0].tokens].into_iter().chain(paraphrases).chain(neighbourhood);
    let pairs: Vec<_> = prompts.flat_map(|prompt| [(prompt, &fact.target), (prompt, target_true)]).collect();
    let nll = PromptTargets::prefix_sharing(model.config(), &pairs)?.nll_per_token(model);
    let mut pairs = nll.chunks(2).map(|pair| [pair[0], pair[1]]);
    Ok(CaseNlls {
        rewrite: pairs.next().expect("the prompt that is written is the first"),
        paraphrases: pairs.by_ref().take(paraphrases.len()).collect(),
        neighbourhood: pairs.collect(),
    })
}

impl CaseNlls {
    /// Success and magnitude of each kind of prompt.
    ///
    /// # Errors
    /// When an NLL is not a number.
    pub fn scores(&self) -> Result<EditScores> {
        let CaseNlls { rewrite, paraphrases, neighbourhood } = self;
        if [rewrite].into_iter().chain(paraphrases).chain(neighbourhood).flatten().any(|nll| nll.is_nan()) {
            return Err(Error::Unstable("an NLL after the edit is not a number".into()));
        }
        Ok(EditScores {
            efficacy: new_wins(&[*rewrite]).expect("one prompt with two NLLs"),
            paraphrase: new_wins(paraphrases),
            neighbourhood: true_holds(neighbourhood),
        })
    }
}
