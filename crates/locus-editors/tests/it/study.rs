//! Fine-tuning inside a mask and patches, on small random models in f64.

use locus_editors::{Patch, StudyFineTuning, TokenRequest};
use locus_gpt2::{BlockParam, Config, ParamId, ParamMask, Params, PromptTargets};
use proptest::prelude::*;
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};

fn model(seed: u64) -> Params<f64> {
    let mut config = Config::new(2, 2, 8, 12, 17);
    config.initializer_range = 0.3;
    Params::init(&config, &mut ChaCha8Rng::seed_from_u64(seed))
}

fn request() -> TokenRequest {
    TokenRequest { prompt: vec![1, 2, 3], target: vec![4, 5] }
}

fn nll(model: &Params<f64>, request: &TokenRequest) -> f64 {
    let laid = PromptTargets::new(model.config(), &[(&request.prompt, &request.target)]).unwrap();
    laid.nll_per_token(model)[0]
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
        let count = (share * ParamMask::population(config) as f64) as usize;
        let mask = ParamMask::random(config, count, &mut ChaCha8Rng::seed_from_u64(seed ^ 1));
        let start = if isolate { mask.isolate(&intact) } else { intact };
        let editor = StudyFineTuning::default();
        let (edited, report) = editor.fine_tune(&start, &request(), Some(&mask)).unwrap();
        for (id, inside) in mask.tensors() {
            for (i, &inside) in inside.iter().enumerate() {
                let moved = (edited.get(id)[i] - start.get(id)[i]).abs();
                prop_assert!(moved <= editor.clamp * (1.0 + 1e-9));
                prop_assert!(inside == 1 || moved == 0.0);
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
    let editor = StudyFineTuning { max_steps: 1, clamp: 1e3, lr: 1e-2, ..Default::default() };
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
    let editor = StudyFineTuning { lr: 0.5, max_steps: 500, clamp: 10.0, ..Default::default() };
    let (edited, report) = editor.fine_tune(&start, &request(), None).unwrap();
    assert!(report.steps < 500, "{} steps", report.steps);
    assert_eq!(report.losses.len(), report.steps + 1);
    assert!(nll(&edited, &request()) < editor.loss_stop);
}

#[test]
fn patches_round_trip_and_refuse_other_models() {
    let start = model(7);
    let (edited, _) = StudyFineTuning::default().fine_tune(&start, &request(), None).unwrap();
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
        (StudyFineTuning { lr: 0.0, ..Default::default() }, "lr is 0"),
        (StudyFineTuning { max_steps: 0, ..Default::default() }, "max_steps is 0"),
        (StudyFineTuning { loss_stop: -1.0, ..Default::default() }, "loss_stop is -1"),
        (StudyFineTuning { clamp: f64::NAN, ..Default::default() }, "clamp is NaN"),
    ] {
        assert!(editor.check().unwrap_err().to_string().contains(name));
    }
    let empty = TokenRequest { prompt: vec![1], target: vec![] };
    let why = StudyFineTuning::default().fine_tune(&model(1), &empty, None).unwrap_err().to_string();
    assert!(why.contains("has no tokens"), "{why}");
}
