//! The closed forms against the systems they solve, MEMIT's limits, and key statistics.

use std::collections::BTreeMap;

use locus_editors::{
    Editor, Fact, KeyCovariance, KeyMoments, KeyStatistics, Memit, NullSpace, TargetOptimisation,
    memit_update,
};
use locus_gpt2::{BlockParam, HookPoint, ParamId, ParamMask};
use locus_testkit::{assert_close, random_vector};
use ndarray::{Array2, Axis, concatenate};
use ndarray_linalg::{Inverse, Solve};
use proptest::prelude::*;
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};

use crate::support::{RIDGE, cases, covariance, fact, model, states, text};

/// Tolerance between two ways to solve a system with a condition number of at most about 1e5.
const SOLVED: f64 = 1e-8;

fn matrix(rows: usize, columns: usize, seed: u64) -> Array2<f64> {
    Array2::from_shape_vec((rows, columns), random_vector(rows * columns, seed)).unwrap()
}

/// A second moment over more keys than neurons.
fn second_moment(f: usize, seed: u64) -> Array2<f64> {
    let keys = matrix(f, 3 * f, seed);
    keys.dot(&keys.t()) / (3 * f) as f64
}

fn flat(x: &Array2<f64>) -> Vec<f64> {
    x.iter().copied().collect()
}

proptest! {
    #![proptest_config(cases(16))]

    /// The low-rank form against the full system, column by column; EMMET's damped form; one key is ROME.
    #[test]
    fn closed_form_solves_the_system(seed in any::<u64>(), f in 4usize..24, n in 1usize..4, lambda in 0.01f64..50.0) {
        let c = KeyCovariance::new(second_moment(f, seed), 1e-6).unwrap();
        let keys = matrix(f, n, seed ^ 1);
        let system = &c.matrix() * lambda + keys.dot(&keys.t());
        let u = memit_update(&c, keys.view(), lambda).unwrap();
        for (u, key) in u.columns().into_iter().zip(keys.columns()) {
            assert_close("full system", u.to_vec().as_slice(), &system.solve(&key).unwrap().to_vec(), SOLVED);
        }
        // EMMET as coded: D = K^T (l C)^-1 K + eps, U = (l C)^-1 K D^-1, the same with lambda = eps l.
        let (scale, epsilon) = (7.0, lambda / 7.0);
        let inverse = (&c.matrix() * scale).inv().unwrap();
        let mut d = keys.t().dot(&inverse).dot(&keys);
        d.diag_mut().iter_mut().for_each(|x| *x += epsilon);
        let emmet = inverse.dot(&keys).dot(&d.inv().unwrap());
        assert_close("emmet", &flat(&u), &flat(&emmet), SOLVED);
        // Without damping the answers to the keys are exactly those asked for.
        let exact = memit_update(&c, keys.view(), 0.0).unwrap();
        assert_close("exact", &flat(&keys.t().dot(&exact)), &flat(&Array2::eye(n)), SOLVED);
        let key = keys.column(0).insert_axis(Axis(1));
        let solved = c.solve(key);
        let rome = &solved / solved.column(0).dot(&key.column(0));
        assert_close("rome", &flat(&memit_update(&c, key, 0.0).unwrap()), &flat(&rome), SOLVED);
    }

    /// AlphaEdit's low-rank form against its system, with earlier keys.
    #[test]
    fn projected_form_solves_the_system(seed in any::<u64>(), f in 6usize..20, n in 1usize..4, earlier in 0usize..3, l2 in 0.1f64..20.0) {
        let c = second_moment(f, seed);
        let threshold = c.diag().mean().unwrap();
        let space = NullSpace::new(c.view(), threshold).unwrap();
        prop_assume!(space.free() > 0 && space.free() < f);
        let p = space.project(Array2::eye(f).view());
        assert_close("projection", &flat(&p.dot(&p)), &flat(&p), SOLVED);
        prop_assert!((p.diag().sum() - space.free() as f64).abs() < SOLVED);
        let (keys, before) = (matrix(f, n, seed ^ 1), matrix(f, earlier, seed ^ 2));
        let all = concatenate![Axis(1), keys, before];
        let mut system = p.dot(&all.dot(&all.t()));
        system.diag_mut().iter_mut().for_each(|x| *x += l2);
        let u = space.alphaedit_update(keys.view(), before.view(), l2).unwrap();
        for (u, key) in u.columns().into_iter().zip(p.dot(&keys).columns()) {
            assert_close("system", &u.to_vec(), &system.solve(&key).unwrap().to_vec(), SOLVED);
        }
    }

    /// With one layer, no damping and bare prompts, the residual stream after the edit is the one asked for. With
    /// damping a part of the difference remains, which grows with `lambda`.
    #[test]
    fn memit_writes_what_was_asked(seed in any::<u64>(), layer in 0usize..2, n in 1usize..4) {
        let model = model(seed);
        let facts: Vec<Fact> = (0..n as u64).map(|i| fact(seed.wrapping_mul(31).wrapping_add(i), 0)).collect();
        let value = TargetOptimisation { steps: 5, ..Memit::default().optimisation };
        let edit = |lambda: f64| {
            let constants = Memit { layers: vec![layer], lambda, optimisation: value, ..Memit::default() };
            constants.with(BTreeMap::from([(layer, covariance(&model, layer))])).unwrap().edit(&model, &facts, None).unwrap()
        };
        let exact = edit(0.0);
        let edited = exact.patch.apply(&model).unwrap();
        let values = value.optimise(&model, layer, HookPoint::ResidPost, &facts, &|| {}).unwrap();
        // Later tokens of a prompt may hold another fact's key; states before the last token of the subject do not
        // change below this layer.
        for (fact, value) in facts.iter().zip(&values) {
            let stream = states(&edited, &fact.contexts, layer, HookPoint::ResidPost);
            let wanted: Vec<f64> = value.start.iter().zip(&value.delta).map(|(a, b)| a + b).collect();
            assert_close("stream", stream.as_slice().unwrap(), &wanted, 1e-7);
        }
        let left = |lambda: f64| edit(lambda).report.measures.last().unwrap().1;
        let curve = [0.0, 1.0, 10.0, 1e6].map(left);
        prop_assert!(curve[0] < 1e-6 && curve.is_sorted(), "{curve:?}");
        prop_assert!((curve[3] / edit(0.0).report.measures[0].1 - 1.0).abs() < 0.05, "{curve:?}");
    }
}

