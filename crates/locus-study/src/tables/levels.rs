//! Editing by level of the hierarchy, each request averaged over the masks it was edited with: T7.

use std::collections::BTreeMap;

use locus_metrics::{paired::sign_flip, rank, token::probability};

use super::{
    cells::{count, estimate, number, percent, table, text},
    editing::{change_margin, change_new, success},
    options::TableOptions,
    select::{Density, edits, mean, presets, scope_label},
};
use crate::{
    records::{EditKind, EditOutcome, Level, Records, Scope},
    results::{Cell, Style, Table},
};

const COLUMNS: [&str; 13] = [
    "edit",
    "preset",
    "target density",
    "scope",
    "level",
    "requests",
    "change of NLL(new)",
    "change of the margin",
    "NLL(new) after",
    "new beats true after",
    "P(new) before",
    "Spearman of P(new) before and after",
    "p",
];

/// T7: editing by level of the hierarchy.
///
/// Rows: for each kind of edit the full model, then for each preset and size (5 and 50 %) random masks, circuits and
/// complements; within each the requests of the lower level (hyponym), of the upper level (hypernym), both, and the mean
/// difference over pairs of the two.
///
/// Columns: kind of edit, preset, target density, scope and level; number of requests or pairs; change of NLL(new) and of
/// the margin NLL(new) - NLL(true) (nats, after minus before) with intervals; NLL(new) after the edit; share of requests
/// whose new target is more probable than the true one after the edit (%; percentage points in rows of differences);
/// P(new) before the edit (0 to 1); Spearman correlation of P(new) before with P(new) after the edit; p-value of the
/// correlation, or, in rows of differences, of the change of NLL(new).
pub fn t7(records: &Records, options: &TableOptions) -> Table {
    let mut rows = Vec::new();
    for kind in EditKind::ALL {
        let mut add = |head: [&str; 3], scope, preset: &str, size: Density| {
            let [first, second, third] = head.map(text);
            let purpose = format!("T7/{}/{}/{}/{}", kind.label(), head[0], head[1], head[2]);
            let edits = edits(records, preset, size, scope, kind);
            rows.extend(scope_rows([text(kind.label()), first, second, third], &edits, options, &purpose));
        };
        add(["-", "-", "full"], Scope::Full, "", Density::SMALL);
        for preset in presets(records) {
            for size in Density::MAIN {
                for scope in [Scope::Random, Scope::Circuit, Scope::Complement] {
                    add([preset, &size.label(), scope_label(scope)], scope, preset, size);
                }
            }
        }
    }
    let notes = vec![
        "Each request is averaged over tasks first. Hyponym: \"A British Shorthair is a kind of\"; hypernym: \
         the level above, \"A cat is a kind of\"."
            .into(),
        "Hypernym - hyponym: mean difference over pairs of a hyponym request and the hypernym request above \
         it (cases 2k and 2k + 1); above zero the higher level is harder to edit, by change, margin and NLL after. \
         Hypernyms start from another NLL, and the measures weigh that differently. Its p is of the two-sided sign-flip \
         test of the change of NLL(new)."
            .into(),
        format!(
            "Spearman: rank correlation over requests of P(new) before the edit with P(new) after it, the measure of \
             arXiv 2406.17253; p by {} permutations. The fall of NLL(new) would be coupled to its start: start minus end \
             correlates with the start even when the end is random.",
            rank::PERMUTATIONS
        ),
        options.intervals("requests, or over pairs for the difference"),
        options.source(),
    ];
    table("T7", "Editing by level of the hierarchy".into(), notes, &COLUMNS, rows)
}

fn scope_rows(
    head: [Cell; 4],
    edits: &[&EditOutcome],
    options: &TableOptions,
    purpose: &str,
) -> Vec<Vec<Cell>> {
    let requests = requests(edits);
    let of_level = |level| requests.iter().copied().filter(|r| r.level == level).collect::<Vec<_>>();
    let groups = [
        ("hyponym", of_level(Level::Hyponym)),
        ("hypernym", of_level(Level::Hypernym)),
        ("both", requests.clone()),
    ];
    let levels = groups.iter().filter(|(_, requests)| !requests.is_empty());
    let mut rows: Vec<Vec<Cell>> = levels
        .map(|(name, requests)| level_row(name, requests, options, &format!("{purpose}/{name}")))
        .collect();
    rows.extend(difference_row(&requests, options, &format!("{purpose}/difference")));
    rows.into_iter().map(|row| head.iter().cloned().chain(row).collect()).collect()
}

