//! Arithmetic on numbers: matrix products, sparse products, activation and softmax.
//!
//! Nothing here knows a model. Every kernel is generic over [`Number`](number::Number). Other crates reach the heavy
//! ones through jobs ([`compiled!`](crate::compiled)), so that each is compiled once for `f32` and once for `f64`.
//!
//! | module | what it holds |
//! |---|---|
//! | `gemm`, `gemm_small_m` | products of dense matrices, by a BLAS or in place where few rows meet a large matrix |
//! | `sparse` | products with matrices of few entries, and gradients at few entries |
//! | `transposed` | transposed states, the layout that the sparse kernels read |
//! | `vector`, `softmax`, `activation` | loops over vectors and rows with a fixed order of additions |
//! | `number`, `simd` | the two number types and their vectors |
//! | `split` | cuts of arrays into parts for threads |
//! | `blas` | what the BLAS is told before it is loaded |

pub(crate) mod activation;
pub(crate) mod blas;
pub(crate) mod gemm;
pub(crate) mod gemm_small_m;
pub(crate) mod number;
pub(crate) mod simd;
pub(crate) mod softmax;
pub(crate) mod sparse;
pub(crate) mod split;
pub(crate) mod transposed;
pub(crate) mod vector;
