//! The work of `locus discover`: a circuit is found, measured, written and printed.

use anyhow::{Result, bail};
use clap::ValueEnum;
use locus_circuits::edges::export::Conventions;
use locus_circuits::edges::{
    Attribution, CircuitFile, Edge, EdgeScores, EdgeSet, Faithfulness, Graph, Metric, Pair, PositionSet,
    StandardMetric, activation_magnitude, attribute_edges, attribute_positions, edge_mask, patch_edges,
};
use locus_data::seed::stream;
use locus_gpt2::internal::write_atomically;
use locus_gpt2::{Config, Gpt2, Scalar, Tokenizer};
use locus_metrics::Stream;
use serde_json::{Map, Value, json};

use super::super::error::{OVERFLOW, Unusable};
use super::super::global::Global;
use super::super::output::note;
use super::super::search::Searched;
use super::super::skipped::SkippedRecords;
use super::output::{Measured, print};
use super::positions::{self, FoundAtPositions};
use super::units::{NeuronTask, Units, print_nodes};
use super::{Discover, Form, MethodName, Select};
use crate::protocol::pair_key;
use crate::report::{CircuitPage, MeasuredCircuit, circuit_page};

/// A model and the pairs of prompts on which a circuit is found and measured.
pub(super) struct Task<'a, F> {
    pub(super) model: &'a Gpt2<F>,
    pub(super) tokenizer: &'a Tokenizer,
    pub(super) found_on: &'a [Pair],
    /// `None` when none is held out.
    pub(super) held_out: Option<&'a [Pair]>,
    /// What was skipped, and why.
    pub(super) skipped: &'a SkippedRecords<'a>,
    pub(super) metric: StandardMetric,
    /// Stream of the resamples of the pairs.
    pub(super) stream: Stream,
}

impl<F> Task<'_, F> {
    fn measured_on(&self) -> &[Pair] {
        self.held_out.unwrap_or(self.found_on)
    }

    fn measured<'f>(&self, faithfulness: &'f Faithfulness) -> Result<Measured<'f>> {
        check_metric(faithfulness)?;
        Ok(Measured::new(self.found_on, self.held_out, faithfulness, self.stream))
    }
}

impl Discover {
    /// Finds a circuit of edges at token positions, and measures, writes and prints it.
    pub(super) fn find_at_positions<F: Scalar>(
        &self,
        task: &Task<F>,
        method: Attribution,
        global: &Global,
    ) -> Result<()> {
        let (config, ablation) = (task.model.config(), &self.ablation);
        let scores = self.with_progress(config, task.found_on.len(), task.metric, global, |metric| {
            Ok(attribute_positions(task.model, task.found_on, metric, method, ablation)?)
        })?;
        let at = |position: usize| scores.at(position);
        check_scores(&(0..scores.n_positions()).map(at).collect::<Vec<_>>())?;
        let wanted = self.wanted(Graph::new(config).n_edges() * scores.n_positions())?;
        let circuit = PositionSet::top_n(&scores, wanted, self.by()).pruned();
        let metric = task.metric.metric();
        let faithfulness =
            Faithfulness::of_positions(task.model, task.measured_on(), metric, &circuit, ablation)?;
        let measured = task.measured(&faithfulness)?;
        let found = FoundAtPositions { scores: &scores, circuit: &circuit, wanted, measured };
        if let (Some(path), Some(layout)) = (&global.out, positions::layout(global.out.as_deref())?) {
            let provenance = self.provenance(task, global.seed)?;
            let conventions = self.conventions(task.metric, task.found_on.len());
            let text = found.to_text(layout, config, &conventions, &provenance)?;
            write_atomically(path, text.as_bytes())?;
        }
        found.print(&task.found_on[0].clean, task.tokenizer, task.skipped, global.json)
    }

    /// Finds a circuit of MLP neurons, and measures, writes and prints it.
    pub(super) fn find_neurons<F: Scalar>(&self, task: &Task<F>, global: &Global) -> Result<()> {
        let neurons = NeuronTask {
            metric: task.metric.metric(),
            method: self.attribution(),
            by: self.by(),
            top: self.top,
            conventions: &self.conventions(task.metric, task.found_on.len()),
            out: global.out.as_deref(),
            stream: task.stream,
            json: global.json,
        };
        neurons.run(task.model, task.found_on, task.measured_on())
    }

