//! The first screen: what was asked, the answer in three sentences, the verdicts in a table, and what they rest on.

use std::collections::BTreeSet;

use super::{badge, sign, words};
use crate::records::{EditKind, Extraction, Records, Scope};
use crate::report::cell;
use crate::results::{Claim, ClaimRow, Provenance, Results, Verdict};
use crate::tables::select::{Density, edits, masks, mean};

const QUESTION: &str = "Where in GPT-2 does knowledge sit, and what happens when it is edited there?";

pub(super) fn section(results: &Results) -> String {
    let Results { provenance, records, claims, tables, .. } = results;
    let Provenance { version, seed, profile, .. } = provenance;
    let answer: Vec<String> = [tally(claims), circuits(records, claims), flips(records)]
        .into_iter()
        .filter(|sentence| !sentence.is_empty())
        .collect();
    let rows: String =
        claims.iter().map(|claim| row(claim, |id| tables.iter().any(|table| table.id == id))).collect();
    format!(
        "<header id=\"top\">\n<p class=\"brand\">locus {} · {} profile · seed {seed}</p>\n<h1>{QUESTION}</h1>\n\
         <p class=\"answer\">{}</p>\n</header>\n\
         <table class=\"verdicts\">\n<caption>Claims of <a href=\"https://arxiv.org/abs/2406.17241\">arXiv 2406.17241</a>, \
         on {}; marks count the comparisons that decide</caption>\n<thead><tr><th scope=\"col\">claim</th>\
         <th scope=\"col\">verdict</th><th scope=\"col\">why</th><th scope=\"col\">by size</th><th scope=\"col\">by control</th>\
         <th scope=\"col\">tables</th></tr></thead>\n<tbody>\n{rows}</tbody>\n</table>\n{}",
        words(version),
        words(profile),
        answer.join(" "),
        words(&provenance.model),
        facts(provenance, records, tables.iter().any(|table| table.id == "X4")),
    )
}

/// How many claims got which verdict.
fn tally(claims: &[Claim]) -> String {
    let of = |wanted: &[Verdict]| -> Vec<&str> {
        claims.iter().filter(|claim| wanted.contains(&claim.verdict)).map(|claim| claim.id.as_str()).collect()
    };
    let part = |ids: Vec<&str>, one: &str, many: &str| match ids.as_slice() {
        [] => None,
        [id] => Some(format!("{one} ({id})")),
        ids => Some(format!("{} {many} ({})", ids.len(), ids.join(", "))),
    };
    let parts: Vec<String> = [
        part(of(&[Verdict::Supported]), "one holds", "hold"),
        part(of(&[Verdict::NotSupported]), "one does not hold", "do not hold"),
        part(of(&[Verdict::Mixed]), "one holds in part", "hold in part"),
        part(of(&[Verdict::Undecided]), "one stays open", "stay open"),
        part(of(&[Verdict::NotMeasured]), "one was not measured", "were not measured"),
        part(of(&[Verdict::NotTestable]), "one cannot be tested here", "cannot be tested here"),
    ]
    .into_iter()
    .flatten()
    .collect();
    match parts.is_empty() {
        true => String::new(),
        false => {
            format!("Of the {} published claims, <b>{}</b>.", claims.len(), parts.join(", "))
        }
    }
}

/// What circuits do alone, beside masks that know no task.
fn circuits(records: &Records, claims: &[Claim]) -> String {
    let Some(recipe) = claims.first().map(|claim| claim.recipe.as_str()) else { return String::new() };
    let share = |size, scope| {
        let found: Vec<&Extraction> = masks(records, recipe, size, scope);
        mean(found.iter().map(|one| one.agreement)).map(|share| format!("{:.0} %", 100.0 * share))
    };
    let part = |size: Density| {
        let of_circuits = share(size, Scope::Circuit)?;
        let control =
            share(size, Scope::Matched).map_or_else(String::new, |x| format!(" (matched masks {x})"));
        Some((size.label(), format!("{of_circuits}{control}")))
    };
    let parts: Vec<(String, String)> =
        [Density::LARGE, Density::SMALL].into_iter().filter_map(part).collect();
    match parts.as_slice() {
        [] => String::new(),
        [(size, share), others @ ..] => {
            let others: String =
                others.iter().map(|(size, share)| format!(", those of {size} on {share}")).collect();
            words(&format!(
                "Alone, circuits of {size} of the parameters choose as the full model does on {share} of held-out rows{others}."
            ))
        }
    }
}

/// How often an edit succeeds in the intact model.
fn flips(records: &Records) -> String {
    let part = |kind: EditKind| {
        let edits = edits(records, "", Density::LARGE, Scope::Full, kind);
        let flipped = edits.iter().filter(|edit| edit.post_new < edit.post_true).count();
        let name = match kind {
            EditKind::Calibrated => "a stronger one",
            EditKind::Steps10 => "the published edit of 10 steps",
            EditKind::Steps50 => "that of 50 steps",
        };
        (!edits.is_empty()).then(|| format!("{name} flips {flipped} of {}", edits.len()))
    };
    // With a factor of 1 the calibrated edit is the published one.
    let is_published = records.calibration.is_some_and(|calibration| calibration.factor == 1.0);
    let kinds = EditKind::ALL.into_iter().filter(|&kind| kind != EditKind::Calibrated || !is_published);
    let parts: Vec<String> = kinds.filter_map(part).collect();
    match parts.is_empty() {
        true => String::new(),
        false => format!("In the intact model {} answers.", parts.join(", ")),
    }
}

