//! Editing: T2 and T3 (every task at one size) and T4b (every size on the hierarchy task), and the changes of NLL that
//! claims and figures use too.

use std::collections::BTreeMap;

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
    records::{Calibration, EditKind, EditOutcome, HIERARCHY, NO_TASK, Records, Scope},
    results::{Cell, Style, Table},
};

/// Columns after those that label the row.
const COLUMNS: [&str; 19] = [
    "requests",
    "NLL(new) before",
    "NLL(new) after",
    "P(new) before",
    "P(new) after",
    "NLL(true) before",
    "NLL(true) after",
    "P(true) before",
    "P(true) after",
    "discrimination before",
    "change of NLL(new)",
    "change of the margin",
    "new beats true before",
    "new beats true after",
    "steps to success",
    "paraphrases",
    "neighbourhood",
    "drift",
    "margin gained at equal damage",
];

/// Kinds of mask whose scopes T2 and T3 show for every task; those of the others are shown as means over tasks.
const OF_EVERY_TASK: [Scope; 2] = [Scope::Circuit, Scope::Complement];
/// Scopes shown as means over tasks, in order.
const AS_MEANS: [Scope; 15] = [
    Scope::Circuit,
    Scope::Complement,
    Scope::CircuitInPlace,
    Scope::FrozenCircuit,
    Scope::Matched,
    Scope::MatchedComplement,
    Scope::MatchedInPlace,
    Scope::Shuffled,
    Scope::ShuffledComplement,
    Scope::Magnitude,
    Scope::MagnitudeComplement,
    Scope::Random,
    Scope::RandomComplement,
    Scope::RandomWeights,
    Scope::RandomWeightsComplement,
];

/// T2: editing with the circuits that keep 5 % of the parameters.
///
/// Rows: for each kind of edit the full model, with its blocks frozen, and of random weights; for each preset circuit and
/// complement of every task (the hierarchy first), then the means over tasks of these and of all controls.
///
/// Columns: kind of edit, preset, task and scope; number of requests; NLL (nats per target token) and probability (from
/// 0 to 1) of the new and of the true target before and after the edit; discrimination before (share of other requests'
/// targets less probable than the true one, %); changes of NLL(new) and of the margin NLL(new) - NLL(true) (nats, after
/// minus before) with intervals over requests; share of requests whose new target is more probable than the true one,
/// before and after (%); mean number of steps after which it first was, over requests where it was; share of paraphrases
/// with that outcome and of prompts about other subjects whose true target still wins (%); drift of the NLL of neutral
/// text (nats per token); margin gained, minus what control masks of equal damage gain (nats).
pub fn t2(records: &Records, options: &TableOptions) -> Table {
    at("T2", Density::SMALL, records, options)
}

/// T3: editing with the circuits that keep 50 % of the parameters; rows and columns are those of [`t2`].
pub fn t3(records: &Records, options: &TableOptions) -> Table {
    at("T3", Density::LARGE, records, options)
}

fn at(id: &str, density: Density, records: &Records, options: &TableOptions) -> Table {
    let mut rows = Vec::new();
    let masked: Vec<&str> = presets(records)
        .into_iter()
        .filter(|preset| {
            records.edits.iter().any(|e| e.preset == *preset && Density::of(e.target_density) == density)
        })
        .collect();
    for kind in EditKind::ALL {
        let damage = DamageLine::of_margins(records, density, kind);
        let mut push = |preset: &str, task: &str, scope, edits: &[&EditOutcome]| {
            if !edits.is_empty() {
                let label = scope_label(scope);
                let purpose = format!("{id}/{preset}/{task}/{label}/{}", kind.label());
                let mut row = vec![text(kind.label()), text(preset), text(task), text(label)];
                row.extend(cells(edits, damage.as_ref(), options, &purpose));
                rows.push(row);
            }
        };
        if masked.is_empty() {
            continue;
        }
        for scope in [Scope::Full, Scope::FrozenFull, Scope::RandomWeightsFull] {
            push("-", NO_TASK, scope, &edits(records, "", density, scope, kind));
        }
        for &preset in &masked {
            let of_tasks = OF_EVERY_TASK.map(|scope| (scope, edits(records, preset, density, scope, kind)));
            let tasks = of_tasks.iter().flat_map(|(_, edits)| edits.iter().map(|e| e.task.as_str()));
            for task in distinct_tasks(tasks) {
                for (scope, edits) in &of_tasks {
                    let of_task: Vec<&EditOutcome> =
                        edits.iter().copied().filter(|e| e.task == task).collect();
                    push(preset, task, *scope, &of_task);
                }
            }
            for scope in AS_MEANS {
                push(preset, "mean over tasks", scope, &edits(records, preset, density, scope, kind));
            }
        }
    }
    let title = format!("Editing with circuits of {} of the parameters", density.label());
    let mut notes = notes(records, options);
    notes.push(
        "Full: the intact model. Random: a random mask of the circuits' target density. Mean over tasks: \
         over all pairs of task and request."
            .into(),
    );
    let columns: Vec<&str> = ["edit", "preset", "task", "scope"].into_iter().chain(COLUMNS).collect();
    table(id, title, notes, &columns, rows)
}

