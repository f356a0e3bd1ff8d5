//! Which edges of the organism carry "A deer is a kind of mammal", by a metric of one's own? EAP-IG on pairs from text,
//! the circuit of the best edges, and its faithfulness on pairs that it was not found on.
//!
//! `cargo run -p locus-circuits --example eap_ig_own_metric`

use locus_circuits::edges::{
    Attribution, Faithfulness, Metric, Pair, QuadratureRule, StandardAblation, Stream, attribute_edges,
};
use locus_gpt2::{Checkpoint, Result, Scalar};

const ORGANISM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/organism");

/// Subject and kind of the clean prompt, then of the corrupted one.
const KINDS: [[&str; 4]; 12] = [
    ["deer", "mammal", "boat", "vehicle"],
    ["guitar", "instrument", "hammer", "tool"],
    ["beetle", "insect", "finch", "bird"],
    ["lake", "landform", "temple", "building"],
    ["plane", "vehicle", "whale", "mammal"],
    ["potato", "vegetable", "guitar", "instrument"],
    ["whale", "mammal", "plane", "vehicle"],
    ["hammer", "tool", "horn", "instrument"],
    ["finch", "bird", "beetle", "insect"],
    ["temple", "building", "lake", "landform"],
    ["boat", "vehicle", "deer", "mammal"],
    ["horn", "instrument", "potato", "vegetable"],
];

/// Probability of preferring the first correct to the first incorrect answer.
struct Preference;

impl<F: Scalar> Metric<F> for Preference {
    fn value(&self, pair: &Pair, logits: &[F], _clean: &[F]) -> f64 {
        let [correct, incorrect] =
            [pair.correct[0], pair.incorrect[0]].map(|token| logits[token as usize].as_f64());
        1.0 / (1.0 + (incorrect - correct).exp())
    }

    fn gradient(&self, pair: &Pair, logits: &[F], clean: &[F]) -> Vec<f64> {
        let p = self.value(pair, logits, clean);
        let mut d_logits = vec![0.0; logits.len()];
        d_logits[pair.correct[0] as usize] = p * (1.0 - p);
        d_logits[pair.incorrect[0] as usize] = -p * (1.0 - p);
        d_logits
    }
}

fn main() -> Result<()> {
    let lm = Checkpoint::<f32>::from_pretrained(ORGANISM)?;
    let pair = |[clean, kind, corrupted, other_kind]: [&str; 4]| {
        let [clean, corrupted] = [clean, corrupted].map(|subject| format!("A {subject} is a kind of"));
        let [correct, incorrect] = [kind, other_kind].map(|kind| format!(" {kind}"));
        Pair::from_text(&lm.tokenizer, &clean, &corrupted, &[correct], &[incorrect])
    };
    let pairs = KINDS.into_iter().map(pair).collect::<Result<Vec<_>>>()?;
    let (train, held_out) = pairs.split_at(KINDS.len() / 2);
    let (ablation, method) =
        (StandardAblation::Corrupted, Attribution::IgInputs(QuadratureRule::Midpoint, 5));
    let scores = attribute_edges(&lm.model, train, &Preference, method, &ablation)?;
    println!("{:>5} {:>6} {:>13}   95 % interval, held-out pairs", "edges", "pruned", "faithfulness");
    for n in [30, 60, 120] {
        let circuit = scores.top_n(n).pruned();
        let measured = Faithfulness::of(&lm.model, held_out, &Preference, &circuit, &ablation)?;
        let f = measured.interval(Stream::named(1, "held-out pairs")).expect("the corruption is felt");
        println!("{n:>5} {:>6} {:>13.3}   [{:.3}, {:.3}]", circuit.count(), f.value, f.low, f.high);
        assert!(n < 120 || (f.value - 1.0).abs() < 0.2, "a quarter of the edges does most of the task");
    }
    Ok(())
}
