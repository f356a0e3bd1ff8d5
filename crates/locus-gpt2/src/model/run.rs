//! One way through the model: a builder that says from where, over which rows and with which hooks, and ends in what is
//! wanted.

use ndarray::{Array2, ArrayView2, Axis};

use super::batch::Batch;
use super::cache::{ActivationCache, CacheHook};
use super::forward::Norm;
use super::hooks::{Hook, HookPoint};
use super::kv_cache::KvCache;
use super::tape::Tape;
use super::weights::{Gpt2, ParamSet};
use crate::error::Result;
use crate::scalar::{Pass, Scalar};

/// A forward pass that is being described; see [`Gpt2::run`].
///
/// Ends: [`Run::resid`], [`Run::hidden`], [`Run::logits`], [`Run::cache`], [`Run::tape`]; each panics when the run would end
/// at a layer below the one it begins at. Dimension letters: `n` rows of the
/// batch (or the rows read), `d` width, `V` vocabulary, `L` layers.
#[must_use = "a run does nothing until it ends in what is wanted"]
pub struct Run<'a, F> {
    model: &'a Gpt2<F>,
    batch: &'a Batch<F>,
    resid: Option<Array2<F>>,
    layers: std::ops::Range<usize>,
    reads: Option<&'a [usize]>,
    hook: Option<&'a mut dyn Hook<F>>,
}

impl<'a, F: Scalar> Run<'a, F> {
    /// Begins with the residual stream `[n, d]` that enters block `layer`, in place of the embeddings. With `layer = L`
    /// no block runs.
    ///
    /// # Panics
    /// When there is no such layer or the residual stream has other rows than the batch.
    pub fn from_layer(mut self, layer: usize, resid: Array2<F>) -> Self {
        let expected = (self.batch.n_rows(), self.model.config().n_embd);
        assert!(layer <= self.model.config().n_layer, "layer {layer} of {}", self.model.config().n_layer);
        assert_eq!(resid.dim(), expected, "residual stream and batch");
        self.layers.start = layer;
        self.resid = Some(resid);
        self
    }

    /// Ends with the residual stream that enters block `layer`, in place of the last one.
    ///
    /// # Panics
    /// When there is no such layer.
    pub fn until_layer(mut self, layer: usize) -> Self {
        assert!(layer <= self.model.config().n_layer, "layer {layer} of {}", self.model.config().n_layer);
        self.layers.end = layer;
        self
    }

    /// Reads these rows alone, given in ascending order: results have them alone, and the last block does no work for
    /// other rows once it has their keys and values. A hook sees those rows alone from there on.
    ///
    /// # Panics
    /// When the rows do not ascend or the batch has fewer.
    pub fn reading(mut self, rows: &'a [usize]) -> Self {
        assert!(rows.is_sorted_by(|a, b| a < b), "rows to read that do not ascend");
        assert!(rows.last().is_none_or(|&row| row < self.batch.n_rows()), "rows to read beyond the batch");
        self.reads = Some(rows);
        self
    }

    /// Shows every named state to a hook, which may replace it.
    pub fn with_hooks(mut self, hook: &'a mut dyn Hook<F>) -> Self {
        self.hook = Some(hook);
        self
    }

    /// The residual stream after the last block that runs, `[n, d]`.
    pub fn resid(self) -> Array2<F> {
        self.with_pass(|model, pass, hook| F::resid(model, pass, hook))
    }

    /// Hidden states after the final LayerNorm, `[n, d]`.
    pub fn hidden(self) -> Array2<F> {
        self.with_pass(|model, pass, hook| F::hidden(model, pass, hook))
    }

    /// Logits of the next token, `[n, V]`.
    pub fn logits(self) -> Array2<F> {
        let model = self.model;
        F::logits(model, self.hidden().view())
    }

    /// The states at the given hook points, every layer that runs.
    pub fn cache(self, points: impl IntoIterator<Item = HookPoint>) -> ActivationCache<F> {
        let (batch, heads) = (self.batch.clone(), self.model.config().n_head);
        let points: Vec<HookPoint> = points.into_iter().collect();
        self.with_pass(|model, pass, hook| {
            let mut keep = CacheHook::new(points, hook);
            F::hidden(model, pass, &mut keep);
            keep.finish(batch, heads)
        })
    }

