//! Parameter masks: which scalars of the blocks belong to a circuit. Circuits and editors meet in this type.

use std::path::Path;

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use safetensors::Dtype;

use crate::classify::shuffle;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::params::{ParamId, Params};
use crate::safetensors_io::{file_shape, read_safetensors, write_safetensors};
use crate::scalar::Scalar;

/// A subset of the block parameters, scalar by scalar.
#[derive(Clone, Debug, PartialEq)]
pub struct ParamMask {
    config: Config,
    /// One byte per scalar (1 = inside), tensor by tensor in the order of [`ParamId::maskable`].
    inside: Vec<(ParamId, Vec<u8>)>,
}

impl ParamMask {
    /// A mask from a rule on `(parameter, index within it)`.
    pub fn from_fn(config: &Config, mut rule: impl FnMut(ParamId, usize) -> bool) -> Self {
        let inside = ParamId::maskable(config)
            .map(|id| (id, (0..id.len(config)).map(|i| u8::from(rule(id, i))).collect()))
            .collect();
        ParamMask { config: config.clone(), inside }
    }

    /// A mask from a rule on a parameter, which says of each of its scalars whether it is inside.
    ///
    /// # Panics
    /// When it does not say so of as many as there are.
    pub fn from_tensors(config: &Config, mut rule: impl FnMut(ParamId) -> Vec<bool>) -> Self {
        let inside = ParamId::maskable(config).map(|id| {
            let inside = rule(id);
            assert_eq!(inside.len(), id.len(config), "scalars of {id}");
            (id, inside.into_iter().map(u8::from).collect())
        });
        ParamMask { config: config.clone(), inside: inside.collect() }
    }

    /// Every block parameter.
    pub fn full(config: &Config) -> Self {
        ParamMask::from_fn(config, |_, _| true)
    }

    /// Exactly `count` scalars drawn without replacement from all block parameters.
    ///
    /// # Panics
    /// When `count` exceeds their number.
    pub fn random(config: &Config, count: usize, rng: &mut ChaCha8Rng) -> Self {
        // Selection sampling (Knuth, TAOCP 2, algorithm S): one pass, exact count.
        let (mut left, mut wanted) = (ParamMask::population(config), count);
        assert!(wanted <= left, "{count} of {left} parameters");
        ParamMask::from_fn(config, |_, _| {
            let inside = rng.random_range(0..left) < wanted;
            left -= 1;
            wanted -= usize::from(inside);
            inside
        })
    }

    /// A random mask with as many scalars inside each tensor as this one.
    pub fn shuffled(&self, rng: &mut ChaCha8Rng) -> Self {
        let mut mask = self.clone();
        mask.inside.iter_mut().for_each(|(_, bytes)| shuffle(bytes, rng));
        mask
    }

    /// Number of block parameters of a model.
    pub fn population(config: &Config) -> usize {
        ParamId::maskable(config).map(|id| id.len(config)).sum()
    }

    /// The model's shape.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Tensors in order, one byte per scalar: 1 inside, 0 outside.
    pub fn tensors(&self) -> impl Iterator<Item = (ParamId, &[u8])> {
        self.inside.iter().map(|(id, bytes)| (*id, bytes.as_slice()))
    }

    /// Everything outside this mask.
    pub fn complement(&self) -> Self {
        let mut mask = self.clone();
        mask.inside.iter_mut().flat_map(|(_, bytes)| bytes).for_each(|byte| *byte ^= 1);
        mask
    }

    /// Number of scalars inside.
    pub fn count(&self) -> usize {
        self.tensors().map(|(_, bytes)| count_ones(bytes)).sum()
    }

    /// Share of block parameters inside.
    pub fn density(&self) -> f64 {
        self.count() as f64 / ParamMask::population(&self.config) as f64
    }

    /// Scalars inside each tensor, with the tensor's size, in order.
    pub fn counts(&self) -> Vec<(ParamId, usize, usize)> {
        self.tensors().map(|(id, bytes)| (id, count_ones(bytes), bytes.len())).collect()
    }

    /// Scalars inside both masks, tensor by tensor.
    ///
    /// # Panics
    /// When the masks belong to models of different shape.
    pub fn intersection_counts(&self, other: &ParamMask) -> Vec<usize> {
        assert_eq!(self.config, other.config, "masks of different models");
        self.tensors()
            .zip(other.tensors())
            .map(|((_, a), (_, b))| a.iter().zip(b).map(|(a, b)| usize::from(a & b)).sum())
            .collect()
    }

    /// The model with every block parameter outside the mask set to zero; embeddings and final LayerNorm are shared.
    ///
    /// # Panics
    /// When the mask belongs to a model of another shape.
    pub fn isolate<F: Scalar>(&self, model: &Params<F>) -> Params<F> {
        let mut masked = model.clone();
        for (id, bytes) in self.tensors() {
            let kept =
                model.get(id).iter().zip(bytes).map(|(&w, &inside)| if inside == 1 { w } else { F::zero() });
            masked.insert(id, kept.collect());
        }
        masked
    }

    /// Sets the gradient of every parameter outside to zero.
    pub fn gate<F: Scalar>(&self, grads: &mut Params<F>) {
        for (id, bytes) in self.tensors().filter(|(id, _)| grads.has(*id)).collect::<Vec<_>>() {
            for (grad, &inside) in grads.get_mut(id).iter_mut().zip(bytes) {
                if inside == 0 {
                    *grad = F::zero();
                }
            }
        }
    }

    /// SHA-256 over names and bytes, lowercase hex.
    pub fn sha256(&self) -> String {
        use sha2::{Digest, Sha256};
        let mut hash = Sha256::new();
        for (id, bytes) in self.tensors() {
            hash.update(id.to_string());
            hash.update([0]);
            hash.update(bytes);
        }
        hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Writes the mask format: one U8 tensor per parameter under its Hugging Face name.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, path: &Path, provenance: &str) -> Result<()> {
        let tensors: Vec<_> = self
            .tensors()
            .map(|(id, bytes)| {
                (format!("transformer.{id}"), Dtype::U8, file_shape(id, &self.config), bytes.to_vec())
            })
            .collect();
        write_safetensors(path, &tensors, provenance)
    }

    /// Reads the mask format. Parameters that are absent from the file are inside; names may lack the prefix.
    ///
    /// # Errors
    /// When a tensor is not a block parameter of this model, has another shape or type, or values other than 0 and 1.
    pub fn read(path: &Path, config: &Config) -> Result<Self> {
        read_safetensors(path, |tensors, _| {
            let mut mask = ParamMask::full(config);
            for (name, view) in tensors.iter() {
                let short = name.strip_prefix("transformer.").unwrap_or(name);
                let wrong = |why: String| Err(Error::format(path, format!("tensor {name} {why}")));
                let Some((id, bytes)) = mask.inside.iter_mut().find(|(id, _)| id.to_string() == short) else {
                    return wrong("is not a block parameter of this model".into());
                };
                let shape = file_shape(*id, config);
                if view.dtype() != Dtype::U8 || view.shape() != shape {
                    return wrong(format!("is {:?} {:?}; expected U8 {shape:?}", view.dtype(), view.shape()));
                }
                if let Some(byte) = view.data().iter().find(|&&byte| byte > 1) {
                    return wrong(format!("has the value {byte}; expected 0 or 1"));
                }
                bytes.copy_from_slice(view.data());
            }
            Ok(mask)
        })
    }
}

fn count_ones(bytes: &[u8]) -> usize {
    bytes.iter().map(|&byte| usize::from(byte)).sum()
}
