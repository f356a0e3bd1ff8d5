//! A tiny random task: model, head, ragged rows, and the classes the full model chooses.

use locus_circuits::{ReadOut, TaskObjective};
use locus_gpt2::{Config, Gpt2, ParamId, ParamMask, ParamSet, ScoreHead, argmax, last_hidden_of};
use locus_testkit::random_vector;
use ndarray::Array2;
use proptest::prelude::*;
use rand::RngExt;
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};

pub struct Case {
    pub model: Gpt2<f64>,
    pub head: ScoreHead<f64>,
    pub sequences: Vec<Vec<u32>>,
    pub classes: Vec<usize>,
}

impl Case {
    /// A model with weights large enough that the choice depends on the blocks, biases and gains included. The head's
    /// direction is random but orthogonal to the mean state, so that both classes occur about equally often.
    pub fn new(rows: usize, seed: u64) -> Self {
        let mut config = Config::new(2, 2, 8, 16, 20);
        config.initializer_range = 0.5;
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut model = Gpt2::<f64>::init(&config, &mut rng);
        for (i, id) in ParamId::all(&config).filter(|id| id.is_vector()).enumerate() {
            let noise = random_vector(id.len(&config), seed ^ (i as u64 + 1));
            model.get_mut(id).iter_mut().zip(noise).for_each(|(w, noise)| *w += 0.2 * noise);
        }
        let sequences: Vec<Vec<u32>> = (0..rows)
            .map(|_| {
                let length = rng.random_range(2..=12);
                (0..length).map(|_| rng.random_range(0..20)).collect()
            })
            .collect();
        let features = last_hidden_of(&model, &sequences).unwrap();
        let mean = features.mean_axis(ndarray::Axis(0)).unwrap();
        let mut weight = Array2::from_shape_vec((2, 8), random_vector(16, seed ^ 99)).unwrap();
        for mut class in weight.rows_mut() {
            let share = class.dot(&mean) / mean.dot(&mean);
            class.scaled_add(-share, &mean);
        }
        let head = ScoreHead { weight };
        let classes = argmax(head.read_out(features.view()).view());
        Case { model, head, sequences, classes }
    }

    pub fn objective(&self) -> TaskObjective<'_, f64> {
        let Case { model, head, sequences, classes } = self;
        TaskObjective { model, read_out: ReadOut::Head(head, classes), sequences }
    }

    /// Share of the training rows on which the masked model chooses as the full model does.
    pub fn agreement(&self, mask: &ParamMask) -> f64 {
        let predicted = self.head.predict(&mask.ablate_complement(&self.model), &self.sequences).unwrap();
        let same = predicted.iter().zip(&self.classes).filter(|(a, b)| a == b).count();
        same as f64 / self.classes.len() as f64
    }

    pub fn random_mask(&self, density: f64, seed: u64) -> ParamMask {
        let config = self.model.config();
        let count = locus_circuits::masks::count_at_density(config, density);
        ParamMask::random(config, count, &mut ChaCha8Rng::seed_from_u64(seed))
    }
}

/// All block parameters, tensor by tensor.
pub fn flat(params: &ParamSet<f64>) -> Vec<f64> {
    ParamId::maskable(params.config()).flat_map(|id| params.get(id).to_vec()).collect()
}

/// The inverse of [`flat`]: `model` with other block parameters.
pub fn with_blocks(model: &Gpt2<f64>, flat: &[f64]) -> Gpt2<f64> {
    let mut changed = model.clone();
    let mut rest = flat;
    for id in ParamId::maskable(model.config()) {
        let (own, others) = rest.split_at(id.len(model.config()));
        changed.insert(id, own.to_vec());
        rest = others;
    }
    changed
}

/// Whether each block parameter is kept, in the order of [`flat`].
pub fn inside(mask: &ParamMask) -> Vec<bool> {
    mask.tensors().flat_map(|(_, inside)| inside.iter()).collect()
}

pub fn on_threads<T: Send>(threads: usize, work: impl FnOnce() -> T + Send) -> T {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(work)
}

/// Few cases: each is a whole model, and proptest keeps the failures.
pub fn cases(n: u32) -> ProptestConfig {
    // A fixed seed: the same tests run everywhere.
    let rng_seed = proptest::test_runner::RngSeed::Fixed(u64::from(n));
    ProptestConfig { cases: n, failure_persistence: None, rng_seed, ..ProptestConfig::default() }
}

pub fn rng(seed: u64) -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(seed)
}
