//! Causal tracing against whole passes written out step by step, and identities that hold by construction.

use locus_circuits::tracing::{
    Effects, KnownFact, PatchedState, TokenPosition, Tracing, average_effects, corrupted_embeddings,
    embedding_deviation, trace_fact,
};
use locus_gpt2::{Batch, Config, Gpt2, HookPoint, Norm, ParamId};
use locus_testkit::{REORDERED_F64, assert_close, random_vector};
use ndarray::{Array2, ArrayViewMut2};
use proptest::prelude::*;
use rand::RngExt;

use crate::support::{cases, on_threads, rng};

fn model(seed: u64) -> Gpt2<f64> {
    let mut config = Config::new(4, 2, 8, 16, 20);
    config.initializer_range = 0.5;
    let mut model = Gpt2::init(&config, &mut rng(seed));
    for (i, id) in ParamId::all(&config).filter(|id| id.is_vector()).enumerate() {
        let noise = random_vector(id.len(&config), seed ^ (i as u64 + 1));
        model.get_mut(id).iter_mut().zip(noise).for_each(|(w, noise)| *w += 0.2 * noise);
    }
    model
}

fn fact(seed: u64) -> KnownFact {
    let mut rng = rng(seed);
    let prompt: Vec<u32> = (0..rng.random_range(3..9)).map(|_| rng.random_range(0..20)).collect();
    let start = rng.random_range(0..prompt.len());
    let end = rng.random_range(start + 1..=prompt.len());
    KnownFact { subject: start..end, answer: rng.random_range(0..20), prompt }
}

fn tracing(model: &Gpt2<f64>, fact: &KnownFact, window: usize) -> Tracing {
    Tracing { samples: 3, window, ..Tracing::new(model, std::slice::from_ref(fact), 5) }
}

fn probability(model: &Gpt2<f64>, resid: &Array2<f64>, answer: u32) -> f64 {
    let hidden = model.layer_norm(Norm::Final, resid.view());
    let logits = model.logits(hidden.view());
    let last: Vec<f64> = logits.row(resid.nrows() - 1).to_vec();
    last[answer as usize].exp() / last.iter().map(|x| x.exp()).sum::<f64>()
}

/// Whole passes over one sample at a time: `restore(layer, point, row)` says whether a state gets its clean value,
/// `hold` whether it gets its corrupted one. `corrupted` holds the embeddings of the corrupted samples.
fn slow(
    model: &Gpt2<f64>,
    fact: &KnownFact,
    corrupted: &[Array2<f64>],
    restore: &dyn Fn(usize, HookPoint, usize) -> bool,
    hold: &dyn Fn(usize, HookPoint, usize) -> bool,
) -> f64 {
    let batch = Batch::new(model.config(), &[&fact.prompt]).unwrap();
    let states = |x: Array2<f64>| {
        let mut states = Vec::new();
        let mut keep = |layer: usize, site: HookPoint, state: ArrayViewMut2<f64>| {
            states.push((layer, site, state.to_owned()))
        };
        let out = model.run(&batch).from_layer(0, x).until_layer(4).with_hooks(&mut keep).resid();
        (states, out)
    };
    let (clean, _) = states(model.embed(&batch));
    let of = |x: &Array2<f64>| {
        let (own, _) = states(x.clone());
        let mut tap = |layer: usize, site: HookPoint, mut state: ArrayViewMut2<f64>| {
            for row in 0..fact.prompt.len() {
                let from = |states: &[(usize, HookPoint, Array2<f64>)]| {
                    states.iter().find(|(l, s, _)| (*l, *s) == (layer, site)).unwrap().2.row(row).to_owned()
                };
                if restore(layer, site, row) {
                    state.row_mut(row).assign(&from(&clean));
                }
                if hold(layer, site, row) {
                    state.row_mut(row).assign(&from(&own));
                }
            }
        };
        probability(
            model,
            &model.run(&batch).from_layer(0, x.clone()).until_layer(4).with_hooks(&mut tap).resid(),
            fact.answer,
        )
    };
    corrupted.iter().map(of).sum::<f64>() / corrupted.len() as f64
}

const NEVER: fn(usize, HookPoint, usize) -> bool = |_, _, _| false;

