//! The KV cache: keys and values of tokens that have been run, for passes over what follows them.

use ndarray::{ArcArray2, Array2, ArrayView2, Axis, concatenate, s};

use crate::config::Config;
use crate::kernels::number::Number;

/// Keys and values of the beginnings of some sequences, layer by layer. Clones share them.
///
/// [`Gpt2::kv_cache`](crate::Gpt2::kv_cache) makes one from tokens; a [`Batch`](crate::Batch) of what follows owns it.
#[derive(Clone, Debug, PartialEq)]
pub struct KvCache<F> {
    /// Number of tokens of each beginning.
    lengths: Vec<usize>,
    /// Per layer, keys and values packed `[rows, 2d]`.
    layers: Vec<ArcArray2<F>>,
}

impl<F: Number> KvCache<F> {
    /// Beginnings without tokens, one for each of some sequences.
    pub fn empty(config: &Config, n_sequences: usize) -> Self {
        KvCache {
            lengths: vec![0; n_sequences],
            layers: vec![ArcArray2::zeros((0, 2 * config.n_embd)); config.n_layer],
        }
    }

    /// Keys and values of the first `starts[i]` tokens of sequences of the given lengths, taken from a run over whole
    /// sequences: queries, keys and values ([`HookPoint::Qkv`](crate::HookPoint::Qkv)) `[rows, 3d]` per layer.
    ///
    /// # Panics
    /// When there are not as many starts as lengths, a beginning is longer than its sequence, or the states have other
    /// rows.
    pub fn prefixes(qkv: &[Array2<F>], lengths: &[usize], starts: &[usize]) -> Self {
        assert_eq!(lengths.len(), starts.len(), "one start per sequence");
        let mut rows = Vec::with_capacity(starts.iter().sum());
        let mut first = 0;
        for (&length, &start) in lengths.iter().zip(starts) {
            assert!(start <= length, "a beginning of {start} rows of {length}");
            rows.extend(first..first + start);
            first += length;
        }
        let layer = |qkv: &Array2<F>| {
            assert_eq!(qkv.nrows(), first, "rows of the whole sequences");
            let d = qkv.ncols() / 3;
            qkv.slice(s![.., d..]).select(Axis(0), &rows).into_shared()
        };
        KvCache { lengths: starts.to_vec(), layers: qkv.iter().map(layer).collect() }
    }

    /// Keys and values of as many tokens, cut into beginnings of other lengths, such as with empty ones between them.
    pub(crate) fn with_lengths(self, lengths: Vec<usize>) -> Self {
        assert_eq!(lengths.iter().sum::<usize>(), self.lengths.iter().sum::<usize>(), "tokens in all");
        KvCache { lengths, ..self }
    }

    /// Checks that the cache belongs to a model of this many layers and this width.
    ///
    /// # Panics
    /// When it does not.
    pub(crate) fn assert_fits(&self, config: &Config) {
        assert_eq!(self.n_layers(), config.n_layer, "layers of the KV cache and of the model");
        for kv in &self.layers {
            assert_eq!(
                kv.ncols(),
                2 * config.n_embd,
                "columns of the KV cache and of the model's keys and values"
            );
        }
    }

    /// Number of tokens of each beginning.
    pub fn lengths(&self) -> &[usize] {
        &self.lengths
    }

    /// Number of layers.
    pub fn n_layers(&self) -> usize {
        self.layers.len()
    }

    /// Keys and values of all beginnings in order, `times` over.
    pub fn repeat(&self, times: usize) -> Self {
        let layer = |kv: &ArcArray2<F>| {
            concatenate(Axis(0), &vec![kv.view(); times]).expect("parts have equal width").into_shared()
        };
        KvCache { lengths: self.lengths.repeat(times), layers: self.layers.iter().map(layer).collect() }
    }

    /// Lengthens a single beginning by the tokens of a pass, given their queries, keys and values `[rows, 3d]` per
    /// layer.
    pub(crate) fn push(&mut self, qkv: &[Array2<F>]) {
        assert!(self.lengths.len() == 1 && qkv.len() == self.layers.len(), "states of one sequence");
        for (kv, qkv) in self.layers.iter_mut().zip(qkv) {
            let d = qkv.ncols() / 3;
            let both = concatenate(Axis(0), &[kv.view(), qkv.slice(s![.., d..])]);
            *kv = both.expect("parts have equal width").into_shared();
        }
        self.lengths[0] += qkv[0].nrows();
    }

    /// Keys and values of a layer, packed `[rows, 2d]`.
    pub(crate) fn layer(&self, layer: usize) -> ArrayView2<'_, F> {
        self.layers[layer].view()
    }
}
