//! Containers of parameters: [`ParamSet`] for any of them (gradients, scores, moments), [`Gpt2`] for a complete model.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::{Arc, OnceLock};

use ndarray::{ArrayView2, ArrayViewMut2};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use sha2::{Digest, Sha256};

use super::ids::{BlockParam, ParamId};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::kernels::number::Number;
use crate::kernels::sparse::SparseMatrix;
use crate::kernels::vector::axpy;
use crate::random::normal;
use crate::scalar::{Scalar, compiled};

/// Row-major tensors by [`ParamId`], all of a model's or some.
///
/// Cloning shares the tensors; writing to one copies it first, so a masked or edited model costs only what it changes.
#[derive(Clone, Debug)]
pub struct ParamSet<F> {
    config: Arc<Config>,
    tensors: Vec<Option<Arc<Tensor<F>>>>,
}

/// The scalars of a parameter with what is derived from them on demand.
#[derive(Debug)]
struct Tensor<F> {
    values: Vec<F>,
    digest: OnceLock<[u8; 32]>,
    /// The entries that are not zero, when they are few.
    sparse: OnceLock<Option<SparseMatrix<F>>>,
}

impl<F> Tensor<F> {
    fn new(values: Vec<F>) -> Arc<Self> {
        Arc::new(Tensor { values, digest: OnceLock::new(), sparse: OnceLock::new() })
    }

    /// The scalars, to write to; copied first when they are shared.
    fn make_mut(this: &mut Arc<Self>) -> &mut [F]
    where
        F: Clone,
    {
        let tensor = Arc::make_mut(this);
        tensor.digest = OnceLock::new();
        tensor.sparse = OnceLock::new();
        &mut tensor.values
    }
}

/// Drops what is derived: what is cloned is about to be written to.
impl<F: Clone> Clone for Tensor<F> {
    fn clone(&self) -> Self {
        Tensor { values: self.values.clone(), digest: OnceLock::new(), sparse: OnceLock::new() }
    }
}

impl<F: Number> ParamSet<F> {
    /// Zeros for the named parameters and nothing for the rest.
    pub fn zeros(config: &Config, ids: impl IntoIterator<Item = ParamId>) -> Self {
        let mut params = ParamSet {
            config: Arc::new(config.clone()),
            tensors: vec![None; 4 + config.n_layer * BlockParam::ALL.len()],
        };
        for id in ids {
            params.insert(id, vec![F::zero(); id.len(config)]);
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
        id.index(self.config.n_layer).is_some_and(|i| self.tensors[i].is_some())
    }

    /// Sets a parameter.
    ///
    /// # Panics
    /// When the length is not the parameter's, or the model has no such block.
    pub fn insert(&mut self, id: ParamId, tensor: Vec<F>) {
        assert_eq!(tensor.len(), id.len(&self.config), "length of {id}");
        let i = id.index(self.config.n_layer);
        let i = i.unwrap_or_else(|| panic!("{id} of a model of {} layers", self.config.n_layer));
        self.tensors[i] = Some(Tensor::new(tensor));
    }

    /// The scalars of a parameter, row-major.
    ///
    /// # Panics
    /// When the parameter is absent.
    pub fn get(&self, id: ParamId) -> &[F] {
        &self.tensor(id).values
    }

    /// The scalars of a parameter, row-major, to write to.
    ///
    /// # Panics
    /// When the parameter is absent.
    pub fn get_mut(&mut self, id: ParamId) -> &mut [F] {
        let i = id.index(self.config.n_layer);
        let tensor = i.and_then(|i| self.tensors[i].as_mut());
        Tensor::make_mut(tensor.unwrap_or_else(|| panic!("{id} is absent")))
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
    /// When the parameter is absent.
    pub fn matrix(&self, id: ParamId) -> ArrayView2<'_, F> {
        ArrayView2::from_shape(id.shape(&self.config), self.get(id))
            .expect("lengths are checked on insertion")
    }

    /// The parameter as a matrix to write to; `None` when it is absent. Backward passes use this: what is not in the
    /// gradient container is not computed.
    pub fn matrix_mut(&mut self, id: ParamId) -> Option<ArrayViewMut2<'_, F>> {
        let shape = id.shape(&self.config);
        let tensor = Tensor::make_mut(self.tensors[id.index(self.config.n_layer)?].as_mut()?);
        Some(ArrayViewMut2::from_shape(shape, tensor).expect("lengths are checked on insertion"))
    }

