//! Patches: what an edit changes, with the hash of the weights it was made for.

use std::collections::BTreeMap;
use std::path::Path;

use locus_gpt2::internal::{by_short_name, decode, file_shape, short_name};
use locus_gpt2::{
    Config, Gpt2, ParamId, ParamMask, Scalar, compiled, gemm, read_safetensors, write_safetensors,
};
use ndarray::{Array2, ArrayView2, ArrayViewMut2, Axis, concatenate};

use crate::error::{Error, Result};

/// Change of one parameter.
#[derive(Clone, Debug, PartialEq)]
pub enum Delta<F> {
    /// Entry by entry, row-major.
    Dense(Vec<F>),
    /// `U R^T` of a matrix `[f, d]`.
    LowRank {
        /// `U [f, n]`
        u: Array2<F>,
        /// `R [d, n]`
        r: Array2<F>,
    },
}

impl<F: Scalar> Delta<F> {
    /// The change entry by entry, row-major.
    pub fn to_dense(&self) -> Vec<F> {
        F::run::<DenseJob>(self)
    }

    fn add_to(&self, weights: &mut [F]) {
        F::run::<AddJob>((self, weights))
    }
}

/// The numbers that determine the shapes of all parameters: layers, width, MLP width, context and vocabulary.
fn shape(config: &Config) -> [usize; 5] {
    [config.n_layer, config.n_embd, config.d_mlp(), config.n_positions, config.vocab_size]
}

/// Changes of some parameters of one particular model, its base.
#[derive(Clone, Debug, PartialEq)]
pub struct Patch<F> {
    base_sha256: String,
    /// Shape of the base.
    config: Config,
    deltas: BTreeMap<ParamId, Delta<F>>,
}

impl<F: Scalar> Patch<F> {
    /// The change from `base` to `edited`; parameters that did not change are left out.
    ///
    /// # Panics
    /// When the two have different shapes.
    pub fn between(base: &Gpt2<F>, edited: &Gpt2<F>) -> Self {
        F::run::<BetweenJob>((base, edited))
    }

    /// A patch of low rank: changes `U R^T` of matrices `[f, d]`, with `U [f, n]` and `R [d, n]`.
    ///
    /// # Panics
    /// When factors do not fit their parameter.
    pub fn low_rank(
        base: &Gpt2<F>,
        factors: impl IntoIterator<Item = (ParamId, Array2<F>, Array2<F>)>,
    ) -> Self {
        let deltas = factors.into_iter().map(|(id, u, r)| {
            assert_eq!((u.nrows(), r.nrows()), id.shape(base.config()), "factors of {id}");
            assert_eq!(u.ncols(), r.ncols(), "factors of {id}");
            (id, Delta::LowRank { u, r })
        });
        Patch { base_sha256: base.sha256(), config: base.config().clone(), deltas: deltas.collect() }
    }

    /// This patch with every entry outside the mask set to zero. Parameters that no mask covers (embeddings, the final
    /// LayerNorm) keep their changes.
    ///
    /// # Panics
    /// When the mask belongs to a model of another shape than the patch's base.
    pub fn masked(&self, mask: &ParamMask) -> Self {
        F::run::<MaskedJob>((self, mask))
    }

    /// SHA-256 of the weights the patch belongs to, in hexadecimal.
    pub fn base_sha256(&self) -> &str {
        &self.base_sha256
    }

    /// The parameters that change, and their changes.
    pub fn deltas(&self) -> impl Iterator<Item = (ParamId, &Delta<F>)> {
        self.deltas.iter().map(|(&id, delta)| (id, delta))
    }

    /// Euclidean norm of the whole change.
    pub fn norm(&self) -> f64 {
        F::run::<NormJob>(self)
    }

    /// The edited model. The base stays as it is: to undo an edit, drop the result.
    ///
    /// # Errors
    /// When the model is not the patch's base.
    pub fn apply(&self, base: &Gpt2<F>) -> Result<Gpt2<F>> {
        F::run::<ApplyJob>((self, base))
    }

