//! Requests written one after the other into one model, and how success and damage grow (`locus edit --sequential`).

use anyhow::{Context, Result};
use locus_editors::{Delta, Edit, EditHistory, EditMemory, Editor, Error, Patch, Report};
use locus_gpt2::{Gpt2, ParamMask, PromptTargets, Scalar, compiled};
use rayon::prelude::*;
use serde::Serialize;

use crate::benchmark::{Case, Observation};
use crate::editors::mean_nll;
use crate::write::{Group, Written};

/// Numbers of edits after which a sequence is measured; from there on 100, 500, 1000 and so on.
const MEASURED_AFTER: [usize; 3] = [1, 10, 50];

/// State of a model after some edits of a sequence. NLLs are means per token, in nats.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct GrowthPoint {
    /// Number of requests written so far, refused ones included.
    pub edits: usize,
    /// Share of them whose new target is more probable than the true one; `None` when none has a true target.
    pub over_true: Option<f64>,
    /// Share of them whose new target is more probable than before the sequence.
    pub raised: f64,
    /// Mean NLL of their new targets.
    pub nll_new: f64,
    /// Increase of the NLL of neutral text; `None` without text.
    pub drift: Option<f64>,
}

/// A finished sequence.
#[derive(Clone, Debug)]
pub struct Sequence<F> {
    /// The change from the first model to the last: of low rank where every edit is, up to rounding then.
    pub patch: Patch<F>,
    /// The model with all edits.
    pub model: Gpt2<F>,
    /// Every request, measured before the first edit and after the last.
    pub written: Vec<Written>,
    /// Success of all edits so far and damage, after more and more edits.
    pub growth: Vec<GrowthPoint>,
}

/// Called after each group, with why the editor refused it if it did.
type Step<'a> = &'a mut dyn FnMut(&[Case], Option<&Error>);

/// Writes groups of requests in turn, each into the model that the earlier ones left; the editor remembers what it has
/// to of them ([`Editor::edit_after`]). A group that is refused as unstable leaves model and memory as they were.
/// Success and damage are measured after 1, 10, 50, 100, 500, 1000, ... requests and after the last, each time with the
/// first group that reaches the number.
///
/// # Errors
/// When there is no request, one does not fit the model, which is checked of all before the first is written, or the
/// editor fails otherwise.
pub fn write_sequence<F: Scalar>(
    start: &Gpt2<F>,
    editor: &dyn Editor<F>,
    groups: &[Group],
    mask: Option<&ParamMask>,
    neutral: Option<&PromptTargets<F>>,
    step: Step,
) -> Result<Sequence<F>> {
    F::run::<SequenceJob>((start, editor, groups, mask, neutral, step))
}

type SequenceIn<'a, F> = (
    &'a Gpt2<F>,
    &'a dyn Editor<F>,
    &'a [Group<'a>],
    Option<&'a ParamMask>,
    Option<&'a PromptTargets<F>>,
    Step<'a>,
);

compiled!(SequenceJob<'a>: <F> SequenceIn<'a, F> => Result<Sequence<F>>, write_in_turn);

