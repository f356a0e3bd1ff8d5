//! Masks of an exact size, cut from scores.

use locus_gpt2::{Config, ParamId, ParamMask, ParamSet, Scalar, TensorMask, compiled};
use rayon::prelude::*;

use super::order::{BINS, bin};
use super::task_objective::MANY_PARAMETERS;

/// Number of parameters in a circuit of a density in (0, 1]: the nearest whole number, at least one.
pub fn count_at_density(config: &Config, density: f64) -> usize {
    let population = ParamMask::n_maskable(config);
    ((density * population as f64).round() as usize).clamp(1, population)
}

/// The `count` parameters with the largest scores over all tensors. Equal scores are taken in parameter order, so the
/// result has exactly `count` members whatever the ties.
///
/// # Panics
/// When `count` is 0 or exceeds the number of block parameters, or a score is NaN.
pub fn top_k<F: Scalar>(scores: &ParamSet<F>, count: usize) -> ParamMask {
    F::run::<TopKJob>((scores, count))
}

compiled!(TopKJob<'a>: <F> (&'a ParamSet<F>, usize) => ParamMask, largest);

fn largest<F: Scalar>((scores, count): (&ParamSet<F>, usize)) -> ParamMask {
    let config = scores.config();
    let population = ParamMask::n_maskable(config);
    assert!(count >= 1 && count <= population, "{count} of {population} parameters");
    let tensors: Vec<&[F]> = ParamId::maskable(config).map(|id| scores.get(id)).collect();
    let cut = if population > MANY_PARAMETERS { cut_by_counts::<F> } else { cut_of_copy::<F> };
    let (threshold, mut ties) = cut(&tensors, count);
    let equal: Vec<usize> =
        tensors.par_iter().map(|scores| scores.iter().filter(|&&score| score == threshold).count()).collect();
    let of_tensor = |equal: usize| {
        let taken = equal.min(ties);
        ties -= taken;
        taken
    };
    let ties: Vec<usize> = equal.into_iter().map(of_tensor).collect();
    let inside = tensors.par_iter().zip(ties).map(|(scores, mut ties)| {
        let inside = |&score: &F| {
            let tie = score == threshold && ties > 0;
            ties -= usize::from(tie);
            score > threshold || tie
        };
        scores.iter().map(inside).collect()
    });
    let inside: Vec<TensorMask> = inside.collect();
    let mut inside = inside.into_iter();
    ParamMask::from_tensors(config, |_| inside.next().expect("one list for each tensor"))
}

/// The `count`-th largest score, and the number of scores equal to it among the `count` largest: from a copy of all
/// scores.
fn cut_of_copy<F: Scalar>(tensors: &[&[F]], count: usize) -> (F, usize) {
    let mut all = tensors.concat();
    let at = all.len() - count;
    let (_, &mut threshold, above) =
        all.select_nth_unstable_by(at, |a, b| a.partial_cmp(b).expect("scores are not NaN"));
    let strictly_above = above.iter().filter(|&&score| score > threshold).count();
    (threshold, count - strictly_above)
}

/// Scores that are counted at a time.
const COUNTED: usize = 1 << 21;

/// As [`cut_of_copy`], from the number of scores in each [`bin`], and a copy of the scores in one bin alone.
fn cut_by_counts<F: Scalar>(tensors: &[&[F]], count: usize) -> (F, usize) {
    let pieces: Vec<&[F]> = tensors.iter().flat_map(|scores| scores.chunks(COUNTED)).collect();
    let none = || vec![0usize; BINS];
    let counts = pieces
        .par_iter()
        .fold(none, |mut counts, piece| {
            piece.iter().for_each(|&score| counts[bin(score)] += 1);
            counts
        })
        .reduce(none, |mut counts, others| {
            counts.iter_mut().zip(others).for_each(|(count, other)| *count += other);
            counts
        });
    let (mut at, mut above) = (BINS - 1, 0);
    while above + counts[at] < count {
        above += counts[at];
        at -= 1;
    }
    let of_bin = |piece: &&[F]| piece.iter().copied().filter(|&score| bin(score) == at).collect::<Vec<F>>();
    let of_bin: Vec<Vec<F>> = pieces.par_iter().map(of_bin).collect();
    cut_of_copy(&[of_bin.concat().as_slice()], count - above)
}

