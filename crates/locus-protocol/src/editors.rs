//! Comparison of editors (X2): every request written by every editor in every scope, and what else changed.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use anyhow::{Context, Result};
use locus_data::EditRequest;
use locus_data::seed::stream;
use locus_editors::{
    CaseNlls, EditCase, Editor, Error, Fact, Hparams, KeyCovariance, KeyStatistics, MemitEditor, Patch,
    RomeEditor, TargetVector, token_lines,
};
use locus_gpt2::{Checkpoint, Gpt2, ParamMask, PromptTargets, Scalar, Tokenizer};
use rayon::prelude::*;

use crate::editor_table::{Constants, NamedEditor};
use crate::records::{EditorOutcome, Scope, UNEDITED};

/// Suffix of the name of an editor that writes all requests at once.
const AT_ONCE: &str = ", all at once";
/// Minimum number of tokens of neutral text that drift is measured on.
pub const DRIFT_TOKENS: usize = 1000;

/// Texts to put before prompts when keys and target vectors are computed: [`PREFIXES`](locus_editors::PREFIXES) for
/// GPT-2's tokenizer, otherwise texts that the model generates from the seed.
///
/// # Errors
/// When the tokenizer has no end-of-text token to begin with.
pub fn prefixes<F: Scalar>(checkpoint: &Checkpoint<F>, seed: u64) -> Result<Vec<String>> {
    Ok(locus_editors::prefixes(checkpoint, rand::Rng::next_u64(&mut stream(seed, "prefixes", 0)))?)
}

/// A request as tokens: the fact to write and the prompts to measure on.
#[derive(Clone, Debug)]
struct Prepared {
    case_id: u64,
    case: EditCase,
}

impl Prepared {
    fn new(tokenizer: &Tokenizer, request: &EditRequest, prefixes: &[String]) -> Result<Self> {
        let at = || format!("request {}", request.case_id);
        let EditRequest { prompt, subject, target_new, paraphrase_prompts, neighborhood_prompts, .. } =
            request;
        let fact = Fact::from_text(tokenizer, prompt, subject, target_new, prefixes).with_context(at)?;
        let true_before =
            request.target_true.as_deref().context("target_true is missing").with_context(at)?;
        let case =
            EditCase::from_text(tokenizer, fact, true_before, paraphrase_prompts, neighborhood_prompts);
        Ok(Prepared { case_id: request.case_id, case: case.with_context(at)? })
    }
}

/// The ways in which editors of the comparison write.
enum Writer<F> {
    Tuning(Box<dyn Editor<F>>),
    Rome(RomeEditor),
    Memit(MemitEditor),
    MemitAtOnce(MemitEditor),
}

/// An editor of the comparison with its facts and, once they have been needed, its target vectors.
pub struct Ready<F> {
    name: String,
    writer: Writer<F>,
    facts: Vec<Fact>,
    values: OnceLock<Vec<TargetVector<F>>>,
}

impl<F: Scalar> Ready<F> {
    fn values(&self, model: &Gpt2<F>) -> Result<&[TargetVector<F>]> {
        if self.values.get().is_none() {
            let values = match &self.writer {
                Writer::Tuning(_) => Vec::new(),
                Writer::Rome(rome) => rome.target_vectors(model, &self.facts)?,
                Writer::Memit(memit) | Writer::MemitAtOnce(memit) => {
                    memit.target_vectors(model, &self.facts)?
                }
            };
            // If another thread was first, its values are the same.
            let _ = self.values.set(values);
        }
        Ok(self.values.get().expect("just set"))
    }
}

/// Scope of an edit in the intact model: parameters outside of it keep their values.
#[derive(Clone, Debug)]
pub struct WritableScope {
    /// Kind of scope.
    pub scope: Scope,
    /// Density of the circuit it is made from; 1 for the whole model.
    pub target_density: f64,
    /// The block parameters that may change; `None` means all of them.
    pub mask: Option<ParamMask>,
}

/// Neutral text on which the drift of edits is measured: the first lines of `text`.
///
/// # Errors
/// When a line cannot be tokenised or none has two tokens.
pub fn drift_text<F: Scalar>(checkpoint: &Checkpoint<F>, text: &str) -> Result<PromptTargets<F>> {
    let lines = token_lines(checkpoint, text, DRIFT_TOKENS)?;
    // The first token of a line is the prompt, all others are targets.
    let lines: Vec<_> = lines.iter().filter(|line| line.len() > 1).map(|line| line.split_at(1)).collect();
    anyhow::ensure!(!lines.is_empty(), "the neutral text has no line of two tokens or more");
    Ok(PromptTargets::prefix_sharing(checkpoint.model.config(), &lines)?)
}

