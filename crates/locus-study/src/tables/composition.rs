//! Composition of circuits by kind of module: T6 and T6b, their figure, and C5.
//!
//! The published "60 % LayerNorm" (arXiv 2406.17241) cannot be a share of the circuit, because LayerNorms hold far
//! fewer than 5 % of the parameters, and what else it means was not published. All readings are computed: D0-D3 in
//! [`Measures`].

use locus_metrics::Interval;

use super::{
    cells::{count, estimate, table, text},
    options::TableOptions,
    select::{Density, distinct, masks, presets, scope_label},
};
use crate::{
    records::{Extraction, Records, Scope, TensorCount},
    results::{Style, Table},
};

const COLUMNS: [&str; 12] = [
    "preset",
    "target density",
    "mask",
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

/// T6: composition of circuits by kind of module.
///
/// Rows: for each preset, target density and kind of mask (circuits first, then the controls) the three kinds of module,
/// with all their parameters, their weights alone and their biases alone. Matched masks have the circuits' composition by
/// construction and are left out.
///
/// Columns: number of tasks, then means over tasks with their intervals: D0, the share kept of the module (%); its
/// share of the circuit (%); lift, D0 over the circuit's density; D1, D0 over the sum of the three kinds' D0 (%); D2,
/// the module's share of the k densest tensors, k being the number of LayerNorm tensors (%); D3, the share of the
/// module's tensors that are denser than the circuit as a whole (%).
pub fn t6(records: &Records, options: &TableOptions) -> Table {
    let mut rows = Vec::new();
    for (preset, size, scope, circuits) in groups(records) {
        for kind in ModuleKind::ALL {
            for part in TensorPart::ALL {
                let mut row = vec![
                    text(preset),
                    text(size.label()),
                    text(scope_label(scope)),
                    text(kind.label()),
                    text(part.label()),
                    count(distinct(circuits.iter().map(|e| e.task.as_str())).len()),
                ];
                row.extend(MEASURES.iter().zip(&COLUMNS[6..]).map(|((measure, style), name)| {
                    let value = |e: &Extraction| measure(&Composition::new(e, None).measures(kind, part));
                    let purpose = format!(
                        "T6/{preset}/{}/{scope:?}/{}/{}/{name}",
                        size.label(),
                        kind.label(),
                        part.label()
                    );
                    estimate(mean_over_tasks(&circuits, value, options, &purpose), *style)
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
        "Circuits whose target was not reached are left out. Magnitude: the largest |w|. Shuffled labels: masks trained \
         by the recipe on shuffled labels. Random weights: circuits that the recipe finds in a model of random weights. \
         These know no task."
            .into(),
        options.intervals("tasks"),
        options.source(),
    ];
    table("T6", "Composition of circuits by kind of module".into(), notes, &COLUMNS, rows)
}

/// T6b: composition of circuits by layer and kind of module.
///
/// Rows: for each preset and target density every layer's three kinds of module. Columns: number of tasks, then means
/// over tasks with their intervals: share kept of the module in that layer (%), and its share of the whole circuit (%).
pub fn t6b(records: &Records, options: &TableOptions) -> Table {
    let mut rows = Vec::new();
    let circuits_alone = groups(records).into_iter().filter(|(_, _, scope, _)| *scope == Scope::Circuit);
    for (preset, size, _, circuits) in circuits_alone {
        for layer in distinct(circuits.iter().flat_map(|e| e.composition.iter().map(|t| t.layer))) {
            for kind in ModuleKind::ALL {
                let kept = |e: &Extraction| Composition::new(e, Some(layer)).density(kind, TensorPart::All);
                let share = |e: &Extraction| {
                    let circuit_size = Composition::new(e, None).totals(|_, _| true).0;
                    Composition::new(e, Some(layer)).share_of(kind, TensorPart::All, circuit_size)
                };
                let purpose = format!("T6b/{preset}/{}/{layer}/{}", size.label(), kind.label());
                rows.push(vec![
                    text(preset),
                    text(size.label()),
                    count(layer),
                    text(kind.label()),
                    count(distinct(circuits.iter().map(|e| e.task.as_str())).len()),
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

/// Masks by preset, size (small to large) and kind.
fn groups(records: &Records) -> Vec<(&str, Density, Scope, Vec<&Extraction>)> {
    const SCOPES: [Scope; 5] =
        [Scope::Circuit, Scope::Magnitude, Scope::Shuffled, Scope::RandomWeights, Scope::Random];
    let sizes = distinct(records.extractions.iter().map(|e| Density::of(e.target_density)));
    let mut groups = Vec::new();
    for preset in presets(records) {
        for (size, scope) in sizes.iter().flat_map(|&size| SCOPES.map(|scope| (size, scope))) {
            let masks = composed(records, preset, size, scope);
            if !masks.is_empty() {
                groups.push((preset, size, scope, masks));
            }
        }
    }
    groups
}

/// The masks of a kind whose composition is known.
pub(crate) fn composed<'a>(
    records: &'a Records,
    preset: &str,
    size: Density,
    scope: Scope,
) -> Vec<&'a Extraction> {
    let mut masks = masks(records, preset, size, scope);
    masks.retain(|e| !Composition::new(e, None).tensors.is_empty());
    masks
}

/// The kinds of module that a block is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum ModuleKind {
    LayerNorm,
    Attention,
    Mlp,
}

impl ModuleKind {
    pub(crate) const ALL: [Self; 3] = [Self::LayerNorm, Self::Attention, Self::Mlp];

    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::LayerNorm => "LayerNorm",
            Self::Attention => "attention",
            Self::Mlp => "MLP",
        }
    }

    fn of(tensor: &str) -> Option<Self> {
        match tensor.split('.').next()? {
            "ln_1" | "ln_2" => Some(Self::LayerNorm),
            "attn" => Some(Self::Attention),
            "mlp" => Some(Self::Mlp),
            _ => None,
        }
    }
}

/// A part of a module's tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TensorPart {
    All,
    Weights,
    Biases,
}

impl TensorPart {
    pub(crate) const ALL: [Self; 3] = [Self::All, Self::Weights, Self::Biases];

    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Weights => "weights",
            Self::Biases => "biases",
        }
    }

    fn holds(self, tensor: &str) -> bool {
        match self {
            Self::All => true,
            Self::Weights => tensor.ends_with(".weight"),
            Self::Biases => tensor.ends_with(".bias"),
        }
    }
}

/// Measures of one group of tensors in one circuit; `None` where the group or the circuit is empty.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Measures {
    /// D0: share of the group's parameters that the circuit keeps.
    pub(crate) density: Option<f64>,
    /// Share of the circuit's parameters that lie in the group.
    pub(crate) share: Option<f64>,
    /// Density over the circuit's global density.
    pub(crate) lift: Option<f64>,
    /// D1: density over the sum of the three kinds' densities.
    pub(crate) density_share: Option<f64>,
    /// D2: share of the k densest tensors that belong to the group, k being the number of LayerNorm tensors.
    pub(crate) top_share: Option<f64>,
    /// D3: share of the group's tensors that are denser than the circuit as a whole.
    pub(crate) above_global: Option<f64>,
}

/// The tensors of one circuit, without those of an unknown kind.
pub(crate) struct Composition<'a> {
    tensors: Vec<(ModuleKind, &'a TensorCount)>,
}

impl<'a> Composition<'a> {
    /// The composition of a circuit, or of one of its layers.
    pub(crate) fn new(circuit: &'a Extraction, layer: Option<usize>) -> Self {
        let fits = |t: &&TensorCount| t.size > 0 && layer.is_none_or(|layer| t.layer == layer);
        let with_kind = |t: &'a TensorCount| Some((ModuleKind::of(&t.tensor)?, t));
        Self { tensors: circuit.composition.iter().filter(fits).filter_map(with_kind).collect() }
    }

    /// Share kept of the parameters of a kind.
    pub(crate) fn density(&self, kind: ModuleKind, part: TensorPart) -> Option<f64> {
        let (kept, size) = self.totals(|k, t| k == kind && part.holds(&t.tensor));
        ratio(kept, size)
    }

    /// Share of the parameters of the whole circuit (`circuit_size`, in all layers) that lie in the group.
    pub(crate) fn share_of(&self, kind: ModuleKind, part: TensorPart, circuit_size: f64) -> Option<f64> {
        ratio(self.totals(|k, t| k == kind && part.holds(&t.tensor)).0, circuit_size)
    }

    /// Every measure of a kind; D1 and D2 compare it with the other kinds' tensors of the same part.
    pub(crate) fn measures(&self, kind: ModuleKind, part: TensorPart) -> Measures {
        let (circuit, population) = self.totals(|_, _| true);
        let global = ratio(circuit, population);
        let density = self.density(kind, part);
        let densities: f64 = ModuleKind::ALL.iter().filter_map(|&k| self.density(k, part)).sum();
        let in_group = |(k, t): &&(ModuleKind, &TensorCount)| *k == kind && part.holds(&t.tensor);
        let tensors = self.tensors.iter().filter(in_group);
        let above = tensors.clone().filter(|(_, t)| Some(tensor_density(t)) > global).count();
        Measures {
            density,
            share: self.share_of(kind, part, circuit),
            lift: density.zip(global).and_then(|(d, g)| ratio(d, g)),
            density_share: density.and_then(|d| ratio(d, densities)),
            top_share: self.top_share(kind, part),
            above_global: ratio(above as f64, tensors.count() as f64),
        }
    }

    /// Measure D2. Tensors tied at the threshold share the places that are left, so that the result does not depend on
    /// the order of their names.
    fn top_share(&self, kind: ModuleKind, part: TensorPart) -> Option<f64> {
        let densities: Vec<(ModuleKind, f64)> = self
            .tensors
            .iter()
            .filter(|(_, t)| part.holds(&t.tensor))
            .map(|(k, t)| (*k, tensor_density(t)))
            .collect();
        let places = densities.iter().filter(|(k, _)| *k == ModuleKind::LayerNorm).count();
        let mut descending: Vec<f64> = densities.iter().map(|(_, density)| *density).collect();
        descending.sort_by(|a, b| b.total_cmp(a));
        let threshold = *descending.get(places.checked_sub(1)?)?;
        let count =
            |keep: &dyn Fn(&(ModuleKind, f64)) -> bool| densities.iter().filter(|&t| keep(t)).count() as f64;
        let left = places as f64 - count(&|t| t.1 > threshold);
        let tied_weight = left / count(&|t| t.1 == threshold);
        let taken = count(&|t| t.0 == kind && t.1 > threshold)
            + tied_weight * count(&|t| t.0 == kind && t.1 == threshold);
        Some(taken / places as f64)
    }

    /// Numbers of parameters, kept and in all, of the tensors that `member` picks.
    pub(crate) fn totals(&self, member: impl Fn(ModuleKind, &TensorCount) -> bool) -> (f64, f64) {
        let picked = self.tensors.iter().filter(|(k, t)| member(*k, t));
        picked.fold((0.0, 0.0), |(kept, size), (_, t)| (kept + t.kept as f64, size + t.size as f64))
    }
}

fn tensor_density(t: &TensorCount) -> f64 {
    t.kept as f64 / t.size as f64
}

fn ratio(numerator: f64, denominator: f64) -> Option<f64> {
    (denominator > 0.0).then(|| numerator / denominator)
}

/// Mean of a measure over circuits of different tasks, with its interval over tasks; tasks without the measure are left
/// out.
pub(crate) fn mean_over_tasks(
    circuits: &[&Extraction],
    measure: impl Fn(&Extraction) -> Option<f64>,
    options: &TableOptions,
    purpose: &str,
) -> Option<Interval> {
    let (tasks, values): (Vec<&str>, Vec<f64>) =
        circuits.iter().filter_map(|e| Some((e.task.as_str(), measure(e)?))).unzip();
    options.mean(&values, &tasks, purpose)
}
