//! Every documented panic, and the typed error in its place where there is one: shapes that do not fit are refused with
//! both shapes, never cut to what fits.

use locus_gpt2::internal::{
    add_column_sums, nll_of_row, select_rows, split_lengths, split_rows, split_rows_view,
};
use locus_gpt2::lens::{ATTRIBUTION_POINTS, direct_logit_attribution, logit_lens};
use locus_gpt2::{
    AdamW, Batch, BlockParam, Config, Gpt2, HeadTraining, HookPoint, KvCache, Moments, Norm, ParamEntries,
    ParamId, ParamMask, ParamSet, PromptTargets, ScoreHead, Target, axpy, cross_entropy, dot, gemm,
};
use ndarray::Array2;
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};

use crate::support::{model, panics_with};

fn zeros(rows: usize, columns: usize) -> Array2<f64> {
    Array2::zeros((rows, columns))
}

fn batch(model: &Gpt2<f64>) -> Batch<f64> {
    Batch::new(model.config(), &[vec![1, 2, 3], vec![4, 5]]).unwrap()
}

const MLP_IN: ParamId = ParamId::Block(0, BlockParam::MlpInWeight);

/// Inner dimensions that differ, and results with fewer or more rows or columns, small and cut into pieces alike.
#[test]
fn products_that_do_not_fit() {
    for scale in [1, 100] {
        let product = |a: (usize, usize), b: (usize, usize), c: (usize, usize)| {
            let [a, b, c] = [a, b, c].map(|(rows, columns)| (rows * scale, columns * scale));
            let (left, right, mut out) = (zeros(a.0, a.1), zeros(b.0, b.1), zeros(c.0, c.1));
            panics_with(&[&format!("{a:?}"), &format!("{b:?}"), &format!("{c:?}")], || {
                gemm(1.0, left.view(), right.view(), 0.0, out.view_mut());
            });
        };
        product((10, 6), (6, 4), (5, 4));
        product((10, 6), (6, 4), (15, 4));
        product((10, 6), (6, 4), (10, 3));
        product((10, 6), (6, 4), (10, 5));
        product((10, 6), (5, 4), (10, 4));
        product((10, 5), (6, 4), (10, 4));
    }
}

#[test]
fn vectors_of_different_lengths() {
    panics_with(&["dot product", "16", "8"], || dot(&[1.0; 16], &[1.0; 8]));
    panics_with(&["dot product", "3", "9"], || dot(&[1.0; 3], &[1.0; 9]));
    panics_with(&["axpy", "3", "2"], || axpy(1.0, &[1.0; 3], &mut [1.0; 2]));
    panics_with(&["axpy", "2", "3"], || axpy(1.0, &[1.0; 2], &mut [1.0; 3]));
    panics_with(&["columns", "4", "3"], || add_column_sums(zeros(2, 4).view(), &mut [0.0; 3]));
    panics_with(&["mid > len"], || split_lengths(&mut [0; 3], [2, 2].into_iter()).count());
    panics_with(&[], || split_rows(zeros(3, 2).view_mut(), [2, 2].into_iter()).len());
    panics_with(&[], || split_rows_view(zeros(3, 2).view(), [2, 2].into_iter()).len());
    panics_with(&[], || select_rows(zeros(3, 2).view(), &[3]));
}

