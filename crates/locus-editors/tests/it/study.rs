//! Fine-tuning inside a mask and patches, on small random models in f64.

use locus_editors::{ClampedSgd, Patch, TokenRequest};
use locus_gpt2::{BlockParam, Config, Gpt2, ParamId, ParamMask, PromptTargets};
use proptest::prelude::*;
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};

fn model(seed: u64) -> Gpt2<f64> {
    let mut config = Config::new(2, 2, 8, 12, 17);
    config.initializer_range = 0.3;
    Gpt2::init(&config, &mut ChaCha8Rng::seed_from_u64(seed))
}

fn request() -> TokenRequest {
    TokenRequest { prompt: vec![1, 2, 3], target: vec![4, 5] }
}

fn nll(model: &Gpt2<f64>, request: &TokenRequest) -> f64 {
    let packed = PromptTargets::new(model.config(), &[(&request.prompt, &request.target)]).unwrap();
    packed.nll_per_token(model)[0]
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 16,
        failure_persistence: None,
        rng_seed: proptest::test_runner::RngSeed::Fixed(16),
        ..ProptestConfig::default()
    })]

    /// Nothing outside the mask moves, nothing moves further than the clamp, the loss goes down, and the patch
    /// reproduces the edit.
    #[test]
    fn masked_edits(seed in any::<u64>(), share in 0.1f64..1.0, isolate in any::<bool>()) {
        let intact = model(seed);
        let config = intact.config();
        let count = (share * ParamMask::n_maskable(config) as f64) as usize;
        let mask = ParamMask::random(config, count, &mut ChaCha8Rng::seed_from_u64(seed ^ 1));
        let start = if isolate { mask.ablate_complement(&intact) } else { intact };
        let editor = ClampedSgd::default();
        let (edited, report) = editor.fine_tune(&start, &request(), Some(&mask)).unwrap();
        for (id, inside) in mask.tensors() {
            for (i, inside) in inside.iter().enumerate() {
                let moved = (edited.get(id)[i] - start.get(id)[i]).abs();
                prop_assert!(moved <= editor.clamp * (1.0 + 1e-9));
                prop_assert!(inside || moved == 0.0);
            }
        }
        prop_assert!(edited.get(ParamId::TokenEmbedding) != start.get(ParamId::TokenEmbedding));
        prop_assert!((report.losses[0] - nll(&start, &request())).abs() < 1e-12);
        prop_assert!(nll(&edited, &request()) < report.losses[0]);
        let patch = Patch::between(&start, &edited);
        prop_assert!(patch.norm() > 0.0);
        let applied = patch.apply(&start).unwrap();
        for id in edited.ids() {
            locus_testkit::assert_close("patched", applied.get(id), edited.get(id), 1e-15);
        }
    }
}

/// One step without clamp or mask is `w - lr g`, checked against finite differences of the loss.
#[test]
fn one_step_is_gradient_descent() {
    let start = model(7);
    let editor = ClampedSgd { max_steps: 1, clamp: 1e3, lr: 1e-2, ..Default::default() };
    let (edited, _) = editor.fine_tune(&start, &request(), None).unwrap();
    for id in [ParamId::Block(1, BlockParam::MlpInWeight), ParamId::PositionEmbedding, ParamId::FinalNormBias]
    {
        let gradient: Vec<f64> =
            start.get(id).iter().zip(edited.get(id)).map(|(s, e)| (s - e) / editor.lr).collect();
        locus_testkit::check_directional(&id.to_string(), start.get(id), &gradient, 3, |values| {
            let mut changed = start.clone();
            changed.insert(id, values.to_vec());
            nll(&changed, &request())
        });
    }
}

#[test]
fn stops_when_the_target_is_learned() {
    let start = model(7);
    let editor = ClampedSgd { lr: 0.5, max_steps: 500, clamp: 10.0, ..Default::default() };
    let (edited, report) = editor.fine_tune(&start, &request(), None).unwrap();
    assert!(report.steps < 500, "{} steps", report.steps);
    assert_eq!(report.losses.len(), report.steps + 1);
    assert!(nll(&edited, &request()) < editor.loss_stop);
}

