//! `report.html`: one file that contains its style and drawings, has no scripts and loads nothing.

use super::cell;
use super::frame::{TITLE, home, provenance_rows, subtitle};
use super::plot::{
    self,
    svg::{self, escape},
};
use crate::results::{Cell, Claim, Figure, Provenance, Results, Table, Verdict};

const STYLE: &str = include_str!("page.css");

/// The whole report.
pub fn report(results: &Results) -> String {
    let Results { provenance, records: _, tables, figures, claims } = results;
    let sections: String = tables.iter().map(|table| table_section(table, results)).collect();
    let others: String = figures.iter().filter(|one| home(one, tables).is_none()).map(figure_block).collect();
    let others = match others.is_empty() {
        true => others,
        false => format!("<section id=\"figures\">\n<h2>Figures</h2>\n{others}</section>\n"),
    };
    [
        head(provenance),
        contents(results, !others.is_empty()),
        "<main>\n".to_owned(),
        claims_section(claims),
        sections,
        others,
        provenance_section(provenance),
        "</main>\n</div>\n</body>\n</html>\n".to_owned(),
    ]
    .concat()
}

fn head(provenance: &Provenance) -> String {
    let (title, subtitle) = (escape(TITLE), escape(&subtitle(provenance)));
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>{title}</title>\n\
         <style>\n{STYLE}{}</style>\n</head>\n<body>\n<header>\n<h1>{title}</h1>\n<p>{subtitle}</p>\n</header>\n<div class=\"page\">\n",
        svg::STYLE
    )
}

fn contents(results: &Results, figures: bool) -> String {
    let item = |anchor: &str, label: &str, title: &str| {
        format!("<li><a href=\"#{anchor}\"><b>{label}</b> {}</a></li>\n", escape(title))
    };
    let tables =
        results.tables.iter().map(|table| item(&format!("table-{}", table.id), &table.id, &table.title));
    format!(
        "<nav aria-label=\"Contents\">\n<h2>Contents</h2>\n<ul>\n{}{}{}{}</ul>\n<p><a href=\"results.json\">results.json</a><br>\
         <a href=\"report.md\">report.md</a></p>\n</nav>\n",
        item("claims", "Claims", ""),
        tables.collect::<String>(),
        if figures { item("figures", "Figures", "") } else { String::new() },
        item("provenance", "Provenance", ""),
    )
}

fn claims_section(claims: &[Claim]) -> String {
    let count = |verdict| claims.iter().filter(|claim| claim.verdict == verdict).count();
    let tally: String = Verdict::ALL
        .into_iter()
        .filter(|verdict| count(*verdict) > 0)
        .map(|verdict| format!("<span class=\"tally\">{} {}</span>\n", count(verdict), badge(verdict)))
        .collect();
    let cards: String = claims.iter().map(claim_card).collect();
    format!(
        "<section id=\"claims\">\n<h2>Claims</h2>\n<p class=\"tallies\">\n{tally}</p>\n{cards}</section>\n"
    )
}

/// A verdict as a coloured sign with words, so that nothing depends on colour alone.
fn badge(verdict: Verdict) -> String {
    let (class, sign) = match verdict {
        Verdict::Supported => ("supported", "✓"),
        Verdict::NotSupported => ("refuted", "✗"),
        Verdict::Mixed => ("mixed", "±"),
        Verdict::Undecided => ("undecided", "?"),
        Verdict::NotMeasured | Verdict::NotTestable => ("absent", "–"),
    };
    format!("<span class=\"badge {class}\">{sign} {}</span>", verdict.words())
}

fn claim_card(claim: &Claim) -> String {
    let because =
        if claim.because.is_empty() { String::new() } else { format!(": {}", escape(&claim.because)) };
    let others: String = claim
        .others
        .iter()
        .map(|other| {
            format!(
                " <span class=\"quiet\">{} on recipe {}</span>",
                badge(other.verdict),
                escape(&other.recipe)
            )
        })
        .collect();
    format!(
        "<article class=\"claim\" id=\"claim-{id}\">\n<h3>{badge} <span class=\"id\">{id}</span> {text}</h3>\n\
         <p><b>{verdict}</b>{because}. <span class=\"quiet\">Recipe {recipe}.</span>{others}</p>\n\
         <dl class=\"facts\">\n<div><dt>weakest effect, 95 % interval</dt><dd>{effect}</dd></div>\n\
         <div><dt>p, corrected</dt><dd>{p}</dd></div>\n<div><dt>clusters</dt><dd>{n}</dd></div>\n</dl>\n<p>{reading}</p>\n\
         <p class=\"quiet\">Published: {source}</p>\n<p class=\"quiet\">Decided by: {statistic}</p>\n</article>\n",
        id = claim.id,
        badge = badge(claim.verdict),
        verdict = claim.verdict.words(),
        recipe = escape(&claim.recipe),
        text = escape(&claim.claim),
        effect = escape(&cell::effect(claim)),
        p = cell::p_value(claim),
        n = if claim.n == 0 { cell::NOTHING.to_owned() } else { cell::grouped(claim.n as u64) },
        reading = escape(&claim.reading),
        source = escape(&claim.source),
        statistic = escape(&claim.statistic),
    )
}

