//! `locus discover`: circuits of edges.

use std::io::Write;
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Result, bail};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, ValueEnum};
use locus_circuits::edges::export::{Conventions, to_csv, to_dot, to_json};
use locus_circuits::edges::{
    Attribution, Edge, EdgeScores, EdgeSet, Faithfulness, Graph, Pair, QuadratureRule, RankBy,
    StandardAblation, StandardMetric, activation_magnitude, attribute_edges, edge_mask, patch_edges,
};
use locus_data::pairs::{self, AnswerColumns, PromptPair};
use locus_data::seed::stream;
use locus_gpt2::internal::write_atomically;
use locus_gpt2::{Checkpoint, Config, Gpt2, Scalar, Tokenizer};
use locus_metrics::Stream;
use rayon::prelude::*;
use serde_json::json;

use super::destination::is_same;
use super::error::{OVERFLOW, Unusable, in_range};
use super::global::{Dtype, Global};
use super::search::{self, Search, Searched};
use super::skipped::SkippedRecords;

/// Largest number of steps of the eap-ig methods; the public library uses 5.
const MOST_STEPS: usize = 10_000;

#[derive(Debug, Args)]
#[group(skip)]
pub struct Discover {
    /// Pairs of prompts: JSONL of {"clean","corrupted","correct","incorrect"}, or CSV with these columns
    #[arg(long, value_name = "FILE")]
    task: PathBuf,
    /// Layout of the answers in the file
    #[arg(long, value_enum, default_value_t = TaskKind::Pairs)]
    task_kind: TaskKind,
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
    /// Put the end-of-text token before every prompt [default: nothing]
    #[arg(long)]
    bos: bool,
    /// Stop at the first pair that cannot be used, instead of leaving it out
    #[arg(long)]
    strict: bool,
    /// Edges of the circuit before dead ends are pruned [default: a tenth of the graph]
    #[arg(long, value_name = "N")]
    edges: Option<usize>,
    /// Selection of the circuit from the scores
    #[arg(long, value_enum, default_value_t = Select::TopN)]
    select: Select,
    /// Rank edges by score instead of its absolute value
    #[arg(long)]
    signed: bool,
    /// Also write the circuit's parameters as a mask for `edit` (safetensors)
    #[arg(long, value_name = "FILE")]
    mask_out: Option<PathBuf>,
    #[command(flatten)]
    search: Search,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum TaskKind {
    /// Answers in the columns or fields correct and incorrect
    Pairs,
    /// Spans of years, the first year's last two digits in the column label
    GreaterThan,
    /// Indirect objects, the swapped sentence in the column corrupted_hard
    Ioi,
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

/// Parser of a value that the library knows by name.
fn named<T, const N: usize>(all: [T; N], name: fn(T) -> &'static str) -> impl TypedValueParser<Value = T>
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
        if self.method == MethodName::Eap && metric == StandardMetric::Kl {
            let why = "--method eap has nothing to go by with --metric kl: the divergence from the clean run has no \
                       gradient at the clean run; expected --method eap-ig-inputs, eap-ig-activations or \
                       clean-corrupted, or another metric";
            return Err(Unusable(why.into()).into());
        }
        self.search.check(self.method.search(), ablation)?;
        self.check_destinations(global)?;
        let texts = pairs::read_records(&self.task, self.answers())?;
        let Checkpoint { model, tokenizer } = global.checkpoint::<F>()?;
        let graph = Graph::new(model.config());
        let wanted = self.edges.unwrap_or_else(|| graph.n_edges().div_ceil(10));
        if wanted == 0 || wanted > graph.n_edges() {
            let why =
                format!("--edges is {wanted}; expected 1 to {}, the edges of this model", graph.n_edges());
            return Err(Unusable(why).into());
        }
        let mut skipped = SkippedRecords::new(&self.task, texts.skipped);
        let pairs = self.tokenise(&texts.usable, &tokenizer, model.config(), &mut skipped)?;
        skipped.report(pairs.len(), self.strict)?;

        let objective = self.metric.unwrap_or(StandardMetric::Kl);
        let searched = Searched { model: &model, pairs: &pairs, objective, ablation: &ablation, wanted };
        let scores = if let Some(method) = self.method.search() {
            self.search.scores(method, searched, global)?
        } else {
            let stage = global.progress().stage("scores", 1);
            let scores = self.scores(&model, &pairs, metric, global.seed)?;
            stage.inc();
            stage.finish();
            scores
        };
        check_scores(&scores)?;
        let by = if self.signed { RankBy::Signed } else { RankBy::Absolute };
        let cut = match (self.method.search(), self.select) {
            (Some(method), _) => self.search.circuit(method, &scores, wanted),
            (None, Select::TopN) => EdgeSet::top_n(&scores, wanted, by),
            (None, Select::Greedy) => EdgeSet::greedy(&scores, wanted, by),
        };
        let wanted = if self.method == MethodName::Acdc { cut.count() } else { wanted };
        let circuit = cut.pruned();
        if 2 * circuit.count() < wanted {
            super::output::note(&format!(
                "only {} of {wanted} edges are left after pruning dead ends; try --select greedy or more --edges",
                circuit.count()
            ));
        }
        let measured = Faithfulness::of(&model, &pairs, metric.metric(), &circuit, &ablation)?;
        check_metric(&measured)?;
        let conventions = self.conventions(metric, pairs.len());
        if let Some(path) = &global.out {
            let text = match path.extension().and_then(|extension| extension.to_str()) {
                Some("csv") => to_csv(&scores, &circuit),
                Some("dot") => to_dot(&scores, &circuit),
                _ => to_json(&scores, &circuit, model.config(), &conventions),
            };
            write_atomically(path, text.as_bytes())?;
        }
        if let Some(path) = &self.mask_out {
            let provenance = json!({
                "discover": conventions, "edges": circuit.count(), "model_sha256": model.sha256(),
                "version": env!("CARGO_PKG_VERSION"),
            });
            edge_mask(&circuit, model.config()).write(path, &provenance.to_string())?;
        }
        let stream = Stream::named(global.seed, "faithfulness");
        print(&scores, &circuit, wanted, &measured, stream, &skipped, global.json)?;
        self.search.report_rivals(searched, &circuit, metric, &pairs, global)
    }

    fn scores<F: Scalar>(
        &self,
        model: &Gpt2<F>,
        pairs: &[Pair],
        metric: StandardMetric,
        seed: u64,
    ) -> Result<EdgeScores> {
        let (metric, ablation, rule) = (metric.metric(), &self.ablation, self.ig_rule);
        let attribute = |method| Ok(attribute_edges(model, pairs, metric, method, ablation)?);
        let graph = Graph::new(model.config());
        match self.method {
            MethodName::Eap => attribute(Attribution::Eap),
            MethodName::CleanCorrupted => attribute(Attribution::CleanCorrupted),
            MethodName::EapIgInputs => attribute(Attribution::IgInputs(rule, self.ig_steps)),
            MethodName::EapIgActivations => attribute(Attribution::IgActivations(rule, self.ig_steps)),
            MethodName::Exact => {
                let edges: Vec<Edge> = graph.edges().collect();
                Ok(patch_edges(model, pairs, metric, ablation, &edges)?)
            }
            MethodName::ActivationMagnitude => Ok(activation_magnitude(model, pairs, ablation)?),
            MethodName::Random => Ok(EdgeScores::random(graph, &mut stream(seed, "random edges", 0))),
            MethodName::Acdc | MethodName::EdgePruning => {
                unreachable!("a search, which has scores of its own")
            }
        }
    }

    /// Checks that what will be written can be, and replaces no input.
    fn check_destinations(&self, global: &Global) -> Result<()> {
        global.check_out_file(&[&self.task])?;
        let Some(mask) = &self.mask_out else { return Ok(()) };
        global.check_file("--mask-out", mask, &[&self.task])?;
        if global.out.as_ref().is_some_and(|out| is_same(out, mask)) {
            return Err(Unusable("--out and --mask-out name one file; expected two".into()).into());
        }
        Ok(())
    }

    /// Tokenises the pairs. Every answer must be one token, and both prompts of a pair must have equally many and, where
    /// the corrupted run is what edges are compared with, differ.
    fn tokenise(
        &self,
        texts: &[(usize, PromptPair)],
        tokenizer: &Tokenizer,
        config: &Config,
        skipped: &mut SkippedRecords,
    ) -> Result<Vec<Pair>> {
        let before = self.bos.then(|| tokenizer.end_of_text()).transpose()?;
        let tokenised: Vec<Result<Pair>> = texts
            .par_iter()
            .map(|(_, text)| {
                let PromptPair { clean, corrupted, correct, incorrect, .. } = text;
                let mut pair = Pair::from_text(tokenizer, clean, corrupted, correct, incorrect)?;
                for prompt in [&mut pair.clean, &mut pair.corrupted] {
                    prompt.splice(..0, before);
                }
                pair.check(config)?;
                if self.ablation == StandardAblation::Corrupted && pair.clean == pair.corrupted {
                    let why = "clean and corrupted are one prompt, so no edge differs between their runs";
                    return Err(Unusable(format!("{why}; expected two")).into());
                }
                Ok(pair)
            })
            .collect();
        let mut pairs = Vec::with_capacity(texts.len());
        for (pair, (record, text)) in tokenised.into_iter().zip(texts) {
            match pair {
                Ok(pair) => pairs.push(pair),
                Err(error) => skipped.add_line(*record, text.line, &error),
            }
        }
        Ok(pairs)
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
            bos: self.bos,
            bias_owner: "none".into(),
            input_node: "token-embedding".into(),
            pairs,
        }
    }

