//! Every pipeline of the study on a small random model: four layers as the organism, twice its width (128).

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, criterion_group};
use locus_circuits::edges::{
    Attribution, LogitDiff, Pair, QuadratureRule, StandardAblation, attribute_edges,
};
use locus_circuits::masks::{BinaryConcrete, MaskTrainer, ReadOut, TaskObjective};
use locus_circuits::tracing::{KnownFact, Tracing, trace_fact};
use locus_editors::{ClampedSgd, Context, Editor, Fact, Hparams, KeyCovariance, Rome, TokenRequest};
use locus_gpt2::{Batch, Config, Gpt2, ParamId, ParamMask, ParamSet, ScoreHead, gemm};
use ndarray::Array2;
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};

fn model() -> Gpt2<f32> {
    Gpt2::init(&Config::new(4, 4, 128, 128, 3072), &mut ChaCha8Rng::seed_from_u64(1))
}

/// `n` tokens, different for every `seed`.
fn tokens(seed: usize, n: usize) -> Vec<u32> {
    (0..n).map(|j| ((seed * 131 + j * 17) % 3072) as u32).collect()
}

fn passes(c: &mut Criterion) {
    let model = model();
    let config = model.config();
    let sequences: Vec<_> = (0..64).map(|i| tokens(i, 12)).collect();
    let batch = Batch::new(config, &sequences).expect("tokens fit");
    c.bench_function("forward 64x12", |b| b.iter(|| black_box(model.run(&batch).hidden())));
    let tape = model.run(&batch).tape();
    let d_hidden = Array2::from_elem(tape.hidden.dim(), 1e-3);
    for (name, ids) in [
        ("backward to activations 64x12", Vec::new()),
        ("backward to weights 64x12", ParamId::maskable(config).collect()),
    ] {
        let mut grads = ParamSet::zeros(config, ids);
        c.bench_function(name, |b| b.iter(|| model.backward(&tape, d_hidden.view(), &mut grads, &mut ())));
    }
    // Products with many rows, and with few, which read the weights in place.
    for (m, k, n) in [(768, 512, 384), (16, 768, 3072)] {
        let (a, w) = (Array2::<f32>::from_elem((m, k), 0.5), Array2::from_elem((k, n), 0.5));
        let transposed = Array2::from_elem((n, k), 0.5);
        let mut y = Array2::zeros((m, n));
        for (name, w) in [("gemm", w.view()), ("gemm, transposed", transposed.t())] {
            c.bench_function(&format!("{name} {m}x{k}x{n}"), |b| {
                b.iter(|| gemm(1.0, a.view(), w, 0.0, black_box(y.view_mut())))
            });
        }
    }
}

fn circuits(c: &mut Criterion) {
    let model = model();
    let pairs: Vec<Pair> = (0..16)
        .map(|i| {
            let (clean, mut corrupted) = (tokens(i, 12), tokens(i, 12));
            corrupted[5] = 7;
            Pair { clean, corrupted, correct: vec![11], incorrect: vec![13] }
        })
        .collect();
    for (name, method) in [
        ("EAP, 16 pairs", Attribution::Eap),
        ("EAP-IG, 16 pairs", Attribution::IgInputs(QuadratureRule::Left, 5)),
    ] {
        let score = || attribute_edges(&model, &pairs, &LogitDiff, method, &StandardAblation::Corrupted);
        c.bench_function(name, |b| b.iter(|| score().expect("pairs fit")));
    }
    let sequences: Vec<_> = (0..128).map(|i| tokens(i, 12)).collect();
    let classes: Vec<usize> = (0..128).map(|i| i % 2).collect();
    let head = ScoreHead { weight: Array2::from_shape_fn((2, 128), |(i, j)| ((i + j) % 5) as f32 * 0.02) };
    let objective =
        TaskObjective { model: &model, read_out: ReadOut::Head(&head, &classes), sequences: &sequences };
    let recipe = BinaryConcrete { max_epochs: 1, ..Default::default() };
    c.bench_function("one mask step of 128 rows, with its preparation", |b| {
        b.iter(|| recipe.train(&objective, &[0.05], 1, &mut |_| {}).expect("sequences fit"))
    });
    let fact = KnownFact { prompt: tokens(3, 10), subject: 1..4, answer: 11 };
    let how = Tracing { samples: 10, noise: 0.1, window: 2, seed: 1 };
    c.bench_function("causal trace of one fact", |b| {
        b.iter(|| trace_fact(&model, &fact, &how).expect("fits"))
    });
}

fn editors(c: &mut Criterion) {
    let model = model();
    let config = model.config();
    let requests: Vec<TokenRequest> =
        (0..16).map(|i| TokenRequest { prompt: tokens(i, 10), target: tokens(i + 50, 2) }).collect();
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let circuit = ParamMask::random(config, ParamMask::n_maskable(config) / 20, &mut rng);
    let editor = ClampedSgd { loss_stop: 0.0, ..Default::default() };
    for (name, mask) in [
        ("16 fine-tuning edits in a circuit of 5 %", circuit.clone()),
        ("16 fine-tuning edits in its complement", circuit.complement()),
    ] {
        let start = mask.ablate_complement(&model);
        c.bench_function(name, |b| {
            b.iter(|| {
                let keep =
                    |_: usize, _: &locus_editors::LazyEdited<'_, f32>, report: &locus_editors::Report| {
                        Ok::<_, locus_editors::Error>(report.steps)
                    };
                editor.fine_tune_each(&start, &requests, Some(&mask), keep).expect("requests fit")
            })
        });
    }
    let facts: Vec<Fact> = (0..8)
        .map(|i| {
            let row = |j: usize| Context { tokens: [tokens(j, 4), tokens(i, 6)].concat(), subject_last: 7 };
            let kl_prompt = Context { tokens: tokens(i, 4), subject_last: 3 };
            Fact { contexts: (0..6).map(row).collect(), kl_prompt, target: vec![11] }
        })
        .collect();
    let covariance =
        Arc::new(KeyCovariance::new(Array2::eye(config.d_mlp()), 1e-3).expect("is the identity"));
    let hparams = Hparams::for_model(config, None).expect("GPT-2 small is built in");
    let rome = Rome { max_update: f64::INFINITY, ..hparams.rome }.with(covariance.clone());
    c.bench_function("one ROME edit", |b| b.iter(|| rome.edit(&model, &facts[..1], None).expect("fits")));
    let layers: BTreeMap<_, _> = (0..config.n_layer).map(|layer| (layer, covariance.clone())).collect();
    let memit = hparams.memit.with(layers).expect("every layer has statistics");
    c.bench_function("MEMIT of 8 facts", |b| b.iter(|| memit.edit(&model, &facts, None).expect("fit")));
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(10);
    targets = passes, circuits, editors
}

fn main() {
    locus_benches::start_over_with_settings();
    benches();
    Criterion::default().configure_from_args().final_summary();
}
