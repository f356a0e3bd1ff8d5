//! Claims about edits of the same request in two scopes: C1 (circuits contain entity knowledge), C2 (circuits resist
//! new knowledge, "confirmation bias") and C6 (the intact model takes edits best).
//!
//! Values are differences between scopes on the same request; requests that share entities are one item, and tasks are
//! averaged within their family (see [`locus_metrics::two_way`]).

use locus_metrics::token::probability;

use super::claim::{EditIndex, Label, PublishedClaim, Question};
use super::rule::Claimed;
use crate::{
    records::{EditKind, EditOutcome, Scope},
    results::ClaimRow,
    tables::{
        editing::{change_margin, change_new, success},
        select::Density,
    },
};

type Value = fn(&EditOutcome) -> Option<f64>;

/// A measure of an edit, with its unit and the smallest difference that matters.
struct Measure {
    name: &'static str,
    unit: &'static str,
    smallest: f64,
    /// Larger values mean that the edit took less.
    value: Value,
    /// The state before the edit that damage acts through; `None` where the measure is no change.
    before: Option<fn(&EditOutcome) -> f64>,
}

const CHANGE: Measure = Measure {
    name: "change of NLL(new)",
    unit: "nats per token",
    smallest: 0.05,
    value: |e| Some(change_new(e)),
    before: Some(|e| e.pre_new),
};
const MARGIN: Measure = Measure {
    name: "change of the margin",
    unit: "nats per token",
    smallest: 0.05,
    value: |e| Some(change_margin(e)),
    before: Some(|e| e.pre_new - e.pre_true),
};
const FAILURE: Measure = Measure {
    name: "success",
    unit: "share of requests",
    smallest: 0.02,
    value: |e| Some(-success(e)),
    before: None,
};

pub(super) const C1: PublishedClaim = PublishedClaim {
    id: "C1",
    claim: "Circuits contain entity knowledge.",
    source: "Abstract, version 2: circuits contain entity knowledge.",
    statistic: "Before editing, the circuit minus each control of equal size (uniform, matched in tensor and |w|, trained \
                on shuffled labels, largest |w|), by NLL(true) and by discrimination (the share of other requests' targets \
                that are less probable than the true one). Parts: 5 % and 50 %.",
    needs: "T2 and T3",
    about_facts: true,
    rows: knowledge,
};

fn knowledge(question: &Question) -> Vec<ClaimRow> {
    // Probabilities of broken models are too small to be compared as such; their logarithms are not.
    const MEASURES: [(&str, &str, f64, bool, Value); 3] = [
        ("NLL(true)", "nats per token", 0.05, true, |e| Some(-e.pre_true)),
        ("discrimination", "share of other targets", 0.02, true, |e| e.discrimination),
        ("P(true)", "probability", 0.02, false, |e| Some(probability(e.pre_true))),
    ];
    const CONTROLS: [(&str, Scope); 4] = [
        ("against random", Scope::Random),
        ("against matched", Scope::Matched),
        ("against shuffled labels", Scope::Shuffled),
        ("against magnitude", Scope::Magnitude),
    ];
    let mut rows = Vec::new();
    // Nothing has been edited yet, so that any kind of edit has the values; the shortest was run on all tasks.
    for (size, index) in sizes(question, EditKind::Steps10) {
        for (measure, unit, smallest, decides, value) in MEASURES {
            for (against, control) in CONTROLS {
                let part = size.label();
                let label =
                    Label { part: &part, measure, against, size: Some(size), edit: None, unit, decides };
                let cells = question.cells(index, size, &[(1.0, Scope::Circuit), (-1.0, control)], &value);
                rows.extend(question.row_of_requests(label, &cells, Claimed::positive(smallest)));
            }
        }
    }
    rows
}

pub(super) const C2: PublishedClaim = PublishedClaim {
    id: "C2",
    claim: "Circuits resist new knowledge more than their complements.",
    source: "Abstract, version 2: circuits resist new knowledge more than the complementary circuits (\"confirmation \
             bias\").",
    statistic: "What an edit changes in the circuit minus what it changes in its complement, by NLL(new) and by the margin \
                NLL(new) - NLL(true). At 50 %, where both have the same number of parameters, as it is and with the \
                control masks' slope of change on damage taken out; at both sizes minus the same difference of a matched \
                mask and its complement, which knows no task. Parts: 50 % and 5 %.",
    needs: "T2 and T3",
    about_facts: true,
    rows: resistance,
};

