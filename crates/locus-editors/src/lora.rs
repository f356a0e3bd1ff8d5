//! LoRA, merged: a change `scale A B` of low rank in the query, key and value matrix (`c_attn`) of every layer, trained
//! with Adam on the mean NLL of the target after the prompt.
//!
//! Sources: Hu et al. 2021 (arXiv 2106.09685, section 4: `A` random, `B` zero, `scale = alpha / rank`); rank, alpha,
//! steps and learning rate as EasyEdit uses them for GPT-2 XL. Deviations: no dropout, no adaptive ranks.

use locus_gpt2::{
    AdamW, BlockParam, Config, Gpt2, Moments, ParamId, ParamMask, ParamSet, PromptTargets, Scalar, compiled,
    gemm,
};
use ndarray::{Array2, ArrayView2};
use rand::RngExt;
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};
use serde::{Deserialize, Serialize};

use crate::editor::{Edit, EditInput, Editor, Report, check_mask};
use crate::error::{Error, Result};
use crate::fact::Fact;
use crate::patch::Patch;

/// Constants of the edit.
///
/// | name | default | range | purpose |
/// |---|---|---|---|
/// | `rank` | 8 | 1 to the model's width | columns of `A` |
/// | `alpha` | 32 | above 0 | `scale = alpha / rank` |
/// | `lr` | 5e-3 | above 0 | learning rate of Adam |
/// | `steps` | 30 | at least 1 | number of steps; there is no early stop |
/// | `seed` | 0 | | seed of the initial `A` |
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Lora {
    /// Columns of `A`.
    pub rank: usize,
    /// Numerator of `scale = alpha / rank`.
    pub alpha: f64,
    /// Learning rate of Adam.
    pub lr: f64,
    /// Number of steps; there is no early stop.
    pub steps: usize,
    /// Seed of the initial `A`.
    pub seed: u64,
}

impl Default for Lora {
    fn default() -> Self {
        Lora { rank: 8, alpha: 32.0, lr: 5e-3, steps: 30, seed: 0 }
    }
}

impl Lora {
    /// Checks every constant against the model.
    ///
    /// # Errors
    /// When one is out of its range.
    pub fn check(&self, config: &Config) -> Result<()> {
        let wrong = |name, value, expected| Err(Error::Parameter { editor: "lora", name, value, expected });
        if self.rank == 0 || self.rank > config.n_embd {
            return wrong("rank", self.rank as f64, "1 to the width of the model");
        }
        for (name, value) in [("alpha", self.alpha), ("lr", self.lr)] {
            if !value.is_finite() || value <= 0.0 {
                return wrong(name, value, "a number above 0");
            }
        }
        if self.steps == 0 {
            return wrong("steps", 0.0, "at least 1");
        }
        Ok(())
    }
}

/// The factors of one layer.
struct Adapter<F> {
    id: ParamId,
    /// `A [d, rank]`
    a: Array2<F>,
    /// `B [rank, 3d]`
    b: Array2<F>,
    moments: [Moments<F>; 2],
}

impl<F: Scalar> Editor<F> for Lora {
    fn name(&self) -> &'static str {
        "lora"
    }

    fn edit(&self, model: &Gpt2<F>, facts: &[Fact], mask: Option<&ParamMask>) -> Result<Edit<F>> {
        F::run::<EditJob>((self, model, facts, mask))
    }
}

compiled!(EditJob<'a>: <F> EditInput<'a, Lora, F> => Result<Edit<F>>, edit);

fn edit<F: Scalar>((editor, model, facts, mask): EditInput<'_, Lora, F>) -> Result<Edit<F>> {
    let config = model.config();
    editor.check(config)?;
    check_mask(mask, config)?;
    facts.iter().try_for_each(|fact| fact.check(config))?;
    let pairs: Vec<_> = facts.iter().map(|fact| (&fact.contexts[0].tokens, &fact.target)).collect();
    let packed = PromptTargets::new(config, &pairs)?;
    let weights: Vec<F> =
        packed.n_targets.iter().flat_map(|&n| vec![F::from_f64(1.0 / (facts.len() * n) as f64); n]).collect();
    let mut rng = ChaCha8Rng::seed_from_u64(editor.seed);
    let mut adapters: Vec<Adapter<F>> =
        (0..config.n_layer).map(|layer| editor.adapter(layer, config, &mut rng)).collect();
    let adam = AdamW { weight_decay: 0.0, ..AdamW::new(editor.lr) };
    let mut report = Report::default();
    for step in 1..=editor.steps {
        let edited = editor.patch(model, &adapters, mask).apply(model)?;
        let mut grads = ParamSet::zeros(config, adapters.iter().map(|adapter| adapter.id));
        let tape = edited.run(&packed.batch).tape();
        let (nll, d_hidden) = edited.nll_backward(&tape, &packed.targets, &weights, &mut grads);
        report.losses.push(nll.iter().zip(&weights).map(|(nll, weight)| nll * weight.as_f64()).sum());
        edited.backward(&tape, d_hidden.view(), &mut grads, &mut ());
        if let Some(mask) = mask {
            mask.mask_gradients(&mut grads);
        }
        for Adapter { id, a, b, moments } in &mut adapters {
            // w = w_0 + scale a b; so d_a = scale d_w b^T, d_b = scale a^T d_w
            let d_w = grads.matrix(*id);
            let (mut d_a, mut d_b) = (Array2::zeros(a.dim()), Array2::zeros(b.dim()));
            gemm(editor.scale(), d_w, b.t(), F::zero(), d_a.view_mut());
            gemm(editor.scale(), a.t(), d_w, F::zero(), d_b.view_mut());
            for ((x, d_x), moments) in [(a, d_a), (b, d_b)].into_iter().zip(moments) {
                let x = x.as_slice_mut().expect("factors are contiguous");
                adam.step(step, x, d_x.as_slice().expect("fresh arrays are contiguous"), moments);
            }
        }
    }
    report.steps = editor.steps;
    let patch = editor.patch(model, &adapters, mask);
    report.into_edit(model, patch, facts)
}

impl Lora {
    fn scale<F: Scalar>(&self) -> F {
        F::from_f64(self.alpha / self.rank as f64)
    }

    fn adapter<F: Scalar>(&self, layer: usize, config: &Config, rng: &mut ChaCha8Rng) -> Adapter<F> {
        let id = ParamId::Block(layer, BlockParam::AttnInWeight);
        let (rows, columns) = id.shape(config);
        // As a linear layer is usually initialised: uniform with bound 1 / sqrt(inputs).
        let bound = 1.0 / (rows as f64).sqrt();
        let a = Array2::from_shape_simple_fn((rows, self.rank), || {
            F::from_f64(bound * (2.0 * rng.random::<f64>() - 1.0))
        });
        let b = Array2::zeros((self.rank, columns));
        let moments = [Moments::zeros(a.len()), Moments::zeros(b.len())];
        Adapter { id, a, b, moments }
    }

    fn patch<F: Scalar>(
        &self,
        model: &Gpt2<F>,
        adapters: &[Adapter<F>],
        mask: Option<&ParamMask>,
    ) -> Patch<F> {
        let factors = |Adapter { id, a, b, .. }: &Adapter<F>| {
            let transposed = ArrayView2::reversed_axes(b.view()).as_standard_layout().into_owned();
            (*id, a.mapv(|x| self.scale::<F>() * x), transposed)
        };
        let patch = Patch::low_rank(model, adapters.iter().map(factors));
        mask.map_or_else(|| patch.clone(), |mask| patch.masked(mask))
    }
}
