//! Checkpoints as people have them: each variant of one small checkpoint gives the NLL of an independent model (NumPy,
//! f64, `fixtures/golden/variants.py`), or is refused with a line that names what is wrong.

use std::path::Path;

use locus_gpt2::{Checkpoint, ParamMask, Tokenizer, read_safetensors, write_safetensors};
use safetensors::Dtype;
use serde_json::{Value, json};

use crate::support::golden_folder;

/// Name, type, shape and bytes.
type Tensor = (String, Dtype, Vec<usize>, Vec<u8>);

/// A copy of the golden checkpoint that a test may change.
struct Variant {
    folder: tempfile::TempDir,
}

impl Variant {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for file in ["config.json", "model.safetensors", "tokenizer.json"] {
            std::fs::copy(golden_folder().join("score").join(file), folder.path().join(file)).unwrap();
        }
        Variant { folder }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn json(&self, name: &str) -> Value {
        serde_json::from_str(&std::fs::read_to_string(self.path().join(name)).unwrap()).unwrap()
    }

    fn write(&self, name: &str, content: &Value) {
        std::fs::write(self.path().join(name), content.to_string()).unwrap();
    }

    fn remove(&self, name: &str) {
        std::fs::remove_file(self.path().join(name)).unwrap();
    }

    /// With other fields in `config.json`, or without those that are given as `"absent"`.
    fn config(self, fields: Value) -> Self {
        let mut config = self.json("config.json");
        for (name, value) in fields.as_object().unwrap() {
            if value == "absent" {
                config.as_object_mut().unwrap().remove(name);
            } else {
                config[name] = value.clone();
            }
        }
        self.write("config.json", &config);
        self
    }

    fn tokenizer(self, change: impl Fn(&mut Value)) -> Self {
        let mut tokenizer = self.json("tokenizer.json");
        change(&mut tokenizer);
        self.write("tokenizer.json", &tokenizer);
        self
    }

    /// `vocab.json` and `merges.txt` instead of `tokenizer.json`.
    fn vocab_and_merges(self) -> Self {
        let model = &self.json("tokenizer.json")["model"];
        self.write("vocab.json", &model["vocab"]);
        let merge = |merge: &Value| match merge {
            Value::String(text) => text.clone(),
            pair => format!("{} {}", pair[0].as_str().unwrap(), pair[1].as_str().unwrap()),
        };
        let merges: Vec<String> = model["merges"].as_array().unwrap().iter().map(merge).collect();
        let text = format!("#version: 0.2\n{}\n", merges.join("\n"));
        std::fs::write(self.path().join("merges.txt"), text).unwrap();
        self.remove("tokenizer.json");
        self
    }

    fn tensors(&self) -> Vec<Tensor> {
        read_safetensors(&self.path().join("model.safetensors"), |tensors, _| {
            let tensor = |(name, view): (&str, safetensors::tensor::TensorView<'_>)| {
                (name.to_owned(), view.dtype(), view.shape().to_vec(), view.data().to_vec())
            };
            let mut all: Vec<Tensor> = tensors.iter().map(tensor).collect();
            all.sort();
            Ok(all)
        })
        .unwrap()
    }

    fn put(&self, name: &str, tensors: &[Tensor]) {
        write_safetensors(&self.path().join(name), tensors, "{}").unwrap();
    }

    /// With other tensors.
    fn weights(self, change: impl FnOnce(Vec<Tensor>) -> Vec<Tensor>) -> Self {
        let tensors = change(self.tensors());
        self.put("model.safetensors", &tensors);
        self
    }

    fn renamed(self, name: impl Fn(&str) -> String) -> Self {
        self.weights(|tensors| tensors.into_iter().map(|t| (name(&t.0), t.1, t.2, t.3)).collect())
    }

    fn in_type<const N: usize>(self, dtype: Dtype, number: impl Fn(f32) -> [u8; N]) -> Self {
        let convert = |bytes: &[u8]| -> Vec<u8> {
            bytes.as_chunks().0.iter().flat_map(|&x| number(f32::from_le_bytes(x))).collect()
        };
        self.weights(|tensors| tensors.into_iter().map(|t| (t.0, dtype, t.2, convert(&t.3))).collect())
    }

