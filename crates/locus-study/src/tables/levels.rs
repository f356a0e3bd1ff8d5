//! Requests by level of the hierarchy, each averaged over the masks it was edited with: T7 and C7.

use std::collections::BTreeMap;

use locus_metrics::token::probability;

use super::{
    editing::{change_new, success},
    select::mean,
};
use crate::records::{EditOutcome, Level};

/// One request, averaged over tasks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Request {
    pub(crate) case_id: u64,
    pub(crate) level: Level,
    /// Change of NLL(new); below zero when the edit took.
    pub(crate) change: f64,
    /// Share of the edits after which the new target beats the true one.
    pub(crate) success: f64,
    /// P(new) before the edit: the lower, the more perplexing the request.
    pub(crate) p_new: f64,
}

/// The requests behind some edits, by number.
pub(crate) fn requests(edits: &[&EditOutcome]) -> Vec<Request> {
    let mut by_case: BTreeMap<u64, Vec<&EditOutcome>> = BTreeMap::new();
    for edit in edits {
        by_case.entry(edit.case_id).or_default().push(edit);
    }
    let average = |(case_id, edits): (u64, Vec<&EditOutcome>)| {
        let over = |value: &dyn Fn(&EditOutcome) -> f64| mean(edits.iter().map(|e| value(e)));
        Some(Request {
            case_id,
            level: edits.first()?.level,
            change: over(&change_new)?,
            success: over(&success)?,
            p_new: over(&|e| probability(e.pre_new))?,
        })
    };
    by_case.into_iter().filter_map(average).collect()
}

/// Hyponym requests with the hypernym request above them: cases 2k and 2k + 1 of the data. Lone ones are left
/// out.
pub(crate) fn pairs(requests: &[Request]) -> Vec<(Request, Request)> {
    let mut by_pair: BTreeMap<u64, [Option<Request>; 2]> = BTreeMap::new();
    for request in requests {
        by_pair.entry(request.case_id / 2).or_default()[usize::from(request.level == Level::Hypernym)] =
            Some(*request);
    }
    by_pair.into_values().filter_map(|[hyponym, hypernym]| hyponym.zip(hypernym)).collect()
}
