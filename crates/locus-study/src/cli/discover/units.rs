//! Nodes and neurons as the units of `locus discover`, beside edges.

use std::io::Write;
use std::path::Path;

use anyhow::{Result, bail};
use clap::ValueEnum;
use locus_circuits::edges::export::Conventions;
use locus_circuits::edges::{
    Attribution, EdgeScores, Faithfulness, Metric, NeuronScores, NeuronSet, Pair, RankBy, attribute_neurons,
    run_clean, run_neurons,
};
use locus_gpt2::internal::write_atomically;
use locus_gpt2::{Gpt2, Scalar};
use locus_metrics::Stream;
use serde_json::json;

use super::super::error::{OVERFLOW, Unusable};

/// Units shown on the terminal.
const SHOWN: usize = 20;

/// What a circuit is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Units {
    /// Edges between nodes
    Edges,
    /// The token embedding, heads and MLPs; a node's score is the sum over the edges that leave it
    Nodes,
    /// Neurons of the MLPs, ablated by the corrupted run, with all heads kept
    Neurons,
}

impl Units {
    /// The number of units of a circuit: `top`, or a tenth of all.
    ///
    /// # Errors
    /// When there are fewer units or `top` is 0.
    pub fn wanted(self, top: Option<usize>, all: usize) -> Result<usize> {
        let wanted = top.unwrap_or_else(|| all.div_ceil(10));
        if wanted == 0 || wanted > all {
            let what = if self == Units::Nodes { "nodes" } else { "neurons" };
            let why = format!("--top is {wanted}; expected 1 to {all}, the {what} of this model");
            return Err(Unusable(why).into());
        }
        Ok(wanted)
    }
}

/// Prints the nodes of a circuit with their scores, best first.
pub fn print_nodes(scores: &EdgeScores, rows: &[usize], json: bool) -> Result<()> {
    let (graph, of_nodes) = (scores.graph(), scores.node_scores());
    let mut rows = rows.to_vec();
    rows.sort_by(|&a, &b| of_nodes[b].abs().total_cmp(&of_nodes[a].abs()));
    let mut out = super::super::output::stdout();
    if json {
        let nodes = rows
            .iter()
            .map(|&row| json!({ "node": graph.source(row).to_string(), "score": of_nodes[row] }))
            .collect::<Vec<_>>();
        writeln!(out, "{}", json!({ "nodes": nodes, "of": graph.n_sources() }))?;
        return Ok(());
    }
    writeln!(out, "{:<24} {:>12}", "node", "score")?;
    for &row in rows.iter().take(SHOWN) {
        writeln!(out, "{:<24} {:>+12.5}", graph.source(row).to_string(), of_nodes[row])?;
    }
    writeln!(out, "{} of {} nodes", rows.len(), graph.n_sources())?;
    Ok(())
}

/// How neurons are scored, selected and written.
pub struct NeuronTask<'a, F> {
    pub metric: &'a dyn Metric<F>,
    /// `None` for a method that scores edges alone.
    pub method: Option<Attribution>,
    pub by: RankBy,
    pub top: Option<usize>,
    pub conventions: &'a Conventions,
    /// CSV if the name says so, else JSON.
    pub out: Option<&'a Path>,
    /// Resamples of the interval that decides whether faithfulness is defined.
    pub stream: Stream,
    pub json: bool,
}

impl<F: Scalar> NeuronTask<'_, F> {
    /// Finds the circuit of neurons on some pairs, measures it on `measured_on`, and prints and writes it.
    pub fn run(&self, model: &Gpt2<F>, found_on: &[Pair], measured_on: &[Pair]) -> Result<()> {
        let Some(method) = self.method else {
            let why = "this --method scores edges alone; expected eap, clean-corrupted, eap-ig-inputs or relp with \
                       --units neurons";
            return Err(Unusable(why.into()).into());
        };
        let config = model.config();
        let wanted = Units::Neurons.wanted(self.top, config.n_layer * config.d_mlp())?;
        let scores = attribute_neurons(model, found_on, self.metric, method)?;
        if let Some(score) = scores.matrix().iter().find(|score| !score.is_finite()) {
            bail!("the score of a neuron is {score}; {OVERFLOW}");
        }
        let circuit = NeuronSet::top_n(&scores, wanted, self.by);
        let run = |kept: &NeuronSet| run_neurons(model, measured_on, self.metric, kept);
        let measured = Faithfulness {
            clean: run_clean(model, measured_on, self.metric)?,
            empty: run(&NeuronSet::empty(config))?,
            circuit: run(&circuit)?,
        };
        if let Some(path) = self.out {
            let is_csv = path.extension().is_some_and(|extension| extension == "csv");
            let text = if is_csv { to_csv(&scores, &circuit) } else { self.to_json(&scores, &circuit)? };
            write_atomically(path, text.as_bytes())?;
        }
        self.print(&scores, &circuit, &measured)
    }

    fn to_json(&self, scores: &NeuronScores, circuit: &NeuronSet) -> Result<String> {
        let neurons: serde_json::Map<_, _> = scores
            .ranked(self.by)
            .into_iter()
            .map(|neuron| {
                let entry = json!({ "score": scores.get(neuron), "in_graph": circuit.contains(neuron) });
                (neuron.to_string(), entry)
            })
            .collect();
        let (n_layers, d_mlp) = scores.matrix().dim();
        let file = json!({
            "cfg": { "n_layers": n_layers, "d_mlp": d_mlp }, "neurons": neurons, "conventions": self.conventions,
        });
        Ok(serde_json::to_string_pretty(&file)? + "\n")
    }

    fn print(&self, scores: &NeuronScores, circuit: &NeuronSet, measured: &Faithfulness) -> Result<()> {
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
        let [clean, empty, kept] = [&measured.clean, &measured.empty, &measured.circuit].map(|v| mean(v));
        let faithfulness = measured.normalised().filter(|_| !measured.span(self.stream).contains(0.0));
        let all = scores.matrix().len();
        let mut out = super::super::output::stdout();
        if self.json {
            let line = json!({
                "neurons": circuit.count(), "of": all, "clean": clean, "empty": empty, "circuit": kept,
                "faithfulness": faithfulness,
            });
            writeln!(out, "{line}")?;
            return Ok(());
        }
        writeln!(out, "{:<24} {:>12}", "neuron", "score")?;
        for neuron in scores.ranked(self.by).into_iter().take(SHOWN) {
            writeln!(out, "{:<24} {:>+12.5}", neuron.to_string(), scores.get(neuron))?;
        }
        let faithfulness = faithfulness.map_or_else(
            || "undefined: the full model's metric cannot be told from that without neurons".into(),
            |f| format!("{f:.3}"),
        );
        writeln!(out, "circuit: {} of {all} neurons", circuit.count())?;
        writeln!(
            out,
            "metric: full model {clean:.4}, no neurons {empty:.4}, circuit {kept:.4}; faithfulness {faithfulness}"
        )?;
        Ok(())
    }
}

fn to_csv(scores: &NeuronScores, circuit: &NeuronSet) -> String {
    let mut text = String::from("layer,neuron,score,in_graph\n");
    let mut neurons = scores.ranked(RankBy::Absolute);
    neurons.sort_unstable();
    for neuron in neurons {
        let (layer, index) = (neuron.layer, neuron.index);
        text += &format!("{layer},{index},{},{}\n", scores.get(neuron), circuit.contains(neuron));
    }
    text
}