/// Masks of a model with another number of layers, which an empty mask would otherwise hide, of a wider one, and of one
/// whose MLP alone is wider.
#[test]
fn masks_of_another_model() {
    let two = model(2, 1, 4);
    let mut wide_mlp = two.config().clone();
    wide_mlp.n_inner = Some(20);
    let one_layer = Config::new(1, 1, 4, 8, 11);
    for (config, shape) in [
        (one_layer, "1 layers, width 4 and MLP width 16"),
        (Config::new(3, 1, 4, 8, 11), "3 layers, width 4 and MLP width 16"),
        (Config::new(2, 1, 6, 8, 11), "2 layers, width 6 and MLP width 24"),
        (wide_mlp, "2 layers, width 4 and MLP width 20"),
    ] {
        let empty = ParamMask::full(&config).complement();
        assert_eq!(empty.count(), 0);
        for mask in [empty, ParamMask::full(&config)] {
            let shapes = [shape, "2 layers, width 4 and MLP width 16"];
            let why = mask.check(two.config()).unwrap_err();
            assert!(matches!(why, locus_gpt2::Error::Input(_)), "{why:?}");
            assert!(shapes.iter().all(|shape| why.to_string().contains(shape)), "{why}");
            panics_with(&shapes, || mask.ablate_complement(&two));
            panics_with(&shapes, || mask.mask_gradients(&mut two.clone().into_params()));
            let ours = ParamMask::full(two.config());
            panics_with(&shapes, || ours.union(&mask));
            panics_with(&shapes, || ours.intersection(&mask));
            panics_with(&shapes, || ours.difference(&mask));
            panics_with(&shapes, || ours.intersection_counts(&mask));
        }
    }
    let config = two.config();
    ParamMask::full(config).check(config).unwrap();
    let n = ParamMask::n_maskable(config);
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    panics_with(&[&format!("{} of {n} parameters", n + 1)], || ParamMask::random(config, n + 1, &mut rng));
    panics_with(&["scalars of h.0.ln_1.weight"], || {
        ParamMask::from_tensors(config, |_| [true; 3].into_iter().collect())
    });
}

#[test]
fn parameters_that_are_not_there() {
    let one = model(1, 1, 4);
    let mut some = ParamSet::<f64>::zeros(one.config(), [MLP_IN]);
    panics_with(&["length of h.0.mlp.c_fc.weight", "63", "64"], || some.insert(MLP_IN, vec![0.0; 63]));
    let absent = ParamId::FinalNormBias;
    panics_with(&["ln_f.bias is absent"], || some.get(absent).len());
    panics_with(&["ln_f.bias is absent"], || some.matrix(absent).nrows());
    panics_with(&["ln_f.bias is absent"], || some.get_mut(absent).len());
    assert!(some.matrix_mut(absent).is_none() && !some.has(absent));

    // A block that the model does not have is not another of its parameters.
    let mut one = one.into_params();
    for param in BlockParam::ALL {
        let id = ParamId::Block(1, param);
        assert!(!one.has(id) && one.matrix_mut(id).is_none());
        panics_with(&[&format!("{id} is absent")], || one.get(id).len());
        panics_with(&[&format!("{id} is absent")], || one.get_mut(id).len());
        let values = vec![0.0; id.len(one.config())];
        panics_with(&[&format!("{id} of a model of 1 layers")], || one.insert(id, values));
    }

    let two = model(2, 1, 4).into_params();
    panics_with(&["parameters of different models"], || one.add_scaled(1.0, &two));
}

/// The first absent parameter, in order, is named.
#[test]
fn models_that_are_not_complete() {
    let model = model(2, 1, 4);
    for missing in ParamId::all(model.config()) {
        let present = ParamId::all(model.config()).filter(|&id| id != missing);
        let mut params = ParamSet::<f64>::zeros(model.config(), present);
        let why = Gpt2::new(params.clone()).unwrap_err().to_string();
        assert_eq!(why, format!("tensor {missing} is missing"));
        params.insert(missing, model.get(missing).to_vec());
        assert_eq!(Gpt2::new(params).unwrap().get(missing), model.get(missing));
    }
}

