//! Gradients of some scalars of the blocks, without those of the rest.

use ndarray::{ArrayView2, ArrayViewMut2};

use super::backward::backward;
use super::hooks::{Hook, HookPoint};
use super::ids::{BlockParam, ParamId};
use super::tape::Tape;
use super::weights::{Gpt2, ParamSet};
use crate::config::Config;
use crate::kernels::number::Number;
use crate::kernels::sparse::add_gradient_at;
use crate::kernels::transposed::Transposed;

/// Some scalars of one block parameter.
#[derive(Clone, Debug)]
pub struct ParamEntries {
    id: ParamId,
    indices: Vec<u32>,
}

impl ParamEntries {
    /// Scalars by their indices in the parameter, which ascend.
    ///
    /// # Panics
    /// When the indices do not ascend, the parameter has fewer scalars, or it is not one of the model's blocks'.
    pub fn new(config: &Config, id: ParamId, indices: Vec<u32>) -> Self {
        let is_of_block = matches!(id, ParamId::Block(layer, _) if layer < config.n_layer);
        assert!(is_of_block, "{id} is not a parameter of a block");
        assert!(indices.is_sorted_by(|a, b| a < b), "scalars of {id} that do not ascend");
        let last = indices.last().map_or(0, |&last| last as usize);
        assert!(last < id.len(config), "scalar {last} of {id}, which has {}", id.len(config));
        ParamEntries { id, indices }
    }

    /// Indices of the scalars in the parameter, ascending.
    pub fn indices(&self) -> &[u32] {
        &self.indices
    }
}

/// Runs the backward pass for some scalars of the blocks: adds each one's gradient to its place in `sums`.
pub(crate) fn backward_to_entries<F: Number>(
    model: &Gpt2<F>,
    tape: &Tape<F>,
    d_hidden: ArrayView2<F>,
    entries: &[ParamEntries],
    sums: &mut [Vec<F>],
) {
    assert_eq!(entries.len(), sums.len(), "a list of sums for each parameter");
    for (entries, sums) in entries.iter().zip(&*sums) {
        assert_eq!(sums.len(), entries.indices.len(), "a sum for each scalar of {}", entries.id);
    }
    let vectors = entries.iter().map(|entries| entries.id).filter(|id| id.is_vector());
    let mut of_vectors = ParamSet::zeros(model.config(), vectors);
    let transposed = [Transposed::new(), Transposed::new()];
    let mut matrices = Matrices { tape, entries, sums, transposed };
    backward(model, tape, d_hidden, &mut of_vectors, &mut matrices);
    for (entries, sums) in entries.iter().zip(sums).filter(|(entries, _)| entries.id.is_vector()) {
        let gradients = of_vectors.get(entries.id);
        sums.iter_mut().zip(&entries.indices).for_each(|(sum, &index)| *sum += gradients[index as usize]);
    }
}

/// The hook that takes from a backward pass what the entries of matrices need.
struct Matrices<'a, F> {
    tape: &'a Tape<F>,
    entries: &'a [ParamEntries],
    sums: &'a mut [Vec<F>],
    /// Room for the two factors of a product.
    transposed: [Transposed<F>; 2],
}

impl<F: Number> Hook<F> for Matrices<'_, F> {
    fn call(&mut self, layer: usize, point: HookPoint, d_y: ArrayViewMut2<F>) {
        let block = &self.tape.blocks[layer - self.tape.first_layer];
        let (weight, x) = match point {
            HookPoint::Qkv => (BlockParam::AttnInWeight, &block.ln_1_out),
            HookPoint::AttnOut => (BlockParam::AttnOutWeight, &block.z),
            HookPoint::MlpPre => (BlockParam::MlpInWeight, &block.ln_2_out),
            HookPoint::MlpOut => (BlockParam::MlpOutWeight, &block.mlp_post),
            _ => return,
        };
        let id = ParamId::Block(layer, weight);
        let wanted = self.entries.iter().zip(&mut *self.sums).filter(|(entries, _)| entries.id == id);
        for (entries, sums) in wanted {
            add_gradient_at(&entries.indices, x.view(), d_y.view(), &mut self.transposed, sums);
        }
    }
}