    /// The weights in two shards with an index.
    fn shards(self) -> Self {
        let (first, second): (Vec<Tensor>, Vec<Tensor>) =
            self.tensors().into_iter().partition(|(name, ..)| name.contains("h.0.") || name.contains("wte"));
        let names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];
        let mut map = json!({});
        for (file, tensors) in names.into_iter().zip([first, second]) {
            tensors.iter().for_each(|(name, ..)| map[name] = file.into());
            self.put(file, &tensors);
        }
        self.write("model.safetensors.index.json", &json!({ "metadata": {}, "weight_map": map }));
        self.remove("model.safetensors");
        self
    }

    /// NLL of the golden target after a prompt.
    fn nll(&self, prompt: &str) -> locus_gpt2::Result<f64> {
        Checkpoint::<f64>::from_pretrained(self.path())?.nll(prompt, TARGET)
    }

    #[track_caller]
    fn gives(&self, expected: &str) {
        let before = if expected.starts_with("end of text") { "<|endoftext|>" } else { "" };
        let golden = std::fs::read_to_string(golden_folder().join("variants.json")).unwrap();
        let golden: Value = serde_json::from_str(&golden).unwrap();
        assert_eq!((golden["prompt"].as_str(), golden["target"].as_str()), (Some(PROMPT), Some(TARGET)));
        let expected = golden["nll_per_token"][expected].as_f64().expect("the oracle has a value");
        let nll = self.nll(&format!("{before}{PROMPT}")).unwrap();
        assert!((nll - expected).abs() < 1e-9 * expected, "{nll}; the oracle says {expected}");
    }

    #[track_caller]
    fn is_refused(&self, parts: &[&str]) {
        let why = self.nll(PROMPT).expect_err("the variant is refused").to_string();
        assert!(!why.contains(char::is_control), "{why:?}");
        for part in parts {
            assert!(why.contains(part), "{part:?} is not in {why:?}");
        }
    }
}

const PROMPT: &str = "The capital of France is";
const TARGET: &str = " Paris";

fn rows(tensor: &mut Tensor, row_bytes: usize, rows: usize) {
    tensor.2[0] = rows;
    let original = tensor.3.clone();
    tensor.3 = original.iter().copied().cycle().take(row_bytes * rows).collect();
}

#[test]
fn scales_of_attention() {
    Variant::new().gives("base");
    Variant::new().config(json!({ "scale_attn_weights": false })).gives("no scale");
    Variant::new().config(json!({ "scale_attn_by_inverse_layer_idx": true })).gives("scale by layer");
    let both = json!({ "scale_attn_weights": false, "scale_attn_by_inverse_layer_idx": true });
    Variant::new().config(both).gives("scale by layer alone");
    Variant::new().config(json!({ "reorder_and_upcast_attn": true })).gives("base");
}

#[test]
fn fields_that_are_honoured() {
    for name in ["gelu_pytorch_tanh", "gelu_fast", "gelu_new"] {
        Variant::new().config(json!({ "activation_function": name })).gives("base");
    }
    Variant::new().config(json!({ "n_head": 4 })).gives("four heads");
    Variant::new().config(json!({ "layer_norm_epsilon": 0.01 })).gives("epsilon");
    // Absent and null are the defaults.
    let names = ["activation_function", "layer_norm_epsilon", "initializer_range", "model_type", "n_inner"];
    let switches = ["scale_attn_weights", "scale_attn_by_inverse_layer_idx", "reorder_and_upcast_attn"];
    for name in
        names.into_iter().chain(switches).chain(["tie_word_embeddings", "n_ctx", "quantization_config"])
    {
        Variant::new().config(json!({ name: null })).gives("base");
        Variant::new().config(json!({ name: "absent" })).gives("base");
    }
    // What changes nothing of what is computed.
    let others = json!({
        "attn_pdrop": 0.5, "resid_pdrop": "x", "use_cache": false, "torch_dtype": "bfloat16", "n_ctx": 64, "pruned_heads": {},
        "is_decoder": true, "task_specific_params": { "text-generation": { "do_sample": true } }, "summary_type": 7,
    });
    Variant::new().config(others).gives("base");
    let other_names = json!({
        "n_layer": "absent", "num_hidden_layers": 2, "n_embd": "absent", "hidden_size": 16,
        "n_head": "absent", "num_attention_heads": 2, "n_positions": "absent", "max_position_embeddings": 64,
    });
    Variant::new().config(other_names).gives("base");
}

