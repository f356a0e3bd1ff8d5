//! Many edits: EMMET's constraints, AlphaEdit's and UltraEdit's memory, sums of patches, ten facts of one subject.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use locus_editors::{
    EditMemory, Editor, Error, Fact, KeyCovariance, KeyStatistics, Memit, MemitEditor, NullSpace, Patch,
    TargetOptimisation, TargetVector, UltraEdit,
};
use locus_gpt2::{BlockParam, Config, Gpt2, HookPoint, ParamId, ParamMask, PromptTargets};
use locus_testkit::{assert_close, random_vector};
use ndarray::{Array2, Axis, concatenate};
use ndarray_linalg::Solve;
use proptest::prelude::*;
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};
use serde_json::Value;

use crate::golden::{fact as golden_fact, floats, tokens};
use crate::support::{cases, covariance, fact, model, states};

fn weights(model: &Gpt2<f64>, layer: usize) -> &[f64] {
    model.get(ParamId::Block(layer, BlockParam::MlpOutWeight))
}

fn change(base: &Gpt2<f64>, edited: &Gpt2<f64>, layer: usize) -> Vec<f64> {
    weights(edited, layer).iter().zip(weights(base, layer)).map(|(after, before)| after - before).collect()
}

fn flat(x: &Array2<f64>) -> Vec<f64> {
    x.iter().copied().collect()
}

fn alpha_edit(model: &Gpt2<f64>, layers: &[usize]) -> MemitEditor {
    let covariances: BTreeMap<_, _> = layers.iter().map(|&layer| (layer, covariance(model, layer))).collect();
    let optimisation = TargetOptimisation { steps: 4, ..Memit::default().optimisation };
    let constants =
        Memit { layers: layers.to_vec(), null_space: Some(0.5), l2: 0.1, optimisation, ..Memit::default() };
    constants.with(covariances).unwrap()
}

/// The key that MEMIT writes for: half the bare prompt's, half the mean over the prefixed ones.
fn key(model: &Gpt2<f64>, fact: &Fact, layer: usize) -> Array2<f64> {
    let all = states(model, &fact.contexts, layer, HookPoint::MlpPost);
    let prefixed = all.slice(ndarray::s![1.., ..]).mean_axis(Axis(0));
    let bare = all.row(0).to_owned();
    prefixed.map_or(bare.clone(), |mean| (bare + mean) * 0.5).insert_axis(Axis(1))
}