fn table_section(table: &Table, results: &Results) -> String {
    let figures = results.figures.iter().filter(|one| home(one, &results.tables) == Some(&table.id));
    let files = format!(
        "<p class=\"quiet\">{} {} · raw values: <a href=\"tables/{id}.csv\">{id}.csv</a> · \
         <a href=\"tables/{id}.md\">{id}.md</a></p>\n",
        cell::grouped(table.rows.len() as u64),
        if table.rows.len() == 1 { "row" } else { "rows" },
        id = table.id,
    );
    let (id, title) = (&table.id, escape(&table.title));
    let notes = list("notes", &table.notes);
    let figures: String = figures.map(figure_block).collect();
    let body = table_body(table);
    format!(
        "<section id=\"table-{id}\">\n<h2><span class=\"id\">{id}</span> {title}</h2>\n{notes}{body}{files}{figures}</section>\n"
    )
}

fn table_body(table: &Table) -> String {
    if table.rows.is_empty() {
        return String::new();
    }
    let numeric: Vec<bool> =
        (0..table.columns.len()).map(|index| cell::is_numeric(&table.rows, index)).collect();
    let class = |index: usize| if numeric[index] { " class=\"n\"" } else { "" };
    let columns = table.columns.iter().enumerate();
    let head: String = columns
        .map(|(index, name)| format!("<th scope=\"col\"{}>{}</th>", class(index), escape(name)))
        .collect();
    let mut rows = String::new();
    for row in &table.rows {
        let cells = row
            .iter()
            .enumerate()
            .map(|(index, cell)| format!("<td{}>{}</td>", class(index), cell_body(cell)));
        rows += &format!("<tr>{}</tr>\n", cells.collect::<String>());
    }
    // The frame takes the keyboard's focus, so that it can be scrolled without a mouse.
    let label = escape(&format!("{} {}", table.id, table.title));
    format!(
        "<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"{label}\">\n<table>\n<thead><tr>{head}</tr></thead>\n\
         <tbody>\n{rows}</tbody>\n</table>\n</div>\n"
    )
}

fn cell_body(cell: &Cell) -> String {
    match cell::parts(cell) {
        (main, None) => escape(&main),
        (main, Some(range)) => format!("{} <span class=\"range\">{}</span>", escape(&main), escape(&range)),
    }
}

fn figure_block(one: &Figure) -> String {
    let (id, title, caption) = (&one.id, escape(&one.title), escape(&one.caption));
    let drawing = plot::draw(one).inline(&one.title);
    format!(
        "<figure id=\"figure-{id}\">\n<div class=\"drawing\" tabindex=\"0\" role=\"region\" aria-label=\"{title}\">\n{drawing}</div>\n\
         <figcaption><b>{title}.</b> {caption} <a href=\"figures/{id}.svg\">{id}.svg</a></figcaption>\n</figure>\n"
    )
}

fn provenance_section(provenance: &Provenance) -> String {
    let row =
        |(name, value): (&str, String)| format!("<div><dt>{name}</dt><dd>{}</dd></div>\n", escape(&value));
    let facts: String = provenance_rows(provenance).into_iter().map(row).collect();
    let digest = |(name, digest): &(String, String)| {
        format!("<tr><td>{}</td><td><code>{}</code></td></tr>\n", escape(name), escape(digest))
    };
    let data: String = provenance.data_sha256.iter().map(digest).collect();
    let conventions = list("notes", &provenance.conventions);
    format!(
        "<section id=\"provenance\">\n<h2>Provenance</h2>\n<dl class=\"origin\">\n{facts}</dl>\n<h3>Conventions</h3>\n{conventions}\
         <h3>Data files</h3>\n<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"Data files\">\n<table>\n\
         <thead><tr><th scope=\"col\">file</th><th scope=\"col\">SHA-256</th></tr></thead>\n<tbody>\n{data}</tbody>\n</table>\n</div>\n\
         </section>\n"
    )
}

fn list(class: &str, items: &[String]) -> String {
    if items.is_empty() {
        return String::new();
    }
    let items: String = items.iter().map(|item| format!("<li>{}</li>\n", escape(item))).collect();
    format!("<ul class=\"{class}\">\n{items}</ul>\n")
}
