//! Parts that the HTML page and the Markdown report share: title, provenance, and the places of figures.

use crate::results::{Figure, Provenance, Table};

/// Title of every report.
pub const TITLE: &str = "What language model circuits know: a knowledge-editing study";

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
