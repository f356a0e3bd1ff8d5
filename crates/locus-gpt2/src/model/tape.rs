//! What a backward pass needs of a forward pass.

use ndarray::Array2;

use super::attention::n_weights;
use super::batch::Batch;
use crate::config::Config;
use crate::kernels::number::Number;

/// Mean and reciprocal standard deviation of each row that a LayerNorm saw.
#[derive(Clone, Debug)]
pub(crate) struct NormStats<F> {
    pub mean: Vec<F>,
    pub rstd: Vec<F>,
}

/// States of one block that its backward pass needs.
#[derive(Clone, Debug)]
pub(crate) struct BlockTape<F> {
    /// Rows that go on after the keys and values, ascending; `None` for all.
    pub reads: Option<Vec<usize>>,
    /// Whether a hook could replace the attention patterns: they are constants then.
    pub pattern_is_given: bool,
    pub resid_pre: Array2<F>,
    pub ln_1: NormStats<F>,
    pub ln_1_out: Array2<F>,
    pub qkv: Array2<F>,
    /// Packed attention weights.
    pub attn: Vec<F>,
    pub z: Array2<F>,
    pub resid_mid: Array2<F>,
    pub ln_2: NormStats<F>,
    pub ln_2_out: Array2<F>,
    /// Slope of the activation at each entry of its input, which is all that the backward pass needs of it.
    pub mlp_slope: Array2<F>,
    pub mlp_post: Array2<F>,
}

/// Everything a backward pass needs of a forward pass over layers `first..L`, batch included.
#[derive(Clone, Debug)]
pub struct Tape<F> {
    pub(crate) batch: Batch<F>,
    pub(crate) first_layer: usize,
    pub(crate) blocks: Vec<BlockTape<F>>,
    /// Rows of the residual stream that the final LayerNorm read when no block ran; `None` for all.
    pub(crate) reads: Option<Vec<usize>>,
    pub(crate) resid: Array2<F>,
    pub(crate) ln_f: NormStats<F>,
    /// Output of the final LayerNorm `[n, d]`, or of the rows that were asked for.
    pub hidden: Array2<F>,
}

impl<F: Number> Tape<F> {
    /// The batch that was run.
    pub fn batch(&self) -> &Batch<F> {
        &self.batch
    }

    /// Keeps the first sequences alone; `batch` holds them.
    ///
    /// # Panics
    /// When the tape's batch does not begin with that one, the tape is of some rows alone, or sequences share rows.
    pub fn truncate(&mut self, config: &Config, batch: &Batch<F>) {
        let n = batch.n_rows();
        assert!(self.blocks.iter().all(|block| block.reads.is_none()), "a tape of some rows");
        assert!(self.batch.shared().is_empty(), "sequences that share rows");
        assert!(self.batch.tokens().starts_with(batch.tokens()), "a batch that does not begin with this one");
        let shorten = |x: &mut Array2<F>, rows: usize| {
            let columns = x.ncols();
            let (mut entries, _) = std::mem::take(x).into_raw_vec_and_offset();
            entries.truncate(rows * columns);
            *x = Array2::from_shape_vec((rows, columns), entries).expect("as many as kept");
        };
        let stats = |stats: &mut NormStats<F>| {
            stats.mean.truncate(n);
            stats.rstd.truncate(n);
        };
        let sizes = batch.sequences().zip(batch.starts()).map(|(s, &start)| n_weights(start, s.len()));
        let weights = sizes.sum::<usize>() * config.n_head;
        for block in &mut self.blocks {
            let BlockTape { resid_pre, ln_1_out, qkv, z, resid_mid, ln_2_out, mlp_slope, mlp_post, .. } =
                block;
            for x in [resid_pre, ln_1_out, qkv, z, resid_mid, ln_2_out, mlp_slope, mlp_post] {
                shorten(x, n);
            }
            block.attn.truncate(weights);
            stats(&mut block.ln_1);
            stats(&mut block.ln_2);
        }
        shorten(&mut self.resid, n);
        shorten(&mut self.hidden, n);
        stats(&mut self.ln_f);
        self.batch = batch.clone();
    }
}
