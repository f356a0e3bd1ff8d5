//! Methods of `locus discover` that search for a circuit itself, and rivals of the circuit found.

use std::io::Write;

use anyhow::Result;
use clap::Args;
use locus_circuits::edges::{
    Attribution, EdgePruning, EdgeScores, EdgeSet, Faithfulness, Graph, Pair, QuadratureRule,
    StandardAblation, StandardMetric, acdc, agreement, attribute_edges, overlap,
};
use locus_gpt2::{Gpt2, Scalar};
use locus_metrics::Stream;
use serde_json::{Value, json};

use super::error::{Unusable, in_range};
use super::global::Global;

/// Largest number of optimiser steps.
const MOST_STEPS: usize = 1_000_000;
/// Largest number of rivals.
const MOST_RIVALS: usize = 1_000;
/// Steps of the attribution that a hybrid begins with.
const START_STEPS: usize = 5;

#[derive(Debug, Args)]
#[group(skip)]
pub struct Search {
    /// Change of the loss, in its units, below which acdc removes an edge
    #[arg(long, default_value_t = 0.01, value_name = "CHANGE")]
    threshold: f64,
    /// Optimiser steps of edge-pruning
    #[arg(long, default_value_t = EdgePruning::default().steps, value_name = "N")]
    steps: usize,
    /// Let edge-pruning begin with the scores of eap-ig-inputs
    #[arg(long)]
    hybrid: bool,
    /// Find this many circuits that share as few edges as they can (edge-pruning)
    #[arg(long, value_name = "N")]
    rivals: Option<usize>,
}

/// What a search runs on, and what it keeps low.
#[derive(Clone, Copy)]
pub struct Searched<'a, F> {
    pub model: &'a Gpt2<F>,
    pub pairs: &'a [Pair],
    pub objective: StandardMetric,
    pub ablation: &'a StandardAblation,
    /// Edges asked for.
    pub wanted: usize,
}

/// A method that searches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    Acdc,
    EdgePruning,
}

impl Search {
    /// Checks the options; `method` is `None` for methods that only score.
    pub fn check(&self, method: Option<Method>, ablation: StandardAblation) -> Result<()> {
        let wrong = |why: &str| Err(Unusable(why.into()).into());
        in_range("--steps", self.steps, MOST_STEPS)?;
        if !(self.threshold > 0.0 && self.threshold.is_finite()) {
            return wrong(&format!("--threshold is {}; expected a number above 0", self.threshold));
        }
        if let Some(n) = self.rivals {
            in_range("--rivals", n, MOST_RIVALS)?;
        }
        if method != Some(Method::EdgePruning) && (self.hybrid || self.rivals.is_some()) {
            return wrong("--hybrid and --rivals belong to learned circuits; expected --method edge-pruning");
        }
        if self.hybrid && ablation != StandardAblation::Corrupted {
            return wrong("--hybrid interpolates to the corrupted run; expected --ablation corrupted");
        }
        Ok(())
    }

    /// Scores of a search: changes of the loss (acdc) or parameters of gates (edge-pruning).
    pub fn scores<F: Scalar>(
        &self,
        method: Method,
        searched: Searched<F>,
        global: &Global,
    ) -> Result<EdgeScores> {
        let Searched { model, pairs, objective, ablation, wanted } = searched;
        let metric = objective.metric();
        match method {
            Method::Acdc => {
                let stage = global.progress().stage("edges", Graph::new(model.config()).n_edges());
                let found = acdc(model, pairs, metric, ablation, self.threshold, &mut || stage.inc())?;
                stage.finish();
                Ok(found.scores)
            }
            Method::EdgePruning => {
                let stage = global.progress().stage("steps", self.steps);
                let recipe = self.recipe(searched)?;
                let mut done = || stage.inc();
                let found = recipe.find(model, pairs, metric, ablation, wanted, global.seed, &mut done)?;
                stage.finish();
                Ok(found.log_alphas)
            }
        }
    }

    /// The circuit in the scores of a search, before dead ends are pruned.
    pub fn circuit(&self, method: Method, scores: &EdgeScores, wanted: usize) -> EdgeSet {
        use locus_circuits::edges::RankBy::Signed;
        match method {
            Method::Acdc => EdgeSet::threshold(scores, self.threshold, Signed),
            Method::EdgePruning => EdgeSet::top_n(scores, wanted, Signed),
        }
    }

