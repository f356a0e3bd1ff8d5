//! The multiverse of the claims: table X4 and its figure, functions of the claims alone.

use locus_metrics::Interval;

use crate::records::{PUBLISHED, SCHEDULED_TOP_K};
use crate::results::{Cell, Claim, ClaimRow, Figure, Plot, Style, Table, Verdict};
use crate::tables::TableOptions;
use crate::tables::cells::{count, estimate, number, table, text};

const COLUMNS: [&str; 13] = [
    "claim",
    "recipe",
    "part",
    "measure",
    "against",
    "size",
    "edit",
    "decides",
    "verdict",
    "effect",
    "p",
    "smallest visible",
    "items",
];

/// X4: every comparison that bears on a claim, with the verdict that it would give alone.
///
/// Rows: claims in order, within each the comparisons that decide, then the others. Columns: claim, recipe, part of the
/// claim, measure, control, size and kind of edit; whether the row decides; its verdict; effect with its 95 % interval in
/// the unit of the measure, positive where it speaks for the claim; p-value; smallest effect that would have been seen in
/// 80 % of such runs; number of independent items (families where there are none).
pub fn x4(claims: &[Claim], options: &TableOptions) -> Table {
    let rows = claims.iter().flat_map(|claim| claim.rows.iter().map(move |row| cells(claim, row))).collect();
    let notes = vec![
        "Verdict: of the row alone. A claim needs all rows that decide, and is corrected for the number of claims; so one \
         row here says less than the claim's own verdict. Effects are positive where they speak for the claim."
            .into(),
        "Brackets: 95 % intervals over components of requests and families of tasks (Clark 1973, with the critical values \
         of Cochran and Cox 1950)."
            .into(),
        options.source(),
    ];
    table(
        "X4",
        "What each verdict owes to measure, control, size, edit and recipe".into(),
        notes,
        &COLUMNS,
        rows,
    )
}

fn cells(claim: &Claim, row: &ClaimRow) -> Vec<Cell> {
    let interval = Interval { value: row.effect, low: row.low, high: row.high };
    vec![
        text(&claim.id),
        text(&row.recipe),
        text(&row.part),
        text(&row.measure),
        text(&row.against),
        text(&row.size),
        text(&row.edit),
        text(if row.decides { "yes" } else { "no" }),
        text(row.verdict.words()),
        estimate(interval, Style::Fixed3),
        number(row.p_value, Style::Significant3),
        number(row.smallest_visible, Style::Fixed3),
        count(if row.items > 1 { row.items } else { row.families }),
    ]
}

/// The share of comparisons that support each claim, by kind of comparison; `None` without comparisons.
pub fn figure(claims: &[Claim]) -> Option<Figure> {
    let kinds: [(&str, fn(&ClaimRow) -> bool); 9] = [
        ("5 %", |row| row.size == "5 %"),
        ("50 %", |row| row.size == "50 %"),
        ("10 steps", |row| row.edit == "10 steps"),
        ("50 steps", |row| row.edit == "50 steps"),
        ("calibrated", |row| row.edit == "calibrated"),
        ("against masks without a task", |row| {
            ["matched", "magnitude", "shuffled", "random"].iter().any(|word| row.against.contains(word))
        }),
        ("published recipe", |row| row.recipe == PUBLISHED),
        ("our recipe", |row| row.recipe == SCHEDULED_TOP_K),
        ("all that decide", |row| row.decides),
    ];
    let share = |claim: &Claim, fits: fn(&ClaimRow) -> bool| {
        let rows: Vec<&ClaimRow> = claim.rows.iter().filter(|row| fits(row)).collect();
        let supported = rows.iter().filter(|row| row.verdict == Verdict::Supported).count();
        (!rows.is_empty()).then(|| supported as f64 / rows.len() as f64)
    };
    let claims: Vec<&Claim> = claims.iter().filter(|claim| !claim.rows.is_empty()).collect();
    if claims.is_empty() {
        return None;
    }
    let plot = Plot::HeatMap {
        rows: claims.iter().map(|claim| claim.id.clone()).collect(),
        columns: kinds.iter().map(|(name, _)| (*name).to_owned()).collect(),
        values: claims
            .iter()
            .map(|claim| kinds.iter().map(|(_, fits)| share(claim, *fits)).collect())
            .collect(),
        max: 1.0,
        unit: "share of comparisons that support the claim".into(),
    };
    let caption = "Share of the comparisons of table X4 that support a claim, by the choices a study can make. A claim that \
                   does not depend on them is dark or light throughout its row.";
    let title = "Support for each claim across sizes, edits, controls and recipes".into();
    Some(Figure { id: "X4-multiverse".into(), title, caption: caption.into(), plot })
}
