//! The claim about levels, C7: higher levels of the hierarchy are harder to edit.

use std::collections::BTreeMap;

use locus_metrics::two_way::Cell;

use super::claim::{Label, PublishedClaim, Question};
use super::rule::Claimed;
use crate::{
    records::{EditKind, EditOutcome, Level, Scope},
    results::ClaimRow,
    tables::{
        editing::{change_margin, change_new, success},
        select::{Density, edits},
    },
};

pub(super) const C7: PublishedClaim = PublishedClaim {
    id: "C7",
    claim: "Higher levels of the hierarchy are harder to edit.",
    source: "The companion paper arXiv 2406.17253; in none of this paper's abstracts.",
    statistic: "A hypernym request minus the hyponym request below it, in the full model, by change of NLL(new), change of \
                the margin NLL(new) - NLL(true), NLL(new) after the edit, and success. Hypernyms start from another NLL \
                than hyponyms, which these measures weigh differently. Parts: the four measures, which have to agree.",
    needs: "T7",
    about_facts: true,
    rows: upper_level_resists,
};

type Value = fn(&EditOutcome) -> f64;

const MEASURES: [(&str, &str, f64, Value); 4] = [
    ("change of NLL(new)", "nats per token", 0.05, change_new),
    ("change of the margin", "nats per token", 0.05, change_margin),
    ("NLL(new) after", "nats per token", 0.05, |e| e.post_new),
    ("success", "share of requests", 0.02, |e| -success(e)),
];

fn upper_level_resists(question: &Question) -> Vec<ClaimRow> {
    let mut rows = Vec::new();
    for kind in EditKind::ALL {
        let full = edits(question.records, question.preset, Density::SMALL, Scope::Full, kind);
        let mut pairs: BTreeMap<u64, [Option<&EditOutcome>; 2]> = BTreeMap::new();
        for edit in full {
            pairs.entry(edit.case_id / 2).or_default()[usize::from(edit.level == Level::Hypernym)] =
                Some(edit);
        }
        for (measure, unit, smallest, value) in MEASURES {
            let cells: Vec<Cell<usize, &str>> = pairs
                .values()
                .filter_map(|[hyponym, hypernym]| {
                    let (low, high) = ((*hyponym)?, (*hypernym)?);
                    let item = question.component(low.case_id);
                    Some(Cell { item, group: "full model", value: value(high) - value(low) })
                })
                .collect();
            let label = Label {
                part: measure,
                measure,
                against: "of the hyponym below",
                size: None,
                edit: Some(kind),
                unit,
                decides: kind == question.deciding_edit(),
            };
            rows.extend(question.row_of_requests(label, &cells, Claimed::positive(smallest)));
        }
    }
    rows
}