#[test]
fn runs_that_cannot_be() {
    let model = model(2, 2, 4);
    let batch = batch(&model);
    let run = || model.run(&batch);
    panics_with(&["layer 3 of 2"], || run().from_layer(3, zeros(5, 4)).resid());
    panics_with(&["layer 3 of 2"], || run().until_layer(3).resid());
    panics_with(&["(4, 4)", "(5, 4)"], || run().from_layer(1, zeros(4, 4)).resid());
    panics_with(&["(5, 3)", "(5, 4)"], || run().from_layer(1, zeros(5, 3)).resid());
    panics_with(&["from layer 2 until layer 1"], || run().from_layer(2, zeros(5, 4)).until_layer(1).resid());
    panics_with(&["from layer 2 until layer 1"], || run().until_layer(1).from_layer(2, zeros(5, 4)).hidden());
    panics_with(&["do not ascend"], || run().reading(&[2, 1]).hidden());
    panics_with(&["do not ascend"], || run().reading(&[2, 2]).hidden());
    panics_with(&["beyond the batch"], || run().reading(&[4, 5]).hidden());
    panics_with(&["a tape reaches the last layer"], || run().until_layer(1).tape());
    assert_eq!(run().from_layer(2, zeros(5, 4)).reading(&[1, 4]).tape().hidden.dim(), (2, 4));

    panics_with(&["3", "4"], || model.layer_norm(Norm::Final, zeros(2, 3).view()));
    panics_with(&["5", "4"], || model.layer_norm(Norm::Mlp(0), zeros(2, 5).view()));
    panics_with(&["h.2.ln_1.weight is absent"], || model.layer_norm(Norm::Attention(2), zeros(2, 4).view()));
    panics_with(&["(5, 3)", "(4, 11)"], || model.logits(zeros(5, 3).view()));
    panics_with(&["(4, 12)", "(5, 12)"], || model.attend(&batch, 0, zeros(4, 12).view()));
    panics_with(&["(5, 9)", "(5, 12)"], || model.attend(&batch, 0, zeros(5, 9).view()));
    panics_with(&["mlp.c_fc.weight", "3", "4"], || model.mlp(0, zeros(5, 3).view()));
    // With few entries another kernel would run.
    let sparse = ParamMask::full(model.config()).complement().ablate_complement(&model);
    panics_with(&["mlp.c_fc.weight", "3", "4"], || sparse.mlp(0, zeros(5, 3).view()));
}

#[test]
fn gradients_that_do_not_fit_their_tape() {
    let model = model(2, 2, 4);
    let batch = batch(&model);
    let tape = model.run(&batch).from_layer(1, zeros(5, 4)).tape();
    let mut none = ParamSet::zeros(model.config(), []);
    panics_with(&["(4, 4)", "(5, 4)"], || model.backward(&tape, zeros(4, 4).view(), &mut none, &mut ()));
    let read = model.run(&batch).reading(&[1]).tape();
    panics_with(&["(5, 4)", "(1, 4)"], || model.backward(&read, zeros(5, 4).view(), &mut none, &mut ()));
    panics_with(&["Attention(0) is not on a tape from layer 1"], || {
        model.through_norm(&tape, Norm::Attention(0), zeros(5, 4).view_mut());
    });
    panics_with(&["Mlp(1)", "(4, 4)", "(5, 4)"], || {
        model.through_norm(&tape, Norm::Mlp(1), zeros(4, 4).view_mut());
    });

    let config = model.config();
    panics_with(&["wte.weight is not a parameter of a block"], || {
        ParamEntries::new(config, ParamId::TokenEmbedding, vec![0])
    });
    panics_with(&["h.2.ln_1.bias is not a parameter of a block"], || {
        ParamEntries::new(config, ParamId::Block(2, BlockParam::Ln1Bias), vec![0])
    });
    panics_with(&["scalars of h.0.mlp.c_fc.weight that do not ascend"], || {
        ParamEntries::new(config, MLP_IN, vec![3, 3])
    });
    panics_with(&["scalar 64 of h.0.mlp.c_fc.weight, which has 64"], || {
        ParamEntries::new(config, MLP_IN, vec![3, 64])
    });
    let vector = ParamId::Block(1, BlockParam::MlpInBias);
    for id in [vector, ParamId::Block(1, BlockParam::MlpInWeight)] {
        let entries = [ParamEntries::new(config, id, vec![1, 2])];
        let into = |sums: &mut [Vec<f64>]| {
            model.backward_to_entries(&tape, zeros(5, 4).view(), &entries, sums);
        };
        panics_with(&["a list of sums for each parameter"], || into(&mut []));
        panics_with(&[&format!("a sum for each scalar of {id}"), "1", "2"], || into(&mut [vec![0.0]]));
        into(&mut [vec![0.0; 2]]);
    }

    let first = Batch::new(config, &[[1, 2, 3]]).unwrap();
    panics_with(&["a tape of some rows"], || read.clone().truncate(config, &first));
    let other = Batch::new(config, &[[1, 2, 4]]).unwrap();
    panics_with(&["does not begin with this one"], || tape.clone().truncate(config, &other));
    let sharing = Batch::prefix_sharing(config, &[[1, 2, 3], [1, 2, 4]]).unwrap();
    panics_with(&["sequences that share rows"], || model.run(&sharing).tape().truncate(config, &first));
}

