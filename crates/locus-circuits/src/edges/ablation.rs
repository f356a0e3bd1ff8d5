//! What a source is taken to write along an edge that is cut.

use std::fmt;

use locus_gpt2::{Gpt2, Result, Scalar};

use super::graph::Source;
use super::pairs::Pair;

/// An ablation: [`StandardAblation`](super::StandardAblation), or one of your own.
///
/// ```
/// use locus_circuits::edges::{AblatedOutputs, Ablation, Pair};
/// use locus_gpt2::{Gpt2, Result, Scalar};
///
/// /// Every cut source writes the same small number everywhere.
/// struct Constant(f64);
///
/// impl<F: Scalar> Ablation<F> for Constant {
///     fn outputs<'a>(&'a self, _: &'a Gpt2<F>, _: &'a [Pair]) -> Result<AblatedOutputs<'a, F>> {
///         Ok(AblatedOutputs::Fill(Box::new(|_source, _position, out| out.fill(F::from_f64(self.0)))))
///     }
/// }
/// ```
pub trait Ablation<F: Scalar>: Sync {
    /// What cut sources write when `pairs`, which were checked, are run. Called once for all pairs of a call.
    ///
    /// # Errors
    /// When the pairs do not allow it.
    fn outputs<'a>(&'a self, model: &'a Gpt2<F>, pairs: &'a [Pair]) -> Result<AblatedOutputs<'a, F>>;
}

/// Fills what a source writes at a position of its prompt, `[d]`.
pub type Fill<'a, F> = Box<dyn Fn(Source, usize, &mut [F]) + Send + Sync + 'a>;

/// Outputs of cut sources.
pub enum AblatedOutputs<'a, F> {
    /// What the source writes on the pair's corrupted prompt.
    CorruptedRun,
    /// What a function says, for every pair alike.
    Fill(Fill<'a, F>),
}

impl<F> AblatedOutputs<'_, F> {
    pub(super) fn is_corrupted_run(&self) -> bool {
        matches!(self, AblatedOutputs::CorruptedRun)
    }
}

impl<F> fmt::Debug for AblatedOutputs<'_, F> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(if self.is_corrupted_run() { "CorruptedRun" } else { "Fill(..)" })
    }
}
