//! Our side of the comparison with PyTorch. Repeatedly reads the name of a piece of work from stdin, does the work
//! once, and prints the seconds it took and its operations, in billions. `cargo xtask bench --peers` runs it and its
//! PyTorch counterpart alternately.

use std::cell::OnceCell;
use std::io::{BufRead, Write};
use std::sync::Arc;
use std::time::Instant;

use locus_circuits::edges::{
    Attribution, LogitDiff, Pair, QuadratureRule, StandardAblation, attribute_edges,
};
use locus_circuits::masks::{BinaryConcrete, MaskTrainer, ReadOut, TaskObjective};
use locus_editors::{ClampedSgd, Context, Editor, Fact, Hparams, KeyCovariance, TokenRequest};
use locus_gpt2::{Batch, Config, Gpt2, ParamId, ParamMask, ParamSet, PromptTargets, ScoreHead, Target, gemm};
use ndarray::Array2;
use rand::RngExt;
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};
use rayon::iter::ParallelIterator;
use rayon::slice::ParallelSlice;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Number of prompts.
const PROMPTS: u32 = 8;
/// Tokens per prompt.
const TOKENS: u32 = 13;
/// Number of fine-tuning edits of one scope.
const EDITS: u32 = 198;
/// Sequences per step of mask training.
const BATCH: usize = 128;
/// Steps per epoch of mask training.
const MASK_STEPS: usize = 2;
/// Steps of a trajectory.
const TRAJECTORY_STEPS: usize = 20;
/// ROME edits in a row.
const ROME_EDITS: usize = 20;
/// Prompts whose targets are scored.
const SCORED: u32 = 1000;
/// Prompts of one batch, about the 128 rows of `locus score`.
const SCORED_AT_A_TIME: usize = 12;
/// Products per run of `sgemm`.
const SGEMM_TIMES: usize = 4;

fn main() {
    locus_benches::start_over_with_settings();
    let config = Config::gpt2_small();
    let mut model = Gpt2::<f32>::init(&config, &mut ChaCha8Rng::seed_from_u64(1));
    // Biases are initialised to zero; give them values, so that no addition is trivial.
    for id in ParamId::all(&config).filter(|id| id.is_vector()) {
        model.get_mut(id).iter_mut().enumerate().for_each(|(i, w)| *w += 1e-3 * (i % 7) as f32);
    }
    let fact = fact();
    let covariance = OnceCell::new();
    let mask =
        || ParamMask::random(&config, ParamMask::n_maskable(&config) / 20, &mut ChaCha8Rng::seed_from_u64(3));
    let stdin = std::io::stdin();
    for work in stdin.lock().lines().map_while(Result::ok) {
        let start = Instant::now();
        // Seconds of the work alone, for works that prepare something first.
        let mut seconds = None;
        // Number of operations, where they are counted.
        let flop = match work.as_str() {
            "sgemm" => sgemm(),
            "forward 1x16" => forward(&model, &batch(&config, 1, 16)),
            "forward 8x16" => forward(&model, &batch(&config, 8, 16)),
            "forward 8x64" => forward(&model, &batch(&config, 8, 64)),
            "backward 8x16" => backward(&model, &batch(&config, 8, 16)),
            "backward 8x64" => backward(&model, &batch(&config, 8, 64)),
            // The worst case: prompts that differ from the first token on.
            "eap 0" => score(&model, &pairs(0), Attribution::Eap),
            // As in the public greater-than pairs, where the year is the eighth token: the common prefix is run once.
            "eap 7" => score(&model, &pairs(7), Attribution::Eap),
            "eap-ig 0" => score(&model, &pairs(0), Attribution::IgInputs(QuadratureRule::Left, 5)),
            "eap-ig 7" => score(&model, &pairs(7), Attribution::IgInputs(QuadratureRule::Left, 5)),
            "eap 64" => score(&model, &years(), Attribution::Eap),
            "eap-ig 64" => score(&model, &years(), Attribution::IgInputs(QuadratureRule::Left, 5)),
            "mask step" => {
                let (flop, of_step) = mask_steps(&model, MASK_STEPS);
                seconds = Some(of_step);
                flop
            }
            "trajectory" => {
                // The first epoch warms up, as the first step on the other side does.
                let (flop, of_step) = mask_steps(&model, TRAJECTORY_STEPS);
                seconds = Some(of_step * TRAJECTORY_STEPS as f64);
                flop * TRAJECTORY_STEPS as f64
            }
            "score" => score_prompts(&model),
            "ft circuit" => fine_tune(&model, &mask()),
            "ft complement" => {
                // The mask itself is dropped before the work begins.
                let complement = mask().complement();
                fine_tune(&model, &complement)
            }
            "rome" => rome(&model, &fact, covariance.get_or_init(|| covariance_of(&config))),
            "20 rome" => {
                let covariance = covariance.get_or_init(|| covariance_of(&config));
                rome(&model, &fact, covariance);
                let start = Instant::now();
                (0..ROME_EDITS).for_each(|_| _ = rome(&model, &fact, covariance));
                seconds = Some(start.elapsed().as_secs_f64());
                0.0
            }
            other => panic!("no work is called {other}"),
        };
        println!("{} {}", seconds.unwrap_or_else(|| start.elapsed().as_secs_f64()), flop / 1e9);
        std::io::stdout().flush().expect("the driver listens");
    }
}

