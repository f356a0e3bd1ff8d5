//! The page of a circuit, which `locus discover` and `locus circuit evaluate` write: one file with its style, its
//! drawing, its data and a small script, that loads nothing.
//!
//! | file | part |
//! |---|---|
//! | `data` | the circuit as JSON inside the page, which `locus circuit` reads again |
//! | `measures` | an evaluated circuit: the curve over all sizes, areas, controls |
//! | `circuit.js` | filters, the pinned node, downloads |
//!
//! Without its script the page has the whole drawing, the list of edges and all tables; only the controls are missing.

mod data;
mod measures;
#[cfg(test)]
mod tests;

use locus_circuits::edges::{CircuitFile, Edge, Interval, RankBy};
use serde_json::Value;

use super::cell::{grouped, number};
use super::frame::html_head;
use super::page;
use super::plot::circuit::{self as drawing, Signs, draw, score_text};
use super::plot::svg::{self, escape};
use crate::protocol::CircuitEvaluation;
use crate::results::Style;

const STYLE: &str = include_str!("circuit.css");
const SCRIPT: &str = include_str!("circuit.js");

/// Largest number of edges of a page; of a larger circuit the best are shown, and the page says so.
const MOST_EDGES: usize = 2_000;

/// A circuit and what is known of it: the content of its page.
#[derive(Clone, Copy, Debug)]
pub struct CircuitPage<'a> {
    /// Name of the model.
    pub model: &'a str,
    /// What the pairs are.
    pub task: &'a str,
    /// The circuit, its scores, and what their file says about them.
    pub file: &'a CircuitFile,
    /// How the circuit does.
    pub measured: MeasuredCircuit<'a>,
    /// All that `locus circuit evaluate` measured, with its provenance.
    pub evaluation: Option<(&'a CircuitEvaluation, &'a Value)>,
}

/// The circuit run alone.
#[derive(Clone, Copy, Debug)]
pub struct MeasuredCircuit<'a> {
    /// The pairs measured on, in words.
    pub pairs: &'a str,
    /// Name of the metric.
    pub metric: &'a str,
    /// Name of the ablation: what an edge outside the circuit carries.
    pub ablation: &'a str,
    /// Mean metric of the full model.
    pub clean: f64,
    /// Mean metric without any edge.
    pub empty: f64,
    /// Mean metric of the circuit.
    pub circuit: f64,
    /// Faithfulness; `None` where it is undefined.
    pub faithfulness: Option<Interval>,
}

/// The whole page. Equal content gives equal bytes.
pub fn circuit_page(page: &CircuitPage) -> String {
    let CircuitPage { model, task, file, .. } = *page;
    let edges = shown_edges(file);
    let title = format!("Circuit of {model} for {task}");
    // The drawing's own style has an id: a drawing that is saved takes it along.
    let styles = format!(
        "<style>\n{}{STYLE}</style>\n<style id=\"drawing-style\">\n{}{}</style>\n",
        page::STYLE,
        svg::STYLE,
        drawing::STYLE
    );
    let drawn =
        draw(&edges, &file.scores, &signs(file)).inline(&format!("{title}: its edges between layers"));
    let evaluated = page.evaluation.map_or_else(String::new, |(found, _)| measures::sections(found));
    [
        html_head(&title, &styles),
        format!("<main>\n<header>\n<p class=\"brand\">locus · circuit</p>\n<h1>{}</h1>\n", escape(&title)),
        format!("<p class=\"lead\">{}</p>\n{}</header>\n", lead(page, edges.len()), facts(page)),
        "<section>\n<h2>Heads, MLPs and edges</h2>\n".to_owned(),
        controls(file.scores.graph().n_layer),
        "<div class=\"circuit\">\n<figure id=\"drawing\">\n<div class=\"drawing\" tabindex=\"0\" role=\"region\" \
         aria-label=\"Drawing\">\n"
            .to_owned(),
        format!("{drawn}</div>\n<figcaption>{}</figcaption>\n</figure>\n", page::words(&how_to_read(file))),
        format!("{}</div>\n</section>\n", list(file, &edges)),
        evaluated,
        origin(page),
        format!("</main>\n<script type=\"application/json\" id=\"data\">{}</script>\n", data::json(page, &edges)),
        format!("<script>\n{SCRIPT}</script>\n</body>\n</html>\n"),
    ]
    .concat()
}

