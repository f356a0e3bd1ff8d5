//! The ablations that the field uses: corrupted prompts, zeros and means.

use std::str::FromStr;

use locus_gpt2::{Error, Gpt2, Result, Scalar, compiled};
use ndarray::{Array2, s};

use super::ablation::{AblatedOutputs, Ablation};
use super::graph::{Graph, Source};
use super::names::by_name;
use super::pairs::Pair;
use super::runs::{Packed, RecordAs};

/// The ablations of the field: what an edge outside the circuit carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StandardAblation {
    /// The source's output on the corrupted prompt (activation patching).
    Corrupted,
    /// Zero. Position embeddings and the output bias of attention, which belong to no source, stay.
    Zero,
    /// The source's mean output over all tokens of all clean prompts.
    Mean,
    /// The source's mean output at each position, over the clean prompts that have the position.
    MeanPerPosition,
}

impl StandardAblation {
    /// All four.
    pub const ALL: [StandardAblation; 4] = [
        StandardAblation::Corrupted,
        StandardAblation::Zero,
        StandardAblation::Mean,
        StandardAblation::MeanPerPosition,
    ];

    /// The name used in files and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            StandardAblation::Corrupted => "corrupted",
            StandardAblation::Zero => "zero",
            StandardAblation::Mean => "mean",
            StandardAblation::MeanPerPosition => "mean-per-position",
        }
    }
}

impl FromStr for StandardAblation {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        by_name("ablation", name, &Self::ALL, |ablation| ablation.name())
    }
}

impl<F: Scalar> Ablation<F> for StandardAblation {
    fn outputs<'a>(&'a self, model: &'a Gpt2<F>, pairs: &'a [Pair]) -> Result<AblatedOutputs<'a, F>> {
        let longest = pairs.iter().map(|pair| pair.clean.len()).max().unwrap_or(0);
        let means = match self {
            StandardAblation::Corrupted => return Ok(AblatedOutputs::CorruptedRun),
            StandardAblation::Zero => {
                return Ok(AblatedOutputs::Fill(Box::new(|_, _, out| out.fill(F::zero()))));
            }
            StandardAblation::Mean => F::run::<MeansJob>((model, pairs, 1))?,
            StandardAblation::MeanPerPosition => F::run::<MeansJob>((model, pairs, longest))?,
        };
        Ok(AblatedOutputs::Fill(Box::new(move |source, position, out| means.fill(source, position, out))))
    }
}

compiled!(MeansJob<'a>: <F> (&'a Gpt2<F>, &'a [Pair], usize) => Result<Means>, mean_outputs);

/// Mean output of every source, in f64.
#[derive(Clone, Debug)]
struct Means {
    graph: Graph,
    /// Means `[positions, S d]`; one row when the mean is over all positions.
    by_position: Array2<f64>,
}

impl Means {
    fn fill<F: Scalar>(&self, source: Source, position: usize, out: &mut [F]) {
        let (d, last) = (out.len(), self.by_position.nrows() - 1);
        let source = self.graph.row(source);
        let mean = self.by_position.slice(s![position.min(last), source * d..(source + 1) * d]);
        out.iter_mut().zip(mean).for_each(|(out, &x)| *out = F::from_f64(x));
    }
}

/// Mean outputs at each of the first `positions - 1` positions, and over all later positions together.
fn mean_outputs<F: Scalar>((model, pairs, positions): (&Gpt2<F>, &[Pair], usize)) -> Result<Means> {
    let d = model.config().n_embd;
    let graph = Graph::new(model.config());
    let mut sums = Array2::<f64>::zeros((positions, graph.n_sources() * d));
    let mut counts = vec![0usize; positions];
    for pair in pairs {
        let packed = Packed::new(model, std::slice::from_ref(pair), false)?;
        let mut outputs = packed.room(model);
        packed.run(model, &packed.clean, RecordAs::Stored, &mut outputs);
        for position in 0..pair.clean.len() {
            let row = position.min(positions - 1);
            counts[row] += 1;
            for source in 0..graph.n_sources() {
                let from = outputs.slice(s![source, position * d..(position + 1) * d]);
                let mut into = sums.slice_mut(s![row, source * d..(source + 1) * d]);
                into.iter_mut().zip(from).for_each(|(sum, x)| *sum += x.as_f64());
            }
        }
    }
    for (mut row, count) in sums.rows_mut().into_iter().zip(counts) {
        row /= count as f64;
    }
    Ok(Means { graph, by_position: sums })
}