proptest! {
    #![proptest_config(cases(12))]

    /// EMMET's answers to the keys are exactly those asked for, and no other change that gives them is shorter in the
    /// metric of `C`: along any direction that keeps the answers, the squared length only grows.
    #[test]
    fn emmet_meets_its_constraints(seed in any::<u64>(), layer in 0usize..2, n in 1usize..4) {
        let model = model(seed);
        let facts: Vec<Fact> = (0..n as u64).map(|i| fact(seed.wrapping_mul(31).wrapping_add(i), 2)).collect();
        let c = covariance(&model, layer);
        let optimisation = TargetOptimisation { steps: 4, ..Memit::default().optimisation };
        let constants = Memit { layers: vec![layer], lambda: 0.0, optimisation, ..Memit::default() };
        let editor = constants.with(BTreeMap::from([(layer, c.clone())])).unwrap();
        prop_assert_eq!(Editor::<f64>::name(&editor), "emmet");
        let targets = editor.target_vectors(&model, &facts).unwrap();
        let edit = match editor.insert(&model, &facts, &targets, None) {
            Err(Error::Unstable(_)) => return Err(TestCaseError::reject("dependent keys")),
            edit => edit.unwrap(),
        };
        let (f, d) = (model.config().d_mlp(), model.config().n_embd);
        let delta = Array2::from_shape_vec((f, d), edit.patch.deltas().next().unwrap().1.to_dense()).unwrap();
        let keys: Vec<Array2<f64>> = facts.iter().map(|fact| key(&model, fact, layer)).collect();
        let keys = concatenate(Axis(1), &keys.iter().map(|x| x.view()).collect::<Vec<_>>()).unwrap();
        let answers = keys.t().dot(&delta);
        for (answer, target) in answers.rows().into_iter().zip(&targets) {
            assert_close("constraint", &answer.to_vec(), &target.delta, 1e-9);
        }
        let metric = |x: &Array2<f64>| (x.t().dot(&c.matrix()).dot(x)).diag().sum();
        let free = Array2::from_shape_vec((f, d), random_vector(f * d, seed ^ 9)).unwrap();
        let gram = keys.t().dot(&keys);
        let inside = keys.t().dot(&free);
        let columns: Vec<f64> = inside.columns().into_iter()
            .flat_map(|column| gram.solve(&column.to_owned()).unwrap().to_vec()).collect();
        let inside = Array2::from_shape_vec((d, keys.ncols()), columns).unwrap();
        let free = &free - &keys.dot(&inside.t());
        let (least, step) = (metric(&delta), 1e-3);
        prop_assert!(metric(&(&delta + &(&free * step))) >= least && metric(&(&delta - &(&free * step))) >= least);
    }

    /// An empty memory is the editor without one, to the bit; afterwards it holds the keys, and a second edit solves the
    /// system with them.
    #[test]
    fn alpha_edit_remembers_its_keys(seed in any::<u64>()) {
        let base = model(seed);
        let (first, second) = ([fact(seed, 2), fact(seed ^ 3, 1)], [fact(seed ^ 8, 2)]);
        let editor = alpha_edit(&base, &[0, 1]);
        let mut memory = EditMemory::new();
        let plain = editor.edit(&base, &first, None).unwrap();
        let edit = editor.edit_after(&mut memory, &base, &first, None).unwrap();
        prop_assert_eq!(&edit.patch, &plain.patch);
        prop_assert_eq!(&edit.report, &plain.report);
        let middle = edit.patch.apply(&base).unwrap();
        for layer in [0, 1] {
            let keys: Vec<Array2<f64>> = first.iter().map(|fact| key(&middle, fact, layer)).collect();
            let keys = concatenate(Axis(1), &keys.iter().map(|x| x.view()).collect::<Vec<_>>()).unwrap();
            let held = memory.keys(layer).unwrap().to_owned();
            assert_close("keys", &flat(&held), &flat(&keys), 1e-10);
        }
        let held = memory.keys(0).unwrap().to_owned();
        let targets = editor.target_vectors(&middle, &second).unwrap();
        let with = editor.insert_after(&mut memory, &middle, &second, &targets, None).unwrap();
        prop_assert_eq!(memory.keys(0).unwrap().ncols(), 3);
        let without = editor.insert(&middle, &second, &targets, None).unwrap();
        let space = NullSpace::new(covariance(&base, 0).matrix(), 0.5).unwrap();
        let u = space.alphaedit_update(key(&middle, &second[0], 0).view(), held.view(), 0.1).unwrap();
        let locus_editors::Delta::LowRank { u: written, .. } = with.patch.deltas().next().unwrap().1 else { panic!() };
        assert_close("system", &flat(written), &flat(&u), 1e-10);
        // What is remembered is held: the answers to the earlier keys do not move more than without the memory.
        let moved = |patch: &Patch<f64>| {
            let delta = patch.deltas().next().unwrap().1.to_dense();
            let delta = Array2::from_shape_vec((base.config().d_mlp(), base.config().n_embd), delta).unwrap();
            held.t().dot(&delta).iter().map(|x| x * x).sum::<f64>()
        };
        prop_assert!(moved(&with.patch) <= moved(&without.patch) * (1.0 + 1e-9));
    }

    /// UltraEdit's change is the solution of its system on features that are normalised over all edits; one large batch
    /// and its parts leave equal statistics.
    #[test]
    fn ultra_edit_solves_its_system(seed in any::<u64>(), layer in 0usize..3) {
        let model = model(seed);
        let facts = [fact(seed, 0), fact(seed ^ 1, 0), fact(seed ^ 2, 0)];
        let editor = UltraEdit { layers: vec![layer], lr: 1e-3 };
        let mut memory = EditMemory::new();
        let edit = editor.edit_after(&mut memory, &model, &facts, None).unwrap();
        prop_assert_eq!(&edit.patch, &editor.edit(&model, &facts, None).unwrap().patch);
        let mut parts = EditMemory::new();
        for part in facts.chunks(2) {
            editor.edit_after(&mut parts, &model, part, None).unwrap();
        }
        let (whole, parts) = (memory.features(layer).unwrap(), parts.features(layer).unwrap());
        prop_assert_eq!(whole.count(), parts.count());
        assert_close("mean", &whole.mean().to_vec(), &parts.mean().to_vec(), 1e-12);
        assert_close("deviation", &whole.deviation().to_vec(), &parts.deviation().to_vec(), 1e-12);

        let tokens: usize = facts.iter().map(|fact| fact.contexts[0].tokens.len() + fact.target.len() - 1).sum();
        prop_assert_eq!(whole.count(), tokens);
        let locus_editors::Delta::LowRank { u, r } = edit.patch.deltas().next().unwrap().1 else { panic!() };
        let pairs: Vec<_> = facts.iter().map(|fact| (&fact.contexts[0].tokens, &fact.target)).collect();
        let packed = PromptTargets::<f64>::new(model.config(), &pairs).unwrap();
        let mut h = Array2::zeros((0, 0));
        let mut take = |at: usize, point: HookPoint, state: ndarray::ArrayViewMut2<f64>| {
            if (at, point) == (layer, HookPoint::MlpPost) {
                h = state.to_owned();
            }
        };
        model.run(&packed.batch).with_hooks(&mut take).resid();
        assert_close("keys", &flat(&u.t().to_owned()), &flat(&h), 1e-12);
        // (H^T H + 1) change = H^T V, so the change lies in the span of the keys, and V = (H H^T + 1) R^T.
        let delta = u.dot(&r.t());
        let mut small = h.dot(&h.t());
        small.diag_mut().iter_mut().for_each(|x| *x += 1.0);
        let v = small.dot(&r.t());
        let mut large = h.t().dot(&h);
        large.diag_mut().iter_mut().for_each(|x| *x += 1.0);
        let (left, right) = (large.dot(&delta), h.t().dot(&v));
        assert_close("system", &flat(&left), &flat(&right), 1e-9);
        // Rows of V are gradients, normalised and scaled by the squared length of the normalised key.
        let (mean, deviation) = (whole.mean().to_owned(), whole.deviation());
        let f = model.config().d_mlp();
        let gradients: Vec<f64> = v.rows().into_iter().zip(h.rows()).flat_map(|(v, h)| {
            let hat: f64 = h.iter().enumerate().map(|(i, h)| ((h - mean[i]) / (deviation[i] + f64::from(f32::EPSILON))).powi(2)).sum();
            v.iter().enumerate().map(|(j, v)| v / (-1e-3 * hat) * deviation[f + j] + mean[f + j]).collect::<Vec<_>>()
        }).collect();
        // A change of one entry of the bias moves the loss by the sum of the gradients over tokens.
        let entry = seed as usize % model.config().n_embd;
        let id = ParamId::Block(layer, BlockParam::MlpOutBias);
        let loss = |by: f64| {
            let mut moved = model.clone();
            moved.get_mut(id)[entry] += by;
            packed.nll_per_token(&moved).iter().sum::<f64>()
        };
        let slope = (loss(1e-5) - loss(-1e-5)) / 2e-5;
        let sum: f64 = gradients.iter().skip(entry).step_by(model.config().n_embd).sum();
        prop_assert!((slope - sum).abs() < 1e-5 * (1.0 + slope.abs()), "{} {}", slope, sum);
    }

    /// The sum of patches does what the patch of the summed changes does, in any order.
    #[test]
    fn sums_of_patches_are_patches_of_sums(seed in any::<u64>()) {
        let base = model(seed);
        let id = ParamId::Block(seed as usize % 3, BlockParam::MlpOutWeight);
        let (rows, columns) = id.shape(base.config());
        let random = |n: usize, rows: usize, seed| Array2::from_shape_vec((rows, n), random_vector(rows * n, seed)).unwrap();
        let low = |n, seed| Patch::low_rank(&base, [(id, random(n, rows, seed), random(n, columns, seed ^ 1))]);
        let mut other = base.clone();
        other.get_mut(ParamId::FinalNormBias).iter_mut().for_each(|w| *w += 0.5);
        other.get_mut(id).iter_mut().step_by(2).for_each(|w| *w -= 0.25);
        let patches = [low(1, seed ^ 5), low(2, seed ^ 6), Patch::between(&base, &other)];
        let mut edited = base.clone();
        for (id, delta) in patches.iter().flat_map(Patch::deltas) {
            edited.get_mut(id).iter_mut().zip(delta.to_dense()).for_each(|(w, d)| *w += d);
        }
        for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
            let sum = Patch::sum(&order.map(|i| patches[i].clone())).unwrap().apply(&base).unwrap();
            for id in base.ids() {
                assert_close(&id.to_string(), sum.get(id), edited.get(id), 1e-13);
            }
        }
        prop_assert_eq!(&Patch::sum(&patches[..1]).unwrap(), &patches[0]);
        // Isolated by one mask, patches add up as others do, and the sum stays inside.
        let mask = ParamMask::random(base.config(), 900, &mut ChaCha8Rng::seed_from_u64(seed));
        let start = mask.ablate_complement(&base);
        let inside = |n, seed| Patch::low_rank(&start, [(id, random(n, rows, seed), random(n, columns, seed ^ 1))]).masked(&mask);
        let sum = Patch::sum(&[inside(1, seed), inside(1, seed ^ 2)]).unwrap().apply(&start).unwrap();
        prop_assert_eq!(mask.ablate_complement(&sum).sha256(), sum.sha256());
        let why = Patch::sum(&[patches[0].clone(), inside(1, 3)]).unwrap_err();
        prop_assert!(matches!(why, Error::OtherBase { .. }), "{why}");
    }
}

