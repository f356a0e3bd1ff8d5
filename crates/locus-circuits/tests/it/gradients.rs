//! The objective's gradient against finite differences, and the attribution made from it.

use locus_circuits::Objective;
use locus_circuits::masks::{ReadOut, TaskObjective, WeightScore, score_weights, weight_attribution};
use locus_gpt2::{Batch, Gpt2, ParamId, cross_entropy};
use locus_testkit::{REORDERED_F64, assert_close, check_directional};
use proptest::prelude::*;

use crate::support::{Case, cases, flat, on_threads, with_blocks};

/// Mean cross-entropy, one row at a time.
fn loss(case: &Case, model: &Gpt2<f64>, rows: &[usize]) -> f64 {
    let of = |row: usize| {
        let batch = Batch::new(model.config(), &[&case.sequences[row]]).unwrap();
        cross_entropy(&mut case.head.logits(model, &batch), &[case.classes[row]])
    };
    rows.iter().map(|&row| of(row)).sum::<f64>() / rows.len() as f64
}

proptest! {
    #![proptest_config(cases(12))]

    /// At a masked model, as in training: with respect to the masked values, outside ones included.
    #[test]
    fn gradient_is_the_derivative(seed in any::<u64>(), density in 0.1f64..=1.0, picked in 1usize..12) {
        let mut case = Case::new(12, seed);
        // The second and third of the rows picked share all of theirs with the first: one is the same, one its
        // beginning.
        case.sequences[5] = case.sequences[0].clone();
        case.sequences[10] = case.sequences[0][..case.sequences[0].len().div_ceil(2)].to_vec();
        let rows: Vec<usize> = (0..picked).map(|i| (i * 5) % 12).collect();
        let masked = case.random_mask(density, seed).ablate_complement(&case.model);
        let (value, gradient) = case.objective().gradient(&masked, &rows).unwrap();
        assert_close("loss", &[value], &[loss(&case, &masked, &rows)], REORDERED_F64);
        prop_assert_eq!(gradient.ids().collect::<Vec<_>>(), ParamId::maskable(masked.config()).collect::<Vec<_>>());
        check_directional("all blocks", &flat(&masked), &flat(&gradient), seed, |values| {
            loss(&case, &with_blocks(&masked, values), &rows)
        });
        // Each tensor on its own, so that a wrong one is named.
        for id in gradient.ids() {
            check_directional(&id.to_string(), masked.get(id), gradient.get(id), seed, |values| {
                let mut changed = masked.clone();
                changed.insert(id, values.to_vec());
                loss(&case, &changed, &rows)
            });
        }
    }

    /// Pieces of any size add up to the whole, and cover every row once.
    #[test]
    fn pieces_sum_to_the_whole(seed in any::<u64>(), max_rows in 1usize..80) {
        let case = Case::new(30, seed);
        let rows: Vec<usize> = (0..30).rev().collect();
        let (whole_loss, whole) = case.objective().gradient(&case.model, &rows).unwrap();
        let mut parts = Vec::new();
        let mut take = |loss, part| parts.push((loss, part));
        case.objective().gradient_parts(&case.model, &rows, max_rows, &mut take).unwrap();
        let lengths: Vec<&Vec<u32>> = rows.iter().map(|&row| &case.sequences[row]).collect();
        prop_assert_eq!(parts.len(), locus_gpt2::chunk_by_tokens(&lengths, max_rows).len());
        let mut sum = vec![0.0; flat(&whole).len()];
        for (_, part) in &parts {
            sum.iter_mut().zip(flat(part)).for_each(|(sum, x)| *sum += x);
        }
        assert_close("loss", &[parts.iter().map(|(loss, _)| loss).sum()], &[whole_loss], REORDERED_F64);
        assert_close("gradient", &sum, &flat(&whole), REORDERED_F64);
    }

    /// `sum over pieces |w g|`, and therefore nothing for a weight of zero.
    #[test]
    fn attribution_is_the_sum_of_absolute_parts(seed in any::<u64>(), piece_rows in 1usize..200) {
        let mut case = Case::new(50, seed);
        let config = case.model.config().clone();
        for id in ParamId::maskable(&config) {
            case.model.get_mut(id).iter_mut().step_by(3).for_each(|w| *w = 0.0);
        }
        let objective = case.objective();
        let scores = flat(&weight_attribution(&objective, piece_rows).unwrap());
        let weights = flat(&case.model);
        let mut expected = vec![0.0; weights.len()];
        let rows: Vec<usize> = (0..50).collect();
        // All rows at once: how many are held at the same time does not change the sum.
        let mut take = |_, part| {
            for ((sum, w), g) in expected.iter_mut().zip(&weights).zip(flat(&part)) {
                *sum += (w * g).abs();
            }
        };
        objective.gradient_parts(&case.model, &rows, piece_rows, &mut take).unwrap();
        assert_close("attribution", &scores, &expected, REORDERED_F64);
        for (score, weight) in scores.iter().zip(&weights) {
            prop_assert!(*score >= 0.0 && (*weight != 0.0 || *score == 0.0), "{} of {}", score, weight);
        }
        prop_assert!(scores.iter().filter(|&&score| score > 0.0).count() > scores.len() / 5);
    }
}