#[test]
fn kv_caches_that_do_not_fit() {
    let model = model(2, 2, 4);
    let config = model.config();
    let qkv = [zeros(5, 12), zeros(5, 12)];
    let good = KvCache::prefixes(&qkv, &[3, 2], &[2, 0]);
    assert_eq!((good.lengths(), good.n_layers()), ([2, 0].as_slice(), 2));
    panics_with(&["a beginning of 4 rows of 3"], || KvCache::prefixes(&qkv, &[3, 2], &[4, 0]));
    panics_with(&["rows of the whole sequences", "5", "6"], || KvCache::prefixes(&qkv, &[3, 3], &[2, 0]));
    panics_with(&["one start per sequence", "2", "1"], || KvCache::prefixes(&qkv, &[3, 2], &[2]));
    panics_with(&["one suffix for each beginning", "1", "2"], || Batch::after(config, good.clone(), &[[1]]));
    let suffixes = [[1], [2]];
    for other in [self::model(1, 2, 4), self::model(2, 2, 6)] {
        panics_with(&["of the KV cache and of the model"], || {
            Batch::after(other.config(), good.clone(), &suffixes)
        });
        let batch = Batch::after(config, good.clone(), &suffixes).unwrap();
        panics_with(&["of the KV cache and of the model"], || other.run(&batch).hidden());
    }
    panics_with(&["one start per sequence", "2", "1"], || model.suffixes(&[[1, 2], [3, 4]], &[1]));
    panics_with(&[], || model.suffixes(&[[1, 2]], &[3]));
    let why = model.suffixes(&[[1, 2]], &[2]).unwrap_err().to_string();
    assert_eq!(why, "sequence 0 has no tokens; expected at least one");
}

#[test]
fn states_that_are_not_cached() {
    let model = model(2, 2, 4);
    let batch = batch(&model);
    let cache = model.run(&batch).cache([HookPoint::ResidPre]);
    for state in
        [locus_gpt2::ActivationCache::q, locus_gpt2::ActivationCache::k, locus_gpt2::ActivationCache::v]
    {
        panics_with(&["no Qkv of layer 0 in the cache"], || state(&cache, 0, 0).nrows());
    }
    panics_with(&["no Z of layer 1 in the cache"], || cache.z(1, 0).nrows());
    panics_with(&["no pattern of layer 1, head 0, sequence 1"], || cache.pattern(1, 0, 1).nrows());
    assert!(cache.get(0, HookPoint::ResidPost).is_none() && cache.get(2, HookPoint::ResidPre).is_none());
    let all = model.run(&batch).cache([HookPoint::Qkv, HookPoint::Z, HookPoint::Pattern]);
    for state in
        [locus_gpt2::ActivationCache::q, locus_gpt2::ActivationCache::v, locus_gpt2::ActivationCache::z]
    {
        panics_with(&["head 2 of 2"], || state(&all, 0, 2).nrows());
        panics_with(&["of layer 2 in the cache"], || state(&all, 2, 0).nrows());
    }
    panics_with(&["sequence 2"], || all.pattern(0, 0, 2).nrows());
    panics_with(&["head 2"], || all.pattern(0, 2, 0).nrows());

    panics_with(&["no ResidPost of layer 0"], || logit_lens(&model, &cache, &[0]));
    let lens = model.run(&batch).cache([HookPoint::ResidPost]);
    panics_with(&[], || logit_lens(&model, &lens, &[5]));
    for missing in ATTRIBUTION_POINTS {
        let points = ATTRIBUTION_POINTS.into_iter().filter(|&point| point != missing);
        let cache = model.run(&batch).cache(points);
        panics_with(&[&format!("no {missing:?} of layer")], || {
            direct_logit_attribution(&model, &cache, 0, [1, 2])
        });
    }
    let some = model.run(&batch).reading(&[1]).cache(ATTRIBUTION_POINTS);
    panics_with(&["rows of the cache and of its batch", "1", "5"], || {
        direct_logit_attribution(&model, &some, 0, [1, 2])
    });
    let cache = model.run(&batch).cache(ATTRIBUTION_POINTS);
    panics_with(&[], || direct_logit_attribution(&model, &cache, 5, [1, 2]));
    panics_with(&[], || direct_logit_attribution(&model, &cache, 0, [1, 11]));
}

