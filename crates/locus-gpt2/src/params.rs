//! Names of the parameters, and one container for anything shaped like them: weights, gradients, optimiser moments.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, OnceLock};

use ndarray::{ArrayView2, ArrayViewMut2};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use sha2::{Digest, Sha256};

use crate::config::Config;
use crate::scalar::Scalar;
use crate::thin::Thin;

/// A tensor of one block, in the order of the forward pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum BlockParam {
    /// `ln_1.weight [d]`
    Ln1Weight,
    /// `ln_1.bias [d]`
    Ln1Bias,
    /// `attn.c_attn.weight [d, 3d]`, columns q, k, v
    AttnInWeight,
    /// `attn.c_attn.bias [3d]`
    AttnInBias,
    /// `attn.c_proj.weight [d, d]`
    AttnOutWeight,
    /// `attn.c_proj.bias [d]`
    AttnOutBias,
    /// `ln_2.weight [d]`
    Ln2Weight,
    /// `ln_2.bias [d]`
    Ln2Bias,
    /// `mlp.c_fc.weight [d, f]`
    MlpInWeight,
    /// `mlp.c_fc.bias [f]`
    MlpInBias,
    /// `mlp.c_proj.weight [f, d]`
    MlpOutWeight,
    /// `mlp.c_proj.bias [d]`
    MlpOutBias,
}

impl BlockParam {
    /// All twelve, in order.
    pub const ALL: [BlockParam; 12] = [
        BlockParam::Ln1Weight,
        BlockParam::Ln1Bias,
        BlockParam::AttnInWeight,
        BlockParam::AttnInBias,
        BlockParam::AttnOutWeight,
        BlockParam::AttnOutBias,
        BlockParam::Ln2Weight,
        BlockParam::Ln2Bias,
        BlockParam::MlpInWeight,
        BlockParam::MlpInBias,
        BlockParam::MlpOutWeight,
        BlockParam::MlpOutBias,
    ];

    /// Name within the block, as in Hugging Face checkpoints.
    pub fn name(self) -> &'static str {
        match self {
            BlockParam::Ln1Weight => "ln_1.weight",
            BlockParam::Ln1Bias => "ln_1.bias",
            BlockParam::AttnInWeight => "attn.c_attn.weight",
            BlockParam::AttnInBias => "attn.c_attn.bias",
            BlockParam::AttnOutWeight => "attn.c_proj.weight",
            BlockParam::AttnOutBias => "attn.c_proj.bias",
            BlockParam::Ln2Weight => "ln_2.weight",
            BlockParam::Ln2Bias => "ln_2.bias",
            BlockParam::MlpInWeight => "mlp.c_fc.weight",
            BlockParam::MlpInBias => "mlp.c_fc.bias",
            BlockParam::MlpOutWeight => "mlp.c_proj.weight",
            BlockParam::MlpOutBias => "mlp.c_proj.bias",
        }
    }
}

/// A parameter tensor of the model. The order is the order of the forward pass and of every file written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ParamId {
    /// Token embedding and tied head, `wte.weight [V, d]`.
    TokenEmbedding,
    /// Position embedding, `wpe.weight [n_positions, d]`.
    PositionEmbedding,
    /// A tensor of block `0..L`.
    Block(usize, BlockParam),
    /// `ln_f.weight [d]`
    FinalNormWeight,
    /// `ln_f.bias [d]`
    FinalNormBias,
}

impl ParamId {
    /// Every parameter of a model, in order.
    pub fn all(config: &Config) -> impl Iterator<Item = ParamId> + use<> {
        [ParamId::TokenEmbedding, ParamId::PositionEmbedding]
            .into_iter()
            .chain(ParamId::maskable(config))
            .chain([ParamId::FinalNormWeight, ParamId::FinalNormBias])
    }

    /// Every block parameter: what a circuit can contain (STUDY section 4).
    pub fn maskable(config: &Config) -> impl Iterator<Item = ParamId> + use<> {
        (0..config.n_layer).flat_map(|layer| BlockParam::ALL.map(|param| ParamId::Block(layer, param)))
    }

    /// Shape `[rows, columns]`; vectors have one row.
    pub fn shape(self, config: &Config) -> (usize, usize) {
        let (d, f) = (config.n_embd, config.d_mlp());
        match self {
            ParamId::TokenEmbedding => (config.vocab_size, d),
            ParamId::PositionEmbedding => (config.n_positions, d),
            ParamId::Block(_, param) => match param {
                BlockParam::AttnInWeight => (d, 3 * d),
                BlockParam::AttnInBias => (1, 3 * d),
                BlockParam::AttnOutWeight => (d, d),
                BlockParam::MlpInWeight => (d, f),
                BlockParam::MlpInBias => (1, f),
                BlockParam::MlpOutWeight => (f, d),
                _ => (1, d),
            },
            ParamId::FinalNormWeight | ParamId::FinalNormBias => (1, d),
        }
    }

    /// Number of scalars.
    pub fn len(self, config: &Config) -> usize {
        let (rows, columns) = self.shape(config);
        rows * columns
    }

