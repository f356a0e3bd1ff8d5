//! ROME in its three forms and the optimisation of target vectors.

use locus_editors::{Context, Delta, Editor, Fact, Rome, TargetOptimisation, Variant};
use locus_gpt2::{BlockParam, HookPoint, ParamId, ParamMask, PromptTargets};
use locus_testkit::assert_close;
use ndarray::{Array1, Array2, Axis};
use proptest::prelude::*;
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};

use crate::support::{cases, covariance, fact, model, states};

/// Tolerance of a few products and triangular solves in f64, with a condition number of at most about 1e4.
const SOLVED: f64 = 1e-9;

fn rome(layer: usize, variant: Variant) -> Rome {
    Rome { layer, variant, max_update: 1e3, ..Rome::default() }
}

proptest! {
    #![proptest_config(cases(12))]

    /// (Not in the last layer, where a state before the last token moves nothing.) The released form and p-ROME make
    /// the bare prompt's key answer exactly the value, r-ROME the mean key; the change has rank one, and no other
    /// parameter moves.
    #[test]
    fn the_key_answers_the_value(seed in any::<u64>(), layer in 0usize..2, prefixes in 0usize..5) {
        let (model, fact) = (model(seed), fact(seed, prefixes));
        for variant in [Variant::Rome, Variant::RRome, Variant::PRome] {
            let constants = rome(layer, variant);
            let editor = constants.with(covariance(&model, layer));
            let edit = editor.edit(&model, std::slice::from_ref(&fact), None).unwrap();
            let edited = edit.patch.apply(&model).unwrap();
            let facts = std::slice::from_ref(&fact);
            let value = &constants.optimisation.optimise(&model, layer, HookPoint::MlpOut, facts, &|| {}).unwrap()[0];
            let wanted: Vec<f64> = value.start.iter().zip(&value.delta).map(|(a, b)| a + b).collect();
            let answer = if variant == Variant::RRome {
                let key = states(&model, &fact.contexts, layer, HookPoint::MlpPost).mean_axis(Axis(0)).unwrap();
                let weights = edited.matrix(ParamId::Block(layer, BlockParam::MlpOutWeight));
                key.dot(&weights) + Array1::from(model.get(ParamId::Block(layer, BlockParam::MlpOutBias)).to_vec())
            } else {
                states(&edited, &fact.contexts[..1], layer, HookPoint::MlpOut).row(0).to_owned()
            };
            assert_close(variant.name(), answer.as_slice().unwrap(), &wanted, SOLVED);

            let id = ParamId::Block(layer, BlockParam::MlpOutWeight);
            let changed: Vec<ParamId> = model.ids().filter(|&id| model.get(id) != edited.get(id)).collect();
            prop_assert_eq!(changed, vec![id]);
            let change = &edited.matrix(id) - &model.matrix(id);
            let pivot = change.indexed_iter().max_by(|a, b| a.1.abs().total_cmp(&b.1.abs())).unwrap().0;
            let rank_one = Array2::from_shape_fn(change.dim(), |(i, j)| {
                change[(i, pivot.1)] * change[(pivot.0, j)] / change[pivot]
            });
            assert_close("rank one", change.as_slice().unwrap(), rank_one.as_slice().unwrap(), SOLVED);
            let measure = |name: &str| edit.report.measures.iter().find(|(own, _)| own == name).unwrap().1;
            prop_assert!(measure("residual on the edited key") < SOLVED);
            prop_assert!(variant == Variant::Rome || measure("denominator") > 0.0);
        }
    }

    /// With `delta = 0` the model is unchanged: the first loss is the NLL over all contexts.
    #[test]
    fn nothing_added_changes_nothing(seed in any::<u64>(), layer in 0usize..2, prefixes in 0usize..5) {
        let (model, fact) = (model(seed), fact(seed, prefixes));
        let search = TargetOptimisation { steps: 1, ..Default::default() };
        let value = &search.optimise(&model, layer, HookPoint::MlpOut, std::slice::from_ref(&fact), &|| {}).unwrap()[0];
        prop_assert!(value.delta.iter().all(|&x| x == 0.0));
        let pairs: Vec<_> = fact.contexts.iter().map(|row| (&row.tokens, &fact.target)).collect();
        let nll = PromptTargets::new(model.config(), &pairs).unwrap().nll_per_token(&model);
        let mean = nll.iter().sum::<f64>() / nll.len() as f64;
        assert_close("nll", &value.nlls, &[mean], 1e-11);
        assert_close("loss", &value.losses, &[mean], 1e-11);
        let start = states(&model, &fact.contexts[..1], layer, HookPoint::MlpOut);
        assert_close("start", &value.start, start.as_slice().unwrap(), 1e-11);
    }

    /// Tokens after the subject do not affect its key.
    #[test]
    fn suffixes_do_not_matter_to_the_key(seed in any::<u64>(), layer in 0usize..2) {
        let (model, fact) = (model(seed), fact(seed, 3));
        let other = Fact {
            contexts: fact
                .contexts
                .iter()
                .map(|row| Context { tokens: [&row.tokens[..=row.subject_last], &[1, 2, 3]].concat(), ..row.clone() })
                .collect(),
            ..fact.clone()
        };
        let editor = rome(layer, Variant::RRome).with(covariance(&model, layer));
        let u = |fact: &Fact| match editor.edit(&model, std::slice::from_ref(fact), None).unwrap().patch.deltas().next() {
            Some((_, Delta::LowRank { u, .. })) => u.as_slice().unwrap().to_vec(),
            other => panic!("{other:?}"),
        };
        assert_close("u", &u(&other), &u(&fact), 1e-11);
    }

    /// With a prompt of one token, the subject, and a target of one token, the edited model gives the NLL that the
    /// optimisation saw.
    #[test]
    fn the_edited_model_says_what_the_search_saw(seed in any::<u64>(), layer in 0usize..2) {
        let model = model(seed);
        let row = Context { tokens: vec![seed as u32 % 23], subject_last: 0 };
        let fact = Fact { kl_prompt: row.clone(), contexts: vec![row], target: vec![(seed >> 8) as u32 % 23] };
        let search = TargetOptimisation { steps: 6, ..Default::default() };
        let constants = Rome { optimisation: search, ..rome(layer, Variant::PRome) };
        let edit = constants.with(covariance(&model, layer)).edit(&model, std::slice::from_ref(&fact), None).unwrap();
        let value = &search.optimise(&model, layer, HookPoint::MlpOut, &[fact], &|| {}).unwrap()[0];
        prop_assert!((edit.report.nll_before - value.nlls[0]).abs() < 1e-11);
        prop_assert!((edit.report.nll_after - value.nlls.last().unwrap()).abs() < SOLVED);
    }

    /// Facts optimised together have the same target vectors as alone, whatever the number of threads.
    #[test]
    fn facts_do_not_influence_each_other(seed in any::<u64>(), layer in 0usize..2) {
        let model = model(seed);
        let facts: Vec<Fact> = (0..6).map(|i| fact(seed.wrapping_add(i), 2 + i as usize % 2)).collect();
        let search = TargetOptimisation { steps: 8, ..Default::default() };
        let find = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| search.optimise(&model, layer, HookPoint::ResidPost, &facts, &|| {}).unwrap())
        };
        let (together, again) = (find(1), find(3));
        for ((fact, value), again) in facts.iter().zip(&together).zip(&again) {
            prop_assert_eq!(&value.delta, &again.delta);
            let alone = &search.optimise(&model, layer, HookPoint::ResidPost, std::slice::from_ref(fact), &|| {}).unwrap()[0];
            assert_close("delta", &value.delta, &alone.delta, 1e-8); // eight steps of Adam stretch rounding
            prop_assert_eq!(value.losses.len(), alone.losses.len());
        }
    }

    /// A mask keeps the change inside, and the report says what is missing on the edited key.
    #[test]
    fn masked_edits_leave_a_residual(seed in any::<u64>(), share in 0.2f64..0.9) {
        let (model, fact) = (model(seed), fact(seed, 3));
        let config = model.config();
        let count = (share * ParamMask::n_maskable(config) as f64) as usize;
        let mask = ParamMask::random(config, count, &mut ChaCha8Rng::seed_from_u64(seed));
        let editor = rome(1, Variant::RRome).with(covariance(&model, 1));
        let edit = editor.edit(&model, &[fact], Some(&mask)).unwrap();
        let edited = edit.patch.apply(&model).unwrap();
        let outside = mask.complement().ablate_complement(&edited);
        prop_assert_eq!(outside.sha256(), mask.complement().ablate_complement(&model).sha256());
        let residual = edit.report.measures.iter().find(|(name, _)| name.starts_with("residual")).unwrap().1;
        prop_assert!(residual > 1e-3, "{residual}");
        let everything = editor.edit(&model, &[crate::support::fact(seed, 3)], Some(&ParamMask::full(config))).unwrap();
        prop_assert!(everything.report.measures.last().unwrap().1 < SOLVED);
    }
}

