//! The claim about composition, C5: circuits consist largely of LayerNorm.

use std::collections::BTreeMap;

use locus_metrics::two_way::Cell;

use super::claim::{Label, PublishedClaim, Question};
use super::rule::Claimed;
use crate::{
    records::{Extraction, Scope},
    results::ClaimRow,
    tables::{
        composition::{Composition, Measures, ModuleKind, TensorPart},
        select::{Density, family, masks},
    },
};

pub(super) const C5: PublishedClaim = PublishedClaim {
    id: "C5",
    claim: "Circuits consist largely of LayerNorm, more than masks that know no task.",
    source: "Abstract, version 2: \"up to 60% of the circuits consist of layer normalization modules\". As a share of the \
             parameters this cannot be: LayerNorms are 0.04 % of GPT-2's blocks. D0 to D3 are this project's readings.",
    statistic: "Four readings, each for LayerNorm minus the larger of attention and MLP: D0, the share kept of a module; D1, \
                D0 over the sum of the three; D2, the share of the densest tensors; D3, the share of tensors denser than \
                the circuit. Each has to be above 0 in circuits and above what masks have that know no task (largest |w|, \
                trained on shuffled labels, found in random weights), at 5 % and 50 %. Parts: the four readings.",
    needs: "T6",
    about_facts: false,
    rows: mostly_layer_norm,
};

type Reading = fn(&Measures) -> Option<f64>;

const READINGS: [(&str, Reading); 4] =
    [("D0", |m| m.density), ("D1", |m| m.density_share), ("D2", |m| m.top_share), ("D3", |m| m.above_global)];

fn mostly_layer_norm(question: &Question) -> Vec<ClaimRow> {
    const CONTROLS: [(&str, Option<Scope>, bool); 5] = [
        ("over attention and MLP", None, true),
        ("beyond magnitude", Some(Scope::Magnitude), true),
        ("beyond shuffled labels", Some(Scope::Shuffled), true),
        ("beyond random weights", Some(Scope::RandomWeights), true),
        ("beyond random", Some(Scope::Random), false),
    ];
    let mut rows = Vec::new();
    for (reading, measure) in READINGS {
        for size in [Density::LARGE, Density::SMALL] {
            let circuits = lead(question, size, Scope::Circuit, measure);
            for (against, control, decides) in CONTROLS {
                let of_control = control.map(|scope| lead(question, size, scope, measure));
                let tasks = question.gate.working_tasks(question.preset, size).into_iter();
                let values: Vec<(&str, f64)> = tasks
                    .filter_map(|task| {
                        let base = of_control.as_ref().map_or(Some(0.0), |of| of.get(task).copied())?;
                        Some((task, circuits.get(task)? - base))
                    })
                    .collect();
                // Where there is one family only, its tasks are the groups.
                let one_family = values.iter().all(|(task, _)| family(task) == family(values[0].0));
                let group = |task| if one_family { task } else { family(task) };
                let cells: Vec<Cell<usize, &str>> =
                    values.iter().map(|&(task, value)| Cell { item: 0, group: group(task), value }).collect();
                let label = Label {
                    part: reading,
                    measure: reading,
                    against,
                    size: Some(size),
                    edit: None,
                    unit: "share",
                    decides,
                };
                rows.extend(question.row_of_cells(label, &cells, Claimed::positive(0.02)));
            }
        }
    }
    rows
}

/// How far LayerNorm leads attention and MLP in one reading, by task, averaged over draws.
fn lead<'a>(
    question: &Question<'a>,
    size: Density,
    scope: Scope,
    measure: Reading,
) -> BTreeMap<&'a str, f64> {
    let mut by_task: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for mask in masks(question.records, question.preset, size, scope) {
        if let Some(lead) = lead_of(mask, measure) {
            by_task.entry(&mask.task).or_default().push(lead);
        }
    }
    by_task.into_iter().map(|(task, leads)| (task, leads.iter().sum::<f64>() / leads.len() as f64)).collect()
}

fn lead_of(mask: &Extraction, measure: Reading) -> Option<f64> {
    let composition = Composition::new(mask, None);
    let of = |kind| measure(&composition.measures(kind, TensorPart::All));
    Some(of(ModuleKind::LayerNorm)? - of(ModuleKind::Attention)?.max(of(ModuleKind::Mlp)?))
}
