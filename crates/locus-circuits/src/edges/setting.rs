//! Arguments that all computations on edges share, as one value to pass to a job ([`locus_gpt2::compiled`]).

use locus_gpt2::{Gpt2, Result, Scalar};

use super::ablation::{AblatedOutputs, Ablation};
use super::metric::Metric;
use super::pairs::{Pair, check_all};

/// A model, the pairs it is run on, and how runs are measured and ablated.
#[derive(Clone, Copy)]
pub(super) struct Setting<'a, F> {
    pub model: &'a Gpt2<F>,
    pub pairs: &'a [Pair],
    pub metric: &'a dyn Metric<F>,
    pub ablation: &'a dyn Ablation<F>,
}

impl<'a, F: Scalar> Setting<'a, F> {
    /// Checks the pairs, and asks the ablation for the sources' ablated outputs.
    pub fn ablated_outputs(self) -> Result<AblatedOutputs<'a, F>> {
        check_all(self.pairs, self.model.config())?;
        self.ablation.outputs(self.model, self.pairs)
    }
}
