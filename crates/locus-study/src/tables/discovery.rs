//! Comparison of methods that find circuits: of edges (X1), and of parameters on the same pairs (X1b, and X1c for
//! transfer).

use super::{
    cells::{count, not_measured, number, percent, table, text},
    options::TableOptions,
    select::{Density, distinct, distinct_tasks, task_order},
};
use crate::{
    records::{Discovery, MaskComparison, Records, TRAINED},
    results::{Cell, Style, Table},
};

const EDGE_COLUMNS: [&str; 11] = [
    "task",
    "method",
    "pairs scored",
    "pairs measured",
    "edges",
    "CPR",
    "CMD",
    "CMD, log axis",
    "faithfulness at 5 %",
    "at 10 %",
    "at 20 %",
];

const MASK_COLUMNS: [&str; 9] = [
    "task",
    "size",
    "method",
    "parameters",
    "pairs measured",
    "accuracy, full model",
    "circuit",
    "complement",
    "faithfulness",
];

/// X1: methods that find circuits of edges.
///
/// Rows: tasks (the hierarchy first), within each the methods that score edges in the order they were run: exact
/// patching first, controls last.
///
/// Columns: number of pairs that edges were scored on and that circuits were measured on; number of edges of the graph;
/// area under faithfulness over the share of edges (MIB's CPR, 1 for the model), area between faithfulness and 1 (MIB's
/// CMD, 0 for the model) on a linear and on a logarithmic axis; faithfulness of the circuits of 5, 10 and 20 % of the
/// edges (%).
pub fn x1(records: &Records, options: &TableOptions) -> Table {
    let mut found: Vec<&Discovery> = records.discoveries.iter().collect();
    found.sort_by_key(|discovery| task_order(&discovery.task));
    let rows = found
        .into_iter()
        .map(|discovery| {
            let at = |share: f64| {
                percent(discovery.curve.iter().find(|p| p.share == share).map(|p| p.faithfulness))
            };
            vec![
                text(&discovery.task),
                text(&discovery.method),
                count(discovery.pairs),
                count(discovery.held_out_pairs),
                count(discovery.edges),
                number(discovery.cpr, Style::Fixed3),
                number(discovery.cmd, Style::Fixed3),
                number(discovery.cmd_log, Style::Fixed3),
                at(0.05),
                at(0.1),
                at(0.2),
            ]
        })
        .collect();
    let mut notes = vec![
        "Edges are scored on one half of the clean/corrupted pairs and the circuits measured on the other; \
         metric: logit difference at the last token; ablated edges carry the corrupted run's value."
            .into(),
        "Faithfulness: (circuit - no edges) / (full model - no edges) of the mean metric, at a share of the \
         edges (largest scores by magnitude, after pruning dead ends); above 100 % the circuit beats the \
         model."
            .into(),
        "CPR: area under faithfulness over the share of edges, 0.1 % to 100 % (higher is better, 1 is the \
         model). CMD: area between faithfulness and 1 (lower is better); on a logarithmic axis small \
         circuits count as much as large ones."
            .into(),
        "Controls: activation magnitude ranks edges by how much their source's output differs between the \
         two runs; random is the mean of ten random rankings."
            .into(),
        options.source(),
    ];
    notes.extend(not_measured(records, "X1"));
    table("X1", "Ways to find circuits of edges".into(), notes, &EDGE_COLUMNS, rows)
}

/// X1b: methods that find circuits of parameters, each measured on the task that it was found on.
///
/// Rows: tasks (the hierarchy first), sizes from large to small, within each the methods in the order they were run.
///
/// Columns: size asked for; share of the block parameters in the circuit (%); number of held-out pairs; share of pairs
/// on which the full model, the circuit and the complement prefer the correct answer (%); faithfulness of the circuit
/// (%, 0 for the model without blocks, 100 for the full model).
pub fn x1b(records: &Records, options: &TableOptions) -> Table {
    let mut found: Vec<&MaskComparison> =
        records.mask_comparisons.iter().filter(|found| found.task == found.tested_on).collect();
    found
        .sort_by_key(|found| (task_order(&found.task), std::cmp::Reverse(Density::of(found.target_density))));
    let rows = found
        .into_iter()
        .map(|found| {
            vec![
                text(&found.task),
                text(Density::of(found.target_density).label()),
                text(&found.method),
                percent(found.density),
                count(found.held_out_pairs),
                percent(found.accuracy_full),
                percent(found.accuracy),
                percent(found.accuracy_complement),
                percent(found.faithfulness),
            ]
        })
        .collect();
    let notes = vec![
        "Parameters outside the circuit are zero. Accuracy: share of held-out pairs whose correct answer has \
         the larger logit; the complement has exactly the parameters that the circuit lacks."
            .into(),
        "Faithfulness: (circuit - no blocks) / (full model - no blocks) of the mean logit difference; above \
         100 % the circuit is more decided than the model."
            .into(),
        "The trained mask is hard and trained at a falling density; the scores are one or a few backward \
         passes. Circuits of edges are the largest whose parameters fit into the size: an edge of an MLP \
         brings the whole MLP with it."
            .into(),
        "Controls: magnitude and random know no task; the shuffled mask keeps how many parameters of every \
         tensor the trained one has, but not which."
            .into(),
        options.source(),
    ];
    table("X1b", "Ways to find circuits of parameters".into(), notes, &MASK_COLUMNS, rows)
}

