//! Comparison of editors: X2.

use locus_metrics::editing::{Outcome, new_wins, score, true_holds};

use super::{
    cells::{count, estimate, not_measured, number, percent, table, text},
    options::TableOptions,
    select::{Density, scope_label},
};
use crate::{
    records::{EditorOutcome, Records, UNEDITED},
    results::{Style, Table},
};

const COLUMNS: [&str; 14] = [
    "editor",
    "scope",
    "size",
    "requests",
    "refused",
    "efficacy",
    "paraphrase",
    "neighbourhood",
    "score",
    "EM",
    "PM",
    "NM",
    "P(new)",
    "drift",
];

/// Function that gives the outcome of a request on its prompts of one kind.
type OnPrompts = fn(&EditorOutcome) -> Option<Outcome>;

/// X2: comparison of editors.
///
/// Rows: the unedited model, then editor, scope and size in the order they were run.
///
/// Columns: number of requests, and how many of them the editor refused; efficacy, paraphrase and neighbourhood success
/// and their harmonic mean, the score (% of prompts, averaged over requests, with intervals); EM, PM and NM, the
/// differences in probability per token that correspond to the three (percentage points); probability of the new target
/// after the edited prompt (%); drift, the change of the NLL of neutral text (nats per token).
pub fn x2(records: &Records, options: &TableOptions) -> Table {
    let mut groups: Vec<Vec<&EditorOutcome>> = Vec::new();
    for outcome in &records.editor_outcomes {
        let same = |group: &&mut Vec<&EditorOutcome>| {
            let first = group[0];
            (&first.editor, first.scope, first.target_density.to_bits())
                == (&outcome.editor, outcome.scope, outcome.target_density.to_bits())
        };
        match groups.iter_mut().find(same) {
            Some(group) => group.push(outcome),
            None => groups.push(vec![outcome]),
        }
    }
    let rows = groups
        .into_iter()
        .map(|group| {
            let EditorOutcome { editor, scope, target_density, .. } = group[0];
            let size = Density::of(*target_density).label();
            let estimate_of = |what: &str, value: &dyn Fn(&EditorOutcome) -> Option<f64>| {
                let found: Vec<(f64, u64)> =
                    group.iter().filter_map(|o| value(o).map(|value| (value, o.case_id))).collect();
                let (values, keys): (Vec<f64>, Vec<u64>) = found.into_iter().unzip();
                options.mean(&values, &keys, &format!("X2/{editor}/{scope:?}/{size}/{what}"))
            };
            const KINDS: [(&str, OnPrompts); 3] = [
                ("efficacy", |o| new_wins(&[o.rewrite])),
                ("paraphrase", |o| new_wins(&o.paraphrase)),
                ("neighbourhood", |o| true_holds(&o.neighborhood)),
            ];
            let successes = KINDS
                .map(|(what, measured)| estimate_of(what, &|o| measured(o).map(|outcome| outcome.success)));
            let magnitudes = KINDS.map(|(what, measured)| {
                let interval = estimate_of(what, &|o| measured(o).map(|outcome| outcome.magnitude));
                percent(interval.map(|magnitude| magnitude.value))
            });
            let requests: Vec<[Option<f64>; 3]> = group
                .iter()
                .map(|o| KINDS.map(|(_, measured)| measured(o).map(|outcome| outcome.success)))
                .collect();
            let purpose = format!("X2/{editor}/{scope:?}/{size}/score");
            let score = score(&requests, options.resamples, options.stream(&purpose));
            let (scope, size) =
                if editor == UNEDITED { ("-", "-") } else { (scope_label(*scope), size.as_str()) };
            let mut cells = vec![
                text(editor),
                text(scope),
                text(size),
                count(group.len()),
                count(group.iter().filter(|o| o.refused).count()),
            ];
            cells.extend(successes.map(|success| estimate(success, Style::Percent)));
            cells.push(estimate(score, Style::Percent));
            cells.extend(magnitudes);
            cells.push(percent(estimate_of("p", &|o| Some((-o.rewrite[0]).exp())).map(|p| p.value)));
            let drift = estimate_of("drift", &|o| Some(o.drift)).map(|drift| drift.value);
            cells.push(number(drift, Style::Fixed3));
            cells
        })
        .collect();
    let mut notes = vec![
        "Efficacy, paraphrase: share of prompts after which the new target has a smaller NLL per token than \
         the true one; neighbourhood: share of prompts about other subjects after which their true target \
         still has the smaller one. Each is a mean over requests of the mean over a request's prompts; ties \
         count as failures. Score: harmonic mean of the three. EM, PM, NM: probability per token of the \
         target that should win minus that of the other one, on the edited prompts, paraphrases and \
         neighbourhood."
            .into(),
        "P(new): mean probability per token of the new target after the edited prompt. Drift: change of the NLL \
         per token of neutral text, nats."
            .into(),
        "Only parameters of the scope may change; all others keep their values (T2 to T4 set them to zero). \
         Circuits are those of the hierarchy task. The fine-tuning of the study also changes embeddings and \
         final LayerNorm, which no mask covers."
            .into(),
        "Every request is written into the unedited model on its own, except with `all at once`, which \
         writes all of them together. Refused: the edit would have been as large as the weights it changes, \
         and the model stays as it was."
            .into(),
        options.intervals("requests"),
        options.source(),
    ];
    notes.extend(not_measured(records, "X2"));
    table("X2", "Editors side by side".into(), notes, &COLUMNS, rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{records::Scope, results::Cell, tables::fabricated::options};

    #[test]
    fn shares_are_means_over_requests() {
        let outcome = |editor: &str, case_id: u64, rewrite: [f64; 2], neighbors: &[[f64; 2]]| EditorOutcome {
            editor: editor.into(),
            scope: Scope::Full,
            target_density: 1.0,
            case_id,
            refused: case_id == 3,
            rewrite,
            paraphrase: vec![rewrite, [1.0, 1.0]],
            neighborhood: neighbors.to_vec(),
            drift: 0.25 * case_id as f64,
        };
        let editor_outcomes = vec![
            outcome("none", 1, [2.0, 1.0], &[]),
            outcome("r-rome", 1, [1.0, 2.0], &[[2.0, 1.0], [1.0, 2.0]]),
            outcome("r-rome", 2, [1.0, 2.0], &[[2.0, 1.0]]),
            outcome("r-rome", 3, [2.0, 1.0], &[]),
        ];
        let table = x2(&Records { editor_outcomes, ..Default::default() }, &options());
        assert_eq!(table.rows.len(), 2);
        let value = |cell: &Cell| match cell {
            Cell::Estimate { value, .. } | Cell::Number { value, .. } => *value,
            other => panic!("{other:?}"),
        };
        let row = &table.rows[1];
        let close =
            |i: usize, expected: f64| assert!((value(&row[i]) - expected).abs() < 1e-12, "column {i}");
        assert_eq!((&row[3], &row[4]), (&count(3), &count(1)));
        close(5, 2.0 / 3.0);
        close(6, 1.0 / 3.0); // a tie is not a win
        close(7, 0.75); // a request without neighbours does not count
        close(8, 3.0 / (1.5 + 3.0 + 4.0 / 3.0));
        // rewrite: exp(-1) - exp(-2) twice, its negative once
        close(9, ((-1.0f64).exp() - (-2.0f64).exp()) / 3.0);
        close(11, ((-1.0f64).exp() - (-2.0f64).exp()) / 2.0);
        close(13, 0.5);
        assert_eq!(table.rows[0][1], text("-"));
        assert_eq!(table.rows[0][7], Cell::Empty(()), "no neighbours, no share, no score");
        assert_eq!(table.rows[0][8], Cell::Empty(()));
    }
}
