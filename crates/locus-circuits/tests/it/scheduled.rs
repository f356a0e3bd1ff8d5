//! The scheduled-top-k recipe: exact sizes, its first step by hand, and that training helps.

use locus_circuits::masks::{
    Circuit, MaskProgress, MaskTrainer, Objective, ScheduledTopK, count_at_density, top_k, weight_attribution,
};
use locus_gpt2::ParamId;

use crate::support::{Case, flat, on_threads, with_blocks};

fn short() -> ScheduledTopK {
    ScheduledTopK { steps_per_target: 12, hold: 4, batch_sequences: 32, ..ScheduledTopK::default() }
}

fn train(
    recipe: &ScheduledTopK,
    case: &Case,
    targets: &[f64],
    seed: u64,
) -> (Vec<Circuit>, Vec<MaskProgress>) {
    let mut seen = Vec::new();
    let circuits = recipe.train(&case.objective(), targets, seed, &mut |at| seen.push(at)).unwrap();
    (circuits, seen)
}

#[test]
fn targets_are_met_to_the_parameter() {
    let case = Case::new(40, 1);
    let targets = [1.0, 0.5, 0.35, 0.25, 0.15, 0.05, 0.0001];
    let (circuits, progress) = train(&short(), &case, &targets, 1);
    assert_eq!(circuits.len(), targets.len());
    for (i, (circuit, target)) in circuits.iter().zip(targets).enumerate() {
        assert_eq!(circuit.mask.count(), count_at_density(case.model.config(), target));
        assert!(circuit.reached && circuit.target_density == target);
        assert_eq!(circuit.steps, 12 * (i + 1));
        // 40 rows in batches of 32 and 8: two steps an epoch.
        assert_eq!(circuit.epochs, circuit.steps / 2);
    }
    assert_eq!(progress.len(), 12 * targets.len());
    // Equal ratios down to the target in 8 steps, then 4 at it; the next target starts where this one ends.
    for (i, at) in progress.iter().enumerate() {
        let (target, from) = (targets[i / 12], if i < 12 { 1.0 } else { targets[i / 12 - 1] });
        let expected = from * (target / from).powf(((i % 12) as f64 / 8.0).min(1.0));
        assert!((at.density - expected).abs() < 1e-12, "step {i}: {} against {expected}", at.density);
        assert_eq!(at.next_target, target);
    }
}

/// Scores that hardly move leave the order of the attribution.
#[test]
fn starts_from_the_attribution() {
    let case = Case::new(40, 2);
    let recipe = ScheduledTopK { lr: 1e-12, piece_tokens: 50, ..short() };
    let scores = weight_attribution(&case.objective(), 50).unwrap();
    for circuit in train(&recipe, &case, &[0.5, 0.1], 1).0 {
        assert_eq!(circuit.mask, top_k(&scores, circuit.mask.count()));
    }
}

/// One step by hand: scores are logistic quantiles of the attribution's ranks, the step starts at the intact model, and
/// Adam's first step is `lr d / (|d| + epsilon rms(d))` with `d = w dCE/dw`.
#[test]
fn first_step_follows_the_documented_formula() {
    let case = Case::new(40, 3);
    let recipe = ScheduledTopK {
        lr: 0.7,
        epsilon: 0.4,
        steps_per_target: 1,
        hold: 0,
        batch_sequences: 64,
        ..ScheduledTopK::default()
    };
    let objective = case.objective();
    let attribution = flat(&weight_attribution(&objective, recipe.piece_tokens).unwrap());
    let n = attribution.len() as f64;
    let mut order: Vec<usize> = (0..attribution.len()).collect();
    order.sort_by(|&a, &b| attribution[a].total_cmp(&attribution[b]));
    let (_, gradient) = objective.gradient(&case.model, &(0..40).collect::<Vec<_>>()).unwrap();
    let d: Vec<f64> = flat(&case.model).iter().zip(flat(&gradient)).map(|(w, g)| w * g).collect();
    let rms = (d.iter().map(|d| d * d).sum::<f64>() / n).sqrt();
    let mut scores = vec![0.0; attribution.len()];
    for (rank, &j) in order.iter().enumerate() {
        let p = (rank as f64 + 0.5) / n;
        scores[j] = (p / (1.0 - p)).ln() - 0.7 * d[j] / (d[j].abs() + 0.4 * rms);
    }
    for target in [0.5, 0.1] {
        let (circuits, _) = train(&recipe, &case, &[target], 9);
        let expected = top_k(&with_blocks(&case.model, &scores), circuits[0].mask.count());
        assert_eq!(circuits[0].mask, expected);
        let unmoved = top_k(&weight_attribution(&objective, recipe.piece_tokens).unwrap(), expected.count());
        assert_ne!(expected, unmoved, "the step must be felt");
    }
}

#[test]
fn a_seed_names_a_trajectory_whatever_the_threads() {
    let case = Case::new(240, 4);
    let recipe = ScheduledTopK { batch_sequences: 160, ..short() };
    assert!(case.sequences.iter().take(160).map(Vec::len).sum::<usize>() > 2 * 512, "several pieces a batch");
    let run = |threads, seed| on_threads(threads, || train(&recipe, &case, &[0.5, 0.1], seed));
    let first = run(1, 7);
    assert_eq!(first, run(1, 7));
    assert_eq!(first, run(3, 7));
    assert_ne!(first.0, run(1, 8).0);
}

/// At half the parameters, the trained circuit chooses as the full model does; random masks of the same size do not.
/// Five tasks, each with ten random masks.
#[test]
fn training_beats_random_masks() {
    let recipe = ScheduledTopK { steps_per_target: 40, hold: 20, ..ScheduledTopK::default() };
    let (mut trained, mut random) = (0.0, 0.0);
    for seed in 1..=5 {
        let case = Case::new(100, seed);
        let ones = case.classes.iter().sum::<usize>();
        assert!((25..=75).contains(&ones), "task {seed}: {ones} of 100 rows in class 1");
        let (circuits, _) = train(&recipe, &case, &[0.5], seed);
        let own = case.agreement(&circuits[0].mask);
        let others = (0..10).map(|draw| case.agreement(&case.random_mask(0.5, draw))).sum::<f64>() / 10.0;
        assert!(own > others + 0.1, "task {seed}: {own} against {others}");
        trained += own / 5.0;
        random += others / 5.0;
    }
    assert!(trained > 0.85 && random < 0.7, "{trained} against {random}");
}

/// The embeddings and the final LayerNorm never belong to a circuit.
#[test]
fn only_block_parameters_are_scored() {
    let case = Case::new(20, 5);
    let (circuits, _) = train(&short(), &case, &[0.05], 1);
    let masked = circuits[0].mask.ablate_complement(&case.model);
    let maskable: Vec<ParamId> = ParamId::maskable(case.model.config()).collect();
    for id in ParamId::all(case.model.config()).filter(|id| !maskable.contains(id)) {
        assert_eq!(masked.get(id), case.model.get(id), "{id}");
    }
}
