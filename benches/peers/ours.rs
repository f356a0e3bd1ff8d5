//! Our side of the comparison with PyTorch: reads the name of a piece of work from stdin, does it once, prints the
//! seconds it took; again and again. `compare.py` drives it and its counterpart in turns.

use std::io::{BufRead, Write};
use std::sync::Arc;
use std::time::Instant;

use locus_circuits::{Attribution, Metric, Pair, Reference, Rule, attribute_edges};
use locus_editors::{Editor, Fact, KeyCovariance, Rome, Row, StudyFineTuning, TokenRequest};
use locus_gpt2::{Config, ParamId, ParamMask, Params, PromptTargets, gemm};
use ndarray::Array2;
use rand::RngExt;
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Prompts and their length, as in the goal: eight of thirteen tokens.
const PROMPTS: u32 = 8;
const TOKENS: u32 = 13;
/// Fine-tuning edits of one scope.
const EDITS: u32 = 24;

fn main() {
    let config = Config::gpt2_small();
    let mut model = Params::<f32>::init(&config, &mut ChaCha8Rng::seed_from_u64(1));
    // Fresh biases are zeros; make every addition a real one.
    for id in ParamId::all(&config).filter(|id| id.is_vector()) {
        model.get_mut(id).iter_mut().enumerate().for_each(|(i, w)| *w += 1e-3 * (i % 7) as f32);
    }
    let fact = fact();
    // Any positive definite matrix will do: the work is the same.
    let keys = random_keys(&config);
    let covariance = Arc::new(KeyCovariance::new(keys, 1e-3).expect("positive definite"));
    let mask =
        ParamMask::random(&config, ParamMask::population(&config) / 20, &mut ChaCha8Rng::seed_from_u64(3));
    let stdin = std::io::stdin();
    for work in stdin.lock().lines().map_while(Result::ok) {
        let start = Instant::now();
        match work.as_str() {
            // The worst case: prompts that differ from the first token on.
            "eap 0" => score(&model, &pairs(0), Attribution::Eap),
            // As in the public greater-than pairs, where the year is the eighth token: the beginning is run once.
            "eap 7" => score(&model, &pairs(7), Attribution::Eap),
            "eap-ig 0" => score(&model, &pairs(0), Attribution::IgInputs(Rule::Left, 5)),
            "rome" => rome(&model, &fact, &covariance),
            "eap-ig 7" => score(&model, &pairs(7), Attribution::IgInputs(Rule::Left, 5)),
            "ft circuit" => fine_tune(&model, &mask, true),
            "ft complement" => fine_tune(&model, &mask.complement(), true),
            "ft model" => fine_tune(&model, &mask, false),
            other => panic!("no work is called {other}"),
        }
        println!("{}", start.elapsed().as_secs_f64());
        std::io::stdout().flush().expect("the driver listens");
    }
}

/// One ROME edit: 21 rows behind prefixes of 10 tokens, a prompt of 8, a target of 2, all 20 evaluations.
fn fact() -> Fact {
    let prompt: Vec<u32> = (0..8).map(|i| 1000 + 37 * i).collect();
    let row = |j: u32| {
        let prefix: Vec<u32> = (0..10).map(|i| 50 + 211 * j + 17 * i).collect();
        Row { tokens: [prefix, prompt.clone()].concat(), lookup: 13 }
    };
    let essence = Row { tokens: [&prompt[..4], &[318, 257]].concat(), lookup: 3 };
    Fact { rows: (0..21).map(row).collect(), essence, target: vec![2000, 2001] }
}

fn random_keys(config: &Config) -> Array2<f64> {
    let (f, n) = (config.d_mlp(), 4096);
    let mut rng = ChaCha8Rng::seed_from_u64(2);
    let keys = Array2::from_shape_simple_fn((f, n), || 2.0 * rng.random::<f64>() - 1.0);
    let mut moment = Array2::zeros((f, f));
    gemm(1.0 / n as f64, keys.view(), keys.t(), 0.0, moment.view_mut());
    moment
}

fn rome(model: &Params<f32>, fact: &Fact, covariance: &Arc<KeyCovariance>) {
    let mut constants = Rome::for_model(model.config());
    constants.value.loss_stop = 0.0;
    constants.max_update = f64::INFINITY;
    let edit =
        constants.with(covariance.clone()).edit(model, std::slice::from_ref(fact), None).expect("fits");
    assert_eq!(edit.report.losses.len(), 20);
    assert!(edit.patch.apply(model).expect("its base").sha256() != model.sha256());
}

/// Edits of the study: all ten steps, and the NLL of the target after them.
fn fine_tune(model: &Params<f32>, mask: &ParamMask, masked: bool) {
    let requests: Vec<TokenRequest> = (0..EDITS)
        .map(|i| TokenRequest {
            prompt: (0..12).map(|j| 100 + 97 * i + 31 * j).collect(),
            target: vec![2000 + i, 3000 + i],
        })
        .collect();
    let editor = StudyFineTuning { loss_stop: 0.0, ..Default::default() };
    let mask = masked.then_some(mask);
    let start = mask.map_or_else(|| model.clone(), |mask| mask.isolate(model));
    let nll = editor.fine_tune_each(&start, &requests, mask, |i, edited, report| {
        assert_eq!(report.steps, 10);
        let request = &requests[i];
        let laid = PromptTargets::new(model.config(), &[(&request.prompt, &request.target)])?;
        Ok::<_, locus_editors::Error>(edited.nll_per_token(&laid)[0])
    });
    assert!(nll.expect("requests fit").iter().all(|nll| nll.is_finite()));
}

fn pairs(first_difference: usize) -> Vec<Pair> {
    (0..PROMPTS)
        .map(|i| {
            let clean: Vec<u32> = (0..TOKENS).map(|j| 100 + 997 * i + 31 * j).collect();
            let mut corrupted = clean.clone();
            corrupted[first_difference] += 1;
            Pair { clean, corrupted, good: vec![5 + i], bad: vec![50 + i] }
        })
        .collect()
}

fn score(model: &Params<f32>, pairs: &[Pair], method: Attribution) {
    let scores =
        attribute_edges(model, pairs, Metric::LogitDiff, method, Reference::Corrupted).expect("pairs fit");
    assert!(scores.matrix().iter().any(|&score| score != 0.0));
}