/// Each field that is refused, whatever its JSON type, is named.
#[test]
fn fields_that_are_refused() {
    let refused = |name: &str, value: Value| {
        Variant::new().config(json!({ name: value })).is_refused(&["config.json: ", name])
    };
    let switches = [
        "scale_attn_weights",
        "scale_attn_by_inverse_layer_idx",
        "reorder_and_upcast_attn",
        "add_cross_attention",
        "tie_word_embeddings",
    ];
    for name in switches {
        for value in [json!("true"), json!("false"), json!(1), json!(0), json!([]), json!({}), json!(0.5)] {
            refused(name, value);
        }
    }
    refused("add_cross_attention", true.into());
    refused("is_causal", false.into());
    for name in ["gelu", "relu", "silu", "quick_gelu", ""] {
        refused("activation_function", name.into());
    }
    refused("activation_function", 3.into());
    for epsilon in [json!(0), json!(-1), json!(1), json!(1e300), json!("1e-5"), json!(true)] {
        refused("layer_norm_epsilon", epsilon);
    }
    for size in ["n_layer", "n_head", "n_embd", "n_positions", "vocab_size", "n_inner"] {
        let huge = [json!(1_000_000_000_000u64), json!(1u64 << 60), json!(u64::MAX), json!(1e20)];
        let wrong = [json!(0), json!(-2), json!(2.5), json!("2"), json!(true), json!([2])];
        huge.into_iter().chain(wrong).for_each(|value| refused(size, value));
    }
    refused("n_layer", Value::Null);
    refused("n_ctx", 32.into());
    refused("hidden_size", 32.into());
    refused("quantization_config", json!({ "bits": 4 }));
    refused("pruned_heads", json!({ "0": [1] }));
    refused("model_type", "gpt_neo".into());
    refused("initializer_range", json!(-1));
}

#[test]
fn widths_types_and_padding_of_weights() {
    let narrow = |tensors: Vec<Tensor>| -> Vec<Tensor> {
        let cut = |mut tensor: Tensor| {
            if tensor.0.ends_with("mlp.c_proj.weight") {
                rows(&mut tensor, 16 * 4, 24);
            } else if tensor.0.ends_with("mlp.c_fc.bias") {
                rows(&mut tensor, 4, 24);
            } else if tensor.0.ends_with("mlp.c_fc.weight") {
                tensor.2[1] = 24;
                tensor.3 = tensor.3.chunks(64 * 4).flat_map(|row| &row[..24 * 4]).copied().collect();
            }
            tensor
        };
        tensors.into_iter().map(cut).collect()
    };
    Variant::new().weights(narrow).config(json!({ "n_inner": 24 })).gives("narrow MLP");
    Variant::new().in_type(Dtype::F64, |x| f64::from(x).to_le_bytes()).gives("base");
    Variant::new().in_type(Dtype::F16, |x| half::f16::from_f32(x).to_le_bytes()).gives("F16");
    Variant::new().in_type(Dtype::BF16, |x| half::bf16::from_f32(x).to_le_bytes()).gives("BF16");
    Variant::new().in_type(Dtype::I32, |x| (x as i32).to_le_bytes()).is_refused(&["type I32"]);
    let first_layer = |tensors: Vec<Tensor>| tensors.into_iter().filter(|t| !t.0.contains("h.1.")).collect();
    Variant::new().weights(first_layer).config(json!({ "n_layer": 1 })).gives("end of text, one layer");
    let pad = |mut tensors: Vec<Tensor>| {
        tensors.iter_mut().filter(|t| t.0.ends_with("wte.weight")).for_each(|t| rows(t, 16 * 4, 416));
        tensors
    };
    Variant::new().weights(pad).config(json!({ "vocab_size": 416 })).gives("padded vocabulary");
}

