//! Runs of clean and corrupted prompts that record the output of every source.
//!
//! Letters: `n` rows of the packed batch of clean prompts, `d` width, `S` sources, `H` heads.

use locus_gpt2::internal::select_rows;
use locus_gpt2::{Batch, BlockParam, Gpt2, Hook, HookPoint, ParamId, Result, Scalar, Tape, axpy, gemm};
use ndarray::{Array2, ArrayView2, ArrayViewMut1, ArrayViewMut2, Axis, s};
use rayon::prelude::*;

use super::ablation::AblatedOutputs;
use super::graph::{Graph, Source};
use super::pairs::Pair;

/// How a source's output is recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RecordAs {
    /// As it is.
    Stored,
    /// Subtracted from what is there.
    TakenAway,
    /// The second half of the rows minus the first half.
    Difference,
}

impl RecordAs {
    fn write<F: Scalar>(self, mut row: ArrayViewMut1<F>, output: &[F]) {
        let row = row.as_slice_mut().expect("rows are contiguous");
        match self {
            RecordAs::Stored => row.copy_from_slice(output),
            RecordAs::TakenAway => axpy(-F::one(), output, row),
            RecordAs::Difference => {
                let (first, second) = output.split_at(row.len());
                for ((row, &first), &second) in row.iter_mut().zip(first).zip(second) {
                    *row = second - first;
                }
            }
        }
    }
}

/// A few pairs packed into batches: the tokens from each pair's first difference on, with the keys and values of those
/// before.
pub(super) struct Packed<F> {
    pub graph: Graph,
    pub clean: Batch<F>,
    /// The clean prompts, then the corrupted ones.
    pub both: Batch<F>,
}

impl<F: Scalar> Packed<F> {
    /// Packs pairs. With `from_difference`, for ablation by the corrupted run, the common prefix of a pair is run once
    /// and left out of the batches: there a source writes the same in both runs, so its edges carry no difference.
    pub fn new(model: &Gpt2<F>, pairs: &[Pair], from_difference: bool) -> Result<Self> {
        let start = |pair: &Pair| if from_difference { pair.first_difference() } else { 0 };
        let starts: Vec<usize> = pairs.iter().map(start).collect();
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

    /// Zeros for the outputs of all sources, `[S, n d]`.
    pub fn room(&self, model: &Gpt2<F>) -> Array2<F> {
        Array2::zeros((self.graph.n_sources(), self.clean.n_rows() * model.config().n_embd))
    }

    /// Runs one of the two batches, and records the output of each source in `outputs [S, n d]`.
    pub fn run(
        &self,
        model: &Gpt2<F>,
        batch: &Batch<F>,
        record: RecordAs,
        outputs: &mut Array2<F>,
    ) -> Tape<F> {
        self.watched_run(model, batch, record, outputs, &mut ())
    }

    fn watched_run(
        &self,
        model: &Gpt2<F>,
        batch: &Batch<F>,
        record: RecordAs,
        outputs: &mut Array2<F>,
        watch: &mut dyn Hook<F>,
    ) -> Tape<F> {
        let embeddings = token_embeddings(model, batch);
        record.write(outputs.row_mut(0), embeddings.as_slice().expect("fresh arrays are contiguous"));
        let heads = Array2::zeros((self.graph.n_head, embeddings.len()));
        let mut recorder = OutputRecorder { model, graph: self.graph, record, heads, outputs, watch };
        model.run(batch).with_hooks(&mut recorder).tape()
    }

    /// Ablated outputs minus clean ones, `[S, n d]`, with the tape of the clean run.
    pub fn differences(&self, model: &Gpt2<F>, ablated: &AblatedOutputs<F>) -> (Array2<F>, Tape<F>) {
        self.watched_differences(model, ablated, &mut ())
    }

    /// [`Packed::differences`] with a hook that sees the states of the clean run, and behind their rows those of the
    /// corrupted run where there is one. The hook must not replace them.
    pub fn watched_differences(
        &self,
        model: &Gpt2<F>,
        ablated: &AblatedOutputs<F>,
        watch: &mut dyn Hook<F>,
    ) -> (Array2<F>, Tape<F>) {
        let mut delta = self.room(model);
        let AblatedOutputs::Fill(fill) = ablated else {
            // One pass over both prompts, so that weights are read once.
            let mut tape = self.watched_run(model, &self.both, RecordAs::Difference, &mut delta, watch);
            tape.truncate(model.config(), &self.clean);
            return (delta, tape);
        };
        let d = model.config().n_embd;
        for (source, mut out) in delta.rows_mut().into_iter().enumerate() {
            let out = out.as_slice_mut().expect("rows are contiguous");
            for rows in self.clean.sequences() {
                for (position, out) in out[rows.start * d..rows.end * d].chunks_mut(d).enumerate() {
                    fill(self.graph.source(source), position, out);
                }
            }
        }
        let tape = self.watched_run(model, &self.clean, RecordAs::TakenAway, &mut delta, watch);
        (delta, tape)
    }

    /// Rows of `hidden [n, d]` at the last token of every clean prompt, `[pairs, d]`.
    pub fn last_hidden(&self, hidden: ArrayView2<F>) -> Array2<F> {
        select_rows(hidden, &self.clean.last_rows())
    }
}

/// Records the output of every source, and computes attention's output as the sum of its heads' outputs.
struct OutputRecorder<'a, F> {
    model: &'a Gpt2<F>,
    graph: Graph,
    record: RecordAs,
    /// Outputs of the heads of one layer, `[H, n d]`.
    heads: Array2<F>,
    outputs: &'a mut Array2<F>,
    watch: &'a mut dyn Hook<F>,
}

impl<F: Scalar> Hook<F> for OutputRecorder<'_, F> {
    fn call(&mut self, layer: usize, point: HookPoint, mut state: ArrayViewMut2<F>) {
        self.watch.call(layer, point, state.view_mut());
        let record = self.record;
        match point {
            HookPoint::Z => {
                head_outputs(self.model, layer, state.view(), self.heads.view_mut());
                let first = self.graph.row(Source::Head(layer, 0));
                let mut rows = self.outputs.slice_mut(s![first..first + self.graph.n_head, ..]);
                let rows = rows.axis_iter_mut(Axis(0)).into_par_iter();
                rows.zip(self.heads.axis_iter(Axis(0)).into_par_iter()).for_each(|(row, head)| {
                    record.write(row, head.to_slice().expect("rows are contiguous"));
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
                record.write(row, state.as_slice().expect("states are contiguous"));
            }
            _ => {}
        }
    }

    fn overwrites(&self, point: HookPoint) -> bool {
        point == HookPoint::AttnOut
    }
}

/// Output of each head of a layer, `z_h W_O[h]`, into `out [H, n d]`; `z [n, d]` has the heads side by side.
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

/// Token embeddings without position embeddings, `[n, d]`.
pub(super) fn token_embeddings<F: Scalar>(model: &Gpt2<F>, batch: &Batch<F>) -> Array2<F> {
    let tokens: Vec<usize> = batch.tokens().iter().map(|&token| token as usize).collect();
    model.matrix(ParamId::TokenEmbedding).select(Axis(0), &tokens)
}
