//! How near is each attribution to exact patching? Pearson's correlation over edges, and the time that each method takes:
//! over all edges on three tasks of the organism, or over a sample of edges on `greater-than` of another model.
//!
//! `cargo run --release -p locus-protocol --example attribution_quality [-- MODEL_FOLDER]`

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;
use locus_circuits::edges::{
    Attribution, Destination, Edge, EdgeScores, Graph, LogitDiff, Metric, Pair, ProbDiff, QuadratureRule,
    Source, StandardAblation, attribute_edges, patch_edges,
};
use locus_data::StudyData;
use locus_gpt2::{Checkpoint, Gpt2};
use locus_metrics::rank;
use locus_protocol::records::HIERARCHY;
use locus_protocol::{PromptTask, agreement_pairs, hierarchy_pairs};

const PAIRS: usize = 32;
/// Edges of a kind that are patched one by one.
const SAMPLE: usize = 48;
const METHODS: [(&str, Attribution); 6] = [
    ("eap", Attribution::Eap),
    ("eap-ig-inputs", Attribution::IgInputs(QuadratureRule::Midpoint, 5)),
    ("eap-ig-activations", Attribution::IgActivations(QuadratureRule::Midpoint, 5)),
    ("relp", Attribution::Relp),
    ("atp-qk", Attribution::QkFix),
    ("atp-star", Attribution::AtpStar),
];

fn main() -> Result<()> {
    if let Some(folder) = std::env::args().nth(1) {
        let Checkpoint { model, tokenizer } = Checkpoint::<f32>::from_pretrained(Path::new(&folder))?;
        let task = PromptTask::GreaterThan;
        let pairs = task.pairs(&tokenizer, PAIRS / 2, 1)?;
        return compare(&model, task.name(), &pairs, &ProbDiff, SAMPLE);
    }
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/organism"));
    let Checkpoint { model, tokenizer } = Checkpoint::<f32>::from_pretrained(folder)?;
    let data = StudyData::read(folder.join("data"))?;
    for name in [HIERARCHY, "blimp_dna1", "blimp_dnai1"] {
        let pairs = match data.tasks.iter().find(|task| task.name == name && name != HIERARCHY) {
            None => hierarchy_pairs(&tokenizer, &data.requests, PAIRS)?,
            Some(task) => agreement_pairs(&tokenizer, &task.rows, PAIRS)?,
        };
        compare(&model, name, &pairs, &LogitDiff, usize::MAX)?;
    }
    Ok(())
}

/// Prints the correlations of the methods with exact patching over at most `most` edges of each kind.
fn compare(
    model: &Gpt2<f32>,
    task: &str,
    pairs: &[Pair],
    metric: &dyn Metric<f32>,
    most: usize,
) -> Result<()> {
    let graph = Graph::new(model.config());
    let kinds: [(&str, &dyn Fn(&Edge) -> bool); 4] = [
        ("from MLPs", &|edge: &Edge| matches!(graph.source(edge.source), Source::Mlp(_))),
        ("into MLPs", &|edge: &Edge| matches!(graph.destination(edge.destination), Destination::Mlp(_))),
        ("into q, k", &|edge: &Edge| {
            graph.name(*edge).ends_with("<q>") || graph.name(*edge).ends_with("<k>")
        }),
        ("all", &|_: &Edge| true),
    ];
    let samples = kinds.map(|(_, is_of)| {
        let all: Vec<Edge> = graph.edges().filter(is_of).collect();
        all.iter().step_by(all.len().div_ceil(most)).copied().collect::<Vec<Edge>>()
    });
    let patched: BTreeSet<Edge> = samples.iter().flatten().copied().collect();
    let patched: Vec<Edge> = patched.into_iter().collect();
    let ablation = &StandardAblation::Corrupted;
    let exact = patch_edges(model, pairs, metric, ablation, &patched)?;
    println!("\n{task}, {} pairs; correlation with exact patching of edges", pairs.len());
    print!("{:<20}", "method");
    kinds.iter().for_each(|(kind, _)| print!(" {kind:>10}"));
    println!(" {:>10}", "ms");
    // What takes minutes on a large model is left out there, and the rest timed fewer times.
    let is_sampled = most < usize::MAX;
    let takes_long = |attribution| matches!(attribution, Attribution::IgActivations(..));
    for (method, attribution) in METHODS.into_iter().filter(|of| !(is_sampled && takes_long(of.1))) {
        let attribute = || attribute_edges(model, pairs, metric, attribution, ablation);
        let scores = attribute()?;
        print!("{method:<20}");
        samples.iter().for_each(|edges| print!(" {:>10.3}", pearson(&scores, &exact, edges)));
        let shortest =
            (0..if is_sampled { 2 } else { 5 }).map(|_| timed(attribute)).min().expect("some runs");
        println!(" {:>10.1}", 1e3 * shortest.as_secs_f64());
    }
    Ok(())
}

fn timed<T>(work: impl Fn() -> T) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

/// Pearson's correlation of two methods' scores of some edges.
fn pearson(x: &EdgeScores, y: &EdgeScores, edges: &[Edge]) -> f64 {
    let of = |scores: &EdgeScores| edges.iter().map(|&edge| scores.get(edge)).collect::<Vec<f64>>();
    rank::pearson(&of(x), &of(y)).unwrap_or(f64::NAN)
}
