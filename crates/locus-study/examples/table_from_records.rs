//! A table is a function of records: X2 (editors side by side) from measurements made by hand.

use locus_study::records::{EditorOutcome, Records, Scope, UNEDITED};
use locus_study::tables::{self, TableOptions};

fn main() {
    // NLLs of the new and of the true answer, in nats: the second editor makes the new answer the likelier one.
    let outcome = |editor: &str, case_id: u64, rewrite: [f64; 2]| EditorOutcome {
        editor: editor.into(),
        scope: Scope::Full,
        target_density: 1.0,
        case_id,
        refused: false,
        rewrite,
        paraphrase: vec![rewrite],
        neighborhood: vec![[9.0, 0.2]],
        drift: 0.0,
    };
    let editor_outcomes = (0..20)
        .flat_map(|case| {
            let before = 5.0 + case as f64 / 10.0;
            [outcome(UNEDITED, case, [before, 0.3]), outcome("r-rome", case, [0.1, before])]
        })
        .collect();
    let records = Records { editor_outcomes, ..Records::default() };
    let options = TableOptions { seed: 1, resamples: 1000, model: "none".into(), data: "none".into() };

    let x2 = tables::x2(&records, &options);
    println!("{}: {}", x2.id, x2.title);
    for row in &x2.rows {
        for (column, cell) in x2.columns.iter().zip(row) {
            println!("  {column}: {cell:?}");
        }
        println!();
    }
    assert!(!x2.rows.is_empty());
}