#[test]
fn the_search_obeys_its_constants() {
    let (model, fact) = (model(3), fact(3, 3));
    let find = |search: TargetOptimisation| {
        search.optimise(&model, 1, HookPoint::MlpOut, std::slice::from_ref(&fact), &|| {}).unwrap().remove(0)
    };
    let norm = |x: &[f64]| x.iter().map(|x| x * x).sum::<f64>().sqrt();
    let clamped = find(TargetOptimisation { clamp: 0.3, weight_decay: 0.0, ..Default::default() });
    assert!((norm(&clamped.delta) / norm(&clamped.start) - 0.3).abs() < 1e-12);
    assert_eq!(clamped.losses.len(), 20, "all evaluations, the last without a step");
    let free = TargetOptimisation { loss_stop: 0.0, weight_decay: 0.0, ..Default::default() };
    let full = find(free).losses;
    assert!(full.len() == 20 && full[5] < full[0], "{full:?}");
    let stop = full[5] + 1e-9;
    let stopped = find(TargetOptimisation { loss_stop: stop, ..free }).losses;
    let first_below = full.iter().position(|&loss| loss < stop).unwrap();
    assert_eq!(stopped, full[..=first_below], "ends with the first loss below, without a step");
    // The larger the weight of the divergence, the less the KL prompt's distribution moves.
    let length = |kl_factor: f64| norm(&find(TargetOptimisation { kl_factor, clamp: 100.0, ..free }).delta);
    assert!(length(50.0) < length(0.0), "{} {}", length(50.0), length(0.0));
}