    /// The matrix as its entries that are not zero, when they are few.
    ///
    /// # Panics
    /// When the parameter is absent.
    pub(crate) fn sparse(&self, id: ParamId) -> Option<&SparseMatrix<F>> {
        self.tensor(id).sparse.get_or_init(|| SparseMatrix::of(self.matrix(id))).as_ref()
    }

    fn tensor(&self, id: ParamId) -> &Tensor<F> {
        let tensor = id.index(self.config.n_layer).and_then(|i| self.tensors[i].as_ref());
        tensor.unwrap_or_else(|| panic!("{id} is absent"))
    }

    /// Sets every scalar present to zero.
    pub fn fill_zero(&mut self) {
        self.tensors.iter_mut().flatten().for_each(|tensor| Tensor::make_mut(tensor).fill(F::zero()));
    }
}

compiled!(
    AddScaledJob<'a>: <F> (&'a mut ParamSet<F>, F, &'a ParamSet<F>) => (),
    |(params, alpha, other)| add_scaled(params, alpha, other)
);
compiled!(Sha256Job<'a>: <F> &'a ParamSet<F> => String, sha256);
compiled!(InitJob<'a>: <F> (&'a Config, &'a mut ChaCha8Rng) => Gpt2<F>, |(config, rng)| init(config, rng));

fn add_scaled<F: Scalar>(params: &mut ParamSet<F>, alpha: F, other: &ParamSet<F>) {
    assert_eq!(*params.config, *other.config, "parameters of different models");
    for id in ParamId::all(&other.config) {
        if params.has(id) && other.has(id) {
            axpy(alpha, other.get(id), params.get_mut(id));
        }
    }
}

fn sha256<F: Scalar>(params: &ParamSet<F>) -> String {
    let present: Vec<(ParamId, &Tensor<F>)> = params.ids().map(|id| (id, params.tensor(id))).collect();
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
    locus_files::hex(&hash.finalize())
}

fn init<F: Scalar>(config: &Config, rng: &mut ChaCha8Rng) -> Gpt2<F> {
    let mut model = Gpt2::zeros(config);
    for id in ParamId::all(config) {
        let tensor = model.get_mut(id);
        let scale = match id {
            ParamId::FinalNormWeight | ParamId::Block(_, BlockParam::Ln1Weight | BlockParam::Ln2Weight) => {
                tensor.fill(F::one());
                continue;
            }
            ParamId::Block(_, BlockParam::AttnOutWeight | BlockParam::MlpOutWeight) => {
                config.initializer_range / (2.0 * config.n_layer as f64).sqrt()
            }
            id if id.is_vector() => continue,
            _ => config.initializer_range,
        };
        tensor.iter_mut().for_each(|w| *w = F::from_f64(scale * normal(rng)));
    }
    model
}

impl<F: Scalar> ParamSet<F> {
    /// Adds `alpha other` to the parameters both have.
    ///
    /// # Panics
    /// When the sets belong to models of different shape.
    pub fn add_scaled(&mut self, alpha: F, other: &ParamSet<F>) {
        F::run::<AddScaledJob>((self, alpha, other));
    }

    /// Converts every scalar.
    pub fn cast<G: Number>(&self) -> ParamSet<G> {
        let mut cast = ParamSet::zeros(&self.config, []);
        for id in self.ids() {
            cast.insert(id, self.get(id).iter().map(|x| G::from_f64(x.as_f64())).collect());
        }
        cast
    }

    /// SHA-256 over the names of the parameters present and the SHA-256 of each one's values (little endian), as
    /// lowercase hex: what a patch and a result refer to.
    ///
    /// Independent of the file layout, so a checkpoint hashes alike whether its names carry the `transformer.` prefix
    /// or not. Hashes of values are kept, so that of an edited model costs what the edit changed.
    pub fn sha256(&self) -> String {
        F::run::<Sha256Job>(self)
    }
}

/// The weights of a GPT-2, complete by construction, with their configuration: the type that can run ([`Gpt2::run`]).
///
/// Cloning shares the tensors; writing to one copies it first. Reading goes through [`ParamSet`], to which a model
/// dereferences.
#[derive(Clone, Debug)]
pub struct Gpt2<F> {
    params: ParamSet<F>,
}

impl<F> Deref for Gpt2<F> {
    type Target = ParamSet<F>;

    fn deref(&self) -> &ParamSet<F> {
        &self.params
    }
}

impl<F: Scalar> Gpt2<F> {
    /// A model of the given parameters.
    ///
    /// # Errors
    /// When one of the model's parameters is absent; the first is named.
    pub fn new(params: ParamSet<F>) -> Result<Self> {
        match ParamId::all(params.config()).find(|&id| !params.has(id)) {
            Some(id) => Err(Error::Input(format!("tensor {id} is missing"))),
            None => Ok(Gpt2 { params }),
        }
    }

    /// A model whose every weight is zero, to be written to.
    pub fn zeros(config: &Config) -> Self {
        Gpt2 { params: ParamSet::zeros(config, ParamId::all(config)) }
    }

    /// Fresh GPT-2 weights: N(0, `initializer_range`), the two projections into the residual stream divided by
    /// `sqrt(2 L)`, biases 0, LayerNorm gains 1.
    pub fn init(config: &Config, rng: &mut ChaCha8Rng) -> Self {
        F::run::<InitJob>((config, rng))
    }

    /// The weights as a set of parameters.
    pub fn into_params(self) -> ParamSet<F> {
        self.params
    }

    /// Replaces a parameter.
    ///
    /// # Panics
    /// When the length is not the parameter's.
    pub fn insert(&mut self, id: ParamId, tensor: Vec<F>) {
        self.params.insert(id, tensor);
    }

    /// The scalars of a parameter, row-major, to write to.
    pub fn get_mut(&mut self, id: ParamId) -> &mut [F] {
        self.params.get_mut(id)
    }

    /// The block parameters, in order, with their scalars to write to.
    pub fn blocks_mut(&mut self) -> impl Iterator<Item = (ParamId, &mut [F])> {
        self.params.blocks_mut()
    }

    /// The parameter as a matrix to write to.
    pub fn matrix_mut(&mut self, id: ParamId) -> ArrayViewMut2<'_, F> {
        self.params.matrix_mut(id).expect("a model is complete")
    }

    /// Adds `alpha other` to the parameters that `other` has.
    ///
    /// # Panics
    /// When the two belong to models of different shape.
    pub fn add_scaled(&mut self, alpha: F, other: &ParamSet<F>) {
        self.params.add_scaled(alpha, other);
    }

    /// Converts every scalar.
    pub fn cast<G: Number>(&self) -> Gpt2<G> {
        Gpt2 { params: self.params.cast() }
    }

    /// Whether a SHA-256 is that of these weights, in this number type or in the other: a file that was made with one
    /// belongs to the same weights in the other.
    pub fn has_sha256(&self, sha256: &str) -> bool {
        self.sha256() == sha256 || self.sha256_of_other_type() == sha256
    }

    fn sha256_of_other_type(&self) -> String {
        if size_of::<F>() == size_of::<f32>() {
            self.cast::<f64>().sha256()
        } else {
            self.cast::<f32>().sha256()
        }
    }
}

/// Parameters by their Hugging Face name without prefix, for readers of files.
pub(crate) fn by_name(config: &Config) -> BTreeMap<String, ParamId> {
    ParamId::all(config).map(|id| (id.to_string(), id)).collect()
}