proptest! {
    #![proptest_config(cases(10))]

    /// Every cell of every kind, and both severed lines.
    #[test]
    fn cells_agree_with_whole_passes(seed in any::<u64>(), window in 1usize..5) {
        let (model, fact) = (model(seed), fact(seed));
        let how = tracing(&model, &fact, window);
        let effects = trace_fact(&model, &fact, &how).unwrap();
        let corrupted = corrupted_embeddings(&model, &fact, &how).unwrap();
        let base = slow(&model, &fact, &corrupted, &NEVER, &NEVER);
        assert_close("corrupted", &[effects.corrupted], &[base], REORDERED_F64);
        let close = |name: &str, actual: f64, expected: f64| {
            // Effects are differences of probabilities, so their error is that of numbers of size 1.
            assert!((actual - expected).abs() < 1e-11, "{name}: {actual} against {expected}");
        };
        for token in 0..fact.prompt.len() {
            for layer in 0usize..4 {
                for (what, site) in PatchedState::ALL.into_iter().zip([HookPoint::ResidPost, HookPoint::MlpOut, HookPoint::AttnOut]) {
                    let layers = match what {
                        PatchedState::Hidden => layer..layer + 1,
                        _ => layer.saturating_sub(window / 2)..layer + window.div_ceil(2),
                    };
                    let restore = |l: usize, s: HookPoint, row: usize| row == token && s == site && layers.contains(&l);
                    let expected = slow(&model, &fact, &corrupted, &restore, &NEVER) - base;
                    close(what.name(), effects.indirect[what as usize][(token, layer)], expected);
                }
            }
        }
        let own = fact.subject.end - 1;
        for (name, site, severed) in [
            ("without mlp", HookPoint::MlpOut, &effects.without_mlp),
            ("without attention", HookPoint::AttnOut, &effects.without_attention),
        ] {
            for (layer, &effect) in severed.iter().enumerate() {
                let restore = |l: usize, s: HookPoint, row: usize| row == own && s == HookPoint::ResidPost && l == layer;
                let hold = |_: usize, s: HookPoint, row: usize| row == own && s == site;
                close(name, effect, slow(&model, &fact, &corrupted, &restore, &hold) - base);
            }
        }
    }

    /// Identities that hold for every model.
    #[test]
    fn invariants(seed in any::<u64>(), window in 1usize..5) {
        let (model, fact) = (model(seed), fact(seed));
        let how = tracing(&model, &fact, window);
        let effects = trace_fact(&model, &fact, &how).unwrap();
        let last = fact.prompt.len() - 1;
        for what in &effects.indirect {
            for token in 0..fact.subject.start {
                prop_assert!(what.row(token).iter().all(|&effect| effect == 0.0), "before the subject");
            }
        }
        prop_assert!((effects.indirect[0][(last, 3)] - effects.total()).abs() < 1e-12, "the last state decides");
        // Every token at one layer: the clean run.
        let corrupted = corrupted_embeddings(&model, &fact, &how).unwrap();
        for layer in 0..4 {
            let restore = |l: usize, s: HookPoint, _: usize| l == layer && s == HookPoint::ResidPost;
            let p = slow(&model, &fact, &corrupted, &restore, &NEVER);
            prop_assert!((p - effects.clean).abs() < 1e-12);
        }
        let silent = trace_fact(&model, &fact, &Tracing { noise: 0.0, ..how }).unwrap();
        prop_assert!(silent.total().abs() < 1e-14);
        let all = silent.indirect.iter().flatten().chain(&silent.without_mlp).chain(&silent.without_attention);
        prop_assert!(all.into_iter().all(|effect| effect.abs() < 1e-13), "nothing to restore");
        prop_assert_eq!(on_threads(1, || trace_fact(&model, &fact, &how).unwrap()), effects);
        let other = trace_fact(&model, &fact, &Tracing { seed: 6, ..how }).unwrap();
        prop_assert!(other.clean == silent.clean && other.corrupted != silent.corrupted);
    }
}

