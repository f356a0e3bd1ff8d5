//! Arguments that belong to a model of another shape: every editor refuses such masks, and each documented panic has a
//! test.

use std::collections::BTreeMap;

use locus_editors::{
    ClampedSgd, Editor, FineTuning, KeyCovariance, KeyMoments, KeyStatistics, Lora, Memit, NullSpace, Patch,
    Rome, TargetOptimisation, memit_update,
};
use locus_gpt2::{BlockParam, Config, Gpt2, HookPoint, ParamId, ParamMask};
use ndarray::Array2;
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};

use crate::support::{VOCABULARY, covariance, fact, model, text};

/// One layer more than [`model`] and half its width.
fn other() -> Gpt2<f64> {
    Gpt2::init(&Config::new(4, 2, 4, 24, VOCABULARY as usize), &mut ChaCha8Rng::seed_from_u64(1))
}

#[test]
fn every_editor_refuses_the_mask_of_another_model() {
    let (model, facts) = (model(1), [fact(1, 1)]);
    let statistics = covariance(&model, 1);
    let rome = Rome { layer: 1, ..Rome::default() }.with(statistics.clone());
    let memit =
        Memit { layers: vec![1], ..Memit::default() }.with(BTreeMap::from([(1, statistics)])).unwrap();
    let clamped = ClampedSgd::default();
    let editors: [&dyn Editor<f64>; 5] = [&rome, &memit, &FineTuning::default(), &Lora::default(), &clamped];
    let mask = ParamMask::from_fn(other().config(), |_, _| false);
    let expected = "the mask belongs to a model of 4 layers, width 4 and MLP width 16; this one has 3 layers, width 8 and MLP width 32";
    for editor in editors {
        let why = editor.edit(&model, &facts, Some(&mask)).unwrap_err().to_string();
        assert_eq!(why, expected, "{}", editor.name());
    }
    let nothing = |_, _: &locus_editors::LazyEdited<'_, f64>, _: &_| -> Result<(), locus_editors::Error> {
        panic!("an edit was made")
    };
    let requests = [facts[0].request()];
    let why = clamped.fine_tune_each(&model, &requests, Some(&mask), nothing).unwrap_err().to_string();
    assert_eq!(why, expected);
}

#[test]
fn values_of_other_models_and_facts_are_refused() {
    let (model, facts) = (model(1), [fact(1, 1), fact(2, 1)]);
    let other = other();
    let search = TargetOptimisation { steps: 2, ..Default::default() };
    let foreign = search.optimise(&other, 1, HookPoint::MlpOut, &facts, &|| {}).unwrap();
    let statistics = covariance(&model, 1);
    let rome = Rome { layer: 1, ..Rome::default() }.with(statistics.clone());
    let why = rome.insert(&model, &foreign[0], None).unwrap_err().to_string();
    let expected =
        "the target vector has a start, a delta and keys of widths [4, 4, 16]; the model has [8, 8, 32]";
    assert_eq!(why, expected);
    let memit =
        Memit { layers: vec![1], ..Memit::default() }.with(BTreeMap::from([(1, statistics)])).unwrap();
    assert_eq!(memit.insert(&model, &facts, &foreign, None).unwrap_err().to_string(), expected);
    let found = memit.target_vectors(&model, &facts).unwrap();
    let why = memit.insert(&model, &facts, &found[..1], None).unwrap_err().to_string();
    assert_eq!(why, "there are 1 target vectors for 2 facts; expected one for each");
    let mut of_other = KeyStatistics::empty(&other, &[1]).unwrap();
    let why = of_other.collect(&model, &text(1, 2), &mut |_| true).unwrap_err().to_string();
    assert_eq!(why, "key statistics: are of 16 neurons; the model's MLPs have 32");
    let mut deep = KeyStatistics::empty(&other, &[3]).unwrap();
    let why = deep.collect(&model, &text(1, 2), &mut |_| true).unwrap_err().to_string();
    assert_eq!(why, "layer 3 is not in the model; expected 0 to 2");
}

/// An empty mask of a narrower or shallower model would have left part of the change.
#[test]
#[should_panic(
    expected = "4 layers, width 4 and MLP width 16; this one has 3 layers, width 8 and MLP width 32"
)]
fn patches_are_not_masked_by_another_shape() {
    let base = model(1);
    let id = ParamId::Block(2, BlockParam::MlpOutWeight);
    let patch = Patch::low_rank(&base, [(id, Array2::ones((32, 1)), Array2::ones((8, 1)))]);
    patch.masked(&ParamMask::from_fn(other().config(), |_, _| false));
}

#[test]
#[should_panic(expected = "[3, 8, 32, 24, 23]\n right: [4, 4, 16, 24, 23]")]
fn patches_are_not_made_between_two_shapes() {
    Patch::between(&model(1), &other());
}

#[test]
#[should_panic(expected = "(31, 8)\n right: (32, 8)")]
fn factors_of_another_shape_are_no_patch() {
    let id = ParamId::Block(2, BlockParam::MlpOutWeight);
    Patch::low_rank(&model(1), [(id, Array2::ones((31, 1)), Array2::ones((8, 1)))]);
}

#[test]
#[should_panic(expected = "no key was seen")]
fn no_keys_have_no_mean() {
    KeyMoments::empty(3).mean();
}

#[test]
#[should_panic(expected = "left: 4\n right: 5")]
fn a_covariance_solves_for_keys_of_its_width() {
    KeyCovariance::identity(5).solve(Array2::ones((4, 1)).view());
}

#[test]
#[should_panic(expected = "left: 4\n right: 5")]
fn updates_are_for_keys_of_the_covariance() {
    let _ = memit_update(&KeyCovariance::identity(5), Array2::ones((4, 1)).view(), 1.0);
}

#[test]
#[should_panic(expected = "left: 4\n right: 5")]
fn projections_are_of_keys_of_the_space() {
    NullSpace::new(Array2::eye(5).view(), 2.0).unwrap().project(Array2::ones((4, 1)).view());
}

#[test]
#[should_panic(expected = "left: (5, 4)\n right: (5, 5)")]
fn earlier_keys_are_of_the_space() {
    let space = NullSpace::new(Array2::eye(5).view(), 2.0).unwrap();
    let _ = space.alphaedit_update(Array2::ones((5, 1)).view(), Array2::ones((4, 1)).view(), 1.0);
}
