//! How near is each attribution to exact patching? Pearson's correlation over the edges of three tasks of the organism,
//! and the time that each method takes.
//!
//! `cargo run --release -p locus-protocol --example attribution_quality`

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;
use locus_circuits::edges::{
    Attribution, Destination, Edge, EdgeScores, Graph, LogitDiff, Pair, QuadratureRule, Source,
    StandardAblation, attribute_edges, patch_edges,
};
use locus_data::StudyData;
use locus_gpt2::Checkpoint;
use locus_metrics::rank;
use locus_protocol::records::HIERARCHY;
use locus_protocol::{agreement_pairs, hierarchy_pairs};

const PAIRS: usize = 32;
const METHODS: [(&str, Attribution); 6] = [
    ("eap", Attribution::Eap),
    ("eap-ig-inputs", Attribution::IgInputs(QuadratureRule::Midpoint, 5)),
    ("eap-ig-activations", Attribution::IgActivations(QuadratureRule::Midpoint, 5)),
    ("relp", Attribution::Relp),
    ("atp-qk", Attribution::QkFix),
    ("atp-star", Attribution::AtpStar),
];

fn main() -> Result<()> {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/organism"));
    let checkpoint = Checkpoint::<f32>::from_pretrained(folder)?;
    let data = StudyData::read(folder.join("data"))?;
    let (model, tokenizer) = (&checkpoint.model, &checkpoint.tokenizer);
    let graph = Graph::new(model.config());
    let edges: Vec<Edge> = graph.edges().collect();
    let groups: [(&str, &dyn Fn(&Edge) -> bool); 4] = [
        ("from MLPs", &|edge: &Edge| matches!(graph.source(edge.source), Source::Mlp(_))),
        ("into MLPs", &|edge: &Edge| matches!(graph.destination(edge.destination), Destination::Mlp(_))),
        ("into q, k", &|edge: &Edge| {
            graph.name(*edge).ends_with("<q>") || graph.name(*edge).ends_with("<k>")
        }),
        ("all", &|_: &Edge| true),
    ];
    for name in [HIERARCHY, "blimp_dna1", "blimp_dnai1"] {
        let rows = |task: &str| data.tasks.iter().find(|of| of.name == task).map(|of| of.rows.as_slice());
        let pairs: Vec<Pair> = match name {
            HIERARCHY => hierarchy_pairs(tokenizer, &data.requests, PAIRS)?,
            agreement => agreement_pairs(tokenizer, rows(agreement).unwrap_or_default(), PAIRS)?,
        };
        let exact = patch_edges(model, &pairs, &LogitDiff, &StandardAblation::Corrupted, &edges)?;
        println!("\n{name}, {} pairs; correlation with exact patching of edges", pairs.len());
        print!("{:<20}", "method");
        groups.iter().for_each(|(group, _)| print!(" {group:>10}"));
        println!(" {:>10}", "ms");
        for (method, attribution) in METHODS {
            let ablation = &StandardAblation::Corrupted;
            let attribute = || attribute_edges(model, &pairs, &LogitDiff, attribution, ablation);
            let scores = attribute()?;
            print!("{method:<20}");
            for (_, is_in) in &groups {
                let chosen: Vec<Edge> = edges.iter().copied().filter(|edge| is_in(edge)).collect();
                print!(" {:>10.3}", pearson(&scores, &exact, &chosen));
            }
            let shortest = (0..5).map(|_| timed(attribute)).min().expect("five runs");
            println!(" {:>10.1}", 1e3 * shortest.as_secs_f64());
        }
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