fn row(claim: &Claim, is_shown: impl Fn(&str) -> bool) -> String {
    let id = &claim.id;
    let deciding: Vec<&ClaimRow> =
        claim.rows.iter().filter(|row| row.decides && row.recipe == claim.recipe).collect();
    let tables: Vec<String> = crate::claims::tables_of(id)
        .into_iter()
        .filter(|table| is_shown(table))
        .map(|table| format!("<a href=\"#table-{table}\">{table}</a>"))
        .collect();
    format!(
        "<tr><th scope=\"row\"><a href=\"#claim-{id}\"><b>{id}</b> {}</a></th><td>{}</td><td>{}</td><td>{}</td><td>{}</td>\
         <td>{}</td></tr>\n",
        words(&claim.claim),
        badge(claim.verdict),
        words(&half_sentence(claim)),
        marks(&deciding, |row| if row.size.is_empty() { "all" } else { row.size.as_str() }),
        marks(&deciding, |row| control(&row.against)),
        tables.join(" "),
    )
}

/// The reason for a verdict without its numbers' intervals and its details, which the claim's card has.
fn half_sentence(claim: &Claim) -> String {
    let because = claim.because.as_str();
    match claim.verdict {
        Verdict::Mixed => because.split(": ").next().unwrap_or(because).to_owned(),
        Verdict::Undecided => because.split("; in ").next().unwrap_or(because).to_owned(),
        _ => match (because.find(" ["), because.find(']')) {
            (Some(start), Some(end)) if start < end => [&because[..start], &because[end + 1..]].concat(),
            _ => because.to_owned(),
        },
    }
}

/// The name of a control without the preposition that a sentence needs; a threshold keeps it.
fn control(against: &str) -> &str {
    let prepositions = ["against ", "over ", "beyond ", "of "];
    let name = prepositions.into_iter().find_map(|word| against.strip_prefix(word)).unwrap_or(against);
    if name.starts_with(|letter: char| letter.is_ascii_digit()) { against } else { name }
}

/// For each value of `key`, how many rows support the claim, contradict it or leave it open.
fn marks<'a>(rows: &[&'a ClaimRow], key: impl Fn(&'a ClaimRow) -> &'a str) -> String {
    let mut keys: Vec<&str> = Vec::new();
    for &row in rows {
        if !keys.contains(&key(row)) {
            keys.push(key(row));
        }
    }
    if keys.is_empty() {
        return format!("<span class=\"none\">{}</span>", cell::NOTHING);
    }
    let of_key = |&name: &&str| {
        let counts: String = Verdict::ALL
            .into_iter()
            .filter_map(|verdict| {
                let n = rows.iter().filter(|&&row| key(row) == name && row.verdict == verdict).count();
                let (class, sign) = sign(verdict);
                let title = verdict.words();
                (n > 0)
                    .then(|| format!("<span class=\"mark {class}\" title=\"{n} {title}\">{sign}{n}</span>"))
            })
            .collect();
        format!("<span class=\"key\">{} <span class=\"marks\">{counts}</span></span>", words(name))
    };
    keys.iter().map(of_key).collect::<Vec<_>>().join(" ")
}

fn facts(provenance: &Provenance, records: &Records, multiverse: bool) -> String {
    let circuits = records.extractions.iter();
    let tasks: BTreeSet<&str> = circuits.clone().map(|e| e.task.as_str()).collect();
    let largest = circuits.max_by_key(|e| e.composition.iter().map(|tensor| tensor.size).sum::<usize>());
    let shape = largest.filter(|e| !e.composition.is_empty()).map_or_else(String::new, |e| {
        let parameters: usize = e.composition.iter().map(|tensor| tensor.size).sum();
        let layers = e.composition.iter().map(|tensor| tensor.layer + 1).max().unwrap_or(0);
        format!(", {layers} layers with {} parameters", cell::grouped(parameters as u64))
    });
    let components: BTreeSet<usize> = records.requests.iter().map(|request| request.component).collect();
    let requests = match (records.requests.len(), components.len()) {
        (0, _) => String::new(),
        (n, groups) => format!(" and {n} requests in {groups} groups without a common entity"),
    };
    let data = match provenance.data.as_str() {
        "" => "the given data",
        named => named,
    };
    let toy = match provenance.model.as_str() {
        "organism" => {
            "Not a finding about OpenAI’s GPT-2: the organism is a small model trained for this project on invented \
             sentences, on which the whole study runs in minutes."
        }
        _ => "Not a finding about other models or other data.",
    };
    let choices = if multiverse { "<a href=\"#table-X4\">Other choices</a>" } else { "Other choices" };
    let quick =
        if provenance.profile == "quick" { " The quick profile is for trying things out." } else { "" };
    format!(
        "<div class=\"basis\">\n<div><h2>Model and data</h2><p>{}{shape}; {data}: {} <a href=\"#tasks\">tasks</a>{requests}.</p></div>\n\
         <div><h2>How sure</h2><p>One seed; brackets are 95\u{a0}% intervals. A verdict needs every comparison that decides, \
         corrected for the number of claims; what this run could not see is <i>undecided</i>.{quick}</p></div>\n\
         <div><h2>What this is not</h2><p>{toy} {choices} of measure and control can change a verdict.</p></div>\n</div>\n",
        words(&provenance.model),
        tasks.len(),
        data = words(data),
    )
}
