//! `locus patch`: what it writes differs from the model's folder in weights alone, and it overwrites nothing.

use std::path::Path;

use locus_editors::Patch;
use locus_gpt2::{BlockParam, Checkpoint, Gpt2, ParamId, Scalar, read_safetensors, write_safetensors};
use serde_json::json;

use crate::support::{Run, Sandbox, files_below, fixture};

/// Name, type, shape and bytes.
type Tensor = (String, safetensors::Dtype, Vec<usize>, Vec<u8>);

fn tensors(path: &Path) -> Vec<Tensor> {
    read_safetensors(path, |tensors, _| {
        let mut all: Vec<Tensor> = tensors
            .iter()
            .map(|(name, view)| (name.into(), view.dtype(), view.shape().to_vec(), view.data().to_vec()))
            .collect();
        all.sort();
        Ok(all)
    })
    .unwrap()
}

const CHANGED: ParamId = ParamId::Block(1, BlockParam::MlpOutWeight);

fn edited<F: Scalar>(base: &Gpt2<F>) -> Gpt2<F> {
    let mut edited = base.clone();
    edited.get_mut(CHANGED).iter_mut().step_by(3).for_each(|w| *w += F::from_f64(0.37));
    edited
}

/// The golden checkpoint under `model`, with a patch of one of its matrices.
fn sandbox() -> Sandbox {
    let sandbox = Sandbox::empty();
    for file in ["config.json", "model.safetensors", "tokenizer.json"] {
        sandbox.copy(&fixture("golden/score").join(file), &format!("model/{file}"));
    }
    sandbox
}

fn put_patch<F: Scalar>(sandbox: &Sandbox, name: &str) -> Gpt2<F> {
    let base = Checkpoint::<F>::from_pretrained(sandbox.path("model")).unwrap().model;
    let edited = edited(&base);
    let patch = Patch::between(&base, &edited);
    patch.write(&sandbox.path(name), base.config(), &json!("a test")).unwrap();
    edited
}

fn apply(sandbox: &Sandbox, rest: &str) -> Run {
    sandbox.locus(&format!("patch apply p.safetensors --model model --quiet {rest}"))
}

#[track_caller]
fn refused(run: &Run, part: &str) {
    assert_eq!((run.code, run.stdout.as_str()), (Some(2), ""), "{run:?}");
    assert!(run.stderr.contains(part) && run.stderr.lines().count() == 1, "{part:?}: {run:?}");
}

#[test]
fn the_folder_differs_in_weights_alone() {
    let sandbox = sandbox();
    let edited = put_patch::<f32>(&sandbox, "p.safetensors");
    for name in ["special_tokens_map.json", "generation_config.json", "notes.txt"] {
        sandbox.write(&format!("model/{name}"), "{}");
    }
    std::fs::create_dir(sandbox.path("model/data")).unwrap();
    sandbox.write("model/data/rows.csv", "a,b\n");
    sandbox.write("model/pytorch_model.bin", "weights that are out of date");
    apply(&sandbox, "--out deep/out").done();
    let names = |folder: &str| -> Vec<_> {
        let files = files_below(&sandbox.path(folder)).into_iter();
        files.map(|(path, _)| path.strip_prefix(sandbox.path(folder)).unwrap().to_owned()).collect()
    };
    let expected: Vec<_> =
        names("model").into_iter().filter(|name| !name.ends_with("pytorch_model.bin")).collect();
    assert_eq!(names("deep/out"), expected);
    for name in expected.iter().map(|name| name.to_str().unwrap()).filter(|name| *name != "model.safetensors")
    {
        assert_eq!(
            sandbox.read(&format!("deep/out/{name}")),
            sandbox.read(&format!("model/{name}")),
            "{name}"
        );
    }
    assert_eq!(std::fs::read_dir(sandbox.path("deep")).unwrap().count(), 1, "nothing is left beside it");
    let result = Checkpoint::<f32>::from_pretrained(sandbox.path("deep/out")).unwrap().model;
    assert_eq!(result.sha256(), edited.sha256());
    // Metadata of the base stays, and equal inputs give equal bytes.
    let bytes = std::fs::read(sandbox.path("deep/out/model.safetensors")).unwrap();
    assert!(String::from_utf8_lossy(&bytes[..200]).contains("\"format\":\"pt\""));
    apply(&sandbox, "--out again").done();
    assert_eq!(std::fs::read(sandbox.path("again/model.safetensors")).unwrap(), bytes);
}

