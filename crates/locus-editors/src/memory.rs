//! What edits of one model leave behind for the ones that follow: keys whose answers are to stay, and statistics of
//! features.
//!
//! Letters: `f` MLP width, `d` width, `p` keys of earlier edits, `z` features of one token, `m` tokens.

use std::collections::BTreeMap;
use std::path::Path;

use locus_gpt2::internal::decode;
use locus_gpt2::{read_safetensors, write_safetensors};
use ndarray::{Array1, Array2, ArrayView1, ArrayView2, Axis, concatenate};
use safetensors::Dtype;
use serde_json::{Value, json};

use crate::error::{Error, Result};

/// Memory of the edits made to one model by one editor, see [`Editor::edit_after`](crate::Editor::edit_after).
///
/// AlphaEdit keeps the keys it has written for, whose answers later edits leave alone; UltraEdit keeps the mean and the
/// variance of the features it has seen. Other editors keep nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EditMemory {
    /// Keys of earlier edits by layer, `[f, p]`.
    keys: BTreeMap<usize, Array2<f64>>,
    /// Statistics of features by layer.
    features: BTreeMap<usize, FeatureMoments>,
}

impl EditMemory {
    /// A memory of no edits.
    pub fn new() -> Self {
        EditMemory::default()
    }

    /// Keys of earlier edits at a layer, `[f, p]`; `None` when no edit left any.
    pub fn keys(&self, layer: usize) -> Option<ArrayView2<'_, f64>> {
        self.keys.get(&layer).map(|keys| keys.view())
    }

    /// Statistics of the features of earlier edits at a layer; `None` when no edit left any.
    pub fn features(&self, layer: usize) -> Option<&FeatureMoments> {
        self.features.get(&layer)
    }

    /// Keys of earlier edits at a layer as a matrix `[f, p]`, without columns when there are none.
    pub(crate) fn earlier(&self, layer: usize, f: usize) -> Result<Array2<f64>> {
        match self.keys.get(&layer) {
            None => Ok(Array2::zeros((f, 0))),
            Some(keys) if keys.nrows() == f => Ok(keys.clone()),
            Some(keys) => {
                let why =
                    format!("the memory holds keys of {} neurons; the model's MLPs have {f}", keys.nrows());
                Err(Error::Request(why))
            }
        }
    }

    /// Writes the memory as safetensors: `keys.LAYER` `[f, p]`, and `mean.LAYER` and `squares.LAYER` `[z]` of the
    /// features, all in f64.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, path: &Path, provenance: &Value) -> Result<()> {
        let tensor = |name: String, shape: &[usize], values: &mut dyn Iterator<Item = &f64>| {
            (name, Dtype::F64, shape.to_vec(), values.flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>())
        };
        let keys = self.keys.iter();
        let mut tensors: Vec<_> =
            keys.map(|(layer, x)| tensor(format!("keys.{layer}"), x.shape(), &mut x.iter())).collect();
        for (layer, FeatureMoments { mean, squares, .. }) in &self.features {
            for (name, x) in [("mean", mean), ("squares", squares)] {
                tensors.push(tensor(format!("{name}.{layer}"), x.shape(), &mut x.iter()));
            }
        }
        let counts = self.features.iter().map(|(layer, moments)| (layer.to_string(), moments.count));
        let counts: BTreeMap<String, usize> = counts.collect();
        let metadata = json!({ "counts": counts, "provenance": provenance });
        Ok(write_safetensors(path, &tensors, &metadata.to_string())?)
    }

    /// Reads a file of [`EditMemory::write`]: the memory and its provenance.
    ///
    /// # Errors
    /// When the file cannot be read or is not complete.
    pub fn read(path: &Path) -> Result<(Self, Value)> {
        let wrong = |why: String| locus_gpt2::Error::format(path, why);
        Ok(read_safetensors(path, |tensors, metadata| {
            let metadata: Value = metadata
                .and_then(|text| serde_json::from_str(&text).ok())
                .ok_or_else(|| wrong("has no metadata; expected a memory of edits".into()))?;
            let counts: BTreeMap<usize, usize> = serde_json::from_value(metadata["counts"].clone())
                .map_err(|_| wrong("has no counts in its metadata; expected a memory of edits".into()))?;
            let values = |name: &str| -> locus_gpt2::Result<(Vec<usize>, Vec<f64>)> {
                let view = tensors.tensor(name).map_err(|_| wrong(format!("tensor {name} is missing")))?;
                let values = decode(&view).map_err(|why| wrong(format!("tensor {name} {why}")))?;
                Ok((view.shape().to_vec(), values))
            };
            let mut memory = EditMemory::new();
            for name in tensors.names() {
                let Some(layer) = name.strip_prefix("keys.").and_then(|layer| layer.parse().ok()) else {
                    continue;
                };
                let (shape, keys) = values(name)?;
                let [f, p] = shape[..] else {
                    return Err(wrong(format!("tensor {name} has shape {shape:?}; expected two sides")));
                };
                let keys = Array2::from_shape_vec((f, p), keys).expect("as many as the shape says");
                memory.keys.insert(layer, keys);
            }
            for (layer, count) in counts {
                let [mean, squares] = ["mean", "squares"].map(|name| values(&format!("{name}.{layer}")));
                let (mean, squares) = (Array1::from(mean?.1), Array1::from(squares?.1));
                if mean.len() != squares.len() {
                    return Err(wrong(format!("mean and squares of layer {layer} have different widths")));
                }
                memory.features.insert(layer, FeatureMoments { count, mean, squares });
            }
            Ok((memory, metadata["provenance"].clone()))
        })?)
    }

    /// Adds the keys `[f, n]` of an edit.
    pub(crate) fn add_keys(&mut self, layer: usize, keys: Array2<f64>) {
        let all = match self.keys.remove(&layer) {
            None => keys,
            Some(earlier) => concatenate![Axis(1), earlier, keys],
        };
        self.keys.insert(layer, all);
    }

    /// Adds features `[m, z]` of an edit at a layer and returns the statistics over all of them so far.
    pub(crate) fn add_features(
        &mut self,
        layer: usize,
        features: ArrayView2<f64>,
    ) -> Result<&FeatureMoments> {
        let width = features.ncols();
        let moments = self.features.entry(layer).or_insert_with(|| FeatureMoments::empty(width));
        if moments.mean.len() != width {
            let has = moments.mean.len();
            let why = format!("the memory holds features of width {has}; the model's have {width}");
            return Err(Error::Request(why));
        }
        moments.add(features);
        Ok(moments)
    }
}

