//! Edits of the same request in two scopes.

use std::collections::BTreeMap;

use super::{ClaimOptions, evidence::Evidence};
use crate::{
    records::{EditOutcome, Records, Scope},
    tables::select::{Density, mean},
};

/// A request measured in a circuit (`left`) and in the scope it is compared with (`right`).
pub(super) struct Pair {
    pub(super) density: Density,
    pub(super) case_id: u64,
    pub(super) left: f64,
    pub(super) right: f64,
}

/// Pairs of one preset at the two published sizes: every edit in scope `left` that has a partner in scope
/// `right`. (The other sizes exist for one task only and would give it more weight than the rest.)
///
/// A complement's partner has the same task, size and request; a random mask's the same size and request; the
/// full model's the same request. Several partners (draws of a random mask) are averaged.
pub(super) fn pairs(
    records: &Records,
    preset: &str,
    (left, right): (Scope, Scope),
    value: impl Fn(&EditOutcome) -> f64,
) -> Vec<Pair> {
    let key = |e: &EditOutcome| match right {
        Scope::Full => (None, String::new(), e.case_id),
        Scope::Random => (Some(Density::of(e.target_density)), String::new(), e.case_id),
        Scope::Circuit | Scope::Complement => {
            (Some(Density::of(e.target_density)), e.task.clone(), e.case_id)
        }
    };
    let of = |scope| {
        let belongs =
            move |e: &&EditOutcome| e.scope == scope && (scope == Scope::Full || e.preset == preset);
        records.edits.iter().filter(belongs)
    };
    let mut partners: BTreeMap<_, Vec<f64>> = BTreeMap::new();
    for edit in of(right) {
        partners.entry(key(edit)).or_default().push(value(edit));
    }
    let pair = |e: &EditOutcome| {
        let right = mean(partners.get(&key(e))?.iter().copied())?;
        Some(Pair { density: Density::of(e.target_density), case_id: e.case_id, left: value(e), right })
    };
    let mut pairs: Vec<Pair> = of(left).filter_map(pair).filter(|pair| pair.density.is_published()).collect();
    pairs.sort_by_key(|pair| (pair.density, pair.case_id));
    pairs
}

/// Evidence of the mean of left less right, over requests.
pub(super) fn evidence(pairs: &[Pair], options: &ClaimOptions, purpose: &str) -> Option<Evidence> {
    let differences: Vec<f64> = pairs.iter().map(|pair| pair.left - pair.right).collect();
    let requests: Vec<u64> = pairs.iter().map(|pair| pair.case_id).collect();
    Evidence::of_differences(&differences, &requests, options, purpose)
}

/// Means of both sides at each size, in words: `at 5 %: 0.1 against 0.2; at 50 %: ...`.
pub(super) fn by_size(pairs: &[Pair], print: impl Fn(f64) -> String) -> String {
    let at = |size: Density| {
        let side = |of: fn(&Pair) -> f64| mean(pairs.iter().filter(|p| p.density == size).map(of));
        let (left, right) = (side(|p| p.left)?, side(|p| p.right)?);
        Some(format!("at {}: {} against {}", size.label(), print(left), print(right)))
    };
    Density::PUBLISHED.into_iter().filter_map(at).collect::<Vec<_>>().join("; ")
}