fn write_in_turn<F: Scalar>(
    (start, editor, groups, mask, neutral, step): SequenceIn<F>,
) -> Result<Sequence<F>> {
    for &(requests, facts) in groups {
        for (request, fact) in requests.iter().zip(facts) {
            fact.check(start.config()).with_context(|| format!("request {}", request.case_id))?;
        }
    }
    let requests: Vec<&Case> = groups.iter().flat_map(|&(requests, _)| requests).collect();
    anyhow::ensure!(!requests.is_empty(), "there is no request to write; expected at least one");
    let before = measure(&requests, start)?;
    let neutral = neutral.map(|text| (text, mean_nll(start, text)));
    let mut history = EditHistory::new(start.clone());
    // A patch of low rank is as small as its edits; dense ones would fill the memory, so the history forgets them.
    let mut low_rank = true;
    let mut memory = EditMemory::new();
    let mut reports = Vec::with_capacity(requests.len());
    let mut growth: Vec<GrowthPoint> = Vec::new();
    let mut after = before.clone();
    for (i, &(of_group, facts)) in groups.iter().enumerate() {
        let report = match editor.edit_after(&mut memory, history.model(), facts, mask) {
            Ok(Edit { patch, report }) => {
                low_rank &= patch.deltas().all(|(_, delta)| matches!(delta, Delta::LowRank { .. }));
                if low_rank {
                    history.apply(patch)?;
                } else {
                    history = EditHistory::new(patch.apply(history.model())?);
                }
                step(of_group, None);
                report
            }
            Err(why @ Error::Unstable(_)) => {
                step(of_group, Some(&why));
                Report::default()
            }
            Err(error) => {
                return Err(anyhow::Error::from(error).context(format!("request {}", of_group[0].case_id)));
            }
        };
        let first = reports.len();
        reports.extend(of_group.iter().map(|_| report.clone()));
        let last = i + 1 == groups.len();
        if last || measured_next(first).is_some_and(|next| next <= reports.len()) {
            after = measure(&requests[..reports.len()], history.model())?;
            let drift = neutral.as_ref().map(|(text, nll)| mean_nll(history.model(), text) - nll);
            growth.push(point(&own(&before), &own(&after), drift));
        }
    }
    let patch = match history.merged() {
        Some(merged) if low_rank => merged,
        _ => Patch::between(start, history.model()),
    };
    let written = requests.iter().zip(reports).zip(before.iter().zip(&after)).map(|of_request| {
        let ((request, report), (before, after)) = of_request;
        let Report { steps, measures, .. } = report;
        let (before, after) = (before.clone(), after.clone());
        Written { case_id: request.case_id, before, after, steps, measures }
    });
    let written = written.collect();
    Ok(Sequence { patch, model: history.model().clone(), written, growth })
}

/// The first number of edits above `done` after which a sequence is measured.
fn measured_next(done: usize) -> Option<usize> {
    let powers = (2..).map_while(|power| 10usize.checked_pow(power));
    let later = powers.flat_map(|n| [n, n.saturating_mul(5)]);
    MEASURED_AFTER.into_iter().chain(later).find(|&n| n > done)
}

fn measure<F: Scalar>(requests: &[&Case], model: &Gpt2<F>) -> Result<Vec<Observation>> {
    requests.par_iter().map(|request| request.observe(model, None)).collect()
}

/// NLLs of the new and the true target of a request.
type Nlls = (f64, Option<f64>);

/// NLLs of the answers to the requests' own prompts.
fn own(observations: &[Observation]) -> Vec<Nlls> {
    let own = observations.iter().map(|observation| &observation.answers[0].nll);
    own.map(|nll| (nll[0], nll.get(1).copied())).collect()
}

fn point(before: &[Nlls], after: &[Nlls], drift: Option<f64>) -> GrowthPoint {
    let n = after.len() as f64;
    let share = |wins: usize, of: usize| wins as f64 / of as f64;
    let with_true: Vec<bool> =
        after.iter().filter_map(|(new, known)| known.map(|known| *new < known)).collect();
    let over_true = with_true.iter().filter(|&&wins| wins).count();
    let raised = after.iter().zip(before).filter(|(after, before)| after.0 < before.0).count();
    GrowthPoint {
        edits: after.len(),
        over_true: (!with_true.is_empty()).then(|| share(over_true, with_true.len())),
        raised: share(raised, after.len()),
        nll_new: after.iter().map(|(new, _)| new).sum::<f64>() / n,
        drift,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sequence_is_measured_at_round_numbers() {
        let mut found = vec![0];
        while found.len() < 9 {
            found.extend(measured_next(*found.last().unwrap()));
        }
        assert_eq!(found, [0, 1, 10, 50, 100, 500, 1000, 5000, 10_000]);
        assert_eq!((measured_next(49), measured_next(51)), (Some(50), Some(100)));
        assert_eq!(measured_next(usize::MAX), None);
    }

    #[test]
    fn shares_count_what_they_say() {
        let before = [(3.0, Some(1.0)), (3.0, None), (3.0, Some(1.0)), (3.0, Some(1.0))];
        let after = [(0.5, Some(2.0)), (2.0, None), (2.5, Some(2.0)), (3.0, Some(4.0))];
        let point = point(&before, &after, None);
        assert_eq!((point.edits, point.over_true, point.raised), (4, Some(2.0 / 3.0), 0.75));
        assert_eq!(point.nll_new, 2.0);
        assert_eq!(super::point(&[(1.0, None)], &[(1.0, None)], None).over_true, None);
    }
}
