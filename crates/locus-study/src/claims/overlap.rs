//! The claim about overlap, C4: circuits of different tasks overlap moderately.

use std::collections::BTreeMap;

use locus_metrics::two_way::Estimate;

use super::claim::{Label, PublishedClaim, Question};
use super::rule::Claimed;
use crate::{
    results::ClaimRow,
    tables::{
        overlap::{TaskPair, ceilings, pairs},
        select::{Density, family},
    },
};

/// Largest share of the ceiling that still is "moderate".
const MODERATE: f64 = 0.5;

pub(super) const C4: PublishedClaim = PublishedClaim {
    id: "C4",
    claim: "Circuits of different tasks overlap moderately.",
    source: "Abstract, version 2: circuits for different tasks show moderate similarities.",
    statistic: "Jaccard index beyond what masks share that are independent within every tensor and class of |w|, divided by \
                the same of two circuits of one task with different seeds (the ceiling; 1 where there are no such seeds). \
                Moderate: above 0 and below 0.5. Mean over pairs of tasks of different families, with a jackknife over \
                families; and over pairs within a family, with a jackknife over its tasks. Parts: across and within \
                families, at 5 % and 50 %.",
    needs: "T5",
    about_facts: false,
    rows: moderate_overlap,
};

fn moderate_overlap(question: &Question) -> Vec<ClaimRow> {
    let all = pairs(question.records, question.preset);
    let competent =
        |task: &str| question.gate.competent.is_empty() || question.gate.competent.contains(&task);
    let mut rows = Vec::new();
    for size in [Density::LARGE, Density::SMALL] {
        let of_size: Vec<&TaskPair> = all
            .iter()
            .filter(|pair| pair.density == size && competent(pair.tasks.0) && competent(pair.tasks.1))
            .collect();
        let ceiling = ceilings(question.records, question.preset, size);
        let ceiling = if ceiling > 0.0 { ceiling } else { 1.0 };
        let mut families: BTreeMap<&str, Vec<&TaskPair>> = BTreeMap::new();
        let mut across = Vec::new();
        for pair in of_size {
            let (a, b) = (family(pair.tasks.0), family(pair.tasks.1));
            if a == b { families.entry(a).or_default().push(pair) } else { across.push(pair) }
        }
        let mut add = |part: &str, pairs: &[&TaskPair], unit: fn(&str) -> &str, equal_weight: bool| {
            let part = format!("{part}, {}", size.label());
            let Some((estimate, n)) = jackknife(pairs, unit, equal_weight) else { return };
            let Some(estimate) = estimate.over(ceiling) else { return };
            let label = Label {
                part: &part,
                measure: "overlap beyond matched",
                against: "over the ceiling",
                size: Some(size),
                edit: None,
                unit: "(0 = chance, 1 = one task again)",
                decides: true,
            };
            let claimed = Claimed { below: MODERATE, smallest: 0.02 };
            rows.push(question.row(label, estimate, n, families_of(pairs), claimed));
        };
        add("across families", &across, family, true);
        for (name, pairs) in &families {
            add(&format!("within {name}"), pairs, |task| task, false);
        }
    }
    rows
}

fn families_of(pairs: &[&TaskPair]) -> usize {
    let mut names: Vec<&str> =
        pairs.iter().flat_map(|pair| [family(pair.tasks.0), family(pair.tasks.1)]).collect();
    names.sort_unstable();
    names.dedup();
    names.len()
}

/// Mean overlap beyond chance with the jackknife over units (Efron and Stein 1981): leaving one unit out leaves out all
/// its pairs. Pairs of the same two units are averaged first where units weigh alike. `None` with fewer than three
/// units. Returns the number of units, too.
fn jackknife(pairs: &[&TaskPair], unit: fn(&str) -> &str, equal_weight: bool) -> Option<(Estimate, usize)> {
    let mut of_units: BTreeMap<(&str, &str), Vec<f64>> = BTreeMap::new();
    for pair in pairs {
        let (a, b) = (unit(pair.tasks.0), unit(pair.tasks.1));
        of_units.entry(if a < b { (a, b) } else { (b, a) }).or_default().push(pair.beyond_matched());
    }
    let values: Vec<((&str, &str), f64)> = of_units
        .into_iter()
        .flat_map(|(units, values)| {
            if equal_weight {
                vec![(units, values.iter().sum::<f64>() / values.len() as f64)]
            } else {
                values.into_iter().map(|value| (units, value)).collect()
            }
        })
        .collect();
    let mut units: Vec<&str> = values.iter().flat_map(|((a, b), _)| [*a, *b]).collect();
    units.sort_unstable();
    units.dedup();
    let n = units.len();
    if n < 3 {
        return None;
    }
    let mean_without = |left_out: Option<&str>| {
        let kept = values.iter().filter(|((a, b), _)| left_out != Some(*a) && left_out != Some(*b));
        let kept: Vec<f64> = kept.map(|(_, value)| *value).collect();
        kept.iter().sum::<f64>() / kept.len() as f64
    };
    let leave_one_out: Vec<f64> = units.iter().map(|unit| mean_without(Some(unit))).collect();
    let centre = leave_one_out.iter().sum::<f64>() / n as f64;
    let spread: f64 = leave_one_out.iter().map(|value| (value - centre) * (value - centre)).sum();
    let error = ((n - 1) as f64 / n as f64 * spread).sqrt();
    Some((Estimate::new(mean_without(None), error, (n - 1) as f64)?, n))
}
