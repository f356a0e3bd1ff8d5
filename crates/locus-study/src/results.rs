//! Results as data: provenance, records, and the tables, figures and claims computed from the records.

use serde::{Deserialize, Serialize};

use crate::records::Records;

/// The content of `results.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Results {
    /// Version, seed, model and data that the numbers come from.
    pub provenance: Provenance,
    /// Raw measurements.
    pub records: Records,
    /// Tables T1-T7 and X1-X4, those that have rows or a note on what could not be measured.
    pub tables: Vec<Table>,
    /// Figures.
    pub figures: Vec<Figure>,
    /// Claims C1-C7 with their verdicts.
    pub claims: Vec<Claim>,
}

/// What is needed to repeat a run. There is no time, host or thread count in it: equal inputs give equal bytes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Provenance {
    /// Version of the tool.
    pub version: String,
    /// Seed of the run.
    pub seed: u64,
    /// `full` or `quick`.
    pub profile: String,
    /// Name of the model.
    pub model: String,
    /// SHA-256 of the model's weights.
    pub model_sha256: String,
    /// Where the data come from, in words.
    #[serde(default)]
    pub data: String,
    /// Name and SHA-256 of every data file read.
    pub data_sha256: Vec<(String, String)>,
    /// Conventions that the numbers rest on, one sentence each (units, splits, deviations from the published protocol).
    pub conventions: Vec<String>,
}

/// One table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Table {
    /// `T1` ... `T7` or `X1` ... `X3`, with a letter where a table has parts (`T4b`).
    pub id: String,
    /// Title, one line.
    pub title: String,
    /// Notes that explain the cells and their units, and deviations from the published protocol.
    pub notes: Vec<String>,
    /// Column heads.
    pub columns: Vec<String>,
    /// Rows, each as long as `columns`.
    pub rows: Vec<Vec<Cell>>,
}

/// One cell of a table. The order of the variants matters: serde takes the first that fits, and an estimate has all the
/// fields of a number.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Cell {
    /// A whole number.
    Count(u64),
    /// An estimate with its 95 % bootstrap interval.
    Estimate {
        /// The value.
        value: f64,
        /// Lower end.
        low: f64,
        /// Upper end.
        high: f64,
        /// Style of all three numbers.
        style: Style,
    },
    /// A number and how to print it.
    Number {
        /// The value.
        value: f64,
        /// Style of the number.
        style: Style,
    },
    /// Text.
    Text(String),
    /// Not measured or not defined.
    Empty(()),
}

/// Style in which a number is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Style {
    /// Two decimals with a percent sign after multiplying by 100: 0.0512 is `5.12 %`.
    Percent,
    /// Three decimals.
    Fixed3,
    /// Three significant digits, scientific below 1e-3 and from 1e6 on: p-values and small probabilities.
    Significant3,
}

/// One figure, drawn as SVG.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// File stem, for example `T5-overlap-5`.
    pub id: String,
    /// Title, one line.
    pub title: String,
    /// What is shown and how to read it.
    pub caption: String,
    /// The drawing.
    pub plot: Plot,
}

/// The kinds of drawing the report needs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Plot {
    /// A matrix of values, coloured from 0 to `max`; `None` cells stay empty.
    HeatMap {
        /// Row labels.
        rows: Vec<String>,
        /// Column labels.
        columns: Vec<String>,
        /// Row-major values.
        values: Vec<Vec<Option<f64>>>,
        /// Value of the darkest colour.
        max: f64,
        /// Name of the quantity, with its unit.
        unit: String,
    },
    /// Groups of bars side by side.
    Bars {
        /// One group per entry, along x.
        groups: Vec<String>,
        /// Each series has one value per group, with an optional interval.
        series: Vec<BarSeries>,
        /// Label of the y axis.
        y_label: String,
    },
    /// Lines over a numeric axis.
    Lines {
        /// Label of the x axis.
        x_label: String,
        /// Label of the y axis.
        y_label: String,
        /// Whether x is drawn on a log axis.
        log_x: bool,
        /// The lines.
        series: Vec<LineSeries>,
    },
    /// One row per entry with a mark before and a mark after, joined by a line.
    BeforeAfter {
        /// Label of the x axis.
        x_label: String,
        /// The rows.
        entries: Vec<BeforeAfter>,
    },
}

/// Bars of one colour.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BarSeries {
    /// Name in the legend.
    pub name: String,
    /// One value per group.
    pub values: Vec<f64>,
    /// 95 % interval per group, or empty.
    pub intervals: Vec<(f64, f64)>,
}

