//! Tests of the tables on fabricated records.

use super::{
    composition::{Composition, ModuleKind, TensorPart},
    fabricated::{REQUESTS, SCOPES, TASKS, edit, options, records},
    *,
};
use crate::{
    records::{Extraction, Scope, TensorCount},
    results::{Cell, Style},
};

fn cell<'a>(table: &'a Table, row: &[&str], column: &str) -> &'a Cell {
    let place = table.columns.iter().position(|c| c == column).expect("the column is there");
    let named = |cells: &&Vec<Cell>| {
        row.iter().zip(cells.iter()).all(|(name, cell)| *cell == Cell::Text(name.to_string()))
    };
    &table.rows.iter().find(named).unwrap_or_else(|| panic!("no row {row:?} in {}", table.id))[place]
}

fn value(cell: &Cell) -> f64 {
    match cell {
        Cell::Number { value, .. } | Cell::Estimate { value, .. } => *value,
        Cell::Count(n) => *n as f64,
        other => panic!("{other:?} is no number"),
    }
}

fn close(cell: &Cell, expected: f64) {
    assert!((value(cell) - expected).abs() < 1e-9, "{cell:?} for {expected}");
}

#[test]
fn every_table_is_there_and_survives_json() {
    let tables = all(&records(1.0, 0.3), &options());
    let ids: Vec<&str> = tables.iter().map(|t| t.id.as_str()).collect();
    assert_eq!(ids, ["T1", "T2", "T3", "T4", "T4b", "T5", "T5b", "T6", "T6b", "T7"]);
    assert!(tables.iter().all(|t| t.rows.iter().all(|row| row.len() == t.columns.len())));
    // A number that is not finite would become null and fail to come back.
    let json = serde_json::to_string(&tables).unwrap();
    serde_json::from_str::<Vec<Table>>(&json).expect("every number is finite");
}

#[test]
fn the_order_of_records_does_not_matter() {
    let records = records(1.0, 0.0);
    let mut shuffled = records.clone();
    shuffled.extractions.reverse();
    shuffled.edits.reverse();
    shuffled.overlaps.reverse();
    let (a, b) = (all(&records, &options()), all(&shuffled, &options()));
    for (a, b) in a.iter().zip(&b) {
        for (row, other) in a.rows.iter().zip(&b.rows) {
            for (x, y) in row.iter().zip(other) {
                match x {
                    Cell::Number { .. } | Cell::Estimate { .. } => close(y, value(x)),
                    words => assert_eq!(words, y, "{}", a.id),
                }
            }
        }
    }
}

#[test]
fn missing_records_leave_the_other_tables_alone() {
    let full = records(1.0, 0.3);
    let ids = |records: Records| all(&records, &options()).into_iter().map(|t| t.id).collect::<Vec<_>>();
    assert!(ids(Records::default()).is_empty());
    assert_eq!(
        ids(Records { extractions: full.extractions.clone(), ..Default::default() }),
        ["T1", "T4", "T6", "T6b"]
    );
    assert_eq!(ids(Records { edits: full.edits.clone(), ..Default::default() }), ["T2", "T3", "T4b", "T7"]);
    assert_eq!(ids(Records { overlaps: full.overlaps.clone(), ..Default::default() }), ["T5", "T5b"]);
    let mut large_only = full;
    large_only.edits.retain(|e| e.target_density >= 0.5);
    large_only.overlaps.retain(|o| o.target_density >= 0.5);
    assert_eq!(ids(large_only), ["T1", "T3", "T4", "T4b", "T5b", "T6", "T6b", "T7"]);
}

#[test]
fn numbers_that_are_not_finite_become_empty_cells() {
    let mut broken = records(1.0, 0.3);
    for edit in &mut broken.edits {
        edit.pre_new = f64::INFINITY;
        edit.post_new = f64::NAN;
    }
    let table = t2(&broken, &options());
    assert_eq!(
        cell(&table, &["10 steps", "published", "hierarchy", "circuit"], "NLL(new) after"),
        &Cell::Empty(())
    );
    assert_eq!(
        cell(&table, &["10 steps", "published", "hierarchy", "circuit"], "change of NLL(new)"),
        &Cell::Empty(())
    );
    let json = serde_json::to_string(&all(&broken, &options())).unwrap();
    assert!(serde_json::from_str::<Vec<Table>>(&json).is_ok());
}