fn resistance(question: &Question) -> Vec<ClaimRow> {
    let own = [(1.0, Scope::Circuit), (-1.0, Scope::Complement)];
    let beyond = |inside, outside| [own[0], own[1], (-1.0, inside), (1.0, outside)];
    let deciding = question.deciding_edit();
    let mut rows = Vec::new();
    for kind in EditKind::ALL {
        for (size, index) in sizes(question, kind) {
            for measure in [&CHANGE, &MARGIN] {
                let part = size.label();
                let label = |against, decides| Label {
                    part: &part,
                    measure: measure.name,
                    against,
                    size: Some(size),
                    edit: Some(kind),
                    unit: measure.unit,
                    decides: decides && kind == deciding,
                };
                let claimed = Claimed::positive(measure.smallest);
                let mut add = |against,
                               decides,
                               terms: &[(f64, Scope)],
                               value: &dyn Fn(&EditOutcome) -> Option<f64>| {
                    let cells = question.cells(index, size, terms, value);
                    rows.extend(question.row_of_requests(label(against, decides), &cells, claimed));
                };
                // At 5 % the complement has nineteen times as many parameters to change.
                let equal = size == Density::LARGE;
                add("against its complement", equal, &own, &measure.value);
                if let Some(adjusted) = adjusted(question, index, size, measure) {
                    add("against its complement, damage taken out", equal, &own, &adjusted);
                }
                let matched = beyond(Scope::Matched, Scope::MatchedComplement);
                add("against its complement, beyond matched", true, &matched, &measure.value);
                if let Some(adjusted) = adjusted(question, index, size, measure) {
                    add(
                        "against its complement, beyond matched, damage taken out",
                        true,
                        &matched,
                        &adjusted,
                    );
                }
                let shuffled = beyond(Scope::Shuffled, Scope::ShuffledComplement);
                add("against its complement, beyond shuffled labels", false, &shuffled, &measure.value);
                let uniform = beyond(Scope::Random, Scope::RandomComplement);
                add("against its complement, beyond random", false, &uniform, &measure.value);
            }
        }
    }
    rows
}

pub(super) const C6: PublishedClaim = PublishedClaim {
    id: "C6",
    claim: "The intact model takes edits best.",
    source: "Press summary of the paper: editing works best in the intact model.",
    statistic: "What an edit changes in a masked model minus what it changes in the intact model, by NLL(new), by the \
                margin and by success. At both sizes the circuit against the same circuit edited in place (the intact model, \
                of whose blocks as many parameters may change), as it is and with the control masks' slope of change on \
                damage taken out; at 50 % also circuit and complement against the full model. Parts: the three measures, \
                which have to agree.",
    needs: "T2 and T3",
    about_facts: true,
    rows: advantage_of_full,
};

fn advantage_of_full(question: &Question) -> Vec<ClaimRow> {
    let deciding = question.deciding_edit();
    let mut rows = Vec::new();
    for kind in EditKind::ALL {
        for (size, index) in sizes(question, kind) {
            for measure in [&CHANGE, &MARGIN, &FAILURE] {
                let label = |against, decides| Label {
                    part: measure.name,
                    measure: measure.name,
                    against,
                    size: Some(size),
                    edit: Some(kind),
                    unit: measure.unit,
                    decides: decides && kind == deciding,
                };
                let claimed = Claimed::positive(measure.smallest);
                let mut add = |against, decides, left, right, value: &dyn Fn(&EditOutcome) -> Option<f64>| {
                    let cells = question.cells(index, size, &[(1.0, left), (-1.0, right)], value);
                    rows.extend(question.row_of_requests(label(against, decides), &cells, claimed));
                };
                let (circuit, in_place) = (Scope::Circuit, Scope::CircuitInPlace);
                add("of the circuit in place", true, circuit, in_place, &measure.value);
                if let Some(adjusted) = adjusted(question, index, size, measure) {
                    add("of the circuit in place, damage taken out", true, circuit, in_place, &adjusted);
                }
                add(
                    "of the full model over the circuit",
                    size == Density::LARGE,
                    circuit,
                    Scope::Full,
                    &measure.value,
                );
                let complement = Scope::Complement;
                add(
                    "of the full model over the complement",
                    size == Density::LARGE,
                    complement,
                    Scope::Full,
                    &measure.value,
                );
                add(
                    "of a matched mask in place",
                    false,
                    Scope::Matched,
                    Scope::MatchedInPlace,
                    &measure.value,
                );
                add(
                    "of the full model over a matched mask",
                    false,
                    Scope::Matched,
                    Scope::Full,
                    &measure.value,
                );
                let frozen = Scope::FrozenFull;
                add("of the full model over its frozen blocks", false, frozen, Scope::Full, &measure.value);
            }
        }
    }
    rows
}

/// A measure with the part that damage alone brings taken out; `None` where the controls do not tell it.
fn adjusted(
    question: &Question,
    index: &EditIndex,
    size: Density,
    measure: &Measure,
) -> Option<impl Fn(&EditOutcome) -> Option<f64> + use<>> {
    let (before, value) = (measure.before?, measure.value);
    let tasks = question.gate.working_tasks(question.preset, size);
    let slope = index.slope_over_controls(&tasks, &before, &|e| value(e).unwrap_or(0.0))?;
    Some(move |e: &EditOutcome| Some(value(e)? - slope * before(e)))
}

/// The two main sizes with their edits of one kind.
fn sizes<'q, 'a>(question: &'q Question<'a>, kind: EditKind) -> Vec<(Density, &'q EditIndex<'a>)> {
    [Density::LARGE, Density::SMALL]
        .into_iter()
        .filter_map(|size| Some((size, question.edits(kind, size)?)))
        .collect()
}
