//! Causal tracing: X3.

use locus_metrics::bootstrap::RESAMPLES;

use super::{
    cells::{count, estimate, not_measured, table, text},
    options::TableOptions,
};
use crate::{
    records::Records,
    results::{Style, Table},
};

/// X3: causal tracing.
///
/// Rows: kinds of restored state, and positions in the prompt. Columns: number of facts with a token at the position,
/// then for each layer the mean indirect effect: by how much the probability of the answer (0 to 1) rises when the
/// state is restored, with its interval over facts.
pub fn x3(records: &Records, options: &TableOptions) -> Table {
    let Some(traced) = &records.tracing else {
        let notes = not_measured(records, "X3").collect();
        return table("X3", "Causal tracing".into(), notes, &["restored"], Vec::new());
    };
    let layers = traced.effects.iter().map(|effect| effect.by_layer.len()).max().unwrap_or(0);
    let names: Vec<String> = (0..layers).map(|layer| format!("layer {layer}")).collect();
    let columns: Vec<&str> =
        ["restored", "place", "facts"].into_iter().chain(names.iter().map(String::as_str)).collect();
    let rows = traced
        .effects
        .iter()
        .map(|effect| {
            let mut row = vec![text(&effect.what), text(&effect.place), count(effect.facts)];
            let by_layer = effect.by_layer.iter().map(|&x| (effect.facts > 0).then_some(x));
            row.extend(by_layer.map(|x| estimate(x, Style::Fixed3)));
            row
        })
        .collect();
    let notes = vec![
        format!(
            "Mean over {} facts that the model answers correctly ({} others left out) of the probability of \
             the answer that returns when one state is restored after the subject's embeddings were \
             corrupted. Clean probability {:.3}, corrupted {:.3}: the total effect is {:.3}.",
            traced.facts,
            traced.unknown,
            traced.clean,
            traced.corrupted,
            traced.clean - traced.corrupted
        ),
        format!(
            "Noise: {} samples with standard deviation {:.4}, the same for every cell. Hidden: the residual \
             stream leaving a layer; mlp, attention: what they write in a window of layers around it (width {}).",
            traced.samples, traced.noise, traced.window
        ),
        "Without mlp, without attention: the residual stream of the subject's last token is restored while \
         what its later MLPs or attention write stays corrupted."
            .into(),
        format!("Brackets: 95 % percentile bootstrap intervals over facts, {RESAMPLES} resamples."),
        options.source(),
    ];
    table("X3", "Causal tracing: indirect effects by layer".into(), notes, &columns, rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use locus_metrics::Interval;

    use crate::{
        records::{TracedEffect, TracingRecord},
        results::Cell,
        tables::fabricated::options,
    };

    #[test]
    fn a_column_per_layer_and_nothing_where_no_fact_is() {
        let effect = |what: &str, facts: usize| TracedEffect {
            what: what.into(),
            place: "last token".into(),
            facts,
            by_layer: [0.25, 0.5].map(|value| Interval { value, low: 0.1, high: 0.6 }).to_vec(),
        };
        let tracing = TracingRecord {
            facts: 3,
            unknown: 1,
            samples: 10,
            noise: 0.5,
            window: 1,
            clean: 0.9,
            corrupted: 0.2,
            effects: vec![effect("hidden", 3), effect("mlp", 0)],
        };
        let records = Records { tracing: Some(tracing), ..Default::default() };
        let table = x3(&records, &options());
        assert_eq!(table.columns[3..], ["layer 0", "layer 1"]);
        assert_eq!(
            table.rows[0][4],
            Cell::Estimate { value: 0.5, low: 0.1, high: 0.6, style: Style::Fixed3 }
        );
        assert_eq!(table.rows[1][3..], [Cell::Empty(()), Cell::Empty(())]);
        assert!(table.notes[0].contains("total effect is 0.700"), "{}", table.notes[0]);
        assert!(x3(&Records::default(), &options()).rows.is_empty());
    }
}
