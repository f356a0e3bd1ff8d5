//! The size sweep on the hierarchy task as lines.

use crate::{
    records::{Extraction, HIERARCHY, Records, Scope},
    results::{Figure, LineSeries, Plot},
    tables::{
        TableOptions,
        editing::{mean_change, sweep},
        select::{Density, edits, scope_label},
    },
};

type Share = fn(&Extraction) -> f64;

pub(super) fn lines(records: &Records, preset: &str, options: &TableOptions) -> Vec<Figure> {
    [accuracy(records, preset), editing(records, preset, options)].into_iter().flatten().collect()
}

fn accuracy(records: &Records, preset: &str) -> Option<Figure> {
    let mut circuits: Vec<&Extraction> =
        records.extractions.iter().filter(|e| e.preset == preset && e.task == HIERARCHY).collect();
    circuits.sort_by_key(|e| Density::of(e.target_density));
    let line = |(name, share): (&str, Share)| LineSeries {
        name: name.into(),
        points: circuits.iter().map(|e| (percent(Density::of(e.target_density)), share(e))).collect(),
    };
    let lines: [(&str, Share); 4] = [
        ("full", |e| e.accuracy_full),
        ("circuit", |e| e.accuracy_circuit),
        ("complement", |e| e.accuracy_complement),
        ("random", |e| e.accuracy_random),
    ];
    let caption = "Accuracy on held-out rows of the hierarchy task. An ideal circuit is as good as the full \
                   model while its complement is at chance (0.5).";
    let plot = plot("accuracy", lines.into_iter().map(line).collect());
    let title = "Circuit size and accuracy".into();
    // A line needs two points.
    (circuits.len() > 1).then(|| Figure { id: "T4-accuracy".into(), title, caption: caption.into(), plot })
}

fn editing(records: &Records, preset: &str, options: &TableOptions) -> Option<Figure> {
    let groups = sweep(records, preset);
    let point = |density: Density, edits: &[_], scope| {
        let purpose = format!("T4-editing/{preset}/{}/{}", density.label(), scope_label(scope));
        Some((percent(density), mean_change(edits, options, &purpose)?.value))
    };
    let mut series = Vec::new();
    let mut ends: Vec<f64> = Vec::new();
    for scope in [Scope::Circuit, Scope::Complement, Scope::Random] {
        // The sweep goes from large to small, the axis from small to large.
        let of_scope = groups.iter().rev().filter(|(_, s, _)| *s == scope);
        let points: Vec<(f64, f64)> =
            of_scope.filter_map(|(density, _, edits)| point(*density, edits, scope)).collect();
        ends.extend(points.iter().map(|(x, _)| *x));
        if !points.is_empty() {
            series.push(LineSeries { name: scope_label(scope).into(), points });
        }
    }
    let (first, last) = (ends.iter().copied().reduce(f64::min)?, ends.iter().copied().reduce(f64::max)?);
    if let Some((_, full)) =
        point(Density::LARGE, &edits(records, "", Density::LARGE, Scope::Full), Scope::Full)
    {
        series.push(LineSeries {
            name: scope_label(Scope::Full).into(),
            points: vec![(first, full), (last, full)],
        });
    }
    let caption = "Mean change of NLL(new) by editing inside hierarchy circuits, their complements and \
                   random masks. Below zero the edit takes; the full model is drawn as a horizontal line.";
    let plot = plot("change of NLL(new), nats", series);
    let title = "Circuit size and editing".into();
    (first < last).then(|| Figure { id: "T4-editing".into(), title, caption: caption.into(), plot })
}

fn plot(y_label: &str, series: Vec<LineSeries>) -> Plot {
    Plot::Lines { x_label: "target density (%)".into(), y_label: y_label.into(), log_x: false, series }
}

fn percent(density: Density) -> f64 {
    density.share() * 100.0
}
