//! [`Scalar`]: the number type of a model, and the door to all heavy work on it.
//!
//! Generic functions are compiled where they are used. If kernels and passes were reached as such, every crate and every
//! test above this one would compile them again. So their entry points are items of this trait, implemented once for `f32` and
//! once for `f64`, here.

use std::ops::Range;

use ndarray::{Array2, ArrayView2, ArrayViewMut2};

use crate::kernels::{gemm as dense, softmax};
use crate::model::attention::attention;
use crate::model::backward;
use crate::model::batch::Batch;
use crate::model::entries::{self, ParamEntries};
use crate::model::forward::{self, Norm};
use crate::model::hooks::{Hook, HookPoint};
use crate::model::tape::{BlockTape, Tape};
use crate::model::weights::{Gpt2, ParamSet};

pub use crate::kernels::number::Number;

/// A forward pass over some layers.
#[doc(hidden)]
#[derive(Debug)]
pub struct Pass<'a, F> {
    pub(crate) batch: &'a Batch<F>,
    pub(crate) resid: Array2<F>,
    pub(crate) layers: Range<usize>,
    pub(crate) reads: Option<&'a [usize]>,
}

impl<F: Number> Pass<'_, F> {
    fn run(self, model: &Gpt2<F>, hook: &mut dyn Hook<F>, taped: bool) -> (Array2<F>, Vec<BlockTape<F>>) {
        forward::blocks(model, self.batch, (self.layers, self.resid), self.reads, hook, taped)
    }
}

/// Work that is compiled once for each number type, in the crate that owns it, instead of wherever it is used.
///
/// A generic function `fn work<F: Scalar>(input) -> output` that is called through a job (`F::run::<WorkJob>(input)`) is
/// instantiated for `f32` and `f64` where [`compiled!`](crate::compiled) names it.
pub trait Job {
    /// What the work takes.
    type In<F: Scalar>;
    /// What the work gives.
    type Out<F: Scalar>;
    /// The work in `f32`.
    fn run_f32(input: Self::In<f32>) -> Self::Out<f32>;
    /// The work in `f64`.
    fn run_f64(input: Self::In<f64>) -> Self::Out<f64>;
}

/// Names a [`Job`]: `compiled!(WorkJob<'a>: <F> (&'a Gpt2<F>, usize) => Array2<F>, work)`, for a function `work` that takes
/// the tuple.
#[macro_export]
macro_rules! compiled {
    ($job:ident $(<$lifetime:lifetime>)?: <$number:ident> $input:ty => $output:ty, $work:path) => {
        struct $job $(<$lifetime>(std::marker::PhantomData<&$lifetime ()>))?;

        impl $(<$lifetime>)? $crate::Job for $job $(<$lifetime>)? {
            type In<$number: $crate::Scalar> = $input;
            type Out<$number: $crate::Scalar> = $output;

            fn run_f32(input: Self::In<f32>) -> Self::Out<f32> {
                $work(input)
            }

            fn run_f64(input: Self::In<f64>) -> Self::Out<f64> {
                $work(input)
            }
        }
    };
}

/// `f32` (the default everywhere) or `f64` (for checks against finite differences and golden values), and no other type.
///
/// The hidden items are the entry points of kernels and passes; use [`gemm`] and the methods of [`Gpt2`].
pub trait Scalar: Number {
    /// Does a job in this number type.
    fn run<J: Job>(input: J::In<Self>) -> J::Out<Self>;
    #[doc(hidden)]
    fn gemm(alpha: Self, a: ArrayView2<Self>, b: ArrayView2<Self>, beta: Self, c: ArrayViewMut2<Self>);
    #[doc(hidden)]
    fn softmax(x: &mut [Self]);
    #[doc(hidden)]
    fn exponentials(x: &mut [Self]) -> (f64, f64);
    #[doc(hidden)]
    fn log_sum_exp(x: &[Self]) -> f64;
    #[doc(hidden)]
    fn embed(model: &Gpt2<Self>, batch: &Batch<Self>) -> Array2<Self>;
    #[doc(hidden)]
    fn layer_norm(model: &Gpt2<Self>, norm: Norm, x: ArrayView2<Self>) -> Array2<Self>;
    #[doc(hidden)]
    fn logits(model: &Gpt2<Self>, hidden: ArrayView2<Self>) -> Array2<Self>;
    #[doc(hidden)]
    fn attend(model: &Gpt2<Self>, batch: &Batch<Self>, layer: usize, qkv: ArrayView2<Self>) -> Array2<Self>;
    #[doc(hidden)]
    fn mlp(model: &Gpt2<Self>, layer: usize, ln_out: ArrayView2<Self>) -> Array2<Self>;
    #[doc(hidden)]
    fn resid(model: &Gpt2<Self>, pass: Pass<Self>, hook: &mut dyn Hook<Self>) -> Array2<Self>;
    #[doc(hidden)]
    fn hidden(model: &Gpt2<Self>, pass: Pass<Self>, hook: &mut dyn Hook<Self>) -> Array2<Self>;
    #[doc(hidden)]
    fn tape(model: &Gpt2<Self>, pass: Pass<Self>, hook: &mut dyn Hook<Self>) -> Tape<Self>;
    #[doc(hidden)]
    fn backward(
        model: &Gpt2<Self>,
        tape: &Tape<Self>,
        d_hidden: ArrayView2<Self>,
        grads: &mut ParamSet<Self>,
        hook: &mut dyn Hook<Self>,
    ) -> Array2<Self>;
    #[doc(hidden)]
    fn logits_backward(
        model: &Gpt2<Self>,
        hidden: ArrayView2<Self>,
        d_logits: ArrayView2<Self>,
        grads: &mut ParamSet<Self>,
    ) -> Array2<Self>;
    #[doc(hidden)]
    fn backward_to_entries(
        model: &Gpt2<Self>,
        tape: &Tape<Self>,
        d_hidden: ArrayView2<Self>,
        entries: &[ParamEntries],
        sums: &mut [Vec<Self>],
    );
    #[doc(hidden)]
    fn through_norm(model: &Gpt2<Self>, tape: &Tape<Self>, norm: Norm, d: ArrayViewMut2<Self>);
}

