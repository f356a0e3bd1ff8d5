//! Comparison of methods that find circuits: of edges (X1), and of parameters on the same pairs (X1b, and X1c for
//! transfer).

use locus_metrics::Interval;
use locus_metrics::bootstrap::RESAMPLES;

use super::{
    cells::{count, estimate, not_measured, percent, table, text},
    options::TableOptions,
    select::{Density, distinct, distinct_tasks, task_order},
};
use crate::{
    records::{Discovery, MaskComparison, Records, TRAINED},
    results::{Cell, Style, Table},
};

const EDGE_COLUMNS: [&str; 13] = [
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
    "edges patched",
    "r with exact patching",
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
/// CMD, 0 for the model) on a linear and on a logarithmic axis, each with its interval; faithfulness of the circuits of 5,
/// 10 and 20 % of the edges (%); number of edges that were patched one by one, and Pearson's correlation of the scores with
/// what that changes.
pub fn x1(records: &Records, options: &TableOptions) -> Table {
    let mut found: Vec<&Discovery> = records.discoveries.iter().collect();
    found.sort_by_key(|discovery| task_order(&discovery.task));
    let rows = found
        .iter()
        .map(|discovery| {
            let at = |share: f64| match discovery.curve.as_slice() {
                [] => text(UNDEFINED),
                curve => percent(curve.iter().find(|p| p.share == share).map(|p| p.faithfulness)),
            };
            vec![
                text(&discovery.task),
                text(&discovery.method),
                count(discovery.pairs),
                count(discovery.held_out_pairs),
                count(discovery.edges),
                estimate_or_undefined(discovery.cpr, Style::Fixed3),
                estimate_or_undefined(discovery.cmd, Style::Fixed3),
                estimate_or_undefined(discovery.cmd_log, Style::Fixed3),
                at(0.05),
                at(0.1),
                at(0.2),
                count(discovery.patched),
                match discovery.correlation {
                    None if discovery.method == "exact" => Cell::Empty(()),
                    correlation => estimate_or_undefined(correlation, Style::Fixed3),
                },
            ]
        })
        .collect();
    let undefined = found.iter().filter(|discovery| discovery.curve.is_empty());
    let mut notes = vec![
        "Edges are scored on one half of the clean/corrupted pairs and the circuits measured on the other; \
         metric: logit difference at the last token; ablated edges carry the corrupted run's value."
            .into(),
        "Faithfulness: (circuit - no edges) / (full model - no edges) of the mean metric, at a share of the \
         edges (largest scores by magnitude, after pruning dead ends); above 100 % the circuit beats the \
         model."
            .into(),
        "CPR: area under faithfulness over the share of edges, 0.1 % to 100 % (higher is better, 1 is the \
         model), edges in the order of their signed scores. CMD: area between faithfulness and 1 (lower is \
         better), edges in the order of the scores' magnitude, both as MIB reports them; on a logarithmic axis \
         small circuits count as much as large ones."
            .into(),
        "Controls: activation magnitude ranks edges by how much their source's output differs between the \
         two runs; random is the mean over ten random rankings, of the areas as of the faithfulness."
            .into(),
        format!(
            "Brackets: 95 % percentile bootstrap intervals over the pairs measured, {RESAMPLES} resamples; the \
             scores of the edges are kept. For random: the 2.5 % to 97.5 % quantile of the ten rankings."
        ),
        "r with exact patching: Pearson correlation of the scores of the patched edges with what patching them \
         one by one changes; its interval is over edges. A large model has a random sample of its edges \
         patched, so that exact patching itself has no ranking there."
            .into(),
    ];
    notes.extend(not_measured(records, "X1"));
    notes.extend(undefined_note("no edges", undefined.map(|discovery| discovery.task.as_str())));
    notes.push(options.source());
    table("X1", "Ways to find circuits of edges".into(), notes, &EDGE_COLUMNS, rows)
}

/// Content of a cell whose ratio has a denominator that may be zero.
const UNDEFINED: &str = "undefined";

fn estimate_or_undefined(interval: Option<Interval>, style: Style) -> Cell {
    interval.map_or_else(|| text(UNDEFINED), |interval| estimate(interval, style))
}

/// Note on the tasks whose faithfulness is undefined; `None` when there is no such task. `empty` names the model without
/// a circuit.
fn undefined_note<'a>(empty: &str, tasks: impl Iterator<Item = &'a str>) -> Option<String> {
    let tasks = distinct_tasks(tasks);
    (!tasks.is_empty()).then(|| {
        format!(
            "Undefined for {}: the 95 % interval over pairs of the denominator, full model - {empty}, contains 0.",
            tasks.join(", ")
        )
    })
}

