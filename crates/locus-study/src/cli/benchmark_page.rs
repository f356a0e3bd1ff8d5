//! The Markdown page of `locus benchmark`: results, definitions, what was refused and what was left out.

use std::fmt::Write;

use serde_json::Value;

use crate::protocol::benchmark::{EditorSummary, Estimate, MEASURES, SCORES, Unit};

/// A row of the tables: what is said of a measure.
struct Row {
    key: &'static str,
    label: &'static str,
    unit: Unit,
    source: &'static str,
    definition: &'static str,
}

/// The scores, then what they are made of and all else.
fn rows() -> Vec<Row> {
    let scores = SCORES.iter().map(|s| Row {
        key: s.key,
        label: s.label,
        unit: Unit::Hundredth,
        source: s.source,
        definition: s.definition,
    });
    let measures = MEASURES.iter().map(|m| Row {
        key: m.key,
        label: m.label,
        unit: m.unit,
        source: m.source,
        definition: m.definition,
    });
    scores.chain(measures).collect()
}

/// The whole page.
pub fn page(provenance: &Value, editors: &[EditorSummary], skipped: &Value) -> String {
    let mut page = String::from("# Benchmark of editors\n\n");
    let requests = editors.first().map_or(0, |editor| editor.requests.len());
    let text = |field: &str| provenance[field].as_str().unwrap_or("-").to_owned();
    let _ = writeln!(
        page,
        "{requests} requests of {}, {} edits{}, scope {}{}, model {} ({}), seed {}, version {}.\n",
        cell(&text("requests")),
        text("mode"),
        provenance["batch"].as_u64().map_or_else(String::new, |n| format!(" of {n}")),
        text("scope"),
        if provenance["isolated"] == true { ", isolated" } else { "" },
        cell(&text("model")),
        text("dtype"),
        provenance["seed"],
        text("version"),
    );
    page += "Means over requests with 95 % bootstrap intervals, for which whole subjects are resampled.\n";
    page += "All but drift (nats per token) are times 100.\n";
    page +=
        "A number in round brackets is the number of requests that have a value, where it is not all.\n\n";
    let measured: Vec<Row> = rows()
        .into_iter()
        .filter(|row| editors.iter().any(|editor| editor.measures.contains_key(row.key)))
        .collect();
    let names: Vec<&str> = editors.iter().map(|editor| editor.editor.as_str()).collect();
    let _ = writeln!(page, "| measure | {} |", names.join(" | "));
    let _ = writeln!(page, "| --- |{}", " ---: |".repeat(names.len()));
    for row in &measured {
        let cells: Vec<String> =
            editors.iter().map(|editor| estimate(editor.measures.get(row.key), row.unit, requests)).collect();
        let _ = writeln!(page, "| {} | {} |", row.label, cells.join(" | "));
    }
    let refused: Vec<String> = editors.iter().map(|editor| editor.refused.to_string()).collect();
    let _ = writeln!(page, "| refused edits | {} |", refused.join(" | "));
    page += "\n## Definitions\n\n| measure | source | definition |\n| --- | --- | --- |\n";
    for Row { label, source, definition, .. } in &measured {
        let _ = writeln!(page, "| {label} | {source} | {definition} |");
    }
    page += "\nSources: Meng et al. 2022a is arXiv 2202.05262, 2022b arXiv 2210.07229, Zhang et al. 2024 is arXiv \
             2401.01286, Yang et al. 2025 is arXiv 2502.11177.\n";
    page + &refusals(editors) + &left_out(skipped)
}

fn estimate(estimate: Option<&Estimate>, unit: Unit, requests: usize) -> String {
    let Some(Estimate { interval, n }) = estimate else { return "-".into() };
    let show = |x: f64| match unit {
        Unit::Hundredth => format!("{:.1}", 100.0 * x),
        Unit::Nats => format!("{x:.4}"),
    };
    let mut text = show(interval.value);
    if *n > 1 {
        let _ = write!(text, " [{}, {}]", show(interval.low), show(interval.high));
    }
    if *n < requests {
        let _ = write!(text, " ({n})");
    }
    text
}

/// The edits that editors refused.
fn refusals(editors: &[EditorSummary]) -> String {
    let mut rows = String::new();
    for editor in editors {
        for request in &editor.requests {
            if let Some(why) = &request.refused {
                let _ = writeln!(rows, "| {} | {} | {} |", editor.editor, request.case_id, cell(why));
            }
        }
    }
    if rows.is_empty() {
        return rows;
    }
    format!(
        "\n## Refused edits\n\nThe model stayed as it was, and was measured so.\n\n\
         | editor | case | reason |\n| --- | ---: | --- |\n{rows}"
    )
}

/// The records that could not be used.
fn left_out(skipped: &Value) -> String {
    let Some(list) = skipped.as_array().filter(|list| !list.is_empty()) else { return String::new() };
    let mut text =
        String::from("\n## Records left out\n\n| record | case | reason |\n| ---: | ---: | --- |\n");
    for record in list {
        let case = record["case_id"].as_u64().map_or_else(|| "-".into(), |case| case.to_string());
        let reason = cell(record["reason"].as_str().unwrap_or_default());
        let _ = writeln!(text, "| {} | {case} | {reason} |", record["record"]);
    }
    text
}

/// Text in a cell of a table.
fn cell(text: &str) -> String {
    super::output::one_line(text).replace('|', "\\|")
}
