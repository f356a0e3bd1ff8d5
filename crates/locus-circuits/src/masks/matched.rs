//! Matched masks: random masks that keep as many parameters of every tensor and size as a given one, but know no task.
//!
//! Parameters of one tensor whose |w| falls between the same two quantiles of the tensor form a stratum. A matched mask
//! permutes the membership of a circuit within each stratum, so whatever follows from the circuit's size, its composition
//! or its preference for large weights holds for the matched mask as well; what remains is the choice of parameters.

use locus_gpt2::{Gpt2, ParamId, ParamMask, Scalar, TensorMask, compiled};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

/// Classes of |w| in a tensor, each with about as many parameters.
const CLASSES: usize = 16;

/// The stratum of every block parameter: its tensor and class of |w|.
#[derive(Clone, Debug)]
pub struct WeightStrata {
    /// Class of each parameter, tensor by tensor.
    classes: Vec<(ParamId, Vec<u8>)>,
}

compiled!(StrataJob<'a>: <F> &'a Gpt2<F> => WeightStrata, strata);

fn strata<F: Scalar>(model: &Gpt2<F>) -> WeightStrata {
    let ids: Vec<ParamId> = ParamId::maskable(model.config()).collect();
    let classes = ids.into_par_iter().map(|id| {
        let magnitudes: Vec<F> = model.get(id).iter().map(|w| w.abs()).collect();
        let mut sorted = magnitudes.clone();
        sorted.sort_unstable_by(|a, b| a.partial_cmp(b).expect("weights are not NaN"));
        // Equal magnitudes are never told apart, so a tensor of equal weights is one stratum.
        let bounds: Vec<F> = (1..CLASSES).map(|class| sorted[class * sorted.len() / CLASSES]).collect();
        let class = |w: &F| bounds.partition_point(|bound| bound <= w) as u8;
        (id, magnitudes.iter().map(class).collect())
    });
    WeightStrata { classes: classes.collect() }
}

impl WeightStrata {
    /// The strata of a model's weights.
    ///
    /// # Panics
    /// When a weight is NaN.
    pub fn new<F: Scalar>(model: &Gpt2<F>) -> Self {
        F::run::<StrataJob>(model)
    }

    /// A random mask with as many parameters inside each stratum as `mask`.
    ///
    /// # Panics
    /// When the mask belongs to a model of another shape.
    pub fn matched(&self, mask: &ParamMask, rng: &mut ChaCha8Rng) -> ParamMask {
        let tensors: Vec<TensorMask> = self
            .zip(mask)
            .map(|(classes, inside)| {
                let mut left = counts(classes, inside);
                // Selection sampling (Knuth, TAOCP 2, algorithm S) in every stratum: one pass, exact counts.
                classes
                    .iter()
                    .map(|&class| {
                        let [wanted, size] = &mut left[usize::from(class)];
                        let inside = rng.random_range(0..*size) < *wanted;
                        *size -= 1;
                        *wanted -= usize::from(inside);
                        inside
                    })
                    .collect()
            })
            .collect();
        let mut tensors = tensors.into_iter();
        ParamMask::from_tensors(mask.config(), |_| tensors.next().expect("a tensor for each parameter"))
    }

    /// Expected number of parameters that two masks share when they are independent within every stratum:
    /// `sum_s a_s b_s / n_s`, with `a_s` and `b_s` of the `n_s` parameters of stratum `s` inside.
    ///
    /// # Panics
    /// When a mask belongs to a model of another shape.
    pub fn expected_intersection(&self, a: &ParamMask, b: &ParamMask) -> f64 {
        let tensors = self.zip(a).zip(self.zip(b));
        let expected = tensors.map(|((classes, a), (_, b))| -> f64 {
            let strata = counts(classes, a).into_iter().zip(counts(classes, b));
            let shared = |([a, size], [b, _]): ([usize; 2], [usize; 2])| (a * b) as f64 / size.max(1) as f64;
            strata.map(shared).sum()
        });
        expected.sum()
    }

