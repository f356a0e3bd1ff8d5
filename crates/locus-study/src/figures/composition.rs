//! What circuits keep: bars by kind of module, the same beside masks that know no task, and a map of layers and modules.

use std::collections::BTreeMap;

use crate::{
    records::{Extraction, Records, Scope},
    results::{BarSeries, Figure, Plot},
    tables::{
        TableOptions,
        composition::{Composition, ModuleKind, TensorPart, composed, mean_over_tasks},
        select::{Density, distinct, scope_label},
    },
};

pub(super) fn bars(records: &Records, preset: &str, options: &TableOptions) -> Vec<Figure> {
    let sizes = distinct(records.extractions.iter().map(|e| Density::of(e.target_density)));
    let groups: Vec<(Density, Vec<&Extraction>)> = sizes
        .into_iter()
        .map(|size| (size, composed(records, preset, size, Scope::Circuit)))
        .filter(|(_, c)| !c.is_empty())
        .collect();
    let series: Option<Vec<BarSeries>> = ModuleKind::ALL
        .into_iter()
        .map(|kind| {
            let of_size = |(size, circuits): &(Density, Vec<&Extraction>)| {
                let kept = |e: &Extraction| Composition::new(e, None).density(kind, TensorPart::All);
                let purpose = format!("T6-composition/{preset}/{}/{}", size.label(), kind.label());
                mean_over_tasks(circuits, kept, options, &purpose)
            };
            let bars = groups.iter().map(of_size).collect::<Option<Vec<_>>>()?;
            Some(BarSeries {
                name: kind.label().into(),
                values: bars.iter().map(|bar| bar.value).collect(),
                intervals: bars.iter().map(|bar| (bar.low, bar.high)).collect(),
            })
        })
        .collect();
    let Some(series) = series.filter(|_| !groups.is_empty()) else { return Vec::new() };
    let caption = "Share kept of the parameters of each kind of module, mean over tasks with the 95 % \
                   bootstrap interval over tasks. A circuit that chose blindly would keep its own density of \
                   every kind.";
    let plot = Plot::Bars {
        groups: groups.iter().map(|(size, _)| size.label()).collect(),
        series,
        y_label: "share kept".into(),
    };
    let title = "Composition of circuits by size".into();
    vec![Figure { id: "T6-composition".into(), title, caption: caption.into(), plot }]
}

/// Masks beside which a circuit's composition is shown.
const BESIDE: [Scope; 5] =
    [Scope::Circuit, Scope::Magnitude, Scope::Shuffled, Scope::RandomWeights, Scope::Random];

/// Shares kept of each kind of module by circuits and by the masks that know no task, a figure for each main size.
pub(super) fn beside_controls(records: &Records, preset: &str, options: &TableOptions) -> Vec<Figure> {
    let at = |size: Density| {
        let series = |scope: Scope| {
            let masks = composed(records, preset, size, scope);
            let of_kind = |kind: ModuleKind| {
                let kept = |e: &Extraction| Composition::new(e, None).density(kind, TensorPart::All);
                let purpose =
                    format!("T6-controls/{preset}/{}/{}/{}", size.label(), scope_label(scope), kind.label());
                mean_over_tasks(&masks, kept, options, &purpose)
            };
            let bars = ModuleKind::ALL.into_iter().map(of_kind).collect::<Option<Vec<_>>>()?;
            Some(BarSeries {
                name: scope_label(scope).into(),
                values: bars.iter().map(|bar| bar.value).collect(),
                intervals: bars.iter().map(|bar| (bar.low, bar.high)).collect(),
            })
        };
        let series: Vec<BarSeries> = BESIDE.into_iter().filter_map(series).collect();
        let compared = series.len() > 1 && series[0].name == scope_label(Scope::Circuit);
        let caption = "Share kept of the parameters of each kind of module, mean over tasks with the 95 % bootstrap \
                       interval over tasks, by circuits and by masks that know no task. What circuits and these masks have \
                       in common says nothing about a task.";
        compared.then(|| Figure {
            id: format!("T6-controls-{}", size.stem()),
            title: format!("Composition of circuits of {} beside masks that know no task", size.label()),
            caption: caption.into(),
            plot: Plot::Bars {
                groups: ModuleKind::ALL.map(|kind| kind.label().to_owned()).to_vec(),
                series,
                y_label: "share kept".into(),
            },
        })
    };
    Density::MAIN.into_iter().filter_map(at).collect()
}

/// Kinds of tensor in a block, in the order of the computation.
const MODULES: [&str; 6] = ["ln_1", "attn.c_attn", "attn.c_proj", "ln_2", "mlp.c_fc", "mlp.c_proj"];

/// Maps of the share that circuits keep of every module in every layer, a figure for each main size.
pub(super) fn layer_maps(records: &Records, preset: &str) -> Vec<Figure> {
    Density::MAIN.into_iter().filter_map(|size| layer_map(records, preset, size)).collect()
}

fn layer_map(records: &Records, preset: &str, size: Density) -> Option<Figure> {
    // Sums of kept and of all parameters over circuits: each circuit has as many of a module, so this is the mean share.
    let mut totals: BTreeMap<(usize, usize), (usize, usize)> = BTreeMap::new();
    for tensor in composed(records, preset, size, Scope::Circuit).iter().flat_map(|e| &e.composition) {
        let Some(module) = MODULES.iter().position(|name| {
            tensor.tensor.strip_prefix(name).is_some_and(|rest| matches!(rest, ".weight" | ".bias"))
        }) else {
            continue;
        };
        let sums = totals.entry((tensor.layer, module)).or_default();
        (sums.0, sums.1) = (sums.0 + tensor.kept, sums.1 + tensor.size);
    }
    let layers = distinct(totals.keys().map(|(layer, _)| *layer));
    let share = |layer: usize, module: usize| {
        let (kept, size) = totals.get(&(layer, module))?;
        (*size > 0).then(|| *kept as f64 / *size as f64)
    };
    let values: Vec<Vec<Option<f64>>> =
        layers.iter().map(|&layer| (0..MODULES.len()).map(|module| share(layer, module)).collect()).collect();
    let largest = values.iter().flatten().flatten().copied().fold(0.0, f64::max);
    let caption = "Share kept of every module of every layer, mean over circuits. A circuit that chose blindly would be of one \
                   shade.";
    (largest > 0.0).then(|| Figure {
        id: format!("T6b-layers-{}", size.stem()),
        title: format!("Where circuits of {} of the parameters sit", size.label()),
        caption: caption.into(),
        plot: Plot::HeatMap {
            rows: layers.iter().map(|layer| format!("layer {layer}")).collect(),
            columns: MODULES.map(str::to_owned).to_vec(),
            values,
            max: (largest * 10.0).ceil() / 10.0,
            unit: "share kept".into(),
        },
    })
}
