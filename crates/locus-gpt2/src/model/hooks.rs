//! Hook points: the named states of a pass, and what may see or replace them.

use ndarray::ArrayViewMut2;

/// A named state of a pass, in the order of the forward pass, with its name in TransformerLens. On a backward pass the
/// same names stand for the gradients of those states.
///
/// `n` rows of the packed batch, `d` width, `f` MLP width.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HookPoint {
    /// Residual stream entering the block, `hook_resid_pre` `[n, d]`.
    ResidPre,
    /// Output of `ln_1` `[n, d]`. Unlike `ln1.hook_normalized`, gain and bias are applied.
    Ln1,
    /// Queries, keys and values side by side, heads side by side in each: `attn.hook_q`, `hook_k`, `hook_v` `[n, 3d]`.
    Qkv,
    /// Attention weights, `attn.hook_pattern`: `[queries, keys]` for each sequence and head. Hooks meet them in
    /// [`Hook::pattern`], not in [`Hook::call`].
    Pattern,
    /// Attention-weighted values, heads side by side, `attn.hook_z` `[n, d]`.
    Z,
    /// What attention adds to the residual stream, `hook_attn_out` `[n, d]`.
    AttnOut,
    /// Residual stream between attention and MLP, `hook_resid_mid` `[n, d]`.
    ResidMid,
    /// Output of `ln_2` `[n, d]`. Unlike `ln2.hook_normalized`, gain and bias are applied.
    Ln2,
    /// MLP before the activation, `mlp.hook_pre` `[n, f]`.
    MlpPre,
    /// MLP after the activation, `mlp.hook_post`: the keys of its output matrix `[n, f]`.
    MlpPost,
    /// What the MLP adds to the residual stream, `hook_mlp_out` `[n, d]`.
    MlpOut,
    /// Residual stream leaving the block, `hook_resid_post` `[n, d]`.
    ResidPost,
    /// Output of `ln_f`, gain and bias applied, `[n, d]`; its layer is `L`. Backward passes begin here and do not visit
    /// it.
    LnFinal,
}

/// Sees, and may replace, the named states of a pass. `()` is the hook that does nothing and costs nothing.
pub trait Hook<F> {
    /// Called once per layer and hook point, in the order in which the pass reaches them.
    fn call(&mut self, layer: usize, point: HookPoint, state: ArrayViewMut2<F>);

    /// Whether [`Hook::pattern`] is to be called for a layer.
    fn wants_pattern(&self, _layer: usize) -> bool {
        false
    }

    /// Called with the attention pattern of one head on one sequence, `[queries, keys]`: a query for each of the
    /// sequence's rows (those that are read, in the last block), a key for each token up to the last query. Weights of
    /// keys behind a query are zero and stay so. What is written replaces the pattern. On a backward pass the patterns
    /// of this layer are constants: values receive gradients, queries and keys do not.
    fn pattern(&mut self, _layer: usize, _head: usize, _sequence: usize, _pattern: ArrayViewMut2<F>) {}

    /// Whether `call` overwrites the whole of [`HookPoint::AttnOut`] on a forward pass, or of [`HookPoint::Ln1`] on a
    /// backward pass. The pass then hands over zeros and saves a product.
    #[doc(hidden)]
    fn overwrites(&self, _point: HookPoint) -> bool {
        false
    }
}

impl<F> Hook<F> for () {
    #[inline(always)]
    fn call(&mut self, _: usize, _: HookPoint, _: ArrayViewMut2<F>) {}
}

/// A closure is a hook.
impl<F, C: FnMut(usize, HookPoint, ArrayViewMut2<F>)> Hook<F> for C {
    fn call(&mut self, layer: usize, point: HookPoint, state: ArrayViewMut2<F>) {
        self(layer, point, state);
    }
}

/// A hook on the attention patterns alone: a closure that takes layer, head, sequence and `[queries, keys]`.
#[derive(Clone, Debug)]
pub struct PatternHook<C>(pub C);

impl<F, C: FnMut(usize, usize, usize, ArrayViewMut2<F>)> Hook<F> for PatternHook<C> {
    fn call(&mut self, _: usize, _: HookPoint, _: ArrayViewMut2<F>) {}

    fn wants_pattern(&self, _: usize) -> bool {
        true
    }

    fn pattern(&mut self, layer: usize, head: usize, sequence: usize, pattern: ArrayViewMut2<F>) {
        self.0(layer, head, sequence, pattern);
    }
}
