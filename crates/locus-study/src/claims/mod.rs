//! The published claims C1-C7, decided from the records.
//!
//! Every claim gives `Evidence`: an effect with its interval, a p-value and a reading. One rule,
//! `rule::verdict`, turns evidence into a verdict; a claim only says on which side of which numbers its
//! effect has to lie. Each claim is decided on the preset whose circuits were edited; the other presets' effects are
//! part of the reading.

mod c1;
mod c2;
mod c3;
mod c4;
mod c5;
mod c6;
mod c7;
mod evidence;
mod pairs;
mod rule;
#[cfg(test)]
mod tests;

use locus_metrics::Interval;

use self::evidence::{Evidence, signed};
use crate::{
    records::Records,
    results::{Claim, Verdict},
    tables::{TableOptions, select::presets},
};

/// What the claims need besides the records.
pub type ClaimOptions = TableOptions;

/// A published claim and how it is decided.
struct Published {
    id: &'static str,
    claim: &'static str,
    statistic: &'static str,
    unit: &'static str,
    /// The effect lies strictly between these numbers if the claim holds.
    claimed: (f64, f64),
    /// The evidence that one preset's records give; `None` without the records it needs.
    evidence: fn(&Records, &str, &ClaimOptions) -> Option<Evidence>,
}

const PUBLISHED: [Published; 7] =
    [c1::CLAIM, c2::CLAIM, c3::CLAIM, c4::CLAIM, c5::CLAIM, c6::CLAIM, c7::CLAIM];

/// Every claim with its verdict. Claims without records are undecided, with `n` 0.
pub fn decide(records: &Records, options: &ClaimOptions) -> Vec<Claim> {
    PUBLISHED.iter().map(|published| decide_one(published, records, options)).collect()
}

/// Presets, those with edits first: they are what the run is about, the others stand beside them in T1.
fn presets_by_weight(records: &Records) -> Vec<&str> {
    let mut presets = presets(records);
    presets.sort_by_key(|preset| !records.edits.iter().any(|edit| edit.preset == *preset));
    presets
}

fn decide_one(published: &Published, records: &Records, options: &ClaimOptions) -> Claim {
    let found = presets_by_weight(records)
        .into_iter()
        .filter_map(|preset| Some((preset, (published.evidence)(records, preset, options)?)))
        .filter(|(_, evidence)| evidence.is_finite())
        .collect::<Vec<_>>();
    let (evidence, verdict) = match found.first() {
        Some((_, evidence)) => {
            (evidence.clone(), rule::verdict(&evidence.effect, evidence.p_value, published.claimed))
        }
        None => (absent(), Verdict::Undecided),
    };
    let mut reading = evidence.reading;
    if let Some((preset, _)) = found.first() {
        let where_measured = format!(" Preset {preset}, {} with {}.", options.model, options.data);
        reading.push_str(&where_measured);
    }
    for (preset, other) in found.iter().skip(1) {
        let effect = signed(&other.effect);
        reading.push_str(&format!(" Preset {preset}: effect {effect}, p {}.", evidence::p(other.p_value)));
    }
    Claim {
        id: published.id.into(),
        claim: published.claim.into(),
        statistic: published.statistic.into(),
        effect: evidence.effect.value,
        low: evidence.effect.low,
        high: evidence.effect.high,
        unit: published.unit.into(),
        p_value: evidence.p_value,
        n: evidence.n,
        verdict,
        reading,
    }
}

fn absent() -> Evidence {
    Evidence {
        effect: Interval { value: 0.0, low: 0.0, high: 0.0 },
        p_value: 1.0,
        n: 0,
        reading: "Not measured: this run left no records that could decide the claim.".into(),
    }
}