/// T4b: editing with the hierarchy circuits of every size, by the published edit of 10 steps.
///
/// Rows: for each preset and size, from large to small, the circuit, its complement, matched masks and theirs and, where
/// they were edited, random masks of that size. Columns: preset, target density and scope, then those of [`t2`] from the
/// number of requests on.
pub fn t4b(records: &Records, options: &TableOptions) -> Table {
    let mut rows = Vec::new();
    for preset in presets(records) {
        for (density, scope, edits) in sweep(records, preset) {
            let damage = DamageLine::of_margins(records, density, EditKind::Steps10);
            let (size, scope) = (density.label(), scope_label(scope));
            let mut row = vec![text(preset), text(size.as_str()), text(scope)];
            row.extend(cells(&edits, damage.as_ref(), options, &format!("T4b/{preset}/{size}/{scope}")));
            rows.push(row);
        }
    }
    let columns: Vec<&str> = ["preset", "target density", "scope"].into_iter().chain(COLUMNS).collect();
    let title = "Circuit size on the hierarchy task: editing".into();
    table("T4b", title, notes(records, options), &columns, rows)
}

/// The edits of 10 steps of the size sweep of one preset: sizes from large to small, within each circuit, complement,
/// matched masks and theirs, and random masks.
pub(crate) fn sweep<'a>(records: &'a Records, preset: &str) -> Vec<(Density, Scope, Vec<&'a EditOutcome>)> {
    const SCOPES: [Scope; 5] =
        [Scope::Circuit, Scope::Complement, Scope::Matched, Scope::MatchedComplement, Scope::Random];
    let of_preset: Vec<&EditOutcome> =
        records.edits.iter().filter(|e| e.preset == preset && e.edit == EditKind::Steps10).collect();
    let on_hierarchy = of_preset.iter().filter(|e| e.task == HIERARCHY);
    let mut groups = Vec::new();
    for density in distinct(on_hierarchy.map(|e| Density::of(e.target_density))).into_iter().rev() {
        for scope in SCOPES {
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

/// Masks that know no task, and their complements.
pub(crate) const CONTROL_MASKS: [Scope; 4] =
    [Scope::Random, Scope::RandomComplement, Scope::Matched, Scope::MatchedComplement];

/// What damage alone brings, since a broken model is easier to move: the least-squares line of a value on another one
/// over control masks, each of which counts once with its means over requests.
pub(crate) struct DamageLine {
    before: f64,
    value: f64,
    pub(crate) slope: f64,
}

impl DamageLine {
    /// The line through edits of control masks, each beside what tells its mask from others. `None` with fewer than four
    /// masks or without variation.
    pub(crate) fn through<'a, M: Ord>(
        edits: impl Iterator<Item = (M, &'a EditOutcome)>,
        before: impl Fn(&EditOutcome) -> f64,
        value: impl Fn(&EditOutcome) -> f64,
    ) -> Option<Self> {
        let mut masks: BTreeMap<M, [f64; 3]> = BTreeMap::new();
        for (mask, edit) in edits {
            let sums = masks.entry(mask).or_default();
            sums[0] += before(edit);
            sums[1] += value(edit);
            sums[2] += 1.0;
        }
        let points: Vec<[f64; 2]> = masks.values().map(|[x, y, n]| [x / n, y / n]).collect();
        let n = points.len() as f64;
        let [x, y] = [0, 1].map(|i| points.iter().map(|point| point[i]).sum::<f64>() / n);
        let xx: f64 = points.iter().map(|point| (point[0] - x) * (point[0] - x)).sum();
        let xy: f64 = points.iter().map(|point| (point[0] - x) * (point[1] - y)).sum();
        let varies = points.len() >= 4 && xx > 1e-9 * n;
        varies.then_some(DamageLine { before: x, value: y, slope: xy / xx })
    }

    /// The line of the margin's change on the margin before, over the control masks of one size.
    fn of_margins(records: &Records, density: Density, kind: EditKind) -> Option<Self> {
        let controls = records.edits.iter().filter(|e| {
            CONTROL_MASKS.contains(&e.scope) && e.edit == kind && Density::of(e.target_density) == density
        });
        let masks = controls.map(|e| ((e.scope, &e.preset, &e.task, e.draw), e));
        DamageLine::through(masks, |e| e.pre_new - e.pre_true, change_margin)
    }

    /// Margin gained by an edit beyond what controls of equal damage gain; positive where the edit took better.
    fn gained(&self, e: &EditOutcome) -> f64 {
        self.value + self.slope * (e.pre_new - e.pre_true - self.before) - change_margin(e)
    }
}

/// Change of the new target's NLL, in nats per token: below zero when the new target became more probable.
pub(crate) fn change_new(e: &EditOutcome) -> f64 {
    e.post_new - e.pre_new
}

/// Change of the margin NLL(new) - NLL(true), in nats per token: below zero when the new target gained on the true one.
pub(crate) fn change_margin(e: &EditOutcome) -> f64 {
    (e.post_new - e.post_true) - (e.pre_new - e.pre_true)
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
fn cells(
    edits: &[&EditOutcome],
    damage: Option<&DamageLine>,
    options: &TableOptions,
    purpose: &str,
) -> Vec<Cell> {
    let over = |value: &dyn Fn(&EditOutcome) -> f64| mean(edits.iter().map(|e| value(e)));
    let known = |value: &dyn Fn(&EditOutcome) -> Option<f64>| mean(edits.iter().filter_map(|e| value(e)));
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
        percent(known(&|e| e.discrimination)),
        estimate(interval(edits, change_new, options, &format!("{purpose}/new")), Style::Fixed3),
        estimate(interval(edits, change_margin, options, &format!("{purpose}/margin")), Style::Fixed3),
        percent(over(&|e| f64::from(u8::from(beats(e.pre_new, e.pre_true))))),
        percent(over(&success)),
        number(known(&|e| Some(e.steps_to_success? as f64)), Style::Fixed3),
        percent(known(&|e| e.paraphrase)),
        percent(known(&|e| e.neighbourhood)),
        number(known(&|e| e.drift), Style::Fixed3),
        number(known(&|e| Some(damage?.gained(e))), Style::Fixed3),
    ]
}

/// Notes that explain the columns.
fn notes(records: &Records, options: &TableOptions) -> Vec<String> {
    let mut notes = vec![
        "NLL: mean per target token after the prompt, in nats, averaged over requests. P: exp(-NLL), \
         averaged over requests (not the exponential of the averaged NLL). Discrimination: share of other requests' \
         true targets that are less probable than the true one (50 % is chance): a model that prefers every frequent word \
         has no knowledge."
            .into(),
        "Change: after minus before; below zero the new target became likelier, and by the margin NLL(new) - NLL(true) \
         likelier than the true one did. New beats true: share of requests whose new target is more probable per token \
         than the true one, which in a model without knowledge is about half of them before any edit. Steps to success: \
         steps after which it first was, of 1, 2, 5, 10, 20 and 50, over the requests where it was."
            .into(),
        "Margin gained at equal damage: what control masks (random, matched and their complements) with the same margin \
         before change, minus the change; above zero the edit took better than damage alone explains. Drift is measured on \
         every eighth pair of a hyponym and its hypernym."
            .into(),
    ];
    if let Some(Calibration { factor, wanted, success, drift, requests }) = records.calibration {
        let drift = drift.map_or_else(String::new, |drift| format!(", drift {drift:.3} nats per token"));
        notes.push(format!(
            "Calibrated: 10 steps with learning rate and clamp of the published edit times {factor}, the smallest power of \
             two with which the full model prefers the new target for {:.0} % of {requests} requests (reached: {:.1} \
             %{drift}); the same for every scope.",
            100.0 * wanted,
            100.0 * success
        ));
    }
    notes.extend([options.intervals("requests (all rows of a request together)"), options.source()]);
    notes
}
