//! C6: the intact model takes edits best.

use super::{
    ClaimOptions, Published,
    evidence::{Evidence, p, signed},
    pairs::{by_size, evidence as evidence_of, pairs},
};
use crate::{
    records::{Records, Scope},
    tables::{editing::change_new, select::scope_label},
};

pub(super) const CLAIM: Published = Published {
    id: "C6",
    claim: "The intact model takes edits best.",
    statistic: "Change of NLL(new) by editing a masked model less that by editing the full model, paired \
                over requests, tasks and the sizes 5 % and 50 %, for circuit and complement apart; interval \
                and sign-flip test over requests. Best means better than both: the smaller of the two \
                advantages decides, with the larger p. The claim holds above zero.",
    unit: "nats per token",
    claimed: (0.0, f64::INFINITY),
    evidence: evidence_for,
};

fn evidence_for(records: &Records, preset: &str, options: &ClaimOptions) -> Option<Evidence> {
    let against = |scope| {
        let pairs = pairs(records, preset, (scope, Scope::Full), change_new);
        let evidence = evidence_of(&pairs, options, &format!("C6/{preset}/{}", scope_label(scope)))?;
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
