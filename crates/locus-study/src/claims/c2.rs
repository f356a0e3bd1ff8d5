//! C2: circuits resist new knowledge ("confirmation bias").

use super::{
    ClaimOptions, Published,
    evidence::{Evidence, p, signed},
    pairs::{by_size, evidence as evidence_of, pairs},
};
use crate::{
    records::{Records, Scope},
    tables::editing::change_new,
};

pub(super) const CLAIM: Published = Published {
    id: "C2",
    claim: "Circuits resist new knowledge more than their complements.",
    statistic: "Change of NLL(new) by editing the circuit less that by editing its complement, paired over \
                requests, tasks and the sizes 5 % and 50 %; interval and sign-flip test over requests. The \
                claim holds above zero: NLL(new) falls less in the circuit.",
    unit: "nats per token",
    claimed: (0.0, f64::INFINITY),
    evidence: evidence_for,
};

fn evidence_for(records: &Records, preset: &str, options: &ClaimOptions) -> Option<Evidence> {
    let pairs = pairs(records, preset, (Scope::Circuit, Scope::Complement), change_new);
    let evidence = evidence_of(&pairs, options, &format!("C2/{preset}"))?;
    let reading = format!(
        "Change of NLL(new), circuit against complement, {}: difference {} nats (p {}). At 5 % the \
         complement also has nineteen times as many parameters to change; only at 50 % are both sides of one \
         size.",
        by_size(&pairs, |change| format!("{change:+.3}")),
        signed(&evidence.effect),
        p(evidence.p_value),
    );
    Some(evidence.reading(reading))
}
