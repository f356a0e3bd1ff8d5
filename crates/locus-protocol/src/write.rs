//! Requests written by any editor, one by one or in groups, and measured before and after (`locus edit`).

use anyhow::{Context, Result, bail};
use locus_editors::{Edit, Editor, Error, Fact, Patch, Report};
use locus_gpt2::{Gpt2, ParamMask, Scalar, compiled};
use rayon::prelude::*;

use crate::benchmark::{Case, Observation};

/// Requests that are written together into one model, with the fact that the editor is given for each.
pub type Group<'a> = (&'a [Case], &'a [Fact]);

/// One request before and after an edit.
#[derive(Clone, Debug, PartialEq)]
pub struct Written {
    /// Number of the request.
    pub case_id: u64,
    /// Answers before.
    pub before: Observation,
    /// Answers after.
    pub after: Observation,
    /// Optimiser steps taken.
    pub steps: usize,
    /// Norms, denominators and residuals of the method, by name, as in the editor's report.
    pub measures: Vec<(String, f64)>,
}

/// Outcome of writing a group: the patch with the patched model, or why the editor refused.
pub type Outcome<'a, F> = Result<(Patch<F>, &'a Gpt2<F>), Error>;

type Done<'a, F> = &'a (dyn Fn(&[Case], Outcome<F>) -> Result<()> + Sync);

/// Why a result can be no number.
pub const OVERFLOW: &str = "the model's states are beyond the number type's range";

/// Writes every group into `start`, independently of the others, and measures its requests. `done` is called with each
/// group as it is finished. After an edit that was refused as unstable the model stays as it was, and the answers
/// after it are those before.
///
/// # Errors
/// When a request does not fit the model or has an NLL that is not finite, which is checked of all before the first is
/// written; when the editor fails otherwise, or `done` does.
pub fn write_groups<F: Scalar>(
    start: &Gpt2<F>,
    editor: &dyn Editor<F>,
    groups: &[Group],
    mask: Option<&ParamMask>,
    done: Done<F>,
) -> Result<Vec<Written>> {
    F::run::<WriteJob>((start, editor, groups, mask, done))
}

type WriteIn<'a, F> = (&'a Gpt2<F>, &'a dyn Editor<F>, &'a [Group<'a>], Option<&'a ParamMask>, Done<'a, F>);

compiled!(WriteJob<'a>: <F> WriteIn<'a, F> => Result<Vec<Written>>, write_all);

fn write_all<F: Scalar>((start, editor, groups, mask, done): WriteIn<F>) -> Result<Vec<Written>> {
    for (requests, facts) in groups {
        for (request, fact) in requests.iter().zip(*facts) {
            fact.check(start.config()).with_context(|| format!("request {}", request.case_id))?;
        }
    }
    let measure = |(requests, _): &Group| -> Result<Vec<Observation>> {
        requests
            .iter()
            .map(|request| {
                let before = request.observe(start, None)?;
                let mut nlls = before.answers.iter().flat_map(|answer| &answer.nll);
                if let Some(nll) = nlls.find(|nll| !nll.is_finite()) {
                    bail!("request {}: the NLL before the edit is {nll}; {OVERFLOW}", request.case_id);
                }
                Ok(before)
            })
            .collect()
    };
    let before: Vec<_> = groups.par_iter().map(measure).collect::<Result<_>>()?;
    let write = |(&(requests, facts), before): (&Group, &Vec<Observation>)| -> Result<Vec<Written>> {
        let (edited, report) = match editor.edit(start, facts, mask) {
            Ok(Edit { patch, report }) => {
                let edited = patch.apply(start)?;
                let finite = |id| edited.get(id).iter().all(|weight| weight.is_finite());
                if patch.deltas().all(|(id, _)| finite(id)) {
                    done(requests, Ok((patch, &edited)))?;
                    (edited, report)
                } else {
                    // No reader would take the patch.
                    done(requests, Err(Error::Unstable("weights are no longer finite".into())))?;
                    (start.clone(), Report::default())
                }
            }
            Err(why @ Error::Unstable(_)) => {
                done(requests, Err(why))?;
                (start.clone(), Report::default())
            }
            Err(error) => {
                return Err(anyhow::Error::from(error).context(format!("request {}", requests[0].case_id)));
            }
        };
        requests
            .iter()
            .zip(before)
            .map(|(request, before)| {
                let (before, after) = (before.clone(), request.observe(&edited, None)?);
                let (case_id, steps, measures) = (request.case_id, report.steps, report.measures.clone());
                Ok(Written { case_id, before, after, steps, measures })
            })
            .collect()
    };
    let written: Vec<Vec<Written>> = groups.par_iter().zip(&before).map(write).collect::<Result<_>>()?;
    Ok(written.into_iter().flatten().collect())
}