#[test]
fn memit_over_layers_and_masks() {
    let model = model(4);
    let facts: Vec<Fact> = (0..5).map(|i| fact(i * 7 + 1, 3)).collect();
    let covariances: BTreeMap<_, _> = (0..2).map(|layer| (layer, covariance(&model, layer))).collect();
    let value = TargetOptimisation { clamp: 20.0, weight_decay: 0.0, ..Memit::default().optimisation };
    let constants = Memit { layers: vec![0, 1], lambda: 0.1, optimisation: value, ..Memit::default() };
    let editor = constants.clone().with(covariances.clone()).unwrap();
    let edit = editor.edit(&model, &facts, None).unwrap();
    assert!(edit.report.nll_after < edit.report.nll_before - 0.3, "{:?}", edit.report);
    let changed: Vec<_> = edit.patch.deltas().map(|(id, _)| id).collect();
    assert_eq!(changed, [0, 1].map(|layer| ParamId::Block(layer, BlockParam::MlpOutWeight)));
    let mask = ParamMask::random(model.config(), 900, &mut ChaCha8Rng::seed_from_u64(1));
    let masked = editor.edit(&model, &facts, Some(&mask)).unwrap();
    let outside = mask.complement().ablate_complement(&masked.patch.apply(&model).unwrap());
    assert_eq!(outside.sha256(), mask.complement().ablate_complement(&model).sha256());
    assert!(masked.report.nll_after > edit.report.nll_after);
    // AlphaEdit: answers to usual keys hardly change.
    let free = Memit { null_space: Some(0.5), l2: 0.1, ..constants.clone() };
    let alpha = free.with(covariances).unwrap();
    let name = Editor::<f64>::name(&alpha);
    let projected = alpha.edit(&model, &facts, None).unwrap();
    assert_eq!(name, "alpha-edit");
    assert!(projected.report.nll_after < projected.report.nll_before);
    let why = constants.with(BTreeMap::new()).unwrap_err().to_string();
    assert_eq!(why, "key statistics: have no layer 0; expected [0, 1]");
    let same = [facts[0].clone(), facts[0].clone()];
    let greedy = Memit { layers: vec![1], lambda: 0.0, ..Memit::default() };
    let twice = greedy.with(BTreeMap::from([(1, covariance(&model, 1))])).unwrap().edit(&model, &same, None);
    assert!(twice.unwrap_err().to_string().contains("linearly dependent"));
}

