//! Passes over clean and corrupted prompts that keep what every source writes.
//!
//! Letters: `n` rows of the packed batch, `d` width, `S` sources.

use locus_gpt2::{Batch, BlockParam, ParamId, Params, Past, Result, Scalar, Site, Trace, gemm, select_rows};
use ndarray::{Array2, ArrayView2, ArrayViewMut2, Axis, s};
use serde::{Deserialize, Serialize};

use super::graph::{Graph, Source};
use super::pairs::Pair;

/// What an edge outside the circuit carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reference {
    /// The source's output on the corrupted prompt.
    Corrupted,
    /// Nothing. What belongs to no source (position embeddings, the bias of attention's output) stays.
    Zero,
    /// The source's mean output over all tokens of all clean prompts.
    Mean,
    /// The same at each position; a position is averaged over the prompts that have it.
    MeanPerPosition,
}

impl Reference {
    /// The name used in files and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Reference::Corrupted => "corrupted",
            Reference::Zero => "zero",
            Reference::Mean => "mean",
            Reference::MeanPerPosition => "mean-per-position",
        }
    }
}

/// A few pairs, packed: the rows from each pair's first difference on, given the keys and values of what comes before.
pub(super) struct Packed<F> {
    pub graph: Graph,
    pub clean: Batch,
    pub corrupted: Batch,
    pub past: Past<F>,
}

impl<F: Scalar> Packed<F> {
    /// Packs pairs. With the corrupted reference the common beginning of a pair is run once and left out: a source
    /// writes the same there in both runs, and no reader there is reached by the loss through anything that differs.
    pub fn new(model: &Params<F>, pairs: &[Pair], reference: Reference) -> Result<Self> {
        let starts: Vec<usize> = pairs
            .iter()
            .map(|pair| if reference == Reference::Corrupted { pair.first_difference() } else { 0 })
            .collect();
        let clean: Vec<&[u32]> = pairs.iter().map(|pair| pair.clean.as_slice()).collect();
        let corrupted: Vec<&[u32]> = pairs.iter().map(|pair| pair.corrupted.as_slice()).collect();
        Ok(Packed {
            graph: Graph::new(model.config()),
            past: model.past(&clean, &starts)?,
            clean: Batch::ends(model.config(), &clean, &starts)?,
            corrupted: Batch::ends(model.config(), &corrupted, &starts)?,
        })
    }

    /// Room for what every source writes, `[S, n d]`.
    pub fn room(&self, model: &Params<F>) -> Array2<F> {
        Array2::zeros((self.graph.n_sources(), self.clean.n_rows() * model.config().n_embd))
    }

    /// Runs one of the two batches and sets `outputs <- alpha (what each source writes) + beta outputs`.
    pub fn run(
        &self,
        model: &Params<F>,
        batch: &Batch,
        (alpha, beta): (F, F),
        outputs: &mut Array2<F>,
    ) -> Trace<F> {
        let graph = self.graph;
        let mut row = outputs.row_mut(0);
        for (out, &x) in row.iter_mut().zip(token_embeddings(model, batch).iter()) {
            *out = alpha * x + beta * *out;
        }
        let mut keep = |layer: usize, site: Site, state: ArrayViewMut2<F>| match site {
            Site::HeadOut => write_heads(model, layer, state.view(), (alpha, beta), outputs),
            Site::MlpOut => {
                let mut row = outputs.row_mut(graph.row(Source::Mlp(layer)));
                row.iter_mut().zip(state.iter()).for_each(|(out, &x)| *out = alpha * x + beta * *out);
            }
            _ => {}
        };
        model.trace_after(batch, self.past.clone(), model.embed(batch), 0, &mut keep)
    }

    /// Reference outputs less clean ones, `[S, n d]`, with the trace of the clean run.
    pub fn differences(&self, model: &Params<F>, means: Option<&Means>) -> (Array2<F>, Trace<F>) {
        let mut delta = self.room(model);
        match means {
            Some(means) => means.spread(&self.clean, &mut delta),
            None => {
                self.run(model, &self.corrupted, (F::one(), F::zero()), &mut delta);
            }
        }
        let trace = self.run(model, &self.clean, (-F::one(), F::one()), &mut delta);
        (delta, trace)
    }