/// Names, shards and types of the base stay; in BF16 and F64, what did not change keeps its bytes.
#[test]
fn names_and_types_of_the_base_stay() {
    let types: [(safetensors::Dtype, fn(f32) -> Vec<u8>); 2] = [
        (safetensors::Dtype::BF16, |x| x.to_le_bytes()[2..].to_vec()),
        // Not a number that single precision has.
        (safetensors::Dtype::F64, |x| (f64::from(x) * (1.0 + 1e-12)).to_le_bytes().to_vec()),
    ];
    for (dtype, convert) in types {
        let sandbox = sandbox();
        let path = sandbox.path("model/model.safetensors");
        let given = tensors(&path).into_iter().map(|(name, _, shape, bytes)| {
            let numbers = bytes.as_chunks::<4>().0.iter().map(|&b| f32::from_le_bytes(b));
            (name.replace("transformer.", "module."), dtype, shape, numbers.flat_map(convert).collect())
        });
        let (first, second): (Vec<Tensor>, Vec<Tensor>) = given.partition(|(name, ..)| name.contains("h.0."));
        let mut map = json!({});
        for (file, shard) in [("a.safetensors", &first), ("b.safetensors", &second)] {
            shard.iter().for_each(|(name, ..)| map[name] = file.into());
            write_safetensors(&sandbox.path("model").join(file), shard, "{}").unwrap();
        }
        sandbox.write("model/model.safetensors.index.json", json!({ "weight_map": map }).to_string());
        std::fs::remove_file(&path).unwrap();
        let edited = put_patch::<f32>(&sandbox, "p.safetensors");
        let run = apply(&sandbox, "--out out");
        assert_eq!(run.stderr.contains("rounded"), dtype == safetensors::Dtype::BF16, "{run:?}");
        run.done();
        assert!(!sandbox.path("out/model.safetensors").exists());
        assert_eq!(tensors(&sandbox.path("out/a.safetensors")), first);
        for (before, after) in second.iter().zip(tensors(&sandbox.path("out/b.safetensors"))) {
            if before.0 != format!("module.{CHANGED}") {
                assert_eq!(*before, after);
                continue;
            }
            assert_eq!((&before.0, before.1, &before.2), (&after.0, after.1, &after.2));
            let size = before.3.len() / edited.get(CHANGED).len();
            let numbers = before.3.chunks(size).zip(after.3.chunks(size));
            for (i, (before, after)) in numbers.enumerate() {
                assert_eq!(before == after, i % 3 != 0, "number {i}");
            }
        }
        let result = Checkpoint::<f32>::from_pretrained(sandbox.path("out")).unwrap().model;
        for (a, b) in result.get(CHANGED).iter().zip(edited.get(CHANGED)) {
            assert!((a - b).abs() <= 0.004 * b.abs(), "{a} and {b}");
        }
    }
}

#[test]
fn the_model_is_never_overwritten() {
    let sandbox = sandbox();
    put_patch::<f32>(&sandbox, "p.safetensors");
    #[cfg(unix)]
    std::os::unix::fs::symlink(sandbox.path("model"), sandbox.path("link")).unwrap();
    sandbox.write("file", "");
    let before = sandbox.files();
    for out in ["model", "./model/", "link", "model/inside", "link/in/side", ".", "x/../model"] {
        for force in ["", "--force"] {
            refused(&apply(&sandbox, &format!("--out {out} {force}")), "would overwrite the model");
        }
    }
    refused(&apply(&sandbox, "--out file"), "is a file");
    refused(&apply(&sandbox, ""), "--out");
    refused(&sandbox.locus("patch merge p.safetensors --model model --quiet"), "--out");
    assert_eq!(sandbox.files(), before);

    // Another model is replaced only if told so, and leaves nothing behind that belongs to it.
    sandbox.copy(&fixture("golden/score/config.json"), "other/config.json");
    sandbox.write("other/merges.txt", "");
    sandbox.write("other/mine.txt", "kept");
    refused(&apply(&sandbox, "--out other"), "--force");
    assert!(!sandbox.path("other/model.safetensors").exists());
    apply(&sandbox, "--out other --force").done();
    Checkpoint::<f32>::from_pretrained(sandbox.path("other")).unwrap();
    assert!(!sandbox.path("other/merges.txt").exists());
    assert_eq!(sandbox.read("other/mine.txt"), "kept");
}