/// The circuit's edges from the best to the worst, at most [`MOST_EDGES`].
fn shown_edges(file: &CircuitFile) -> Vec<Edge> {
    let ranked = file.scores.ranked(RankBy::Absolute).into_iter();
    ranked.filter(|&edge| file.circuit.contains(edge)).take(MOST_EDGES).collect()
}

/// How many edges of how many, how they were found, and how the circuit does.
fn lead(page: &CircuitPage, shown: usize) -> String {
    let CircuitPage { file, measured, .. } = page;
    let (kept, all) = (file.circuit.count(), file.scores.graph().n_edges());
    let found = match &file.conventions {
        Some(found) => format!("found by {} on {} pairs", found.method, grouped(found.pairs as u64)),
        None => "from a file that does not say how it was found".to_owned(),
    };
    let faithfulness = match measured.faithfulness {
        Some(f) => format!("its faithfulness is {}", interval_text(f)),
        None => "its faithfulness is undefined".to_owned(),
    };
    let cut = match kept > shown {
        true => format!(" This page has the {} edges with the largest scores.", grouped(shown as u64)),
        false => String::new(),
    };
    let share = number(kept as f64 / all as f64, Style::Percent);
    let text = format!(
        "{} of {} edges ({share}), {found}. Run alone, with what all other edges carry replaced ({}), the circuit has a \
         {} of {} where the full model has {} and no edges {}: {faithfulness}. Measured on {}.{cut}",
        grouped(kept as u64),
        grouped(all as u64),
        measured.ablation,
        measured.metric,
        plain(measured.circuit),
        plain(measured.clean),
        plain(measured.empty),
        measured.pairs,
    );
    page::words(&text)
}

fn facts(page: &CircuitPage) -> String {
    let CircuitPage { model, task, file, measured, .. } = page;
    let method = file.conventions.as_ref().map_or("not stated", |found| found.method.as_str());
    let (kept, all) = (file.circuit.count() as u64, file.scores.graph().n_edges() as u64);
    let faithfulness = measured.faithfulness.map_or_else(|| "undefined".to_owned(), interval_text);
    let rows = [
        ("task", (*task).to_owned()),
        ("model", (*model).to_owned()),
        ("method", method.to_owned()),
        ("metric", measured.metric.to_owned()),
        ("edges kept", format!("{} of {}", grouped(kept), grouped(all))),
        ("faithfulness", faithfulness),
    ];
    let row =
        |(name, value): (&str, String)| format!("<div><dt>{name}</dt><dd>{}</dd></div>\n", escape(&value));
    format!("<dl class=\"facts\">\n{}</dl>\n", rows.map(row).concat())
}

/// What the signs of the scores mean, as far as the file says it.
fn signs(file: &CircuitFile) -> Signs {
    match file.conventions.as_ref().map(|found| found.sign.as_str()) {
        Some("delta_loss_when_corrupted") => Signs {
            positive: "positive score: ablating the edge makes the metric worse",
            negative: "negative score: ablating the edge makes the metric better",
        },
        Some("log_alpha") => Signs {
            positive: "positive score: its learned gate is rather open",
            negative: "negative score: its learned gate is rather closed",
        },
        _ => Signs { positive: "positive score", negative: "negative score" },
    }
}

fn how_to_read(file: &CircuitFile) -> String {
    let Signs { positive, negative } = signs(file);
    format!(
        "How to read it: the input is at the bottom, the logits are on top, and every edge goes upwards, from a component \
         that writes to the residual stream to one that reads it. Each layer has its heads side by side and its MLP to \
         their right, higher because it reads them. Into a head, edges end at the left for queries, in the middle for \
         keys and at the right for values, written `<q>`, `<k>`, `<v>`. Blue is a {positive}; orange is a {negative}. \
         The wider and darker, the larger the score (by its square root). Dots are components that no edge of the \
         circuit reaches. Point at an edge for its score."
    )
}

