//! Causal tracing as heat maps, one per kind of state, and the severed paths as lines.

use crate::{
    records::{Records, TracedEffect, TracingRecord},
    results::{Figure, LineSeries, Plot},
};

pub(super) fn all(records: &Records) -> Vec<Figure> {
    let Some(traced) = &records.tracing else { return Vec::new() };
    let mut figures: Vec<Figure> =
        ["hidden", "mlp", "attention"].into_iter().filter_map(|what| heat_map(traced, what)).collect();
    figures.extend(severed(traced));
    figures
}

fn heat_map(traced: &TracingRecord, what: &str) -> Option<Figure> {
    let effects: Vec<&TracedEffect> =
        traced.effects.iter().filter(|effect| effect.what == what && effect.facts > 0).collect();
    let layers = effects.first()?.by_layer.len();
    // One scale for the three kinds, which ends at a multiple of 0.1, so that they can be compared.
    let kinds = traced.effects.iter().filter(|effect| !effect.what.contains(' '));
    let largest = kinds.flat_map(|effect| &effect.by_layer).fold(0.0f64, |max, x| max.max(x.value));
    let plot = Plot::HeatMap {
        rows: effects.iter().map(|effect| effect.place.clone()).collect(),
        columns: (0..layers).map(|layer| layer.to_string()).collect(),
        values: effects
            .iter()
            .map(|effect| effect.by_layer.iter().map(|x| Some(x.value)).collect())
            .collect(),
        max: ((largest * 10.0).ceil() / 10.0).max(0.1),
        unit: "indirect effect".into(),
    };
    let caption = format!(
        "Probability of the answer that returns when {} restored, by layer and place in the prompt; mean over \
         {} facts. The total effect of the corruption is {:.3}.",
        match what {
            "hidden" => "the residual stream leaving a layer is".to_owned(),
            _ => format!("what {what} writes in a window of layers (width {}) is", traced.window),
        },
        traced.facts,
        traced.clean - traced.corrupted
    );
    let title = format!("Causal tracing: {what}");
    Some(Figure { id: format!("X3-{what}"), title, caption, plot })
}

fn severed(traced: &TracingRecord) -> Option<Figure> {
    let place = "last subject token";
    let series: Vec<LineSeries> = traced
        .effects
        .iter()
        .filter(|effect| effect.place == place && effect.what.starts_with("hidden"))
        .map(|effect| LineSeries {
            name: effect.what.clone(),
            points: effect.by_layer.iter().enumerate().map(|(layer, x)| (layer as f64, x.value)).collect(),
        })
        .collect();
    let several = series.first()?.points.len() > 1;
    let plot =
        Plot::Lines { x_label: "layer".into(), y_label: "indirect effect".into(), log_x: false, series };
    let caption = "The residual stream of the subject's last token restored after each layer, whole and with \
                   what its later MLPs or attention write held at the corrupted value: the effect that is lost went \
                   through them."
        .into();
    let title = "Causal tracing: severed paths".into();
    several.then(|| Figure { id: "X3-severed".into(), title, caption, plot })
}
