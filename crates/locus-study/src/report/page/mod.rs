//! `report.html`: one file with its style, its drawings and a small script, that loads nothing.
//!
//! | file | section |
//! |---|---|
//! | `first` | the first screen: question, answer, verdicts, what was measured |
//! | `example` | one request in the full model, circuits, complements and controls |
//! | `claims` | a card per claim with the comparisons that decide it |
//! | `tables`, `layout` | the tables: which columns are shown, in which order and groups |
//! | `glossary` | tasks and terms, linked with the columns that use them |
//!
//! The page is whole without its script, which adds sorting, a filter by task and the values of marks.

mod claims;
mod example;
mod first;
mod glossary;
mod layout;
mod tables;

use super::frame::{TITLE, home, html_head, provenance_rows};
use super::plot::svg::{self, escape};
use crate::results::{Provenance, Results, Verdict};

/// Style of pages.
pub(super) const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// The whole report.
pub fn report(results: &Results) -> String {
    let Results { provenance, records: _, tables, figures, claims } = results;
    let others: Vec<_> = figures.iter().filter(|one| home(one, tables).is_none()).collect();
    let example = example::section(results);
    let shown: Vec<tables::Shown> = tables.iter().map(|table| tables::Shown::new(table, results)).collect();
    let columns: String = shown.iter().map(|one| one.columns.as_str()).collect();
    let labels: String = shown.iter().map(|one| one.labels.as_str()).collect();
    let sections: String = shown.iter().map(|one| one.html.as_str()).collect();
    let figures: String = others.iter().map(|one| tables::figure_block(one)).collect();
    let figures = match figures.is_empty() {
        true => figures,
        false => format!(
            "<section id=\"figures\">\n<h2>Figures</h2>\n<div class=\"figures\">\n{figures}</div>\n</section>\n"
        ),
    };
    [
        head(&columns, &labels),
        "<main>\n".to_owned(),
        first::section(results),
        contents(results, !example.is_empty(), !others.is_empty()),
        example,
        claims::section(claims, tables),
        sections,
        figures,
        glossary::section(results),
        methods(provenance),
        format!("</main>\n<script>\n{SCRIPT}</script>\n</body>\n</html>\n"),
    ]
    .concat()
}

fn head(columns: &str, labels: &str) -> String {
    let style = format!(
        "<style>\n{STYLE}{}{columns}@media (max-width: 600px) {{\n{labels}}}\n</style>\n",
        svg::STYLE
    );
    html_head(TITLE, &style)
}

fn contents(results: &Results, example: bool, figures: bool) -> String {
    let item = |anchor: &str, label: &str| format!("<li><a href=\"#{anchor}\">{}</a></li>\n", words(label));
    let tables = results.tables.iter().map(|table| {
        let (id, title) = (&table.id, escape(&table.title));
        format!("<li><a href=\"#table-{id}\" title=\"{title}\">{id}</a></li>\n")
    });
    let mut items = String::new();
    if example {
        items += &item("example", "Example");
    }
    items += &item("claims", "Claims");
    items += &tables.collect::<String>();
    if figures {
        items += &item("figures", "Figures");
    }
    for (anchor, label) in [("tasks", "Tasks"), ("terms", "Terms"), ("provenance", "Methods")] {
        items += &item(anchor, label);
    }
    format!(
        "<nav aria-label=\"Contents\">\n<ul>\n{items}<li><a href=\"results.json\">results.json</a></li>\n\
         <li><a href=\"report.md\">report.md</a></li>\n</ul>\n</nav>\n"
    )
}

fn methods(provenance: &Provenance) -> String {
    let row =
        |(name, value): (&str, String)| format!("<div><dt>{name}</dt><dd>{}</dd></div>\n", escape(&value));
    let facts: String = provenance_rows(provenance).into_iter().map(row).collect();
    let digest = |(name, digest): &(String, String)| {
        format!("<tr><th scope=\"row\">{}</th><td><code>{}</code></td></tr>\n", escape(name), escape(digest))
    };
    let data: String = provenance.data_sha256.iter().map(digest).collect();
    let conventions = list("notes", &provenance.conventions);
    format!(
        "<section id=\"provenance\">\n<h2>Methods and provenance</h2>\n<dl class=\"origin\">\n{facts}</dl>\n<h3>Conventions</h3>\n\
         {conventions}<details>\n<summary>Data files and their SHA-256</summary>\n<div class=\"scroll\" tabindex=\"0\" role=\"region\" \
         aria-label=\"Data files\">\n<table class=\"files\">\n<thead><tr><th scope=\"col\">file</th><th scope=\"col\">SHA-256</th></tr></thead>\n\
         <tbody>\n{data}</tbody>\n</table>\n</div>\n</details>\n</section>\n"
    )
}

fn list(class: &str, items: &[String]) -> String {
    if items.is_empty() {
        return String::new();
    }
    let items: String = items.iter().map(|item| format!("<li>{}</li>\n", words(item))).collect();
    format!("<ul class=\"{class}\">\n{items}</ul>\n")
}

/// Class and sign of a verdict.
fn sign(verdict: Verdict) -> (&'static str, &'static str) {
    match verdict {
        Verdict::Supported => ("supported", "✓"),
        Verdict::NotSupported => ("refuted", "✗"),
        Verdict::Mixed => ("mixed", "±"),
        Verdict::Undecided => ("undecided", "?"),
        Verdict::NotMeasured | Verdict::NotTestable => ("absent", "–"),
    }
}

/// A verdict as a coloured sign with words, so that nothing depends on colour alone.
fn badge(verdict: Verdict) -> String {
    let (class, sign) = sign(verdict);
    format!("<span class=\"badge {class}\">{sign} {}</span>", verdict.words())
}

/// Prose from the results as HTML: escaped, words in backticks as code, true minus signs before digits, and no line
/// break before a percent sign.
pub(super) fn words(text: &str) -> String {
    let mut prose = String::with_capacity(text.len());
    let letters: Vec<char> = text.chars().collect();
    for (i, &letter) in letters.iter().enumerate() {
        let before = i.checked_sub(1).map_or(' ', |i| letters[i]);
        let after = letters.get(i + 1).copied().unwrap_or(' ');
        prose.push(match letter {
            '-' if after.is_ascii_digit() && matches!(before, ' ' | '[' | '(') => '−',
            ' ' if after == '%' && before.is_ascii_digit() => '\u{a0}',
            other => other,
        });
    }
    let mut html = String::new();
    let pieces: Vec<&str> = prose.split('`').collect();
    let paired = pieces.len() % 2 == 1;
    for (i, piece) in pieces.iter().enumerate() {
        html += &match (paired, i % 2) {
            (true, 1) => format!("<code>{}</code>", escape(piece)),
            (false, _) if i > 0 => format!("`{}", escape(piece)),
            _ => escape(piece),
        };
    }
    html
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_keep_hyphens_and_mark_what_is_code() {
        assert_eq!(words("top-k: -0.5 [-1, 2] of 5 %"), "top-k: −0.5 [−1, 2] of 5\u{a0}%");
        assert_eq!(words("the preset `a<b` is"), "the preset <code>a&lt;b</code> is");
        assert_eq!(words("a ` alone"), "a ` alone");
    }
}
