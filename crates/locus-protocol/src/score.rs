//! Targets scored after prompts (`locus score`): `NLL = -1/n sum_t ln p(target_t | prompt, target_<t)`, in nats.

use anyhow::{Context, Result};
use locus_gpt2::{Checkpoint, PromptTargets, Scalar, compiled};
use rayon::prelude::*;

/// Most rows of a batch, which are the most for which a product reads the weights in place. Each weight is then read once
/// for about ten prompts.
const BATCH_ROWS: usize = 128;

/// Score of a target after its prompt.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scored {
    /// Number of tokens of the target.
    pub tokens: usize,
    /// Mean NLL per token, in nats.
    pub nll_per_token: f64,
}

/// Scores pairs of texts, `[prompt, target]`, each tokenised exactly as given. All pairs are checked before the first
/// is run. With `bos`, the end-of-text token comes before every prompt. `place` names in an error where the pair with an
/// index came from.
///
/// # Errors
/// When a text gives no token, a pair does not fit the model, or there is no end-of-text token.
pub fn score<F: Scalar>(
    checkpoint: &Checkpoint<F>,
    pairs: &[[&str; 2]],
    bos: bool,
    place: &(dyn Fn(usize) -> String + Sync),
) -> Result<Vec<Scored>> {
    F::run::<ScoreJob>((checkpoint, pairs, bos, place))
}

type ScoreIn<'a, F> = (&'a Checkpoint<F>, &'a [[&'a str; 2]], bool, &'a (dyn Fn(usize) -> String + Sync));

compiled!(ScoreJob<'a>: <F> ScoreIn<'a, F> => Result<Vec<Scored>>, score_pairs);

fn score_pairs<F: Scalar>((checkpoint, pairs, bos, place): ScoreIn<F>) -> Result<Vec<Scored>> {
    let Checkpoint { model, tokenizer } = checkpoint;
    let before = bos.then(|| tokenizer.end_of_text()).transpose()?;
    let tokens: Vec<(Vec<u32>, Vec<u32>)> = pairs
        .par_iter()
        .enumerate()
        .map(|(i, [prompt, target])| {
            let tokens = || {
                let mut prompt = tokenizer.encode_some("prompt", prompt)?;
                prompt.splice(..0, before);
                let target = tokenizer.encode_some("target", target)?;
                // Refuses what does not fit the model before anything is run.
                PromptTargets::<F>::new(model.config(), &[(&prompt, &target)])?;
                Ok::<_, locus_gpt2::Error>((prompt, target))
            };
            tokens().with_context(|| place(i))
        })
        .collect::<Result<_>>()?;
    let scored = batches(&tokens).into_par_iter().map(|pairs| {
        let packed = PromptTargets::new(model.config(), pairs).expect("every pair fits");
        let nll = packed.nll_per_token(model);
        packed.n_targets.iter().zip(nll).map(|(&tokens, nll)| Scored { tokens, nll_per_token: nll }).collect()
    });
    Ok(scored.collect::<Vec<Vec<Scored>>>().concat())
}

/// Cuts the pairs, in their order, into batches of at most [`BATCH_ROWS`] rows; a longer pair is a batch of its own.
fn batches(pairs: &[(Vec<u32>, Vec<u32>)]) -> Vec<&[(Vec<u32>, Vec<u32>)]> {
    let mut rows = 0;
    let mut first = 0;
    let mut batches = Vec::new();
    for (i, (prompt, target)) in pairs.iter().enumerate() {
        let of_pair = prompt.len() + target.len() - 1;
        if i > first && rows + of_pair > BATCH_ROWS {
            batches.push(&pairs[first..i]);
            (first, rows) = (i, 0);
        }
        rows += of_pair;
    }
    if first < pairs.len() {
        batches.push(&pairs[first..]);
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_hold_every_pair_once_and_few_rows() {
        let pair = |prompt: usize, target: usize| (vec![1; prompt], vec![2; target]);
        let pairs = [pair(60, 1), pair(60, 9), pair(1, 1), pair(500, 2), pair(127, 2), pair(1, 1)];
        let sizes = |pairs: &[_]| batches(pairs).iter().map(|batch| batch.len()).collect::<Vec<_>>();
        assert_eq!(sizes(&pairs), [2, 1, 1, 1, 1]);
        assert_eq!(batches(&pairs).concat(), pairs);
        assert_eq!(sizes(&pairs[..2]), [2]);
        assert!(batches(&[]).is_empty());
    }
}