#[test]
fn names_that_tools_give() {
    for prefix in [
        "",
        "module.",
        "model.",
        "_orig_mod.",
        "_orig_mod.module.",
        "base_model.model.",
        "module._orig_mod.model.",
    ] {
        Variant::new().renamed(|name| format!("{prefix}{name}")).gives("base");
        let bare = |name: &str| format!("{prefix}{}", name.trim_start_matches("transformer."));
        Variant::new().renamed(bare).gives("base");
    }
    Variant::new().renamed(|name| name.replace(".attn.", "._orig_mod.attn.")).gives("base");
    let extra = |mut tensors: Vec<Tensor>| {
        tensors.push(("score.weight".into(), Dtype::F32, vec![1], vec![0; 4]));
        tensors.push(("transformer.h.0.attn.bias".into(), Dtype::U8, vec![1], vec![1]));
        tensors
    };
    Variant::new().weights(extra).gives("base");
    let lora = |name: &str| name.replace("c_attn.weight", "c_attn.base_layer.weight");
    Variant::new().renamed(lora).is_refused(&["c_attn.base_layer.weight is not part of a GPT-2"]);
}

/// With both tensors of the tied pair, they must be equal; one of them is enough, unless the config unties them.
#[test]
fn tied_heads() {
    let head = |mut tensors: Vec<Tensor>| {
        let wte = tensors.iter().find(|t| t.0.ends_with("wte.weight")).unwrap().clone();
        tensors.push(("lm_head.weight".into(), wte.1, wte.2, wte.3));
        tensors
    };
    let untied = json!({ "tie_word_embeddings": false });
    Variant::new().weights(head).gives("base");
    Variant::new().weights(head).config(untied.clone()).gives("base");
    Variant::new().config(untied.clone()).is_refused(&["lm_head.weight", "tie_word_embeddings"]);
    let head_alone = |name: &str| name.replace("transformer.wte.weight", "lm_head.weight");
    Variant::new().renamed(head_alone).gives("base");
    Variant::new().renamed(head_alone).config(untied).is_refused(&["wte.weight is missing"]);
    let differing = |tensors: Vec<Tensor>| {
        let mut tensors = head(tensors);
        tensors.last_mut().unwrap().3[5] ^= 1;
        tensors
    };
    Variant::new().weights(differing).is_refused(&["lm_head.weight differs from wte.weight"]);
    let neither =
        |tensors: Vec<Tensor>| tensors.into_iter().filter(|t| !t.0.ends_with("wte.weight")).collect();
    Variant::new().weights(neither).is_refused(&["wte.weight is missing"]);
}

#[test]
fn shards() {
    let shards = || Variant::new().shards();
    shards().gives("base");
    let (one, two) = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors");
    let missing = shards();
    missing.remove(two);
    missing.is_refused(&["model.safetensors.index.json: ", two, "missing"]);
    // A tensor that is in both shards, and one that is not where the index says.
    let twice = shards();
    std::fs::copy(twice.path().join(one), twice.path().join(two)).unwrap();
    let mut index = twice.json("model.safetensors.index.json");
    index["weight_map"] = json!({ "transformer.wte.weight": one, "transformer.h.0.ln_1.bias": two });
    twice.write("model.safetensors.index.json", &index);
    twice.is_refused(&["given twice", one]);
    let elsewhere = shards();
    let mut index = elsewhere.json("model.safetensors.index.json");
    index["weight_map"]["transformer.wte.weight"] = two.into();
    elsewhere.write("model.safetensors.index.json", &index);
    elsewhere.is_refused(&["transformer.wte.weight", two, "does not have it"]);
    for (index, says) in [
        (json!({}), "has no weight_map"),
        (json!({ "weight_map": {} }), "names no tensors"),
        (json!({ "weight_map": { "x": "../other.safetensors" } }), "the name of a file beside it"),
        (json!({ "weight_map": { "x": 3 } }), "the name of a file beside it"),
    ] {
        let broken = shards();
        broken.write("model.safetensors.index.json", &index);
        broken.is_refused(&[says]);
    }
}