/// One line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LineSeries {
    /// Name in the legend.
    pub name: String,
    /// Points (x, y), x ascending.
    pub points: Vec<(f64, f64)>,
}

/// One row of a before/after drawing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BeforeAfter {
    /// Label of the row.
    pub label: String,
    /// Name of the quantity, coloured alike over rows (`new target`, `true target`).
    pub series: String,
    /// Value before.
    pub before: f64,
    /// Value after.
    pub after: f64,
}

/// One published claim and what the records say about it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Claim {
    /// `C1` ... `C7`.
    pub id: String,
    /// The published claim, as this project reads it.
    pub claim: String,
    /// What was published where, in its own words or in substance.
    pub source: String,
    /// How the claim is decided.
    pub statistic: String,
    /// Recipe of the circuits that the verdict is about.
    pub recipe: String,
    /// The verdict.
    pub verdict: Verdict,
    /// The reason for the verdict in one sentence.
    pub because: String,
    /// Effect of the row that is farthest from supporting the claim, in [`unit`](Self::unit).
    pub effect: f64,
    /// Lower end of that effect's 95 % interval.
    pub low: f64,
    /// Upper end of that effect's 95 % interval.
    pub high: f64,
    /// Unit of the effect.
    pub unit: String,
    /// Largest p-value of the rows that decide, adjusted for the number of claims (Holm).
    pub p_value: f64,
    /// Number of clusters of that row: independent items, or families where there are no items; 0 when nothing was
    /// measured.
    pub n: usize,
    /// Verdicts on circuits of other recipes.
    pub others: Vec<RecipeVerdict>,
    /// Every comparison that was made, those that decide first.
    pub rows: Vec<ClaimRow>,
    /// The numbers of the rows that decide, with the model and the data that they were measured on.
    pub reading: String,
}

/// Verdict on the circuits of one recipe.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RecipeVerdict {
    /// Recipe of the circuits.
    pub recipe: String,
    /// The verdict.
    pub verdict: Verdict,
    /// The reason for the verdict in one sentence.
    pub because: String,
}

/// One comparison that bears on a claim.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClaimRow {
    /// Recipe of the circuits.
    pub recipe: String,
    /// The part of the claim that the row is about; a claim is supported when all of its parts are.
    pub part: String,
    /// The measure.
    pub measure: String,
    /// What the circuits are held against.
    pub against: String,
    /// Size of the circuits, empty where sizes play no part.
    pub size: String,
    /// Kind of edit, empty where nothing was edited.
    pub edit: String,
    /// Unit of the effect.
    pub unit: String,
    /// The effect, positive where it speaks for the claim.
    pub effect: f64,
    /// Lower end of the 95 % interval.
    pub low: f64,
    /// Upper end of the 95 % interval.
    pub high: f64,
    /// Two-sided p-value of the hypothesis of no effect.
    pub p_value: f64,
    /// Smallest effect that would have been seen in 80 % of such runs.
    pub smallest_visible: f64,
    /// Number of independent items: components of requests, pairs of requests or held-out rows.
    pub items: usize,
    /// Number of families of tasks.
    pub families: usize,
    /// Whether the row is one of those that decide.
    pub decides: bool,
    /// Verdict of the row alone.
    pub verdict: Verdict,
}

/// Verdict on a claim or on one row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Every row that decides lies within the claimed range, after correction for the number of claims.
    Supported,
    /// Some part of the claim lies outside the claimed range, and none is supported.
    NotSupported,
    /// Some part of the claim is supported and another one is not.
    Mixed,
    /// The run could not tell.
    Undecided,
    /// The run has no records that bear on the claim.
    NotMeasured,
    /// The model cannot do the tasks, or does not know the facts, that the claim is about.
    NotTestable,
}

impl Verdict {
    /// Every verdict, in the order of a tally.
    pub const ALL: [Verdict; 6] = [
        Verdict::Supported,
        Verdict::NotSupported,
        Verdict::Mixed,
        Verdict::Undecided,
        Verdict::NotMeasured,
        Verdict::NotTestable,
    ];

    /// The verdict in words.
    pub fn words(self) -> &'static str {
        match self {
            Verdict::Supported => "supported",
            Verdict::NotSupported => "not supported",
            Verdict::Mixed => "mixed",
            Verdict::Undecided => "undecided",
            Verdict::NotMeasured => "not measured",
            Verdict::NotTestable => "not testable here",
        }
    }
}
