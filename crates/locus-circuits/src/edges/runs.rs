//! Passes over clean and corrupted prompts that keep what every source writes.
//!
//! Letters: `n` rows of the packed batch, `d` width, `S` sources.

use locus_gpt2::internal::select_rows;
use locus_gpt2::{Batch, BlockParam, Gpt2, Hook, HookPoint, ParamId, Result, Scalar, Tape, axpy, gemm};
use ndarray::{Array2, ArrayView2, ArrayViewMut1, ArrayViewMut2, Axis, s};
use rayon::prelude::*;
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
    /// The source's mean output at each position of all clean prompts; a position is averaged over the prompts that have it.
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

/// What becomes of what a source writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kept {
    Stored,
    TakenAway,
    /// The second half of the rows minus the first half is stored.
    Difference,
}

impl Kept {
    fn keep<F: Scalar>(self, mut row: ArrayViewMut1<F>, output: &[F]) {
        let row = row.as_slice_mut().expect("rows are contiguous");
        match self {
            Kept::Stored => row.copy_from_slice(output),
            Kept::TakenAway => axpy(-F::one(), output, row),
            Kept::Difference => {
                let (first, second) = output.split_at(row.len());
                for ((row, &first), &second) in row.iter_mut().zip(first).zip(second) {
                    *row = second - first;
                }
            }
        }
    }
}

/// A few pairs, packed: the rows from each pair's first difference on, given the keys and values of what comes before.
pub(super) struct Packed<F> {
    pub graph: Graph,
    pub clean: Batch<F>,
    /// The clean rows, then the corrupted ones.
    pub both: Batch<F>,
}

impl<F: Scalar> Packed<F> {
    /// Packs pairs. With the corrupted reference the common beginning of a pair is run once and left out: a source
    /// writes the same there in both runs, and no reader there is reached by the loss through anything that differs.
    pub fn new(model: &Gpt2<F>, pairs: &[Pair], reference: Reference) -> Result<Self> {
        let starts: Vec<usize> = pairs
            .iter()
            .map(|pair| if reference == Reference::Corrupted { pair.first_difference() } else { 0 })
            .collect();
        let split = |prompt: fn(&Pair) -> &[u32]| -> Vec<(&[u32], &[u32])> {
            pairs.iter().zip(&starts).map(|(pair, &start)| prompt(pair).split_at(start)).collect()
        };
        let (clean, corrupted) = (split(|pair| &pair.clean), split(|pair| &pair.corrupted));
        let beginnings: Vec<&[u32]> = clean.iter().map(|&(beginning, _)| beginning).collect();
        let clean: Vec<&[u32]> = clean.iter().map(|&(_, suffix)| suffix).collect();
        let both = clean.iter().copied().chain(corrupted.iter().map(|&(_, suffix)| suffix));
        let prefix = model.kv_cache(&beginnings)?;
        let config = model.config();
        Ok(Packed {
            graph: Graph::new(config),
            both: Batch::after(config, prefix.repeat(2), &both.collect::<Vec<_>>())?,
            clean: Batch::after(config, prefix, &clean)?,
        })
    }

    /// Room for what every source writes, `[S, n d]`.
    pub fn room(&self, model: &Gpt2<F>) -> Array2<F> {
        Array2::zeros((self.graph.n_sources(), self.clean.n_rows() * model.config().n_embd))
    }

    /// Runs one of the two batches and stores what each source writes in `outputs [S, n d]`, or takes it away from what is
    /// there.
    pub fn run(&self, model: &Gpt2<F>, batch: &Batch<F>, kept: Kept, outputs: &mut Array2<F>) -> Tape<F> {
        let embeddings = token_embeddings(model, batch);
        kept.keep(outputs.row_mut(0), embeddings.as_slice().expect("fresh arrays are contiguous"));
        let heads = Array2::zeros((self.graph.n_head, embeddings.len()));
        let mut keep = Keep { model, graph: self.graph, kept, heads, outputs };
        model.run(batch).with_hooks(&mut keep).tape()
    }

