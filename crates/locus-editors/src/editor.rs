//! The trait of all editors, and what they return.

use locus_gpt2::{Config, Gpt2, ParamMask, PromptTargets, Scalar, compiled};

use crate::error::Result;
use crate::fact::Fact;
use crate::memory::EditMemory;
use crate::patch::{EditHistory, Patch};

/// Writes facts into a model.
pub trait Editor<F: Scalar>: Sync {
    /// The name used in files and on the command line.
    fn name(&self) -> &'static str;

    /// Writes `facts`; of the block parameters, only those inside `mask` change when there is one. The model passed in
    /// stays as it is. An editor that writes one fact at a time writes each into the model that the previous one left.
    ///
    /// # Errors
    /// When a constant is out of its range, a fact or the mask does not fit the model or the edit would damage it.
    fn edit(&self, model: &Gpt2<F>, facts: &[Fact], mask: Option<&ParamMask>) -> Result<Edit<F>>;

    /// Writes `facts` into a model that holds the edits of `memory`, and adds to it what later edits have to know of
    /// this one. With an empty memory, this is [`Editor::edit`]; an editor that remembers nothing leaves it empty.
    ///
    /// # Errors
    /// As [`Editor::edit`], and when the memory is of a model of another width; the memory then stays as it was.
    fn edit_after(
        &self,
        memory: &mut EditMemory,
        model: &Gpt2<F>,
        facts: &[Fact],
        mask: Option<&ParamMask>,
    ) -> Result<Edit<F>> {
        let _ = memory;
        self.edit(model, facts, mask)
    }
}

/// Arguments of [`Editor::edit`] as one value: editor, model, facts, mask.
pub(crate) type EditInput<'a, E, F> = (&'a E, &'a Gpt2<F>, &'a [Fact], Option<&'a ParamMask>);

/// Result of an editor: a patch and a report.
#[derive(Clone, Debug)]
pub struct Edit<F> {
    /// The change.
    pub patch: Patch<F>,
    /// Report on how the change came about.
    pub report: Report,
}

/// Report on how an edit came about.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// Loss at the start of each step, in nats: the mean over facts that are written together, in which a fact that was
    /// done earlier counts with its last loss; of facts written one by one, that of the last.
    pub losses: Vec<f64>,
    /// Optimiser steps taken; of several facts, the largest number.
    pub steps: usize,
    /// Mean NLL per target token after the bare prompts, in nats, before the edit.
    pub nll_before: f64,
    /// Mean NLL per target token after the bare prompts, in nats, after the edit.
    pub nll_after: f64,
    /// Norms, denominators and residuals of the method, by name; of the last fact where facts are written one by one.
    pub measures: Vec<(String, f64)>,
}

impl Report {
    /// Makes an edit of this report and a patch, measuring the NLLs of the bare prompts before and after: the last
    /// thing an editor does.
    ///
    /// # Errors
    /// When a fact does not fit the model or the patch does not belong to it.
    pub fn into_edit<F: Scalar>(self, model: &Gpt2<F>, patch: Patch<F>, facts: &[Fact]) -> Result<Edit<F>> {
        F::run::<IntoEditJob>((self, model, patch, facts))
    }

    /// Mean over facts of curves of different lengths: a curve that has ended counts with its last value.
    pub(crate) fn mean_curve(curves: &[&[f64]]) -> Vec<f64> {
        let longest = curves.iter().map(|curve| curve.len()).max().unwrap_or(0);
        let at = |step: usize| curves.iter().map(|curve| curve[step.min(curve.len() - 1)]).sum::<f64>();
        (0..longest).map(|step| at(step) / curves.len() as f64).collect()
    }
}

compiled!(IntoEditJob<'a>: <F> (Report, &'a Gpt2<F>, Patch<F>, &'a [Fact]) => Result<Edit<F>>, into_edit);

fn into_edit<F: Scalar>(
    (mut report, model, patch, facts): (Report, &Gpt2<F>, Patch<F>, &[Fact]),
) -> Result<Edit<F>> {
    facts.iter().try_for_each(|fact| fact.check(model.config()))?;
    let pairs: Vec<_> =
        facts.iter().map(|fact| (fact.contexts[0].tokens.as_slice(), fact.target.as_slice())).collect();
    let packed = PromptTargets::new(model.config(), &pairs)?;
    let mean = |model: &Gpt2<F>| {
        let nll = packed.nll_per_token(model);
        nll.iter().sum::<f64>() / nll.len() as f64
    };
    report.nll_before = mean(model);
    report.nll_after = mean(&patch.apply(model)?);
    Ok(Edit { patch, report })
}

/// Checks that a mask, if there is one, belongs to a model of this shape.
pub(crate) fn check_mask(mask: Option<&ParamMask>, config: &Config) -> Result<()> {
    mask.map_or(Ok(()), |mask| Ok(mask.check(config)?))
}

/// Function that writes one fact into a model: returns the change, which belongs to that model, and how it came about.
pub type WriteFact<'a, F> = &'a mut dyn FnMut(&Gpt2<F>, &Fact) -> Result<(Patch<F>, Report)>;

/// Writes facts one after the other, each into the model that the previous one left, and merges the patches. Curves and
/// measures of the report are those of the last fact.
///
/// # Errors
/// When a fact does not fit the model or `write` fails.
pub fn edit_one_by_one<F: Scalar>(
    model: &Gpt2<F>,
    facts: &[Fact],
    write: WriteFact<'_, F>,
) -> Result<Edit<F>> {
    let mut history = EditHistory::new(model.clone());
    let mut report = Report::default();
    for fact in facts {
        fact.check(model.config())?;
        let (patch, latest) = write(history.model(), fact)?;
        history.apply(patch)?;
        report = Report { steps: report.steps.max(latest.steps), ..latest };
    }
    let patch = history.merged().unwrap_or_else(|| Patch::between(model, model));
    report.into_edit(model, patch, facts)
}
