//! `locus circuit compare`: overlap beside chance.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;
use locus_gpt2::internal::write_atomically;
use serde_json::{Value, json};

use super::super::error::Unusable;
use super::super::global::Global;
use super::super::output::stdout;
use super::input::{Input, read};
use crate::protocol::{CircuitComparison, Overlap, compare_edges, compare_masks_of_parameters};

#[derive(Debug, Args)]
#[group(skip)]
pub struct Compare {
    /// Circuits: .json of `discover`, EAP-IG or MIB, .csv, .dot, or masks (.safetensors, of models of --model's shape)
    #[arg(required = true, num_args = 2.., value_name = "FILE")]
    circuits: Vec<PathBuf>,
}

impl Compare {
    pub fn run(&self, global: &Global) -> Result<()> {
        let inputs: Vec<&Path> = self.circuits.iter().map(PathBuf::as_path).collect();
        global.check_out_file(&inputs)?;
        let circuits: Vec<Input> = inputs.iter().map(|path| read(path, global)).collect::<Result<_>>()?;
        let mut pairs = Vec::new();
        for (i, a) in circuits.iter().enumerate() {
            for (j, b) in circuits.iter().enumerate().skip(i + 1) {
                pairs.push((inputs[i], inputs[j], compared((inputs[i], a), (inputs[j], b))?));
            }
        }
        let name = |path: &Path| path.display().to_string();
        let comparisons: Vec<Value> = pairs
            .iter()
            .map(|(a, b, found)| json!({ "a": name(a), "b": name(b), "overlap": found }))
            .collect();
        if let Some(out) = &global.out {
            let hash = |path: &&Path| -> Result<Value> {
                let sha256 = locus_files::sha256_file(path).with_context(|| name(path))?;
                Ok(json!({ "file": name(path), "sha256": sha256 }))
            };
            let provenance = json!({
                "version": env!("CARGO_PKG_VERSION"),
                "circuits": inputs.iter().map(hash).collect::<Result<Vec<_>>>()?,
            });
            let text = serde_json::to_string_pretty(
                &json!({ "provenance": provenance, "comparisons": comparisons }),
            )?;
            write_atomically(out, format!("{text}\n").as_bytes())?;
        }
        let mut out = stdout();
        if global.json {
            for line in &comparisons {
                writeln!(out, "{line}")?;
            }
            return Ok(());
        }
        for (a, b, found) in &pairs {
            print(&mut out, &name(a), &name(b), found)?;
        }
        Ok(())
    }
}

fn compared((at_a, a): (&Path, &Input), (at_b, b): (&Path, &Input)) -> Result<CircuitComparison> {
    let refuse =
        |why: &str| Err(Unusable(format!("{} and {}: {why}", at_a.display(), at_b.display())).into());
    match (a, b) {
        (Input::Mask(a), Input::Mask(b)) => Ok(compare_masks_of_parameters(a, b)),
        (Input::Edges(a), Input::Edges(b)) if a.scores.graph() != b.scores.graph() => {
            let shape = |graph: locus_circuits::edges::Graph| {
                format!("{} layers of {} heads", graph.n_layer, graph.n_head)
            };
            refuse(&format!(
                "circuits of {} and of {}; expected one shape",
                shape(a.scores.graph()),
                shape(b.scores.graph())
            ))
        }
        (Input::Edges(a), Input::Edges(b)) => {
            if a.circuit.count() == 0 && b.circuit.count() == 0 {
                return refuse("neither marks an edge as in the circuit; expected some with in_graph");
            }
            Ok(compare_edges((&a.circuit, &a.scores), (&b.circuit, &b.scores)))
        }
        _ => refuse("one is a mask of parameters; expected two of a kind (see locus circuit convert)"),
    }
}

fn print(out: &mut dyn Write, a: &str, b: &str, found: &CircuitComparison) -> Result<()> {
    writeln!(out, "A {a}\nB {b}")?;
    writeln!(
        out,
        "{:<10} {:>9} {:>9} {:>9} {:>9} {:>10} {:>19} {:>9} {:>7} {:>7}",
        found.unit, "of", "A", "B", "shared", "by chance", "95 %", "p", "Jaccard", "chance"
    )?;
    let parts = std::iter::once(&found.all).chain(&found.layers).chain(&found.nodes);
    for part in parts {
        let Overlap { population, a, b, shared, expected, chance, .. } = part;
        let range = format!("{} to {}", chance.0, chance.1);
        writeln!(
            out,
            "{:<10} {population:>9} {a:>9} {b:>9} {shared:>9} {expected:>10.1} {range:>19} {:>9} {:>7} {:>7}",
            part.part,
            p_value(part.p_more),
            index(part.jaccard),
            index(part.expected_jaccard),
        )?;
    }
    let kept = index(found.expected_jaccard_by_layer);
    writeln!(
        out,
        "with the sizes of each layer kept, chance shares {:.1} (Jaccard {kept})",
        found.expected_by_layer
    )?;
    if let Some(correlation) = found.score_correlation {
        writeln!(out, "Spearman's correlation of the scores: {correlation:.3}")?;
    }
    writeln!(out, "p: probability that independent circuits of these sizes share at least as many")?;
    Ok(())
}

fn index(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.3}"))
}

fn p_value(p: f64) -> String {
    if p >= 1e-3 { format!("{p:.3}") } else { format!("{p:.1e}") }
}
