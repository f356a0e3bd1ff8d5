//! Editing: T2 and T3 (every task at one size) and T4b (every size on the hierarchy task), and the changes of NLL that
//! claims and figures use too.

use locus_metrics::{
    Interval,
    token::{beats, probability},
};

use super::{
    cells::{count, estimate, number, percent, table, text},
    options::TableOptions,
    select::{Density, distinct, distinct_tasks, edits, mean, presets, scope_label},
};
use crate::{
    records::{EditOutcome, HIERARCHY, NO_TASK, Records, Scope},
    results::{Cell, Style, Table},
};

/// Columns after those that label the row.
const COLUMNS: [&str; 13] = [
    "requests",
    "NLL(new) before",
    "NLL(new) after",
    "P(new) before",
    "P(new) after",
    "NLL(true) before",
    "NLL(true) after",
    "P(true) before",
    "P(true) after",
    "change of NLL(new)",
    "change of NLL(true)",
    "new beats true before",
    "new beats true after",
];

/// T2: editing with the circuits that keep 5 % of the parameters.
///
/// Rows: the full model; for each preset random masks, circuit and complement of every task (the hierarchy first), and
/// the means of circuits and complements over tasks.
///
/// Columns: preset, task and scope; number of requests; NLL (nats per target token) and probability (0 to 1) of the new
/// and of the true target before and after the edit; change of both NLLs (nats, after minus before) with intervals over
/// requests; share of requests whose new target is more probable than the true one, before and after the edit (%).
pub fn t2(records: &Records, options: &TableOptions) -> Table {
    at("T2", Density::SMALL, records, options)
}

/// T3: editing with the circuits that keep 50 % of the parameters; rows and columns are those of [`t2`].
pub fn t3(records: &Records, options: &TableOptions) -> Table {
    at("T3", Density::LARGE, records, options)
}

fn at(id: &str, density: Density, records: &Records, options: &TableOptions) -> Table {
    let purpose = |preset: &str, task: &str, scope| format!("{id}/{preset}/{task}/{}", scope_label(scope));
    let mut rows = Vec::new();
    let mut push = |preset: &str, task: &str, scope, edits: &[&EditOutcome]| {
        if !edits.is_empty() {
            let mut row = vec![text(preset), text(task), text(scope_label(scope))];
            row.extend(cells(edits, options, &purpose(preset, task, scope)));
            rows.push(row);
        }
    };
    let masked = |preset: &&str| {
        [Scope::Circuit, Scope::Complement, Scope::Random]
            .iter()
            .any(|&s| !edits(records, preset, density, s).is_empty())
    };
    let presets: Vec<&str> = presets(records).into_iter().filter(masked).collect();
    if !presets.is_empty() {
        push("-", NO_TASK, Scope::Full, &edits(records, "", density, Scope::Full));
    }
    for preset in presets {
        push(preset, NO_TASK, Scope::Random, &edits(records, preset, density, Scope::Random));
        let by_scope =
            [Scope::Circuit, Scope::Complement].map(|scope| (scope, edits(records, preset, density, scope)));
        for task in
            distinct_tasks(by_scope.iter().flat_map(|(_, edits)| edits.iter().map(|e| e.task.as_str())))
        {
            for (scope, edits) in &by_scope {
                let of_task: Vec<&EditOutcome> = edits.iter().copied().filter(|e| e.task == task).collect();
                push(preset, task, *scope, &of_task);
            }
        }
        for (scope, edits) in &by_scope {
            push(preset, "mean over tasks", *scope, edits);
        }
    }
    let title = format!("Editing with circuits of {} of the parameters", density.label());
    let mut notes = notes(options);
    notes.push(
        "Full: the intact model. Random: a random mask of the circuits' target density. Mean over tasks: \
         over all pairs of task and request."
            .into(),
    );
    let columns: Vec<&str> = ["preset", "task", "scope"].into_iter().chain(COLUMNS).collect();
    table(id, title, notes, &columns, rows)
}

/// T4b: editing with the hierarchy circuits of every size.
///
/// Rows: for each preset and size, from large to small, the circuit, its complement and, where they were edited, random
/// masks of that size. Columns: preset, target density and scope, then those of [`t2`] from the number of requests on.
pub fn t4b(records: &Records, options: &TableOptions) -> Table {
    let mut rows = Vec::new();
    for preset in presets(records) {
        for (density, scope, edits) in sweep(records, preset) {
            let (size, scope) = (density.label(), scope_label(scope));
            let mut row = vec![text(preset), text(size.as_str()), text(scope)];
            row.extend(cells(&edits, options, &format!("T4b/{preset}/{size}/{scope}")));
            rows.push(row);
        }
    }
    let columns: Vec<&str> = ["preset", "target density", "scope"].into_iter().chain(COLUMNS).collect();
    let title = "Circuit size on the hierarchy task: editing".into();
    table("T4b", title, notes(options), &columns, rows)
}

