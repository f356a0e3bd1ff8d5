//! What the packed batch must not change: causality, batch order, batch splits, thread count, masks.

use locus_gpt2::internal::select_rows;
use locus_gpt2::{
    Batch, Gpt2, ParamId, ParamMask, ParamSet, PromptTargets, Sampling, Tape, last_hidden, unique_inverse,
};
use locus_testkit::{REORDERED_F64, assert_close};
use ndarray::s;
use proptest::prelude::*;
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};

use crate::support::{cases, problem};

fn bits(values: &[f64]) -> Vec<u64> {
    values.iter().map(|x| x.to_bits()).collect()
}

proptest! {
    #![proptest_config(cases(32))]

    /// A later token never changes an earlier row, not even its last bit.
    #[test]
    fn causality(problem in problem(), cut in any::<prop::sample::Index>(), token in any::<prop::sample::Index>()) {
        let model = problem.model();
        let sequence = &problem.sequences[0];
        let cut = cut.index(sequence.len());
        let mut changed = sequence.clone();
        changed[cut] = token.index(problem.config.vocab_size) as u32;
        let run = |tokens: &Vec<u32>| model.run(&Batch::new(&problem.config, &[tokens]).unwrap()).hidden();
        let (before, after) = (run(sequence), run(&changed));
        prop_assert_eq!(bits(&before.slice(s![..cut, ..]).iter().copied().collect::<Vec<_>>()),
                        bits(&after.slice(s![..cut, ..]).iter().copied().collect::<Vec<_>>()));
        if changed[cut] != sequence[cut] {
            prop_assert!(before.row(cut) != after.row(cut), "the changed token must be felt");
        }
    }

    /// Ragged batches give the rows of one sequence at a time, in any order.
    #[test]
    fn order_and_split(problem in problem()) {
        let model = problem.model();
        let mut reversed = problem.sequences.clone();
        reversed.reverse();
        let whole = model.run(&problem.batch()).hidden();
        let backwards = model.run(&Batch::new(&problem.config, &reversed).unwrap()).hidden();
        let mut end = backwards.nrows();
        for (rows, sequence) in problem.batch().sequences().zip(&problem.sequences) {
            let alone = model.run(&Batch::new(&problem.config, &[sequence]).unwrap()).hidden();
            let alone = alone.as_slice().unwrap();
            assert_close("batch", whole.slice(s![rows.clone(), ..]).as_slice().unwrap(), alone, REORDERED_F64);
            let start = end - sequence.len();
            assert_close("reversed", backwards.slice(s![start..end, ..]).as_slice().unwrap(), alone, REORDERED_F64);
            end = start;
        }
    }

    /// A pass over the ends of sequences, given the keys and values of their beginnings, has the states and the
    /// gradients that a pass over whole sequences has there.
    #[test]
    fn ends_of_sequences(problem in problem(), cut in any::<prop::sample::Index>()) {
        let (model, whole) = (problem.model(), problem.batch());
        let starts: Vec<usize> = problem.sequences.iter().map(|s| cut.index(s.len())).collect();
        let rows: Vec<usize> = whole.sequences().zip(&starts).flat_map(|(s, start)| s.start + start..s.end).collect();
        let ends = model.suffixes(&problem.sequences, &starts).unwrap();
        let tape = model.run(&ends).tape();
        let expected = model.run(&whole).tape();
        let at_ends = |x: &ndarray::Array2<f64>| select_rows(x.view(), &rows).into_raw_vec_and_offset().0;
        assert_close("states", tape.hidden.as_slice().unwrap(), &at_ends(&expected.hidden), REORDERED_F64);

        let d_ends = ndarray::Array2::from_shape_vec(tape.hidden.dim(),
            locus_testkit::random_vector(tape.hidden.len(), problem.seed)).unwrap();
        let mut d_whole = ndarray::Array2::zeros(expected.hidden.dim());
        for (&row, d) in rows.iter().zip(d_ends.rows()) {
            d_whole.row_mut(row).assign(&d);
        }
        let mut none = ParamSet::zeros(&problem.config, []);
        let d_x = model.backward(&tape, d_ends.view(), &mut none, &mut ());
        let d_x_whole = model.backward(&expected, d_whole.view(), &mut none, &mut ());
        assert_close("gradients", d_x.as_slice().unwrap(), &at_ends(&d_x_whole), REORDERED_F64);
    }

    /// Sequences that share the rows of what they have in common have the states of sequences that do not; and the sum
    /// of the gradients at the rows that one stands for gives the same gradients of all weights.
    #[test]
    fn rows_that_are_shared(problem in problem(), cut in any::<prop::sample::Index>(), reads_last in any::<bool>()) {
        let (model, config) = (problem.model(), &problem.config);
        let mut sequences = problem.sequences.clone();
        for sequence in &problem.sequences {
            let beginning = &sequence[..=cut.index(sequence.len())];
            let mut otherwise = beginning.to_vec();
            *otherwise.last_mut().unwrap() = (otherwise[0] + 1) % config.vocab_size as u32;
            sequences.extend([beginning.to_vec(), otherwise, sequence.clone()]);
        }
        let (whole, sharing) = (Batch::new(config, &sequences).unwrap(), Batch::prefix_sharing(config, &sequences).unwrap());
        let [last, of_whole] = [&sharing, &whole].map(|batch| last_hidden(&model, batch).into_raw_vec_and_offset().0);
        assert_close("last states", &last, &of_whole, REORDERED_F64);
        let pairs: Vec<_> = sequences.iter().map(|sequence| (sequence.as_slice(), &sequence[..1])).collect();
        let [nll, of_whole] = [PromptTargets::prefix_sharing(config, &pairs), PromptTargets::new(config, &pairs)]
            .map(|laid| laid.unwrap().nll_per_token(&model));
        assert_close("nll", &nll, &of_whole, REORDERED_F64);
        let row_of: Vec<usize> = sharing.rows().concat();
        let expected = model.run(&whole).tape();
        let d_whole = if reads_last {
            let last = whole.last_rows();
            let d = locus_testkit::random_vector(expected.hidden.ncols() * last.len(), problem.seed);
            let mut d_whole = ndarray::Array2::zeros(expected.hidden.dim());
            for (row, d) in last.into_iter().zip(d.chunks(expected.hidden.ncols())) {
                d_whole.row_mut(row).assign(&ndarray::aview1(d));
            }
            d_whole
        } else {
            let d = locus_testkit::random_vector(expected.hidden.len(), problem.seed);
            ndarray::Array2::from_shape_vec(expected.hidden.dim(), d).unwrap()
        };
        let (reads, _) = unique_inverse(&if reads_last { sharing.last_rows() } else { row_of.clone() });
        let tape = model.run(&sharing).reading(&reads).tape();
        let mut d_sharing = ndarray::Array2::zeros(tape.hidden.dim());
        for (i, row) in row_of.iter().enumerate() {
            if let Ok(place) = reads.binary_search(row) {
                let states = [tape.hidden.row(place), expected.hidden.row(i)].map(|row| row.to_vec());
                assert_close("states", &states[0], &states[1], REORDERED_F64);
                let mut d = d_sharing.row_mut(place);
                d += &d_whole.row(i);
            }
        }
        let grads = |tape: &Tape<f64>, d: &ndarray::Array2<f64>| {
            let mut grads = ParamSet::zeros(config, ParamId::all(config));
            model.backward(tape, d.view(), &mut grads, &mut ());
            grads
        };
        let (found, expected) = (grads(&tape, &d_sharing), grads(&expected, &d_whole));
        for id in ParamId::all(config) {
            assert_close(&id.to_string(), found.get(id), expected.get(id), REORDERED_F64);
        }
    }

    /// A pass whose last block goes on with some rows has their states and, from their gradients, those of all weights.
    #[test]
    fn rows_that_are_read(problem in problem(), cut in any::<prop::sample::Index>(), every in 1usize..4) {
        let (model, config) = (problem.model(), &problem.config);
        let starts: Vec<usize> = problem.sequences.iter().map(|s| cut.index(s.len())).collect();
        let batch = model.suffixes(&problem.sequences, &starts).unwrap();
        let rows: Vec<usize> = (0..batch.n_rows()).filter(|row| row % every == 0).collect();
        let some = model.run(&batch).reading(&rows).tape();
        let all = model.run(&batch).tape();
        let expected = select_rows(all.hidden.view(), &rows);
        assert_close("states", some.hidden.as_slice().unwrap(), expected.as_slice().unwrap(), REORDERED_F64);

        let d_some = ndarray::Array2::from_shape_vec(some.hidden.dim(),
            locus_testkit::random_vector(some.hidden.len(), problem.seed)).unwrap();
        let mut d_all = ndarray::Array2::zeros(all.hidden.dim());
        for (&row, d) in rows.iter().zip(d_some.rows()) {
            d_all.row_mut(row).assign(&d);
        }
        let grads = |tape: &Tape<f64>, d: &ndarray::Array2<f64>| {
            let mut grads = ParamSet::zeros(config, ParamId::all(config));
            let d_x = model.backward(tape, d.view(), &mut grads, &mut ());
            (d_x, grads)
        };
        let ((d_x, of_some), (d_x_all, of_all)) = (grads(&some, &d_some), grads(&all, &d_all));
        assert_close("stream", d_x.as_slice().unwrap(), d_x_all.as_slice().unwrap(), REORDERED_F64);
        for id in ParamId::all(config) {
            assert_close(&id.to_string(), of_some.get(id), of_all.get(id), REORDERED_F64);
        }
    }

    /// An all-ones mask is the model; a mask and its complement add up to it; the gate agrees with the mask.
    #[test]
    fn masks(problem in problem(), share in 0.0f64..=1.0) {
        let model = problem.model();
        let population = ParamMask::n_maskable(&problem.config);
        let count = (share * population as f64) as usize;
        let mask = ParamMask::random(&problem.config, count, &mut ChaCha8Rng::seed_from_u64(problem.seed));
        prop_assert_eq!(mask.count(), count);
        prop_assert_eq!(mask.complement().count(), population - count);
        prop_assert_eq!(mask.intersection_counts(&mask.complement()).iter().sum::<usize>(), 0);
        let full = ParamMask::full(&problem.config).ablate_complement(&model);
        prop_assert_eq!(full.sha256(), model.sha256());
        let (inside, outside) = (mask.ablate_complement(&model), mask.complement().ablate_complement(&model));
        let mut gated = model.clone().into_params();
        mask.mask_gradients(&mut gated);
        prop_assert_eq!(gated.sha256(), inside.sha256());
        for (id, kept) in mask.tensors() {
            for (i, kept) in kept.iter().enumerate() {
                let kept = if kept { inside.get(id) } else { outside.get(id) };
                prop_assert_eq!(kept[i], model.get(id)[i]);
                prop_assert_eq!(inside.get(id)[i] + outside.get(id)[i], model.get(id)[i]);
            }
        }
    }

    /// Greedy generation is the arg max of the full recomputation, and stops at the end of the context.
    #[test]
    fn greedy_generation(problem in problem()) {
        let model = problem.model();
        let prompt = &problem.sequences[0];
        let tokens = model.generate(prompt, 5, Sampling::Greedy).unwrap();
        prop_assert_eq!(tokens.len(), 5.min(problem.config.n_positions - prompt.len()));
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let top1 = Sampling::Draw { temperature: 0.7, top_k: 1, top_p: 1.0, rng: &mut rng };
        prop_assert_eq!(&tokens, &model.generate(prompt, 5, top1).unwrap());
        let mut so_far = prompt.clone();
        for token in tokens {
            let hidden = model.run(&Batch::new(&problem.config, &[&so_far]).unwrap()).hidden();
            let logits = model.logits(hidden.view());
            let last = logits.row(so_far.len() - 1);
            prop_assert!(last.iter().all(|&x| x <= last[token as usize]));
            so_far.push(token);
        }
    }
}

/// Products large enough to be cut into pieces give the same bits on one thread and on three.
#[test]
fn thread_count() {
    let config = locus_gpt2::Config::new(1, 2, 256, 64, 500);
    let model = Gpt2::<f32>::init(&config, &mut ChaCha8Rng::seed_from_u64(3));
    let sequences: Vec<Vec<u32>> =
        (0..40).map(|i| (0..50).map(|j| (i * 13 + j * 7) % 500).collect()).collect();
    let batch = Batch::new(&config, &sequences).unwrap();
    let on = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| model.logits(model.run(&batch).hidden().view()))
    };
    // 2000 x 500 x 256 multiply-adds: several pieces of 2^26.
    assert_eq!(on(1), on(3));
}
