//! `locus discover`: circuits of edges.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Result, bail};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, ValueEnum};
use locus_circuits::edges::export::Conventions;
use locus_circuits::edges::{
    Attribution, CircuitFile, Edge, EdgeScores, EdgeSet, Faithfulness, Graph, Layout, Metric, Pair,
    PositionSet, QuadratureRule, RankBy, StandardAblation, StandardMetric, activation_magnitude,
    attribute_edges, attribute_positions, edge_mask, patch_edges,
};
use locus_data::seed::stream;
use locus_gpt2::internal::write_atomically;
use locus_gpt2::{Checkpoint, Config, Gpt2, Scalar};
use locus_metrics::Stream;
use serde_json::{Map, Value, json};

use super::destination::is_same;
use super::discover_output::{Measured, print};
use super::discover_positions::{self, FoundAtPositions};
use super::discover_units::{NeuronTask, Units, print_nodes};
use super::edge_count::EdgeCount;
use super::error::{OVERFLOW, Unusable, in_range};
use super::global::{Dtype, Global};
use super::pair_source::{ModelPairs, PairSource};
use super::search::{self, Search, Searched};
use crate::protocol::{hold_out, pair_key};
use crate::report::{CircuitPage, MeasuredCircuit, circuit_page};

/// Largest number of steps of the eap-ig methods; the public library uses 5.
const MOST_STEPS: usize = 10_000;
/// Fewest pairs of which some are held out.
const FEWEST_TO_SPLIT: usize = 4;