/// The edits of the size sweep of one preset: sizes from large to small, within each circuit, complement and random
/// mask.
pub(crate) fn sweep<'a>(records: &'a Records, preset: &str) -> Vec<(Density, Scope, Vec<&'a EditOutcome>)> {
    let of_preset: Vec<&EditOutcome> = records.edits.iter().filter(|e| e.preset == preset).collect();
    let on_hierarchy = of_preset.iter().filter(|e| e.task == HIERARCHY);
    let mut groups = Vec::new();
    for density in distinct(on_hierarchy.map(|e| Density::of(e.target_density))).into_iter().rev() {
        for scope in [Scope::Circuit, Scope::Complement, Scope::Random] {
            let belongs = |e: &&EditOutcome| {
                let fits_task = e.task == HIERARCHY || scope == Scope::Random;
                fits_task && e.scope == scope && Density::of(e.target_density) == density
            };
            let edits: Vec<&EditOutcome> = of_preset.iter().copied().filter(belongs).collect();
            if !edits.is_empty() {
                groups.push((density, scope, edits));
            }
        }
    }
    groups
}

/// Change of the new target's NLL, in nats per token: below zero when the new target became more probable.
pub(crate) fn change_new(e: &EditOutcome) -> f64 {
    e.post_new - e.pre_new
}

/// Change of the true target's NLL, in nats per token.
fn change_true(e: &EditOutcome) -> f64 {
    e.post_true - e.pre_true
}

/// 1 when the new target is more probable than the true one after the edit, otherwise 0.
pub(crate) fn success(e: &EditOutcome) -> f64 {
    f64::from(u8::from(beats(e.post_new, e.post_true)))
}

/// Mean change of NLL(new) with its interval over requests.
pub(crate) fn mean_change(edits: &[&EditOutcome], options: &TableOptions, purpose: &str) -> Option<Interval> {
    interval(edits, change_new, options, purpose)
}

fn interval(
    edits: &[&EditOutcome],
    value: fn(&EditOutcome) -> f64,
    options: &TableOptions,
    purpose: &str,
) -> Option<Interval> {
    let values: Vec<f64> = edits.iter().map(|e| value(e)).collect();
    let requests: Vec<u64> = edits.iter().map(|e| e.case_id).collect();
    options.mean(&values, &requests, purpose)
}

/// The cells under [`COLUMNS`].
fn cells(edits: &[&EditOutcome], options: &TableOptions, purpose: &str) -> Vec<Cell> {
    let over = |value: &dyn Fn(&EditOutcome) -> f64| mean(edits.iter().map(|e| value(e)));
    let nll = |value: fn(&EditOutcome) -> f64| number(over(&value), Style::Fixed3);
    let p = |value: fn(&EditOutcome) -> f64| number(over(&|e| probability(value(e))), Style::Significant3);
    vec![
        count(distinct(edits.iter().map(|e| e.case_id)).len()),
        nll(|e| e.pre_new),
        nll(|e| e.post_new),
        p(|e| e.pre_new),
        p(|e| e.post_new),
        nll(|e| e.pre_true),
        nll(|e| e.post_true),
        p(|e| e.pre_true),
        p(|e| e.post_true),
        estimate(interval(edits, change_new, options, &format!("{purpose}/new")), Style::Fixed3),
        estimate(interval(edits, change_true, options, &format!("{purpose}/true")), Style::Fixed3),
        percent(over(&|e| f64::from(u8::from(beats(e.pre_new, e.pre_true))))),
        percent(over(&success)),
    ]
}

/// Notes that explain the columns.
fn notes(options: &TableOptions) -> Vec<String> {
    vec![
        "NLL: mean per target token after the prompt, in nats, averaged over requests. P: exp(-NLL), \
         averaged over requests (not the exponential of the averaged NLL)."
            .into(),
        "Change: after minus before; a change of NLL(new) below zero means that the edit took. New beats \
         true: share of requests whose new target is more probable per token than the true one."
            .into(),
        options.intervals("requests (all rows of a request together)"),
        options.source(),
    ]
}
