//! Fabricated results for tests: all kinds of cells, plots and verdicts, and text that needs escaping.

use crate::records::{
    EditKind, EditOutcome, Extraction, Level, Overlap, PUBLISHED, Records, Schedule, Scope, TensorCount,
};
use crate::results::{
    BarSeries, BeforeAfter, Cell, Claim, ClaimRow, Figure, LineSeries, Plot, Provenance, RecipeVerdict,
    Results, Style, Table, Verdict,
};

const TASKS: [&str; 14] = [
    "hierarchy",
    "blimp_dna1",
    "blimp_dna2",
    "blimp_dnai1",
    "blimp_dnai2",
    "blimp_dnawa1",
    "blimp_dnawa2",
    "blimp_dnawai1",
    "blimp_dnawai2",
    "persona_e",
    "persona_ra",
    "persona_hhh",
    "persona_tech",
    "persona_umr",
];
const DENSITIES: [f64; 3] = [0.05, 0.25, 0.5];

/// A number in [0, 1) that looks random and is the same everywhere.
fn noise(seed: usize) -> f64 {
    let mixed = (seed as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (mixed ^ (mixed >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9) as f64 / 2f64.powi(64)
}

fn strings<const N: usize>(texts: [&str; N]) -> Vec<String> {
    texts.map(str::to_owned).to_vec()
}

fn text(text: &str) -> Cell {
    Cell::Text(text.to_owned())
}

fn estimate(value: f64, style: Style) -> Cell {
    Cell::Estimate { value, low: value - 0.031, high: value + 0.029, style }
}

/// The fabricated results.
pub fn results() -> Results {
    Results {
        provenance: Provenance {
            version: "0.1.0".to_owned(),
            seed: 17,
            profile: "quick".to_owned(),
            model: "organism (4 layers, d = 128) & <fabricated>".to_owned(),
            model_sha256: "0123456789abcdef".repeat(4),
            data: "fabricated data".to_owned(),
            data_sha256: TASKS
                .iter()
                .map(|task| (format!("{task}.csv"), "fedcba9876543210".repeat(4)))
                .collect(),
            conventions: strings([
                "NLLs are means per target token, in nats; the published code is at https://example.org/circuits.",
                "Dropout is off while the score head is trained; the authors' was on.",
            ]),
        },
        records: records(),
        tables: vec![extraction_table(), edit_table("T2"), edit_table("T3"), p_table()],
        figures: figures(),
        claims: claims(),
    }
}

fn records() -> Records {
    let mut records = Records::default();
    for (index, task) in TASKS.into_iter().enumerate() {
        records.extractions.push(Extraction {
            preset: PUBLISHED.to_owned(),
            task: task.to_owned(),
            target_density: 0.05,
            scope: Scope::Circuit,
            draw: 0,
            schedule: Schedule::Sweep,
            density: 0.1 * noise(index),
            reached: index % 3 > 0,
            epochs: 100 + index,
            steps: 1300 * index,
            held_out_rows: 400,
            accuracy_full: noise(index + 1),
            accuracy_random_weights: None,
            accuracy: noise(index + 2),
            accuracy_complement: 0.1 + 0.2,
            agreement: noise(index + 3),
            balanced_agreement: (index > 0).then_some(1.0 / 3.0),
            agreement_complement: 1.0,
            neutral_nll: Some(5e-324),
            neutral_kl: None,
            composition: vec![TensorCount {
                layer: 0,
                tensor: "ln_1.weight".to_owned(),
                kept: 70,
                size: 128,
            }],
            mask_sha256: "ab".repeat(32),
            edited_sha256: None,
        });
        records.edits.push(EditOutcome {
            preset: PUBLISHED.to_owned(),
            task: task.to_owned(),
            target_density: 0.05,
            scope: Scope::Complement,
            draw: 0,
            edit: EditKind::Steps50,
            case_id: index as u64,
            level: if index % 2 == 0 { Level::Hyponym } else { Level::Hypernym },
            pre_new: 10.0 * noise(index + 4),
            pre_true: 10.0 * noise(index + 5),
            discrimination: Some(noise(index + 8)),
            post_new: 10.0 * noise(index + 6),
            post_true: 1e-9 * noise(index + 7),
            steps: 10,
            steps_to_success: (index > 3).then_some(index),
            paraphrase: None,
            neighbourhood: None,
            drift: Some(0.1),
        });
        records.overlaps.push(Overlap {
            preset: PUBLISHED.to_owned(),
            target_density: 0.05,
            task_a: task.to_owned(),
            task_b: TASKS[(index + 1) % TASKS.len()].to_owned(),
            intersection: 1234,
            size_a: 5678,
            size_b: 6789,
            population: 792_064,
            draw_b: 0,
            expected_intersection_matched: 1.0,
            expected_intersection_stratified: 345.6 * noise(index),
        });
    }
    records
}

fn extraction_table() -> Table {
    let mut rows = Vec::new();
    for (index, task) in TASKS.into_iter().enumerate() {
        for (number, target) in DENSITIES.into_iter().enumerate() {
            let seed = 10 * index + number;
            rows.push(vec![
                text(task),
                Cell::Number { value: target, style: Style::Percent },
                Cell::Number { value: target * (0.9 + 0.1 * noise(seed)), style: Style::Percent },
                text(if noise(seed) > 0.2 { "yes" } else { "no" }),
                Cell::Count((3000.0 * noise(seed + 1)) as u64),
                estimate(0.8 + 0.2 * noise(seed + 2), Style::Percent),
                estimate(0.6 + 0.3 * noise(seed + 3), Style::Percent),
                estimate(0.4 + 0.2 * noise(seed + 4), Style::Percent),
                estimate(0.5 + 0.5 * noise(seed + 5), Style::Percent),
                if number == 1 {
                    Cell::Empty(())
                } else {
                    estimate(0.45 + 0.1 * noise(seed + 6), Style::Percent)
                },
            ]);
        }
    }
    Table {
        id: "T1".to_owned(),
        title: "Circuit extraction".to_owned(),
        notes: strings([
            "Shares of held-out rows (400 per agreement task, 200 per attitude task, 80 for the hierarchy) with 95 % bootstrap intervals.",
            "Deviation: the mask is sampled once per epoch with a fixed seed | the published code draws anew.",
        ]),
        columns: strings([
            "task",
            "target density",
            "density",
            "reached",
            "epochs",
            "accuracy, full model",
            "accuracy, circuit",
            "accuracy, complement",
            "agreement with full model",
            "agreement, random mask of equal density",
        ]),
        rows,
    }
}

fn edit_table(id: &str) -> Table {
    let rows = TASKS.into_iter().enumerate().flat_map(|(index, task)| {
        ["circuit", "complement"].into_iter().enumerate().map(move |(number, scope)| {
            let seed = 20 * index + number + if id == "T2" { 0 } else { 7 };
            vec![
                text(task),
                text(scope),
                Cell::Count(198),
                estimate(8.0 * noise(seed), Style::Fixed3),
                estimate(8.0 * noise(seed + 1), Style::Fixed3),
                estimate(-6.0 * noise(seed + 2), Style::Fixed3),
                Cell::Number { value: 1e-5 * noise(seed + 3), style: Style::Significant3 },
            ]
        })
    });
    Table {
        id: id.to_owned(),
        title: format!("Editing inside circuits, {}", if id == "T2" { "5 %" } else { "50 %" }),
        notes: strings(["NLL in nats per target token, means over 198 requests."]),
        columns: strings([
            "task",
            "scope",
            "requests",
            "NLL new, before",
            "NLL new, after",
            "change",
            "P(new) before",
        ]),
        rows: rows.collect(),
    }
}

fn p_table() -> Table {
    let rows = (0..5).map(|index| {
        let value = 10f64.powi(-3 * index) * 0.987_654_321;
        vec![
            text("a <b> & \"c\""),
            Cell::Number { value, style: Style::Significant3 },
            Cell::Count(124_439_808),
        ]
    });
    Table {
        id: "T5a".to_owned(),
        title: "Overlap <of> \"circuits\"".to_owned(),
        notes: Vec::new(),
        columns: strings(["pair", "p", "parameters"]),
        rows: rows.collect(),
    }
}

fn figures() -> Vec<Figure> {
    let tasks = || TASKS.map(str::to_owned).to_vec();
    let overlap = |a: usize, b: usize| {
        if a == b { 1.0 } else { (0.7 * noise(a.min(b) * 14 + a.max(b))).powi(2) + 0.1 }
    };
    let matrix =
        (0..14).map(|a| (0..14).map(|b| (a != 3 || b != 7).then(|| overlap(a, b))).collect()).collect();
    let shares = |seed: usize| -> Vec<f64> { (0..14).map(|index| 0.4 + 0.5 * noise(seed + index)).collect() };
    let bar = |name: &str, seed: usize| BarSeries {
        name: name.to_owned(),
        values: shares(seed),
        intervals: shares(seed).into_iter().map(|value| (value - 0.04, value + 0.05)).collect(),
    };
    let line = |name: &str, seed: usize| LineSeries {
        name: name.to_owned(),
        points: [0.05, 0.15, 0.25, 0.35, 0.5]
            .into_iter()
            .map(|x| (x, 0.5 + 0.4 * x + 0.1 * noise(seed + (100.0 * x) as usize)))
            .collect(),
    };
    let mut entries = Vec::new();
    for (index, task) in TASKS.into_iter().enumerate() {
        for (number, series) in ["new target", "true target"].into_iter().enumerate() {
            let before = 9.0 - 3.0 * number as f64 + noise(index);
            let after = before + if number == 0 { -7.0 } else { 1.5 } * noise(30 + index);
            entries.push(BeforeAfter { label: task.to_owned(), series: series.to_owned(), before, after });
        }
    }
    let composition = Plot::Bars {
        groups: strings(["LayerNorm", "attention", "MLP"]),
        series: vec![
            BarSeries { name: "weights".to_owned(), values: vec![0.61, -0.12, 0.31], intervals: Vec::new() },
            BarSeries { name: "biases".to_owned(), values: vec![0.42, 0.21, 0.18], intervals: Vec::new() },
        ],
        y_label: "share kept minus density".to_owned(),
    };
    let layers = Plot::HeatMap {
        rows: strings(["layer 0", "layer 1", "layer 2", "layer 3"]),
        columns: strings(["ln_1", "attn", "ln_2", "mlp"]),
        values: (0..4).map(|a| (0..4).map(|b| Some(0.12 * noise(4 * a + b))).collect()).collect(),
        max: 0.12,
        unit: "share kept".to_owned(),
    };
    let curves = Plot::Lines {
        x_label: "density (share of maskable parameters)".to_owned(),
        y_label: "accuracy on held-out rows".to_owned(),
        log_x: true,
        series: vec![
            line("circuit", 1),
            line("complement", 200),
            line("random mask", 300),
            line("full model", 400),
            line("EAP", 500),
        ],
    };
    let heat = Plot::HeatMap {
        rows: tasks(),
        columns: tasks(),
        values: matrix,
        max: 1.0,
        unit: "Jaccard index".to_owned(),
    };
    let bars = Plot::Bars {
        groups: tasks(),
        series: vec![
            bar("circuit", 10),
            bar("complement", 40),
            bar("random mask", 70),
            bar("full model", 90),
        ],
        y_label: "accuracy on held-out rows".to_owned(),
    };
    let edits = Plot::BeforeAfter { x_label: "NLL (nats per token)".to_owned(), entries };
    let figure = |id: &str, title: &str, plot| Figure {
        id: id.to_owned(),
        title: title.to_owned(),
        caption: "Fabricated numbers. Whiskers and brackets are 95 % bootstrap intervals; darker is more."
            .to_owned(),
        plot,
    };
    vec![
        figure("T5-overlap-5", "Overlap of circuits at 5 %, Jaccard <index>", heat),
        figure("T1-accuracy", "Accuracy of circuits, complements and controls", bars),
        figure("T2-edits", "Editing in the circuit, before and after", edits),
        figure("T4-sweep", "Accuracy against density", curves),
        figure("T6-composition", "What circuits are made of", composition),
        figure("T6-layers", "Share kept per layer", layers),
    ]
}

fn claims() -> Vec<Claim> {
    let claim = |id: &str, claim: &str, effect: f64, p_value: f64, verdict| {
        let (low, high) = (effect - 0.1234, effect + 0.1111);
        let row = |decides| ClaimRow {
            recipe: "published".to_owned(),
            part: "50 %".to_owned(),
            measure: "change of the margin".to_owned(),
            against: "against its complement, beyond <matched>".to_owned(),
            size: "50 %".to_owned(),
            edit: "10 steps".to_owned(),
            unit: "nats".to_owned(),
            effect,
            low,
            high,
            p_value,
            smallest_visible: 0.17,
            items: 43,
            families: 3,
            decides,
            verdict,
        };
        Claim {
            id: id.to_owned(),
            claim: claim.to_owned(),
            source: "Abstract, version 2: \"published\" & quoted.".to_owned(),
            statistic: "Circuit minus each control, by two measures.".to_owned(),
            recipe: "published".to_owned(),
            verdict,
            because: "change of the margin against <matched> at 50 %".to_owned(),
            effect,
            low,
            high,
            unit: "nats".to_owned(),
            p_value,
            n: 1980,
            others: vec![RecipeVerdict {
                recipe: "scheduled-top-k".to_owned(),
                verdict: Undecided,
                because: "open for 5 %".to_owned(),
            }],
            rows: vec![row(true), row(false)],
            reading: format!(
                "On the organism & the hierarchy <requests> the effect is {effect:.2} nats per token with p = {p_value:.1e}; see http://example.org."
            ),
        }
    };
    use Verdict::{Mixed, NotSupported, Supported, Undecided};
    vec![
        claim("C1", "Circuits contain entity knowledge", 0.734, 1.2e-8, Supported),
        claim(
            "C2",
            "Circuits resist new knowledge more than their complements (\"confirmation bias\")",
            -0.51,
            3.0e-4,
            NotSupported,
        ),
        claim("C3", "An ideal circuit lies between 5 % and 50 % of the parameters", 0.02, 0.62, Undecided),
        claim("C4", "Circuits of different tasks overlap moderately", 0.31, 0.0, Mixed),
    ]
}
