//! T6: what circuits are made of.

use super::{
    TableOptions,
    cells::{count, estimate, table, text},
    composition::{Composition, Kind, Measures, Part, circuits, mean_over_tasks},
    select::{Density, distinct, presets},
};
use crate::{
    records::{Extraction, Records},
    results::{Style, Table},
};

const COLUMNS: [&str; 11] = [
    "preset",
    "target density",
    "module",
    "parameters",
    "tasks",
    "D0: share kept of the module",
    "share of the circuit",
    "lift",
    "D1: share of the densities",
    "D2: share of the densest tensors",
    "D3: tensors above the global density",
];

type Measure = fn(&Measures) -> Option<f64>;

/// The measures, in the order of the columns.
const MEASURES: [(Measure, Style); 6] = [
    (|m| m.density, Style::Percent),
    (|m| m.share, Style::Percent),
    (|m| m.lift, Style::Fixed3),
    (|m| m.density_share, Style::Percent),
    (|m| m.top_share, Style::Percent),
    (|m| m.above_global, Style::Percent),
];

/// Composition by kind of module, weights and biases together and apart, mean over tasks.
pub fn t6(records: &Records, options: &TableOptions) -> Table {
    let mut rows = Vec::new();
    for (preset, size, circuits) in groups(records) {
        for kind in Kind::ALL {
            for part in Part::ALL {
                let mut row = vec![
                    text(preset),
                    text(size.label()),
                    text(kind.label()),
                    text(part.label()),
                    count(circuits.len()),
                ];
                row.extend(MEASURES.iter().zip(&COLUMNS[5..]).map(|((measure, style), name)| {
                    let of = |e: &Extraction| measure(&Composition::new(e, None).measures(kind, part));
                    let purpose =
                        format!("T6/{preset}/{}/{}/{}/{name}", size.label(), kind.label(), part.label());
                    estimate(mean_over_tasks(&circuits, of, options, &purpose), *style)
                }));
                rows.push(row);
            }
        }
    }
    let notes = vec![
        "LayerNorm: ln_1 and ln_2 of every block; embeddings, the final LayerNorm and the head cannot be in \
         a circuit. The share of the circuit is bounded by the module's share of the parameters, so that \
         only the shares kept (D0) compare kinds fairly; lift is D0 over the circuit's density."
            .into(),
        "D1: D0 over the sum of the three kinds' D0 (33 % is chance). D2: share among the k densest tensors, \
         k being the number of LayerNorm tensors. D3: share of the module's tensors that are denser than the \
         circuit as a whole. Rows for weights and biases compare with the weights and biases of the other \
         kinds."
            .into(),
        options.intervals("tasks"),
        options.source(),
    ];
    table("T6", "Composition of circuits by kind of module".into(), notes, &COLUMNS, rows)
}

/// Composition by layer and kind, mean over tasks.
pub fn t6b(records: &Records, options: &TableOptions) -> Table {
    let mut rows = Vec::new();
    for (preset, size, circuits) in groups(records) {
        for layer in distinct(circuits.iter().flat_map(|e| e.composition.iter().map(|t| t.layer))) {
            for kind in Kind::ALL {
                let kept = |e: &Extraction| Composition::new(e, Some(layer)).density(kind, Part::All);
                let share = |e: &Extraction| {
                    let circuit_size = Composition::new(e, None).totals(|_, _| true).0;
                    Composition::new(e, Some(layer)).share_of(kind, Part::All, circuit_size)
                };
                let purpose = format!("T6b/{preset}/{}/{layer}/{}", size.label(), kind.label());
                rows.push(vec![
                    text(preset),
                    text(size.label()),
                    count(layer),
                    text(kind.label()),
                    count(circuits.len()),
                    estimate(
                        mean_over_tasks(&circuits, kept, options, &format!("{purpose}/kept")),
                        Style::Percent,
                    ),
                    estimate(
                        mean_over_tasks(&circuits, share, options, &format!("{purpose}/share")),
                        Style::Percent,
                    ),
                ]);
            }
        }
    }
    let columns = [
        "preset",
        "target density",
        "layer",
        "module",
        "tasks",
        "share kept of the module",
        "share of the circuit",
    ];
    let notes = vec![options.intervals("tasks"), options.source()];
    table("T6b", "Composition of circuits by layer".into(), notes, &columns, rows)
}

/// Circuits by preset and size, small to large.
fn groups(records: &Records) -> Vec<(&str, Density, Vec<&Extraction>)> {
    let sizes = distinct(records.extractions.iter().map(|e| Density::of(e.target_density)));
    let of = |preset| sizes.iter().map(move |&size| (preset, size, circuits(records, preset, size)));
    presets(records).into_iter().flat_map(of).filter(|(_, _, circuits)| !circuits.is_empty()).collect()
}