    /// Everything that a backward pass needs ([`Gpt2::backward`]).
    ///
    /// # Panics
    /// When the run ends before the last layer.
    pub fn tape(self) -> Tape<F> {
        assert_eq!(self.layers.end, self.model.config().n_layer, "a tape reaches the last layer");
        self.with_pass(|model, pass, hook| F::tape(model, pass, hook))
    }

    fn with_pass<T>(self, end: impl FnOnce(&Gpt2<F>, Pass<'_, F>, &mut dyn Hook<F>) -> T) -> T {
        let Run { model, batch, resid, layers, reads, hook } = self;
        assert!(layers.start <= layers.end, "a run from layer {} until layer {}", layers.start, layers.end);
        let resid = resid.unwrap_or_else(|| model.embed(batch));
        let pass = Pass { batch, resid, layers, reads };
        match hook {
            Some(hook) => end(model, pass, hook),
            None => end(model, pass, &mut ()),
        }
    }
}

/// GPT-2: weights in, states, logits and gradients out. The weights carry the configuration.
impl<F: Scalar> Gpt2<F> {
    /// Describes a forward pass over a batch.
    ///
    /// # Panics
    /// When the batch's KV cache belongs to a model of other layers or width.
    ///
    /// ```
    /// use locus_gpt2::{Batch, Config, Gpt2, HookPoint};
    /// use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};
    ///
    /// let config = Config::new(2, 2, 8, 16, 50);
    /// let model = Gpt2::<f32>::init(&config, &mut ChaCha8Rng::seed_from_u64(1));
    /// let batch = Batch::new(&config, &[vec![3, 1, 4], vec![1, 5]])?;
    /// let logits = model.run(&batch).reading(&batch.last_rows()).logits(); // [2, 50]
    /// let cache = model.run(&batch).cache([HookPoint::ResidPost, HookPoint::Pattern]);
    /// let pattern = cache.pattern(1, 0, 0); // layer, head, sequence: [query, key]
    /// assert_eq!((logits.dim(), pattern.dim()), ((2, 50), (3, 3)));
    /// # Ok::<(), locus_gpt2::Error>(())
    /// ```
    pub fn run<'a>(&'a self, batch: &'a Batch<F>) -> Run<'a, F> {
        batch.assert_fits(self.config());
        Run { model: self, batch, resid: None, layers: 0..self.config().n_layer, reads: None, hook: None }
    }

    /// Token plus position embeddings, `x_0 [n, d]`.
    pub fn embed(&self, batch: &Batch<F>) -> Array2<F> {
        F::embed(self, batch)
    }

    /// One of the model's LayerNorms on any rows `x [n, d]`.
    ///
    /// # Panics
    /// When there is no such layer or the rows have another width.
    pub fn layer_norm(&self, norm: Norm, x: ArrayView2<F>) -> Array2<F> {
        F::layer_norm(self, norm, x)
    }

    /// Logits `[rows, V]` of the given hidden states `[rows, d]`.
    ///
    /// # Panics
    /// When the states have another width.
    pub fn logits(&self, hidden: ArrayView2<F>) -> Array2<F> {
        F::logits(self, hidden)
    }

    /// Attention of one layer on queries, keys and values `qkv [n, 3d]`: the weighted values, heads side by side `[n, d]`.
    ///
    /// # Panics
    /// When `qkv` has another shape than the batch and the model say.
    pub fn attend(&self, batch: &Batch<F>, layer: usize, qkv: ArrayView2<F>) -> Array2<F> {
        F::attend(self, batch, layer, qkv)
    }

    /// What the MLP of a layer adds to the residual stream, from the output of its LayerNorm `[n, d]`.
    ///
    /// # Panics
    /// When there is no such layer or the rows have another width.
    pub fn mlp(&self, layer: usize, ln_out: ArrayView2<F>) -> Array2<F> {
        F::mlp(self, layer, ln_out)
    }

