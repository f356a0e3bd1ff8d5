//! How each table is shown on the page: what groups its rows, which columns come first, and what is left to its CSV.

/// The layout of one table.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Layout {
    /// Columns whose values become headings of groups of rows.
    pub(super) groups: &'static [&'static str],
    /// Columns that are stated in the heading where a group has one value of them, and are not shown otherwise.
    pub(super) facts: &'static [&'static str],
    /// Columns that are shown, what decides first; empty for all.
    pub(super) columns: &'static [&'static str],
    /// Whether the rows are folded under a figure that shows them.
    pub(super) folded: bool,
    /// Column of sizes of which only 5 % and 50 % are shown; empty for all rows.
    pub(super) main_sizes: &'static str,
}

const EXTRACTION: &[&str] = &[
    "mask",
    "agreement",
    "balanced agreement",
    "agreement, complement",
    "accuracy",
    "accuracy, complement",
    "density",
    "neutral NLL",
];
const ALL_ROWS: Layout = Layout { groups: &[], facts: &[], columns: &[], folded: false, main_sizes: "" };

/// The layout of the table with this id.
pub(super) fn layout(id: &str) -> Layout {
    match id {
        "T1" => Layout {
            groups: &["task", "target density", "preset"],
            facts: &["held-out rows", "accuracy, full", "accuracy, random weights"],
            columns: EXTRACTION,
            ..ALL_ROWS
        },
        "T4" => Layout {
            groups: &["preset", "target density"],
            facts: &["held-out rows", "accuracy, full", "accuracy, random weights"],
            columns: EXTRACTION,
            ..ALL_ROWS
        },
        "T2" | "T3" => Layout {
            groups: &["edit", "preset"],
            columns: &[
                "scope",
                "task",
                "change of the margin",
                "change of NLL(new)",
                "new beats true before",
                "new beats true after",
                "P(true) before",
                "P(true) after",
                "P(new) after",
                "neighbourhood",
                "margin gained at equal damage",
            ],
            ..ALL_ROWS
        },
        "T4b" => Layout {
            groups: &["preset", "target density"],
            columns: &[
                "scope",
                "change of the margin",
                "change of NLL(new)",
                "new beats true before",
                "new beats true after",
                "P(true) before",
                "P(true) after",
                "P(new) after",
                "neighbourhood",
                "margin gained at equal damage",
            ],
            ..ALL_ROWS
        },
        "T5" | "T5b" => Layout {
            groups: &["preset"],
            columns: &["task", "other task", "Jaccard", "expected, matched", "lift, stratified", "kappa"],
            folded: true,
            ..ALL_ROWS
        },
        "T6" => Layout {
            groups: &["preset", "target density", "mask"],
            facts: &["tasks"],
            columns: &[
                "module",
                "parameters",
                "D0: share kept of the module",
                "D1: share of the densities",
                "D2: share of the densest tensors",
                "D3: tensors above the global density",
                "share of the circuit",
            ],
            folded: true,
            main_sizes: "target density",
        },
        "T6b" => Layout {
            groups: &["preset", "target density"],
            facts: &["tasks"],
            folded: true,
            main_sizes: "target density",
            ..ALL_ROWS
        },
        "T7" => Layout {
            groups: &["edit", "preset", "target density"],
            columns: &[
                "scope",
                "level",
                "change of NLL(new)",
                "change of the margin",
                "NLL(new) after",
                "new beats true after",
                "P(new) before",
                "Spearman of P(new) before and after",
                "p",
            ],
            ..ALL_ROWS
        },
        "X1" => Layout {
            groups: &["task"],
            facts: &["edges", "edges patched", "pairs scored", "pairs measured"],
            columns: &[
                "method",
                "CPR",
                "CMD",
                "CMD, log axis",
                "faithfulness at 5 %",
                "at 10 %",
                "at 20 %",
                "r with exact patching",
            ],
            ..ALL_ROWS
        },
        "X1b" => Layout {
            groups: &["task", "size"],
            facts: &["pairs measured", "accuracy, full model"],
            columns: &["method", "circuit", "complement", "faithfulness", "parameters"],
            ..ALL_ROWS
        },
        "X2" => Layout {
            groups: &["editor"],
            columns: &[
                "scope",
                "size",
                "score",
                "efficacy",
                "paraphrase",
                "neighbourhood",
                "P(new)",
                "drift",
                "refused",
                "EM",
                "PM",
                "NM",
            ],
            ..ALL_ROWS
        },
        "X3" => Layout { groups: &["restored"], folded: true, ..ALL_ROWS },
        "X4" => Layout {
            groups: &["claim", "recipe"],
            columns: &[
                "measure",
                "against",
                "size",
                "edit",
                "verdict",
                "effect",
                "p",
                "smallest visible",
                "items",
                "decides",
            ],
            folded: true,
            ..ALL_ROWS
        },
        _ => ALL_ROWS,
    }
}
