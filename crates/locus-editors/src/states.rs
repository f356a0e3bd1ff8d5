//! States at the last tokens of subjects.
//!
//! Letters: `n` contexts, `d` width, `f` MLP width.

use locus_gpt2::{Batch, Gpt2, HookPoint, Scalar, chunk_by_tokens};
use ndarray::{Array2, ArrayViewMut2, Axis, concatenate};
use rayon::prelude::*;

use crate::error::Result;
use crate::fact::Context;

/// Tokens in one piece of parallel work.
const PIECE_TOKENS: usize = 256;

/// A state of one layer at the last token of each context's subject, `[n, d]` or `[n, f]`. Tokens after the subject are
/// not run, as they cannot change it.
pub(crate) fn at_subjects<'a, F: Scalar>(
    model: &Gpt2<F>,
    rows: impl IntoIterator<Item = &'a Context>,
    layer: usize,
    point: HookPoint,
) -> Result<Array2<F>> {
    let beginnings: Vec<&[u32]> = rows.into_iter().map(|row| &row.tokens[..=row.subject_last]).collect();
    let parts: Vec<Array2<F>> = chunk_by_tokens(&beginnings, PIECE_TOKENS)
        .into_par_iter()
        .map(|piece| {
            let batch = Batch::new(model.config(), &beginnings[piece])?;
            let last = batch.last_rows();
            let mut found = Array2::zeros((0, 0));
            let mut take = |at: usize, here: HookPoint, state: ArrayViewMut2<F>| {
                if (at, here) == (layer, point) {
                    found = state.select(Axis(0), &last);
                }
            };
            model.run(&batch).until_layer(layer + 1).with_hooks(&mut take).resid();
            Ok(found)
        })
        .collect::<Result<_>>()?;
    let views: Vec<_> = parts.iter().map(|part| part.view()).collect();
    Ok(concatenate(Axis(0), &views).expect("parts have equal width"))
}
