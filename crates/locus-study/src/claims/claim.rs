//! A published claim, the rows that bear on it, and what all claims need of the records.

use std::collections::BTreeMap;

use locus_metrics::two_way::{Cell, Estimate, mean};

use super::gate::Gate;
use super::rule::{Claimed, FEWEST_REQUESTS};
use crate::{
    records::{EditKind, EditOutcome, Records, Scope},
    results::{ClaimRow, Verdict},
    tables::{
        editing::{CONTROL_MASKS, DamageLine},
        select::{Density, family, is_whole},
    },
};

/// A published claim and how it is decided.
pub(super) struct PublishedClaim {
    pub(super) id: &'static str,
    pub(super) claim: &'static str,
    /// What was published where.
    pub(super) source: &'static str,
    pub(super) statistic: &'static str,
    /// Tables whose records decide the claim.
    pub(super) needs: &'static str,
    /// Whether the claim is about facts that the model has to know.
    pub(super) about_facts: bool,
    /// Every comparison that the records of one preset allow.
    pub(super) rows: fn(&Question) -> Vec<ClaimRow>,
}

/// The records of one preset, with what was found about the model's competence.
pub(super) struct Question<'a> {
    pub(super) records: &'a Records,
    pub(super) preset: &'a str,
    pub(super) gate: &'a Gate<'a>,
    /// Component of each request.
    components: BTreeMap<u64, usize>,
    /// Edits by kind and size.
    edits: BTreeMap<(EditKind, Density), EditIndex<'a>>,
}

/// What a row is about; the numbers come from an estimate.
#[derive(Clone, Copy)]
pub(super) struct Label<'a> {
    pub(super) part: &'a str,
    pub(super) measure: &'a str,
    pub(super) against: &'a str,
    pub(super) size: Option<Density>,
    pub(super) edit: Option<EditKind>,
    pub(super) unit: &'a str,
    pub(super) decides: bool,
}

impl<'a> Question<'a> {
    pub(super) fn new(records: &'a Records, preset: &'a str, gate: &'a Gate<'a>) -> Self {
        let components =
            records.requests.iter().map(|request| (request.case_id, request.component)).collect();
        let mut edits: BTreeMap<(EditKind, Density), EditIndex> = BTreeMap::new();
        let sizes: Vec<Density> = Density::MAIN.to_vec();
        for edit in &records.edits {
            let whole = is_whole(edit.scope);
            if !whole && edit.preset != preset && !is_task_free(edit.scope) {
                continue;
            }
            for &size in &sizes {
                if whole || Density::of(edit.target_density) == size {
                    edits.entry((edit.edit, size)).or_default().add(edit);
                }
            }
        }
        Question { records, preset, gate, components, edits }
    }

