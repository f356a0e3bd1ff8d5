//! Parity with Hugging Face transformers: logits, hidden states, losses and the gradient of every parameter.

use std::collections::BTreeMap;

use locus_gpt2::internal::decode;
use locus_gpt2::{
    Batch, Checkpoint, Config, Gpt2, HookPoint, Number, ParamId, ParamSet, PromptTargets, Sampling, Scalar,
    ScoreHead, Target, read_safetensors,
};
use locus_testkit::{GOLDEN_F32, GOLDEN_F64, assert_close};
use ndarray::{Array2, ArrayViewMut2, s};

use crate::support::golden_folder;

struct Golden<F> {
    model: Gpt2<F>,
    floats: BTreeMap<String, Vec<f64>>,
    tokens: Vec<Vec<u32>>,
    labels: Vec<usize>,
}

fn golden<F: Scalar>(weights: &str, expected: &str) -> Golden<F> {
    let folder = golden_folder().join("tiny");
    let config = Config::read(&folder.join("config.json")).unwrap();
    let model = Gpt2::read(&folder.join(weights), &config).unwrap();
    read_safetensors(&folder.join(expected), |tensors, _| {
        let (mut floats, mut integers) = (BTreeMap::new(), BTreeMap::new());
        for (name, view) in tensors.iter() {
            if let Ok(values) = decode::<f64>(&view) {
                floats.insert(name.to_owned(), values);
            } else {
                let values: Vec<i64> =
                    view.data().as_chunks::<8>().0.iter().map(|&b| i64::from_le_bytes(b)).collect();
                integers.insert(name.to_owned(), values);
            }
        }
        let tokens =
            (0..3).map(|i| integers[&format!("tokens.{i}")].iter().map(|&t| t as u32).collect()).collect();
        let labels = integers["classify.labels"].iter().map(|&l| l as usize).collect();
        Ok(Golden { model, floats, tokens, labels })
    })
    .unwrap()
}

fn wide<F: Scalar>(values: impl IntoIterator<Item = F>) -> Vec<f64> {
    values.into_iter().map(Number::as_f64).collect()
}

fn check<F: Scalar>(golden: &Golden<F>, tolerance: f64) {
    let Golden { model, floats, tokens, labels } = golden;
    let batch = Batch::new(model.config(), tokens).unwrap();
    let mut residuals = Vec::new();
    let mut hook = |_: usize, point: HookPoint, state: ArrayViewMut2<F>| {
        if point == HookPoint::ResidPre {
            residuals.push(state.to_owned());
        }
    };
    let tape = model.run(&batch).with_hooks(&mut hook).tape();
    let logits = model.logits(tape.hidden.view());
    for (i, rows) in batch.sequences().enumerate() {
        let close = |name: String, actual: Vec<f64>| assert_close(&name, &actual, &floats[&name], tolerance);
        close(format!("logits.{i}"), wide(logits.slice(s![rows.clone(), ..]).iter().copied()));
        close(format!("hidden.{i}"), wide(tape.hidden.slice(s![rows.clone(), ..]).iter().copied()));
        for (layer, resid) in residuals.iter().enumerate() {
            close(format!("resid.{i}.{layer}"), wide(resid.slice(s![rows.clone(), ..]).iter().copied()));
        }
    }

    let targets: Vec<Target> = batch
        .sequences()
        .flat_map(|s| (s.start..s.end - 1).map(|row| Target { row, token: batch.tokens()[row + 1] }))
        .collect();
    let mut grads = ParamSet::zeros(model.config(), ParamId::all(model.config()));
    let (nll, d_hidden) = model.nll_backward(&tape, &targets, &vec![F::one(); targets.len()], &mut grads);
    model.backward(&tape, d_hidden.view(), &mut grads, &mut ());
    let expected: Vec<f64> =
        (0..3).flat_map(|i| floats.get(&format!("nll.{i}")).cloned().unwrap_or_default()).collect();
    assert_close("nll", &nll, &expected, tolerance);
    assert_close("loss", &[nll.iter().sum()], &floats["loss"], tolerance);
    for id in ParamId::all(model.config()) {
        let name = format!("grad.{id}");
        assert_close(&name, &wide(grads.get(id).iter().copied()), &floats[&name], tolerance);
    }

    let weight: Vec<F> = floats["classify.weight"].iter().map(|&x| F::from_f64(x)).collect();
    let head = ScoreHead { weight: Array2::from_shape_vec((2, model.config().n_embd), weight).unwrap() };
    let scores = head.logits(model, &batch);
    assert_close("classify.logits", &wide(scores.iter().copied()), &floats["classify.logits"], tolerance);
    let last = batch.last_rows();
    let tape = model.run(&batch).reading(&last).tape();
    let (loss, d_hidden) = head.cross_entropy_backward(tape.hidden.view(), labels);
    let mean = F::one() / F::from_f64(3.0);
    assert_close("classify.loss", &[loss / 3.0], &floats["classify.loss"], tolerance);
    let mut grads = ParamSet::zeros(model.config(), ParamId::all(model.config()));
    model.backward(&tape, d_hidden.mapv(|g| g * mean).view(), &mut grads, &mut ());
    for id in ParamId::all(model.config()) {
        let name = format!("classify.grad.{id}");
        let actual = wide(grads.get(id).iter().copied());
        assert_close(&name, &actual, &floats[&name], tolerance);
    }
}