    /// One patch with the effect of this one followed by `next`, up to rounding: factors are put side by side, dense
    /// changes added. The result has the base of this patch.
    ///
    /// # Errors
    /// When this patch does not belong to `base`, or `next` does not belong to `base` with this patch applied.
    pub fn merge(&self, next: &Patch<F>, base: &Gpt2<F>) -> Result<Self> {
        let middle = self.apply(base)?.sha256();
        if next.base_sha256 != middle {
            return Err(Error::WrongBase { expected: next.base_sha256.clone(), actual: middle });
        }
        Ok(self.followed_by(next))
    }

    /// One patch with the changes of several that were made for the same weights, each as if it were alone: factors are
    /// put side by side, dense changes added. The sum does what the patches would do in any order, up to rounding, if
    /// none of them had been made on top of another.
    ///
    /// # Errors
    /// When two of them have different bases.
    ///
    /// # Panics
    /// When there is no patch.
    pub fn sum(patches: &[Patch<F>]) -> Result<Self> {
        let (first, rest) = patches.split_first().expect("at least one patch");
        let same = |patch: &Patch<F>| patch.base_sha256 == first.base_sha256;
        if let Some(other) = rest.iter().find(|patch| !same(patch)) {
            let (one, another) = (first.base_sha256.clone(), other.base_sha256.clone());
            return Err(Error::OtherBase { one, another });
        }
        Ok(rest.iter().fold(first.clone(), |sum, patch| sum.followed_by(patch)))
    }

    fn followed_by(&self, next: &Patch<F>) -> Self {
        F::run::<FollowedJob>((self, next))
    }

    /// Writes `NAME.delta`, or `NAME.u` and `NAME.r`, per changed parameter, with the base's hash in the metadata.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, path: &Path, config: &Config, provenance: &serde_json::Value) -> Result<()> {
        F::run::<WriteJob>((self, path, config, provenance))
    }

    /// Provenance that a patch file states, as [`Patch::write`] was given it; null when it states none.
    ///
    /// # Errors
    /// When the file cannot be read or is no patch.
    pub fn read_provenance(path: &Path) -> Result<serde_json::Value> {
        let metadata = read_safetensors(path, |_, metadata| Ok(metadata))?;
        Ok(parse_metadata(path, metadata.as_deref())?["provenance"].take())
    }

    /// Reads a patch file.
    ///
    /// # Errors
    /// When it is not a complete patch for a model of this shape.
    pub fn read(path: &Path, config: &Config) -> Result<Self> {
        F::run::<ReadJob>((path, config))
    }
}

