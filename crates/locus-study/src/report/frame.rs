//! Parts that pages and the Markdown report share: title, head, provenance, and the places of figures.

use super::plot::svg::escape;
use crate::results::{Figure, Provenance, Table};

/// Title of every report.
pub const TITLE: &str = "What language model circuits know: a knowledge-editing study";

/// The beginning of a page, up to its body: `title` is text, `styles` are its style elements.
pub fn html_head(title: &str, styles: &str) -> String {
    let title = escape(title);
    // The policy is a promise that the browser keeps: nothing is fetched, whatever a name or a note holds.
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src &#39;none&#39;; style-src &#39;unsafe-inline&#39;; \
         script-src &#39;unsafe-inline&#39;\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>{title}</title>\n{styles}</head>\n<body>\n"
    )
}

/// Id of the table that a figure belongs to: `T5-overlap-5` stands below `T5`, or below `T5a` where T5 comes in parts.
pub fn home<'a>(figure: &Figure, tables: &'a [Table]) -> Option<&'a String> {
    let stem = figure.id.split('-').next().unwrap_or_default();
    let part = |id: &str| {
        id.strip_prefix(stem).is_some_and(|rest| rest.chars().all(|letter| letter.is_ascii_lowercase()))
    };
    let whole = tables.iter().find(|table| table.id == stem);
    whole.or_else(|| tables.iter().find(|table| part(&table.id))).map(|table| &table.id)
}

/// One line under the title.
pub fn subtitle(provenance: &Provenance) -> String {
    let Provenance { version, seed, profile, model, .. } = provenance;
    format!("Model {model} · {profile} profile · seed {seed} · locus {version}")
}

/// Names and values of the facts of the provenance. The digest comes last, because it needs a line of its own.
pub fn provenance_rows(provenance: &Provenance) -> Vec<(&'static str, String)> {
    let Provenance { version, seed, profile, model, model_sha256, data: _, data_sha256: _, conventions: _ } =
        provenance;
    vec![
        ("model", model.clone()),
        ("profile", profile.clone()),
        ("seed", seed.to_string()),
        ("locus", version.clone()),
        ("SHA-256 of the weights", model_sha256.clone()),
    ]
}
