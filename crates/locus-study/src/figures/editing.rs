//! NLL of the new and the true target before and after editing.

use crate::{
    records::{EditKind, EditOutcome, Records, Scope},
    results::{BeforeAfter, Figure, Plot},
    tables::select::{Density, distinct_tasks, edits, mean, scope_label},
};

type Nll = fn(&EditOutcome) -> f64;

const SERIES: [(&str, Nll, Nll); 2] =
    [("new target", |e| e.pre_new, |e| e.post_new), ("true target", |e| e.pre_true, |e| e.post_true)];

pub(super) fn before_after(records: &Records, preset: &str) -> Vec<Figure> {
    let at = |(id, size): (&str, Density)| {
        let groups = groups(records, preset, size);
        let masked = groups.iter().any(|(label, _)| label != scope_label(Scope::Full));
        masked.then(|| {
            let plot = Plot::BeforeAfter {
                x_label: "NLL per target token (nats)".into(),
                entries: groups.iter().flat_map(|(label, edits)| entries(label, edits)).collect(),
            };
            let caption = "Mean NLL of the new and the true target before and after each request was edited (10 steps), \
                           by task and scope. Left is more probable; an edit that takes moves the new target \
                           to the left, past the true one.";
            let title = format!("Editing with circuits of {}", size.label());
            Figure { id: id.into(), title, caption: caption.into(), plot }
        })
    };
    [("T2-nll", Density::SMALL), ("T3-nll", Density::LARGE)].into_iter().filter_map(at).collect()
}

/// Rows of the figure: full model, random mask, then circuit and complement of every task.
fn groups<'a>(records: &'a Records, preset: &str, size: Density) -> Vec<(String, Vec<&'a EditOutcome>)> {
    let edits_in = |scope| edits(records, preset, size, scope, EditKind::Steps10);
    let mut groups: Vec<(String, Vec<&EditOutcome>)> =
        [Scope::Full, Scope::Random].map(|scope| (scope_label(scope).to_string(), edits_in(scope))).into();
    let scopes = [Scope::Circuit, Scope::Complement].map(|scope| (scope, edits_in(scope)));
    for task in distinct_tasks(scopes.iter().flat_map(|(_, edits)| edits.iter().map(|e| e.task.as_str()))) {
        for (scope, edits) in &scopes {
            let task_edits = edits.iter().copied().filter(|e| e.task == task).collect();
            groups.push((format!("{task}, {}", scope_label(*scope)), task_edits));
        }
    }
    groups.retain(|(_, edits)| !edits.is_empty());
    groups
}

fn entries(label: &str, edits: &[&EditOutcome]) -> Vec<BeforeAfter> {
    let over = |value: Nll| mean(edits.iter().map(|e| value(e))).filter(|nll| nll.is_finite());
    let entry = |(series, before, after): (&str, Nll, Nll)| {
        Some(BeforeAfter {
            label: label.into(),
            series: series.into(),
            before: over(before)?,
            after: over(after)?,
        })
    };
    SERIES.into_iter().filter_map(entry).collect()
}