compiled!(BetweenJob<'a>: <F> (&'a Gpt2<F>, &'a Gpt2<F>) => Patch<F>, between);

fn between<F: Scalar>((base, edited): (&Gpt2<F>, &Gpt2<F>)) -> Patch<F> {
    let shapes = |model: &Gpt2<F>| shape(model.config());
    assert_eq!(
        shapes(base),
        shapes(edited),
        "layers, width, MLP width, context and vocabulary of two models"
    );
    let dense = |id| Delta::Dense(base.get(id).iter().zip(edited.get(id)).map(|(&b, &e)| e - b).collect());
    let deltas = base.ids().filter(|&id| base.get(id) != edited.get(id)).map(|id| (id, dense(id))).collect();
    Patch { base_sha256: base.sha256(), config: base.config().clone(), deltas }
}

compiled!(MaskedJob<'a>: <F> (&'a Patch<F>, &'a ParamMask) => Patch<F>, masked);

fn masked<F: Scalar>((patch, mask): (&Patch<F>, &ParamMask)) -> Patch<F> {
    mask.check(&patch.config).unwrap_or_else(|why| panic!("{why}"));
    let mut patch = patch.clone();
    for (id, inside) in mask.tensors() {
        if let Some(delta) = patch.deltas.get_mut(&id) {
            let mut dense = delta.to_dense();
            inside.clear_outside(&mut dense);
            *delta = Delta::Dense(dense);
        }
    }
    patch
}

compiled!(NormJob<'a>: <F> &'a Patch<F> => f64, norm);

fn norm<F: Scalar>(patch: &Patch<F>) -> f64 {
    let squares = |delta: &Delta<F>| delta.to_dense().iter().map(|x| x.as_f64() * x.as_f64()).sum::<f64>();
    patch.deltas().map(|(_, delta)| squares(delta)).sum::<f64>().sqrt()
}

compiled!(ApplyJob<'a>: <F> (&'a Patch<F>, &'a Gpt2<F>) => Result<Gpt2<F>>, apply);

fn apply<F: Scalar>((patch, base): (&Patch<F>, &Gpt2<F>)) -> Result<Gpt2<F>> {
    let actual = base.sha256();
    if actual != patch.base_sha256 {
        let expected = patch.base_sha256.clone();
        if base.has_sha256(&expected) {
            let (given, other) = if size_of::<F>() == 4 { ("f32", "f64") } else { ("f64", "f32") };
            return Err(Error::WrongType { given, other });
        }
        return Err(Error::WrongBase { expected, actual });
    }
    let mut edited = base.clone();
    for (&id, delta) in &patch.deltas {
        delta.add_to(edited.get_mut(id));
    }
    Ok(edited)
}

compiled!(FollowedJob<'a>: <F> (&'a Patch<F>, &'a Patch<F>) => Patch<F>, followed_by);

fn followed_by<F: Scalar>((first, next): (&Patch<F>, &Patch<F>)) -> Patch<F> {
    let mut merged = first.clone();
    for (&id, delta) in &next.deltas {
        let sum = match (merged.deltas.remove(&id), delta) {
            (None, delta) => delta.clone(),
            (Some(Delta::LowRank { u, r }), Delta::LowRank { u: more_u, r: more_r }) => {
                Delta::LowRank { u: concatenate![Axis(1), u, *more_u], r: concatenate![Axis(1), r, *more_r] }
            }
            (Some(first), second) => {
                let (mut sum, second) = (first.to_dense(), second.to_dense());
                sum.iter_mut().zip(second).for_each(|(sum, x)| *sum += x);
                Delta::Dense(sum)
            }
        };
        merged.deltas.insert(id, sum);
    }
    merged
}

compiled!(WriteJob<'a>: <F> (&'a Patch<F>, &'a Path, &'a Config, &'a serde_json::Value) => Result<()>, write);

fn write<F: Scalar>(
    (patch, path, config, provenance): (&Patch<F>, &Path, &Config, &serde_json::Value),
) -> Result<()> {
    let bytes = |x: &mut dyn Iterator<Item = F>| {
        let mut bytes = Vec::new();
        x.for_each(|x| x.put_le(&mut bytes));
        bytes
    };
    let mut tensors = Vec::new();
    for (id, delta) in patch.deltas() {
        let name = |part: &str| format!("transformer.{id}.{part}");
        match delta {
            Delta::Dense(delta) => {
                let shape = file_shape(id, config);
                tensors.push((name("delta"), F::DTYPE, shape, bytes(&mut delta.iter().copied())));
            }
            Delta::LowRank { u, r } => {
                for (part, x) in [("u", u), ("r", r)] {
                    let shape = vec![x.nrows(), x.ncols()];
                    tensors.push((name(part), F::DTYPE, shape, bytes(&mut x.iter().copied())));
                }
            }
        }
    }
    let metadata = serde_json::json!({ "base_sha256": patch.base_sha256, "provenance": provenance });
    Ok(write_safetensors(path, &tensors, &metadata.to_string())?)
}

compiled!(ReadJob<'a>: <F> (&'a Path, &'a Config) => Result<Patch<F>>, read);

fn read<F: Scalar>((path, config): (&Path, &Config)) -> Result<Patch<F>> {
    let wrong = |why: String| Error::Patch { path: path.to_owned(), why };
    let (mut parts, metadata) = read_safetensors(path, |tensors, metadata| {
        let mut parts = BTreeMap::new();
        let names = by_short_name(tensors.iter().map(|(name, _)| name));
        for name in names.map_err(|why| locus_gpt2::Error::format(path, why))?.into_values() {
            let view = tensors.tensor(name).expect("names come from the file");
            let problem = match part(name, view.shape(), config) {
                Err(problem) => problem,
                Ok(part) => match decode::<F>(&view) {
                    Ok(values) => {
                        parts.insert(part, (view.shape().to_vec(), values));
                        continue;
                    }
                    Err(why) => why,
                },
            };
            return Err(locus_gpt2::Error::format(path, format!("tensor {name} {problem}")));
        }
        Ok((parts, metadata))
    })?;
    let base_sha256 = parse_metadata(path, metadata.as_deref())?["base_sha256"].as_str().map(str::to_owned);
    let base_sha256 = base_sha256.expect("checked");
    let mut deltas = BTreeMap::new();
    while let Some(((id, part), (shape, values))) = parts.pop_first() {
        let delta = match (part, parts.remove(&(id, DeltaPart::R))) {
            (DeltaPart::Delta, None) => Delta::Dense(values),
            (DeltaPart::U, Some((r_shape, r))) if shape[1] == r_shape[1] => {
                let matrix = |shape: &[usize], x| {
                    Array2::from_shape_vec((shape[0], shape[1]), x).expect("as many as the shape says")
                };
                Delta::LowRank { u: matrix(&shape, values), r: matrix(&r_shape, r) }
            }
            _ => return Err(wrong(format!("{id} has neither a delta nor factors u and r of one rank"))),
        };
        deltas.insert(id, delta);
    }
    Ok(Patch { base_sha256, config: config.clone(), deltas })
}

/// Metadata of a patch file, which names the base.
fn parse_metadata(path: &Path, metadata: Option<&str>) -> Result<serde_json::Value> {
    let json: Option<serde_json::Value> = metadata.and_then(|text| serde_json::from_str(text).ok());
    json.filter(|json| json["base_sha256"].is_string()).ok_or_else(|| Error::Patch {
        path: path.to_owned(),
        why: "has no base_sha256 in its metadata; expected a patch".into(),
    })
}

compiled!(DenseJob<'a>: <F> &'a Delta<F> => Vec<F>, to_dense);

fn to_dense<F: Scalar>(delta: &Delta<F>) -> Vec<F> {
    match delta {
        Delta::Dense(delta) => delta.clone(),
        Delta::LowRank { u, r } => {
            let mut delta = Array2::zeros((u.nrows(), r.nrows()));
            gemm(F::one(), u.view(), r.t(), F::zero(), delta.view_mut());
            delta.into_raw_vec_and_offset().0
        }
    }
}

compiled!(AddJob<'a>: <F> (&'a Delta<F>, &'a mut [F]) => (), add_to);

fn add_to<F: Scalar>((delta, weights): (&Delta<F>, &mut [F])) {
    match delta {
        Delta::Dense(delta) => {
            assert_eq!(weights.len(), delta.len(), "entries of a parameter and of its change");
            weights.iter_mut().zip(delta).for_each(|(w, &d)| *w += d);
        }
        Delta::LowRank { u, r } => {
            let weights = ArrayViewMut2::from_shape((u.nrows(), r.nrows()), weights);
            gemm(F::one(), u.view(), r.t(), F::one(), weights.expect("factors fit the parameter"));
        }
    }
}

/// Kinds of tensor in a patch file. Reading relies on the order: a delta before factors, `u` before `r`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum DeltaPart {
    Delta,
    U,
    R,
}

/// Parameter and part of its change that a tensor with this name and shape holds; an error text when it fits none.
fn part(name: &str, shape: &[usize], config: &Config) -> std::result::Result<(ParamId, DeltaPart), String> {
    let short = short_name(name);
    let found = short.rsplit_once('.').and_then(|(parameter, part)| {
        let part = match part {
            "delta" => DeltaPart::Delta,
            "u" => DeltaPart::U,
            "r" => DeltaPart::R,
            _ => return None,
        };
        Some((ParamId::all(config).find(|id| id.to_string() == parameter)?, part))
    });
    let Some((id, part)) = found else {
        return Err("is not NAME.delta, NAME.u or NAME.r of a parameter of this model".into());
    };
    let (rows, columns) = id.shape(config);
    let fits = match part {
        DeltaPart::Delta => shape == file_shape(id, config),
        DeltaPart::U => shape.len() == 2 && shape[0] == rows && !id.is_vector(),
        DeltaPart::R => shape.len() == 2 && shape[0] == columns && !id.is_vector(),
    };
    if fits {
        return Ok((id, part));
    }
    let expected = match part {
        DeltaPart::Delta => format!("{:?}", file_shape(id, config)),
        DeltaPart::U => format!("[{rows}, n]"),
        DeltaPart::R => format!("[{columns}, n]"),
    };
    Err(format!("has shape {shape:?}; expected {expected}"))
}

/// A model with the edits made to it one after the other, which can be reverted from the last one on.
///
/// The history keeps the base and the patch of each edit. Reverting applies the earlier patches to the base again, so
/// the weights are, to the bit, those of a model that was never given the edit.
#[derive(Clone, Debug)]
pub struct EditHistory<F> {
    base: Gpt2<F>,
    patches: Vec<Patch<F>>,
    model: Gpt2<F>,
}

impl<F: Scalar> EditHistory<F> {
    /// A history without edits.
    pub fn new(base: Gpt2<F>) -> Self {
        EditHistory { model: base.clone(), base, patches: Vec::new() }
    }

    /// The model with all edits.
    pub fn model(&self) -> &Gpt2<F> {
        &self.model
    }

    /// The edits, in the order they were made.
    pub fn patches(&self) -> &[Patch<F>] {
        &self.patches
    }

    /// Applies a patch to the model as it is now.
    ///
    /// # Errors
    /// When the patch does not belong to the model as it is now.
    pub fn apply(&mut self, patch: Patch<F>) -> Result<()> {
        self.model = patch.apply(&self.model)?;
        self.patches.push(patch);
        Ok(())
    }

    /// Reverts the last edit and returns its patch; `None` when there is none.
    pub fn revert(&mut self) -> Option<Patch<F>> {
        let last = self.patches.pop()?;
        let mut model = self.base.clone();
        for (id, delta) in self.patches.iter().flat_map(Patch::deltas) {
            delta.add_to(model.get_mut(id));
        }
        self.model = model;
        Some(last)
    }

    /// All edits as one patch of the base, up to rounding; `None` when there are none.
    pub fn merged(&self) -> Option<Patch<F>> {
        let (first, rest) = self.patches.split_first()?;
        Some(rest.iter().fold(first.clone(), |merged, patch| merged.followed_by(patch)))
    }
}

/// Error that remains of an answer to `key [f]`: the length of `wanted - key change`, as a share of that of
/// `wanted [d]`.
pub(crate) fn residual<F: Scalar>(change: ArrayView2<F>, key: &[F], wanted: &[F]) -> f64 {
    let mut answer = Array2::zeros((1, change.ncols()));
    let key = ArrayView2::from_shape((1, key.len()), key).expect("one row");
    gemm(F::one(), key, change, F::zero(), answer.view_mut());
    let left: Vec<F> = wanted.iter().zip(&answer).map(|(&wanted, &got)| wanted - got).collect();
    crate::optimisation::length(&left) / crate::optimisation::length(wanted)
}
