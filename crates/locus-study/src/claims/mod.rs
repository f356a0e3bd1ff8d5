//! The published claims C1-C7, decided from the records.
//!
//! Every claim computes `Evidence`: an effect with its interval, a p-value and a reading. One rule, `rule::verdict`,
//! turns evidence into a verdict; a claim only states the range in which its effect has to lie. Each claim is decided
//! on the preset whose circuits were edited; the effects of other presets are part of the reading.
//!
//! One file per subject, as in `tables`: `editing` (C1, C2, C6), `sizes` (C3), `overlap` (C4), `composition` (C5) and
//! `levels` (C7).

mod claim;
mod composition;
mod editing;
mod levels;
mod overlap;
mod rule;
mod sizes;
#[cfg(test)]
mod tests;

use locus_metrics::Interval;

use self::claim::{Evidence, PublishedClaim, p, signed};
use crate::{
    records::Records,
    results::{Claim, Verdict},
    tables::{TableOptions, select::presets},
};

const CLAIMS: [PublishedClaim; 7] =
    [editing::C1, editing::C2, sizes::C3, overlap::C4, composition::C5, editing::C6, levels::C7];

/// Every claim with its verdict. Claims without records are undecided, with `n` 0.
pub fn decide(records: &Records, options: &TableOptions) -> Vec<Claim> {
    CLAIMS.iter().map(|published| decide_one(published, records, options)).collect()
}

/// Presets in order: first those with edits, which the run is about, then those that were only extracted (T1).
fn presets_by_weight(records: &Records) -> Vec<&str> {
    let mut presets = presets(records);
    presets.sort_by_key(|preset| !records.edits.iter().any(|edit| edit.preset == *preset));
    presets
}

fn decide_one(published: &PublishedClaim, records: &Records, options: &TableOptions) -> Claim {
    let found = presets_by_weight(records)
        .into_iter()
        .filter_map(|preset| Some((preset, (published.evidence)(records, preset, options)?)))
        .filter(|(_, evidence)| evidence.is_finite())
        .collect::<Vec<_>>();
    let (evidence, verdict) = match found.first() {
        Some((_, evidence)) => {
            (evidence.clone(), rule::verdict(&evidence.effect, evidence.p_value, published.claimed))
        }
        None => (absent(published.needs), Verdict::Undecided),
    };
    let mut reading = evidence.reading;
    if let Some((preset, _)) = found.first() {
        let where_measured = format!(" Preset {preset}, {} with {}.", options.model, options.data);
        reading.push_str(&where_measured);
    }
    for (preset, other) in found.iter().skip(1) {
        let effect = signed(&other.effect);
        reading.push_str(&format!(" Preset {preset}: effect {effect}, p {}.", p(other.p_value)));
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

/// Evidence when the records are missing; `needs` names the tables to ask for.
fn absent(needs: &str) -> Evidence {
    Evidence {
        effect: Interval { value: 0.0, low: 0.0, high: 0.0 },
        p_value: 1.0,
        n: 0,
        reading: format!("Not measured in this run (needs {needs})."),
    }
}
