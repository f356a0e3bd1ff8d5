//! Claims about edits of the same request in two scopes: C1 (circuits contain entity knowledge), C2 (circuits resist
//! new knowledge, "confirmation bias") and C6 (the intact model takes edits best).

use std::collections::BTreeMap;

use locus_metrics::token::probability;

use super::claim::{Evidence, PublishedClaim, p, probability_text, signed};
use crate::{
    records::{EditOutcome, Records, Scope},
    tables::{
        TableOptions,
        editing::change_new,
        select::{Density, mean, scope_label},
    },
};

pub(super) const C1: PublishedClaim = PublishedClaim {
    id: "C1",
    claim: "Circuits contain entity knowledge.",
    statistic: "P(true) per token before editing in the circuit minus that in a random mask of equal density, \
                paired over requests, tasks and the sizes 5 % and 50 %; interval and sign-flip test over \
                requests. The claim holds above zero.",
    unit: "probability",
    claimed: (0.0, f64::INFINITY),
    needs: "T2 and T3",
    evidence: knowledge,
};

fn knowledge(records: &Records, preset: &str, options: &TableOptions) -> Option<Evidence> {
    let pairs = pairs(records, preset, (Scope::Circuit, Scope::Random), |e| probability(e.pre_true));
    let evidence = difference(&pairs, options, &format!("C1/{preset}"))?;
    let reading = format!(
        "P(true) before editing, circuit against random mask, {}: difference {} (p {}).",
        by_size(&pairs, probability_text),
        signed(&evidence.effect),
        p(evidence.p_value),
    );
    Some(evidence.reading(reading))
}

pub(super) const C2: PublishedClaim = PublishedClaim {
    id: "C2",
    claim: "Circuits resist new knowledge more than their complements.",
    statistic: "Change of NLL(new) by editing the circuit minus that by editing its complement, paired over \
                requests, tasks and the sizes 5 % and 50 %; interval and sign-flip test over requests. The \
                claim holds above zero: NLL(new) falls less in the circuit.",
    unit: "nats per token",
    claimed: (0.0, f64::INFINITY),
    needs: "T2 and T3",
    evidence: resistance,
};

fn resistance(records: &Records, preset: &str, options: &TableOptions) -> Option<Evidence> {
    let pairs = pairs(records, preset, (Scope::Circuit, Scope::Complement), change_new);
    let evidence = difference(&pairs, options, &format!("C2/{preset}"))?;
    let reading = format!(
        "Change of NLL(new), circuit against complement, {}: difference {} nats (p {}). At 5 % the \
         complement also has nineteen times as many parameters to change; only at 50 % do circuit and \
         complement have the same number of parameters.",
        by_size(&pairs, |change| format!("{change:+.3}")),
        signed(&evidence.effect),
        p(evidence.p_value),
    );
    Some(evidence.reading(reading))
}

pub(super) const C6: PublishedClaim = PublishedClaim {
    id: "C6",
    claim: "The intact model takes edits best.",
    statistic: "Change of NLL(new) by editing a masked model minus that by editing the full model, paired \
                over requests, tasks and the sizes 5 % and 50 %, for circuit and complement separately; \
                interval and sign-flip test over requests. Best means better than both: the smaller of the \
                two advantages decides, with the larger p. The claim holds above zero.",
    unit: "nats per token",
    claimed: (0.0, f64::INFINITY),
    needs: "T2 and T3",
    evidence: advantage_of_full,
};

fn advantage_of_full(records: &Records, preset: &str, options: &TableOptions) -> Option<Evidence> {
    let against = |scope| {
        let pairs = pairs(records, preset, (scope, Scope::Full), change_new);
        let evidence = difference(&pairs, options, &format!("C6/{preset}/{}", scope_label(scope)))?;
        let reading = format!(
            "Change of NLL(new), {} against full model, {}: advantage of the full model {} nats (p {}).",
            scope_label(scope),
            by_size(&pairs, |change| format!("{change:+.3}")),
            signed(&evidence.effect),
            p(evidence.p_value),
        );
        Some(evidence.reading(reading))
    };
    let (circuit, complement) = (against(Scope::Circuit)?, against(Scope::Complement)?);
    let reading = format!("{} {}", circuit.reading, complement.reading);
    let p_value = circuit.p_value.max(complement.p_value);
    let weaker = if circuit.effect.value <= complement.effect.value { circuit } else { complement };
    Some(Evidence { p_value, ..weaker }.reading(reading))
}

/// A request measured in a circuit (`left`) and in the scope it is compared with (`right`).
struct EditPair {
    density: Density,
    case_id: u64,
    left: f64,
    right: f64,
}

/// Pairs of one preset at the two main sizes: every edit in scope `left` that has a partner in scope `right`. The other
/// sizes exist for one task only and would give that task more weight than the rest.
///
/// A partner in a complement has the same task, size and request; in a random mask the same size and request; in the
/// full model the same request. Several partners (draws of a random mask) are averaged.
fn pairs(
    records: &Records,
    preset: &str,
    (left, right): (Scope, Scope),
    value: impl Fn(&EditOutcome) -> f64,
) -> Vec<EditPair> {
    let key = |e: &EditOutcome| match right {
        Scope::Full => (None, String::new(), e.case_id),
        Scope::Random => (Some(Density::of(e.target_density)), String::new(), e.case_id),
        Scope::Circuit | Scope::Complement => {
            (Some(Density::of(e.target_density)), e.task.clone(), e.case_id)
        }
    };
    let edits_in = |scope| {
        let belongs =
            move |e: &&EditOutcome| e.scope == scope && (scope == Scope::Full || e.preset == preset);
        records.edits.iter().filter(belongs)
    };
    let mut partners: BTreeMap<_, Vec<f64>> = BTreeMap::new();
    for edit in edits_in(right) {
        partners.entry(key(edit)).or_default().push(value(edit));
    }
    let pair = |e: &EditOutcome| {
        let right = mean(partners.get(&key(e))?.iter().copied())?;
        Some(EditPair { density: Density::of(e.target_density), case_id: e.case_id, left: value(e), right })
    };
    let mut pairs: Vec<EditPair> =
        edits_in(left).filter_map(pair).filter(|pair| pair.density.is_main()).collect();
    pairs.sort_by_key(|pair| (pair.density, pair.case_id));
    pairs
}

/// Evidence of the mean of left minus right, over requests.
fn difference(pairs: &[EditPair], options: &TableOptions, purpose: &str) -> Option<Evidence> {
    let differences: Vec<f64> = pairs.iter().map(|pair| pair.left - pair.right).collect();
    let requests: Vec<u64> = pairs.iter().map(|pair| pair.case_id).collect();
    Evidence::of_differences(&differences, &requests, options, purpose)
}

/// Means of both sides at each size as text: `at 5 %: 0.1 against 0.2; at 50 %: ...`.
fn by_size(pairs: &[EditPair], print: impl Fn(f64) -> String) -> String {
    let at = |size: Density| {
        let side = |of: fn(&EditPair) -> f64| mean(pairs.iter().filter(|p| p.density == size).map(of));
        let (left, right) = (side(|p| p.left)?, side(|p| p.right)?);
        Some(format!("at {}: {} against {}", size.label(), print(left), print(right)))
    };
    Density::MAIN.into_iter().filter_map(at).collect::<Vec<_>>().join("; ")
}
