//! Checks of a model on this machine: `locus selftest --model`.
//!
//! Every model is held to what must be true of any: its gradients are the slopes of its loss, its results do not depend
//! on the number of threads, and the scores of edges add up to slopes of the loss. OpenAI's GPT-2 small, which is known
//! by the hash of its file, is also held to losses that others have published for it.

mod gradients;
mod known;

use std::path::Path;

use anyhow::Result;
use locus_gpt2::{Batch, Checkpoint, Gpt2, ParamId, ParamSet, Scalar, Target};
use rand::RngExt;

pub use known::{GPT2_SHA256, KnownText, known_losses};

/// Outcome of a check.
#[derive(Clone, Debug, PartialEq)]
pub struct Check {
    /// What was checked.
    pub name: String,
    /// Whether it holds; `None` when it could not be checked on this model.
    pub passed: Option<bool>,
    /// Numbers, or where it does not hold.
    pub detail: String,
}

/// Checks the model of a folder in Hugging Face layout and reports each check as it is done. `threads` is compared with
/// one thread; directions and prompts are drawn from `seed`. Takes the memory of two copies of the model in f64, or of
/// four in f32.
///
/// # Errors
/// When the folder cannot be read or the model is too small to be asked anything (one token, or no context).
pub fn check_model(folder: &Path, threads: usize, seed: u64, report: &mut dyn FnMut(Check)) -> Result<()> {
    let file = folder.join("model.safetensors");
    // Weights in several files are not OpenAI's one file.
    let hash = if file.is_file() { Some(locus_files::sha256_file(&file)?) } else { None };
    {
        let checkpoint = Checkpoint::<f32>::from_pretrained(folder)?;
        let questions = Questions::draw(&checkpoint.model, 8, seed)?;
        report(same_on_threads(&checkpoint.model, &questions, threads)?);
        if hash.as_deref() == Some(GPT2_SHA256) {
            report(known::check(checkpoint)?);
        } else {
            let detail = format!(
                "not compared: these are not OpenAI's weights of GPT-2 small (SHA-256 of model.safetensors: {})",
                hash.as_deref().unwrap_or("no such file")
            );
            report(Check { name: "known losses".into(), passed: None, detail });
        }
    }
    let model = Checkpoint::<f64>::from_pretrained(folder)?.model;
    let questions = Questions::draw(&model, 2, seed)?;
    gradients::check_parameters(&model, &questions, seed, report)?;
    gradients::check_edges(&model, &questions, report)
}

/// Random prompts with a token to predict in every row, and two answers.
struct Questions {
    sequences: Vec<Vec<u32>>,
    answers: [u32; 2],
    targets: Vec<u32>,
}

/// Tokens of a prompt at most.
const LONGEST: usize = 12;

impl Questions {
    fn draw<F: Scalar>(model: &Gpt2<F>, sequences: usize, seed: u64) -> Result<Self> {
        let config = model.config();
        let (vocabulary, len) = (config.vocab_size as u32, LONGEST.min(config.n_positions));
        if vocabulary < 2 || len == 0 {
            let why = format!(
                "the model has {vocabulary} tokens and a context of {len}; expected at least 2 and 1"
            );
            return Err(locus_gpt2::Error::Input(why).into());
        }
        let mut rng = locus_data::seed::stream(seed, "selftest questions", 0);
        let mut tokens = |n: usize| -> Vec<u32> { (0..n).map(|_| rng.random_range(0..vocabulary)).collect() };
        let prompts: Vec<Vec<u32>> = (0..sequences).map(|_| tokens(len)).collect();
        let targets = tokens(sequences * len);
        let first = tokens(1)[0];
        Ok(Questions { sequences: prompts, targets, answers: [first, (first + 1) % vocabulary] })
    }

    /// Mean loss over all rows in nats.
    fn loss<F: Scalar>(&self, model: &Gpt2<F>) -> Result<f64> {
        let batch = Batch::new(model.config(), &self.sequences)?;
        let nll = model.nll(model.run(&batch).hidden().view(), &self.targets());
        Ok(nll.iter().sum::<f64>() / nll.len() as f64)
    }

