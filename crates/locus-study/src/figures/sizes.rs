//! The size sweep on the hierarchy task as lines.

use crate::{
    records::{EditKind, Extraction, HIERARCHY, Records, Scope},
    results::{Figure, LineSeries, Plot},
    tables::{
        TableOptions,
        editing::{mean_change, sweep},
        select::{Density, distinct, edits, masks, mean, scope_label},
    },
};

type Share = fn(&Extraction) -> f64;

pub(super) fn lines(records: &Records, preset: &str, options: &TableOptions) -> Vec<Figure> {
    [accuracy(records, preset), editing(records, preset, options)].into_iter().flatten().collect()
}

fn accuracy(records: &Records, preset: &str) -> Option<Figure> {
    let sizes = distinct(records.extractions.iter().map(|e| Density::of(e.target_density)));
    let line = |(name, scope, share): (&str, Scope, Share)| {
        let point = |size: &Density| {
            let masks = masks(records, preset, *size, scope);
            let shares = masks.iter().filter(|e| e.task == HIERARCHY).map(|e| share(e));
            Some((percent(*size), mean(shares)?))
        };
        LineSeries { name: name.into(), points: sizes.iter().filter_map(point).collect() }
    };
    let lines: [(&str, Scope, Share); 5] = [
        ("full", Scope::Circuit, |e| e.accuracy_full),
        ("circuit", Scope::Circuit, |e| e.accuracy),
        ("complement", Scope::Circuit, |e| e.accuracy_complement),
        ("matched", Scope::Matched, |e| e.accuracy),
        ("random", Scope::Random, |e| e.accuracy),
    ];
    let caption = "Accuracy on held-out rows of the hierarchy task. An ideal circuit is as good as the full \
                   model while its complement is at chance (0.5). Matched masks keep as many parameters of every tensor \
                   and size as the circuit, but know no task.";
    // A line needs two points.
    let lines: Vec<LineSeries> = lines.into_iter().map(line).filter(|line| line.points.len() > 1).collect();
    let drawn = !lines.is_empty();
    let plot = plot("accuracy", lines);
    let title = "Circuit size and accuracy".into();
    drawn.then(|| Figure { id: "T4-accuracy".into(), title, caption: caption.into(), plot })
}

fn editing(records: &Records, preset: &str, options: &TableOptions) -> Option<Figure> {
    let groups = sweep(records, preset);
    let point = |density: Density, edits: &[_], scope| {
        let purpose = format!("T4-editing/{preset}/{}/{}", density.label(), scope_label(scope));
        Some((percent(density), mean_change(edits, options, &purpose)?.value))
    };
    let mut series = Vec::new();
    let mut ends: Vec<f64> = Vec::new();
    for scope in [Scope::Circuit, Scope::Complement, Scope::Matched, Scope::Random] {
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
    if let Some((_, full)) = point(
        Density::LARGE,
        &edits(records, "", Density::LARGE, Scope::Full, EditKind::Steps10),
        Scope::Full,
    ) {
        series.push(LineSeries {
            name: scope_label(Scope::Full).into(),
            points: vec![(first, full), (last, full)],
        });
    }
    let caption = "Mean change of NLL(new) by editing inside hierarchy circuits, their complements and \
                   random and matched masks (10 steps). Below zero the new target became likelier; the full model is drawn as a horizontal line.";
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
