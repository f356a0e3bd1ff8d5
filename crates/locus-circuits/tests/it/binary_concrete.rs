//! The published recipe: against a direct reading of its formulas, and what must hold of every trajectory.

use std::sync::Mutex;

use locus_circuits::internal::Noise;
use locus_circuits::masks::{BinaryConcrete, Circuit, MaskProgress, MaskTrainer, Objective};
use locus_gpt2::{Gpt2, ParamId, ParamMask, ParamSet, Result};

use crate::support::{Case, flat, inside, on_threads, with_blocks};

/// Softer and faster than the published constants, so that a handful of epochs passes several densities.
fn fast() -> BinaryConcrete {
    BinaryConcrete {
        temperature: 0.5,
        lr: 0.2,
        lambda_start: 20.0,
        lambda_growth: 1.0,
        batch_sequences: 24,
        max_epochs: 40,
        ..BinaryConcrete::default()
    }
}

fn train(
    recipe: &BinaryConcrete,
    case: &Case,
    targets: &[f64],
    seed: u64,
) -> (Vec<Circuit>, Vec<MaskProgress>) {
    let mut seen = Vec::new();
    let circuits = recipe.train(&case.objective(), targets, seed, &mut |at| seen.push(at)).unwrap();
    (circuits, seen)
}

/// The recipe as the module documents it, parameter by parameter, with AdamW as in its paper: the measured mask and the
/// further samples in the order of [`samples`].
fn reference(recipe: &BinaryConcrete, case: &Case, seed: u64) -> [Vec<bool>; 4] {
    let config = case.model.config();
    let streams: Vec<(u64, usize)> = ParamId::maskable(config)
        .enumerate()
        .flat_map(|(tensor, id)| (0..id.len(config)).map(move |i| (tensor as u64, i)))
        .collect();
    let n = streams.len();
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    let uniform = |tensor, step, i| f64::from(Noise::new(seed, tensor, step).uniform(i));
    let logistic = |step: u64, j: usize| {
        let (tensor, i) = streams[j];
        let u: f64 = uniform(tensor, step, i);
        (u / (1.0 - u)).ln()
    };
    let mut logits: Vec<f64> = streams
        .iter()
        .map(|&(tensor, i)| {
            let (u, v) = (uniform(tensor, 0, 2 * i), uniform(tensor, 0, 2 * i + 1));
            let normal = (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos();
            recipe.init_mean + recipe.init_std * normal
        })
        .collect();
    let (mut m, mut v) = (vec![0.0; n], vec![0.0; n]);
    let weights = flat(&case.model);
    let order: Vec<usize> = (0..case.sequences.len()).collect();
    let mut t = 0;
    let mut lambda = recipe.lambda_start;
    for _ in 0..recipe.max_epochs {
        lambda = (lambda + recipe.lambda_growth).min(recipe.lambda_max);
        for rows in order.chunks(recipe.batch_sequences) {
            t += 1;
            let s: Vec<f64> = (0..n)
                .map(|j| sigmoid((logits[j] + logistic(2 * t as u64, j)) / recipe.temperature))
                .collect();
            let masked: Vec<f64> =
                s.iter().zip(&weights).map(|(&s, &w)| if s > 0.5 { w } else { 0.0 }).collect();
            let (_, d_masked) = case.objective().gradient(&with_blocks(&case.model, &masked), rows).unwrap();
            let d_masked = flat(&d_masked);
            for j in 0..n {
                let p = sigmoid(logits[j]);
                let g = weights[j] * d_masked[j] * s[j] * (1.0 - s[j]) / recipe.temperature
                    + lambda * p * (1.0 - p) / n as f64;
                m[j] = 0.9 * m[j] + 0.1 * g;
                v[j] = 0.999 * v[j] + 0.001 * g * g;
                let m_hat = m[j] / (1.0 - 0.9f64.powi(t));
                let v_hat = v[j] / (1.0 - 0.999f64.powi(t));
                logits[j] -= recipe.lr * recipe.weight_decay * logits[j];
                logits[j] -= recipe.lr * m_hat / (v_hat.sqrt() + 1e-8);
            }
        }
    }
    [0, 1, 2, 3].map(|sample: u64| {
        (0..n).map(|j| logits[j] + logistic((2 * t as u64 + 1) | sample << 48, j) > 0.0).collect()
    })
}

fn samples(circuit: &Circuit) -> [&ParamMask; 4] {
    [circuit.measured(), circuit.complement_source(), circuit.saved(), circuit.edited()]
}

/// From a single step to several epochs of several batches with a growing and then capped lambda.
#[test]
fn masks_follow_the_documented_formula() {
    let case = Case::new(30, 1);
    let strong = BinaryConcrete { lr: 0.8, lambda_start: 1.0, ..fast() };
    let recipes = [
        BinaryConcrete { max_epochs: 1, batch_sequences: 64, ..strong },
        BinaryConcrete { max_epochs: 1, ..strong },
        BinaryConcrete { max_epochs: 4, batch_sequences: 12, lambda_growth: 2.0, lambda_max: 4.5, ..strong },
        BinaryConcrete { max_epochs: 3, init_mean: 0.3, init_std: 0.5, weight_decay: 0.3, ..strong },
        // Few gates that are not flat.
        BinaryConcrete { max_epochs: 2, temperature: 0.02, ..strong },
    ];
    for (i, recipe) in recipes.iter().enumerate() {
        let (circuits, _) = train(recipe, &case, &[1e-9], i as u64);
        let expected = reference(recipe, &case, i as u64);
        let (n, kept) = (expected[0].len(), expected[0].iter().filter(|&&inside| inside).count());
        assert!(kept > n / 20 && kept < n * 19 / 20, "{kept}: a telling density");
        assert_eq!(samples(&circuits[0]).map(inside), expected, "recipe {i}");
        let batches = case.sequences.len().div_ceil(recipe.batch_sequences);
        assert_eq!((circuits[0].epochs, circuits[0].steps), (recipe.max_epochs, recipe.max_epochs * batches));
    }
}

#[test]
fn lambda_grows_before_each_epoch() {
    let published = BinaryConcrete::default();
    let lambdas = [1, 2, 989, 990, 991, 10_000].map(|epoch| published.lambda(epoch));
    assert_eq!(lambdas, [11.0, 12.0, 999.0, 1000.0, 1000.0, 1000.0]);
}

/// Notes which rows each step is about.
struct Watched<'a> {
    case: &'a Case,
    batches: Mutex<Vec<Vec<usize>>>,
}