    fn answers(&self) -> AnswerColumns {
        match self.task_kind {
            TaskKind::Pairs => AnswerColumns::Lists,
            TaskKind::GreaterThan => AnswerColumns::GreaterThan,
            TaskKind::Ioi => AnswerColumns::IndirectObject,
        }
    }

    fn metric(&self) -> StandardMetric {
        let of_task = match self.task_kind {
            TaskKind::GreaterThan => StandardMetric::ProbDiff,
            TaskKind::Pairs | TaskKind::Ioi => StandardMetric::LogitDiff,
        };
        self.metric.unwrap_or(of_task)
    }
}

/// Fails when a score is not a number.
fn check_scores(scores: &EdgeScores) -> Result<()> {
    let graph = scores.graph();
    match graph.edges().find(|&edge| !scores.get(edge).is_finite()) {
        Some(edge) => bail!("the score of {} is {}; {OVERFLOW}", graph.name(edge), scores.get(edge)),
        None => Ok(()),
    }
}

/// Fails when a value of the metric is not a number.
fn check_metric(measured: &Faithfulness) -> Result<()> {
    let Faithfulness { clean, empty, circuit, .. } = measured;
    match [clean, empty, circuit].into_iter().flatten().find(|value| !value.is_finite()) {
        Some(value) => bail!("the metric is {value}; {OVERFLOW}"),
        None => Ok(()),
    }
}