    /// The clean run's last hidden state of every pair, `[pairs, d]`.
    pub fn last_hidden(&self, hidden: ArrayView2<F>) -> Array2<F> {
        select_rows(hidden, &self.clean.last_rows())
    }
}

/// `rows of outputs <- alpha z_h W_O[h] + beta rows` for every head of a layer; `z [n, d]` has the heads side by side.
pub(super) fn write_heads<F: Scalar>(
    model: &Params<F>,
    layer: usize,
    z: ArrayView2<F>,
    (alpha, beta): (F, F),
    outputs: &mut Array2<F>,
) {
    let (graph, width) = (Graph::new(model.config()), model.config().d_head());
    let weight = model.matrix(ParamId::Block(layer, BlockParam::AttnOutWeight));
    for head in 0..graph.n_head {
        let columns = head * width..(head + 1) * width;
        let row = outputs.row_mut(graph.row(Source::Head(layer, head)));
        let out = row.into_shape_with_order(z.dim()).expect("rows are contiguous");
        gemm(alpha, z.slice(s![.., columns.clone()]), weight.slice(s![columns, ..]), beta, out);
    }
}

/// Token embeddings alone, `[n, d]`.
pub(super) fn token_embeddings<F: Scalar>(model: &Params<F>, batch: &Batch) -> Array2<F> {
    let tokens: Vec<usize> = batch.tokens().iter().map(|&token| token as usize).collect();
    model.matrix(ParamId::TokenEmbedding).select(Axis(0), &tokens)
}

/// Mean outputs of every source, in f64.
#[derive(Clone, Debug)]
pub(super) struct Means {
    /// `[positions, S d]`, one row when the mean is over all positions, none for zero.
    by_position: Array2<f64>,
}

impl Means {
    /// The means a reference asks for; `None` for the corrupted one.
    pub fn new<F: Scalar>(model: &Params<F>, pairs: &[Pair], reference: Reference) -> Result<Option<Self>> {
        let longest = pairs.iter().map(|pair| pair.clean.len()).max().unwrap_or(0);
        let rows = match reference {
            Reference::Corrupted => return Ok(None),
            Reference::Zero => return Ok(Some(Means { by_position: Array2::zeros((0, 0)) })),
            Reference::Mean => 1,
            Reference::MeanPerPosition => longest,
        };
        let d = model.config().n_embd;
        let graph = Graph::new(model.config());
        let mut sums = Array2::<f64>::zeros((rows, graph.n_sources() * d));
        let mut counts = vec![0usize; rows];
        for pair in pairs {
            let packed = Packed::new(model, std::slice::from_ref(pair), Reference::Zero)?;
            let mut outputs = packed.room(model);
            packed.run(model, &packed.clean, (F::one(), F::zero()), &mut outputs);
            for position in 0..pair.clean.len() {
                let row = position.min(rows - 1);
                counts[row] += 1;
                for source in 0..graph.n_sources() {
                    let from = outputs.slice(s![source, position * d..(position + 1) * d]);
                    let mut into = sums.slice_mut(s![row, source * d..(source + 1) * d]);
                    into.iter_mut().zip(from).for_each(|(sum, x)| *sum += x.wide());
                }
            }
        }
        for (mut row, count) in sums.rows_mut().into_iter().zip(counts) {
            row /= count as f64;
        }
        Ok(Some(Means { by_position: sums }))
    }

    /// Fills `[S, n d]` with the means.
    fn spread<F: Scalar>(&self, batch: &Batch, outputs: &mut Array2<F>) {
        let Some(last) = self.by_position.nrows().checked_sub(1) else {
            outputs.fill(F::zero());
            return;
        };
        let d = outputs.ncols() / batch.n_rows();
        for (source, mut out) in outputs.rows_mut().into_iter().enumerate() {
            for sequence in batch.sequences() {
                for (position, row) in sequence.enumerate() {
                    let mean = self.by_position.slice(s![position.min(last), source * d..(source + 1) * d]);
                    let mut out = out.slice_mut(s![row * d..(row + 1) * d]);
                    out.iter_mut().zip(mean).for_each(|(out, &x)| *out = F::of(x));
                }
            }
        }
    }
}
