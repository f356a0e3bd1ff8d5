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
    /// Tables T1-T7 and X1-X3, those that have rows or a note on what could not be measured.
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
    /// The published claim.
    pub claim: String,
    /// The statistic that decides the claim.
    pub statistic: String,
    /// Effect size, with its unit in `unit`.
    pub effect: f64,
    /// Lower end of the effect's 95 % bootstrap interval.
    pub low: f64,
    /// Upper end of the effect's 95 % bootstrap interval.
    pub high: f64,
    /// Unit of the effect.
    pub unit: String,
    /// Two-sided p-value of the claim's test.
    pub p_value: f64,
    /// Number of pairs or items that the effect was computed from; 0 when the claim was not measured.
    pub n: usize,
    /// The verdict.
    pub verdict: Verdict,
    /// The numbers in one or two sentences, with the model and the data that they were measured on.
    pub reading: String,
}

/// Verdict on a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// The interval lies within the claimed range, and the test rejects "no effect".
    Supported,
    /// The interval lies outside the claimed range, on one side, and the test rejects "no effect".
    NotSupported,
    /// The interval crosses an end of the claimed range, or the test does not reject.
    Undecided,
}