    /// Whether files store the tensor with one axis.
    pub fn is_vector(self) -> bool {
        match self {
            ParamId::TokenEmbedding | ParamId::PositionEmbedding => false,
            ParamId::Block(_, param) => param.name().ends_with("bias") || param.name().starts_with("ln_"),
            ParamId::FinalNormWeight | ParamId::FinalNormBias => true,
        }
    }

    fn index(self, n_layer: usize) -> usize {
        match self {
            ParamId::TokenEmbedding => 0,
            ParamId::PositionEmbedding => 1,
            ParamId::Block(layer, param) => 2 + layer * BlockParam::ALL.len() + param as usize,
            ParamId::FinalNormWeight => 2 + n_layer * BlockParam::ALL.len(),
            ParamId::FinalNormBias => 3 + n_layer * BlockParam::ALL.len(),
        }
    }
}

/// The Hugging Face name without the `transformer.` prefix: `h.0.ln_1.weight`.
impl fmt::Display for ParamId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ParamId::TokenEmbedding => out.write_str("wte.weight"),
            ParamId::PositionEmbedding => out.write_str("wpe.weight"),
            ParamId::Block(layer, param) => write!(out, "h.{layer}.{}", param.name()),
            ParamId::FinalNormWeight => out.write_str("ln_f.weight"),
            ParamId::FinalNormBias => out.write_str("ln_f.bias"),
        }
    }
}

/// Row-major tensors by [`ParamId`], all of them or some. Cloning shares the tensors; writing to one copies it first,
/// so a masked or edited model costs only what it changes.
#[derive(Clone, Debug)]
pub struct Params<F> {
    config: Arc<Config>,
    tensors: Vec<Option<Arc<Tensor<F>>>>,
}

/// The scalars of a parameter and, once they were asked for, their hash and those that are not zero, if they are few.
#[derive(Debug)]
struct Tensor<F> {
    values: Vec<F>,
    digest: OnceLock<[u8; 32]>,
    thin: OnceLock<Option<Thin<F>>>,
}

impl<F> Tensor<F> {
    fn new(values: Vec<F>) -> Arc<Self> {
        Arc::new(Tensor { values, digest: OnceLock::new(), thin: OnceLock::new() })
    }

    /// The scalars, to write to; copied first when they are shared.
    fn make_mut(this: &mut Arc<Self>) -> &mut [F]
    where
        F: Clone,
    {
        let tensor = Arc::make_mut(this);
        tensor.digest = OnceLock::new();
        tensor.thin = OnceLock::new();
        &mut tensor.values
    }
}

/// What is cloned is about to be written to.
impl<F: Clone> Clone for Tensor<F> {
    fn clone(&self) -> Self {
        Tensor { values: self.values.clone(), digest: OnceLock::new(), thin: OnceLock::new() }
    }
}

impl<F: Scalar> Params<F> {
    /// Zeros for the named parameters and nothing for the rest.
    pub fn zeros(config: &Config, ids: impl IntoIterator<Item = ParamId>) -> Self {
        let mut params = Params {
            config: Arc::new(config.clone()),
            tensors: vec![None; 4 + config.n_layer * BlockParam::ALL.len()],
        };
        for id in ids {
            params.insert(id, vec![F::zero(); id.len(config)]);
        }
        params
    }

    /// Fresh GPT-2 weights: N(0, `initializer_range`), the two projections into the residual stream divided by
    /// `sqrt(2 L)`, biases 0, LayerNorm gains 1.
    pub fn init(config: &Config, rng: &mut ChaCha8Rng) -> Self {
        let mut params = Params::zeros(config, ParamId::all(config));
        for id in ParamId::all(config) {
            let tensor = params.get_mut(id);
            let scale = match id {
                ParamId::FinalNormWeight
                | ParamId::Block(_, BlockParam::Ln1Weight | BlockParam::Ln2Weight) => {
                    tensor.fill(F::one());
                    continue;
                }
                ParamId::Block(_, BlockParam::AttnOutWeight | BlockParam::MlpOutWeight) => {
                    config.initializer_range / (2.0 * config.n_layer as f64).sqrt()
                }
                id if id.is_vector() => continue,
                _ => config.initializer_range,
            };
            tensor.iter_mut().for_each(|w| *w = F::of(scale * normal(rng)));
        }
        params
    }

