//! Patches: the change of an edit, and the hash of the weights it belongs to.

use std::collections::BTreeMap;
use std::path::Path;

use locus_gpt2::{Config, ParamId, Params, Scalar, decode, file_shape, read_safetensors, write_safetensors};

use crate::error::{Error, Result};

/// Dense changes of some parameters of one particular model.
#[derive(Clone, Debug, PartialEq)]
pub struct Patch<F> {
    base_sha256: String,
    deltas: BTreeMap<ParamId, Vec<F>>,
}

impl<F: Scalar> Patch<F> {
    /// The change from `base` to `edited`; parameters that did not change are left out.
    pub fn between(base: &Params<F>, edited: &Params<F>) -> Self {
        let deltas = base
            .ids()
            .filter(|&id| base.get(id) != edited.get(id))
            .map(|id| (id, base.get(id).iter().zip(edited.get(id)).map(|(&b, &e)| e - b).collect()))
            .collect();
        Patch { base_sha256: base.sha256(), deltas }
    }

    /// Hash of the weights the patch belongs to.
    pub fn base_sha256(&self) -> &str {
        &self.base_sha256
    }

    /// The parameters that change, and their changes.
    pub fn deltas(&self) -> impl Iterator<Item = (ParamId, &[F])> {
        self.deltas.iter().map(|(&id, delta)| (id, delta.as_slice()))
    }

    /// Euclidean norm of the whole change.
    pub fn norm(&self) -> f64 {
        let squares: f64 = self.deltas().flat_map(|(_, delta)| delta).map(|x| x.wide() * x.wide()).sum();
        squares.sqrt()
    }

    /// The edited model. The base stays as it is, so undoing an edit is dropping the result.
    ///
    /// # Errors
    /// When the model is not the patch's base.
    pub fn apply(&self, base: &Params<F>) -> Result<Params<F>> {
        let actual = base.sha256();
        if actual != self.base_sha256 {
            return Err(Error::WrongBase { expected: self.base_sha256.clone(), actual });
        }
        let mut edited = base.clone();
        for (&id, delta) in &self.deltas {
            edited.get_mut(id).iter_mut().zip(delta).for_each(|(w, &d)| *w += d);
        }
        Ok(edited)
    }

    /// Writes `NAME.delta` per changed parameter, with the base's hash in the metadata.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, path: &Path, config: &Config, provenance: &serde_json::Value) -> Result<()> {
        let tensors: Vec<_> = self
            .deltas()
            .map(|(id, delta)| {
                let mut bytes = Vec::with_capacity(std::mem::size_of_val(delta));
                delta.iter().for_each(|x| x.put_le(&mut bytes));
                (format!("transformer.{id}.delta"), F::DTYPE, file_shape(id, config), bytes)
            })
            .collect();
        let metadata = serde_json::json!({ "base_sha256": self.base_sha256, "provenance": provenance });
        Ok(write_safetensors(path, &tensors, &metadata.to_string())?)
    }

    /// Reads a patch file.
    ///
    /// # Errors
    /// When it is not a complete patch for a model of this shape.
    pub fn read(path: &Path, config: &Config) -> Result<Self> {
        let wrong = |why: String| Error::Patch { path: path.to_owned(), why };
        let (deltas, metadata) = read_safetensors(path, |tensors, metadata| {
            let mut deltas = BTreeMap::new();
            for (name, view) in tensors.iter() {
                let short = name.strip_prefix("transformer.").unwrap_or(name);
                let id = ParamId::all(config).find(|id| format!("{id}.delta") == short);
                let problem = match id {
                    None => "is not NAME.delta of a parameter of this model".to_owned(),
                    Some(id) if view.shape() != file_shape(id, config) => {
                        format!("has shape {:?}; expected {:?}", view.shape(), file_shape(id, config))
                    }
                    Some(id) => match decode(&view) {
                        Ok(delta) => {
                            deltas.insert(id, delta);
                            continue;
                        }
                        Err(why) => why,
                    },
                };
                return Err(locus_gpt2::Error::format(path, format!("tensor {name} {problem}")));
            }
            Ok((deltas, metadata))
        })?;
        let base_sha256 = metadata
            .and_then(|text| serde_json::from_str::<serde_json::Value>(&text).ok())
            .and_then(|json| json["base_sha256"].as_str().map(str::to_owned))
            .ok_or_else(|| wrong("has no base_sha256 in its metadata; expected a patch".into()))?;
        Ok(Patch { base_sha256, deltas })
    }
}
