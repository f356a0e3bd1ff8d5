//! What `locus circuit evaluate` found: faithfulness over all sizes with the areas under it, and the circuit beside its
//! controls.

use locus_circuits::edges::Interval;

use super::{interval_text, page};
use crate::protocol::{Areas, CircuitEvaluation, CircuitMeasures, SizeMeasures};
use crate::report::cell::{NOTHING, grouped, number, signed};
use crate::report::plot;
use crate::report::plot::svg::escape;
use crate::results::{Figure, LineSeries, Plot, Style};

/// Both sections, as far as they were measured.
pub fn sections(found: &CircuitEvaluation) -> String {
    let undefined = found.undefined.as_ref().map_or_else(String::new, |why| {
        format!("<section>\n<h2>Faithfulness is undefined</h2>\n<p>{}</p>\n</section>\n", page::words(why))
    });
    let curve = if found.curve.is_empty() { String::new() } else { curve(found) };
    let circuit = found.circuit.as_ref().map_or_else(String::new, circuit);
    [undefined, curve, circuit].concat()
}

/// A column of the curve: its name and its value at a size.
type Column = (&'static str, fn(&SizeMeasures) -> Option<Interval>);

const COLUMNS: [Column; 4] = [
    ("by absolute score", |size| size.absolute),
    ("by score", |size| size.signed),
    ("complement", |size| size.complement),
    ("random ranking", |size| size.random),
];

fn curve(found: &CircuitEvaluation) -> String {
    let series = COLUMNS.map(|(name, value)| LineSeries {
        name: name.to_owned(),
        points: found.curve.iter().filter_map(|size| Some((size.share, value(size)?.value))).collect(),
    });
    let figure = Figure {
        id: String::new(),
        title: String::new(),
        caption: String::new(),
        plot: Plot::Lines {
            x_label: "share of the edges".to_owned(),
            y_label: "faithfulness".to_owned(),
            log_x: true,
            series: series.into(),
        },
    };
    let rows: String = found
        .curve
        .iter()
        .map(|size| {
            let measures = COLUMNS.map(|(name, value)| cell(name, value(size)));
            format!(
                "<tr><th scope=\"row\">{}</th>{}{}{}</tr>\n",
                percent(size.share),
                text_cell("edges", &grouped(size.selected as u64)),
                text_cell("without dead ends", &grouped(size.edges_absolute as u64)),
                measures.concat()
            )
        })
        .collect();
    let head = ["share", "edges", "without dead ends"].into_iter().chain(COLUMNS.map(|(name, _)| name));
    format!(
        "<section>\n<h2>Faithfulness of circuits of all sizes</h2>\n\
         <p class=\"lead\">The best edges of the ranking, alone: 1 is the full model, 0 is no edges. The complement is \
         all edges but those of the largest absolute scores; a random ranking is the control.</p>\n{}\
         <figure>\n<div class=\"drawing\" tabindex=\"0\" role=\"region\" aria-label=\"Curve\">\n{}</div>\n</figure>\n{}</section>\n",
        areas(found),
        plot::draw(&figure).inline("Faithfulness over the share of the edges"),
        table(
            "Brackets: 95 % interval over pairs; of random rankings, quantiles over rankings.",
            head,
            &rows
        )
    )
}

fn areas(found: &CircuitEvaluation) -> String {
    let Some(own) = found.areas else { return String::new() };
    let rows: [(&str, &str, fn(&Areas) -> Interval); 3] = [
        ("CPR", "area under the curve by score; higher is better", |areas| areas.cpr),
        ("CMD", "area between 1 and the curve by absolute score; lower is better", |areas| areas.cmd),
        ("CMD, log axis", "mean distance from 1 on the axis as drawn; lower is better", |areas| {
            areas.cmd_log
        }),
    ];
    let rows = rows.map(|(name, about, area)| {
        format!(
            "<tr><th scope=\"row\">{name} <span class=\"quiet\">{about}</span></th>{}{}</tr>\n",
            cell("this ranking", Some(area(&own))),
            cell("random rankings", found.random_areas.as_ref().map(area))
        )
    });
    table("Areas as in MIB.", ["area", "this ranking", "random rankings"], &rows.concat())
}

fn circuit(circuit: &CircuitMeasures) -> String {
    let rows = [
        ("the circuit", circuit.faithfulness, "1: it does what the full model does"),
        ("its complement", circuit.complement, "near 0: nothing else carries the task"),
        ("random circuits", circuit.random, "as many edges drawn from all"),
        ("matched circuits", circuit.matched, "as many edges of each kind"),
        ("incompleteness", circuit.incompleteness, "0: nothing outside replaces what is removed inside"),
    ];
    let rows = rows.map(|(name, measure, about)| {
        format!("<tr><th scope=\"row\">{name}</th>{}<td>{about}</td></tr>\n", cell("faithfulness", measure))
    });
    format!(
        "<section>\n<h2>The circuit beside its controls</h2>\n{}{}</section>\n",
        table(
            "Brackets: 95 % interval over pairs; of controls, quantiles over draws.",
            ["what runs", "faithfulness", "how to read it"],
            &rows.concat()
        ),
        removals(circuit)
    )
}

fn removals(circuit: &CircuitMeasures) -> String {
    if circuit.removals.is_empty() {
        return String::new();
    }
    let useless = circuit.removals.iter().filter(|removal| removal.drop <= 0.0).count();
    let rows: String = circuit
        .removals
        .iter()
        .map(|removal| {
            let drop = number(removal.drop, Style::Significant3);
            format!("<tr><th scope=\"row\">{}</th><td class=\"n\">{drop}</td></tr>\n", escape(&removal.edge))
        })
        .collect();
    let caption = format!(
        "Fall of faithfulness when one edge is removed from the circuit; {useless} of {} lower nothing.",
        circuit.removals.len()
    );
    format!(
        "<details>\n<summary>Edges removed one by one</summary>\n{}</details>\n",
        table(&caption, ["edge", "fall"], &rows)
    )
}

fn table<'a>(caption: &str, head: impl IntoIterator<Item = &'a str>, rows: &str) -> String {
    let head: String = head.into_iter().map(|name| format!("<th scope=\"col\">{name}</th>")).collect();
    format!(
        "<table class=\"stack\">\n<caption>{}</caption>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}</tbody>\n</table>\n",
        page::words(caption)
    )
}

/// A cell that names its column where the table is folded.
fn text_cell(column: &str, text: &str) -> String {
    format!("<td data-label=\"{column}\">{text}</td>")
}

fn cell(column: &str, measure: Option<Interval>) -> String {
    match measure {
        None => text_cell(column, &format!("<span class=\"none\">{NOTHING}</span>")),
        Some(interval) => {
            let text = interval_text(interval);
            let (value, range) = text.split_once(' ').unwrap_or((&text, ""));
            text_cell(column, &format!("{value} <span class=\"range\">{range}</span>"))
        }
    }
}

/// A share of the edges: 0.1 %.
fn percent(share: f64) -> String {
    signed(&format!("{}\u{a0}%", (1e4 * share).round() / 100.0))
}