    /// The model's shape.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The parameters that are present, in order.
    pub fn ids(&self) -> impl Iterator<Item = ParamId> + use<'_, F> {
        ParamId::all(&self.config).filter(|&id| self.has(id))
    }

    /// Whether the parameter is present.
    pub fn has(&self, id: ParamId) -> bool {
        self.tensors[id.index(self.config.n_layer)].is_some()
    }

    /// Sets a parameter.
    ///
    /// # Panics
    /// When the length is not the parameter's.
    pub fn insert(&mut self, id: ParamId, tensor: Vec<F>) {
        assert_eq!(tensor.len(), id.len(&self.config), "length of {id}");
        self.tensors[id.index(self.config.n_layer)] = Some(Tensor::new(tensor));
    }

    /// The scalars of a parameter, row-major.
    ///
    /// # Panics
    /// When it is absent.
    pub fn get(&self, id: ParamId) -> &[F] {
        let tensor = self.tensors[id.index(self.config.n_layer)].as_ref();
        &tensor.unwrap_or_else(|| panic!("{id} is absent")).values
    }

    /// The same, to write to.
    ///
    /// # Panics
    /// When it is absent.
    pub fn get_mut(&mut self, id: ParamId) -> &mut [F] {
        let tensor =
            self.tensors[id.index(self.config.n_layer)].as_mut().unwrap_or_else(|| panic!("{id} is absent"));
        Tensor::make_mut(tensor)
    }

    /// The block parameters that are present, in order, with their scalars to write to.
    pub fn blocks_mut(&mut self) -> impl Iterator<Item = (ParamId, &mut [F])> {
        let tensors = ParamId::all(&self.config).zip(&mut self.tensors);
        let tensors = tensors.filter(|(id, _)| matches!(id, ParamId::Block(..)));
        tensors.filter_map(|(id, tensor)| Some((id, Tensor::make_mut(tensor.as_mut()?))))
    }

    /// The parameter as a matrix of [`ParamId::shape`].
    ///
    /// # Panics
    /// When it is absent.
    pub fn matrix(&self, id: ParamId) -> ArrayView2<'_, F> {
        ArrayView2::from_shape(id.shape(&self.config), self.get(id))
            .expect("lengths are checked on insertion")
    }

    /// Its entries that are not zero, when they are few.
    ///
    /// # Panics
    /// When it is absent.
    pub(crate) fn thin(&self, id: ParamId) -> Option<&Thin<F>> {
        let tensor = self.tensors[id.index(self.config.n_layer)].as_ref();
        let tensor = tensor.unwrap_or_else(|| panic!("{id} is absent"));
        tensor.thin.get_or_init(|| Thin::of(self.matrix(id))).as_ref()
    }

    /// The same, to write to; `None` when the parameter is absent. Backward passes use this: what is not in the
    /// gradient container is not computed.
    pub fn matrix_mut(&mut self, id: ParamId) -> Option<ArrayViewMut2<'_, F>> {
        let shape = id.shape(&self.config);
        let tensor = Tensor::make_mut(self.tensors[id.index(self.config.n_layer)].as_mut()?);
        Some(ArrayViewMut2::from_shape(shape, tensor).expect("lengths are checked on insertion"))
    }

    /// Sets every scalar present to zero.
    pub fn fill_zero(&mut self) {
        self.tensors.iter_mut().flatten().for_each(|tensor| Tensor::make_mut(tensor).fill(F::zero()));
    }

    /// Adds `alpha other` to the parameters both have.
    pub fn add_scaled(&mut self, alpha: F, other: &Params<F>) {
        for id in ParamId::all(&self.config.clone()) {
            if self.has(id) && other.has(id) {
                crate::linalg::axpy(alpha, other.get(id), self.get_mut(id));
            }
        }
    }

    /// Converts every scalar.
    pub fn cast<G: Scalar>(&self) -> Params<G> {
        let mut cast = Params::zeros(&self.config, []);
        for id in self.ids() {
            cast.insert(id, self.get(id).iter().map(|x| G::of(x.wide())).collect());
        }
        cast
    }

    /// SHA-256 over the names of the parameters present and the SHA-256 of each one's values (little endian), as lowercase
    /// hex: what a patch and a result refer to. Independent of the file layout, so a checkpoint hashes alike whether its
    /// names carry the `transformer.` prefix or not. Hashes of values are kept, so that of an edited model costs what the
    /// edit changed.
    pub fn sha256(&self) -> String {
        let present: Vec<(ParamId, &Tensor<F>)> = self
            .ids()
            .map(|id| (id, &**self.tensors[id.index(self.config.n_layer)].as_ref().expect("is present")))
            .collect();
        let digests: Vec<[u8; 32]> = present
            .par_iter()
            .map(|(_, tensor)| {
                *tensor.digest.get_or_init(|| {
                    let mut bytes = Vec::with_capacity(size_of_val(tensor.values.as_slice()));
                    tensor.values.iter().for_each(|x| x.put_le(&mut bytes));
                    Sha256::digest(&bytes).into()
                })
            })
            .collect();
        let mut hash = Sha256::new();
        for ((id, _), digest) in present.into_iter().zip(digests) {
            hash.update(id.to_string());
            hash.update([0]);
            hash.update(digest);
        }
        hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// Parameters by their Hugging Face name without prefix, for readers of files.
pub(crate) fn by_name(config: &Config) -> BTreeMap<String, ParamId> {
    ParamId::all(config).map(|id| (id.to_string(), id)).collect()
}

/// A standard normal number by the Box-Muller transform, written out so that its values never change with a library.
fn normal(rng: &mut ChaCha8Rng) -> f64 {
    let u: f64 = 1.0 - rng.random::<f64>();
    let v: f64 = rng.random();
    (-2.0 * u.ln()).sqrt() * (2.0 * std::f64::consts::PI * v).cos()
}
