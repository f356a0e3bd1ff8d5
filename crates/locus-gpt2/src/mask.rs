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
use crate::tensor_mask::TensorMask;

/// A subset of the block parameters, scalar by scalar.
#[derive(Clone, Debug, PartialEq)]
pub struct ParamMask {
    config: Config,
    /// Tensor by tensor in the order of [`ParamId::maskable`].
    tensors: Vec<(ParamId, TensorMask)>,
}

impl ParamMask {
    /// A mask from a rule on `(parameter, index within it)`.
    pub fn from_fn(config: &Config, mut rule: impl FnMut(ParamId, usize) -> bool) -> Self {
        ParamMask::from_tensors(config, |id| (0..id.len(config)).map(|i| rule(id, i)).collect())
    }

    /// A mask from a rule that gives each parameter's part of it, in the order of [`ParamId::maskable`].
    ///
    /// # Panics
    /// When the rule returns another number of scalars than the parameter has.
    pub fn from_tensors(config: &Config, mut rule: impl FnMut(ParamId) -> TensorMask) -> Self {
        let tensors = ParamId::maskable(config).map(|id| {
            let inside = rule(id);
            assert_eq!(inside.len(), id.len(config), "scalars of {id}");
            (id, inside)
        });
        ParamMask { config: config.clone(), tensors: tensors.collect() }
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
        self.mapped(|inside| {
            let mut inside: Vec<bool> = inside.iter().collect();
            shuffle(&mut inside, rng);
            inside.into_iter().collect()
        })
    }

    /// Number of block parameters of a model.
    pub fn n_maskable(config: &Config) -> usize {
        ParamId::maskable(config).map(|id| id.len(config)).sum()
    }

    /// The model's shape.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The parts of the parameters, in the order of [`ParamId::maskable`].
    pub fn tensors(&self) -> impl Iterator<Item = (ParamId, &TensorMask)> {
        self.tensors.iter().map(|(id, inside)| (*id, inside))
    }

    /// Scalars that are outside this mask.
    pub fn complement(&self) -> Self {
        self.mapped(TensorMask::complement)
    }

    /// Scalars that are in this mask or the other.
    ///
    /// # Panics
    /// When the masks belong to models of different shape.
    pub fn union(&self, other: &ParamMask) -> Self {
        self.combined(other, TensorMask::union)
    }

    /// Scalars that are in both masks.
    ///
    /// # Panics
    /// When the masks belong to models of different shape.
    pub fn intersection(&self, other: &ParamMask) -> Self {
        self.combined(other, TensorMask::intersection)
    }

    /// Scalars that are in this mask and not in the other.
    ///
    /// # Panics
    /// When the masks belong to models of different shape.
    pub fn difference(&self, other: &ParamMask) -> Self {
        self.combined(other, |a, b| a.intersection(&b.complement()))
    }

    fn combined(&self, other: &ParamMask, rule: impl Fn(&TensorMask, &TensorMask) -> TensorMask) -> Self {
        self.assert_fits(&other.config);
        let mut others = other.tensors.iter();
        self.mapped(|inside| rule(inside, &others.next().expect("masks of one shape").1))
    }

    fn mapped(&self, mut rule: impl FnMut(&TensorMask) -> TensorMask) -> Self {
        let tensors = self.tensors.iter().map(|(id, inside)| (*id, rule(inside))).collect();
        ParamMask { config: self.config.clone(), tensors }
    }

    /// Number of scalars in the mask.
    pub fn count(&self) -> usize {
        self.tensors().map(|(_, inside)| inside.count()).sum()
    }

    /// Share of the block parameters that are in the mask, in [0, 1].
    pub fn density(&self) -> f64 {
        self.count() as f64 / ParamMask::n_maskable(&self.config) as f64
    }

    /// Number of scalars in the mask and in all, tensor by tensor, in order.
    pub fn counts(&self) -> Vec<(ParamId, usize, usize)> {
        self.tensors().map(|(id, inside)| (id, inside.count(), inside.len())).collect()
    }

    /// Number of scalars that are in both masks, tensor by tensor.
    ///
    /// # Panics
    /// When the masks belong to models of different shape.
    pub fn intersection_counts(&self, other: &ParamMask) -> Vec<usize> {
        self.assert_fits(&other.config);
        self.tensors().zip(other.tensors()).map(|((_, a), (_, b))| a.intersection_count(b)).collect()
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

    /// SHA-256 over names and a byte for each scalar (1 inside, 0 outside), lowercase hex.
    pub fn sha256(&self) -> String {
        use sha2::{Digest, Sha256};
        let mut hash = Sha256::new();
        for (id, inside) in self.tensors() {
            hash.update(id.to_string());
            hash.update([0]);
            hash.update(inside.to_bytes());
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
            .map(|(id, inside)| {
                (format!("transformer.{id}"), Dtype::U8, file_shape(id, &self.config), inside.to_bytes())
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
                let Some((id, inside)) = mask.tensors.iter_mut().find(|(id, _)| id.to_string() == short)
                else {
                    return wrong("is not a block parameter of this model".into());
                };
                let shape = file_shape(*id, config);
                if view.dtype() != Dtype::U8 || view.shape() != shape {
                    return wrong(format!("is {:?} {:?}; expected U8 {shape:?}", view.dtype(), view.shape()));
                }
                if let Some(byte) = view.data().iter().find(|&&byte| byte > 1) {
                    return wrong(format!("has the value {byte}; expected 0 or 1"));
                }
                *inside = view.data().iter().map(|&byte| byte == 1).collect();
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
    for (id, inside) in mask.tensors() {
        let mut kept = vec![F::zero(); inside.len()];
        inside.copy_inside(model.get(id), &mut kept);
        masked.insert(id, kept);
    }
    masked
}

fn mask_gradients<F: Scalar>(mask: &ParamMask, grads: &mut ParamSet<F>) {
    mask.assert_fits(grads.config());
    for (id, inside) in mask.tensors() {
        if grads.has(id) {
            inside.clear_outside(grads.get_mut(id));
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