fn level_row(name: &str, requests: &[RequestMeans], options: &TableOptions, purpose: &str) -> Vec<Cell> {
    let all = |value: fn(&RequestMeans) -> f64| requests.iter().map(value).collect::<Vec<f64>>();
    let cases: Vec<u64> = requests.iter().map(|r| r.case_id).collect();
    let correlation = rank::spearman_permutation(
        &all(|r| r.p_new),
        &all(|r| r.p_new_after),
        rank::PERMUTATIONS,
        options.stream(&format!("{purpose}/rho")),
    );
    vec![
        text(name),
        count(requests.len()),
        estimate(options.mean(&all(|r| r.change), &cases, purpose), Style::Fixed3),
        estimate(options.mean(&all(|r| r.margin), &cases, &format!("{purpose}/margin")), Style::Fixed3),
        number(mean(all(|r| r.after)), Style::Fixed3),
        percent(mean(all(|r| r.success))),
        number(mean(all(|r| r.p_new)), Style::Significant3),
        number(correlation.map(|c| c.rho), Style::Fixed3),
        number(correlation.map(|c| c.p_value), Style::Significant3),
    ]
}

fn difference_row(requests: &[RequestMeans], options: &TableOptions, purpose: &str) -> Option<Vec<Cell>> {
    let pairs = pairs(requests);
    let difference = |value: fn(&RequestMeans) -> f64| {
        pairs.iter().map(|(low, high)| value(high) - value(low)).collect::<Vec<f64>>()
    };
    let changes = difference(|r| r.change);
    let cases: Vec<u64> = pairs.iter().map(|(low, _)| low.case_id).collect();
    let margins = options.mean(&difference(|r| r.margin), &cases, &format!("{purpose}/margin"));
    Some(vec![
        text("hypernym - hyponym"),
        count(pairs.len()),
        estimate(options.mean(&changes, &cases, purpose)?, Style::Fixed3),
        estimate(margins, Style::Fixed3),
        number(mean(difference(|r| r.after)), Style::Fixed3),
        percent(mean(difference(|r| r.success))),
        number(mean(difference(|r| r.p_new)), Style::Significant3),
        Cell::Empty(()),
        number(sign_flip(&changes, options.stream(&format!("{purpose}/flips"))).p_value, Style::Significant3),
    ])
}

/// One request, averaged over tasks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct RequestMeans {
    pub(crate) case_id: u64,
    pub(crate) level: Level,
    /// Change of NLL(new), in nats: below zero when the new target became more probable.
    pub(crate) change: f64,
    /// Change of the margin NLL(new) - NLL(true), in nats.
    pub(crate) margin: f64,
    /// NLL(new) after the edit, in nats.
    pub(crate) after: f64,
    /// Share of the edits after which the new target is more probable than the true one.
    pub(crate) success: f64,
    /// P(new) before the edit, low for a perplexing request.
    pub(crate) p_new: f64,
    /// P(new) after the edit.
    pub(crate) p_new_after: f64,
}

/// The requests of `edits`, each averaged over its edits, ascending by number.
pub(crate) fn requests(edits: &[&EditOutcome]) -> Vec<RequestMeans> {
    let mut by_case: BTreeMap<u64, Vec<&EditOutcome>> = BTreeMap::new();
    for edit in edits {
        by_case.entry(edit.case_id).or_default().push(edit);
    }
    let average = |(case_id, edits): (u64, Vec<&EditOutcome>)| {
        let over = |value: &dyn Fn(&EditOutcome) -> f64| mean(edits.iter().map(|e| value(e)));
        Some(RequestMeans {
            case_id,
            level: edits.first()?.level,
            change: over(&change_new)?,
            margin: over(&change_margin)?,
            after: over(&|e| e.post_new)?,
            success: over(&success)?,
            p_new: over(&|e| probability(e.pre_new))?,
            p_new_after: over(&|e| probability(e.post_new))?,
        })
    };
    by_case.into_iter().filter_map(average).collect()
}

/// Hyponym requests, each with the hypernym request above it: cases 2k and 2k + 1 of the data. Requests without a
/// partner are left out.
pub(crate) fn pairs(requests: &[RequestMeans]) -> Vec<(RequestMeans, RequestMeans)> {
    let mut by_pair: BTreeMap<u64, [Option<RequestMeans>; 2]> = BTreeMap::new();
    for request in requests {
        by_pair.entry(request.case_id / 2).or_default()[usize::from(request.level == Level::Hypernym)] =
            Some(*request);
    }
    by_pair.into_values().filter_map(|[hyponym, hypernym]| hyponym.zip(hypernym)).collect()
}
