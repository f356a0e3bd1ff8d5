//! Control masks: what a circuit must be held against.

use std::sync::OnceLock;

use locus_circuits::masks::{WeightStrata, count_at_density, top_k};
use locus_data::seed::stream;
use locus_gpt2::{Config, Gpt2, ParamId, ParamMask, ParamSet, Scalar};

/// Draws control masks for the circuits of one model, the same for the same seed.
pub struct Controls<'a, F> {
    model: &'a Gpt2<F>,
    /// Strata of the weights, made when first needed: a byte for each parameter.
    strata: OnceLock<WeightStrata>,
    /// Absolute values of all parameters, once they are needed: they take as much memory as the parameters.
    magnitudes: OnceLock<ParamSet<F>>,
    seed: u64,
}

impl<'a, F: Scalar> Controls<'a, F> {
    /// Prepares controls for circuits of a model.
    pub fn new(model: &'a Gpt2<F>, seed: u64) -> Self {
        Controls { model, strata: OnceLock::new(), magnitudes: OnceLock::new(), seed }
    }

    /// The model's shape.
    pub fn config(&self) -> &'a Config {
        self.model.config()
    }

    /// Tensors and classes of |w| that a matched mask keeps.
    pub fn strata(&self) -> &WeightStrata {
        // Not by `get_or_init`: strata are made on all threads, and one that waits for the others may take up work that
        // asks for the strata, which would wait for itself.
        if self.strata.get().is_none() {
            let _ = self.strata.set(WeightStrata::new(self.model));
        }
        self.strata.get().expect("is set")
    }

    /// A uniformly random mask of a density.
    pub fn random(&self, density: f64, draw: usize) -> ParamMask {
        let rng = &mut stream(self.seed, &format!("random scope/{density}"), draw as u64);
        ParamMask::random(self.config(), count_at_density(self.config(), density), rng)
    }

    /// A mask that keeps as many parameters of every tensor and class of |w| as a circuit. `name` names the circuit.
    pub fn matched(&self, circuit: &ParamMask, name: &str, draw: usize) -> ParamMask {
        self.strata().matched(circuit, &mut stream(self.seed, &format!("matched/{name}"), draw as u64))
    }

    /// The `count` largest weights by magnitude.
    pub fn magnitude(&self, count: usize) -> ParamMask {
        let magnitudes = || {
            let mut magnitudes = ParamSet::zeros(self.config(), []);
            for id in ParamId::maskable(self.config()) {
                magnitudes.insert(id, self.model.get(id).iter().map(|w| w.abs()).collect());
            }
            magnitudes
        };
        top_k(self.magnitudes.get_or_init(magnitudes), count)
    }
}

/// A model of random weights with another's configuration, as GPT-2 is initialised.
pub fn random_weights<F: Scalar>(config: &Config, seed: u64) -> Gpt2<F> {
    Gpt2::init(config, &mut stream(seed, "random weights", 0))
}
