//! `locus patch list`: what patches change, which weights they belong to, and how they came about.

use std::io::Write;
use std::path::PathBuf;

use anyhow::Result;
use locus_editors::{Delta, Patch};
use locus_gpt2::internal::printable;
use locus_gpt2::{Gpt2, Scalar};
use serde_json::{Value, json};

use super::output::stdout;

/// What a patch states of how it came about, in the order in which it is listed.
const STATED: [&str; 8] =
    ["editor", "case_ids", "seed", "scope", "isolated", "mask_sha256", "bos", "sequential"];
/// Numbers of cases that are listed in text; JSON has all of them.
const SHOWN_CASES: usize = 10;

pub fn list<F: Scalar>(
    paths: &[PathBuf],
    patches: &[Patch<F>],
    model: &Gpt2<F>,
    as_json: bool,
) -> Result<()> {
    let mut out = stdout();
    let base = model.sha256();
    for (path, patch) in paths.iter().zip(patches) {
        let provenance = Patch::<F>::read_provenance(path)?;
        let fits = patch.base_sha256() == base;
        if as_json {
            let changes: Vec<_> = patch
                .deltas()
                .map(|(id, delta)| match delta {
                    Delta::Dense(_) => json!({ "parameter": id.to_string(), "kind": "dense" }),
                    Delta::LowRank { u, .. } => {
                        json!({ "parameter": id.to_string(), "kind": "low-rank", "rank": u.ncols() })
                    }
                })
                .collect();
            let mut line = json!({
                "file": path.display().to_string(), "base_sha256": patch.base_sha256(), "fits_model": fits,
                "norm": patch.norm(), "changes": changes,
            });
            let stated = STATED.iter().filter(|name| !provenance[**name].is_null());
            stated.for_each(|name| line[*name] = provenance[*name].clone());
            writeln!(out, "{line}")?;
            continue;
        }
        let word = if fits { "fits" } else { "does not fit" };
        writeln!(
            out,
            "{}: base {}, {word} the model; norm {:.4}",
            printable(&path.display().to_string()),
            printable(patch.base_sha256()),
            patch.norm()
        )?;
        let origin = origin(&provenance);
        if !origin.is_empty() {
            writeln!(out, "  {}", printable(&origin.join(", ")))?;
        }
        for (id, delta) in patch.deltas() {
            match delta {
                Delta::Dense(_) => writeln!(out, "  {id}: dense")?,
                Delta::LowRank { u, .. } => writeln!(out, "  {id}: rank {}", u.ncols())?,
            }
        }
    }
    Ok(())
}

/// Words on how a patch came about: editor, cases, seed, scope.
fn origin(provenance: &Value) -> Vec<String> {
    let mut words = Vec::new();
    if let Some(editor) = provenance["editor"].as_str() {
        words.push(format!("editor {editor}"));
    }
    match provenance["case_ids"].as_array().map(Vec::as_slice) {
        Some([case]) => words.push(format!("case {case}")),
        Some(cases) if !cases.is_empty() => {
            let shown: Vec<String> = cases.iter().take(SHOWN_CASES).map(Value::to_string).collect();
            let more = if cases.len() > SHOWN_CASES { " ..." } else { "" };
            let how = if provenance["sequential"] == true { " in sequence" } else { "" };
            words.push(format!("{} cases{how} ({}{more})", cases.len(), shown.join(" ")));
        }
        _ => {}
    }
    if let Some(seed) = provenance["seed"].as_u64() {
        words.push(format!("seed {seed}"));
    }
    if let Some(scope) = provenance["scope"].as_str() {
        words.push(format!("scope {scope}"));
    }
    if provenance["isolated"] == true {
        words.push("isolated (applied with --mask)".into());
    }
    if let Some(merged) = provenance["merged"].as_u64() {
        words.push(format!("merged from {merged} patches"));
    }
    words
}