    fn zip<'a>(&'a self, mask: &'a ParamMask) -> impl Iterator<Item = (&'a [u8], &'a TensorMask)> {
        let tensors = self.classes.iter().zip(mask.tensors());
        tensors.map(|((id, classes), (of, inside))| {
            assert!(*id == of && classes.len() == inside.len(), "a mask of another model: {of}");
            (classes.as_slice(), inside)
        })
    }
}

/// Numbers of parameters inside a mask, and in all, of each class of one tensor.
fn counts(classes: &[u8], inside: &TensorMask) -> [[usize; 2]; CLASSES] {
    let mut counts = [[0; 2]; CLASSES];
    for (&class, inside) in classes.iter().zip(inside.iter()) {
        let [kept, size] = &mut counts[usize::from(class)];
        *kept += usize::from(inside);
        *size += 1;
    }
    counts
}

#[cfg(test)]
mod tests {
    use locus_gpt2::Config;
    use rand_chacha::rand_core::SeedableRng;

    use super::*;
    use crate::masks::count_at_density;

    fn model() -> Gpt2<f64> {
        Gpt2::init(&Config::new(2, 2, 16, 16, 32), &mut ChaCha8Rng::seed_from_u64(3))
    }

    fn kept_per_stratum(strata: &WeightStrata, mask: &ParamMask) -> Vec<[[usize; 2]; CLASSES]> {
        strata.zip(mask).map(|(classes, inside)| counts(classes, inside)).collect()
    }

    #[test]
    fn a_matched_mask_keeps_every_stratum_and_nothing_else() {
        let model = model();
        let strata = WeightStrata::new(&model);
        // The largest weights: a mask that prefers some strata as much as can be.
        let config = model.config();
        let all: Vec<f64> =
            ParamId::maskable(config).flat_map(|id| model.get(id).iter().map(|w| w.abs())).collect();
        let mut sorted = all.clone();
        sorted.sort_by(|a, b| b.total_cmp(a));
        let bound = sorted[count_at_density(config, 0.2)];
        let mask = ParamMask::from_fn(config, |id, i| model.get(id)[i].abs() > bound);
        let matched = strata.matched(&mask, &mut ChaCha8Rng::seed_from_u64(1));
        assert_eq!(kept_per_stratum(&strata, &matched), kept_per_stratum(&strata, &mask));
        assert_ne!(matched, mask);
        let again = strata.matched(&mask, &mut ChaCha8Rng::seed_from_u64(1));
        assert_eq!(again, matched);
    }

    #[test]
    fn matched_masks_share_what_is_expected() {
        let model = model();
        let strata = WeightStrata::new(&model);
        let mask = ParamMask::random(model.config(), 2000, &mut ChaCha8Rng::seed_from_u64(5));
        let expected = strata.expected_intersection(&mask, &mask);
        let draws = 200;
        let shared: usize = (0..draws)
            .map(|draw| {
                let matched = strata.matched(&mask, &mut ChaCha8Rng::seed_from_u64(draw));
                mask.intersection(&matched).count()
            })
            .sum();
        // The standard deviation of one intersection is below the root of the mask's size.
        let tolerance = 4.0 * (2000.0 / draws as f64).sqrt();
        assert!((shared as f64 / draws as f64 - expected).abs() < tolerance, "{shared} against {expected}");
    }

    #[test]
    fn equal_weights_are_one_stratum() {
        let model = model();
        let strata = WeightStrata::new(&model);
        // Biases start at 0.
        let (_, classes) =
            strata.classes.iter().find(|(id, _)| model.get(*id).iter().all(|&w| w == 0.0)).unwrap();
        assert!(classes.iter().all(|class| class == &classes[0]));
    }

    #[test]
    #[should_panic(expected = "a mask of another model")]
    fn masks_of_other_models_are_refused() {
        let strata = WeightStrata::new(&model());
        let other = ParamMask::full(&Config::new(2, 2, 8, 16, 32));
        let _ = strata.matched(&other, &mut ChaCha8Rng::seed_from_u64(0));
    }
}