/// What the script needs; without it nothing of this shows.
fn controls(layers: usize) -> String {
    let options = |chosen: usize| -> String {
        let option = |layer: usize| {
            let selected = if layer == chosen { " selected" } else { "" };
            format!("<option{selected}>{layer}</option>")
        };
        (0..layers).map(option).collect()
    };
    let reads = [("q", "queries"), ("k", "keys"), ("v", "values"), ("mlp", "MLPs"), ("logits", "logits")];
    let boxes = reads.map(|(value, name)| {
        format!("<label><input type=\"checkbox\" name=\"reads\" value=\"{value}\" checked> {name}</label>\n")
    });
    format!(
        "<div class=\"controls\" id=\"controls\" hidden>\n\
         <fieldset><legend>Layers</legend>\n<label>from <select id=\"from\">{}</select></label>\n\
         <label>to <select id=\"to\">{}</select></label></fieldset>\n\
         <fieldset><legend>Edges into</legend>\n{}</fieldset>\n\
         <fieldset><legend>Absolute score at least</legend>\n<input type=\"range\" id=\"least\" \
         aria-label=\"Absolute score at least\" min=\"0\" max=\"0\" value=\"0\">\n<output id=\"bound\" for=\"least\">0</output></fieldset>\n\
         <p class=\"buttons\"><button type=\"button\" id=\"reset\">Show all</button>\n\
         <button type=\"button\" id=\"save-svg\">Save drawing (SVG)</button>\n\
         <button type=\"button\" id=\"save-json\">Save data (JSON)</button></p>\n</div>\n",
        options(0),
        options(layers - 1),
        boxes.concat()
    )
}

/// The edges as a table, which the script narrows to those that are drawn.
fn list(file: &CircuitFile, edges: &[Edge]) -> String {
    let graph = file.scores.graph();
    let row = |&edge: &Edge| {
        let source = graph.source(edge.source).to_string();
        let destination = graph.destination(edge.destination).to_string();
        let score = score_text(file.scores.get(edge));
        format!("<tr><td>{source}</td><td>{}</td><td class=\"n\">{score}</td></tr>\n", escape(&destination))
    };
    let rows: String = edges.iter().map(row).collect();
    let n = grouped(edges.len() as u64);
    format!(
        "<div class=\"list\" tabindex=\"0\" role=\"region\" aria-labelledby=\"list-title\">\n\
         <h3 id=\"list-title\" aria-live=\"polite\">Edges: {n}</h3>\n<table id=\"edges\">\n\
         <thead><tr><th scope=\"col\">from</th><th scope=\"col\">into</th><th scope=\"col\" class=\"n\">score</th></tr></thead>\n\
         <tbody>\n{rows}</tbody>\n</table>\n</div>\n"
    )
}

/// Where the circuit, the pairs and the numbers come from.
fn origin(page: &CircuitPage) -> String {
    let mut rows = vec![("model".to_owned(), page.model.to_owned())];
    if let Some(found) = &page.file.conventions {
        add_facts(&mut rows, "", &serde_json::to_value(found).expect("plain data"));
    }
    add_facts(&mut rows, "", &Value::Object(page.file.provenance.clone()));
    let discovery = facts_list(&rows);
    let evaluation = page.evaluation.map_or_else(String::new, |(_, about)| {
        let mut rows = Vec::new();
        add_facts(&mut rows, "", about);
        format!("<h3>Evaluation</h3>\n{}", facts_list(&rows))
    });
    format!("<section>\n<h2>Provenance</h2>\n<h3>Circuit</h3>\n{discovery}{evaluation}</section>\n")
}

/// Names and values of what a JSON object says; of a list its length.
fn add_facts(rows: &mut Vec<(String, String)>, within: &str, value: &Value) {
    let Value::Object(object) = value else { return };
    for (key, value) in object {
        let name = format!("{within}{}", key.replace('_', " "));
        match value {
            Value::Null => {}
            Value::Object(_) => add_facts(rows, &format!("{name}: "), value),
            Value::Array(list) => rows.push((name, format!("{} of them", grouped(list.len() as u64)))),
            Value::String(text) => rows.push((name, text.clone())),
            Value::Bool(yes) => rows.push((name, if *yes { "yes" } else { "no" }.to_owned())),
            Value::Number(number) => rows.push((name, number.to_string())),
        }
    }
}

fn facts_list(rows: &[(String, String)]) -> String {
    let row = |(name, value): &(String, String)| {
        format!("<div><dt>{}</dt><dd>{}</dd></div>\n", escape(name), escape(value))
    };
    format!("<dl class=\"origin\">\n{}</dl>\n", rows.iter().map(row).collect::<String>())
}

/// A mean of the metric.
fn plain(value: f64) -> String {
    number(value, Style::Significant3)
}

/// A value with its interval, as text.
fn interval_text(Interval { value, low, high }: Interval) -> String {
    let text = |value| number(value, Style::Fixed3);
    format!("{} [{}, {}]", text(value), text(low), text(high))
}