/// Names of the editors of the comparison, in the order of the table.
pub const COMPARED: [&str; 5] = ["study-ft", "ft-m", "r-rome", "memit", "memit, all at once"];

/// Requests, text and statistics made ready for all editors.
pub struct Comparison<'a, F> {
    model: &'a Gpt2<F>,
    requests: Vec<Prepared>,
    covariances: BTreeMap<usize, Arc<KeyCovariance>>,
    hparams: Hparams,
    /// Text on which drift is measured.
    neutral: PromptTargets<F>,
    /// Mean NLL per token of that text before editing, in nats.
    neutral_before: f64,
}

impl<'a, F: Scalar> Comparison<'a, F> {
    /// Tokenises the requests and the neutral text on which drift is measured, and collects key statistics over `text`.
    ///
    /// # Errors
    /// When a request cannot be edited or the text is too short for statistics.
    pub fn new(
        checkpoint: &'a Checkpoint<F>,
        requests: &[EditRequest],
        text: &str,
        neutral: &str,
        hparams: &Hparams,
        seed: u64,
    ) -> Result<Self> {
        let Checkpoint { model, tokenizer } = checkpoint;
        let prefixes = prefixes(checkpoint, seed)?;
        let requests = requests
            .iter()
            .map(|request| Prepared::new(tokenizer, request, &prefixes))
            .collect::<Result<Vec<_>>>()?;
        let neutral = drift_text(checkpoint, neutral)?;
        let mut ridges = BTreeMap::new();
        for name in COMPARED {
            let (layers, ridge) = constants(name, hparams)?.0.statistics();
            ridges.extend(layers.into_iter().map(|layer| (layer, ridge)));
        }
        let layers: Vec<usize> = ridges.keys().copied().collect();
        let covariances = KeyStatistics::from_text(checkpoint, &layers, text)?
            .layers
            .iter()
            .map(|(layer, moments)| Ok((*layer, Arc::new(moments.covariance(ridges[layer])?))))
            .collect::<Result<_>>()?;
        let neutral_before = mean_nll(model, &neutral);
        Ok(Comparison { model, requests, covariances, hparams: hparams.clone(), neutral, neutral_before })
    }

    /// Measures every request on the unedited model.
    ///
    /// # Errors
    /// When a request does not fit the model.
    pub fn unedited(&self) -> Result<Vec<EditorOutcome>> {
        let scope = WritableScope { scope: Scope::Full, target_density: 1.0, mask: None };
        let measure = |request| self.measure(UNEDITED, &scope, request, Some(self.model), 0.0);
        self.requests.par_iter().map(measure).collect()
    }

    /// Prepares an editor by its name in the table of editors, which for MEMIT and AlphaEdit may be followed by
    /// ", all at once". Target vectors of ROME and MEMIT do not depend on the scope; they are found when first needed.
    ///
    /// # Errors
    /// When the name is unknown (the message lists the known ones), or the statistics are missing or cannot be used.
    pub fn prepare(&self, name: &str) -> Result<Ready<F>> {
        let (constants, at_once) = constants(name, &self.hparams)?;
        let contexts = 1 + constants.prefixes();
        let fact = |request: &Prepared| {
            let mut fact = request.case.fact.clone();
            fact.contexts.truncate(contexts);
            fact
        };
        let facts = self.requests.iter().map(fact).collect();
        let covariances = self.covariances.clone();
        let writer = match constants {
            Constants::Rome(rome) => {
                let missing = || format!("no key statistics of layer {}", rome.layer);
                Writer::Rome(rome.with(covariances.get(&rome.layer).with_context(missing)?.clone()))
            }
            Constants::Memit(memit) if at_once => Writer::MemitAtOnce(memit.with(covariances)?),
            Constants::Memit(memit) => Writer::Memit(memit.with(covariances)?),
            tuning => Writer::Tuning(tuning.editor(covariances)?),
        };
        Ok(Ready { name: name.to_owned(), writer, facts, values: OnceLock::new() })
    }

