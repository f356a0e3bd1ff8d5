//! Bars of the shares that circuits keep of each kind of module.

use crate::{
    records::{Extraction, Records, Scope},
    results::{BarSeries, Figure, Plot},
    tables::{
        TableOptions,
        composition::{Composition, ModuleKind, TensorPart, composed, mean_over_tasks},
        select::{Density, distinct},
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
