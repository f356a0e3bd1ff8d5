//! Edges at token positions (`locus discover --positions`): what of a run is cut, written and printed.

use std::fmt::Write as _;
use std::io::Write;
use std::path::Path;

use anyhow::Result;
use locus_circuits::edges::export::Conventions;
use locus_circuits::edges::{EdgeAt, Layout, PositionScores, PositionSet, RankBy};
use locus_gpt2::{Config, Tokenizer};
use serde_json::{Map, Value, json};

use super::super::error::Unusable;
use super::super::output::{one_line, stdout};
use super::super::skipped::SkippedRecords;
use super::output::{Measured, SHOWN};

/// A circuit of edges at positions, and what it was found and measured on.
pub struct FoundAtPositions<'a> {
    pub scores: &'a PositionScores,
    pub circuit: &'a PositionSet,
    /// Edges asked for, at all positions.
    pub wanted: usize,
    pub measured: Measured<'a>,
}

/// The layout of `--out`, which must be one that has positions.
pub fn layout(out: Option<&Path>) -> Result<Option<Layout>> {
    let Some(out) = out else { return Ok(None) };
    match Layout::of(out) {
        Ok(layout) if layout != Layout::Dot => Ok(Some(layout)),
        _ => {
            let why = format!("--out {}: has no positions; expected a name in .json or .csv", out.display());
            Err(Unusable(why).into())
        }
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

    /// Prints the best edges with their positions and what stands there in `prompt`, and what was measured; or all as
    /// JSON.
    pub fn print(
        &self,
        prompt: &[u32],
        tokenizer: &Tokenizer,
        skipped: &SkippedRecords,
        json: bool,
    ) -> Result<()> {
        let FoundAtPositions { scores, circuit, wanted, measured } = self;
        let (graph, positions) = (scores.graph(), scores.n_positions());
        let ranked = scores.ranked(RankBy::Absolute).into_iter();
        if json {
            let edge = |at: EdgeAt| json!({ "edge": graph.name(at.edge), "position": at.position, "score": scores.get(at) });
            let edges: Vec<Value> = ranked.filter(|&at| circuit.contains(at)).map(edge).collect();
            let line = json!({
                "edges": circuit.count(), "requested": wanted, "graph": graph.n_edges(), "positions": positions,
                "circuit_edges": edges,
            });
            return measured.print_json(line, skipped);
        }
        let mut out = stdout();
        writeln!(out, "{:<24} {:>8} {:>12}  token of the first pair", "edge", "position", "score")?;
        for at in ranked.take(SHOWN) {
            let token = prompt[at.position];
            let text = tokenizer.decode(&[token]).unwrap_or_else(|_| format!("<{token}>"));
            let (name, score) = (graph.name(at.edge), scores.get(at));
            let text = one_line(&format!("{text:?}"));
            writeln!(out, "{name:<24} {:>8} {score:>+12.5}  {text}", at.position)?;
        }
        let (left, all) = (circuit.count(), graph.n_edges() * positions);
        writeln!(
            out,
            "circuit: {left} of {all} edges at {positions} positions after pruning dead ends ({wanted} selected)"
        )?;
        measured.write(&mut out)
    }
}