/// The share `density` of each tensor with the largest scores, so that all tensors are equally dense: the nearest whole
/// number of a tensor's parameters, at least one. Equal scores are taken in parameter order.
///
/// # Panics
/// When the density is not in (0, 1], or a score is NaN.
pub fn top_k_per_tensor<F: Scalar>(scores: &ParamSet<F>, density: f64) -> ParamMask {
    F::run::<PerTensorJob>((scores, density))
}

compiled!(PerTensorJob<'a>: <F> (&'a ParamSet<F>, f64) => ParamMask, largest_per_tensor);

fn largest_per_tensor<F: Scalar>((scores, density): (&ParamSet<F>, f64)) -> ParamMask {
    assert!(density > 0.0 && density <= 1.0, "a density of {density}");
    let config = scores.config();
    ParamMask::from_tensors(config, |id| {
        let scores = scores.get(id);
        let count = ((density * scores.len() as f64).round() as usize).max(1);
        let mut order: Vec<usize> = (0..scores.len()).collect();
        order.sort_by(|&a, &b| scores[b].partial_cmp(&scores[a]).expect("scores are not NaN"));
        let mut inside = vec![false; scores.len()];
        order[..count].iter().for_each(|&i| inside[i] = true);
        inside.into_iter().collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::masks::order::awkward_scores;

    #[test]
    fn ties_do_not_change_the_size() {
        let config = Config::new(1, 1, 3, 4, 5);
        let mut scores = ParamSet::<f32>::zeros(&config, ParamId::maskable(&config));
        for id in ParamId::maskable(&config) {
            scores.get_mut(id).iter_mut().enumerate().for_each(|(i, s)| *s = (i % 3) as f32);
        }
        for count in [1, 2, 17, 50, ParamMask::n_maskable(&config)] {
            let mask = top_k(&scores, count);
            assert_eq!(mask.count(), count);
            let lowest_in = worst(&scores, &mask, f32::INFINITY, f32::min);
            let highest_out = worst(&scores, &mask.complement(), f32::NEG_INFINITY, f32::max);
            assert!(highest_out <= lowest_in);
        }
    }

    /// Counting and copying give one cut: with ties, both zeros, infinities and scores that differ in their last bits.
    #[test]
    fn counting_cuts_where_sorting_does() {
        for scores in awkward_scores() {
            let tensors = [&scores[..100], &scores[100..101], &scores[101..]];
            for count in [1, 2, 99, 498, 499, 500, 996, 997] {
                let (copied, counted) = (cut_of_copy(&tensors, count), cut_by_counts(&tensors, count));
                assert!(copied == counted, "{count}: {copied:?} and {counted:?}");
            }
        }
    }

    #[test]
    fn every_tensor_gets_its_share() {
        let config = Config::new(1, 1, 3, 4, 5);
        let mut scores = ParamSet::<f32>::zeros(&config, ParamId::maskable(&config));
        for (t, id) in ParamId::maskable(&config).enumerate() {
            scores.get_mut(id).iter_mut().enumerate().for_each(|(i, s)| *s = (1000 * t + i % 4) as f32);
        }
        let mask = top_k_per_tensor(&scores, 0.25);
        for ((id, kept, size), (_, inside)) in mask.counts().into_iter().zip(mask.tensors()) {
            assert_eq!(kept, ((0.25 * size as f64).round() as usize).max(1), "{id}");
            let ends = |kept: bool| {
                let scores = inside.iter().zip(scores.get(id));
                scores.filter(move |(inside, _)| *inside == kept).map(|(_, &score)| score)
            };
            assert!(
                ends(true).fold(f32::INFINITY, f32::min) >= ends(false).fold(f32::NEG_INFINITY, f32::max),
                "{id}"
            );
        }
        assert_eq!(top_k_per_tensor(&scores, 1.0), ParamMask::full(&config));
    }

    fn worst(scores: &ParamSet<f32>, mask: &ParamMask, start: f32, pick: fn(f32, f32) -> f32) -> f32 {
        let inside = mask.tensors().flat_map(|(id, inside)| inside.indices().map(move |i| scores.get(id)[i]));
        inside.fold(start, pick)
    }
}
