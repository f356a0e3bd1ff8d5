//! One way through the model: a builder that says from which layer, over which rows and with which hooks, and that ends
//! in what is wanted.

use ndarray::{Array2, ArrayView2, ArrayViewMut2, Axis};

use super::backward;
use super::batch::Batch;
use super::cache::{self, ActivationCache};
use super::entries::{self, ParamEntries};
use super::forward::{self, Norm, Pass};
use super::hooks::{Hook, HookPoint};
use super::tape::Tape;
use super::weights::{Gpt2, ParamSet};
use crate::scalar::{Scalar, compiled};

// The heavy work behind the methods below.
compiled!(EmbedJob<'a>: <F> (&'a Gpt2<F>, &'a Batch<F>) => Array2<F>, |(model, batch)| forward::embed(model, batch));
compiled!(
    LayerNormJob<'a>: <F> (&'a Gpt2<F>, Norm, ArrayView2<'a, F>) => Array2<F>,
    |(model, norm, x)| forward::layer_norm(model, norm, x).0
);
compiled!(
    LogitsJob<'a>: <F> (&'a Gpt2<F>, ArrayView2<'a, F>) => Array2<F>,
    |(model, hidden)| forward::logits(model, hidden)
);
compiled!(
    AttendJob<'a>: <F> (&'a Gpt2<F>, &'a Batch<F>, usize, ArrayView2<'a, F>) => Array2<F>,
    |(model, batch, layer, qkv)| forward::attend(model, batch, layer, qkv)
);
compiled!(
    MlpJob<'a>: <F> (&'a Gpt2<F>, usize, ArrayView2<'a, F>) => Array2<F>,
    |(model, layer, ln_out)| forward::mlp(model, layer, ln_out)
);
compiled!(
    ResidJob<'a>: <F> (Pass<'a, F>, &'a mut dyn Hook<F>) => Array2<F>,
    |(pass, hook)| forward::resid(pass, hook)
);
compiled!(
    HiddenJob<'a>: <F> (Pass<'a, F>, &'a mut dyn Hook<F>) => Array2<F>,
    |(pass, hook)| forward::hidden(pass, hook)
);
compiled!(
    CacheJob<'a>: <F> (Pass<'a, F>, Vec<HookPoint>, &'a mut dyn Hook<F>) => ActivationCache<F>,
    |(pass, points, hook)| cache::cache(pass, points, hook)
);
compiled!(
    TapeJob<'a>: <F> (Pass<'a, F>, &'a mut dyn Hook<F>) => Tape<F>,
    |(pass, hook)| forward::tape(pass, hook)
);
compiled!(
    BackwardJob<'a>: <F>
        (&'a Gpt2<F>, &'a Tape<F>, ArrayView2<'a, F>, &'a mut ParamSet<F>, &'a mut dyn Hook<F>) => Array2<F>,
    |(model, tape, d_hidden, grads, hook)| backward::backward(model, tape, d_hidden, grads, hook)
);
compiled!(
    LogitsBackwardJob<'a>: <F> (&'a Gpt2<F>, ArrayView2<'a, F>, ArrayView2<'a, F>, &'a mut ParamSet<F>) => Array2<F>,
    |(model, hidden, d_logits, grads)| backward::logits_backward(model, hidden, d_logits, grads)
);
compiled!(
    EntriesJob<'a>: <F> (&'a Gpt2<F>, &'a Tape<F>, ArrayView2<'a, F>, &'a [ParamEntries], &'a mut [Vec<F>]) => (),
    |(model, tape, d_hidden, entries, sums)| entries::backward_to_entries(model, tape, d_hidden, entries, sums)
);
compiled!(
    ThroughNormJob<'a>: <F> (&'a Gpt2<F>, &'a Tape<F>, Norm, ArrayViewMut2<'a, F>) => (),
    |(model, tape, norm, d)| backward::through_norm(model, tape, norm, d)
);
compiled!(
    SelectRowsJob<'a>: <F> (ArrayView2<'a, F>, &'a [usize]) => Array2<F>,
    |(x, rows)| selected(x, rows)
);

