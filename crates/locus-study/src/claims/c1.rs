//! C1: circuits contain entity knowledge.

use locus_metrics::token::probability;

use super::{
    ClaimOptions, Published,
    evidence::{self, Evidence, p, signed},
    pairs::{by_size, evidence as evidence_of, pairs},
};
use crate::records::{Records, Scope};

pub(super) const CLAIM: Published = Published {
    id: "C1",
    claim: "Circuits contain entity knowledge.",
    statistic: "P(true) per token before editing in the circuit less that in a random mask of equal density, \
                paired over requests, tasks and the sizes 5 % and 50 %; interval and sign-flip test over \
                requests. The claim holds above zero.",
    unit: "probability",
    claimed: (0.0, f64::INFINITY),
    evidence: evidence_for,
};

fn evidence_for(records: &Records, preset: &str, options: &ClaimOptions) -> Option<Evidence> {
    let pairs = pairs(records, preset, (Scope::Circuit, Scope::Random), |e| probability(e.pre_true));
    let evidence = evidence_of(&pairs, options, &format!("C1/{preset}"))?;
    let reading = format!(
        "P(true) before editing, circuit against random mask, {}: difference {} (p {}).",
        by_size(&pairs, evidence::probability),
        signed(&evidence.effect),
        p(evidence.p_value),
    );
    Some(evidence.reading(reading))
}