#[test]
fn t1_shows_presets_below_each_other_and_controls_below_their_circuit() {
    let mut records = records(1.0, 0.0);
    let ours =
        records.extractions.iter().cloned().map(|e| Extraction { preset: "scheduled-top-k".into(), ..e });
    records.extractions = ours.chain(records.extractions.clone()).collect();
    let table = t1(&records, &options());
    let head = |row: usize| table.rows[row][..4].to_vec();
    let words = |words: [&str; 4]| words.map(|w| Cell::Text(w.into())).to_vec();
    assert_eq!(head(0), words(["hierarchy", "50 %", "published", "circuit"]));
    assert_eq!(head(1), words(["hierarchy", "50 %", "published", "random"]));
    assert_eq!(head(6), words(["hierarchy", "50 %", "scheduled-top-k", "circuit"]));
    assert_eq!(head(12), words(["hierarchy", "35 %", "published", "circuit"]));
    // Draws of one kind are averaged.
    let mut again = records.extractions[0].clone();
    again.draw = 1;
    again.agreement = 0.0;
    let first = records.extractions[0].agreement;
    records.extractions.push(again);
    let table = t1(&records, &options());
    let row = ["hierarchy", "50 %", "scheduled-top-k", "circuit"];
    let row = if records.extractions[0].task == "hierarchy" {
        row
    } else {
        ["blimp_dna1", "50 %", "scheduled-top-k", "circuit"]
    };
    close(cell(&table, &row, "agreement"), first / 2.0);
    close(cell(&table, &row, "masks"), 2.0);
}

#[test]
fn t2_rows_and_values() {
    let table = t2(&records(1.0, 0.0), &options());
    // Full, circuit and complement of every task, and the means of the nine scopes and of random masks and theirs.
    assert_eq!(table.rows.len(), 1 + 2 * TASKS.len() + SCOPES.len() + 2);
    let row = ["10 steps", "published", "persona_e", "circuit"];
    close(cell(&table, &row, "requests"), REQUESTS as f64);
    close(cell(&table, &row, "NLL(true) before"), 1.5);
    close(cell(&table, &row, "P(true) before"), (-1.5_f64).exp());
    close(cell(&table, &row, "discrimination before"), 0.8);
    // Hyponyms change by -0.7, hypernyms by -0.5; the true target rises by 0.5.
    close(cell(&table, &row, "change of NLL(new)"), -0.6);
    close(cell(&table, &row, "change of the margin"), -1.1);
    close(cell(&table, &row, "new beats true after"), 0.0);
    let mean = ["10 steps", "published", "mean over tasks", "complement"];
    close(cell(&table, &mean, "change of NLL(new)"), -1.2);
    close(cell(&table, &["10 steps", "-", "none", "full"], "change of NLL(new)"), -1.8);
    let Cell::Estimate { low, high, style, .. } = cell(&table, &row, "change of NLL(new)") else {
        panic!("an estimate")
    };
    assert!(*low < -0.6 && -0.6 < *high && *style == Style::Fixed3);
}

#[test]
fn probabilities_are_averaged_not_exponentials_of_averages() {
    let mut records = Records::default();
    for (case, nll) in [(0, 0.0), (1, 4.0)] {
        let mut edit = edit("hierarchy", 0.05, Scope::Circuit, case, 0.0, 0.0);
        (edit.pre_new, edit.pre_true, edit.post_new, edit.post_true) = (nll, 2.0, 0.5, 2.0);
        records.edits.push(edit);
    }
    let table = t2(&records, &options());
    let row = ["10 steps", "published", "hierarchy", "circuit"];
    close(cell(&table, &row, "P(new) before"), (1.0 + (-4.0_f64).exp()) / 2.0);
    close(cell(&table, &row, "new beats true before"), 0.5);
    close(cell(&table, &row, "new beats true after"), 1.0);
}

#[test]
fn t4_sweeps_from_large_to_small() {
    let records = records(1.0, 0.0);
    let table = t4(&records, &options());
    let circuits = table.rows.iter().filter(|row| row[3] == Cell::Text("circuit".into()));
    let sizes: Vec<Cell> = circuits.map(|row| row[1].clone()).collect();
    assert_eq!(sizes, ["50 %", "35 %", "25 %", "15 %", "5 %"].map(|s| Cell::Text(s.into())));
    let editing = t4b(&records, &options());
    // Random and matched masks were edited at two of the five sizes.
    assert_eq!(editing.rows.len(), 5 * 2 + 2 * 3);
    close(cell(&editing, &["published", "15 %", "circuit"], "change of NLL(new)"), -0.6);
}

#[test]
fn t5_has_every_pair_and_their_mean() {
    let tables = t5(&records(1.0, 0.0), &options());
    let pairs = TASKS.len() * (TASKS.len() - 1) / 2;
    assert_eq!(tables.iter().map(|t| t.rows.len()).collect::<Vec<_>>(), [pairs + 1, pairs + 1]);
    // The hierarchy is first in a pair wherever the record had it.
    let row = ["published", "hierarchy", "blimp_dna1"];
    close(cell(&tables[0], &row, "expected, independent"), 0.0025 / 0.0975);
    close(cell(&tables[0], &row, "Jaccard"), 1200.0 / 8800.0);
    close(cell(&tables[0], &row, "lift"), 1200.0 / 250.0);
    let mean = cell(&tables[0], &["published", "mean over pairs"], "Jaccard");
    close(mean, 1200.0 / 8800.0);
    assert!(matches!(mean, Cell::Estimate { .. }));
}

