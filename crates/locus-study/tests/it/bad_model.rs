//! Models that cannot be used.

use locus_gpt2::{Config, ParamId, ParamSet};

use crate::refused::{ALL, Case, REPRODUCE, SCORE, check};
use crate::support::{Sandbox, random_model, tiny_config};

const WEIGHTS: &str = "model/model.safetensors";

/// The weights of a model of another shape under the same `config.json`.
fn put_weights_of(sandbox: &Sandbox, config: &Config) {
    random_model(config).write(&sandbox.path(WEIGHTS), "a test").unwrap();
}

#[test]
fn weights() {
    check(&[
        Case {
            what: "weights missing",
            commands: ALL,
            spoil: |s| s.remove(WEIGHTS),
            says: &["model/model.safetensors: ", "No such file"],
        },
        Case {
            what: "weights truncated",
            commands: ALL,
            spoil: |s| s.truncate(WEIGHTS),
            says: &["model/model.safetensors: not a complete safetensors file"],
        },
        Case {
            what: "weights empty",
            commands: ALL,
            spoil: |s| s.write(WEIGHTS, ""),
            says: &["model/model.safetensors: the file is empty"],
        },
        Case {
            what: "a tensor of another shape",
            commands: ALL,
            spoil: |s| put_weights_of(s, &Config { n_positions: 64, ..tiny_config() }),
            says: &["model/model.safetensors: tensor transformer.wpe.weight", "[64, 16]", "[128, 16]"],
        },
        Case {
            what: "a layer too many",
            commands: ALL,
            spoil: |s| put_weights_of(s, &Config { n_layer: 3, ..tiny_config() }),
            says: &["model/model.safetensors: tensor transformer.h.2.", "not part of"],
        },
        Case {
            what: "a tensor missing",
            commands: ALL,
            spoil: |s| {
                let (config, full) = (tiny_config(), random_model(&tiny_config()));
                let mut partial = ParamSet::zeros(&config, []);
                for id in ParamId::all(&config).filter(|id| id.to_string() != "h.1.mlp.c_fc.bias") {
                    partial.insert(id, full.get(id).to_vec());
                }
                partial.write(&s.path(WEIGHTS), "a test").unwrap();
            },
            says: &["model/model.safetensors: tensor h.1.mlp.c_fc.bias is missing"],
        },
        Case {
            what: "a weight that is no number",
            commands: ALL,
            spoil: |s| {
                let mut model = random_model(&tiny_config());
                model.get_mut(ParamId::FinalNormBias)[3] = f32::NAN;
                model.write(&s.path(WEIGHTS), "a test").unwrap();
            },
            says: &["model/model.safetensors: tensor transformer.ln_f.bias has NaN at index 3"],
        },
    ]);
}

#[test]
fn config() {
    check(&[
        Case {
            what: "config missing",
            commands: ALL,
            spoil: |s| s.remove("model/config.json"),
            says: &["model/config.json: ", "No such file"],
        },
        Case {
            what: "config without n_head",
            commands: ALL,
            spoil: |s| s.replace("model/config.json", "\"n_head\": 2,", ""),
            says: &["model/config.json: ", "missing field `n_head`"],
        },
        Case {
            what: "config with text for a number",
            commands: ALL,
            spoil: |s| s.replace("model/config.json", "\"n_head\": 2", "\"n_head\": \"two\""),
            says: &["model/config.json: ", "\"two\""],
        },
        Case {
            what: "config cut off",
            commands: ALL,
            spoil: |s| s.truncate("model/config.json"),
            says: &["model/config.json: not valid JSON", "line "],
        },
        Case {
            what: "heads that do not divide the width",
            commands: ALL,
            spoil: |s| s.replace("model/config.json", "\"n_head\": 2", "\"n_head\": 3"),
            says: &["model/config.json: ", "n_embd is 16", "n_head 3"],
        },
        Case {
            what: "another activation",
            commands: ALL,
            spoil: |s| s.replace("model/config.json", "gelu_new", "relu"),
            says: &["model/config.json: field activation_function is \"relu\""],
        },
    ]);
}

#[test]
fn tokenizer() {
    check(&[
        Case {
            what: "tokenizer missing",
            commands: ALL,
            spoil: |s| s.remove("model/tokenizer.json"),
            says: &["model/tokenizer.json: ", "No such file"],
        },
        Case {
            what: "tokenizer cut off",
            commands: ALL,
            spoil: |s| s.truncate("model/tokenizer.json"),
            says: &["model/tokenizer.json: not a tokenizer"],
        },
        Case {
            what: "texts with tokens that the model does not have",
            commands: ALL,
            spoil: |s| s.put_model("model", &Config { vocab_size: 200, ..tiny_config() }),
            says: &["cannot be tokenised: its token", "the model's vocabulary has 200"],
        },
    ]);
}

#[test]
fn no_model_at_all() {
    check(&[
        Case {
            what: "no folder of that name",
            commands: &[
                "score --model nowhere --in prompts.jsonl",
                "edit --editor study-ft --model nowhere --requests requests.json",
                "reproduce --quick --model nowhere --data data",
            ],
            spoil: |_| (),
            says: &["--model nowhere: ", "nowhere/config.json: ", "No such file", "gpt2-medium"],
        },
        Case {
            what: "a known model that is not fetched",
            commands: &["score --model gpt2 --in prompts.jsonl", "reproduce --model gpt2 --data data"],
            spoil: |_| (),
            says: &["gpt2", "run: locus fetch gpt2"],
        },
        Case {
            what: "a model that comes without data",
            commands: &["reproduce --quick --model model"],
            spoil: |_| (),
            says: &["model/data: no such folder", "--data"],
        },
    ]);
}

#[test]
fn inputs_longer_than_the_context() {
    /// More words than the model has positions.
    fn long() -> String {
        "word ".repeat(200) + "end"
    }
    check(&[
        Case {
            what: "a long prompt to score",
            commands: &[SCORE],
            spoil: |s| {
                let long = format!("{{\"prompt\":\"{}\",\"target\":\" x\"}}", long());
                s.write("prompts.jsonl", s.read("prompts.jsonl") + "\n" + &long);
            },
            says: &["prompts.jsonl: line 3: ", "at most 128"],
        },
        Case {
            what: "a long prompt to edit",
            // Otherwise the record would be left out.
            commands: &["edit --editor study-ft --model model --requests requests.json --strict"],
            spoil: |s| s.replace("requests.json", "A wasp", &long()),
            says: &["requests.json: record 1: request 5: ", "at most 128"],
        },
        Case {
            what: "a long prompt of the study",
            commands: &[REPRODUCE],
            spoil: |s| s.replace("data/hierarchy_data.json", "A wasp", &long()),
            says: &["hierarchy_data.json: request 5: ", "at most 128"],
        },
        Case {
            what: "a long row",
            commands: &[REPRODUCE],
            spoil: |s| s.replace("data/persona_e.csv", "number 3", &long()),
            says: &["persona_e", "at most 128"],
        },
    ]);
}
