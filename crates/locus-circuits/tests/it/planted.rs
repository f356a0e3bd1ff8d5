//! Measures of circuits on models whose circuit is known.

use locus_circuits::edges::{
    Attribution, EdgeScores, EdgeSet, Faithfulness, LogitDiff, QuadratureRule, RankBy, StandardAblation,
    attribute_edges_per_pair, completeness, minimality, random_edges, stability,
};
use locus_circuits::planted;
use locus_metrics::{Interval, Stream};
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};

/// On a planted circuit: every edge is needed, knocking edges out does the same to circuit and model, and every
/// resample of the pairs has the same circuit where each pair alone shows all of it.
#[test]
fn a_planted_circuit_is_minimal_complete_and_stable() {
    let planted = planted::exclusive_or();
    let (model, pairs, truth) = (&planted.model, &planted.pairs, &planted.truth);
    let (metric, ablation) = (&LogitDiff, &StandardAblation::Corrupted);
    for (edge, fall) in minimality(model, pairs, metric, truth, ablation).unwrap() {
        assert!(fall > 1.0, "{}: {fall}", truth.graph().name(edge));
    }
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let knock_outs: Vec<EdgeSet> = (0..4).map(|_| random_edges(truth.graph(), 12, &mut rng)).collect();
    let found = completeness(model, pairs, metric, truth, ablation, &knock_outs).unwrap();
    assert!(found.iter().all(|(circuit, model)| (circuit - model).abs() < 0.05), "{found:?}");
    let nothing = completeness(model, pairs, metric, &EdgeSet::empty(truth.graph()), ablation, &knock_outs);
    assert!(nothing.unwrap().iter().any(|(circuit, model)| (circuit - model).abs() > 1.0));

    let same = attribute_edges_per_pair(
        model,
        &pairs[..1],
        metric,
        Attribution::IgInputs(QuadratureRule::Midpoint, 20),
        ablation,
    )
    .unwrap();
    let copies = vec![same[0].clone(); 5];
    assert_eq!(stability(&copies, 3, RankBy::Absolute, 20, &mut rng), 1.0);
    let noise: Vec<EdgeScores> = (0..5).map(|_| EdgeScores::random(truth.graph(), &mut rng)).collect();
    let unstable = stability(&noise, 10, RankBy::Absolute, 50, &mut rng);
    assert!(unstable < 0.9, "{unstable}");

    let measured = Faithfulness::of(model, pairs, metric, truth, ablation).unwrap();
    let Interval { value, low, high } = measured.interval(Stream::named(3, "faithfulness")).unwrap();
    assert_eq!(Some(value), measured.normalised());
    assert!(low <= value && value <= high && high - low < 0.02, "{low} {value} {high}");
}