/// Matrix products at the rate that this machine can reach: two large ones at a time.
fn sgemm() -> f64 {
    let side = 2048;
    let a = Array2::<f32>::from_elem((side, side), 0.5);
    let mut c = Array2::zeros((side, side));
    for _ in 0..SGEMM_TIMES {
        gemm(1.0, a.view(), a.view(), 0.0, c.view_mut());
    }
    2.0 * (side * side * side * SGEMM_TIMES) as f64
}

fn batch(config: &Config, sequences: usize, length: usize) -> Batch<f32> {
    let tokens = |i: usize| (0..length).map(|j| (100 + 997 * i + 31 * j) as u32).collect::<Vec<_>>();
    Batch::new(config, &(0..sequences).map(tokens).collect::<Vec<_>>()).expect("tokens fit")
}

/// Multiply-adds of a forward pass through one block, per token: attention's own, which are few, are left out.
fn block_multiply_adds(config: &Config) -> f64 {
    (12 * config.n_embd * config.n_embd) as f64
}

/// Forward pass to hidden states, without logits.
fn forward(model: &Gpt2<f32>, batch: &Batch<f32>) -> f64 {
    assert!(model.run(batch).hidden().iter().all(|x| x.is_finite()));
    let config = model.config();
    2.0 * block_multiply_adds(config) * (config.n_layer * batch.n_rows()) as f64
}

/// Mean NLL of every next token, and its gradient with respect to all weights.
fn backward(model: &Gpt2<f32>, batch: &Batch<f32>) -> f64 {
    let config = model.config();
    let next = |rows: std::ops::Range<usize>| {
        let last = rows.end - 1;
        rows.take_while(move |&row| row < last).map(|row| Target { row, token: batch.tokens()[row + 1] })
    };
    let targets: Vec<Target> = batch.sequences().flat_map(next).collect();
    let mut grads = ParamSet::zeros(config, ParamId::all(config));
    let tape = model.run(batch).tape();
    let mean = vec![1.0 / targets.len() as f32; targets.len()];
    let (_, d_hidden) = model.nll_backward(&tape, &targets, &mean, &mut grads);
    model.backward(&tape, d_hidden.view(), &mut grads, &mut ());
    assert!(grads.get(ParamId::TokenEmbedding).iter().any(|&g| g != 0.0));
    let head = (config.vocab_size * config.n_embd * targets.len()) as f64;
    6.0 * (block_multiply_adds(config) * (config.n_layer * batch.n_rows()) as f64 + head)
}

/// NLL of the target after each of many prompts.
fn score_prompts(model: &Gpt2<f32>) -> f64 {
    let prompt = |i: u32| (0..6 + i % 9).map(|j| (100 + 97 * i + 31 * j) % 50_000).collect();
    let target = |i: u32| [2000 + i, 3000 + i][..1 + i as usize % 2].to_vec();
    let pairs: Vec<(Vec<u32>, Vec<u32>)> = (0..SCORED).map(|i| (prompt(i), target(i))).collect();
    pairs.par_chunks(SCORED_AT_A_TIME).for_each(|pairs| {
        let packed = PromptTargets::new(model.config(), pairs).expect("prompts fit");
        assert!(packed.nll_per_token(model).iter().all(|nll| nll.is_finite()));
    });
    0.0
}

/// A step of the study's mask training on 128 sequences of 16 tokens: operations and seconds, measured in the second of
/// two epochs of so many steps.
fn mask_steps(model: &Gpt2<f32>, steps: usize) -> (f64, f64) {
    let config = model.config();
    let n = BATCH * steps;
    let sequences: Vec<Vec<u32>> =
        (0..n).map(|i| (0..16).map(|j| ((100 + 97 * i + 31 * j) % 50_000) as u32).collect()).collect();
    let classes: Vec<usize> = (0..n).map(|i| i % 2).collect();
    let weight = Array2::from_shape_fn((2, config.n_embd), |(i, j)| 0.02 * (((i + j) % 5) as f32 - 2.0));
    let head = ScoreHead { weight };
    let objective = TaskObjective { model, read_out: ReadOut::Head(&head, &classes), sequences: &sequences };
    let recipe = BinaryConcrete { batch_sequences: BATCH, max_epochs: 2, ..Default::default() };
    let mut epochs = Vec::new();
    let circuits = recipe.train(&objective, &[0.05], 1, &mut |_| epochs.push(Instant::now()));
    assert_eq!(circuits.expect("sequences fit")[0].steps, 2 * steps);
    let seconds = (epochs[1] - epochs[0]).as_secs_f64() / steps as f64;
    // Forward pass, gradients of activations, gradients of weights. After its keys and values, the last block works on
    // one row of each sequence only.
    let (d, rows) = (config.n_embd * config.n_embd, BATCH * 16);
    let all = (config.n_layer - 1) * 12 * d * rows;
    (6.0 * (all + 3 * d * rows + 9 * d * BATCH) as f64, seconds)
}