#[test]
fn editors_without_memory_leave_it_empty_and_refused_edits_leave_it_as_it_was() {
    let model = model(3);
    let facts = [fact(1, 2), fact(2, 2)];
    let constants = Memit { layers: vec![0], lambda: 1.0, ..Memit::default() };
    let memit = constants.clone().with(BTreeMap::from([(0, covariance(&model, 0))])).unwrap();
    let mut memory = EditMemory::new();
    let after = memit.edit_after(&mut memory, &model, &facts, None).unwrap();
    assert_eq!(after.patch, memit.edit(&model, &facts, None).unwrap().patch);
    assert_eq!(memory, EditMemory::new());
    let dependent = [facts[0].clone(), facts[0].clone()];
    let alpha = Memit { null_space: Some(0.5), l2: 0.0, ..constants };
    let alpha = alpha.with(BTreeMap::from([(0, covariance(&model, 0))])).unwrap();
    alpha.edit_after(&mut memory, &model, &facts[1..], None).unwrap();
    let held = memory.clone();
    assert!(matches!(alpha.edit_after(&mut memory, &model, &dependent, None), Err(Error::Unstable(_))));
    assert_eq!(memory, held);
}

#[test]
fn constants_of_ultra_edit() {
    assert_eq!(UltraEdit::default(), UltraEdit { layers: vec![8, 9, 10], lr: 1.0 / 3072.0 });
    assert_eq!(UltraEdit::for_shape(28, 4096).layers, (18..27).collect::<Vec<_>>(), "as published for GPT-J");
    for n in 1..60 {
        let constants = UltraEdit::for_shape(n, 8);
        constants.check(&Config::new(n, 1, 8, 8, 8)).unwrap();
    }
    let model = model(1);
    let why = |editor: UltraEdit| editor.edit(&model, &[fact(1, 0)], None).unwrap_err().to_string();
    let base = UltraEdit { layers: vec![1], lr: 0.1 };
    assert_eq!(
        why(UltraEdit { layers: vec![3], ..base.clone() }),
        "layer 3 is not in the model; expected 0 to 2"
    );
    assert_eq!(why(UltraEdit { lr: 0.0, ..base.clone() }), "ultra-edit: lr is 0; expected a number above 0");
    let unordered = UltraEdit { layers: vec![1, 0], ..base.clone() };
    assert_eq!(why(unordered), "ultra-edit: layers is 2; expected one or more, ascending");
    assert!(base.edit(&model, &[], None).unwrap_err().to_string().contains("no fact to write"));
}