#[test]
fn patches_round_trip_and_refuse_other_models() {
    let start = model(7);
    let (edited, _) = ClampedSgd::default().fine_tune(&start, &request(), None).unwrap();
    let patch = Patch::between(&start, &edited);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("patch.safetensors");
    patch.write(&path, start.config(), &serde_json::json!({"seed": 1})).unwrap();
    assert_eq!(Patch::read(&path, start.config()).unwrap(), patch);
    let why = patch.apply(&model(8)).unwrap_err().to_string();
    assert!(why.contains(patch.base_sha256()), "{why}");
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() - 9]).unwrap();
    let why = Patch::<f64>::read(&path, start.config()).unwrap_err().to_string();
    assert!(why.contains("patch.safetensors: not a complete safetensors file"), "{why}");
}

#[test]
fn constants_out_of_range_are_named() {
    for (editor, name) in [
        (ClampedSgd { lr: 0.0, ..Default::default() }, "lr is 0"),
        (ClampedSgd { max_steps: 0, ..Default::default() }, "max_steps is 0"),
        (ClampedSgd { loss_stop: -1.0, ..Default::default() }, "loss_stop is -1"),
        (ClampedSgd { clamp: f64::NAN, ..Default::default() }, "clamp is NaN"),
    ] {
        assert!(editor.check().unwrap_err().to_string().contains(name));
    }
    let empty = TokenRequest { prompt: vec![1], target: vec![] };
    let why = ClampedSgd::default().fine_tune(&model(1), &empty, None).unwrap_err().to_string();
    assert!(why.contains("has no tokens"), "{why}");
}

/// Requests of several lengths, with one token twice in a prompt and a target that is also read.
fn requests() -> Vec<TokenRequest> {
    let request =
        |prompt: &[u32], target: &[u32]| TokenRequest { prompt: prompt.into(), target: target.into() };
    vec![
        request(&[1, 2, 3], &[4]),
        request(&[5, 6, 5, 7, 8], &[9, 10]),
        request(&[2], &[2]),
        request(&[11, 12, 13, 14], &[11, 3]),
    ]
}

/// Edits all requests together and one by one; gives the largest relative difference of changes of parameters (per
/// tensor, against its largest change), of NLLs through the changes, and the number of entries at the clamp.
fn together_against_one_by_one<F: locus_gpt2::Scalar>(
    start: &Gpt2<F>,
    editor: &ClampedSgd,
    mask: Option<&ParamMask>,
    of_weights: bool,
) -> (f64, usize) {
    let requests = requests();
    let (mut worst, mut clamped) = (0.0f64, 0);
    let reports = editor
        .fine_tune_each(start, &requests, mask, |i, tuned, report| {
            let (expected, by_itself) = editor.fine_tune(start, &requests[i], mask).unwrap();
            let actual = tuned.weights();
            let moved =
                |id| start.get(id).iter().zip(expected.get(id)).map(|(s, e)| (s.as_f64() - e.as_f64()).abs());
            let most = expected.ids().flat_map(moved).fold(0.0, f64::max);
            for id in expected.ids() {
                let moves = |edited: &Gpt2<F>| -> Vec<f64> {
                    let pairs = start.get(id).iter().zip(edited.get(id));
                    pairs
                        .map(|(s, e)| if of_weights { e.as_f64() } else { e.as_f64() - s.as_f64() })
                        .collect()
                };
                let (actual, expected) = (moves(&actual), moves(&expected));
                // Some gradients are zero but for rounding: a key's bias, say, moves all scores alike.
                let largest = expected.iter().fold(1e-6 * most, |largest, x| largest.max(x.abs()));
                // The slow way rounds each weight in every step, and both round gradients, whose terms are of order 1:
                // that is more than some moves are.
                let weight = start.get(id).iter().fold(0.0, |largest: f64, w| largest.max(w.as_f64().abs()));
                let rounding = if of_weights {
                    0.0
                } else {
                    by_itself.steps as f64 * f64::EPSILON * (weight + editor.lr)
                };
                let beyond = |(a, e): (&f64, &f64)| ((a - e).abs() - rounding).max(0.0) / largest;
                let differences = actual.iter().zip(&expected).map(beyond);
                worst = differences.fold(worst, f64::max);
                clamped += expected.iter().filter(|x| (x.abs() - editor.clamp).abs() < 1e-12).count();
            }
            for other in [&requests[i], &requests[(i + 1) % requests.len()]] {
                // The third shares rows with the first, and one that is read.
                let longer = [&other.prompt[..], &[9]].concat();
                let pairs =
                    [(&other.prompt, &other.target), (&vec![3, 1, 4], &vec![1]), (&longer, &vec![6, 2])];
                let packed = PromptTargets::prefix_sharing(start.config(), &pairs).unwrap();
                for (actual, expected) in
                    tuned.nll_per_token(&packed).iter().zip(packed.nll_per_token(&expected))
                {
                    worst = worst.max((actual - expected).abs() / expected.abs());
                }
            }
            assert_eq!(report.steps, by_itself.steps);
            for (actual, expected) in report.losses.iter().zip(&by_itself.losses) {
                worst = worst.max((actual - expected).abs() / expected.abs());
            }
            Ok::<_, locus_editors::Error>((i, report.losses.len() == by_itself.losses.len()))
        })
        .unwrap();
    assert_eq!(reports, (0..requests.len()).map(|i| (i, true)).collect::<Vec<_>>());
    (worst, clamped)
}

