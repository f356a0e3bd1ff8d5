//! Closed-form updates that write keys and values into a linear memory.
//!
//! An MLP's output matrix `W [f, d]` answers a key `k [f]` with `k W + b`. To add `R^T [n, d]` to its answers to the
//! keys `K [f, n]`, while its answers to the keys it usually sees (second moment `C`) change as little as possible:
//!
//! ```text
//! W <- W + U R^T,    U = (lambda C + K K^T)^-1 K = S (lambda + K^T S)^-1,    S = C^-1 K
//! ```
//!
//! The second form follows from the first by the Woodbury identity and needs one triangular solve per key instead of a
//! system of size `f`. `lambda -> 0` with one key is ROME's `u / (u . k)` (Meng et al. 2022, arXiv 2202.05262, eq. 2),
//! with several the equality-constrained EMMET (Gupta et al. 2024, arXiv 2403.14236), whose answers `K^T (W + U R^T)`
//! are exactly those asked for; the damping that its code adds is a `lambda`. `lambda > 0` is MEMIT (Meng et al. 2023,
//! arXiv 2210.07229, eq. 14). AlphaEdit (Fang et al. 2024, arXiv 2410.02355)
//! projects onto the directions that keys seldom use: `U = P M (l2 + M^T P M)^-1` with a projection `P`, where `M`
//! holds the new keys and those written before, whose answers are to stay.
//!
//! Letters: `n` facts, `f` MLP width, `d` width.

use ndarray::{Array2, ArrayView2, Axis, concatenate, s};
use ndarray_linalg::{Cholesky, Diag, Eigh, SolveTriangular, UPLO};

use crate::error::{Error, Result};
use crate::statistics::KeyCovariance;

/// Left factor `U [f, n]` of MEMIT's update `U R^T` for the keys `K [f, n]`.
///
/// # Errors
/// When the keys are linearly dependent and `lambda` is 0.
///
/// # Panics
/// When the keys have another width than the covariance.
pub fn memit_update(covariance: &KeyCovariance, keys: ArrayView2<f64>, lambda: f64) -> Result<Array2<f64>> {
    let solved = covariance.solve(keys);
    let mut gram = keys.t().dot(&solved);
    gram.diag_mut().iter_mut().for_each(|x| *x += lambda);
    // U^T solves gram U^T = S^T.
    Ok(solve_positive(gram, solved.t())?.reversed_axes())
}

/// AlphaEdit's projection `P = I - Q Q^T` onto directions that keys seldom use: `Q [f, r]` are the eigenvectors of the
/// keys' second moment with an eigenvalue of at least a threshold.
#[derive(Clone, Debug)]
pub struct NullSpace {
    /// `Q [f, r]`.
    used: Array2<f64>,
}

impl NullSpace {
    /// Splits key space by the second moment `[f, f]` of keys: directions below `threshold` stay free.
    ///
    /// # Errors
    /// When the eigenvalues cannot be computed.
    pub fn new(covariance: ArrayView2<f64>, threshold: f64) -> Result<Self> {
        let (values, vectors) = covariance
            .to_owned()
            .eigh(UPLO::Lower)
            .map_err(|e| Error::Statistics(format!("the second moment has no eigenvalues: {e}")))?;
        let used: Vec<usize> = (0..values.len()).filter(|&i| values[i] >= threshold).collect();
        Ok(NullSpace { used: vectors.select(Axis(1), &used) })
    }

    /// Number of free dimensions, `f - r`.
    pub fn free(&self) -> usize {
        self.used.nrows() - self.used.ncols()
    }

    /// Projects keys `M [f, m]`: `P M`.
    ///
    /// # Panics
    /// When the keys have another width than the second moment that the space was split by.
    pub fn project(&self, keys: ArrayView2<f64>) -> Array2<f64> {
        assert_eq!(keys.nrows(), self.used.nrows(), "widths of the keys and of key space");
        &keys - &self.used.dot(&self.used.t().dot(&keys))
    }

    /// Left factor `U [f, n]` of AlphaEdit's update for new keys `[f, n]`, with the keys `[f, p]` of earlier edits,
    /// whose answers are to stay.
    ///
    /// # Errors
    /// When `l2` is 0 and the projected keys are linearly dependent.
    ///
    /// # Panics
    /// When keys have another width than the second moment that the space was split by.
    pub fn alphaedit_update(
        &self,
        keys: ArrayView2<f64>,
        earlier: ArrayView2<f64>,
        l2: f64,
    ) -> Result<Array2<f64>> {
        let f = self.used.nrows();
        assert_eq!((keys.nrows(), earlier.nrows()), (f, f), "widths of the keys and of key space");
        let all = concatenate![Axis(1), keys, earlier];
        let projected = self.project(all.view());
        let mut gram = projected.t().dot(&projected);
        gram.diag_mut().iter_mut().for_each(|x| *x += l2);
        let update = solve_positive(gram, projected.t())?.reversed_axes();
        Ok(update.slice(s![.., ..keys.ncols()]).to_owned())
    }
}

/// Smallest share of a key's squared length outside the span of the keys before it. Equal keys of an `f32` model differ
/// by rounding, by 1e-7 of their length and so 1e-14 of its square; at this share a change is 1e5 times as large as for
/// orthogonal keys.
const LEAST_SHARE: f64 = 1e-10;

/// `A^-1 B` for a positive definite `A [n, n]` and `B [n, m]`.
pub(crate) fn solve_positive(a: Array2<f64>, b: ArrayView2<f64>) -> Result<Array2<f64>> {
    let n = a.nrows();
    let why = || {
        Error::Unstable(format!(
            "the keys of {n} facts are linearly dependent; expected different subjects or a lambda above 0"
        ))
    };
    let dependent = |_| why();
    let factor = a.cholesky(UPLO::Lower).map_err(dependent)?;
    if factor.diag().iter().zip(a.diag()).any(|(&pivot, &square)| pivot * pivot < LEAST_SHARE * square) {
        return Err(why());
    }
    let b = b.as_standard_layout().into_owned();
    let half = factor.solve_triangular(UPLO::Lower, Diag::NonUnit, &b).map_err(dependent)?;
    let transposed = factor.t().as_standard_layout().into_owned();
    transposed.solve_triangular(UPLO::Upper, Diag::NonUnit, &half).map_err(dependent)
}
