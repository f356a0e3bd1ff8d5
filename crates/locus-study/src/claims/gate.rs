//! Competence: what the model cannot do decides nothing.

use std::collections::{BTreeMap, BTreeSet};

use locus_metrics::classify::above_chance;
use locus_metrics::two_way::{Cell, Estimate, mean};

use super::rule::FEWEST_REQUESTS;
use crate::{
    records::{Extraction, Records, Schedule, Scope},
    tables::select::{Density, competence, task_order},
};

/// What the model and its circuits can do.
pub(super) struct Gate<'a> {
    /// Tasks on which the full model is above chance and a model of random weights, in order.
    pub(super) competent: Vec<&'a str>,
    /// Tasks on which it is not, in order.
    pub(super) at_chance: Vec<&'a str>,
    /// Tasks whose circuits do what the model does, by preset and size.
    working: BTreeMap<(&'a str, Density), Vec<&'a str>>,
    /// Circuits that do not, by preset: task and size.
    pub(super) broken: BTreeMap<&'a str, Vec<(&'a str, Density)>>,
    /// Discrimination of true targets by the full model, minus chance; `None` where it was not measured on as many
    /// independent requests as decide.
    pub(super) knowledge: Option<Estimate>,
}

impl<'a> Gate<'a> {
    pub(super) fn new(records: &'a Records) -> Self {
        let circuits = || {
            let all = records.extractions.iter();
            all.filter(|e| e.scope == Scope::Circuit && e.schedule == Schedule::Sweep)
        };
        let (competent, at_chance) = competence(records);
        let mut gate = Gate {
            competent,
            at_chance,
            working: BTreeMap::new(),
            broken: BTreeMap::new(),
            knowledge: knowledge(records),
        };
        let mut seen = BTreeSet::new();
        for e in circuits().filter(|e| gate.competent.contains(&e.task.as_str())) {
            let (preset, task, size) = (e.preset.as_str(), e.task.as_str(), Density::of(e.target_density));
            if e.draw > 0 || !seen.insert((preset, task, size)) {
                continue;
            }
            if e.reached && works(e) {
                gate.working.entry((preset, size)).or_default().push(task);
            } else {
                gate.broken.entry(preset).or_default().push((task, size));
            }
        }
        gate.working.values_mut().for_each(|tasks| tasks.sort_by_key(|task| task_order(task)));
        gate
    }

    /// A gate through which every task and every circuit goes.
    pub(super) fn open(records: &'a Records) -> Self {
        let mut gate = Gate::new(records);
        gate.competent.append(&mut gate.at_chance);
        gate.competent.sort_by_key(|task| task_order(task));
        gate.working.clear();
        for e in records.extractions.iter().filter(|e| e.scope == Scope::Circuit) {
            let tasks = gate.working.entry((e.preset.as_str(), Density::of(e.target_density))).or_default();
            if !tasks.contains(&e.task.as_str()) {
                tasks.push(&e.task);
            }
        }
        gate
    }

    /// Tasks whose circuits of a preset and size reached the size and agree with the model better than chance does.
    pub(super) fn working_tasks(&self, preset: &str, size: Density) -> Vec<&'a str> {
        let found = self.working.iter().find(|((p, s), _)| *p == preset && *s == size);
        found.map(|(_, tasks)| tasks.clone()).unwrap_or_default()
    }

    /// A sentence that names the tasks which the full model cannot do.
    pub(super) fn fails_tasks(&self) -> String {
        let tasks = self.at_chance.join(", ");
        format!("the full model is at chance, or no better than random weights, on {tasks}")
    }

    /// Why claims cannot be tested on this model; `None` when they can.
    pub(super) fn closed(&self, about_facts: bool) -> Option<String> {
        if self.competent.is_empty() && !self.at_chance.is_empty() {
            return Some(self.fails_tasks());
        }
        let unknown = self.knowledge.as_ref().filter(|estimate| about_facts && estimate.low <= 0.0)?;
        Some(format!(
            "the full model does not tell the true targets from those of other requests (it prefers them to {:.1} % \
             of the others, 50 % is chance)",
            100.0 * (unknown.value + 0.5)
        ))
    }
}

/// Whether a circuit agrees with its model better than chance does, each of the model's classes weighing alike.
fn works(e: &Extraction) -> bool {
    above_chance(e.balanced_agreement.unwrap_or(0.5), e.held_out_rows)
}

fn knowledge(records: &Records) -> Option<Estimate> {
    let component: BTreeMap<u64, usize> =
        records.requests.iter().map(|request| (request.case_id, request.component)).collect();
    let mut seen = BTreeSet::new();
    let full = records.edits.iter().filter(|e| e.scope == Scope::Full && seen.insert(e.case_id));
    let cells: Vec<Cell<u64, ()>> = full
        .filter_map(|e| {
            let item = component.get(&e.case_id).map_or(u64::MAX - e.case_id, |&component| component as u64);
            Some(Cell { item, group: (), value: e.discrimination? - 0.5 })
        })
        .collect();
    let items: BTreeSet<u64> = cells.iter().map(|cell| cell.item).collect();
    mean(&cells).filter(|_| items.len() >= FEWEST_REQUESTS)
}
