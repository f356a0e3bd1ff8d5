//! X1: ways to score edges, side by side.

use super::{
    TableOptions,
    cells::{count, number, percent, table, text},
    select::task_order,
};
use crate::{
    records::{Discovery, Records},
    results::{Style, Table},
};

const COLUMNS: [&str; 11] = [
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

/// Methods in the order they were run: exact patching first, controls last.
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
    let notes = vec![
        "Edges are scored on one half of the clean/corrupted pairs and the circuits measured on the other; \
         metric: logit difference at the last token; dropped edges carry the corrupted run's value."
            .into(),
        "Faithfulness: (circuit - no edges) / (full model - no edges) of the mean metric, at a share of the \
         edges (best by size of score, dead ends taken away); above 100 % the circuit beats the model."
            .into(),
        "CPR: area under faithfulness over the share of edges, 0.1 % to 100 % (higher is better, 1 is the \
         model). CMD: area between faithfulness and 1 (lower is better); on a logarithmic axis small \
         circuits count as much as large ones."
            .into(),
        "Controls: activation magnitude ranks by how much a source's output differs; random is the mean of \
         ten random rankings."
            .into(),
        options.source(),
    ];
    table("X1", "Ways to find circuits of edges".into(), notes, &COLUMNS, rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::CurvePoint;
    use crate::results::Cell;
    use crate::tables::fabricated::options;

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
}