macro_rules! scalar {
    ($number:ty, $run:ident) => {
        impl Scalar for $number {
            fn run<J: Job>(input: J::In<Self>) -> J::Out<Self> {
                J::$run(input)
            }

            fn gemm(
                alpha: Self,
                a: ArrayView2<Self>,
                b: ArrayView2<Self>,
                beta: Self,
                c: ArrayViewMut2<Self>,
            ) {
                dense::gemm(alpha, a, b, beta, c);
            }

            fn softmax(x: &mut [Self]) {
                softmax::softmax(x);
            }

            fn exponentials(x: &mut [Self]) -> (f64, f64) {
                softmax::exponentials(x)
            }

            fn log_sum_exp(x: &[Self]) -> f64 {
                softmax::log_sum_exp(x)
            }

            fn embed(model: &Gpt2<Self>, batch: &Batch<Self>) -> Array2<Self> {
                forward::embed(model, batch)
            }

            fn layer_norm(model: &Gpt2<Self>, norm: Norm, x: ArrayView2<Self>) -> Array2<Self> {
                forward::layer_norm(model, norm, x).0
            }

            fn logits(model: &Gpt2<Self>, hidden: ArrayView2<Self>) -> Array2<Self> {
                forward::logits(model, hidden)
            }

            fn attend(
                model: &Gpt2<Self>,
                batch: &Batch<Self>,
                layer: usize,
                qkv: ArrayView2<Self>,
            ) -> Array2<Self> {
                attention(model.config(), batch, layer, qkv, None).0
            }

            fn mlp(model: &Gpt2<Self>, layer: usize, ln_out: ArrayView2<Self>) -> Array2<Self> {
                forward::mlp(model, layer, ln_out)
            }

            fn resid(model: &Gpt2<Self>, pass: Pass<Self>, hook: &mut dyn Hook<Self>) -> Array2<Self> {
                pass.run(model, hook, false).0
            }

            fn hidden(model: &Gpt2<Self>, pass: Pass<Self>, hook: &mut dyn Hook<Self>) -> Array2<Self> {
                let x = pass.run(model, hook, false).0;
                let (mut hidden, _) = forward::layer_norm(model, Norm::Final, x.view());
                hook.call(model.config().n_layer, HookPoint::LnFinal, hidden.view_mut());
                hidden
            }

            fn tape(model: &Gpt2<Self>, pass: Pass<Self>, hook: &mut dyn Hook<Self>) -> Tape<Self> {
                let (batch, first_layer) = (pass.batch.clone(), pass.layers.start);
                let reads = pass.reads.filter(|_| pass.layers.is_empty()).map(<[usize]>::to_vec);
                let (resid, blocks) = pass.run(model, hook, true);
                let (mut hidden, ln_f) = forward::layer_norm(model, Norm::Final, resid.view());
                hook.call(model.config().n_layer, HookPoint::LnFinal, hidden.view_mut());
                Tape { batch, first_layer, blocks, reads, resid, ln_f, hidden }
            }

            fn backward(
                model: &Gpt2<Self>,
                tape: &Tape<Self>,
                d_hidden: ArrayView2<Self>,
                grads: &mut ParamSet<Self>,
                hook: &mut dyn Hook<Self>,
            ) -> Array2<Self> {
                backward::backward(model, tape, d_hidden, grads, hook)
            }

            fn logits_backward(
                model: &Gpt2<Self>,
                hidden: ArrayView2<Self>,
                d_logits: ArrayView2<Self>,
                grads: &mut ParamSet<Self>,
            ) -> Array2<Self> {
                backward::logits_backward(model, hidden, d_logits, grads)
            }

            fn backward_to_entries(
                model: &Gpt2<Self>,
                tape: &Tape<Self>,
                d_hidden: ArrayView2<Self>,
                entries: &[ParamEntries],
                sums: &mut [Vec<Self>],
            ) {
                entries::backward_to_entries(model, tape, d_hidden, entries, sums);
            }

            fn through_norm(model: &Gpt2<Self>, tape: &Tape<Self>, norm: Norm, d: ArrayViewMut2<Self>) {
                backward::through_norm(model, tape, norm, d);
            }
        }
    };
}

scalar!(f32, run_f32);
scalar!(f64, run_f64);

/// `c <- alpha a b + beta c` with `a [m, k]`, `b [k, n]`, `c [m, n]`: the one door to matrix products.
///
/// # Panics
/// When the shapes do not fit; the message has all three.
pub fn gemm<F: Scalar>(alpha: F, a: ArrayView2<F>, b: ArrayView2<F>, beta: F, c: ArrayViewMut2<F>) {
    F::gemm(alpha, a, b, beta, c);
}