/// A forward pass that is being described; see [`Gpt2::run`].
///
/// Ends: [`Run::resid`], [`Run::hidden`], [`Run::logits`], [`Run::cache`], [`Run::tape`]; each panics when the run
/// would end at a layer below the one it begins at. Dimension letters: `n` rows of the batch (or the rows read), `d`
/// width, `V` vocabulary, `L` layers.
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
    /// Begins at block `layer` with the residual stream `[n, d]` that enters it, in place of the embeddings. With
    /// `layer = L` no block runs.
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

    /// Stops before block `layer`: blocks from there on do not run.
    ///
    /// # Panics
    /// When there is no such layer.
    pub fn until_layer(mut self, layer: usize) -> Self {
        assert!(layer <= self.model.config().n_layer, "layer {layer} of {}", self.model.config().n_layer);
        self.layers.end = layer;
        self
    }

    /// Reads some rows alone, in ascending order: results have those rows, and the last block does no work for other
    /// rows once it has their keys and values. From there on a hook sees those rows alone.
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
        self.end_in(|pass, hook| F::run::<ResidJob>((pass, hook)))
    }

    /// Hidden states after the final LayerNorm, `[n, d]`.
    pub fn hidden(self) -> Array2<F> {
        self.end_in(|pass, hook| F::run::<HiddenJob>((pass, hook)))
    }

    /// Logits of the next token, `[n, V]`.
    pub fn logits(self) -> Array2<F> {
        let model = self.model;
        model.logits(self.hidden().view())
    }

    /// States at the given hook points of every layer that runs.
    pub fn cache(self, points: impl IntoIterator<Item = HookPoint>) -> ActivationCache<F> {
        let points = points.into_iter().collect();
        self.end_in(|pass, hook| F::run::<CacheJob>((pass, points, hook)))
    }

    /// Hidden states and everything else that a backward pass needs ([`Gpt2::backward`]).
    ///
    /// # Panics
    /// When the run ends before the last layer.
    pub fn tape(self) -> Tape<F> {
        assert_eq!(self.layers.end, self.model.config().n_layer, "a tape reaches the last layer");
        self.end_in(|pass, hook| F::run::<TapeJob>((pass, hook)))
    }

    fn end_in<T>(self, end: impl FnOnce(Pass<'_, F>, &mut dyn Hook<F>) -> T) -> T {
        let Run { model, batch, resid, layers, reads, hook } = self;
        assert!(layers.start <= layers.end, "a run from layer {} until layer {}", layers.start, layers.end);
        let resid = resid.unwrap_or_else(|| model.embed(batch));
        let pass = Pass { model, batch, resid, layers, reads };
        match hook {
            Some(hook) => end(pass, hook),
            None => end(pass, &mut ()),
        }
    }
}

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
        F::run::<EmbedJob>((self, batch))
    }

    /// One of the model's LayerNorms on any rows `x [n, d]`.
    ///
    /// # Panics
    /// When there is no such layer or the rows have another width.
    pub fn layer_norm(&self, norm: Norm, x: ArrayView2<F>) -> Array2<F> {
        F::run::<LayerNormJob>((self, norm, x))
    }

    /// Logits `[rows, V]` of the given hidden states `[rows, d]`.
    ///
    /// # Panics
    /// When the states have another width.
    pub fn logits(&self, hidden: ArrayView2<F>) -> Array2<F> {
        F::run::<LogitsJob>((self, hidden))
    }

    /// Attention of one layer on queries, keys and values `qkv [n, 3d]`: the weighted values, heads side by side
    /// `[n, d]`.
    ///
    /// # Panics
    /// When `qkv` has another shape than the batch and the model say.
    pub fn attend(&self, batch: &Batch<F>, layer: usize, qkv: ArrayView2<F>) -> Array2<F> {
        F::run::<AttendJob>((self, batch, layer, qkv))
    }

    /// What the MLP of a layer adds to the residual stream, from the output of its LayerNorm `[n, d]`.
    ///
    /// # Panics
    /// When there is no such layer or the rows have another width.
    pub fn mlp(&self, layer: usize, ln_out: ArrayView2<F>) -> Array2<F> {
        F::run::<MlpJob>((self, layer, ln_out))
    }

    /// Gradient of a loss whose gradient with respect to the tape's hidden states is `d_hidden [n, d]` (or of the rows
    /// that were read).
    ///
    /// Adds to the parameters present in `grads` and returns the gradient of the residual stream entering the tape's
    /// first layer `[n, d]`. When the tape begins at the embeddings and `grads` holds them, they receive their share.
    /// The hook sees the gradients of the named states.
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
        F::run::<BackwardJob>((self, tape, d_hidden, grads, hook))
    }

    /// Gradient of hidden states `[rows, d]` from that of their logits, `d_logits [rows, V]`; adds to the token
    /// embedding's gradient when `grads` holds it.
    ///
    /// # Panics
    /// When the shapes do not fit each other or the model.
    pub fn logits_backward(
        &self,
        hidden: ArrayView2<F>,
        d_logits: ArrayView2<F>,
        grads: &mut ParamSet<F>,
    ) -> Array2<F> {
        F::run::<LogitsBackwardJob>((self, hidden, d_logits, grads))
    }

    /// Gradient of some scalars of the blocks alone, as of [`Gpt2::backward`]: adds each one's gradient to its place in
    /// `sums`.
    ///
    /// # Panics
    /// When there is not one list of sums for each parameter and one sum for each scalar, or `d_hidden` has another
    /// shape than the tape's hidden states.
    pub fn backward_to_entries(
        &self,
        tape: &Tape<F>,
        d_hidden: ArrayView2<F>,
        entries: &[ParamEntries],
        sums: &mut [Vec<F>],
    ) {
        F::run::<EntriesJob>((self, tape, d_hidden, entries, sums));
    }

    /// Turns a gradient `d [n, d]` at the output of a LayerNorm into one at its input, in place, for the rows of the
    /// tape. The path around the block (the residual connection) is not included.
    ///
    /// # Panics
    /// When the LayerNorm is not on the tape or the gradient has another shape than the tape's states there.
    pub fn through_norm(&self, tape: &Tape<F>, norm: Norm, d: ArrayViewMut2<F>) {
        F::run::<ThroughNormJob>((self, tape, norm, d));
    }
}

/// Rows of a state, in the order given.
///
/// # Panics
/// When there is no such row.
pub fn select_rows<F: Scalar>(x: ArrayView2<F>, rows: &[usize]) -> Array2<F> {
    F::run::<SelectRowsJob>((x, rows))
}

fn selected<F: Scalar>(x: ArrayView2<F>, rows: &[usize]) -> Array2<F> {
    x.select(Axis(0), rows)
}