/// One parameter under two names is refused, with the same line every time.
#[test]
fn parameters_that_are_given_twice() {
    let twice = |tensors: Vec<Tensor>, name: fn(&str) -> String| {
        let more = tensors.iter().map(|t| (name(&t.0), t.1, t.2.clone(), t.3.clone()));
        let more: Vec<Tensor> = more.collect();
        tensors.into_iter().chain(more).collect::<Vec<Tensor>>()
    };
    let renamings: [fn(&str) -> String; 2] =
        [|name: &str| name.replace("transformer.", ""), |name: &str| format!("module.{name}")];
    for name in renamings {
        let variant = Variant::new().weights(|tensors| twice(tensors, name));
        let lines: Vec<String> = (0..6).map(|_| variant.nll(PROMPT).unwrap_err().to_string()).collect();
        assert!(lines[0].contains("h.0.attn.c_attn.bias is given twice"), "{}", lines[0]);
        assert!(lines.iter().all(|line| *line == lines[0]));
    }
    let model = Checkpoint::<f64>::from_pretrained(golden_folder().join("score")).unwrap().model;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mask.safetensors");
    let mask = |names: [&str; 2]| {
        let tensor = |name: &str| (name.to_owned(), Dtype::U8, vec![16], vec![1; 16]);
        write_safetensors(&path, &names.map(tensor), "{}").unwrap();
        ParamMask::read(&path, model.config())
    };
    mask(["transformer.h.0.ln_1.bias", "h.1.ln_1.bias"]).unwrap();
    let why = mask(["transformer.h.0.ln_1.bias", "h.0.ln_1.bias"]).unwrap_err().to_string();
    assert!(why.contains("h.0.ln_1.bias is given twice, as h.0.ln_1.bias and as transformer."), "{why}");
}

/// Weights in other formats are named with what makes them readable; what is no file is refused before it is read.
#[test]
fn files_of_another_kind() {
    for name in ["pytorch_model.bin", "model.pth", "tf_model.h5"] {
        let other = Variant::new();
        other.remove("model.safetensors");
        std::fs::write(other.path().join(name), "weights").unwrap();
        other.is_refused(&[name, "save_pretrained"]);
    }
    let none = Variant::new();
    none.remove("model.safetensors");
    std::fs::write(none.path().join("training_args.bin"), "").unwrap();
    none.is_refused(&["model.safetensors: ", "No such file"]);
    let pointer = Variant::new();
    let text = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n";
    std::fs::write(pointer.path().join("model.safetensors"), text).unwrap();
    pointer.is_refused(&["git lfs pull"]);
    for name in ["config.json", "model.safetensors", "tokenizer.json"] {
        let folder = Variant::new();
        folder.remove(name);
        std::fs::create_dir(folder.path().join(name)).unwrap();
        folder.is_refused(&[name, "is a folder"]);
        #[cfg(unix)]
        {
            let pipe = Variant::new();
            pipe.remove(name);
            let made = std::process::Command::new("mkfifo").arg(pipe.path().join(name)).status().unwrap();
            assert!(made.success());
            pipe.is_refused(&[name, "pipe, device or socket"]);
        }
    }
    let binary = Variant::new();
    std::fs::write(binary.path().join("config.json"), [0xff, 0xfe]).unwrap();
    binary.is_refused(&["config.json: is not UTF-8"]);
}

