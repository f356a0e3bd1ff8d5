//! The lens against the model: the last layer's logits are the model's, and attributions sum to the logit difference.

use locus_gpt2::lens::{
    ATTRIBUTION_POINTS, Component, centred_logit_attribution, direct_logit_attribution, logit_lens,
};
use locus_gpt2::{Batch, HookPoint, Norm};
use ndarray::Axis;
use proptest::prelude::*;
use proptest::sample::Index;

use crate::support::{cases, problem};

proptest! {
    #![proptest_config(cases(32))]

    /// Each layer's logits are those of its residual stream; the last layer's are the model's, to the bit when the same
    /// rows are asked for (a BLAS may add up in another order for another number of rows).
    #[test]
    fn logits_of_every_layer(problem in problem(), every in 1usize..4) {
        let (model, batch) = (problem.model(), problem.batch());
        let cache = model.run(&batch).cache([HookPoint::ResidPost]);
        let logits = model.run(&batch).logits();
        let all: Vec<usize> = (0..batch.n_rows()).collect();
        let lens = logit_lens(&model, &cache, &all);
        prop_assert_eq!(lens.index_axis(Axis(0), model.config().n_layer - 1), logits.view());
        let rows: Vec<usize> = all.into_iter().rev().filter(|row| row % every == 0).collect();
        let lens = logit_lens(&model, &cache, &rows);
        prop_assert_eq!(lens.dim(), (model.config().n_layer, rows.len(), model.config().vocab_size));
        for (layer, lens) in lens.axis_iter(Axis(0)).enumerate() {
            let resid = model.run(&batch).until_layer(layer + 1).resid();
            let expected = model.logits(model.layer_norm(Norm::Final, resid.view()).view());
            for (lens, &row) in lens.rows().into_iter().zip(&rows) {
                let near = |(a, b): (&f64, &f64)| (a - b).abs() < 1e-12;
                prop_assert!(lens.iter().zip(expected.row(row)).all(near), "layer {layer}, row {row}");
            }
        }
    }

    /// One part for each component, which sum to the logit difference at any row: whole sequences and suffixes alike.
    #[test]
    fn attributions_sum_to_the_logit_difference(problem in problem(), cut in any::<Index>(), tokens in any::<[Index; 2]>()) {
        let model = problem.model();
        let config = model.config();
        let starts: Vec<usize> = problem.sequences.iter().map(|tokens| cut.index(tokens.len())).collect();
        let tokens = tokens.map(|token| token.index(config.vocab_size) as u32);
        let sharing = Batch::prefix_sharing(config, &problem.sequences).unwrap();
        for batch in [problem.batch(), sharing, model.suffixes(&problem.sequences, &starts).unwrap()] {
            let (logits, cache) = (model.run(&batch).logits(), model.run(&batch).cache(ATTRIBUTION_POINTS));
            for row in 0..batch.n_rows() {
                let parts = direct_logit_attribution(&model, &cache, row, tokens);
                let mut components: Vec<Component> = parts.iter().map(|(component, _)| *component).collect();
                components.sort();
                components.dedup();
                prop_assert_eq!(components.len(), 3 + config.n_layer * (config.n_head + 2));
                let [correct, incorrect] = tokens.map(|token| logits[[row, token as usize]]);
                let sum: f64 = parts.iter().map(|(_, part)| part).sum();
                prop_assert!((sum - (correct - incorrect)).abs() < 1e-10, "{sum} and {}", correct - incorrect);
                let centred = centred_logit_attribution(&model, &cache, row, tokens[0]);
                let sum: f64 = centred.iter().map(|(_, part)| part).sum();
                let expected = correct - logits.row(row).mean().unwrap();
                prop_assert!((sum - expected).abs() < 1e-10, "{sum} and {expected}");
            }
        }
    }

    /// A part is what changes, with the final LayerNorm's deviation as it is, when the component writes nothing.
    /// Checked on the last MLP, whose output nothing but the final LayerNorm reads.
    #[test]
    fn the_part_of_the_last_mlp(problem in problem()) {
        let (model, batch) = (problem.model(), problem.batch());
        let last = model.config().n_layer - 1;
        let cache = model.run(&batch).cache(ATTRIBUTION_POINTS);
        let row = batch.n_rows() - 1;
        let parts = direct_logit_attribution(&model, &cache, row, [0, 1]);
        let part = |wanted: Component| parts.iter().find(|(component, _)| *component == wanted).unwrap().1;
        let resid = cache.get(last, HookPoint::ResidPost).unwrap();
        let written = cache.get(last, HookPoint::MlpOut).unwrap();
        let deviation = |x: ndarray::ArrayView1<f64>| (x.var(0.0) + model.config().layer_norm_epsilon).sqrt();
        let logit = |x: ndarray::ArrayView1<f64>| {
            let hidden = model.layer_norm(Norm::Final, x.to_owned().insert_axis(Axis(0)).view());
            let bias = ndarray::aview1(model.get(locus_gpt2::ParamId::FinalNormBias));
            let logits = model.logits((&hidden - &bias).view());
            (logits[[0, 0]] - logits[[0, 1]]) * deviation(x)
        };
        let without = &resid.row(row) - &written.row(row);
        let expected = (logit(resid.row(row)) - logit(without.view())) / deviation(resid.row(row));
        let found = part(Component::Mlp(last));
        prop_assert!((found - expected).abs() < 1e-9, "{found} and {expected}");
    }
}
