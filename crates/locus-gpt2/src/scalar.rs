//! [`Scalar`]: the number type of a model, and the door to heavy work on it.
//!
//! Generic functions are compiled where they are used. If kernels and passes were reached as such, every crate and
//! every test above this one would compile them again. So each heavy function is a [`Job`], which is compiled once for
//! `f32` and once for `f64` in the crate that owns it, and the generic method that everyone calls only hands its
//! arguments over.

use ndarray::{ArrayView2, ArrayViewMut2};

use crate::kernels::gemm as dense;
use crate::kernels::number::Number;

/// Work that is compiled once for each number type, in the crate that owns it, instead of wherever it is used.
///
/// A generic function `fn work<F: Scalar>(input) -> output` that is called through a job (`F::run::<WorkJob>(input)`)
/// is instantiated for `f32` and `f64` where [`compiled!`](crate::compiled) names it.
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

/// Names a [`Job`]: its name, what it takes, what it gives, and a function or closure that does it, which is then
/// compiled for `f32` and `f64` here and nowhere else.
///
/// ```
/// use locus_gpt2::ndarray::{Array2, ArrayView2};
/// use locus_gpt2::{Scalar, compiled};
///
/// fn power<F: Scalar>(x: ArrayView2<F>, exponent: usize) -> Array2<F> {
///     (1..exponent).fold(x.to_owned(), |power, _| power.dot(&x))
/// }
///
/// compiled!(PowerJob<'a>: <F> (ArrayView2<'a, F>, usize) => Array2<F>, |(x, exponent)| power(x, exponent));
///
/// /// A method or function for everyone: generic, and no more than the call.
/// pub fn matrix_power<F: Scalar>(x: ArrayView2<F>, exponent: usize) -> Array2<F> {
///     F::run::<PowerJob>((x, exponent))
/// }
///
/// let x = Array2::from_diag_elem(2, 3.0f32);
/// assert_eq!(matrix_power(x.view(), 3), Array2::from_diag_elem(2, 27.0));
/// ```
#[macro_export]
macro_rules! compiled {
    ($job:ident $(<$lifetime:lifetime>)?: <$number:ident> $input:ty => $output:ty, $work:expr) => {
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

pub(crate) use compiled;

/// `f32` (the default everywhere) or `f64` (for checks against finite differences and golden values), and no other
/// type: [`Number`] cannot be implemented outside of this crate.
pub trait Scalar: Number {
    /// Does a job in this number type.
    fn run<J: Job>(input: J::In<Self>) -> J::Out<Self>;
}

impl Scalar for f32 {
    fn run<J: Job>(input: J::In<Self>) -> J::Out<Self> {
        J::run_f32(input)
    }
}

impl Scalar for f64 {
    fn run<J: Job>(input: J::In<Self>) -> J::Out<Self> {
        J::run_f64(input)
    }
}

compiled!(
    GemmJob<'a>: <F> (F, ArrayView2<'a, F>, ArrayView2<'a, F>, F, ArrayViewMut2<'a, F>) => (),
    |(alpha, a, b, beta, c)| dense::gemm(alpha, a, b, beta, c)
);

/// `c <- alpha a b + beta c` with `a [m, k]`, `b [k, n]`, `c [m, n]`: the one door to matrix products.
///
/// # Panics
/// When the shapes do not fit; the message has all three.
pub fn gemm<F: Scalar>(alpha: F, a: ArrayView2<F>, b: ArrayView2<F>, beta: F, c: ArrayViewMut2<F>) {
    F::run::<GemmJob>((alpha, a, b, beta, c));
}
