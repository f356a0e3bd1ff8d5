//! How good are the circuits that each ranking of edges gives? CPR of integrated gradients, learned edges and hybrids
//! on three tasks of the organism, on pairs that found no edge; and the time of RelP beside that of EAP.
//!
//! `cargo run --release -p locus-protocol --example circuit_quality -- 600`: the number is that of the training steps
//! of learned edges.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use locus_circuits::edges::{
    Attribution, CurveAreas, EdgePruning, EdgeScores, Graph, LogitDiff, MIB_FRACTIONS, Pair, QuadratureRule,
    RankBy, StandardAblation, Stream, attribute_edges, faithfulness_curves,
};
use locus_data::StudyData;
use locus_gpt2::{Checkpoint, Gpt2};
use locus_protocol::records::HIERARCHY;
use locus_protocol::{agreement_pairs, hierarchy_pairs};

/// Pairs of a task: one half finds edges, the other is measured.
const PAIRS: usize = 64;
/// Steps without an argument: enough to see that it works.
const STEPS: usize = 60;
/// Runs of EAP and RelP, in turn, of which the shortest count.
const REPETITIONS: usize = 20;

fn main() -> Result<()> {
    let steps = match std::env::args().nth(1) {
        Some(steps) => steps.parse().with_context(|| format!("{steps:?} is no number of steps"))?,
        None => STEPS,
    };
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/organism"));
    let checkpoint = Checkpoint::<f32>::from_pretrained(folder)?;
    let data = StudyData::read(folder.join("data"))?;
    let (model, tokenizer) = (&checkpoint.model, &checkpoint.tokenizer);
    for name in [HIERARCHY, "blimp_dna1", "blimp_dnai1"] {
        let rows = |task: &str| data.tasks.iter().find(|of| of.name == task).map(|of| of.rows.as_slice());
        let pairs: Vec<Pair> = match name {
            HIERARCHY => hierarchy_pairs(tokenizer, &data.requests, PAIRS)?,
            agreement => agreement_pairs(tokenizer, rows(agreement).unwrap_or_default(), PAIRS)?,
        };
        let (found_on, held_out) = pairs.split_at(pairs.len() / 2);
        println!("\n{name}: found on {} pairs, measured on {} others", found_on.len(), held_out.len());
        rank_and_measure(model, found_on, held_out, steps)?;
        compare_times(model, &pairs)?;
    }
    Ok(())
}

/// Prints CPR with its interval over pairs, and its ratio to that of EAP-IG on inputs.
fn rank_and_measure(model: &Gpt2<f32>, found_on: &[Pair], held_out: &[Pair], steps: usize) -> Result<()> {
    let ablation = &StandardAblation::Corrupted;
    let attribute = |method| attribute_edges(model, found_on, &LogitDiff, method, ablation);
    let integrated = attribute(Attribution::IgInputs(QuadratureRule::Midpoint, 5))?;
    let learn = |start: Option<EdgeScores>| {
        let recipe = EdgePruning { steps, start, ..EdgePruning::default() };
        let tenth = Graph::new(model.config()).n_edges().div_ceil(10);
        recipe.find(model, found_on, &LogitDiff, ablation, tenth, 1, &mut || {})
    };
    let learned = learn(None)?.log_alphas;
    let rankings = [
        ("eap", attribute(Attribution::Eap)?),
        ("eap-ig-inputs", integrated.clone()),
        ("learned", learned.clone()),
        ("learned from eap-ig", learn(Some(integrated.clone()))?.log_alphas),
        ("hybrid by rank", integrated.hybrid(&learned, RankBy::Signed)),
    ];
    let signed: Vec<(&EdgeScores, RankBy)> =
        rankings.iter().map(|(_, scores)| (scores, RankBy::Signed)).collect();
    let curves = faithfulness_curves(model, held_out, &LogitDiff, ablation, &signed, &MIB_FRACTIONS)?;
    let stream = Stream::named(1, "circuit quality");
    let areas: Vec<_> =
        curves.iter().map(|curve| curve.interval(stream, |areas: CurveAreas| areas.cpr)).collect();
    println!("{:<20} {:>8} {:>18} {:>22}", "ranking", "CPR", "95 % interval", "over eap-ig-inputs");
    for ((name, _), area) in rankings.iter().zip(&areas) {
        match (area, &areas[1]) {
            (Some(area), Some(base)) => {
                let interval = format!("{:.3} to {:.3}", area.low, area.high);
                println!("{name:<20} {:>8.3} {interval:>18} {:>22.3}", area.value, area.value / base.value);
            }
            _ => println!("{name:<20} undefined: the model does not prefer the correct answers"),
        }
    }
    Ok(())
}

/// Prints the shortest times of EAP and RelP, which run in turn after one run each that does not count.
fn compare_times(model: &Gpt2<f32>, pairs: &[Pair]) -> Result<()> {
    let timed = |method| -> Result<Duration> {
        let start = Instant::now();
        attribute_edges(model, pairs, &LogitDiff, method, &StandardAblation::Corrupted)?;
        Ok(start.elapsed())
    };
    let mut shortest = [Duration::MAX; 2];
    for repetition in 0..=REPETITIONS {
        for (shortest, method) in shortest.iter_mut().zip([Attribution::Eap, Attribution::Relp]) {
            let time = timed(method)?;
            if repetition > 0 {
                *shortest = time.min(*shortest);
            }
        }
    }
    let [eap, relp] = shortest.map(|time| 1e3 * time.as_secs_f64());
    println!("time on {} pairs: eap {eap:.1} ms, relp {relp:.1} ms, ratio {:.2}", pairs.len(), relp / eap);
    Ok(())
}