/// Running mean and sum of squared deviations of features, entry by entry.
#[derive(Clone, Debug, PartialEq)]
pub struct FeatureMoments {
    count: usize,
    mean: Array1<f64>,
    squares: Array1<f64>,
}

impl FeatureMoments {
    fn empty(width: usize) -> Self {
        FeatureMoments { count: 0, mean: Array1::zeros(width), squares: Array1::zeros(width) }
    }

    /// Joins the features `[m, z]`: two sets' deviations from their own means and the distance of those means give the
    /// deviations from the common one.
    fn add(&mut self, features: ArrayView2<f64>) {
        let Some(own) = features.mean_axis(Axis(0)) else { return };
        let (before, more) = (self.count as f64, features.nrows() as f64);
        let all = before + more;
        let apart = &own - &self.mean;
        let deviations = &features - &own;
        self.squares += &(&deviations * &deviations).sum_axis(Axis(0));
        self.squares += &(&apart * &apart * (before * more / all));
        self.mean += &(apart * (more / all));
        self.count += features.nrows();
    }

    /// Number of tokens seen.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Mean of every entry, `[z]`.
    pub fn mean(&self) -> ArrayView1<'_, f64> {
        self.mean.view()
    }

    /// Standard deviation of every entry, `[z]`, with `count - 1` in the denominator; 0 of fewer than two tokens.
    pub fn deviation(&self) -> Array1<f64> {
        let n = self.count.saturating_sub(1).max(1) as f64;
        self.squares.mapv(|squares| (squares / n).sqrt())
    }
}