#[derive(Debug, Args)]
#[group(skip)]
pub struct Discover {
    #[command(flatten)]
    source: PairSource,
    /// Share of the pairs that score no edge and on which the circuit is measured; 0 to measure it where it was found,
    /// as is done with fewer than 4 pairs
    #[arg(long, default_value_t = 0.5, value_name = "SHARE")]
    held_out: f64,
    /// Method that scores the edges
    #[arg(long, value_enum, default_value_t = MethodName::EapIgInputs)]
    method: MethodName,
    /// Steps of the eap-ig methods
    #[arg(long, default_value_t = 5, value_name = "N")]
    ig_steps: usize,
    /// Quadrature of the eap-ig methods; the public library runs left, its paper right
    #[arg(long, value_name = "RULE", default_value = "midpoint")]
    #[arg(value_parser = named(QuadratureRule::ALL, QuadratureRule::name))]
    ig_rule: QuadratureRule,
    /// Metric at the last token: correct minus incorrect answers (mean logit or total probability), or the divergence
    /// from the clean run in nats [default: logit-diff; prob-diff for greater-than]
    #[arg(long, value_name = "METRIC")]
    #[arg(value_parser = named(StandardMetric::ALL, StandardMetric::name))]
    metric: Option<StandardMetric>,
    /// What an ablated edge carries
    #[arg(long, value_name = "ABLATION", default_value = "corrupted")]
    #[arg(value_parser = named(StandardAblation::ALL, StandardAblation::name))]
    ablation: StandardAblation,
    /// The former name of --ablation
    #[arg(long, hide = true)]
    reference: Option<String>,
    /// Edges of the circuit before dead ends are pruned, as 48 or 10% [default: a tenth of the graph]
    #[arg(long, value_name = "N|P%")]
    edges: Option<EdgeCount>,
    /// Selection of the circuit from the scores
    #[arg(long, value_enum, default_value_t = Select::TopN)]
    select: Select,
    /// Rank edges by score instead of its absolute value
    #[arg(long)]
    signed: bool,
    /// What the circuit is made of
    #[arg(long, value_enum, default_value_t = Units::Edges)]
    units: Units,
    /// Score and keep edges at each token position, for prompts of one length; --edges counts an edge at each of them
    #[arg(long)]
    positions: bool,
    /// Nodes or neurons of the circuit [default: a tenth of the model's]
    #[arg(long, value_name = "N", conflicts_with = "edges")]
    top: Option<usize>,
    /// Also write the circuit's parameters as a mask for `edit` (safetensors)
    #[arg(long, value_name = "FILE")]
    mask_out: Option<PathBuf>,
    #[command(flatten)]
    search: Search,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum MethodName {
    /// Edge attribution patching: gradients at the clean run
    Eap,
    /// Gradients averaged over the clean and the corrupted run
    CleanCorrupted,
    /// Gradients integrated along the path of the token embeddings
    EapIgInputs,
    /// Gradients integrated along the path of each component's output
    EapIgActivations,
    /// RelP: propagation coefficients of the clean run in place of gradients
    Relp,
    /// Edge attribution patching with the QK fix of AtP*: exact through the softmax
    AtpQk,
    /// AtP*: the QK fix and GradDrop; scores have no sign
    AtpStar,
    /// Exact activation patching, edge by edge
    Exact,
    /// Size of the difference between a source's ablated and clean output: a control
    ActivationMagnitude,
    /// Random scores: a control
    Random,
    /// Edges removed one by one from the logits back, where the loss changes by less than --threshold; without --metric
    /// the loss is kl
    Acdc,
    /// A gate learned for each edge, in --steps steps; without --metric the loss is kl
    EdgePruning,
}

impl MethodName {
    /// The method where it searches for a circuit itself.
    fn search(self) -> Option<search::Method> {
        match self {
            MethodName::Acdc => Some(search::Method::Acdc),
            MethodName::EdgePruning => Some(search::Method::EdgePruning),
            _ => None,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Select {
    /// The best edges
    TopN,
    /// The best edges that can be reached backwards from the logits
    Greedy,
}

/// What `--out` becomes, by the ending of its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// A file that is read again.
    File(Layout),
    /// A page to look at.
    Page,
}

impl Form {
    fn of(out: &Path) -> Result<Self> {
        if out.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("html")) {
            return Ok(Form::Page);
        }
        Layout::of(out).map(Form::File).map_err(|_| {
            let why = "is no file of a circuit; expected a name that ends in .json, .csv, .dot or .html";
            Unusable(format!("--out {}: {why}", out.display())).into()
        })
    }
}

/// Parser of a value that the library knows by name.
pub fn named<T, const N: usize>(all: [T; N], name: fn(T) -> &'static str) -> impl TypedValueParser<Value = T>
where
    T: FromStr<Err = locus_gpt2::Error> + Clone + Send + Sync + 'static,
{
    PossibleValuesParser::new(all.map(name)).try_map(|name| name.parse())
}

impl Discover {
    pub fn run(&self, global: &Global) -> Result<()> {
        match global.dtype {
            Dtype::F32 => self.run_as::<f32>(global),
            Dtype::F64 => self.run_as::<f64>(global),
        }
    }

    fn run_as<F: Scalar>(&self, global: &Global) -> Result<()> {
        in_range("--ig-steps", self.ig_steps, MOST_STEPS)?;
        if self.reference.is_some() {
            return Err(Unusable("--reference is now called --ablation".into()).into());
        }
        let ablation = self.ablation;
        let needs_run = matches!(self.method, MethodName::CleanCorrupted | MethodName::EapIgInputs);
        if needs_run && ablation != StandardAblation::Corrupted {
            let why = "this --method interpolates to the corrupted run; expected --ablation corrupted";
            return Err(Unusable(why.into()).into());
        }
        let metric = self.metric();
        if self.attribution().is_some_and(Attribution::is_at_clean_run) && metric == StandardMetric::Kl {
            let why = "this --method has nothing to go by with --metric kl: the divergence from the clean run has no \
                       gradient at the clean run; expected --method eap-ig-inputs, eap-ig-activations or \
                       clean-corrupted, or another metric";
            return Err(Unusable(why.into()).into());
        }
        self.search.check(self.method.search(), ablation)?;
        if self.units == Units::Edges && self.top.is_some() {
            let why =
                "--top is the number of nodes or neurons; expected --edges, or --units nodes or neurons";
            return Err(Unusable(why.into()).into());
        }
        if self.units == Units::Neurons
            && (self.mask_out.is_some() || ablation != StandardAblation::Corrupted)
        {
            let why = "neurons have no --mask-out and are ablated by the corrupted run; expected --units edges or nodes, \
                       or --ablation corrupted without --mask-out";
            return Err(Unusable(why.into()).into());
        }
        if self.positions {
            self.check_positions()?;
        }
        if !(0.0..1.0).contains(&self.held_out) {
            let why = format!("--held-out is {}; expected a share from 0 to below 1", self.held_out);
            return Err(Unusable(why).into());
        }
        let form = self.check_destinations(global)?;
        if self.positions {
            discover_positions::layout(global.out.as_deref())?;
        }
        let prompts = self.source.read()?;
        let Checkpoint { model, tokenizer } = global.checkpoint::<F>()?;
        let graph = Graph::new(model.config());
        let must_differ = ablation == StandardAblation::Corrupted;
        let ModelPairs { pairs, skipped } =
            self.source.pairs(prompts, &tokenizer, model.config(), self.source.bos, must_differ)?;
        let (found_on, held_out) = self.split(&pairs, global.seed);

        let by = if self.signed { RankBy::Signed } else { RankBy::Absolute };
        let measured_on = held_out.as_deref().unwrap_or(&found_on);
        let stream = Stream::named(global.seed, "faithfulness");
        if let (true, Some(method)) = (self.positions, self.attribution()) {
            let scores = self.with_progress(model.config(), found_on.len(), metric, global, |metric| {
                Ok(attribute_positions(&model, &found_on, metric, method, &ablation)?)
            })?;
            let at = |position: usize| scores.at(position);
            check_scores(&(0..scores.n_positions()).map(at).collect::<Vec<_>>())?;
            let wanted = self.wanted(graph.n_edges() * scores.n_positions())?;
            let circuit = PositionSet::top_n(&scores, wanted, by).pruned();
            let faithfulness =
                Faithfulness::of_positions(&model, measured_on, metric.metric(), &circuit, &ablation)?;
            check_metric(&faithfulness)?;
            let measured = Measured::new(&found_on, held_out.as_deref(), &faithfulness, stream);
            let found = FoundAtPositions { scores: &scores, circuit: &circuit, wanted, measured };
            if let (Some(path), Some(layout)) =
                (&global.out, discover_positions::layout(global.out.as_deref())?)
            {
                let provenance = self.provenance(&model, &found_on, held_out.as_deref(), global.seed)?;
                let conventions = self.conventions(metric, found_on.len());
                let text = found.to_text(layout, model.config(), &conventions, &provenance)?;
                write_atomically(path, text.as_bytes())?;
            }
            return found.print(&found_on[0].clean, &tokenizer, &skipped, global.json);
        }
        let wanted = self.wanted(graph.n_edges())?;
        if self.units == Units::Neurons {
            let (metric, conventions) = (metric.metric(), &self.conventions(metric, found_on.len()));
            let (method, top, out, json) = (self.attribution(), self.top, global.out.as_deref(), global.json);
            let task = NeuronTask { metric, method, by, top, conventions, out, stream, json };
            return task.run(&model, &found_on, measured_on);
        }
        let objective = self.metric.unwrap_or(StandardMetric::Kl);
        let searched = Searched { model: &model, pairs: &found_on, objective, ablation: &ablation, wanted };
        let scores = match self.method.search() {
            Some(method) => self.search.scores(method, searched, global)?,
            None => self.scores(&model, &found_on, metric, global)?,
        };
        check_scores(&[&scores])?;
        let cut = match (self.units, self.method.search(), self.select) {
            (Units::Nodes, ..) => {
                let rows = scores.top_nodes(Units::Nodes.wanted(self.top, graph.n_sources())?, by);
                print_nodes(&scores, &rows, global.json)?;
                EdgeSet::of_nodes(graph, &rows)
            }
            (_, Some(method), _) => self.search.circuit(method, &scores, wanted),
            (_, None, Select::TopN) => EdgeSet::top_n(&scores, wanted, by),
            (_, None, Select::Greedy) => EdgeSet::greedy(&scores, wanted, by),
        };
        let cut_decides = self.units == Units::Nodes || self.method == MethodName::Acdc;
        let wanted = if cut_decides { cut.count() } else { wanted };
        let circuit = cut.pruned();
        if self.units == Units::Edges && 2 * circuit.count() < wanted {
            super::output::note(&format!(
                "only {} of {wanted} edges are left after pruning dead ends; try --select greedy or more --edges",
                circuit.count()
            ));
        }
        let faithfulness = Faithfulness::of(&model, measured_on, metric.metric(), &circuit, &ablation)?;
        check_metric(&faithfulness)?;
        let measured = Measured::new(&found_on, held_out.as_deref(), &faithfulness, stream);
        let conventions = self.conventions(metric, found_on.len());
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
            let provenance = self.provenance(&model, &found_on, held_out.as_deref(), global.seed)?;
            let file = CircuitFile { provenance, ..file.clone() };
            let text = match form {
                Form::File(layout) => file.to_text(layout)?,
                Form::Page => {
                    let pairs = match &held_out {
                        Some(held_out) => format!("{} held-out pairs", held_out.len()),
                        None => format!("the {} pairs that it was found on", found_on.len()),
                    };
                    let [clean, empty, circuit] = measured.means();
                    let measured = MeasuredCircuit {
                        pairs: &pairs,
                        metric: metric.name(),
                        ablation: ablation.name(),
                        clean,
                        empty,
                        circuit,
                        faithfulness: measured.interval(),
                    };
                    let (model, task) = (&global.model_name(), &self.source.title());
                    circuit_page(&CircuitPage { model, task, file: &file, measured, evaluation: None })
                }
            };
            write_atomically(path, text.as_bytes())?;
        }
        print(&file, wanted, &measured, &skipped, global.json)?;
        self.search.report_rivals(searched, &file.circuit, metric, measured_on, global)
    }

    /// The number of edges of the circuit, of a graph of `all`.
    fn wanted(&self, all: usize) -> Result<usize> {
        Ok(match self.edges {
            Some(count) => count.of(all)?,
            None => all.div_ceil(10),
        })
    }

    /// Refuses what has no positions.
    fn check_positions(&self) -> Result<()> {
        let wrong = |why: &str| Err(Unusable(format!("--positions {why}")).into());
        match self.attribution() {
            None | Some(Attribution::QkFix | Attribution::AtpStar) => wrong(
                "takes scores that are sums over tokens; expected --method eap, clean-corrupted, eap-ig-inputs, \
                 eap-ig-activations or relp",
            ),
            _ if self.units != Units::Edges => wrong("keeps edges; expected --units edges"),
            _ if self.select != Select::TopN => wrong("keeps the best edges; expected --select top-n"),
            _ if self.mask_out.is_some() => wrong("has no --mask-out: parameters are at all positions"),
            _ => Ok(()),
        }
    }

    /// Where a circuit comes from, for its file.
    fn provenance<F: Scalar>(
        &self,
        model: &Gpt2<F>,
        found_on: &[Pair],
        held_out: Option<&[Pair]>,
        seed: u64,
    ) -> Result<Map<String, Value>> {
        let keys: Vec<String> = found_on.iter().map(pair_key).collect();
        let provenance = [
            ("pairs", self.source.provenance()?),
            ("split", json!({ "held_out": held_out.map_or(0, <[_]>::len), "found_on": keys })),
            ("model_sha256", model.sha256().into()),
            ("seed", seed.into()),
            ("version", env!("CARGO_PKG_VERSION").into()),
        ];
        Ok(provenance.map(|(key, value)| (key.to_owned(), value)).into_iter().collect())
    }

    /// The pairs that score edges, and those held out; `None` when none is.
    fn split(&self, pairs: &[Pair], seed: u64) -> (Vec<Pair>, Option<Vec<Pair>>) {
        if pairs.len() >= FEWEST_TO_SPLIT && self.held_out > 0.0 {
            let (found_on, held_out) = hold_out(pairs, self.held_out, seed);
            if !found_on.is_empty() && !held_out.is_empty() {
                return (found_on, Some(held_out));
            }
        }
        (pairs.to_vec(), None)
    }

    /// Scores every edge, with progress.
    fn scores<F: Scalar>(
        &self,
        model: &Gpt2<F>,
        pairs: &[Pair],
        metric: StandardMetric,
        global: &Global,
    ) -> Result<EdgeScores> {
        self.with_progress(model.config(), pairs.len(), metric, global, |metric| {
            self.scores_by(model, pairs, metric, global.seed)
        })
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

    /// The method of the library; `None` for exact patching and the controls.
    fn attribution(&self) -> Option<Attribution> {
        match self.method {
            MethodName::Eap => Some(Attribution::Eap),
            MethodName::CleanCorrupted => Some(Attribution::CleanCorrupted),
            MethodName::EapIgInputs => Some(Attribution::IgInputs(self.ig_rule, self.ig_steps)),
            MethodName::EapIgActivations => Some(Attribution::IgActivations(self.ig_rule, self.ig_steps)),
            MethodName::Relp => Some(Attribution::Relp),
            MethodName::AtpQk => Some(Attribution::QkFix),
            MethodName::AtpStar => Some(Attribution::AtpStar),
            MethodName::Exact
            | MethodName::ActivationMagnitude
            | MethodName::Random
            | MethodName::Acdc
            | MethodName::EdgePruning => None,
        }
    }

    /// Checks that what will be written can be, and replaces no input; the form of `--out`.
    fn check_destinations(&self, global: &Global) -> Result<Option<Form>> {
        let inputs: Vec<&Path> = self.source.file().into_iter().collect();
        global.check_out_file(&inputs)?;
        if let Some(mask) = &self.mask_out {
            global.check_file("--mask-out", mask, &inputs)?;
            if global.out.as_ref().is_some_and(|out| is_same(out, mask)) {
                return Err(Unusable("--out and --mask-out name one file; expected two".into()).into());
            }
        }
        let Some(out) = &global.out else { return Ok(None) };
        let form = Form::of(out)?;
        if form == Form::Page && self.units == Units::Neurons {
            let why = format!(
                "--out {}: neurons have no edges to draw; expected .json or .csv with --units neurons",
                out.display()
            );
            return Err(Unusable(why).into());
        }
        Ok(Some(form))
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

    fn metric(&self) -> StandardMetric {
        self.metric.unwrap_or(self.source.metric())
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
