//! The claim about sizes, C3: an ideal circuit lies between 5 % and 50 % of the parameters.
//!
//! The publication does not say when a circuit is ideal. Here a size is ideal when the circuit agrees with the full
//! model on at least [`AGREEMENT`] of the held-out rows, by more than matched masks do, and when its complement is no
//! better than chance plus a margin ([`LEFT_OVER`]). The claim holds when some size strictly between 5 % and 50 % is
//! ideal, so that half of the parameters are more than needed, while 5 % does not agree enough. Circuits come from
//! trajectories of their own and of equal length where the records have them, so that size is not confounded with
//! training.

use locus_metrics::two_way::Estimate;

use super::claim::{Label, PublishedClaim, Question};
use super::rule::Claimed;
use crate::{
    records::{Extraction, HIERARCHY, Schedule, Scope},
    results::ClaimRow,
    tables::select::Density,
};

/// Smallest agreement of an ideal circuit with the full model.
const AGREEMENT: f64 = 0.9;
/// Other thresholds, to see what the verdict owes to the choice.
const SWEEP: [f64; 3] = [0.8, 0.85, 0.95];
/// Largest accuracy of an ideal circuit's complement: chance for two balanced classes, and a margin of 0.1.
const LEFT_OVER: f64 = 0.6;

pub(super) const C3: PublishedClaim = PublishedClaim {
    id: "C3",
    claim: "An ideal circuit lies between 5 % and 50 % of the parameters.",
    source: "Abstract, version 2: the ideal size of a circuit is between 5 % and 50 % of the parameters.",
    statistic: "Hierarchy task, sizes trained for equally long. Of the sizes strictly between 5 % and 50 %, the best one: \
                agreement of the circuit minus 0.9, agreement minus that of matched masks, and 0.6 minus the accuracy of the \
                complement; and 0.9 minus the agreement at 5 %. Intervals over held-out rows; p of the best size times the \
                number of sizes it was chosen from. Parts: a size in between is enough, nothing is left outside, 5 % is too \
                small. Rows with thresholds other than 0.9 do not decide.",
    needs: "T4",
    about_facts: false,
    rows: between_5_and_50_percent,
};

fn between_5_and_50_percent(question: &Question) -> Vec<ClaimRow> {
    if question.gate.at_chance.contains(&HIERARCHY) {
        return Vec::new();
    }
    let all = || {
        let of = question.records.extractions.iter();
        of.filter(|e| e.preset == question.preset && e.task == HIERARCHY && e.reached && e.held_out_rows > 0)
    };
    let own = |e: &&Extraction| e.scope == Scope::Circuit && e.schedule == Schedule::OwnTrajectory;
    let equal_training = all().any(|e| own(&e));
    let schedule = if equal_training { Schedule::OwnTrajectory } else { Schedule::Sweep };
    let mut circuits: Vec<&Extraction> =
        all().filter(|e| e.scope == Scope::Circuit && e.schedule == schedule && e.draw == 0).collect();
    circuits.sort_by_key(|e| Density::of(e.target_density));
    let matched = |size: Density| {
        let found: Vec<f64> = all()
            .filter(|e| e.scope == Scope::Matched && Density::of(e.target_density) == size)
            .map(|e| e.agreement)
            .collect();
        (!found.is_empty()).then(|| found.iter().sum::<f64>() / found.len() as f64)
    };
    let Some(smallest) = circuits.iter().find(|e| Density::of(e.target_density) == Density::SMALL) else {
        return Vec::new();
    };
    let between: Vec<&Extraction> = circuits
        .iter()
        .copied()
        .filter(|e| (Density::SMALL..Density::LARGE).contains(&Density::of(e.target_density)))
        .filter(|e| Density::of(e.target_density) != Density::SMALL)
        .collect();
    let quality = |e: &Extraction| (e.agreement - AGREEMENT).min(LEFT_OVER - e.accuracy_complement);
    let Some(best) = between.iter().copied().max_by(|a, b| quality(a).total_cmp(&quality(b))) else {
        return Vec::new();
    };
    let mut rows = Vec::new();
    let mut add = |part: &str,
                   measure: &str,
                   against: &str,
                   e: &Extraction,
                   (share, sign, bar): (f64, f64, f64),
                   decides| {
        let n = e.held_out_rows;
        // Two pseudo-rows (Agresti and Coull 1998) keep the error above 0 for shares of 0 and 1.
        let smoothed = (share * n as f64 + 1.0) / (n as f64 + 2.0);
        let error = (smoothed * (1.0 - smoothed) / n as f64).sqrt();
        let estimate = Estimate::new(sign * (share - bar), error, (n - 1).max(1) as f64);
        let label = Label {
            part,
            measure,
            against,
            size: Some(Density::of(e.target_density)),
            edit: None,
            unit: "share of rows",
            decides,
        };
        rows.extend(estimate.map(|estimate| {
            let row = question.row(label, estimate, n, 1, Claimed::positive(0.0));
            let chosen_from = if std::ptr::eq(e, best) { between.len() as f64 } else { 1.0 };
            let p_value = (row.p_value * chosen_from).min(1.0);
            let lost = row.verdict == crate::results::Verdict::Supported && p_value >= super::rule::ALPHA;
            let verdict = if lost { crate::results::Verdict::Undecided } else { row.verdict };
            ClaimRow { p_value, verdict, ..row }
        }));
    };
    const ENOUGH: &str = "a size in between is enough";
    const TOO_SMALL: &str = "5 % is too small";
    add(ENOUGH, "agreement", "over 0.9", best, (best.agreement, 1.0, AGREEMENT), true);
    if let Some(control) = matched(Density::of(best.target_density)) {
        add(ENOUGH, "agreement", "over matched", best, (best.agreement, 1.0, control), true);
    }
    let left = (best.accuracy_complement, -1.0, LEFT_OVER);
    add("nothing is left outside", "accuracy of the complement", "below 0.6", best, left, true);
    add(TOO_SMALL, "agreement", "below 0.9", smallest, (smallest.agreement, -1.0, AGREEMENT), true);
    for bar in SWEEP {
        let (over, below) = (format!("over {bar}"), format!("below {bar}"));
        add(ENOUGH, "agreement", &over, best, (best.agreement, 1.0, bar), false);
        add(TOO_SMALL, "agreement", &below, smallest, (smallest.agreement, -1.0, bar), false);
    }
    for e in circuits {
        if let Some(control) = matched(Density::of(e.target_density)) {
            add("each size", "agreement", "over matched", e, (e.agreement, 1.0, control), false);
        }
    }
    rows
}