#[test]
fn noise_has_the_size_that_was_asked_for() {
    let model = model(1);
    let fact = KnownFact { prompt: vec![3; 16], subject: 2..14, answer: 1 };
    let how = Tracing { samples: 200, noise: 0.7, window: 1, seed: 1 };
    let clean = model.embed(&Batch::new(model.config(), &[&fact.prompt]).unwrap());
    let mut entries = Vec::new();
    for sample in corrupted_embeddings(&model, &fact, &how).unwrap() {
        let noise = &sample - &clean;
        for (row, noise) in noise.rows().into_iter().enumerate() {
            if fact.subject.contains(&row) {
                entries.extend(noise.iter().copied());
            } else {
                assert!(noise.iter().all(|&x| x == 0.0));
            }
        }
    }
    let n = entries.len() as f64;
    let mean = entries.iter().sum::<f64>() / n;
    let deviation = (entries.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (n - 1.0)).sqrt();
    // Five standard errors of 19 200 draws.
    assert!(mean.abs() < 5.0 * 0.7 / n.sqrt() && (deviation - 0.7).abs() < 5.0 * 0.7 / (2.0 * n).sqrt());
    let facts = [fact];
    let wte = model.matrix(ParamId::TokenEmbedding);
    let row: Vec<f64> = wte.row(3).to_vec();
    let mean = row.iter().sum::<f64>() / 8.0;
    // Twelve times the same eight numbers.
    let expected = (12.0 * row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 95.0).sqrt();
    assert!((embedding_deviation(&model, &facts) - expected).abs() < 1e-12);
    assert_eq!(Tracing::new(&model, &facts, 1).window, 1);
}

#[test]
fn places_and_their_averages() {
    let fact = |n: u32, subject| KnownFact { prompt: (0..n).collect(), subject, answer: 0 };
    let places = |fact: &KnownFact| {
        (0..fact.prompt.len()).map(|token| TokenPosition::of(fact, token)).collect::<Vec<_>>()
    };
    use TokenPosition::*;
    let long = fact(8, 1..4);
    assert_eq!(
        places(&long),
        [
            None,
            Some(FirstSubject),
            Some(MiddleSubject),
            Some(LastSubject),
            Some(FirstAfter),
            Some(Further),
            Some(Further),
            Some(Last)
        ]
    );
    let short = fact(2, 0..1);
    assert_eq!(places(&short), [Some(LastSubject), Some(Last)]);
    assert_eq!(places(&fact(2, 0..2)), [Some(FirstSubject), Some(LastSubject)]);
    let effects = |fact: &KnownFact, scale: f64| Effects {
        clean: 0.9,
        corrupted: 0.1,
        indirect: [1.0, 2.0, 3.0].map(|kind| {
            Array2::from_shape_fn((fact.prompt.len(), 2), |(token, layer)| {
                scale * kind * (token + 10 * layer) as f64
            })
        }),
        without_mlp: vec![],
        without_attention: vec![],
    };
    let facts = [long.clone(), short.clone()];
    let mean = average_effects(&facts, &[effects(&long, 1.0), effects(&short, 2.0)]);
    assert_eq!(mean[0].facts, [1, 1, 2, 1, 1, 2]);
    assert_eq!(mean[0].mean.row(Further as usize).to_vec(), [5.5, 15.5]); // tokens 5 and 6 of the long one
    assert_eq!(mean[0].mean.row(LastSubject as usize).to_vec(), [1.5, 16.5]); // 3 and 0; 13 and 20
    assert_eq!(mean[0].by_fact[LastSubject as usize], ndarray::array![[3.0, 13.0], [0.0, 20.0]]);
    assert_eq!(mean[0].by_fact[Further as usize], ndarray::array![[5.5, 15.5]]);
    assert_eq!(mean[2].mean.row(Last as usize).to_vec(), [3.0 * 4.5, 3.0 * 19.5]); // 7 and 2; 17 and 22
}

#[test]
fn facts_that_do_not_fit_are_refused() {
    let model = model(1);
    let why = |fact: KnownFact| {
        let how = Tracing { samples: 2, noise: 0.1, window: 1, seed: 1 };
        trace_fact(&model, &fact, &how).unwrap_err().to_string()
    };
    let good = KnownFact { prompt: vec![1, 2, 3], subject: 0..1, answer: 4 };
    assert!(why(KnownFact { subject: 2..2, ..good.clone() }).contains("2..2 of a prompt of 3"));
    assert!(why(KnownFact { subject: 2..5, ..good.clone() }).contains("2..5"));
    assert!(why(KnownFact { answer: 20, ..good.clone() }).contains("token 20"));
    assert!(why(KnownFact { prompt: vec![1; 17], ..good }).contains("17 tokens"));
}