    /// Writes every request in a scope, each into the unedited model, or all together for "all at once".
    ///
    /// # Errors
    /// When a request does not fit the model.
    pub fn run(&self, editor: &Ready<F>, scope: &WritableScope) -> Result<Vec<EditorOutcome>> {
        let Ready { name, writer, facts, .. } = editor;
        let (model, mask) = (self.model, scope.mask.as_ref());
        // A refused edit leaves the model as it was and is marked in the record.
        let done = |patch: locus_editors::Result<Patch<F>>| -> Result<Option<Gpt2<F>>> {
            match patch {
                Ok(patch) => Ok(Some(patch.apply(model)?)),
                Err(Error::Unstable(_)) => Ok(None),
                Err(error) => Err(error.into()),
            }
        };
        let values = editor.values(model)?;
        if let Writer::MemitAtOnce(memit) = writer {
            let edited = done(memit.insert(model, facts, values, mask).map(|edit| edit.patch))?;
            let drift = self.drift(edited.as_ref());
            let measure = |request| self.measure(name, scope, request, edited.as_ref(), drift);
            return self.requests.par_iter().map(measure).collect();
        }
        self.requests
            .par_iter()
            .enumerate()
            .map(|(i, request)| {
                let fact = &facts[i..i + 1];
                let edited = done(match writer {
                    Writer::Tuning(editor) => editor.edit(model, fact, mask).map(|edit| edit.patch),
                    Writer::Rome(rome) => rome.insert(model, &values[i], mask).map(|(patch, _)| patch),
                    Writer::Memit(memit) | Writer::MemitAtOnce(memit) => {
                        memit.insert(model, fact, &values[i..i + 1], mask).map(|edit| edit.patch)
                    }
                })?;
                self.measure(name, scope, request, edited.as_ref(), self.drift(edited.as_ref()))
            })
            .collect()
    }

    /// Increase of the NLL of the neutral text, in nats per token; 0 after a refused edit.
    fn drift(&self, edited: Option<&Gpt2<F>>) -> f64 {
        edited.map_or(0.0, |edited| mean_nll(edited, &self.neutral) - self.neutral_before)
    }

    fn measure(
        &self,
        editor: &str,
        scope: &WritableScope,
        request: &Prepared,
        edited: Option<&Gpt2<F>>,
        drift: f64,
    ) -> Result<EditorOutcome> {
        let model = edited.unwrap_or(self.model);
        let at = || format!("request {}", request.case_id);
        let CaseNlls { rewrite, paraphrases, neighbourhood } = request.case.nlls(model).with_context(at)?;
        Ok(EditorOutcome {
            editor: editor.to_owned(),
            scope: scope.scope,
            target_density: scope.target_density,
            case_id: request.case_id,
            refused: edited.is_none(),
            rewrite,
            paraphrase: paraphrases,
            neighborhood: neighbourhood,
            drift,
        })
    }
}

/// Constants of an editor of the comparison, and whether it writes all requests at once.
fn constants(name: &str, hparams: &Hparams) -> Result<(Constants, bool)> {
    let (editor, at_once) = name.strip_suffix(AT_ONCE).map_or((name, false), |editor| (editor, true));
    // None of the editors compared draws random numbers, so the seed does not matter.
    let constants = (NamedEditor::find(editor)?.constants)(&|| Ok(hparams.clone()), 0)?;
    let many = matches!(constants, Constants::Memit(_));
    anyhow::ensure!(
        many || !at_once,
        "{editor} cannot write all requests at once; expected memit, alpha-edit or emmet"
    );
    Ok((constants, at_once))
}

/// Mean NLL over all targets, in nats.
pub(crate) fn mean_nll<F: Scalar>(model: &Gpt2<F>, packed: &PromptTargets<F>) -> f64 {
    let nll = model.nll(model.run(&packed.batch).hidden().view(), &packed.targets);
    nll.iter().sum::<f64>() / nll.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_editors_are_refused_with_the_known_names() {
        let hparams = Hparams::default();
        for name in COMPARED {
            assert_eq!(constants(name, &hparams).unwrap().1, name.ends_with(AT_ONCE));
        }
        for unknown in ["memitt", "memit, one by one", ", all at once"] {
            let why = constants(unknown, &hparams).unwrap_err().to_string();
            assert!(why.contains("is no editor; expected one of study-ft, ft, "), "{why}");
        }
        let why = constants("r-rome, all at once", &hparams).unwrap_err().to_string();
        assert_eq!(why, "r-rome cannot write all requests at once; expected memit, alpha-edit or emmet");
    }
}