#[test]
fn losses_and_steps_that_do_not_fit() {
    let model = model(1, 1, 4);
    let batch = batch(&model);
    let tape = model.run(&batch).tape();
    let targets = [Target { row: 0, token: 2 }, Target { row: 1, token: 3 }];
    let mut none = ParamSet::zeros(model.config(), []);
    panics_with(&["one weight per target", "2", "1"], || {
        model.nll_backward(&tape, &targets, &[1.0], &mut none)
    });
    panics_with(&["3"], || nll_of_row(&mut [0.0; 3], 3));

    let hidden = zeros(5, 4);
    panics_with(&[], || model.nll(hidden.view(), &[Target { row: 5, token: 1 }]));
    panics_with(&[], || model.nll(hidden.view(), &[Target { row: 0, token: 11 }]));
    let packed = PromptTargets::<f64>::new(model.config(), &[([1], [2, 3])]).unwrap();
    panics_with(&["mid > len"], || packed.mean_per_sequence(&[1.0]));

    let head = ScoreHead { weight: zeros(3, 4) };
    panics_with(&["one class per sequence", "1", "2"], || {
        head.cross_entropy_backward(zeros(2, 4).view(), &[0])
    });
    panics_with(&["one class per row", "1", "2"], || cross_entropy(&mut zeros(2, 3), &[0]));
    panics_with(&["3"], || cross_entropy(&mut zeros(1, 3), &[3]));
    panics_with(&["(2, 5)", "(4, 3)"], || head.read_out(zeros(2, 5).view()));
    let train = |classes: &[usize]| {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        ScoreHead::train(zeros(2, 4).view(), classes, 3, &HeadTraining::default(), &mut rng)
    };
    panics_with(&["one class per row", "2", "3"], || train(&[0, 1, 2]));
    panics_with(&["class 3 of 3"], || train(&[0, 3]));

    let adam = AdamW::new(0.1);
    let step = |params, grads, moments| {
        let (mut params, grads, mut moments) = (vec![0.0; params], vec![0.0; grads], Moments::zeros(moments));
        adam.step(1, &mut params, &grads, &mut moments);
    };
    panics_with(&["3 parameters", "[2, 3, 3]"], || step(3, 2, 3));
    panics_with(&["3 parameters", "[3, 2, 2]"], || step(3, 3, 2));
    panics_with(&["2 parameters", "[3, 3, 3]"], || step(2, 3, 3));
    let mut moments = Moments::zeros(3);
    let (mean, square) = moments.parts_mut();
    panics_with(&["3 parameters", "[3, 3, 2]"], || {
        adam.step_part(1, &mut [0.0; 3], &[0.0; 3], (mean, &mut square[..2]));
    });
}