proptest! {
    #![proptest_config(cases(8))]

    /// With two answers per row instead of a head: the derivative of a loss written out here.
    #[test]
    fn gradient_of_answers_is_the_derivative(seed in any::<u64>(), density in 0.3f64..=1.0) {
        let case = Case::new(9, seed);
        let answers: Vec<[u32; 2]> = (0..9).map(|i| [i, (i + 7) % 20]).collect();
        let objective =
            TaskObjective { model: &case.model, read_out: ReadOut::Answers(&answers), sequences: &case.sequences };
        let masked = case.random_mask(density, seed).ablate_complement(&case.model);
        let rows = [0, 3, 4, 8];
        let (value, gradient) = objective.gradient(&masked, &rows).unwrap();
        let loss = |model: &Gpt2<f64>| {
            let of = |&row: &usize| {
                let batch = Batch::new(model.config(), &[&case.sequences[row]]).unwrap();
                let hidden = locus_gpt2::last_hidden(model, &batch);
                let logits = model.logits(hidden.view());
                let [correct, incorrect] = answers[row].map(|token| logits[(0, token as usize)]);
                (1.0 + (incorrect - correct).exp()).ln()
            };
            rows.iter().map(of).sum::<f64>() / 4.0
        };
        assert_close("loss", &[value], &[loss(&masked)], REORDERED_F64);
        check_directional("all blocks", &flat(&masked), &flat(&gradient), seed, |values| {
            loss(&with_blocks(&masked, values))
        });
    }

    /// Every score of weights against its formula, gradients taken row by row.
    #[test]
    fn weight_scores_follow_their_formulas(seed in any::<u64>()) {
        const N: usize = 70; // more rows than are held at a time, and not a multiple of them
        let case = Case::new(N, seed);
        let objective = case.objective();
        let w = flat(&case.model);
        let at = |model: &Gpt2<f64>| -> Vec<Vec<f64>> {
            (0..N).map(|row| flat(&objective.gradient(model, &[row]).unwrap().1)).collect()
        };
        let g = at(&case.model);
        let n = N as f64;
        let sum = |g: &[Vec<f64>], term: &dyn Fn(f64) -> f64| -> Vec<f64> {
            (0..w.len()).map(|j| g.iter().map(|g| term(g[j] / n)).sum()).collect()
        };
        let score = |method| flat(&score_weights(&objective, method).unwrap());
        let check = |method, expected: Vec<f64>| assert_close(&format!("{method:?}"), &score(method), &expected, REORDERED_F64);
        let times = |g: Vec<f64>| -> Vec<f64> { g.iter().zip(&w).map(|(g, w)| (g * w).abs()).collect() };
        check(WeightScore::Snip, times(sum(&g, &|g| g)));
        check(WeightScore::SnipPerExample, times(sum(&g, &f64::abs)));
        check(WeightScore::Fisher, sum(&g, &|g| g * g).iter().zip(&w).map(|(g, w)| g * w * w).collect());
        check(WeightScore::Magnitude, w.iter().map(|w| w.abs()).collect());
        let mut mean = vec![0.0; w.len()];
        for alpha in [1.0 / 6.0, 0.5, 5.0 / 6.0] {
            let scaled: Vec<f64> = w.iter().map(|w| alpha * w).collect();
            let g = sum(&at(&with_blocks(&case.model, &scaled)), &|g| g);
            mean.iter_mut().zip(g).for_each(|(mean, g)| *mean += g / 3.0);
        }
        check(WeightScore::Integrated(3), times(mean));
    }
}

#[test]
fn threads_do_not_matter() {
    let case = Case::new(200, 1);
    let rows: Vec<usize> = (0..200).collect();
    let run = |threads| {
        on_threads(threads, || {
            let (loss, gradient) = case.objective().gradient(&case.model, &rows).unwrap();
            (loss, flat(&gradient), flat(&weight_attribution(&case.objective(), 40).unwrap()))
        })
    };
    assert!(case.sequences.iter().map(Vec::len).sum::<usize>() > 2 * 512, "several pieces");
    assert_eq!(run(1), run(3));
}

#[test]
fn rows_that_do_not_fit_are_refused() {
    let mut case = Case::new(5, 1);
    case.sequences[3] = vec![1; 17];
    let why = weight_attribution(&case.objective(), 40).unwrap_err().to_string();
    assert!(why.contains("17 tokens") && why.contains("at most 16"), "{why}");
}