    fn recipe<F: Scalar>(&self, searched: Searched<F>) -> Result<EdgePruning> {
        let Searched { model, pairs, ablation, .. } = searched;
        let start = || {
            let method = Attribution::IgInputs(QuadratureRule::Midpoint, START_STEPS);
            attribute_edges(model, pairs, searched.objective.metric(), method, ablation)
        };
        let start = self.hybrid.then(start).transpose()?;
        Ok(EdgePruning { steps: self.steps, start, ..EdgePruning::default() })
    }

    /// Finds rivals of the first circuit where they are asked for, measures all on `measured_on`, and prints them.
    pub fn report_rivals<F: Scalar>(
        &self,
        searched: Searched<F>,
        first: &EdgeSet,
        metric: StandardMetric,
        measured_on: &[Pair],
        global: &Global,
    ) -> Result<()> {
        let Some(n) = self.rivals else { return Ok(()) };
        let Searched { model, pairs, objective, ablation, wanted } = searched;
        let stage = global.progress().stage("steps", self.steps * (n - 1));
        let recipe = EdgePruning { rivals_of: vec![first.clone()], ..self.recipe(searched)? };
        let seed = global.seed.wrapping_add(1);
        let objective = objective.metric();
        let found =
            recipe
                .find_rivals(model, pairs, objective, ablation, wanted, n - 1, seed, &mut || stage.inc())?;
        stage.finish();
        let circuits: Vec<EdgeSet> =
            std::iter::once(first.clone()).chain(found.iter().map(|rival| rival.circuit.pruned())).collect();
        let stream = Stream::named(global.seed, "faithfulness");
        let mut rows = Vec::with_capacity(n);
        for circuit in &circuits {
            let measured = Faithfulness::of(model, measured_on, metric.metric(), circuit, ablation)?;
            let agreement = agreement(model, measured_on, circuit, ablation)?;
            let names: Vec<String> = circuit.edges().map(|edge| circuit.graph().name(edge)).collect();
            let faithfulness = measured.interval(stream);
            rows.push(json!({ "agreement": agreement, "faithfulness": faithfulness, "edges": names }));
        }
        let pairs = (0..n).flat_map(|a| (a + 1..n).map(move |b| (a, b)));
        let overlaps: Vec<Value> = pairs
            .map(|(a, b)| {
                let counts = overlap(&circuits[a], &circuits[b]);
                let chance = counts.chance_interval();
                json!({
                    "circuits": [a + 1, b + 1],
                    "jaccard": counts.jaccard(),
                    "by_chance": { "jaccard": counts.expected_jaccard(), "interval": chance },
                    "lift": counts.lift(),
                })
            })
            .collect();
        print(&rows, &overlaps, global.json)
    }
}

fn print(rows: &[Value], overlaps: &[Value], json: bool) -> Result<()> {
    let mut out = super::output::stdout();
    if json {
        writeln!(out, "{}", json!({ "rivals": rows, "overlaps": overlaps }))?;
        return Ok(());
    }
    let number = |value: &Value| value.as_f64().map_or_else(|| "undefined".to_owned(), |x| format!("{x:.3}"));
    writeln!(
        out,
        "{:<8} {:>6} {:>10} {:>13} {:>18}",
        "circuit", "edges", "agreement", "faithfulness", "95 % interval"
    )?;
    for (i, row) in rows.iter().enumerate() {
        let edges = row["edges"].as_array().map_or(0, Vec::len);
        let faithfulness = &row["faithfulness"];
        let interval = format!("{} to {}", number(&faithfulness["low"]), number(&faithfulness["high"]));
        let (agreement, value) = (number(&row["agreement"]), number(&faithfulness["value"]));
        writeln!(out, "{:<8} {edges:>6} {agreement:>10} {value:>13} {interval:>18}", i + 1)?;
    }
    writeln!(
        out,
        "{:<8} {:>9} {:>10} {:>18} {:>8}",
        "overlap", "Jaccard", "by chance", "95 % of chance", "lift"
    )?;
    for row in overlaps {
        let name = format!("{} and {}", row["circuits"][0], row["circuits"][1]);
        let interval = &row["by_chance"]["interval"];
        let interval = format!("{} to {}", number(&interval[0]), number(&interval[1]));
        let (jaccard, chance) = (number(&row["jaccard"]), number(&row["by_chance"]["jaccard"]));
        writeln!(out, "{name:<8} {jaccard:>9} {chance:>10} {interval:>18} {:>8}", number(&row["lift"]))?;
    }
    Ok(())
}