#[test]
fn f32_agrees_with_transformers() {
    check(&golden::<f32>("model.safetensors", "expected_f32.safetensors"), GOLDEN_F32);
}

#[test]
fn f64_agrees_with_transformers() {
    check(&golden::<f64>("model_f64.safetensors", "expected_f64.safetensors"), GOLDEN_F64);
}

/// Half-precision files are read; bfloat16 keeps 8 bits, half keeps 11.
#[test]
fn half_precision_checkpoints_load() {
    let folder = golden_folder().join("tiny");
    let config = Config::read(&folder.join("config.json")).unwrap();
    let read = |name: &str| Gpt2::<f64>::read(&folder.join(name), &config).unwrap();
    let exact = read("model.safetensors");
    for (name, tolerance) in
        [("model_f16.safetensors", 0.5f64.powi(11)), ("model_bf16.safetensors", 0.5f64.powi(8))]
    {
        let rounded = read(name);
        for id in exact.ids() {
            assert_close(&format!("{name} {id}"), rounded.get(id), exact.get(id), tolerance);
        }
    }
}

#[test]
fn scores_and_greedy_text_agree_with_transformers() {
    let folder = golden_folder().join("score");
    let Checkpoint { model, tokenizer } = Checkpoint::<f32>::from_pretrained(&folder).unwrap();
    let text = std::fs::read_to_string(folder.join("expected.jsonl")).unwrap();
    let mut lines = 0;
    for line in text.lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        let ids = |field: &str| tokenizer.encode(line[field].as_str().unwrap()).unwrap();
        let laid = PromptTargets::new(model.config(), &[(ids("prompt"), ids("target"))]).unwrap();
        assert_eq!(laid.targets.len() as u64, line["tokens"].as_u64().unwrap());
        let nll = laid.nll_per_token(&model);
        assert_close("nll_per_token", &nll, &[line["nll_per_token"].as_f64().unwrap()], GOLDEN_F32);
        lines += 1;
    }
    assert!(lines >= 12);
    let greedy: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(folder.join("greedy.json")).unwrap()).unwrap();
    for case in greedy.as_array().unwrap() {
        let prompt = tokenizer.encode(case["prompt"].as_str().unwrap()).unwrap();
        let expected: Vec<u32> =
            case["greedy_ids"].as_array().unwrap().iter().map(|t| t.as_u64().unwrap() as u32).collect();
        assert_eq!(model.generate(&prompt, expected.len(), Sampling::Greedy).unwrap(), expected);
    }
}
