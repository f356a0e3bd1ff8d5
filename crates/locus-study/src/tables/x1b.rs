//! X1b: ways to find circuits of parameters on the pairs of X1. X1c: the trained ones on every task.

use super::{
    TableOptions,
    cells::{count, percent, table, text},
    select::{Density, distinct, distinct_tasks, task_order},
};
use crate::protocol::TRAINED;
use crate::{
    records::{MaskComparison, Records},
    results::{Cell, Table},
};

const COLUMNS: [&str; 9] = [
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

/// Every method on its own task, in the order they were run.
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
        "Parameters outside the circuit are zero. Accuracy: share of held-out pairs whose good answer has the \
         larger logit; the complement has exactly the parameters that the circuit lacks."
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
    table("X1b", "Ways to find circuits of parameters".into(), notes, &COLUMNS, rows)
}

/// Accuracy of every trained circuit on every task.
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
        "Share of a column's held-out pairs on which the circuit trained on the row's task prefers the good \
         answer. A circuit that answers other tasks as well as its own is not specific to it."
            .into(),
        options.source(),
    ];
    table("X1c", "Transfer of trained circuits between tasks".into(), notes, &columns, rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::Style;
    use crate::tables::fabricated::options;

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
        let own = x1b(&records, &options());
        let names: Vec<_> =
            own.rows.iter().map(|row| (row[0].clone(), row[1].clone(), row[2].clone())).collect();
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
