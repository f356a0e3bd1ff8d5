//! Reading and writing safetensors: two functions for every tensor file, and the numbers in them.

use std::collections::HashMap;
use std::path::Path;

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

use super::write::write_atomically;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::files::read_bytes;
use crate::model::ids::ParamId;
use crate::model::weights::ParamSet;
use crate::scalar::{Scalar, compiled};

/// Opens a safetensors file and hands its tensors and its `provenance` metadata to `read`.
///
/// # Errors
/// When the file is missing, truncated or not safetensors, and whatever `read` returns.
pub fn read_safetensors<T>(
    path: &Path,
    read: impl FnOnce(&SafeTensors<'_>, Option<String>) -> Result<T>,
) -> Result<T> {
    let bytes = read_bytes(path)?;
    if bytes.is_empty() {
        return Err(Error::format(path, "the file is empty; expected safetensors"));
    }
    let broken = |e| Error::format(path, format!("not a complete safetensors file: {e}"));
    let tensors = SafeTensors::deserialize(&bytes).map_err(broken)?;
    let (_, header) = SafeTensors::read_metadata(&bytes).map_err(broken)?;
    let provenance = header.metadata().as_ref().and_then(|map| map.get(PROVENANCE).cloned());
    read(&tensors, provenance)
}

/// The one metadata key that this crate writes; with several, their order in the file would be random.
pub(crate) const PROVENANCE: &str = "provenance";

/// Writes tensors `(name, type, shape, bytes)` and a provenance string, atomically and with the same bytes every time.
///
/// # Errors
/// When the file cannot be written.
pub fn write_safetensors(
    path: &Path,
    tensors: &[(String, Dtype, Vec<usize>, Vec<u8>)],
    provenance: &str,
) -> Result<()> {
    let views: std::result::Result<Vec<_>, _> = tensors
        .iter()
        .map(|(name, dtype, shape, bytes)| Ok((name, TensorView::new(*dtype, shape.clone(), bytes)?)))
        .collect();
    let metadata = HashMap::from([(PROVENANCE.to_owned(), provenance.to_owned())]);
    let bytes = views
        .and_then(|views| safetensors::serialize(views, Some(metadata)))
        .map_err(|e| Error::format(path, format!("cannot be serialised: {e}")))?;
    write_atomically(path, &bytes)
}

compiled!(
    WriteJob<'a>: <F> (&'a ParamSet<F>, &'a Path, &'a str) => Result<()>,
    |(params, path, provenance)| write_params(params, path, provenance)
);
compiled!(
    DecodeJob<'a>: <F> &'a TensorView<'a> => std::result::Result<Vec<F>, String>,
    decode_floats
);

fn write_params<F: Scalar>(params: &ParamSet<F>, path: &Path, provenance: &str) -> Result<()> {
    let tensors: Vec<_> = params
        .ids()
        .map(|id| {
            let mut bytes = Vec::with_capacity(std::mem::size_of_val(params.get(id)));
            params.get(id).iter().for_each(|x| x.put_le(&mut bytes));
            (format!("transformer.{id}"), F::DTYPE, file_shape(id, params.config()), bytes)
        })
        .collect();
    write_safetensors(path, &tensors, provenance)
}

impl<F: Scalar> ParamSet<F> {
    /// Writes the parameters present under their Hugging Face names, in this type.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, path: &Path, provenance: &str) -> Result<()> {
        F::run::<WriteJob>((self, path, provenance))
    }
}

/// Shape of a parameter in files, where vectors have one axis.
pub fn file_shape(id: ParamId, config: &Config) -> Vec<usize> {
    let (rows, columns) = id.shape(config);
    if id.is_vector() { vec![columns] } else { vec![rows, columns] }
}

/// Converts a floating-point tensor of any width.
///
/// # Errors
/// A phrase that continues "tensor NAME ..." when the type is not floating point or a value is not finite.
pub fn decode<F: Scalar>(view: &TensorView<'_>) -> std::result::Result<Vec<F>, String> {
    F::run::<DecodeJob>(view)
}

pub(crate) fn decode_floats<F: Scalar>(view: &TensorView<'_>) -> std::result::Result<Vec<F>, String> {
    let bytes = view.data();
    let values: Vec<F> = match view.dtype() {
        Dtype::F32 => converted(bytes, |b: [u8; 4]| f64::from(f32::from_le_bytes(b))),
        Dtype::F64 => converted(bytes, f64::from_le_bytes),
        Dtype::F16 => converted(bytes, |b: [u8; 2]| f64::from(half::f16::from_le_bytes(b))),
        Dtype::BF16 => converted(bytes, |b: [u8; 2]| f64::from(half::bf16::from_le_bytes(b))),
        other => return Err(format!("has type {other:?}; expected F16, BF16, F32 or F64")),
    };
    match values.iter().position(|x| !x.is_finite()) {
        Some(i) => Err(format!("has {} at index {i}; expected finite numbers", values[i])),
        None => Ok(values),
    }
}

fn converted<F: Scalar, const N: usize>(bytes: &[u8], number: impl Fn([u8; N]) -> f64) -> Vec<F> {
    bytes.as_chunks::<N>().0.iter().map(|&chunk| F::from_f64(number(chunk))).collect()
}