#[test]
fn contradictory_overlaps_are_left_out() {
    let mut records = records(1.0, 0.0);
    records.overlaps[0].intersection = 200_000;
    let before = overlap::pairs(&self::records(1.0, 0.0), "published").len();
    assert_eq!(overlap::pairs(&records, "published").len(), before - 1);
}

fn circuit(composition: &[(usize, &str, usize, usize)]) -> Extraction {
    let tensor = |&(layer, tensor, kept, size): &(usize, &str, usize, usize)| TensorCount {
        layer,
        tensor: tensor.into(),
        kept,
        size,
    };
    Extraction {
        composition: composition.iter().map(tensor).collect(),
        ..records(1.0, 0.0).extractions[0].clone()
    }
}

#[test]
fn composition_by_hand() {
    let circuit = circuit(&[
        (0, "ln_1.weight", 6, 10),
        (0, "ln_1.bias", 2, 10),
        (0, "attn.c_attn.weight", 30, 100),
        (0, "mlp.c_fc.weight", 20, 100),
        (0, "mlp.c_fc.bias", 10, 20),
    ]);
    let composition = Composition::new(&circuit, None);
    let near = |got: Option<f64>, expected: f64| {
        assert!((got.unwrap() - expected).abs() < 1e-12, "{got:?} for {expected}")
    };
    let layer_norm = composition.measures(ModuleKind::LayerNorm, TensorPart::All);
    near(layer_norm.density, 8.0 / 20.0);
    near(layer_norm.share, 8.0 / 68.0);
    near(layer_norm.lift, 0.4 / (68.0 / 240.0));
    near(layer_norm.density_share, 0.4 / (0.4 + 0.3 + 0.25));
    // The two densest of five are ln_1.weight (0.6) and mlp.c_fc.bias (0.5).
    near(layer_norm.top_share, 0.5);
    near(composition.measures(ModuleKind::Mlp, TensorPart::All).top_share, 0.5);
    // 0.6 is above the global 0.283, 0.2 is not.
    near(layer_norm.above_global, 0.5);
    near(composition.measures(ModuleKind::Mlp, TensorPart::Biases).density, 0.5);
    assert_eq!(composition.measures(ModuleKind::Attention, TensorPart::Biases).density, None);
}

#[test]
fn ties_among_the_densest_share_their_places() {
    let circuit = circuit(&[
        (0, "ln_1.weight", 5, 10),
        (0, "attn.c_attn.weight", 5, 10),
        (0, "mlp.c_fc.weight", 5, 10),
    ]);
    let composition = Composition::new(&circuit, None);
    for kind in ModuleKind::ALL {
        assert!((composition.measures(kind, TensorPart::All).top_share.unwrap() - 1.0 / 3.0).abs() < 1e-12);
    }
}

#[test]
fn t6_averages_over_tasks() {
    let records = records(1.0, 0.0);
    let table = t6(&records, &options());
    close(
        cell(&table, &["published", "50 %", "circuit", "LayerNorm", "all"], "D0: share kept of the module"),
        0.75,
    );
    close(
        cell(&table, &["published", "5 %", "circuit", "MLP", "weights"], "D0: share kept of the module"),
        0.05,
    );
    assert_eq!(cell(&table, &["published", "5 %", "circuit", "MLP", "biases"], "lift"), &Cell::Empty(()));
    close(cell(&table, &["published", "5 %", "circuit", "MLP", "all"], "tasks"), TASKS.len() as f64);
    close(cell(&table, &["published", "15 %", "circuit", "MLP", "all"], "tasks"), 1.0);
    assert_eq!(t6b(&records, &options()).rows.len(), 5 * 3);
}

#[test]
fn t7_compares_levels() {
    let table = t7(&records(1.0, 0.0), &options());
    close(cell(&table, &["10 steps", "-", "-", "full", "hyponym"], "change of NLL(new)"), -1.9);
    close(cell(&table, &["10 steps", "-", "-", "full", "hypernym"], "change of NLL(new)"), -1.7);
    let row = ["10 steps", "published", "5 %", "circuit", "hypernym - hyponym"];
    close(cell(&table, &row, "change of NLL(new)"), 0.2);
    close(cell(&table, &row, "change of the margin"), 0.2);
    close(cell(&table, &row, "requests"), REQUESTS as f64 / 2.0);
    assert!(value(cell(&table, &row, "p")) < 0.001);
    // P(new) is the same for all requests: no correlation.
    assert_eq!(cell(&table, &["10 steps", "-", "-", "full", "both"], "p"), &Cell::Empty(()));
}
