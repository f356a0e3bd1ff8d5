//! Language-model training with the project's own backward pass.

use anyhow::{Context, Result};
use locus_data::seed::stream;
use locus_gpt2::internal::shuffle;
use locus_gpt2::{
    AdamW, Batch, Gpt2, Moments, ParamId, ParamSet, Scalar, Target, Tokenizer, chunk_by_tokens,
};
use rayon::prelude::*;

use super::recipe::Recipe;
use super::tokenizer::END_OF_TEXT;

/// Report after a training step.
#[derive(Clone, Copy, Debug)]
pub struct TrainingProgress {
    /// Steps taken.
    pub step: usize,
    /// Mean loss of the step, in nats per token.
    pub loss: f64,
}

/// Tokens in one piece of parallel work.
const PIECE_TOKENS: usize = 768;

/// Trains the organism from random weights. Each document, followed by the end-of-text token, is one sequence of a
/// packed batch and begins at position 0, as every prompt of the study does.
///
/// # Errors
/// When the tokenizer has no end-of-text token, or a document does not fit the context.
pub fn train(
    recipe: &Recipe,
    documents: &[String],
    tokenizer: &Tokenizer,
    progress: &mut dyn FnMut(TrainingProgress),
) -> Result<Gpt2<f32>> {
    let end = tokenizer.token_id(END_OF_TEXT).context("the tokenizer has no end-of-text token")?;
    let sequences: Vec<Vec<u32>> = documents
        .par_iter()
        .map(|text| {
            let mut ids = tokenizer.encode(text)?;
            ids.push(end);
            Ok(ids)
        })
        .collect::<Result<_>>()?;
    let config = recipe.config();
    let mut model = Gpt2::<f32>::init(&config, &mut stream(recipe.seed, "organism weights", 0));
    let ids: Vec<ParamId> = ParamId::all(&config).collect();
    let mut moments: Vec<Moments<f32>> = ids.iter().map(|id| Moments::zeros(id.len(&config))).collect();
    let mut rng = stream(recipe.seed, "organism batches", 0);
    let mut order: Vec<usize> = (0..sequences.len()).collect();
    let mut at = order.len();
    for step in 1..=recipe.steps {
        let (mut rows, mut tokens) = (Vec::new(), 0);
        while tokens < recipe.tokens_per_step {
            if at == order.len() {
                shuffle(&mut order, &mut rng);
                at = 0;
            }
            tokens += sequences[order[at]].len();
            rows.push(sequences[order[at]].as_slice());
            at += 1;
        }
        let (loss, mut grads) = gradient(&model, &rows)?;
        let squares: f64 =
            ids.par_iter().map(|&id| squared_norm(grads.get(id))).collect::<Vec<_>>().iter().sum();
        let scale = (recipe.clip / squares.sqrt()).min(1.0) as f32;
        for (&id, moments) in ids.iter().zip(&mut moments) {
            let grads = grads.get_mut(id);
            grads.iter_mut().for_each(|g| *g *= scale);
            let weight_decay = if id.is_vector() { 0.0 } else { recipe.weight_decay };
            let adam = AdamW { beta2: 0.98, weight_decay, ..AdamW::new(one_cycle(recipe, step)) };
            adam.step(step, model.get_mut(id), grads, moments);
        }
        progress(TrainingProgress { step, loss });
    }
    Ok(model)
}

/// Mean next-token loss of a batch, in nats, and its gradient, added up piece by piece in order.
fn gradient(model: &Gpt2<f32>, sequences: &[&[u32]]) -> Result<(f64, ParamSet<f32>)> {
    let config = model.config();
    let n_targets: usize = sequences.iter().map(|s| s.len() - 1).sum();
    let weight = 1.0 / n_targets as f32;
    let parts: Vec<(f64, ParamSet<f32>)> = chunk_by_tokens(sequences, PIECE_TOKENS)
        .into_par_iter()
        .map(|piece| {
            let batch = Batch::new(config, &sequences[piece])?;
            let targets: Vec<Target> = batch
                .sequences()
                .flat_map(|s| s.start..s.end - 1)
                .map(|row| Target { row, token: batch.tokens()[row + 1] })
                .collect();
            let tape = model.run(&batch).tape();
            let mut grads = ParamSet::zeros(config, ParamId::all(config));
            let weights = vec![weight; targets.len()];
            let (nll, d_hidden) = model.nll_backward(&tape, &targets, &weights, &mut grads);
            model.backward(&tape, d_hidden.view(), &mut grads, &mut ());
            Ok((nll.iter().sum::<f64>(), grads))
        })
        .collect::<Result<_>>()?;
    let mut parts = parts.into_iter();
    let (mut loss, mut sum) = parts.next().context("a batch has at least one document")?;
    for (part_loss, part) in parts {
        loss += part_loss;
        sum.add_scaled(1.0, &part);
    }
    Ok((loss / n_targets as f64, sum))
}

fn squared_norm<F: Scalar>(x: &[F]) -> f64 {
    locus_gpt2::dot(x, x).as_f64()
}

/// Learning rate of a step: linear warm-up over the first tenth, then half a cosine down to a hundredth of the highest.
fn one_cycle(recipe: &Recipe, step: usize) -> f64 {
    let warm_up = recipe.steps as f64 / 10.0;
    let step = step as f64;
    if step < warm_up {
        return recipe.lr * step / warm_up;
    }
    let passed = (step - warm_up) / (recipe.steps as f64 - warm_up);
    recipe.lr * (0.01 + 0.99 * 0.5 * (1.0 + (std::f64::consts::PI * passed).cos()))
}
