//! What `locus discover` prints of a circuit: how many pairs it was found and measured on, and what they measured.

use std::io::Write;

use anyhow::Result;
use locus_circuits::edges::{CircuitFile, Faithfulness, Pair, RankBy};
use locus_metrics::{Interval, Stream};
use serde_json::{Value, json};

use super::super::output::stdout;
use super::super::skipped::SkippedRecords;

/// Rows shown on the terminal.
pub const SHOWN: usize = 20;

/// The pairs that a circuit was found and measured on, and the metric of each.
#[derive(Clone, Copy)]
pub struct Measured<'a> {
    found_on: usize,
    /// `None` when the circuit is measured where it was found.
    held_out: Option<usize>,
    faithfulness: &'a Faithfulness,
    /// Resamples of the interval of faithfulness.
    stream: Stream,
}

impl<'a> Measured<'a> {
    /// What `faithfulness` says of a circuit that some pairs scored, measured on the pairs held out, if any are.
    pub fn new(
        found_on: &[Pair],
        held_out: Option<&[Pair]>,
        faithfulness: &'a Faithfulness,
        stream: Stream,
    ) -> Self {
        Measured { found_on: found_on.len(), held_out: held_out.map(<[Pair]>::len), faithfulness, stream }
    }

    /// Mean metric of the full model, without edges, and of the circuit.
    pub fn means(&self) -> [f64; 3] {
        let Faithfulness { clean, empty, circuit, .. } = self.faithfulness;
        [clean, empty, circuit].map(|values| values.iter().sum::<f64>() / values.len() as f64)
    }

    /// `None` where the full model's metric cannot be told from that without edges.
    pub fn interval(&self) -> Option<Interval> {
        self.faithfulness.interval(self.stream)
    }

    /// Prints one line of JSON: `circuit`, an object, with what was measured.
    pub fn print_json(&self, mut circuit: Value, skipped: &SkippedRecords) -> Result<()> {
        let ([clean, empty, kept], interval) = (self.means(), self.interval());
        circuit["pairs"] = self.found_on.into();
        circuit["held_out"] = self.held_out.into();
        circuit["clean"] = clean.into();
        circuit["empty"] = empty.into();
        circuit["circuit"] = kept.into();
        circuit["faithfulness"] = interval.map(|interval| interval.value).into();
        circuit["faithfulness_interval"] = json!(interval.map(|interval| [interval.low, interval.high]));
        let mut out = stdout();
        writeln!(out, "{circuit}")?;
        if let Some(skipped) = skipped.json() {
            writeln!(out, "{}", json!({ "skipped": skipped }))?;
        }
        Ok(())
    }

    /// Writes what was measured in two lines.
    pub fn write(&self, out: &mut impl Write) -> Result<()> {
        let Measured { found_on, held_out, .. } = *self;
        match held_out {
            Some(held_out) => writeln!(out, "found on {found_on} pairs, measured on {held_out} others")?,
            None => writeln!(
                out,
                "found and measured on the same pairs ({found_on}), so it looks better than it is"
            )?,
        }
        let [clean, empty, kept] = self.means();
        let faithfulness = self.interval().map_or_else(
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

/// Prints a circuit of which `wanted` edges were asked for: its best edges and what it measures, or all as JSON.
pub fn print(
    CircuitFile { scores, circuit, .. }: &CircuitFile,
    wanted: usize,
    measured: &Measured,
    skipped: &SkippedRecords,
    json: bool,
) -> Result<()> {
    let graph = scores.graph();
    let ranked = scores.ranked(RankBy::Absolute).into_iter();
    if json {
        let edges: Vec<Value> = ranked
            .filter(|&edge| circuit.contains(edge))
            .map(|edge| json!({ "edge": graph.name(edge), "score": scores.get(edge) }))
            .collect();
        let line = json!({
            "edges": circuit.count(), "requested": wanted, "graph": graph.n_edges(), "circuit_edges": edges,
        });
        return measured.print_json(line, skipped);
    }
    let mut out = stdout();
    writeln!(out, "{:<24} {:>12}", "edge", "score")?;
    for edge in ranked.take(SHOWN) {
        writeln!(out, "{:<24} {:>+12.5}", graph.name(edge), scores.get(edge))?;
    }
    let (left, all) = (circuit.count(), graph.n_edges());
    writeln!(out, "circuit: {left} of {all} edges after pruning dead ends ({wanted} selected)")?;
    measured.write(&mut out)
}