    /// Finds a circuit of `wanted` edges, or of nodes, and measures, writes and prints it.
    pub(super) fn find_edges<F: Scalar>(
        &self,
        task: &Task<F>,
        wanted: usize,
        form: Option<Form>,
        global: &Global,
    ) -> Result<()> {
        let (model, ablation) = (task.model, &self.ablation);
        let objective = self.metric.unwrap_or(StandardMetric::Kl);
        let searched = Searched { model, pairs: task.found_on, objective, ablation, wanted };
        let scores = match self.method.search() {
            Some(method) => self.search.scores(method, searched, global)?,
            None => {
                self.with_progress(model.config(), task.found_on.len(), task.metric, global, |metric| {
                    self.scores_by(model, task.found_on, metric, global.seed)
                })?
            }
        };
        check_scores(&[&scores])?;
        let graph = Graph::new(model.config());
        let cut = match (self.units, self.method.search(), self.select) {
            (Units::Nodes, ..) => {
                let rows = scores.top_nodes(Units::Nodes.wanted(self.top, graph.n_sources())?, self.by());
                print_nodes(&scores, &rows, global.json)?;
                EdgeSet::of_nodes(graph, &rows)
            }
            (_, Some(method), _) => self.search.circuit(method, &scores, wanted),
            (_, None, Select::TopN) => EdgeSet::top_n(&scores, wanted, self.by()),
            (_, None, Select::Greedy) => EdgeSet::greedy(&scores, wanted, self.by()),
        };
        let cut_decides = self.units == Units::Nodes || self.method == MethodName::Acdc;
        let wanted = if cut_decides { cut.count() } else { wanted };
        let circuit = cut.pruned();
        if self.units == Units::Edges && 2 * circuit.count() < wanted {
            note(&format!(
                "only {} of {wanted} edges are left after pruning dead ends; try --select greedy or more --edges",
                circuit.count()
            ));
        }
        let metric = task.metric.metric();
        let faithfulness = Faithfulness::of(model, task.measured_on(), metric, &circuit, ablation)?;
        let measured = task.measured(&faithfulness)?;
        let conventions = self.conventions(task.metric, task.found_on.len());
        if let Some(path) = &self.mask_out {
            let provenance = json!({
                "discover": conventions, "edges": circuit.count(), "model_sha256": model.sha256(),
                "version": env!("CARGO_PKG_VERSION"),
            });
            edge_mask(&circuit, model.config()).write(path, &provenance.to_string())?;
        }
        let file = CircuitFile {
            scores,
            circuit,
            width: Some(model.config().n_embd),
            conventions: Some(conventions),
            provenance: Map::new(),
        };
        if let (Some(path), Some(form)) = (&global.out, form) {
            let file = CircuitFile { provenance: self.provenance(task, global.seed)?, ..file.clone() };
            let text = match form {
                Form::File(layout) => file.to_text(layout)?,
                Form::Page => self.page(task, &file, &measured, global),
            };
            write_atomically(path, text.as_bytes())?;
        }
        print(&file, wanted, &measured, task.skipped, global.json)?;
        self.search.report_rivals(searched, &file.circuit, task.metric, task.measured_on(), global)
    }

    /// The page of a circuit.
    fn page<F: Scalar>(
        &self,
        task: &Task<F>,
        file: &CircuitFile,
        measured: &Measured<'_>,
        global: &Global,
    ) -> String {
        let pairs = match task.held_out {
            Some(held_out) => format!("{} held-out pairs", held_out.len()),
            None => format!("the {} pairs that it was found on", task.found_on.len()),
        };
        let [clean, empty, circuit] = measured.means();
        let measured = MeasuredCircuit {
            pairs: &pairs,
            metric: task.metric.name(),
            ablation: self.ablation.name(),
            clean,
            empty,
            circuit,
            faithfulness: measured.interval(),
        };
        let (model, task) = (&global.model_name(), &self.source.title());
        circuit_page(&CircuitPage { model, task, file, measured, evaluation: None })
    }

    /// Where a circuit comes from, for its file.
    fn provenance<F: Scalar>(&self, task: &Task<F>, seed: u64) -> Result<Map<String, Value>> {
        let keys: Vec<String> = task.found_on.iter().map(pair_key).collect();
        let provenance = [
            ("pairs", self.source.provenance()?),
            ("split", json!({ "held_out": task.held_out.map_or(0, <[_]>::len), "found_on": keys })),
            ("model_sha256", task.model.sha256().into()),
            ("seed", seed.into()),
            ("version", env!("CARGO_PKG_VERSION").into()),
        ];
        Ok(provenance.map(|(key, value)| (key.to_owned(), value)).into_iter().collect())
    }

