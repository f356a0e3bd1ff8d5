//! States of a forward pass by layer and hook point.

use std::collections::BTreeMap;

use ndarray::{Array2, ArrayView2, ArrayViewMut2, s};

use super::batch::Batch;
use super::forward::{Pass, hidden};
use super::hooks::{Hook, HookPoint};
use crate::kernels::number::Number;

/// States that a forward pass kept; see [`Run::cache`](crate::Run::cache). Dimension letters: `n` rows of the batch
/// (from [`HookPoint::Z`] of the last layer on, the rows read), `d` width, `w` width of a head.
#[derive(Clone, Debug)]
pub struct ActivationCache<F> {
    batch: Batch<F>,
    n_head: usize,
    states: BTreeMap<(usize, HookPoint), Array2<F>>,
    /// By layer, head and sequence, `[queries, keys]`.
    patterns: BTreeMap<(usize, usize, usize), Array2<F>>,
}

impl<F: Number> ActivationCache<F> {
    /// The batch that was run.
    pub fn batch(&self) -> &Batch<F> {
        &self.batch
    }

    /// The state of a layer at a hook point, `[n, columns]`; `None` when it was not asked for or not reached.
    /// [`HookPoint::LnFinal`] is at layer `L`, and patterns are in [`ActivationCache::pattern`].
    pub fn get(&self, layer: usize, point: HookPoint) -> Option<ArrayView2<'_, F>> {
        self.states.get(&(layer, point)).map(|state| state.view())
    }

    /// Queries of a head, `[n, w]`.
    ///
    /// # Panics
    /// When [`HookPoint::Qkv`] of the layer is not cached or there is no such head.
    pub fn q(&self, layer: usize, head: usize) -> ArrayView2<'_, F> {
        self.head(layer, HookPoint::Qkv, head, 0)
    }

    /// Keys of a head, `[n, w]`.
    ///
    /// # Panics
    /// As [`ActivationCache::q`].
    pub fn k(&self, layer: usize, head: usize) -> ArrayView2<'_, F> {
        self.head(layer, HookPoint::Qkv, head, 1)
    }

    /// Values of a head, `[n, w]`.
    ///
    /// # Panics
    /// As [`ActivationCache::q`].
    pub fn v(&self, layer: usize, head: usize) -> ArrayView2<'_, F> {
        self.head(layer, HookPoint::Qkv, head, 2)
    }

    /// Attention-weighted values of a head, `[n, w]`.
    ///
    /// # Panics
    /// When [`HookPoint::Z`] of the layer is not cached or there is no such head.
    pub fn z(&self, layer: usize, head: usize) -> ArrayView2<'_, F> {
        self.head(layer, HookPoint::Z, head, 0)
    }

    /// The attention pattern of a head on a sequence, `[queries, keys]`: a query for each of the sequence's rows (those
    /// that were read, in the last block), a key for each token up to the last query, zero for keys behind a query.
    ///
    /// # Panics
    /// When [`HookPoint::Pattern`] of the layer is not cached or there is no such head or sequence.
    pub fn pattern(&self, layer: usize, head: usize, sequence: usize) -> ArrayView2<'_, F> {
        let pattern = self.patterns.get(&(layer, head, sequence));
        let absent = || panic!("no pattern of layer {layer}, head {head}, sequence {sequence} in the cache");
        pattern.unwrap_or_else(absent).view()
    }

    fn head(&self, layer: usize, point: HookPoint, head: usize, part: usize) -> ArrayView2<'_, F> {
        assert!(head < self.n_head, "head {head} of {}", self.n_head);
        let state = self.states.get(&(layer, point));
        let state = state.unwrap_or_else(|| panic!("no {point:?} of layer {layer} in the cache"));
        let d = if point == HookPoint::Qkv { state.ncols() / 3 } else { state.ncols() };
        let width = d / self.n_head;
        let first = part * d + head * width;
        state.slice(s![.., first..first + width])
    }
}

/// A forward pass that keeps the states at some hook points as the pass's own hook leaves them.
pub(crate) fn cache<F: Number>(
    pass: Pass<F>,
    points: Vec<HookPoint>,
    hook: &mut dyn Hook<F>,
) -> ActivationCache<F> {
    let (batch, n_head) = (pass.batch.clone(), pass.model.config().n_head);
    let mut keep = CacheHook { points, inner: hook, states: BTreeMap::new(), patterns: BTreeMap::new() };
    hidden(pass, &mut keep);
    ActivationCache { batch, n_head, states: keep.states, patterns: keep.patterns }
}

/// Keeps the states at some hook points behind another hook.
struct CacheHook<'a, F> {
    points: Vec<HookPoint>,
    inner: &'a mut dyn Hook<F>,
    states: BTreeMap<(usize, HookPoint), Array2<F>>,
    patterns: BTreeMap<(usize, usize, usize), Array2<F>>,
}

impl<F: Number> Hook<F> for CacheHook<'_, F> {
    fn call(&mut self, layer: usize, point: HookPoint, mut state: ArrayViewMut2<F>) {
        self.inner.call(layer, point, state.view_mut());
        if self.points.contains(&point) {
            self.states.insert((layer, point), state.to_owned());
        }
    }

    fn wants_pattern(&self, layer: usize) -> bool {
        self.points.contains(&HookPoint::Pattern) || self.inner.wants_pattern(layer)
    }

    fn pattern(&mut self, layer: usize, head: usize, sequence: usize, mut pattern: ArrayViewMut2<F>) {
        if self.inner.wants_pattern(layer) {
            self.inner.pattern(layer, head, sequence, pattern.view_mut());
        }
        if self.points.contains(&HookPoint::Pattern) {
            self.patterns.insert((layer, head, sequence), pattern.to_owned());
        }
    }

    fn overwrites(&self, point: HookPoint) -> bool {
        self.inner.overwrites(point)
    }
}