/// The fact of a ROME edit: 21 contexts with prefixes of 10 tokens, a prompt of 8, a target of 2; all 20 evaluations
/// run.
fn fact() -> Fact {
    let prompt: Vec<u32> = (0..8).map(|i| 1000 + 37 * i).collect();
    let row = |j: u32| {
        let prefix: Vec<u32> = (0..10).map(|i| 50 + 211 * j + 17 * i).collect();
        Context { tokens: [prefix, prompt.clone()].concat(), subject_last: 13 }
    };
    let kl_prompt = Context { tokens: [&prompt[..4], &[318, 257]].concat(), subject_last: 3 };
    Fact { contexts: (0..21).map(row).collect(), kl_prompt, target: vec![2000, 2001] }
}

/// Key statistics from random keys: the work is the same for any positive definite matrix.
fn covariance_of(config: &Config) -> Arc<KeyCovariance> {
    let (f, n) = (config.d_mlp(), 4096);
    let mut rng = ChaCha8Rng::seed_from_u64(2);
    let keys = Array2::from_shape_simple_fn((f, n), || 2.0 * rng.random::<f64>() - 1.0);
    let mut moment = Array2::zeros((f, f));
    gemm(1.0 / n as f64, keys.view(), keys.t(), 0.0, moment.view_mut());
    Arc::new(KeyCovariance::new(moment, 1e-3).expect("positive definite"))
}

fn rome(model: &Gpt2<f32>, fact: &Fact, covariance: &Arc<KeyCovariance>) -> f64 {
    let mut constants = Hparams::for_model(model.config(), None).expect("GPT-2 small is built in").rome;
    constants.optimisation.loss_stop = 0.0;
    constants.max_update = f64::INFINITY;
    let edit =
        constants.with(covariance.clone()).edit(model, std::slice::from_ref(fact), None).expect("fits");
    assert_eq!(edit.report.losses.len(), 20);
    assert!(edit.patch.apply(model).expect("its base").sha256() != model.sha256());
    0.0
}

/// Fine-tuning edits of the study: all ten steps, then the NLL of the target.
fn fine_tune(model: &Gpt2<f32>, mask: &ParamMask) -> f64 {
    let requests: Vec<TokenRequest> = (0..EDITS)
        .map(|i| TokenRequest {
            prompt: (0..12).map(|j| 100 + 97 * i + 31 * j).collect(),
            target: vec![2000 + i, 3000 + i],
        })
        .collect();
    let editor = ClampedSgd { loss_stop: 0.0, ..Default::default() };
    let start = mask.ablate_complement(model);
    let nll = editor.fine_tune_each(&start, &requests, Some(mask), |i, edited, report| {
        assert_eq!(report.steps, 10);
        let request = &requests[i];
        let packed = PromptTargets::new(model.config(), &[(&request.prompt, &request.target)])?;
        Ok::<_, locus_editors::Error>(edited.nll_per_token(&packed)[0])
    });
    assert!(nll.expect("requests fit").iter().all(|nll| nll.is_finite()));
    0.0
}

fn pairs(first_difference: usize) -> Vec<Pair> {
    (0..PROMPTS)
        .map(|i| {
            let clean: Vec<u32> = (0..TOKENS).map(|j| 100 + 997 * i + 31 * j).collect();
            let mut corrupted = clean.clone();
            corrupted[first_difference] += 1;
            Pair { clean, corrupted, correct: vec![5 + i], incorrect: vec![50 + i] }
        })
        .collect()
}

/// Pairs like those of greater-than: the eighth of twelve tokens differs, and sets of years are compared.
fn years() -> Vec<Pair> {
    (0..64)
        .map(|i| {
            let clean: Vec<u32> = (0..12).map(|j| 100 + 997 * (i % 40) + 31 * j).collect();
            let mut corrupted = clean.clone();
            corrupted[7] += 1;
            Pair { clean, corrupted, correct: (3000..3050).collect(), incorrect: (4000..4050).collect() }
        })
        .collect()
}

fn score(model: &Gpt2<f32>, pairs: &[Pair], method: Attribution) -> f64 {
    let scores =
        attribute_edges(model, pairs, &LogitDiff, method, &StandardAblation::Corrupted).expect("pairs fit");
    assert!(scores.matrix().iter().any(|&score| score != 0.0));
    0.0
}