/// Against `fixtures/golden/many_edits.py`, which solves the papers' systems in NumPy.
#[test]
fn many_edits_agree_with_numpy() {
    /// Solutions of systems with condition numbers up to 1e5; differences measured are a hundred times smaller.
    const AGREES: f64 = 1e-8;
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/golden");
    let config = Config::read(&folder.join("tiny/config.json")).unwrap();
    let model = Gpt2::<f64>::read(&folder.join("tiny/model_f64.safetensors"), &config).unwrap();
    let read = |name: &str| -> Value {
        serde_json::from_str(&std::fs::read_to_string(folder.join(name)).unwrap()).unwrap()
    };
    let (single, many) = (read("editors.json"), read("many_edits.json"));
    let corpus: Vec<Vec<u32>> = single["corpus"].as_array().unwrap().iter().map(tokens).collect();
    let mut statistics = KeyStatistics::empty(&model, &[0, 1]).unwrap();
    statistics.collect(&model, &corpus, &mut |_| true).unwrap();
    let ridge = single["ridge"].as_f64().unwrap();
    let covariances: BTreeMap<usize, Arc<KeyCovariance>> = statistics.covariances(ridge).unwrap();
    let facts: Vec<Fact> = single["memit"]["facts"].as_array().unwrap().iter().map(golden_fact).collect();
    let targets: Vec<TargetVector<f64>> = single["memit"]["z"]
        .as_array()
        .unwrap()
        .iter()
        .map(|z| TargetVector {
            keys: Array2::zeros((1, config.d_mlp())),
            start: floats(z),
            delta: vec![0.0; config.n_embd],
            losses: Vec::new(),
            nlls: Vec::new(),
        })
        .collect();
    let check = |edited: &Gpt2<f64>, golden: &Value, name: &str| {
        for (layer, expected) in golden["weights"].as_object().unwrap() {
            let found = change(&model, edited, layer.parse().unwrap());
            assert_close(&format!("{name}, layer {layer}"), &found, &floats(expected), AGREES);
        }
    };
    let of = |golden: &Value, name: &str| golden[name].as_f64().unwrap();
    let layers =
        |golden: &Value| tokens(&golden["layers"]).into_iter().map(|l| l as usize).collect::<Vec<_>>();

    let golden = &many["emmet"];
    let emmet =
        Memit { layers: vec![golden["layer"].as_u64().unwrap() as usize], lambda: 0.0, ..Memit::default() };
    let edit = emmet.with(covariances.clone()).unwrap().insert(&model, &facts, &targets, None).unwrap();
    check(&edit.patch.apply(&model).unwrap(), golden, "emmet");

    let golden = &many["alpha-edit"];
    let null_space = Some(of(golden, "threshold"));
    let alpha = Memit { layers: layers(golden), null_space, l2: of(golden, "l2"), ..Memit::default() };
    let alpha = alpha.with(covariances).unwrap();
    let mut memory = EditMemory::new();
    let mut edited = model.clone();
    for part in [0..2, 2..3] {
        let edit =
            alpha.insert_after(&mut memory, &edited, &facts[part.clone()], &targets[part], None).unwrap();
        edited = edit.patch.apply(&edited).unwrap();
    }
    check(&edited, golden, "alpha-edit");

    memory_is_read_as_written(&memory);

    let golden = &many["ultra-edit"];
    let ultra = UltraEdit { layers: layers(golden), lr: of(golden, "lr") };
    let mut memory = EditMemory::new();
    let mut edited = model.clone();
    for part in [0..2, 2..3] {
        let edit = ultra.edit_after(&mut memory, &edited, &facts[part], None).unwrap();
        edited = edit.patch.apply(&edited).unwrap();
    }
    check(&edited, golden, "ultra-edit");
    memory_is_read_as_written(&memory);
    let losses = |model: &Gpt2<f64>| {
        let pairs: Vec<_> = facts.iter().map(|fact| (&fact.contexts[0].tokens, &fact.target)).collect();
        PromptTargets::<f64>::new(&config, &pairs).unwrap().nll_per_token(model)
    };
    let found = [losses(&model), losses(&edited)].concat();
    assert_close("losses", &found, &floats(&golden["losses"]), AGREES);
    assert!(found.iter().zip(&found[3..]).all(|(before, after)| after < before), "{found:?}");
}

fn memory_is_read_as_written(memory: &EditMemory) {
    assert_ne!(*memory, EditMemory::new());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("memory.safetensors");
    memory.write(&path, &serde_json::json!({"seed": 1})).unwrap();
    assert_eq!(EditMemory::read(&path).unwrap(), (memory.clone(), serde_json::json!({"seed": 1})));
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() - 8]).unwrap();
    let why = EditMemory::read(&path).unwrap_err().to_string();
    assert!(why.contains("memory.safetensors: not a complete safetensors file"), "{why}");
}
