//! T7: hyponym against hypernym requests.

use locus_metrics::{paired::sign_flip, rank};

use super::{
    TableOptions,
    cells::{count, estimate, number, percent, table, text},
    levels::{Request, pairs, requests},
    select::{Density, edits, mean, presets, scope_label},
};
use crate::{
    records::{EditOutcome, Level, Records, Scope},
    results::{Cell, Style, Table},
};

const COLUMNS: [&str; 10] = [
    "preset",
    "target density",
    "scope",
    "level",
    "requests",
    "change of NLL(new)",
    "new beats true after",
    "P(new) before",
    "Spearman of P(new) before and success",
    "p",
];

/// Editing by level of the hierarchy, in the full model and in masks of both sizes, averaged over tasks.
pub fn t7(records: &Records, options: &TableOptions) -> Table {
    let mut rows = scope_rows(
        [text("-"), text("-"), text("full")],
        &edits(records, "", Density::SMALL, Scope::Full),
        options,
        "T7/full",
    );
    for preset in presets(records) {
        for size in Density::PUBLISHED {
            for scope in [Scope::Random, Scope::Circuit, Scope::Complement] {
                let name = scope_label(scope);
                let head = [text(preset), text(size.label()), text(name)];
                let purpose = format!("T7/{preset}/{}/{name}", size.label());
                rows.extend(scope_rows(head, &edits(records, preset, size, scope), options, &purpose));
            }
        }
    }
    let notes = vec![
        "Each request is averaged over tasks first. Hyponym: \"A British Shorthair is a kind of\"; hypernym: \
         the level above, \"A cat is a kind of\"."
            .into(),
        "Hypernym - hyponym: mean difference over pairs of a hyponym request and the hypernym request above \
         it (cases 2k and 2k + 1); a change above zero means that the higher level is harder to edit. Its p \
         is of the two-sided sign-flip test of the change."
            .into(),
        format!(
            "P(new) before the edit is low for perplexing requests, which leaves more room to fall. \
             Spearman: its rank correlation with edit success, measured as the fall of NLL(new) (minus the \
             change), over requests; p by {} permutations.",
            rank::PERMUTATIONS
        ),
        options.intervals("requests, or over pairs for the difference"),
        options.source(),
    ];
    table("T7", "Editing by level of the hierarchy".into(), notes, &COLUMNS, rows)
}

fn scope_rows(
    head: [Cell; 3],
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

fn level_row(name: &str, requests: &[Request], options: &TableOptions, purpose: &str) -> Vec<Cell> {
    let changes: Vec<f64> = requests.iter().map(|r| r.change).collect();
    let cases: Vec<u64> = requests.iter().map(|r| r.case_id).collect();
    let falls: Vec<f64> = changes.iter().map(|change| -change).collect();
    let p_new: Vec<f64> = requests.iter().map(|r| r.p_new).collect();
    let correlation = rank::spearman_permutation(
        &p_new,
        &falls,
        rank::PERMUTATIONS,
        options.stream(&format!("{purpose}/rho")),
    );
    vec![
        text(name),
        count(requests.len()),
        estimate(options.mean(&changes, &cases, purpose), Style::Fixed3),
        percent(mean(requests.iter().map(|r| r.success))),
        number(mean(p_new), Style::Significant3),
        number(correlation.map(|c| c.rho), Style::Fixed3),
        number(correlation.map(|c| c.p_value), Style::Significant3),
    ]
}

fn difference_row(requests: &[Request], options: &TableOptions, purpose: &str) -> Option<Vec<Cell>> {
    let pairs = pairs(requests);
    let difference =
        |of: fn(&Request) -> f64| pairs.iter().map(|(low, high)| of(high) - of(low)).collect::<Vec<f64>>();
    let changes = difference(|r| r.change);
    let cases: Vec<u64> = pairs.iter().map(|(low, _)| low.case_id).collect();
    Some(vec![
        text("hypernym - hyponym"),
        count(pairs.len()),
        estimate(options.mean(&changes, &cases, purpose)?, Style::Fixed3),
        percent(mean(difference(|r| r.success))),
        number(mean(difference(|r| r.p_new)), Style::Significant3),
        Cell::Empty(()),
        number(sign_flip(&changes, options.stream(&format!("{purpose}/flips"))).p_value, Style::Significant3),
    ])
}
