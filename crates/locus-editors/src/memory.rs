//! What edits of one model leave behind for the ones that follow: keys whose answers are to stay, and statistics of
//! features.
//!
//! Letters: `f` MLP width, `d` width, `p` keys of earlier edits, `z` features of one token, `m` tokens.

use std::collections::BTreeMap;

use ndarray::{Array1, Array2, ArrayView1, ArrayView2, Axis, concatenate};

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
