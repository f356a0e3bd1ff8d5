//! Targets scored after prompts (`locus score`): `NLL = -1/n sum_t ln p(target_t | prompt, target_<t)`, in nats.

use anyhow::{Context, Result};
use locus_gpt2::{Checkpoint, PromptTargets, Scalar, compiled};
use rayon::prelude::*;

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
    let prepared: Vec<PromptTargets<F>> = pairs
        .par_iter()
        .enumerate()
        .map(|(i, [prompt, target])| {
            let tokens = || {
                let mut prompt = tokenizer.encode_some("prompt", prompt)?;
                prompt.splice(..0, before);
                let target = tokenizer.encode_some("target", target)?;
                PromptTargets::new(model.config(), &[(prompt, target)])
            };
            tokens().with_context(|| place(i))
        })
        .collect::<Result<_>>()?;
    let scored = |pair: &PromptTargets<F>| Scored {
        tokens: pair.targets.len(),
        nll_per_token: pair.nll_per_token(model)[0],
    };
    Ok(prepared.par_iter().map(scored).collect())
}