#[test]
fn statistics_are_the_mean_of_outer_products() {
    let model = model(2);
    let text = text(9, 300);
    let mut all = KeyStatistics::empty(&model, &[0, 2]).unwrap();
    let mut seen = Vec::new();
    all.collect(&model, &text, &mut |now| {
        seen.push(now.layers[&2].count());
        true
    })
    .unwrap();
    let tokens: usize = text.iter().map(Vec::len).sum();
    assert_eq!((all.sequences, all.layers[&0].count()), (300, tokens as u64));
    assert!(!seen.is_empty() && seen.is_sorted() && *seen.last().unwrap() == tokens as u64);
    let mut expected = Array2::<f64>::zeros((32, 32));
    for sequence in &text {
        for subject_last in 0..sequence.len() {
            let row = locus_editors::Context { tokens: sequence.clone(), subject_last };
            let key = states(&model, &[row], 2, HookPoint::MlpPost);
            expected += &key.t().dot(&key);
        }
    }
    expected /= tokens as f64;
    assert_close("moment", &flat(&all.layers[&2].mean()), &flat(&expected), 1e-11);

    // Stopped half-way, written, read and continued, the collection has the same bits.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys.safetensors");
    let mut part = KeyStatistics::empty(&model, &[0, 2]).unwrap();
    part.collect(&model, &text[..100], &mut |_| true).unwrap();
    part.write(&path, &serde_json::json!({"text": "a"})).unwrap();
    let (mut read, provenance) = KeyStatistics::read(&path).unwrap();
    assert_eq!((&read, provenance["text"].as_str()), (&part, Some("a")));
    read.collect(&model, &text[..100], &mut |_| true).unwrap();
    assert_eq!(read, part, "nothing is counted twice");
    read.collect(&model, &text, &mut |_| true).unwrap();
    assert_close("resumed", &flat(&read.layers[&0].mean()), &flat(&all.layers[&0].mean()), 1e-12);
    assert_eq!(read.layers[&0].count(), all.layers[&0].count());

    let key = random_vector(32, 3);
    let agreement = all.layers[&0].agreement(RIDGE, &key).unwrap().unwrap();
    let of_little = part.layers[&0].agreement(RIDGE, &key).unwrap().unwrap();
    assert!(agreement > of_little && agreement < 1.0, "{agreement} after {of_little}");
    let why = KeyStatistics::empty(&model, &[3]).unwrap_err().to_string();
    assert_eq!(why, "layer 3 is not in the model; expected 0 to 2");
    std::fs::write(&path, &std::fs::read(&path).unwrap()[..500]).unwrap();
    assert!(KeyStatistics::read(&path).unwrap_err().to_string().contains("not a complete safetensors file"));
}

#[test]
fn division_undoes_multiplication() {
    let c = KeyCovariance::new(second_moment(20, 1), 1e-4).unwrap();
    let keys = matrix(20, 6, 2);
    assert_close("solve", &flat(&c.matrix().dot(&c.solve(keys.view()))), &flat(&keys), 1e-10);
    let plain = second_moment(20, 1);
    let added = 1e-4 * plain.diag().sum() / 20.0;
    assert!((c.matrix()[(3, 3)] - plain[(3, 3)] - added).abs() < 1e-15);
    let singular = matrix(8, 2, 3);
    let why = KeyCovariance::new(-singular.dot(&singular.t()), 0.0).unwrap_err().to_string();
    assert!(why.contains("not positive definite"), "{why}");
    assert!(KeyMoments::from_mean(matrix(3, 4, 1), 5).is_err());
    assert_eq!(KeyMoments::from_mean(second_moment(3, 1), 5).unwrap().count(), 5);
}
