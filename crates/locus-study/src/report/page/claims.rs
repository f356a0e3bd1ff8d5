//! A card per claim: verdict and reason, the comparisons that decide, what was published, and the tables to look at.

use super::{badge, sign, words};
use crate::report::cell;
use crate::results::{Claim, ClaimRow, Style, Table, Verdict};

pub(super) fn section(claims: &[Claim], tables: &[Table]) -> String {
    let count = |verdict| claims.iter().filter(|claim| claim.verdict == verdict).count();
    let tally: String = Verdict::ALL
        .into_iter()
        .filter(|verdict| count(*verdict) > 0)
        .map(|verdict| format!("<span class=\"tally\">{} {}</span>\n", count(verdict), badge(verdict)))
        .collect();
    let cards: String = claims.iter().map(|claim| card(claim, tables)).collect();
    format!(
        "<section id=\"claims\">\n<h2>Claims</h2>\n<p class=\"tallies\">\n{tally}</p>\n<p class=\"lead\">Effects are positive where \
         they speak for the claim; brackets are 95\u{a0}% intervals. A comparison counts as not supported when its whole interval \
         lies below the smallest effect that would matter.</p>\n{cards}</section>\n"
    )
}

fn card(claim: &Claim, tables: &[Table]) -> String {
    let because =
        if claim.because.is_empty() { String::new() } else { format!(": {}", words(&claim.because)) };
    let others: String = claim
        .others
        .iter()
        .map(|other| {
            let why = if other.because.is_empty() {
                String::new()
            } else {
                format!(" ({})", words(&other.because))
            };
            format!(
                "<p class=\"quiet\">Recipe {}: {}{why}.</p>\n",
                words(&other.recipe),
                badge(other.verdict)
            )
        })
        .collect();
    let is_shown = |id: &str| tables.iter().any(|table| table.id == id);
    let mut links: Vec<&str> = crate::claims::tables_of(&claim.id);
    links.push("X4");
    let links: Vec<String> = links
        .into_iter()
        .filter(|id| is_shown(id))
        .map(|id| format!("<a href=\"#table-{id}\">{id}</a>"))
        .collect();
    let shown_in = if links.is_empty() { String::new() } else { format!(" Shown in {}.", links.join(", ")) };
    let absent = matches!(claim.verdict, Verdict::NotMeasured | Verdict::NotTestable);
    format!(
        "<article class=\"claim{}\" id=\"claim-{id}\">\n<h3><a class=\"id\" href=\"#claim-{id}\">{id}</a> {text} {badge}</h3>\n\
         <p><b>{verdict}</b>{because}. <span class=\"quiet\">Recipe {recipe}.{shown_in}</span></p>\n{numbers}{rows}{others}\
         <p class=\"quiet\"><b>Published:</b> {source}</p>\n<p class=\"quiet\"><b>Decided by:</b> {statistic}</p>\n</article>\n",
        if absent { " unmeasured" } else { "" },
        id = claim.id,
        badge = badge(claim.verdict),
        verdict = capital(claim.verdict.words()),
        recipe = words(&claim.recipe),
        text = words(&claim.claim),
        numbers = numbers(claim),
        rows = rows(claim),
        source = words(&claim.source),
        statistic = words(&claim.statistic),
    )
}

fn numbers(claim: &Claim) -> String {
    if claim.n == 0 {
        return String::new();
    }
    format!(
        "<dl class=\"facts\">\n<div><dt>weakest effect, 95\u{a0}% interval</dt><dd>{}</dd></div>\n\
         <div><dt>p, corrected</dt><dd>{}</dd></div>\n<div><dt>clusters</dt><dd>{}</dd></div>\n</dl>\n",
        words(&cell::effect(claim)),
        cell::p_value(claim),
        cell::grouped(claim.n as u64),
    )
}

/// The comparisons that decide, as a table.
fn rows(claim: &Claim) -> String {
    let deciding: Vec<&ClaimRow> =
        claim.rows.iter().filter(|row| row.decides && row.recipe == claim.recipe).collect();
    if deciding.is_empty() {
        return String::new();
    }
    let row = |row: &&ClaimRow| {
        let (class, sign) = sign(row.verdict);
        let number = |value| cell::number(value, Style::Fixed3);
        format!(
            "<tr><th scope=\"row\">{} {}</th><td>{}</td><td class=\"n\">{} <span class=\"range\">[{}, {}]</span></td><td>{}</td>\
             <td class=\"n\">{}</td><td><span class=\"mark {class}\">{sign} {}</span></td></tr>\n",
            words(&row.measure),
            words(&row.against),
            words(&[row.size.as_str(), row.edit.as_str()].join(" ")),
            number(row.effect),
            number(row.low),
            number(row.high),
            words(&row.unit),
            cell::number(row.p_value, Style::Significant3),
            row.verdict.words(),
        )
    };
    let rows: String = deciding.iter().map(row).collect();
    format!(
        "<details open=\"\">\n<summary>The {} comparisons that decide</summary>\n<div class=\"scroll\" tabindex=\"0\" role=\"region\" \
         aria-label=\"Comparisons that decide {id}\">\n<table class=\"data rows\">\n<thead><tr><th scope=\"col\">measure and control</th>\
         <th scope=\"col\">size</th><th scope=\"col\" class=\"n\">effect</th><th scope=\"col\">unit</th><th scope=\"col\" class=\"n\">p</th>\
         <th scope=\"col\">alone</th></tr></thead>\n<tbody>\n{rows}</tbody>\n</table>\n</div>\n</details>\n",
        deciding.len(),
        id = claim.id,
    )
}

fn capital(words: &str) -> String {
    let mut letters = words.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}
