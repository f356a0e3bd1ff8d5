//! Hooks and the cache: what is kept is what a hook sees, patterns are softmax(q k / sqrt(w)), and a pattern that a
//! hook writes is the one that is used, forward and backward.

use std::collections::BTreeMap;

use locus_gpt2::{
    ActivationCache, Batch, BlockParam, Config, Gpt2, HookPoint, KvCache, ParamId, ParamSet, PatternHook,
};
use locus_testkit::{REORDERED_F64, assert_close, check_directional, random_vector};
use ndarray::{Array2, ArrayView2, ArrayViewMut2, Axis, concatenate, s};
use proptest::prelude::*;
use proptest::sample::Index;

use crate::support::{Problem, cases, problem};

const POINTS: [HookPoint; 13] = [
    HookPoint::ResidPre,
    HookPoint::Ln1,
    HookPoint::Qkv,
    HookPoint::Pattern,
    HookPoint::Z,
    HookPoint::AttnOut,
    HookPoint::ResidMid,
    HookPoint::Ln2,
    HookPoint::MlpPre,
    HookPoint::MlpPost,
    HookPoint::MlpOut,
    HookPoint::ResidPost,
    HookPoint::LnFinal,
];

/// One batch of each kind on the same sequences: whole ones, sharing rows, and behind a KV cache.
struct Kinds {
    whole: Batch<f64>,
    sharing: Batch<f64>,
    suffixes: Batch<f64>,
    starts: Vec<usize>,
}

fn kinds(problem: &Problem, model: &Gpt2<f64>, cut: Index) -> Kinds {
    let mut sequences = problem.sequences.clone();
    // Every sequence once more, with another last token.
    for sequence in &problem.sequences {
        let mut other = sequence.clone();
        *other.last_mut().unwrap() = (sequence[sequence.len() - 1] + 1) % problem.config.vocab_size as u32;
        sequences.push(other);
    }
    let starts: Vec<usize> = sequences.iter().map(|sequence| cut.index(sequence.len())).collect();
    Kinds {
        whole: Batch::new(&problem.config, &sequences).unwrap(),
        sharing: Batch::prefix_sharing(&problem.config, &sequences).unwrap(),
        suffixes: model.suffixes(&sequences, &starts).unwrap(),
        starts,
    }
}

/// Queries or keys of a head on one sequence of a batch of whole sequences.
fn of_sequence<'a>(state: ArrayView2<'a, f64>, batch: &Batch<f64>, sequence: usize) -> ArrayView2<'a, f64> {
    let rows = batch.sequences().nth(sequence).unwrap();
    state.slice_move(s![rows, ..])
}

/// The pattern of some queries of a sequence, by hand from all of its queries and keys.
fn by_hand(config: &Config, layer: usize, [q, k]: [ArrayView2<f64>; 2], queries: &[usize]) -> Array2<f64> {
    let n_keys = queries.last().map_or(0, |last| last + 1);
    let of_width = if config.scale_attn_weights { (q.ncols() as f64).sqrt() } else { 1.0 };
    let of_layer = if config.scale_attn_by_inverse_layer_idx { layer as f64 + 1.0 } else { 1.0 };
    let scale = of_width * of_layer;
    let mut pattern = Array2::zeros((queries.len(), n_keys));
    for (mut row, &query) in pattern.rows_mut().into_iter().zip(queries) {
        let scores: Vec<f64> = (0..=query).map(|key| q.row(query).dot(&k.row(key)) / scale).collect();
        let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = scores.iter().map(|score| (score - max).exp()).sum();
        row.iter_mut().zip(&scores).for_each(|(weight, score)| *weight = (score - max).exp() / sum);
    }
    pattern
}

fn assert_near(name: &str, found: ArrayView2<f64>, expected: ArrayView2<f64>, tolerance: f64) {
    assert_eq!(found.dim(), expected.dim(), "{name}");
    for (a, b) in found.iter().zip(&expected) {
        assert!((a - b).abs() <= tolerance, "{name}: {a} and {b}");
    }
}