fn print(
    scores: &EdgeScores,
    circuit: &EdgeSet,
    wanted: usize,
    measured: &Faithfulness,
    stream: Stream,
    skipped: &SkippedRecords,
    json: bool,
) -> Result<()> {
    const SHOWN: usize = 20;
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let (clean, empty, kept) = (mean(&measured.clean), mean(&measured.empty), mean(&measured.circuit));
    // The denominator must be told from 0.
    let faithfulness = measured.normalised().filter(|_| !measured.span(stream).contains(0.0));
    let mut out = super::output::stdout();
    if json {
        let line = json!({
            "edges": circuit.count(), "requested": wanted, "graph": scores.graph().n_edges(),
            "clean": clean, "empty": empty, "circuit": kept, "faithfulness": faithfulness,
        });
        writeln!(out, "{line}")?;
        if let Some(skipped) = skipped.json() {
            writeln!(out, "{}", json!({ "skipped": skipped }))?;
        }
        return Ok(());
    }
    let graph = scores.graph();
    writeln!(out, "{:<24} {:>12}", "edge", "score")?;
    for edge in scores.ranked(RankBy::Absolute).into_iter().take(SHOWN) {
        writeln!(out, "{:<24} {:>+12.5}", graph.name(edge), scores.get(edge))?;
    }
    let n_edges = graph.n_edges();
    writeln!(
        out,
        "circuit: {} of {n_edges} edges after pruning dead ends ({wanted} selected)",
        circuit.count()
    )?;
    let faithfulness = faithfulness.map_or_else(
        || "undefined: the full model's metric cannot be told from that without edges".into(),
        |f| format!("{f:.3}"),
    );
    writeln!(
        out,
        "metric: full model {clean:.4}, no edges {empty:.4}, circuit {kept:.4}; faithfulness {faithfulness}"
    )?;
    Ok(())
}