impl Objective<f64> for Watched<'_> {
    fn model(&self) -> &Gpt2<f64> {
        &self.case.model
    }

    fn n_rows(&self) -> usize {
        self.case.sequences.len()
    }

    fn gradient(&self, masked: &Gpt2<f64>, rows: &[usize]) -> Result<(f64, ParamSet<f64>)> {
        self.batches.lock().unwrap().push(rows.to_vec());
        self.case.objective().gradient(masked, rows)
    }
}

#[test]
fn every_epoch_goes_through_the_rows_in_their_order() {
    let watched = Watched { case: &Case::new(10, 8), batches: Mutex::default() };
    let recipe = BinaryConcrete { max_epochs: 3, batch_sequences: 4, ..fast() };
    recipe.train(&watched, &[1e-9], 1, &mut |_| {}).unwrap();
    let epoch = [vec![0, 1, 2, 3], vec![4, 5, 6, 7], vec![8, 9]];
    assert_eq!(watched.batches.into_inner().unwrap(), [&epoch[..]; 3].concat());
}

/// Two samples of the same logits agree on more parameters than masks drawn apart would, and not on all; the density is
/// that of the logits in each.
#[test]
fn every_purpose_has_a_sample_of_its_own() {
    let case = Case::new(30, 7);
    let recipe = BinaryConcrete { max_epochs: 8, lambda_start: 1.0, ..fast() };
    let (circuits, _) = train(&recipe, &case, &[1e-9], 4);
    let n = ParamMask::n_maskable(case.model.config()) as f64;
    let samples = samples(&circuits[0]);
    for (i, a) in samples.iter().enumerate() {
        for b in &samples[..i] {
            let overlap = a.intersection(b).count() as f64 / n;
            assert!(
                overlap > a.density() * b.density(),
                "sample {i}: the logits of different parameters differ"
            );
            assert!(
                overlap < 0.99 * a.density().min(b.density()),
                "sample {i}: {overlap} of {}",
                a.density()
            );
            // Five standard errors of the difference of two shares.
            assert!((a.density() - b.density()).abs() < 5.0 * (0.5 / n).sqrt());
        }
    }
}