    /// Losses of all rows and the gradient of their mean with respect to every parameter.
    fn gradient<F: Scalar>(&self, model: &Gpt2<F>) -> Result<(Vec<f64>, ParamSet<F>)> {
        let batch = Batch::new(model.config(), &self.sequences)?;
        mean_gradient(model, &batch, &self.targets())
    }

    fn targets(&self) -> Vec<Target> {
        self.targets.iter().enumerate().map(|(row, &token)| Target { row, token }).collect()
    }
}

/// Losses of targets in nats, and the gradient of their mean with respect to every parameter.
fn mean_gradient<F: Scalar>(
    model: &Gpt2<F>,
    batch: &Batch<F>,
    targets: &[Target],
) -> Result<(Vec<f64>, ParamSet<F>)> {
    let mut grads = ParamSet::zeros(model.config(), ParamId::all(model.config()));
    let weights = vec![F::from_f64(1.0 / targets.len() as f64); targets.len()];
    let tape = model.run(batch).tape();
    let (nll, d_hidden) = model.nll_backward(&tape, targets, &weights, &mut grads);
    model.backward(&tape, d_hidden.view(), &mut grads, &mut ());
    Ok((nll, grads))
}

/// Whether losses and gradients have the same bits on one thread and on several.
fn same_on_threads(model: &Gpt2<f32>, questions: &Questions, threads: usize) -> Result<Check> {
    let threads = threads.max(2);
    let on = |threads: usize| -> Result<(Vec<u64>, String)> {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build()?;
        let (nll, grads) = pool.install(|| questions.gradient(model))?;
        Ok((nll.iter().map(|x| x.to_bits()).collect(), pool.install(|| grads.sha256())))
    };
    let (one, several) = (on(1)?, on(threads)?);
    let rows = one.0.iter().zip(&several.0).filter(|(a, b)| a != b).count();
    let detail = match (rows, one.1 == several.1) {
        (0, true) => format!("losses and gradients have the same bits on 1 and {threads} threads"),
        (rows, gradients) => format!(
            "{rows} of {} losses differ between 1 and {threads} threads, gradients {}",
            one.0.len(),
            if gradients { "do not" } else { "do" }
        ),
    };
    Ok(Check { name: "threads".into(), passed: Some(one == several), detail })
}

#[cfg(test)]
mod tests {
    use super::*;
    use locus_gpt2::Config;
    use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};

    fn model<F: Scalar>(config: &Config) -> Gpt2<F> {
        Gpt2::init(config, &mut ChaCha8Rng::seed_from_u64(5))
    }

    #[test]
    fn any_sound_model_passes() {
        for config in [Config::new(2, 2, 8, 16, 20), Config::new(1, 1, 2, 1, 2)] {
            let f32s = model::<f32>(&config);
            let check = same_on_threads(&f32s, &Questions::draw(&f32s, 4, 1).unwrap(), 3).unwrap();
            assert_eq!(check.passed, Some(true), "{check:?}");
            let f64s = model::<f64>(&config);
            let questions = Questions::draw(&f64s, 2, 1).unwrap();
            let mut checks = Vec::new();
            gradients::check_parameters(&f64s, &questions, 1, &mut |check| checks.push(check)).unwrap();
            gradients::check_edges(&f64s, &questions, &mut |check| checks.push(check)).unwrap();
            assert_eq!(checks.len(), 3, "{checks:?}");
            assert!(checks.iter().all(|check| check.passed == Some(true)), "{checks:?}");
        }
    }

    #[test]
    fn weights_that_overflow_do_not_pass() {
        let mut broken = model::<f64>(&Config::new(2, 2, 8, 16, 20));
        broken.get_mut(ParamId::FinalNormWeight).fill(f64::INFINITY);
        let questions = Questions::draw(&broken, 2, 1).unwrap();
        let mut checks = Vec::new();
        gradients::check_parameters(&broken, &questions, 1, &mut |check| checks.push(check)).unwrap();
        gradients::check_edges(&broken, &questions, &mut |check| checks.push(check)).unwrap();
        assert!(checks.iter().all(|check| check.passed == Some(false)), "{checks:?}");
    }

    #[test]
    fn a_model_of_one_token_is_refused() {
        let tiny = model::<f32>(&Config::new(1, 1, 2, 4, 1));
        assert!(Questions::draw(&tiny, 2, 1).is_err());
    }
}
