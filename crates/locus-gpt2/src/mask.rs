//! Parameter masks: which scalars of the blocks belong to a circuit. Circuits and editors meet in this type.

use std::path::Path;

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use safetensors::Dtype;

use crate::config::Config;
use crate::error::{Error, Result};
use crate::io::safetensors::{file_shape, read_safetensors, write_safetensors};
use crate::io::weights::by_short_name;
use crate::model::ids::ParamId;
use crate::model::weights::{Gpt2, ParamSet};
use crate::random::shuffle;
use crate::scalar::{Scalar, compiled};

/// A subset of the block parameters, scalar by scalar.
#[derive(Clone, Debug, PartialEq)]
pub struct ParamMask {
    config: Config,
    /// One byte per scalar (1 = inside), tensor by tensor in the order of [`ParamId::maskable`].
    kept: Vec<(ParamId, Vec<u8>)>,
}

impl ParamMask {
    /// A mask from a rule on `(parameter, index within it)`.
    pub fn from_fn(config: &Config, mut rule: impl FnMut(ParamId, usize) -> bool) -> Self {
        let kept = ParamId::maskable(config)
            .map(|id| (id, (0..id.len(config)).map(|i| u8::from(rule(id, i))).collect()))
            .collect();
        ParamMask { config: config.clone(), kept }
    }

    /// A mask from a rule that gives, for each parameter, whether each of its scalars is inside.
    ///
    /// # Panics
    /// When the rule returns another number of scalars than the parameter has.
    pub fn from_tensors(config: &Config, mut rule: impl FnMut(ParamId) -> Vec<bool>) -> Self {
        let kept = ParamId::maskable(config).map(|id| {
            let inside = rule(id);
            assert_eq!(inside.len(), id.len(config), "scalars of {id}");
            (id, inside.into_iter().map(u8::from).collect())
        });
        ParamMask { config: config.clone(), kept: kept.collect() }
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
        let (mut left, mut wanted) = (ParamMask::n_maskable(config), count);
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
        mask.kept.iter_mut().for_each(|(_, bytes)| shuffle(bytes, rng));
        mask
    }

    /// Number of block parameters of a model.
    pub fn n_maskable(config: &Config) -> usize {
        ParamId::maskable(config).map(|id| id.len(config)).sum()
    }

    /// The model's shape.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Tensors in order, one byte per scalar: 1 inside, 0 outside.
    pub fn tensors(&self) -> impl Iterator<Item = (ParamId, &[u8])> {
        self.kept.iter().map(|(id, bytes)| (*id, bytes.as_slice()))
    }

    /// Scalars that are outside this mask.
    pub fn complement(&self) -> Self {
        let mut mask = self.clone();
        mask.kept.iter_mut().flat_map(|(_, bytes)| bytes).for_each(|byte| *byte ^= 1);
        mask
    }

    /// Scalars that are in this mask or the other.
    ///
    /// # Panics
    /// When the masks belong to models of different shape.
    pub fn union(&self, other: &ParamMask) -> Self {
        self.combined(other, |a, b| a | b)
    }

    /// Scalars that are in both masks.
    ///
    /// # Panics
    /// When the masks belong to models of different shape.
    pub fn intersection(&self, other: &ParamMask) -> Self {
        self.combined(other, |a, b| a & b)
    }

    /// Scalars that are in this mask and not in the other.
    ///
    /// # Panics
    /// When the masks belong to models of different shape.
    pub fn difference(&self, other: &ParamMask) -> Self {
        self.combined(other, |a, b| a & !b)
    }

    fn combined(&self, other: &ParamMask, rule: impl Fn(u8, u8) -> u8) -> Self {
        self.assert_fits(&other.config);
        let mut mask = self.clone();
        for ((_, bytes), (_, other)) in mask.kept.iter_mut().zip(&other.kept) {
            bytes.iter_mut().zip(other).for_each(|(byte, &other)| *byte = rule(*byte, other));
        }
        mask
    }

    /// Number of scalars in the mask.
    pub fn count(&self) -> usize {
        self.tensors().map(|(_, bytes)| count_ones(bytes)).sum()
    }

    /// Share of the block parameters that are in the mask, in [0, 1].
    pub fn density(&self) -> f64 {
        self.count() as f64 / ParamMask::n_maskable(&self.config) as f64
    }

    /// Number of scalars in the mask and in all, tensor by tensor, in order.
    pub fn counts(&self) -> Vec<(ParamId, usize, usize)> {
        self.tensors().map(|(id, bytes)| (id, count_ones(bytes), bytes.len())).collect()
    }

    /// Number of scalars that are in both masks, tensor by tensor.
    ///
    /// # Panics
    /// When the masks belong to models of different shape.
    pub fn intersection_counts(&self, other: &ParamMask) -> Vec<usize> {
        self.assert_fits(&other.config);
        self.tensors()
            .zip(other.tensors())
            .map(|((_, a), (_, b))| a.iter().zip(b).map(|(a, b)| usize::from(a & b)).sum())
            .collect()
    }

