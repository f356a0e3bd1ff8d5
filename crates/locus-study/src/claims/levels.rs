//! The claim about levels, C7: higher levels of the hierarchy are harder to edit.

use super::claim::{Evidence, PublishedClaim, p, percent, signed};
use crate::{
    records::{EditOutcome, Records, Scope},
    tables::{
        TableOptions,
        levels::{self, RequestMeans},
        select::{Density, edits, mean, scope_label},
    },
};

pub(super) const C7: PublishedClaim = PublishedClaim {
    id: "C7",
    claim: "Higher levels of the hierarchy are harder to edit.",
    statistic: "Change of NLL(new) of a hypernym request minus that of the hyponym request below it, in the \
                full model; interval and sign-flip test over such pairs. The claim holds above zero. The \
                circuits and complements, averaged over tasks and the sizes 5 % and 50 %, are reported \
                beside it.",
    unit: "nats per token",
    claimed: (0.0, f64::INFINITY),
    needs: "T7",
    evidence: upper_level_resists,
};

fn upper_level_resists(records: &Records, preset: &str, options: &TableOptions) -> Option<Evidence> {
    let full = edits(records, "", Density::SMALL, Scope::Full);
    // The full model belongs to no preset, so its stream must not depend on one.
    let evidence = of_levels(&full, options, "C7/full")?;
    let pairs = level_pairs(&full);
    let over = |side: fn(&(RequestMeans, RequestMeans)) -> f64| mean(pairs.iter().map(side));
    let mut reading = format!(
        "Full model: change of NLL(new) {:+.3} for hypernyms against {:+.3} for hyponyms, new beats true in \
         {} against {} afterwards; difference {} nats over {} pairs (p {}).",
        over(|(_, high)| high.change)?,
        over(|(low, _)| low.change)?,
        percent(over(|(_, high)| high.success)?),
        percent(over(|(low, _)| low.success)?),
        signed(&evidence.effect),
        pairs.len(),
        p(evidence.p_value),
    );
    for scope in [Scope::Circuit, Scope::Complement] {
        let masked: Vec<&EditOutcome> =
            Density::MAIN.into_iter().flat_map(|size| edits(records, preset, size, scope)).collect();
        if let Some(other) = of_levels(&masked, options, &format!("C7/{preset}/{}", scope_label(scope))) {
            let effect = signed(&other.effect);
            reading.push_str(&format!(" {}s: {effect} (p {}).", capitalised(scope), p(other.p_value)));
        }
    }
    Some(evidence.reading(reading))
}

fn level_pairs(edits: &[&EditOutcome]) -> Vec<(RequestMeans, RequestMeans)> {
    levels::pairs(&levels::requests(edits))
}

fn of_levels(edits: &[&EditOutcome], options: &TableOptions, purpose: &str) -> Option<Evidence> {
    let pairs = level_pairs(edits);
    let differences: Vec<f64> = pairs.iter().map(|(low, high)| high.change - low.change).collect();
    let cases: Vec<u64> = pairs.iter().map(|(low, _)| low.case_id).collect();
    Evidence::of_differences(&differences, &cases, options, purpose)
}

fn capitalised(scope: Scope) -> &'static str {
    if scope == Scope::Circuit { "Circuit" } else { "Complement" }
}