    /// Does the work that scores pairs by a metric, with progress.
    fn with_progress<F: Scalar, T>(
        &self,
        config: &Config,
        pairs: usize,
        metric: StandardMetric,
        global: &Global,
        work: impl FnOnce(&dyn Metric<F>) -> Result<T>,
    ) -> Result<T> {
        let stage = global.progress().stage("scores", pairs * self.measurements_per_pair(config));
        let found = work(&Counted { metric: metric.metric(), count: &|| stage.inc() })?;
        stage.finish();
        Ok(found)
    }

    /// How often the method asks for the metric or its gradient, for each pair.
    fn measurements_per_pair(&self, config: &Config) -> usize {
        let points = self.ig_rule.nodes(self.ig_steps).len();
        match self.method {
            MethodName::CleanCorrupted => 2,
            MethodName::EapIgInputs => points,
            MethodName::EapIgActivations => points * (1 + 2 * config.n_layer),
            MethodName::AtpStar => config.n_layer,
            MethodName::Exact => 1 + Graph::new(config).n_edges(),
            _ => 1,
        }
    }

    fn scores_by<F: Scalar>(
        &self,
        model: &Gpt2<F>,
        pairs: &[Pair],
        metric: &dyn Metric<F>,
        seed: u64,
    ) -> Result<EdgeScores> {
        let ablation = &self.ablation;
        let graph = Graph::new(model.config());
        match (self.attribution(), self.method) {
            (Some(method), _) => Ok(attribute_edges(model, pairs, metric, method, ablation)?),
            (None, MethodName::Exact) => {
                let edges: Vec<Edge> = graph.edges().collect();
                Ok(patch_edges(model, pairs, metric, ablation, &edges)?)
            }
            (None, MethodName::ActivationMagnitude) => Ok(activation_magnitude(model, pairs, ablation)?),
            (None, MethodName::Random) => Ok(EdgeScores::random(graph, &mut stream(seed, "random edges", 0))),
            (None, _) => unreachable!("a search, which has scores of its own"),
        }
    }

    fn conventions(&self, metric: StandardMetric, pairs: usize) -> Conventions {
        let integrated = matches!(self.method, MethodName::EapIgInputs | MethodName::EapIgActivations);
        let method = self.method.to_possible_value();
        Conventions {
            sign: if self.method == MethodName::EdgePruning {
                "log_alpha"
            } else {
                "delta_loss_when_corrupted"
            }
            .into(),
            method: method.map_or_else(String::new, |method| method.get_name().to_owned()),
            ig_rule: integrated.then(|| self.ig_rule.name().to_owned()),
            ig_steps: integrated.then_some(self.ig_steps),
            metric: metric.name().into(),
            ablation: self.ablation.name().into(),
            bos: self.source.bos,
            bias_owner: "none".into(),
            input_node: "token-embedding".into(),
            pairs,
        }
    }
}

/// A metric that is counted: once for each value or gradient at a run.
struct Counted<'a, F> {
    metric: &'a dyn Metric<F>,
    count: &'a (dyn Fn() + Sync),
}

impl<F: Scalar> Metric<F> for Counted<'_, F> {
    fn value(&self, pair: &Pair, logits: &[F], clean: &[F]) -> f64 {
        self.metric.value(pair, logits, clean)
    }

    fn gradient(&self, pair: &Pair, logits: &[F], clean: &[F]) -> Vec<f64> {
        self.metric.gradient(pair, logits, clean)
    }

    fn higher_is_better(&self) -> bool {
        self.metric.higher_is_better()
    }

    /// Asked for before every value and gradient.
    fn logit_weights(&self, pair: &Pair) -> Option<Vec<(u32, f64)>> {
        (self.count)();
        self.metric.logit_weights(pair)
    }
}

/// Fails when a score is not a number, or all are 0.
fn check_scores(scores: &[&EdgeScores]) -> Result<()> {
    for scores in scores {
        let graph = scores.graph();
        if let Some(edge) = graph.edges().find(|&edge| !scores.get(edge).is_finite()) {
            bail!("the score of {} is {}; {OVERFLOW}", graph.name(edge), scores.get(edge));
        }
    }
    if scores.iter().all(|scores| scores.matrix().iter().all(|&score| score == 0.0)) {
        let why = "every edge has the score 0: neither metric nor pairs depend on what an edge carries";
        return Err(Unusable(format!("{why}; expected other pairs, or another --metric or --method")).into());
    }
    Ok(())
}

/// Fails when a value of the metric is not a number.
fn check_metric(measured: &Faithfulness) -> Result<()> {
    let Faithfulness { clean, empty, circuit, .. } = measured;
    match [clean, empty, circuit].into_iter().flatten().find(|value| !value.is_finite()) {
        Some(value) => bail!("the metric is {value}; {OVERFLOW}"),
        None => Ok(()),
    }
}