/// X1b: methods that find circuits of parameters, each measured on the task that it was found on.
///
/// Rows: tasks (the hierarchy first), sizes from large to small, within each the methods in the order they were run.
///
/// Columns: size asked for; share of the block parameters in the circuit (%); number of held-out pairs; share of pairs
/// on which the full model, the circuit and the complement prefer the correct answer (%); faithfulness of the circuit
/// (%, 0 for the model without blocks, 100 for the full model); all but the counts with their intervals. A circuit
/// without parameters has the word "empty" instead of its accuracy.
pub fn x1b(records: &Records, options: &TableOptions) -> Table {
    let mut found: Vec<&MaskComparison> =
        records.mask_comparisons.iter().filter(|found| found.task == found.tested_on).collect();
    found
        .sort_by_key(|found| (task_order(&found.task), std::cmp::Reverse(Density::of(found.target_density))));
    let rows = found
        .iter()
        .map(|found| {
            let empty = found.density == 0.0;
            vec![
                text(&found.task),
                text(Density::of(found.target_density).label()),
                text(&found.method),
                percent(found.density),
                count(found.held_out_pairs),
                estimate(found.accuracy_full, Style::Percent),
                if empty { text("empty") } else { estimate(found.accuracy, Style::Percent) },
                estimate(found.accuracy_complement, Style::Percent),
                if empty {
                    Cell::Empty(())
                } else {
                    estimate_or_undefined(found.faithfulness, Style::Percent)
                },
            ]
        })
        .collect();
    let undefined = found.iter().filter(|found| found.span.contains(0.0));
    let mut notes = vec![
        "Parameters outside the circuit are zero. Accuracy: share of held-out pairs whose correct answer has \
         the larger logit; the complement has exactly the parameters that the circuit lacks."
            .into(),
        "Faithfulness: (circuit - no blocks) / (full model - no blocks) of the mean logit difference; above \
         100 % the circuit is more decided than the model."
            .into(),
        "The trained mask is hard and trained at a falling density; the scores are one or a few backward \
         passes. Circuits of edges are the largest whose parameters fit into the size: an edge of an MLP \
         brings the whole MLP with it, so where no edge fits the circuit is empty, and has no faithfulness."
            .into(),
        "Controls: magnitude and random know no task; the shuffled mask keeps how many parameters of every \
         tensor the trained one has, but not which."
            .into(),
        format!("Brackets: 95 % percentile bootstrap intervals over the pairs measured, {RESAMPLES} resamples."),
    ];
    notes.extend(undefined_note("no blocks", undefined.map(|found| found.task.as_str())));
    notes.push(options.source());
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
            row.extend(
                tasks.iter().map(|tested_on| percent(on(tested_on).map(|found| found.accuracy.value))),
            );
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

    fn interval(value: f64) -> Interval {
        Interval { value, low: value - 0.1, high: value + 0.1 }
    }

    fn shown(value: f64, style: Style) -> Cell {
        estimate(interval(value), style)
    }

    #[test]
    fn a_row_per_method_with_the_shares_of_its_head() {
        let record = |task: &str, method: &str| Discovery {
            task: task.into(),
            method: method.into(),
            pairs: 4,
            held_out_pairs: 5,
            edges: 46,
            span: interval(2.0),
            curve: [0.02, 0.05, 0.1, 0.2]
                .map(|share| CurvePoint { share, faithfulness: 10.0 * share })
                .to_vec(),
            curve_signed: vec![],
            cpr: Some(interval(0.9)),
            cmd: Some(interval(0.1)),
            cmd_log: Some(interval(0.3)),
            patched: 46,
            correlation: Some(interval(0.8)),
        };
        let undefined = Discovery {
            span: interval(0.05),
            curve: vec![],
            cpr: None,
            cmd: None,
            cmd_log: None,
            correlation: None,
            ..record("blimp_dna1", "exact")
        };
        let discoveries = vec![undefined, record("hierarchy", "exact"), record("hierarchy", "eap")];
        let table = x1(&Records { discoveries, ..Default::default() }, &options());
        let names: Vec<_> = table.rows.iter().map(|row| (row[0].clone(), row[1].clone())).collect();
        let expected = [("hierarchy", "exact"), ("hierarchy", "eap"), ("blimp_dna1", "exact")];
        assert_eq!(names, expected.map(|(task, method)| (text(task), text(method))));
        let shares = [0.5, 1.0, 2.0].map(|value| Cell::Number { value, style: Style::Percent });
        assert_eq!(table.rows[0][8..11], shares);
        assert_eq!(table.rows[0][11..], [count(46), shown(0.8, Style::Fixed3)]);
        assert_eq!(table.rows[0][5..8], [0.9, 0.1, 0.3].map(|area| shown(area, Style::Fixed3)));
        let undefined = table.rows[2][5..].iter().filter(|cell| **cell == text("undefined"));
        assert_eq!(undefined.count(), 6, "{:?}", table.rows[2]);
        let said =
            |table: &Table| table.notes.iter().any(|note| note.starts_with("Undefined for blimp_dna1:"));
        assert!(said(&table));
        let defined =
            x1(&Records { discoveries: vec![record("blimp_dna1", "eap")], ..Default::default() }, &options());
        assert!(!said(&defined));
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
            accuracy_full: interval(1.0),
            accuracy: interval(accuracy),
            accuracy_complement: interval(0.5),
            span: interval(2.0),
            faithfulness: Some(interval(0.7)),
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

    #[test]
    fn empty_circuits_and_undefined_ratios_are_said_in_words() {
        let record = |task: &str, density: f64, faithfulness: Option<f64>| MaskComparison {
            task: task.into(),
            method: "EAP edges".into(),
            tested_on: task.into(),
            target_density: 0.05,
            density,
            held_out_pairs: 7,
            accuracy_full: interval(0.9),
            accuracy: interval(0.6),
            accuracy_complement: interval(0.5),
            span: interval(if task == "hierarchy" { 2.0 } else { 0.05 }),
            faithfulness: faithfulness.map(interval),
        };
        let mask_comparisons = vec![
            record("hierarchy", 0.04, Some(0.7)),
            record("hierarchy", 0.0, None),
            record("blimp_dna1", 0.04, None),
            record("blimp_dna1", 0.0, None),
        ];
        let table = x1b(&Records { mask_comparisons, ..Default::default() }, &options());
        let ends: Vec<_> = table.rows.iter().map(|row| (row[6].clone(), row[8].clone())).collect();
        let accuracy = shown(0.6, Style::Percent);
        assert_eq!(
            ends,
            [
                (accuracy.clone(), shown(0.7, Style::Percent)),
                (text("empty"), Cell::Empty(())),
                (accuracy, text("undefined")),
                (text("empty"), Cell::Empty(())),
            ]
        );
        assert!(
            table.notes.iter().any(|note| note.starts_with("Undefined for blimp_dna1: the 95 % interval"))
        );
    }
}
