//! Every backward against directional finite differences in f64.

use locus_gpt2::internal::select_rows;
use locus_gpt2::{
    BlockParam, Gpt2, HookPoint, ParamEntries, ParamId, ParamSet, PromptTargets, ScoreHead, Target,
};
use locus_testkit::{REORDERED_F64, assert_close, check_directional, random_vector};
use ndarray::{Array2, ArrayViewMut2};
use proptest::prelude::*;

use crate::support::{Problem, cases, problem};

/// A smooth loss of the final hidden states with a random gradient.
fn probe(problem: &Problem, shape: (usize, usize)) -> Array2<f64> {
    Array2::from_shape_vec(shape, random_vector(shape.0 * shape.1, problem.seed ^ 77)).unwrap()
}

fn with(model: &Gpt2<f64>, id: ParamId, values: &[f64]) -> Gpt2<f64> {
    let mut changed = model.clone();
    changed.insert(id, values.to_vec());
    changed
}

fn next_token_targets(problem: &Problem) -> Vec<Target> {
    let batch = problem.batch();
    batch
        .sequences()
        .flat_map(|s| (s.start..s.end.max(1) - 1).map(|row| Target { row, token: batch.tokens()[row + 1] }))
        .collect()
}

proptest! {
    #![proptest_config(cases(24))]

    /// LayerNorm, attention, MLP, biases, both embeddings: each tensor on its own, so that a wrong one is named.
    #[test]
    fn every_parameter(problem in problem()) {
        let (model, batch) = (problem.model(), problem.batch());
        let tape = model.run(&batch).tape();
        let d_hidden = probe(&problem, tape.hidden.dim());
        let mut grads = ParamSet::zeros(model.config(), ParamId::all(model.config()));
        model.backward(&tape, d_hidden.view(), &mut grads, &mut ());
        for id in ParamId::all(model.config()) {
            check_directional(&id.to_string(), model.get(id), grads.get(id), problem.seed, |values| {
                (with(&model, id, values).run(&batch).hidden() * &d_hidden).sum()
            });
        }
    }

    /// Gradients of chosen scalars are those of the pass to all of them, also of a loss that reads last rows only.
    #[test]
    fn chosen_scalars(problem in problem(), every in 1usize..20) {
        let (model, batch) = (problem.model(), problem.batch());
        let reads = batch.last_rows();
        let tape = model.run(&batch).reading(&reads).tape();
        let d_hidden = probe(&problem, tape.hidden.dim());
        let mut all = ParamSet::zeros(model.config(), ParamId::maskable(model.config()));
        model.backward(&tape, d_hidden.view(), &mut all, &mut ());
        let places = |id: ParamId| (0..id.len(model.config()) as u32).filter(|i| i * 7 % every as u32 == 0).collect();
        let chosen: Vec<ParamEntries> =
            ParamId::maskable(model.config()).map(|id| ParamEntries::new(model.config(), id, places(id))).collect();
        let mut sums: Vec<Vec<f64>> = chosen.iter().map(|chosen| vec![0.0; chosen.indices().len()]).collect();
        model.backward_to_entries(&tape, d_hidden.view(), &chosen, &mut sums);
        for ((id, chosen), sums) in ParamId::maskable(model.config()).zip(&chosen).zip(&sums) {
            let expected: Vec<f64> = chosen.indices().iter().map(|&i| all.get(id)[i as usize]).collect();
            assert_close(&id.to_string(), sums, &expected, REORDERED_F64);
        }
    }

    /// The residual stream entering any layer: what activation-only backward returns.
    #[test]
    fn residual_stream(problem in problem(), layer in 0usize..3) {
        let (model, batch) = (problem.model(), problem.batch());
        let layer = layer.min(model.config().n_layer - 1);
        let x = model.run(&batch).until_layer(layer).resid();
        let tape = model.run(&batch).from_layer(layer, x.clone()).tape();
        let d_hidden = probe(&problem, tape.hidden.dim());
        let mut none = ParamSet::zeros(model.config(), []);
        let d_x = model.backward(&tape, d_hidden.view(), &mut none, &mut ());
        prop_assert_eq!(none.ids().count(), 0);
        check_directional("resid", x.as_slice().unwrap(), d_x.as_slice().unwrap(), problem.seed, |values| {
            let x = Array2::from_shape_vec(x.dim(), values.to_vec()).unwrap();
            (model.run(&batch).from_layer(layer, x).tape().hidden * &d_hidden).sum()
        });
    }

    /// The gradient a hook sees at each hook point is the derivative with respect to what a hook adds there: this
    /// separates LayerNorm, attention, GELU and the two linear maps of the MLP.
    #[test]
    fn every_hook_point(problem in problem()) {
        const POINTS: [HookPoint; 11] = [
            HookPoint::ResidPre, HookPoint::Ln1, HookPoint::Qkv, HookPoint::Z, HookPoint::AttnOut, HookPoint::ResidMid,
            HookPoint::Ln2, HookPoint::MlpPre, HookPoint::MlpPost, HookPoint::MlpOut, HookPoint::ResidPost,
        ];
        let (model, batch) = (problem.model(), problem.batch());
        let layer = model.config().n_layer / 2;
        let tape = model.run(&batch).tape();
        let d_hidden = probe(&problem, tape.hidden.dim());
        let mut seen = std::collections::BTreeMap::new();
        let mut hook = |at: usize, point: HookPoint, d: ArrayViewMut2<f64>| {
            if at == layer {
                seen.insert(point, d.to_owned());
            }
        };
        let mut none = ParamSet::zeros(model.config(), []);
        model.backward(&tape, d_hidden.view(), &mut none, &mut hook);
        for point in POINTS {
            let d = seen[&point].as_slice().unwrap().to_vec();
            check_directional(&format!("{point:?}"), &vec![0.0; d.len()], &d, problem.seed, |shift| {
                let mut add = |at: usize, here: HookPoint, mut state: ArrayViewMut2<f64>| {
                    if at == layer && here == point {
                        state.iter_mut().zip(shift).for_each(|(x, s)| *x += s);
                    }
                };
                (model.run(&batch).with_hooks(&mut add).tape().hidden * &d_hidden).sum()
            });
        }
    }

    /// The whole language model with its tied head.
    #[test]
    fn language_model_loss(problem in problem()) {
        let (model, batch) = (problem.model(), problem.batch());
        let targets = next_token_targets(&problem);
        let weights = random_vector(targets.len(), problem.seed);
        let tape = model.run(&batch).tape();
        let mut grads = ParamSet::zeros(model.config(), ParamId::all(model.config()));
        let (nll, d_hidden) = model.nll_backward(&tape, &targets, &weights, &mut grads);
        model.backward(&tape, d_hidden.view(), &mut grads, &mut ());
        let again = model.nll(model.run(&batch).hidden().view(), &targets);
        locus_testkit::assert_close("nll", &nll, &again, locus_testkit::REORDERED_F64);
        for id in [ParamId::TokenEmbedding, ParamId::PositionEmbedding, ParamId::Block(0, BlockParam::AttnInWeight)] {
            check_directional(&id.to_string(), model.get(id), grads.get(id), problem.seed, |values| {
                let model = with(&model, id, values);
                model.nll(model.run(&batch).hidden().view(), &targets).iter().zip(&weights).map(|(nll, w)| nll * w).sum()
            });
        }
    }

    /// The score head's cross-entropy down to the first block.
    #[test]
    fn classification_loss(problem in problem()) {
        let (model, batch) = (problem.model(), problem.batch());
        let d = model.config().n_embd;
        let head = ScoreHead { weight: Array2::from_shape_vec((2, d), random_vector(2 * d, problem.seed)).unwrap() };
        let classes: Vec<usize> = (0..batch.n_sequences()).map(|i| (i + problem.seed as usize) % 2).collect();
        // The states of the last tokens alone, so this checks the last block's leaving out of rows too.
        let last = batch.last_rows();
        let tape = model.run(&batch).reading(&last).tape();
        let mut grads = ParamSet::zeros(model.config(), ParamId::maskable(model.config()));
        let (_, d_hidden) = head.cross_entropy_backward(tape.hidden.view(), &classes);
        model.backward(&tape, d_hidden.view(), &mut grads, &mut ());
        for id in [ParamId::Block(0, BlockParam::MlpInWeight), ParamId::Block(0, BlockParam::Ln1Weight)] {
            check_directional(&id.to_string(), model.get(id), grads.get(id), problem.seed, |values| {
                let model = with(&model, id, values);
                let last = select_rows(model.run(&batch).hidden().view(), &batch.last_rows());
                head.cross_entropy_backward(last.view(), &classes).0
            });
        }
    }
}

/// A prompt and target are scored as one sequence without its last token.
#[test]
fn prompt_targets_lay_out() {
    let config = locus_gpt2::Config::new(1, 1, 4, 8, 9);
    let laid = PromptTargets::<f32>::new(&config, &[(vec![1, 2], vec![3]), (vec![4], vec![5, 6])]).unwrap();
    assert_eq!(laid.batch.tokens(), [1, 2, 4, 5]);
    let rows: Vec<_> = laid.targets.iter().map(|t| (t.row, t.token)).collect();
    assert_eq!(rows, [(1, 3), (2, 5), (3, 6)]);
    assert_eq!(laid.mean_per_sequence(&[1.0, 2.0, 4.0]), [1.0, 3.0]);
    let pairs = [(vec![1, 2], vec![3]), (vec![1, 2], vec![4, 5]), (vec![1], vec![2, 3])];
    let laid = PromptTargets::<f32>::prefix_sharing(&config, &pairs).unwrap();
    assert_eq!(laid.batch.tokens(), [1, 2, 4]);
    let rows: Vec<_> = laid.targets.iter().map(|t| (t.row, t.token)).collect();
    assert_eq!(rows, [(1, 3), (1, 4), (2, 5), (0, 2), (1, 3)]);
}