    /// Edits of one kind with masks of one size.
    pub(super) fn edits(&self, kind: EditKind, size: Density) -> Option<&EditIndex<'a>> {
        self.edits.get(&(kind, size))
    }

    /// The kind of edit that decides: that of most published runs, where this recipe's circuits of as many families were
    /// edited so as by the short edit.
    pub(super) fn deciding_edit(&self) -> EditKind {
        let families = |kind: EditKind| {
            let edited = self
                .records
                .edits
                .iter()
                .filter(|e| e.edit == kind && e.preset == self.preset && e.scope == Scope::Circuit);
            edited.map(|e| family(&e.task)).collect::<std::collections::BTreeSet<_>>().len()
        };
        if families(EditKind::Steps50) >= families(EditKind::Steps10).max(1) {
            EditKind::Steps50
        } else {
            EditKind::Steps10
        }
    }

    /// The component of a request; a request of its own where the records do not say.
    pub(super) fn component(&self, case_id: u64) -> usize {
        self.components.get(&case_id).copied().unwrap_or(usize::MAX - case_id as usize)
    }

    /// Values of a combination of scopes, `sum_i weight_i value(scope_i)`, for every request and every task whose
    /// circuit of this size does its task. Draws of a scope are averaged; a task or request that lacks a scope is left
    /// out.
    pub(super) fn cells(
        &self,
        index: &EditIndex<'a>,
        size: Density,
        terms: &[(f64, Scope)],
        value: &dyn Fn(&EditOutcome) -> Option<f64>,
    ) -> Vec<Cell<usize, &'a str>> {
        let mut cells = Vec::new();
        for task in self.gate.working_tasks(self.preset, size) {
            let scopes: Option<Vec<(f64, &ByCase)>> =
                terms.iter().map(|&(weight, scope)| Some((weight, index.of(scope, task)?))).collect();
            let Some(scopes) = scopes else { continue };
            for case_id in scopes[0].1.keys() {
                let term = |(weight, by_case): &(f64, &ByCase)| {
                    let draws = by_case.get(case_id)?;
                    let sum: Option<f64> = draws.iter().map(|edit| value(edit)).sum();
                    Some(weight * sum? / draws.len() as f64)
                };
                let sum: Option<f64> = scopes.iter().map(term).sum();
                if let Some(value) = sum {
                    cells.push(Cell { item: self.component(*case_id), group: family(task), value });
                }
            }
        }
        cells
    }

    /// A row from cells of requests, undecided where they are few; `None` without an estimate.
    pub(super) fn row_of_requests(
        &self,
        label: Label,
        cells: &[Cell<usize, &str>],
        claimed: Claimed,
    ) -> Option<ClaimRow> {
        let row = self.row_of_cells(label, cells, claimed)?;
        let verdict = if row.items < FEWEST_REQUESTS { Verdict::Undecided } else { row.verdict };
        Some(ClaimRow { verdict, ..row })
    }

    /// A row from cells; `None` without an estimate.
    pub(super) fn row_of_cells(
        &self,
        label: Label,
        cells: &[Cell<usize, &str>],
        claimed: Claimed,
    ) -> Option<ClaimRow> {
        let distinct = |mut keys: Vec<usize>| {
            keys.sort_unstable();
            keys.dedup();
            keys.len()
        };
        let items = distinct(cells.iter().map(|cell| cell.item).collect());
        let mut families: Vec<&str> = cells.iter().map(|cell| cell.group).collect();
        families.sort_unstable();
        families.dedup();
        Some(self.row(label, mean(cells)?, items, families.len(), claimed))
    }

    /// A row from an estimate.
    pub(super) fn row(
        &self,
        label: Label,
        estimate: Estimate,
        items: usize,
        families: usize,
        claimed: Claimed,
    ) -> ClaimRow {
        let Label { part, measure, against, size, edit, unit, decides } = label;
        ClaimRow {
            recipe: self.preset.into(),
            part: part.into(),
            measure: measure.into(),
            against: against.into(),
            size: size.map(Density::label).unwrap_or_default(),
            edit: edit.map(|kind| kind.label().to_owned()).unwrap_or_default(),
            unit: unit.into(),
            effect: estimate.value,
            low: estimate.low,
            high: estimate.high,
            p_value: estimate.p_value,
            smallest_visible: estimate.smallest_visible,
            items,
            families,
            decides,
            verdict: claimed.verdict(&estimate),
        }
    }
}

/// Scopes that no recipe was needed for.
fn is_task_free(scope: Scope) -> bool {
    matches!(scope, Scope::Random | Scope::RandomComplement)
}

/// Edits of one scope and task by request; several draws of a mask each.
type ByCase<'a> = BTreeMap<u64, Vec<&'a EditOutcome>>;

/// Edits by scope and task.
#[derive(Default)]
pub(super) struct EditIndex<'a> {
    of: BTreeMap<(Scope, &'a str), ByCase<'a>>,
}

impl<'a> EditIndex<'a> {
    fn add(&mut self, edit: &'a EditOutcome) {
        // Scopes without a task are the partners of every task.
        let task = if is_whole(edit.scope) || is_task_free(edit.scope) { "" } else { edit.task.as_str() };
        self.of.entry((edit.scope, task)).or_default().entry(edit.case_id).or_default().push(edit);
    }

    /// Edits of a scope that belong to a task, or to none where the scope has none.
    fn of(&self, scope: Scope, task: &'a str) -> Option<&ByCase<'a>> {
        let task = if is_whole(scope) || is_task_free(scope) { "" } else { task };
        self.of.get(&(scope, task))
    }

    /// Slope of a value on another over the control masks of this size: the change that damage alone brings. Masks of
    /// other tasks than the given ones are left out. `None` with fewer than four masks or without variation.
    pub(super) fn slope_over_controls(
        &self,
        tasks: &[&str],
        before: &dyn Fn(&EditOutcome) -> f64,
        value: &dyn Fn(&EditOutcome) -> f64,
    ) -> Option<f64> {
        let belongs = |scope: &Scope, task: &str| {
            CONTROL_MASKS.contains(scope) && (task.is_empty() || tasks.contains(&task))
        };
        let controls = self.of.iter().filter(|((scope, task), _)| belongs(scope, task));
        let masks = controls.flat_map(|(&(scope, task), by_case)| {
            by_case.values().flatten().map(move |&edit| ((scope, task, edit.draw), edit))
        });
        Some(DamageLine::through(masks, before, value)?.slope)
    }
}

/// An interval with signs: `+0.123 [+0.100, +0.150]`.
pub(super) fn signed(row: &ClaimRow) -> String {
    format!("{:+.3} [{:+.3}, {:+.3}]", row.effect, row.low, row.high)
}