/// Editing together agrees with editing one by one: with few, half, most and all entries editable; on matrices large enough
/// for the change to stay factored and on small ones; with a clamp that never acts, acts on some entries and on most;
/// with requests that are done after different numbers of steps.
#[test]
fn together_is_one_by_one() {
    // Tolerance for rounding of sums in a different order, carried through the steps.
    const TOLERANCE: f64 = 1e-10;
    let mut config = Config::new(2, 4, 64, 12, 40);
    config.initializer_range = 0.1;
    let wide = Gpt2::<f64>::init(&config, &mut ChaCha8Rng::seed_from_u64(3));
    for (start, name) in [(&wide, "wide"), (&model(5), "narrow")] {
        let config = start.config();
        let mask = |share: f64| {
            let count = (share * ParamMask::n_maskable(config) as f64) as usize;
            ParamMask::random(config, count, &mut ChaCha8Rng::seed_from_u64(9))
        };
        let (few, half, most) = (mask(0.05), mask(0.5), mask(0.95));
        let isolated = few.ablate_complement(start);
        let constants = [
            (ClampedSgd { clamp: 10.0, ..Default::default() }, false),
            (ClampedSgd { lr: 2e-3, ..Default::default() }, true),
            (ClampedSgd { lr: 0.5, clamp: 2e-3, ..Default::default() }, true),
            (ClampedSgd { lr: 0.05, clamp: 10.0, loss_stop: 1.0, max_steps: 30 }, false),
        ];
        for (k, (editor, clamps)) in constants.into_iter().enumerate() {
            for (start, mask) in [
                (&isolated, Some(&few)),
                (start, Some(&most)),
                (start, Some(&half)),
                (start, Some(&few)),
                (start, None),
            ] {
                let (difference, clamped) = together_against_one_by_one(start, &editor, mask, false);
                let share = mask.map(ParamMask::density);
                assert!(difference < TOLERANCE, "{name} {share:?} constants {k}: {difference:e}");
                assert!(!clamps || clamped > 0, "{name} {share:?} constants {k}: no clamp");
            }
        }
    }
}

/// Together and one by one agree in f32 too, for weights, losses and NLLs.
#[test]
fn together_is_one_by_one_in_f32() {
    let mut config = Config::new(2, 4, 64, 12, 40);
    config.initializer_range = 0.1;
    let start = Gpt2::<f32>::init(&config, &mut ChaCha8Rng::seed_from_u64(3));
    let count = ParamMask::n_maskable(&config) / 20;
    let few = ParamMask::random(&config, count, &mut ChaCha8Rng::seed_from_u64(9));
    let half = ParamMask::random(&config, 10 * count, &mut ChaCha8Rng::seed_from_u64(9));
    for mask in [Some(&few), Some(&half), Some(&few.complement()), None] {
        let (difference, _) = together_against_one_by_one(&start, &ClampedSgd::default(), mask, true);
        assert!(difference < 1e-5, "{difference:e}");
    }
}

/// No request is edited when one does not fit.
#[test]
fn together_refuses_before_it_starts() {
    let mut requests = requests();
    requests.push(TokenRequest { prompt: vec![99], target: vec![1] });
    let nothing = |_, _: &locus_editors::LazyEdited<'_, f64>, _: &_| -> Result<(), locus_editors::Error> {
        panic!("an edit was made")
    };
    let why = ClampedSgd::default().fine_tune_each(&model(1), &requests, None, nothing).unwrap_err();
    assert!(why.to_string().contains("has token 99"), "{why}");
}