    /// Reference outputs less clean ones, `[S, n d]`, with the trace of the clean run.
    pub fn differences(&self, model: &Gpt2<F>, means: Option<&Means>) -> (Array2<F>, Tape<F>) {
        let mut delta = self.room(model);
        let Some(means) = means else {
            // One pass over both: every weight is read once.
            let mut tape = self.run(model, &self.both, Kept::Difference, &mut delta);
            tape.truncate(model.config(), &self.clean);
            return (delta, tape);
        };
        means.spread(&self.clean, &mut delta);
        let tape = self.run(model, &self.clean, Kept::TakenAway, &mut delta);
        (delta, tape)
    }

    /// The clean run's last hidden state of every pair, `[pairs, d]`.
    pub fn last_hidden(&self, hidden: ArrayView2<F>) -> Array2<F> {
        select_rows(hidden, &self.clean.last_rows())
    }
}

/// Keeps what every source writes, and puts attention's output together from its heads.
struct Keep<'a, F> {
    model: &'a Gpt2<F>,
    graph: Graph,
    kept: Kept,
    /// What the heads of one layer write, `[H, n d]`.
    heads: Array2<F>,
    outputs: &'a mut Array2<F>,
}

impl<F: Scalar> Hook<F> for Keep<'_, F> {
    fn call(&mut self, layer: usize, point: HookPoint, mut state: ArrayViewMut2<F>) {
        let kept = self.kept;
        match point {
            HookPoint::Z => {
                head_outputs(self.model, layer, state.view(), self.heads.view_mut());
                let first = self.graph.row(Source::Head(layer, 0));
                let mut rows = self.outputs.slice_mut(s![first..first + self.graph.n_head, ..]);
                let rows = rows.axis_iter_mut(Axis(0)).into_par_iter();
                rows.zip(self.heads.axis_iter(Axis(0)).into_par_iter()).for_each(|(row, head)| {
                    kept.keep(row, head.to_slice().expect("rows are contiguous"));
                });
            }
            HookPoint::AttnOut => {
                state.assign(&self.model.matrix(ParamId::Block(layer, BlockParam::AttnOutBias)));
                let flat = state.as_slice_mut().expect("states are contiguous");
                for head in self.heads.rows() {
                    axpy(F::one(), head.to_slice().expect("rows are contiguous"), flat);
                }
            }
            HookPoint::MlpOut => {
                let row = self.outputs.row_mut(self.graph.row(Source::Mlp(layer)));
                kept.keep(row, state.as_slice().expect("states are contiguous"));
            }
            _ => {}
        }
    }

    fn overwrites(&self, point: HookPoint) -> bool {
        point == HookPoint::AttnOut
    }
}

/// What each head of a layer writes, `out [H, n d]`, from its weighted values `z [n, d]`, heads side by side.
pub(super) fn head_outputs<F: Scalar>(
    model: &Gpt2<F>,
    layer: usize,
    z: ArrayView2<F>,
    mut out: ArrayViewMut2<F>,
) {
    let width = model.config().d_head();
    let weight = model.matrix(ParamId::Block(layer, BlockParam::AttnOutWeight));
    out.axis_iter_mut(Axis(0)).into_par_iter().enumerate().for_each(|(head, row)| {
        let columns = head * width..(head + 1) * width;
        let out = row.into_shape_with_order(z.dim()).expect("rows are contiguous");
        gemm(F::one(), z.slice(s![.., columns.clone()]), weight.slice(s![columns, ..]), F::zero(), out);
    });
}

/// Token embeddings alone, `[n, d]`.
pub(super) fn token_embeddings<F: Scalar>(model: &Gpt2<F>, batch: &Batch<F>) -> Array2<F> {
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
    pub fn new<F: Scalar>(model: &Gpt2<F>, pairs: &[Pair], reference: Reference) -> Result<Option<Self>> {
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
            packed.run(model, &packed.clean, Kept::Stored, &mut outputs);
            for position in 0..pair.clean.len() {
                let row = position.min(rows - 1);
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
        Ok(Some(Means { by_position: sums }))
    }

    /// Fills `[S, n d]` with the means.
    fn spread<F: Scalar>(&self, batch: &Batch<F>, outputs: &mut Array2<F>) {
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
                    out.iter_mut().zip(mean).for_each(|(out, &x)| *out = F::from_f64(x));
                }
            }
        }
    }
}