/// What a tokenizer file has saved beside the vocabulary never acts.
#[test]
fn settings_of_tokenizers() {
    let set = |at: &'static str, value: Value| {
        Variant::new().tokenizer(move |t| *t.pointer_mut(at).expect("the field is there") = value.clone())
    };
    let truncation =
        json!({ "direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0 });
    let padding = json!({
        "strategy": { "Fixed": 16 }, "direction": "Right", "pad_to_multiple_of": null, "pad_id": 0,
        "pad_type_id": 0, "pad_token": "!",
    });
    let template = json!({
        "type": "TemplateProcessing",
        "single": [{ "SpecialToken": { "id": "<|endoftext|>", "type_id": 0 } }, { "Sequence": { "id": "A", "type_id": 0 } }],
        "pair": [{ "Sequence": { "id": "A", "type_id": 0 } }, { "Sequence": { "id": "B", "type_id": 1 } }],
        "special_tokens": { "<|endoftext|>": { "id": "<|endoftext|>", "ids": [399], "tokens": ["<|endoftext|>"] } },
    });
    for (at, value) in [
        ("/truncation", truncation),
        ("/padding", padding),
        ("/post_processor", template),
        ("/pre_tokenizer/add_prefix_space", true.into()),
        ("/model/dropout", json!(0.9)),
        ("/model/dropout", json!(1.0)),
    ] {
        let variant = set(at, value);
        variant.gives("base");
        variant.gives("end of text");
    }
    // Absent from the file, `<|endoftext|>` is known from the vocabulary.
    set("/added_tokens", json!([])).gives("end of text");
}

/// More tokens than the model has: only a text that has such a token is refused.
#[test]
fn tokenizers_with_more_tokens_than_the_model() {
    let added = |t: &mut Value| {
        let pad = json!({
            "id": 400, "content": "[PAD]", "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true,
        });
        t["added_tokens"].as_array_mut().unwrap().push(pad);
    };
    let variant = Variant::new().tokenizer(added);
    variant.gives("base");
    let why = variant.nll("The [PAD] of France").unwrap_err().to_string();
    assert!(why.contains("[PAD]") && why.contains("400"), "{why}");
}

#[test]
fn vocabulary_and_merges() {
    let variant = Variant::new().vocab_and_merges();
    variant.gives("base");
    variant.gives("end of text");
    // Tokens that files beside the vocabulary add.
    variant.write("added_tokens.json", &json!({ "[PAD]": 400 }));
    variant.write(
        "special_tokens_map.json",
        &json!({ "eos_token": { "content": "<|endoftext|>" }, "sep_token": "[SEP]" }),
    );
    variant.gives("end of text");
    let tokenizer = Tokenizer::read(variant.path()).unwrap();
    assert_eq!(tokenizer.encode("[PAD][SEP]").unwrap(), [400, 401]);
    variant.write("added_tokens.json", &json!({ "[PAD]": 405 }));
    variant.is_refused(&["added_tokens.json: ", "[PAD]", "405"]);
    variant.remove("added_tokens.json");
    let decoder = json!({ "added_tokens_decoder": { "400": { "content": "[MASK]", "lstrip": false } } });
    variant.write("tokenizer_config.json", &decoder);
    assert_eq!(Tokenizer::read(variant.path()).unwrap().encode("[MASK]").unwrap(), [400]);

    let broken = Variant::new().vocab_and_merges();
    std::fs::write(broken.path().join("merges.txt"), "#version: 0.2\nh e\nq zzz\n").unwrap();
    broken.is_refused(&["merges.txt: line 3"]);
    broken.write("vocab.json", &json!(["a"]));
    broken.is_refused(&["vocab.json: not a vocabulary"]);
}

/// Which of two tokens an id stands for would be drawn at random.
#[test]
fn tokens_that_share_an_id() {
    let share = |vocab: &mut Value| {
        let id = vocab["h"].clone();
        vocab["e"] = id;
    };
    let variant = Variant::new().tokenizer(|t| share(&mut t["model"]["vocab"]));
    let lines: Vec<String> = (0..6).map(|_| variant.nll(PROMPT).unwrap_err().to_string()).collect();
    assert!(lines[0].contains(r#"tokenizer.json: the tokens "e" and "h" have one id"#), "{}", lines[0]);
    assert!(lines.iter().all(|line| *line == lines[0]));
    let variant = Variant::new().vocab_and_merges();
    let mut vocab = variant.json("vocab.json");
    share(&mut vocab);
    variant.write("vocab.json", &vocab);
    variant.is_refused(&[r#"vocab.json: the tokens "e" and "h" have one id"#]);
}

/// Offsets that are each in range and together beyond what a number holds.
#[test]
fn lengths_that_overflow() {
    let variant = Variant::new();
    let tensor = |number: u64| {
        let range = [number << 61, (number + 1).checked_shl(61).filter(|_| number < 7).unwrap_or(u64::MAX)];
        json!({ "dtype": "U8", "shape": [range[1] - range[0]], "data_offsets": range })
    };
    let header: serde_json::Map<String, Value> = (0..8).map(|i| (format!("t{i}"), tensor(i))).collect();
    let header = Value::Object(header).to_string();
    let bytes = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes()].concat();
    std::fs::write(variant.path().join("model.safetensors"), bytes).unwrap();
    variant.is_refused(&["model.safetensors: not a complete safetensors file"]);
}

/// A library that panics becomes an error of one line.
#[test]
fn hostile_tokenizers() {
    let slow = json!({ "type": "Split", "pattern": { "Regex": "(a|a)*$" }, "behavior": "Isolated", "invert": false });
    let variant = Variant::new().tokenizer(move |t| t["pre_tokenizer"] = slow.clone());
    let why = variant.nll(&("a".repeat(40) + "b")).unwrap_err().to_string();
    assert!(why.contains("cannot be tokenised") && !why.contains('\n'), "{why}");
    for garbage in ["AAAA", "////////", "AgAAAAAAAAA="] {
        let normalizer = json!({ "type": "Precompiled", "precompiled_charsmap": garbage });
        let variant = Variant::new().tokenizer(move |t| t["normalizer"] = normalizer.clone());
        if let Err(why) = variant.nll(PROMPT) {
            assert!(!why.to_string().contains('\n'), "{why}");
        }
    }
}

/// A text that cannot fit is refused before it is tokenised, and cut in the message.
#[test]
fn texts_that_cannot_fit() {
    let variant = Variant::new();
    let checkpoint = Checkpoint::<f32>::from_pretrained(variant.path()).unwrap();
    let why = checkpoint.tokenizer.encode_some("prompt", &"word ".repeat(1 << 20)).unwrap_err().to_string();
    assert!(why.contains("prompt") && why.contains("at most 64") && why.len() < 400, "{why}");
    assert!(checkpoint.tokenizer.locate(&"word ".repeat(1 << 20), 0..4).is_err());
    assert!(checkpoint.tokenizer.encode_some("prompt", &"word ".repeat(12)).is_ok());
    // Of a long line that is cut anyway, no more is tokenised than is used: the rest takes no time.
    let begin = std::time::Instant::now();
    let long = "word ".repeat(1 << 22);
    let start = checkpoint.tokenizer.encode_start(&long, 64).unwrap();
    assert_eq!(start, checkpoint.tokenizer.encode(&long[..600]).unwrap()[..64]);
    assert!(begin.elapsed() < std::time::Duration::from_secs(10), "{:?}", begin.elapsed());
}

/// Control characters of names are written out.
#[test]
fn names_with_control_characters() {
    let variant = Variant::new().renamed(|name| name.replace("ln_f", "\u{1b}[31mln_f"));
    variant.is_refused(&["\\u{1b}[31mln_f"]);
}

/// A mask that states its model's hash is for that model, in either number type.
#[test]
fn masks_of_other_weights() {
    let variant = Variant::new();
    let single = Checkpoint::<f32>::from_pretrained(variant.path()).unwrap().model;
    let double = Checkpoint::<f64>::from_pretrained(variant.path()).unwrap().model;
    let path = variant.path().join("mask.safetensors");
    let mask = ParamMask::full(single.config());
    for sha256 in [single.sha256(), double.sha256()] {
        mask.write(&path, &json!({ "model_sha256": sha256 }).to_string()).unwrap();
        assert_eq!(ParamMask::read_for(&path, &single).unwrap(), mask);
        assert_eq!(ParamMask::read_for(&path, &double).unwrap(), mask);
    }
    mask.write(&path, "free text").unwrap();
    ParamMask::read_for(&path, &single).unwrap();
    mask.write(&path, &json!({ "model_sha256": "0".repeat(64) }).to_string()).unwrap();
    let why = ParamMask::read_for(&path, &single).unwrap_err().to_string();
    assert!(why.contains("mask.safetensors") && why.contains(&single.sha256()), "{why}");
}
