//! Edges at token positions (`locus discover --positions`): what of a run is cut, written and printed.

use std::fmt::Write as _;
use std::io::Write;
use std::path::Path;

use anyhow::Result;
use locus_circuits::edges::export::Conventions;
use locus_circuits::edges::{EdgeAt, Faithfulness, Layout, PositionScores, PositionSet, RankBy};
use locus_gpt2::{Config, Tokenizer};
use locus_metrics::Stream;
use serde_json::{Map, Value, json};

use super::error::Unusable;
use super::output::{one_line, stdout};
use super::skipped::SkippedRecords;

/// Edges shown on the terminal.
const SHOWN: usize = 20;

/// A circuit of edges at positions, and what it was found and measured on.
pub struct FoundAtPositions<'a> {
    pub scores: &'a PositionScores,
    pub circuit: &'a PositionSet,
    /// Edges asked for, at all positions.
    pub wanted: usize,
    pub found_on: usize,
    pub held_out: Option<usize>,
    pub measured: &'a Faithfulness,
    /// Resamples of the interval of faithfulness.
    pub stream: Stream,
}

/// The layout of `--out`, which must be one that has positions.
pub fn check_layout(out: Option<&Path>, layout: Option<Layout>) -> Result<()> {
    match (out, layout) {
        (Some(out), Some(Layout::Dot)) => {
            let why = format!("--out {}: has no positions; expected a name in .json or .csv", out.display());
            Err(Unusable(why).into())
        }
        _ => Ok(()),
    }
}

impl FoundAtPositions<'_> {
    /// The text of a file: every edge whose score is not 0, by rank.
    pub fn to_text(
        &self,
        layout: Layout,
        config: &Config,
        conventions: &Conventions,
        provenance: &Map<String, Value>,
    ) -> Result<String> {
        let graph = self.scores.graph();
        let scored =
            self.scores.ranked(RankBy::Absolute).into_iter().filter(|&at| self.scores.get(at) != 0.0);
        if layout == Layout::Csv {
            let mut text = String::from("edge,position,score,in_graph\n");
            for at in scored {
                let (score, inside) = (self.scores.get(at), self.circuit.contains(at));
                writeln!(text, "{},{},{score},{inside}", graph.name(at.edge), at.position)?;
            }
            return Ok(text);
        }
        let edge = |at: EdgeAt| {
            json!({
                "edge": graph.name(at.edge), "position": at.position, "score": self.scores.get(at),
                "in_graph": self.circuit.contains(at),
            })
        };
        let file = json!({
            "cfg": {
                "n_layers": graph.n_layer, "n_heads": graph.n_head, "parallel_attn_mlp": false,
                "d_model": config.n_embd,
            },
            "positions": self.scores.n_positions(),
            "edges_at_positions": scored.map(edge).collect::<Vec<Value>>(),
            "conventions": conventions,
            "provenance": provenance,
        });
        Ok(serde_json::to_string_pretty(&file)? + "\n")
    }

    /// Prints the best edges with their positions and what stands there in `prompt`, and the measures of the circuit.
    pub fn print(
        &self,
        prompt: &[u32],
        tokenizer: &Tokenizer,
        skipped: &SkippedRecords,
        json: bool,
    ) -> Result<()> {
        let FoundAtPositions { scores, circuit, wanted, found_on, held_out, measured, stream } = *self;
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
        let [clean, empty, kept] = [&measured.clean, &measured.empty, &measured.circuit].map(|v| mean(v));
        let faithfulness = measured.interval(stream);
        let (graph, positions) = (scores.graph(), scores.n_positions());
        let mut out = stdout();
        if json {
            let ranked = scores.ranked(RankBy::Absolute).into_iter().filter(|&at| circuit.contains(at));
            let edge = |at: EdgeAt| json!({ "edge": graph.name(at.edge), "position": at.position, "score": scores.get(at) });
            let line = json!({
                "edges": circuit.count(), "requested": wanted, "graph": graph.n_edges(),
                "positions": positions, "pairs": found_on, "held_out": held_out,
                "clean": clean, "empty": empty, "circuit": kept,
                "faithfulness": faithfulness.map(|interval| interval.value),
                "faithfulness_interval": faithfulness.map(|interval| [interval.low, interval.high]),
                "circuit_edges": ranked.map(edge).collect::<Vec<Value>>(),
            });
            writeln!(out, "{line}")?;
            if let Some(skipped) = skipped.json() {
                writeln!(out, "{}", json!({ "skipped": skipped }))?;
            }
            return Ok(());
        }
        writeln!(out, "{:<24} {:>8} {:>12}  token of the first pair", "edge", "position", "score")?;
        for at in scores.ranked(RankBy::Absolute).into_iter().take(SHOWN) {
            let token = prompt[at.position];
            let text = tokenizer.decode(&[token]).unwrap_or_else(|_| format!("<{token}>"));
            let (name, score) = (graph.name(at.edge), scores.get(at));
            writeln!(
                out,
                "{name:<24} {:>8} {score:>+12.5}  {}",
                at.position,
                one_line(&format!("{text:?}"))
            )?;
        }
        let all = graph.n_edges() * positions;
        let left = circuit.count();
        writeln!(
            out,
            "circuit: {left} of {all} edges at {positions} positions after pruning dead ends ({wanted} selected)"
        )?;
        match held_out {
            Some(held_out) => writeln!(out, "found on {found_on} pairs, measured on {held_out} others")?,
            None => writeln!(
                out,
                "found and measured on the same pairs ({found_on}), so it looks better than it is"
            )?,
        }
        let faithfulness = faithfulness.map_or_else(
            || "undefined: the full model's metric cannot be told from that without edges".into(),
            |f| format!("{:.3} [{:.3}, {:.3}]", f.value, f.low, f.high),
        );
        writeln!(
            out,
            "metric: full model {clean:.4}, no edges {empty:.4}, circuit {kept:.4}; faithfulness {faithfulness}"
        )?;
        Ok(())
    }
}