    /// The model with every block parameter outside the mask set to zero (ablated); embeddings and final LayerNorm are
    /// shared.
    ///
    /// # Panics
    /// When the mask belongs to a model of another shape.
    pub fn ablate_complement<F: Scalar>(&self, model: &Gpt2<F>) -> Gpt2<F> {
        F::run::<AblateJob>((self, model))
    }

    /// Sets the gradient of every parameter outside the mask to zero.
    ///
    /// # Panics
    /// When the mask belongs to a model of another shape.
    pub fn mask_gradients<F: Scalar>(&self, grads: &mut ParamSet<F>) {
        F::run::<MaskGradientsJob>((self, grads));
    }

    /// Checks that the mask belongs to a model of this shape.
    ///
    /// # Errors
    /// When a block parameter has another shape, or there is another number of blocks.
    pub fn check(&self, config: &Config) -> Result<()> {
        if shape(&self.config) == shape(config) {
            return Ok(());
        }
        Err(Error::Input(format!(
            "the mask belongs to a model of {}; this one has {}",
            described(&self.config),
            described(config)
        )))
    }

    fn assert_fits(&self, config: &Config) {
        self.check(config).unwrap_or_else(|why| panic!("{why}"));
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
        locus_files::hex(&hash.finalize())
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

    /// Reads the mask format. Parameters that are absent from the file are in the mask; names may lack the prefix.
    ///
    /// # Errors
    /// When a tensor is not a block parameter of this model, is given twice, has another shape or type, or values other
    /// than 0 and 1.
    pub fn read(path: &Path, config: &Config) -> Result<Self> {
        Ok(ParamMask::read_with_provenance(path, config)?.0)
    }

    /// Reads a mask for a model. A file that says which weights it was made for (`model_sha256` in its provenance) must
    /// be of this model's, in either number type.
    ///
    /// # Errors
    /// As [`ParamMask::read`], and when the mask was made for other weights.
    pub fn read_for<F: Scalar>(path: &Path, model: &Gpt2<F>) -> Result<Self> {
        let (mask, provenance) = ParamMask::read_with_provenance(path, model.config())?;
        let provenance = provenance.and_then(|text| serde_json::from_str::<serde_json::Value>(&text).ok());
        let stated = provenance.as_ref().and_then(|json| json["model_sha256"].as_str());
        match stated {
            Some(stated) if !model.has_sha256(stated) => {
                let found = model.sha256();
                let why =
                    format!("the mask was made for a model with SHA-256 {stated}; this one has {found}");
                Err(Error::format(path, why))
            }
            _ => Ok(mask),
        }
    }

    fn read_with_provenance(path: &Path, config: &Config) -> Result<(Self, Option<String>)> {
        read_safetensors(path, |tensors, provenance| {
            let mut mask = ParamMask::full(config);
            let names = by_short_name(tensors.iter().map(|(name, _)| name));
            for (short, name) in names.map_err(|why| Error::format(path, why))? {
                let wrong = |why: String| Err(Error::format(path, format!("tensor {name} {why}")));
                let view = tensors.tensor(name).expect("names come from the file");
                let Some((id, bytes)) = mask.kept.iter_mut().find(|(id, _)| id.to_string() == short) else {
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
            Ok((mask, provenance))
        })
    }
}

compiled!(
    AblateJob<'a>: <F> (&'a ParamMask, &'a Gpt2<F>) => Gpt2<F>,
    |(mask, model)| ablate_complement(mask, model)
);
compiled!(
    MaskGradientsJob<'a>: <F> (&'a ParamMask, &'a mut ParamSet<F>) => (),
    |(mask, grads)| mask_gradients(mask, grads)
);

fn ablate_complement<F: Scalar>(mask: &ParamMask, model: &Gpt2<F>) -> Gpt2<F> {
    mask.assert_fits(model.config());
    let mut masked = model.clone();
    for (id, bytes) in mask.tensors() {
        let weights = model.get(id).iter().zip(bytes);
        masked.insert(id, weights.map(|(&w, &kept)| if kept == 1 { w } else { F::zero() }).collect());
    }
    masked
}

fn mask_gradients<F: Scalar>(mask: &ParamMask, grads: &mut ParamSet<F>) {
    mask.assert_fits(grads.config());
    for (id, bytes) in mask.tensors() {
        if !grads.has(id) {
            continue;
        }
        for (grad, &kept) in grads.get_mut(id).iter_mut().zip(bytes) {
            if kept == 0 {
                *grad = F::zero();
            }
        }
    }
}

/// Blocks, width and MLP width: what the shapes of the block parameters depend on.
fn shape(config: &Config) -> [usize; 3] {
    [config.n_layer, config.n_embd, config.d_mlp()]
}

fn described(config: &Config) -> String {
    let [layers, width, mlp] = shape(config);
    format!("{layers} layers, width {width} and MLP width {mlp}")
}

fn count_ones(bytes: &[u8]) -> usize {
    bytes.iter().map(|&byte| usize::from(byte)).sum()
}