/// X1c: transfer of trained circuits between tasks.
///
/// Rows: sizes from large to small, within each the task that the circuit was trained on. Columns: the task that it was
/// measured on. Cells: share of that task's held-out pairs on which the circuit prefers the correct answer (%).
pub fn x1c(records: &Records, options: &TableOptions) -> Table {
    let trained: Vec<&MaskComparison> =
        records.mask_comparisons.iter().filter(|found| found.method == TRAINED).collect();
    let tasks = distinct_tasks(trained.iter().map(|found| found.task.as_str()));
    let mut rows: Vec<Vec<Cell>> = Vec::new();
    for size in distinct(trained.iter().map(|found| std::cmp::Reverse(Density::of(found.target_density)))) {
        for task in &tasks {
            let on = |tested_on: &str| {
                trained.iter().find(|found| {
                    found.task == *task
                        && found.tested_on == tested_on
                        && Density::of(found.target_density) == size.0
                })
            };
            let mut row = vec![text(size.0.label()), text(*task)];
            row.extend(tasks.iter().map(|tested_on| percent(on(tested_on).map(|found| found.accuracy))));
            rows.push(row);
        }
    }
    let columns: Vec<&str> = ["size", "circuit of"].into_iter().chain(tasks).collect();
    let notes = vec![
        "Share of a column's held-out pairs on which the circuit trained on the row's task prefers the \
         correct answer. A circuit that answers other tasks as well as its own is not specific to it."
            .into(),
        options.source(),
    ];
    table("X1c", "Transfer of trained circuits between tasks".into(), notes, &columns, rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{records::CurvePoint, tables::fabricated::options};

    #[test]
    fn a_row_per_method_with_the_shares_of_its_head() {
        let record = |task: &str, method: &str| Discovery {
            task: task.into(),
            method: method.into(),
            pairs: 4,
            held_out_pairs: 5,
            edges: 46,
            curve: [0.02, 0.05, 0.1, 0.2]
                .map(|share| CurvePoint { share, faithfulness: 10.0 * share })
                .to_vec(),
            cpr: 0.9,
            cmd: 0.1,
            cmd_log: 0.3,
        };
        let discoveries =
            vec![record("blimp_dna1", "exact"), record("hierarchy", "exact"), record("hierarchy", "eap")];
        let table = x1(&Records { discoveries, ..Default::default() }, &options());
        let names: Vec<_> = table.rows.iter().map(|row| (row[0].clone(), row[1].clone())).collect();
        let expected = [("hierarchy", "exact"), ("hierarchy", "eap"), ("blimp_dna1", "exact")];
        assert_eq!(names, expected.map(|(task, method)| (text(task), text(method))));
        let shares = [0.5, 1.0, 2.0].map(|value| Cell::Number { value, style: Style::Percent });
        assert_eq!(table.rows[0][8..], shares);
    }

    #[test]
    fn own_task_in_one_table_transfer_in_the_other() {
        let record = |task: &str, method: &str, tested_on: &str, size: f64, accuracy: f64| MaskComparison {
            task: task.into(),
            method: method.into(),
            tested_on: tested_on.into(),
            target_density: size,
            density: size,
            held_out_pairs: 7,
            accuracy_full: 1.0,
            accuracy,
            accuracy_complement: 0.5,
            faithfulness: None,
        };
        let mask_comparisons = vec![
            record("blimp_dna1", TRAINED, "hierarchy", 0.05, 0.1),
            record("blimp_dna1", TRAINED, "blimp_dna1", 0.05, 0.9),
            record("blimp_dna1", "random", "blimp_dna1", 0.05, 0.4),
            record("hierarchy", TRAINED, "hierarchy", 0.05, 0.8),
            record("hierarchy", TRAINED, "hierarchy", 0.5, 0.85),
        ];
        let records = Records { mask_comparisons, ..Default::default() };
        let own_task = x1b(&records, &options());
        let names: Vec<_> =
            own_task.rows.iter().map(|row| (row[0].clone(), row[1].clone(), row[2].clone())).collect();
        let expected = [
            ("hierarchy", "50 %", TRAINED),
            ("hierarchy", "5 %", TRAINED),
            ("blimp_dna1", "5 %", TRAINED),
            ("blimp_dna1", "5 %", "random"),
        ];
        assert_eq!(names, expected.map(|(task, size, method)| (text(task), text(size), text(method))));
        let transfer = x1c(&records, &options());
        assert_eq!(transfer.columns, ["size", "circuit of", "hierarchy", "blimp_dna1"]);
        let share = |value: f64| Cell::Number { value, style: Style::Percent };
        assert_eq!(transfer.rows[3][2..], [share(0.1), share(0.9)]);
        assert_eq!(transfer.rows[0][2..], [share(0.85), Cell::Empty(())]);
    }
}