#[test]
fn what_cannot_be_edited_is_refused() {
    let model = model(1);
    let good = fact(1, 2);
    let covariance = covariance(&model, 1);
    let why = |constants: Rome, fact: Fact| {
        constants.with(covariance.clone()).edit(&model, &[fact], None).unwrap_err().to_string()
    };
    let fine = rome(1, Variant::RRome);
    assert_eq!(why(Rome { layer: 3, ..fine }, good.clone()), "layer 3 is not in the model; expected 0 to 2");
    let search = TargetOptimisation { lr: -1.0, ..Default::default() };
    assert_eq!(
        why(Rome { optimisation: search, ..fine }, good.clone()),
        "rome: lr is -1; expected a number above 0"
    );
    assert!(why(fine, Fact { target: vec![], ..good.clone() }).contains("target has no tokens"));
    assert!(why(fine, Fact { target: vec![99], ..good.clone() }).contains("token 99"));
    let mut outside = good.clone();
    outside.contexts[1].subject_last = 40;
    assert!(why(fine, outside).contains("position 40"));
    assert!(why(fine, Fact { target: vec![1; 30], ..good.clone() }).contains("takes at most 24"));
    assert!(why(Rome { max_update: 1e-9, ..fine }, good.clone()).contains("times as large as the weights"));
    let narrow = fine.with(std::sync::Arc::new(locus_editors::KeyCovariance::identity(5)));
    assert!(narrow.edit(&model, &[good], None).unwrap_err().to_string().contains("5 neurons"));
}