    /// Keys and values of the beginnings of some sequences, for passes over what follows them.
    ///
    /// # Errors
    /// When a beginning does not fit the model.
    pub fn kv_cache<S: AsRef<[u32]>>(&self, beginnings: &[S]) -> Result<KvCache<F>> {
        let lengths: Vec<usize> = beginnings.iter().map(|tokens| tokens.as_ref().len()).collect();
        let present: Vec<&[u32]> =
            beginnings.iter().map(AsRef::as_ref).filter(|tokens: &&[u32]| !tokens.is_empty()).collect();
        if present.is_empty() {
            return Ok(KvCache::empty(self.config(), lengths.len()));
        }
        let batch = Batch::new(self.config(), &present)?;
        let mut qkv = Vec::with_capacity(self.config().n_layer);
        let mut keep = |_: usize, point: HookPoint, state: ndarray::ArrayViewMut2<F>| {
            if point == HookPoint::Qkv {
                qkv.push(state.to_owned());
            }
        };
        // Of the last block only keys and values are wanted.
        self.run(&batch).reading(&[]).with_hooks(&mut keep).resid();
        let whole: Vec<usize> = present.iter().map(|tokens| tokens.len()).collect();
        Ok(KvCache::prefixes(&qkv, &whole, &whole).with_lengths(lengths))
    }

    /// A batch of what follows the first `starts[i]` tokens of each sequence, which are run for their keys and values.
    ///
    /// # Errors
    /// When a sequence does not fit the model or nothing follows its beginning.
    ///
    /// # Panics
    /// When there are not as many starts as sequences or a start is beyond its sequence.
    pub fn suffixes<S: AsRef<[u32]>>(&self, sequences: &[S], starts: &[usize]) -> Result<Batch<F>> {
        assert_eq!(sequences.len(), starts.len(), "one start per sequence");
        let parts = || sequences.iter().zip(starts).map(|(tokens, &start)| tokens.as_ref().split_at(start));
        let prefix = self.kv_cache(&parts().map(|(beginning, _)| beginning).collect::<Vec<_>>())?;
        Batch::after(self.config(), prefix, &parts().map(|(_, suffix)| suffix).collect::<Vec<_>>())
    }

    /// Gradient of a loss whose gradient with respect to the tape's hidden states is `d_hidden [n, d]` (or of the rows
    /// that were read).
    ///
    /// Adds to the parameters present in `grads` and returns the gradient of the residual stream entering the tape's
    /// first layer `[n, d]`. When the tape begins at the embeddings and `grads` holds them, they receive their share. The
    /// hook sees the gradients of the named states.
    ///
    /// # Panics
    /// When `d_hidden` has another shape than the tape's hidden states.
    pub fn backward(
        &self,
        tape: &Tape<F>,
        d_hidden: ArrayView2<F>,
        grads: &mut ParamSet<F>,
        hook: &mut dyn Hook<F>,
    ) -> Array2<F> {
        F::backward(self, tape, d_hidden, grads, hook)
    }

    /// Backward of [`Gpt2::logits`]: from `d_logits [rows, V]` at `hidden [rows, d]` to the gradient of those hidden
    /// states; adds to the token embedding's gradient when `grads` holds it.
    pub fn logits_backward(
        &self,
        hidden: ArrayView2<F>,
        d_logits: ArrayView2<F>,
        grads: &mut ParamSet<F>,
    ) -> Array2<F> {
        F::logits_backward(self, hidden, d_logits, grads)
    }

    /// [`Gpt2::backward`] to some scalars of the blocks: adds each one's gradient to its place in `sums`.
    ///
    /// # Panics
    /// When `sums` do not match.
    pub fn backward_to_entries(
        &self,
        tape: &Tape<F>,
        d_hidden: ArrayView2<F>,
        entries: &[super::entries::ParamEntries],
        sums: &mut [Vec<F>],
    ) {
        F::backward_to_entries(self, tape, d_hidden, entries, sums);
    }

    /// Turns a gradient at the output of a LayerNorm into one at its input, in place: `d [n, d]`, the rows of the
    /// tape. The path around the block (the residual connection) is not included.
    ///
    /// # Panics
    /// When the tape does not reach that far down or has other rows.
    pub fn through_norm(&self, tape: &Tape<F>, norm: Norm, d: ndarray::ArrayViewMut2<F>) {
        F::through_norm(self, tape, norm, d);
    }
}

/// Rows of a state, in the order given.
pub fn select_rows<F: Scalar>(x: ArrayView2<F>, rows: &[usize]) -> Array2<F> {
    x.select(Axis(0), rows)
}