#[test]
fn a_seed_names_a_trajectory() {
    let case = Case::new(40, 2);
    let recipe = BinaryConcrete { max_epochs: 3, ..fast() };
    let (first, progress) = train(&recipe, &case, &[0.5], 7);
    let (again, progress_again) = train(&recipe, &case, &[0.5], 7);
    assert_eq!(first, again);
    assert_eq!(progress, progress_again);
    let (other, _) = train(&recipe, &case, &[0.5], 8);
    assert_ne!(first[0].mask, other[0].mask);
}

/// Batches of more than one piece (512 tokens), so that there is a reduction whose order could depend on the threads.
#[test]
fn threads_do_not_matter() {
    let case = Case::new(200, 3);
    assert!(case.sequences.iter().map(Vec::len).sum::<usize>() > 2 * 512);
    let recipe = BinaryConcrete { max_epochs: 4, batch_sequences: 200, ..fast() };
    let run = |threads| on_threads(threads, || train(&recipe, &case, &[0.7, 0.5], 5));
    assert_eq!(run(1), run(3));
}

#[test]
fn one_trajectory_descends_through_all_targets() {
    let case = Case::new(48, 4);
    let targets = [1.0, 0.8, 0.5, 0.3, 0.1];
    let (circuits, progress) = train(&fast(), &case, &targets, 3);
    assert_eq!(circuits.len(), targets.len());
    for (circuit, target) in circuits.iter().zip(targets) {
        assert!(circuit.reached, "{target} is not reached in {} epochs", fast().max_epochs);
        assert_eq!(circuit.target_density, target);
        assert!(circuit.mask.density() <= target, "{} for {target}", circuit.mask.density());
        assert_eq!(circuit.steps, 2 * circuit.epochs, "two batches an epoch");
        // The first epoch at or below the target, and the mask of that epoch.
        let densities: Vec<f64> = progress.iter().map(|at| at.density).collect();
        assert_eq!(densities.iter().position(|&density| density <= target), Some(circuit.epochs - 1));
        assert_eq!(densities[circuit.epochs - 1], circuit.mask.density());
    }
    for pair in circuits.windows(2) {
        assert!(pair[0].mask.density() >= pair[1].mask.density() && pair[0].epochs <= pair[1].epochs);
    }
    assert_eq!(circuits[0].epochs, 1, "every density is at or below 1");
    assert_eq!(progress.len(), circuits[4].epochs, "the run ends with its last target");
}

#[test]
fn targets_out_of_reach_say_so() {
    let case = Case::new(30, 5);
    let recipe = BinaryConcrete { max_epochs: 3, ..BinaryConcrete::default() };
    let (circuits, progress) = train(&recipe, &case, &[1.0, 0.5, 0.05], 1);
    let reached: Vec<bool> = circuits.iter().map(|circuit| circuit.reached).collect();
    assert_eq!(reached, [true, false, false]);
    assert_eq!(circuits.iter().map(|c| c.epochs).collect::<Vec<_>>(), [1, 3, 3]);
    assert_eq!(circuits[1].mask, circuits[2].mask, "both are the last epoch's mask");
    assert!(circuits[1].mask.density() > 0.5);
    assert_eq!(progress.len(), 3);
}

/// When nothing moves the logits, the density is sigmoid(2.7) = 0.937; a huge penalty lowers every logit by `lr` a
/// step.
#[test]
fn the_penalty_lowers_the_density() {
    let case = Case::new(30, 6);
    let density = |lambda_start, lr, max_epochs| {
        let recipe =
            BinaryConcrete { lambda_start, lr, max_epochs, lambda_max: 1e9, ..BinaryConcrete::default() };
        train(&recipe, &case, &[1e-9], 2).0[0].mask.density()
    };
    let population = ParamMask::n_maskable(case.model.config()) as f64;
    let close = |density: f64, logit: f64| {
        let p: f64 = 1.0 / (1.0 + (-logit).exp());
        let error = (p * (1.0 - p) / population).sqrt();
        assert!((density - p).abs() < 5.0 * error, "{density} against {p}");
    };
    close(density(0.0, 1e-9, 3), 2.7);
    // One step of Adam per epoch of 30 rows: 10 x 0.25 down, against a gradient that is all penalty.
    close(density(1e8, 0.25, 10), 0.2);
    close(density(1e8, 0.25, 20), -2.3);
}
