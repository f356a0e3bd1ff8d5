//! Ablations: what an ablated edge carries in place of its source's output.

use std::fmt;

use locus_gpt2::{Gpt2, Result, Scalar};

use super::graph::Source;
use super::pairs::Pair;

/// An ablation, which says what ablated edges carry: [`StandardAblation`](super::StandardAblation), or one of your own.
///
/// ```
/// use locus_circuits::edges::{AblatedOutputs, Ablation, Pair};
/// use locus_gpt2::{Gpt2, Result, Scalar};
///
/// /// Every ablated source writes the same small number everywhere.
/// struct Constant(f64);
///
/// impl<F: Scalar> Ablation<F> for Constant {
///     fn outputs<'a>(&'a self, _: &'a Gpt2<F>, _: &'a [Pair]) -> Result<AblatedOutputs<'a, F>> {
///         Ok(AblatedOutputs::Fill(Box::new(|_source, _position, out| out.fill(F::from_f64(self.0)))))
///     }
/// }
/// ```
pub trait Ablation<F: Scalar>: Sync {
    /// Ablated outputs of the sources for `pairs`, which have been checked. Called once for all pairs of a call.
    ///
    /// # Errors
    /// When the pairs do not allow it.
    fn outputs<'a>(&'a self, model: &'a Gpt2<F>, pairs: &'a [Pair]) -> Result<AblatedOutputs<'a, F>>;
}

/// Function that fills in the ablated output, `[d]`, of a source at a position of the prompt.
pub type Fill<'a, F> = Box<dyn Fn(Source, usize, &mut [F]) + Send + Sync + 'a>;

/// Ablated outputs of the sources.
pub enum AblatedOutputs<'a, F> {
    /// The source's output on the pair's corrupted prompt.
    CorruptedRun,
    /// The value of a function, which is the same for every pair.
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
