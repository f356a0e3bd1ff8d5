//! `locus discover`: circuits of edges.

mod find;
mod output;
mod positions;
mod units;

use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::Result;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, ValueEnum};
use locus_circuits::edges::{
    Attribution, Graph, Layout, Pair, QuadratureRule, RankBy, StandardAblation, StandardMetric,
};
use locus_gpt2::{Checkpoint, Scalar};
use locus_metrics::Stream;

use self::find::Task;
use self::units::Units;
use super::destination::is_same;
use super::edge_count::EdgeCount;
use super::error::{Unusable, in_range};
use super::global::{Dtype, Global};
use super::pair_source::{ModelPairs, PairSource};
use super::search::{self, Search};
use crate::protocol::hold_out;

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
        self.check()?;
        let form = self.check_destinations(global)?;
        if self.positions {
            positions::layout(global.out.as_deref())?;
        }
        let prompts = self.source.read()?;
        let Checkpoint { model, tokenizer } = global.checkpoint::<F>()?;
        let must_differ = self.ablation == StandardAblation::Corrupted;
        let ModelPairs { pairs, skipped } =
            self.source.pairs(prompts, &tokenizer, model.config(), self.source.bos, must_differ)?;
        let (found_on, held_out) = self.split(&pairs, global.seed);
        let task = Task {
            model: &model,
            tokenizer: &tokenizer,
            found_on: &found_on,
            held_out: held_out.as_deref(),
            skipped: &skipped,
            metric: self.metric(),
            stream: Stream::named(global.seed, "faithfulness"),
        };
        if let (true, Some(method)) = (self.positions, self.attribution()) {
            return self.find_at_positions(&task, method, global);
        }
        let wanted = self.wanted(Graph::new(model.config()).n_edges())?;
        match self.units {
            Units::Neurons => self.find_neurons(&task, global),
            Units::Edges | Units::Nodes => self.find_edges(&task, wanted, form, global),
        }
    }

    /// Refuses arguments that contradict each other.
    fn check(&self) -> Result<()> {
        let refuse = |why: &str| Err(Unusable(why.into()).into());
        in_range("--ig-steps", self.ig_steps, MOST_STEPS)?;
        if self.reference.is_some() {
            return refuse("--reference is now called --ablation");
        }
        let is_corrupted = self.ablation == StandardAblation::Corrupted;
        let needs_run = matches!(self.method, MethodName::CleanCorrupted | MethodName::EapIgInputs);
        if needs_run && !is_corrupted {
            return refuse("this --method interpolates to the corrupted run; expected --ablation corrupted");
        }
        let is_at_clean_run = self.attribution().is_some_and(Attribution::is_at_clean_run);
        if is_at_clean_run && self.metric() == StandardMetric::Kl {
            return refuse(
                "this --method has nothing to go by with --metric kl: the divergence from the clean run has no gradient \
                 at the clean run; expected --method eap-ig-inputs, eap-ig-activations or clean-corrupted, or another \
                 metric",
            );
        }
        self.search.check(self.method.search(), self.ablation)?;
        if self.units == Units::Edges && self.top.is_some() {
            return refuse(
                "--top is the number of nodes or neurons; expected --edges, or --units nodes or neurons",
            );
        }
        if self.units == Units::Neurons && (self.mask_out.is_some() || !is_corrupted) {
            return refuse(
                "neurons have no --mask-out and are ablated by the corrupted run; expected --units edges or nodes, or \
                 --ablation corrupted without --mask-out",
            );
        }
        if self.positions {
            self.check_positions()?;
        }
        if !(0.0..1.0).contains(&self.held_out) {
            return refuse(&format!("--held-out is {}; expected a share from 0 to below 1", self.held_out));
        }
        Ok(())
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

    fn metric(&self) -> StandardMetric {
        self.metric.unwrap_or(self.source.metric())
    }

    fn by(&self) -> RankBy {
        if self.signed { RankBy::Signed } else { RankBy::Absolute }
    }
}