/// Files of other things in a folder are not replaced by those of the model that have their names, and patches never.
#[test]
fn files_of_a_folder_are_not_replaced_unasked() {
    let sandbox = sandbox();
    put_patch::<f32>(&sandbox, "p.safetensors");
    std::fs::create_dir_all(sandbox.path("model/notes")).unwrap();
    std::fs::create_dir_all(sandbox.path("out/notes")).unwrap();
    sandbox.write("model/notes/a.txt", "the model's");
    sandbox.write("out/notes/a.txt", "mine");
    refused(&apply(&sandbox, "--out out"), "out/notes/a.txt; expected another folder, or --force");
    assert_eq!(sandbox.read("out/notes/a.txt"), "mine");
    apply(&sandbox, "--out out --force").done();
    assert_eq!(sandbox.read("out/notes/a.txt"), "the model's");

    for name in ["notes/a.txt", "model.safetensors"] {
        std::fs::create_dir_all(sandbox.path("patches/notes")).unwrap();
        sandbox.copy(&sandbox.path("p.safetensors"), &format!("patches/{name}"));
        let before = sandbox.files();
        let line = format!("patch apply patches/{name} --model model --out patches --force --quiet");
        refused(&sandbox.locus(&line), "would overwrite the patch");
        assert_eq!(sandbox.files(), before);
        sandbox.remove(&format!("patches/{name}"));
    }
}

/// A full disk is no fault of the input, and leaves nothing behind.
#[test]
#[cfg(unix)]
fn a_folder_that_does_not_fit_is_a_failed_run() {
    let sandbox = sandbox();
    put_patch::<f32>(&sandbox, "p.safetensors");
    let before = sandbox.files();
    let line = format!(
        "ulimit -f 8; exec {} patch apply p.safetensors --model model --out out --quiet",
        env!("CARGO_BIN_EXE_locus")
    );
    let output = std::process::Command::new("sh").args(["-c", &line]).current_dir(sandbox.path("")).output();
    let output = output.unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), stderr.lines().count()), (Some(1), 1), "{stderr}");
    assert!(stderr.contains("locus: out/") && stderr.contains("File too large"), "{stderr}");
    assert_eq!(sandbox.files(), before);
}

/// A patch that does not belong to the model, or is none, leaves nothing at --out.
#[test]
fn patches_that_do_not_fit() {
    let sandbox = sandbox();
    put_patch::<f64>(&sandbox, "p.safetensors");
    refused(&apply(&sandbox, "--out out"), "expected --dtype f64");
    apply(&sandbox, "--out wide --dtype f64").done();
    let sha256 = "0".repeat(63) + "\u{1b}";
    let tensor = |name: &str| (name.to_owned(), safetensors::Dtype::F32, vec![16], vec![0; 64]);
    let put = |names: &[&str]| {
        let tensors: Vec<_> = names.iter().map(|name| tensor(name)).collect();
        let metadata = json!({ "base_sha256": sha256 }).to_string();
        write_safetensors(&sandbox.path("p.safetensors"), &tensors, &metadata).unwrap();
    };
    put(&["ln_f.bias.delta"]);
    refused(&apply(&sandbox, "--out out"), "\\u{1b}; this one has");
    let listed = sandbox.locus("patch list p.safetensors --model model --quiet").done();
    assert!(listed.contains("\\u{1b}") && !listed.contains('\u{1b}'), "{listed:?}");
    put(&["ln_f.bias.delta", "transformer.ln_f.bias.delta"]);
    refused(&apply(&sandbox, "--out out"), "ln_f.bias.delta is given twice");
    assert!(!sandbox.path("out").exists());
}