fn bits(x: &Array2<f64>) -> Vec<u64> {
    x.iter().map(|x| x.to_bits()).collect()
}

proptest! {
    #![proptest_config(cases(24))]

    /// Every hook point of every layer that runs is kept once, as a hook sees it.
    #[test]
    fn cached_states_are_those_that_hooks_see(problem in problem(), first in 0usize..2, every in 1usize..3) {
        let (model, batch) = (problem.model(), problem.batch());
        let first = first.min(model.config().n_layer - 1);
        let rows: Vec<usize> = (0..batch.n_rows()).filter(|row| row % every == 0).collect();
        let resid = model.run(&batch).until_layer(first).resid();
        let mut seen = BTreeMap::new();
        let mut order = Vec::new();
        let mut see = |layer: usize, point: HookPoint, state: ArrayViewMut2<f64>| {
            order.push((layer, point));
            seen.insert((layer, point), state.to_owned());
        };
        let hidden = model.run(&batch).from_layer(first, resid.clone()).reading(&rows).with_hooks(&mut see).hidden();
        let cache = model.run(&batch).from_layer(first, resid).reading(&rows).cache(POINTS);
        let n_layer = model.config().n_layer;
        let states = POINTS.into_iter().filter(|&point| !matches!(point, HookPoint::Pattern | HookPoint::LnFinal));
        let mut expected: Vec<(usize, HookPoint)> =
            (first..n_layer).flat_map(|layer| states.clone().map(move |point| (layer, point))).collect();
        expected.push((n_layer, HookPoint::LnFinal));
        prop_assert_eq!(order, expected.clone());
        for (layer, point) in expected {
            let kept = cache.get(layer, point).unwrap();
            prop_assert_eq!(kept, seen[&(layer, point)].view(), "{:?} of layer {}", point, layer);
            let last = layer + 1 == n_layer && point >= HookPoint::Z || layer == n_layer;
            prop_assert_eq!(kept.nrows(), if last { rows.len() } else { batch.n_rows() });
        }
        prop_assert_eq!(cache.get(n_layer, HookPoint::LnFinal).unwrap(), hidden.view());
        prop_assert_eq!(cache.batch(), &batch);
        for layer in 0..first {
            prop_assert!(cache.get(layer, HookPoint::ResidPost).is_none());
        }
    }

    /// A cache keeps what the run's own hook left behind.
    #[test]
    fn a_cache_behind_a_hook(problem in problem()) {
        let (model, batch) = (problem.model(), problem.batch());
        let mut ablate = |layer: usize, point: HookPoint, mut state: ArrayViewMut2<f64>| {
            if (layer, point) == (0, HookPoint::MlpOut) {
                state.fill(0.0);
            }
        };
        let points = [HookPoint::MlpOut, HookPoint::ResidMid, HookPoint::ResidPost];
        let cache = model.run(&batch).with_hooks(&mut ablate).cache(points);
        prop_assert!(cache.get(0, HookPoint::MlpOut).unwrap().iter().all(|&x| x == 0.0));
        prop_assert_eq!(cache.get(0, HookPoint::ResidMid).unwrap(), cache.get(0, HookPoint::ResidPost).unwrap());
        let mut uniform = PatternHook(|_, _, _, mut pattern: ArrayViewMut2<f64>| pattern.fill(0.25));
        let cache = model.run(&batch).with_hooks(&mut uniform).cache([HookPoint::Pattern]);
        prop_assert!(cache.pattern(0, 0, 0).iter().all(|&weight| weight == 0.25));
    }

    /// Heads are columns: queries, keys, values and z side by side.
    #[test]
    fn views_of_heads(problem in problem()) {
        let (model, batch) = (problem.model(), problem.batch());
        let (d, w) = (model.config().n_embd, model.config().d_head());
        let cache = model.run(&batch).cache([HookPoint::Qkv, HookPoint::Z, HookPoint::Ln1]);
        for layer in 0..model.config().n_layer {
            let (qkv, z) = (cache.get(layer, HookPoint::Qkv).unwrap(), cache.get(layer, HookPoint::Z).unwrap());
            type View = fn(&ActivationCache<f64>, usize, usize) -> ArrayView2<'_, f64>;
            let side_by_side = |view: View| {
                let heads: Vec<_> = (0..model.config().n_head).map(|head| view(&cache, layer, head)).collect();
                assert!(heads.iter().all(|head| head.dim() == (batch.n_rows(), w)));
                concatenate(Axis(1), &heads).unwrap()
            };
            prop_assert_eq!(side_by_side(ActivationCache::q), qkv.slice(s![.., ..d]));
            prop_assert_eq!(side_by_side(ActivationCache::k), qkv.slice(s![.., d..2 * d]));
            prop_assert_eq!(side_by_side(ActivationCache::v), qkv.slice(s![.., 2 * d..]));
            prop_assert_eq!(side_by_side(ActivationCache::z), z);
            // The columns of the fused weight are q, k, v, as TransformerLens' W_Q, W_K, W_V are cut from it.
            let w_qkv = model.matrix(ParamId::Block(layer, BlockParam::AttnInWeight));
            let b = model.matrix(ParamId::Block(layer, BlockParam::AttnInBias));
            let (last, ln) = (model.config().n_head - 1, cache.get(layer, HookPoint::Ln1).unwrap());
            let columns = s![.., d + last * w..d + (last + 1) * w];
            let k = ln.dot(&w_qkv.slice(columns)) + b.slice(columns);
            assert_near("keys", cache.k(layer, last), k.view(), 1e-12);
        }
    }

    /// Rows sum to 1, keys behind a query are zero, and the weights are softmax(q k / sqrt(w)): of whole sequences, of
    /// sequences that share rows, behind a KV cache, and of some rows.
    #[test]
    fn patterns_by_hand(problem in problem(), cut in any::<Index>(), every in 1usize..4) {
        let model = problem.model();
        let Kinds { whole, sharing, suffixes, starts } = kinds(&problem, &model, cut);
        let last_layer = model.config().n_layer - 1;
        let points = [HookPoint::Qkv, HookPoint::Pattern];
        let of_whole = model.run(&whole).cache(points);
        let check = |name: &str, cache: &ActivationCache<f64>, queries: &dyn Fn(usize, usize) -> Vec<usize>| {
            for (layer, head) in (0..=last_layer).flat_map(|l| (0..model.config().n_head).map(move |h| (l, h))) {
                for sequence in 0..whole.n_sequences() {
                    let states = [of_whole.q(layer, head), of_whole.k(layer, head)]
                        .map(|state| of_sequence(state, &whole, sequence));
                    let expected = by_hand(model.config(), layer, states, &queries(layer, sequence));
                    let pattern = cache.pattern(layer, head, sequence);
                    assert_near(name, pattern, expected.view(), 1e-12);
                    assert!(pattern.rows().into_iter().all(|row| (row.sum() - 1.0).abs() < 1e-12));
                }
            }
        };
        let lengths: Vec<usize> = whole.sequences().map(|rows| rows.len()).collect();
        check("whole", &of_whole, &|_, sequence| (0..lengths[sequence]).collect());
        let of_suffixes = model.run(&suffixes).cache(points);
        check("suffixes", &of_suffixes, &|_, i| (starts[i]..lengths[i]).collect());
        // Rows of earlier sequences are no queries of the one that shares them.
        let (shared, of_sharing) = (sharing.starts(), model.run(&sharing).cache(points));
        check("sharing", &of_sharing, &|_, i| (shared[i]..lengths[i]).collect());
        let rows: Vec<usize> = (0..whole.n_rows()).filter(|row| row % every == 0).collect();
        let of_rows = model.run(&whole).reading(&rows).cache(points);
        check("reading", &of_rows, &|layer, sequence| {
            let start = whole.sequences().nth(sequence).unwrap().start;
            let is_read = |place: &usize| layer < last_layer || (start + place).is_multiple_of(every);
            (0..lengths[sequence]).filter(is_read).collect()
        });
    }

    /// A hook that looks at every pattern and leaves it, or writes what is there, changes no bit.
    #[test]
    fn patterns_replaced_by_themselves(problem in problem(), cut in any::<Index>()) {
        let model = problem.model();
        let Kinds { whole, sharing, suffixes, .. } = kinds(&problem, &model, cut);
        for batch in [whole, sharing, suffixes] {
            let reads: Vec<usize> = (0..batch.n_rows()).step_by(2).collect();
            let mut n_seen = 0;
            let mut same = PatternHook(|_, _, _, mut pattern: ArrayViewMut2<f64>| {
                n_seen += 1;
                let copy = pattern.to_owned();
                pattern.assign(&copy);
            });
            let hooked = model.run(&batch).with_hooks(&mut same).hidden();
            prop_assert_eq!(bits(&hooked), bits(&model.run(&batch).hidden()));
            let hooked = model.run(&batch).reading(&reads).with_hooks(&mut same).hidden();
            prop_assert_eq!(bits(&hooked), bits(&model.run(&batch).reading(&reads).hidden()));
            prop_assert_eq!(n_seen, 2 * model.config().n_layer * model.config().n_head * batch.n_sequences());
        }
    }

    /// With a pattern of one's own, z is that pattern times the values; weights behind a query stay zero.
    #[test]
    fn a_replaced_pattern_is_used(problem in problem()) {
        let (model, batch) = (problem.model(), problem.batch());
        let random = |layer: usize, head: usize, sequence: usize, dim: (usize, usize)| {
            let seed = problem.seed ^ (layer * 100 + head * 10 + sequence) as u64;
            Array2::from_shape_vec(dim, random_vector(dim.0 * dim.1, seed)).unwrap()
        };
        let mut replace = PatternHook(|layer, head, sequence, mut pattern: ArrayViewMut2<f64>| {
            let dim = pattern.dim();
            pattern.assign(&random(layer, head, sequence, dim));
        });
        let cache = model.run(&batch).with_hooks(&mut replace).cache([HookPoint::Qkv, HookPoint::Z]);
        for layer in 0..model.config().n_layer {
            for head in 0..model.config().n_head {
                for (sequence, rows) in batch.sequences().enumerate() {
                    let mut pattern = random(layer, head, sequence, (rows.len(), rows.len()));
                    for ((query, key), weight) in pattern.indexed_iter_mut() {
                        *weight = if key > query { 0.0 } else { *weight };
                    }
                    let z = pattern.dot(&of_sequence(cache.v(layer, head), &batch, sequence));
                    assert_near("z", of_sequence(cache.z(layer, head), &batch, sequence), z.view(), 1e-11);
                }
            }
        }
    }

    /// Through a taped run with given patterns, gradients flow through the values alone: those of all parameters and of
    /// the residual stream are those of finite differences of the run with the same hook, and queries and keys receive
    /// none.
    #[test]
    fn gradients_through_given_patterns(problem in problem()) {
        let (model, batch) = (problem.model(), problem.batch());
        let replace = |layer: usize, head: usize, sequence: usize, mut pattern: ArrayViewMut2<f64>| {
            let noise = random_vector(pattern.len(), problem.seed ^ (layer * 100 + head * 10 + sequence) as u64);
            pattern.iter_mut().zip(noise).for_each(|(weight, noise)| *weight = noise);
        };
        let tape = model.run(&batch).with_hooks(&mut PatternHook(replace)).tape();
        let d_hidden = random_vector(tape.hidden.len(), problem.seed ^ 7);
        let d_hidden = Array2::from_shape_vec(tape.hidden.dim(), d_hidden).unwrap();
        let mut grads = ParamSet::zeros(model.config(), ParamId::all(model.config()));
        let d = model.config().n_embd;
        let mut n_checked = 0;
        let mut see = |_: usize, point: HookPoint, d_state: ArrayViewMut2<f64>| {
            if point == HookPoint::Qkv {
                assert!(d_state.slice(s![.., ..2 * d]).iter().all(|&x| x == 0.0), "queries and keys");
                assert!(d_state.slice(s![.., 2 * d..]).iter().any(|&x| x != 0.0), "values");
                n_checked += 1;
            }
        };
        let d_resid = model.backward(&tape, d_hidden.view(), &mut grads, &mut see);
        prop_assert_eq!(n_checked, model.config().n_layer);
        let loss = |model: &Gpt2<f64>| {
            (model.run(&batch).with_hooks(&mut PatternHook(replace)).hidden() * &d_hidden).sum()
        };
        for id in ParamId::all(model.config()) {
            check_directional(&id.to_string(), model.get(id), grads.get(id), problem.seed, |values| {
                let mut changed = model.clone();
                changed.insert(id, values.to_vec());
                loss(&changed)
            });
        }
        let resid = model.embed(&batch);
        check_directional("resid", resid.as_slice().unwrap(), d_resid.as_slice().unwrap(), problem.seed, |values| {
            let resid = Array2::from_shape_vec(resid.dim(), values.to_vec()).unwrap();
            (model.run(&batch).from_layer(0, resid).with_hooks(&mut PatternHook(replace)).hidden() * &d_hidden).sum()
        });
    }

    /// Beginnings without tokens may stand between others: the pass has the states of whole sequences, repeated or not.
    #[test]
    fn empty_beginnings_between_others(problem in problem(), times in 1usize..4) {
        let (model, config) = (problem.model(), &problem.config);
        // Nothing, all but the last token, nothing, ...
        let start = |(i, tokens): (usize, &Vec<u32>)| if i % 2 == 0 { 0 } else { tokens.len() - 1 };
        let starts: Vec<usize> = problem.sequences.iter().enumerate().map(start).collect();
        let beginnings: Vec<&[u32]> =
            problem.sequences.iter().zip(&starts).map(|(tokens, &start)| &tokens[..start]).collect();
        let cache = model.kv_cache(&beginnings).unwrap();
        prop_assert_eq!((cache.lengths(), cache.n_layers()), (starts.as_slice(), config.n_layer));
        let repeated = cache.repeat(times);
        prop_assert_eq!(repeated.lengths(), starts.repeat(times));
        // Each repetition goes on in its own way.
        let mut sequences = Vec::new();
        for i in 0..times as u32 {
            sequences.extend(problem.sequences.iter().map(|tokens| {
                let mut tokens = tokens.clone();
                let last = tokens.len() - 1;
                tokens[last] = (tokens[last] + i) % config.vocab_size as u32;
                tokens
            }));
        }
        let starts = starts.repeat(times);
        let suffixes: Vec<&[u32]> =
            sequences.iter().zip(&starts).map(|(tokens, &start)| &tokens[start..]).collect();
        let behind = Batch::after(config, repeated, &suffixes).unwrap();
        let whole = Batch::new(config, &sequences).unwrap();
        let positions: Vec<usize> =
            suffixes.iter().zip(&starts).flat_map(|(tokens, &start)| (start..).take(tokens.len())).collect();
        prop_assert_eq!(behind.positions(), positions);
        let [found, expected] = [&behind, &whole].map(|batch| {
            locus_gpt2::last_hidden(&model, batch).into_raw_vec_and_offset().0
        });
        assert_close("last states", &found, &expected, REORDERED_F64);
        let sharing = Batch::prefix_sharing(config, &sequences).unwrap();
        for batch in [sharing, model.suffixes(&sequences, &starts).unwrap()] {
            let found = locus_gpt2::last_hidden(&model, &batch).into_raw_vec_and_offset().0;
            assert_close("last states", &found, &expected, REORDERED_F64);
        }
        let none = KvCache::empty(config, problem.sequences.len());
        prop_assert_eq!(model.kv_cache(&vec![[0u32; 0]; problem.sequences.len()]).unwrap(), none.clone());
        prop_assert_eq!(Batch::after(config, none, &problem.sequences).unwrap(), problem.batch());
    }
}
