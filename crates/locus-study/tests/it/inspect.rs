//! `locus inspect`: its three forms say the same, a patch shows to the right, and its refusals. The numbers are tested
//! against an independent script in locus-protocol.

use locus_editors::Patch;
use locus_gpt2::{Checkpoint, ParamId};
use serde_json::Value;

use crate::support::{Sandbox, assert_near, locus};

const PROMPT: &str = "A rose is a kind of";

fn run(sandbox: &Sandbox, options: &[&str]) -> String {
    locus(&sandbox.path(""), &[&["inspect", PROMPT, "--model", "model"][..], options].concat(), "").done()
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

/// Probabilities are those of the library, parts sum to the difference, weights to one, in the file as on stdout.
#[test]
fn json_holds_the_whole_inspection() {
    let sandbox = Sandbox::new();
    let options =
        ["--dtype", "f64", "--target", " flower", "--against", " tree", "--heads", "1.0,0.1", "--top", "3"];
    let printed = run(&sandbox, &[&options[..], &["--json", "--out", "x.json"][..]].concat());
    assert_eq!(printed, sandbox.read("x.json"));
    let (found, checkpoint) =
        (json(&printed), Checkpoint::<f64>::from_pretrained(sandbox.path("model")).unwrap());
    let before = &found["before"];
    for (candidate, expected) in
        before["next"].as_array().unwrap().iter().zip(checkpoint.top_k(PROMPT, 3).unwrap())
    {
        assert_eq!(candidate["text"], expected.text);
        assert_near("probability", candidate["probability"].as_f64().unwrap(), expected.probability, 1e-9);
    }
    let parts = before["attribution"].as_array().unwrap();
    let sum: f64 = parts.iter().map(|part| part["value"].as_f64().unwrap()).sum();
    let difference = before["logit_difference"].as_f64().unwrap();
    assert_near("sum of parts", sum, difference, 1e-9);
    let logit = |side: &str| before[side]["logit"].as_f64().unwrap();
    assert_near("difference", logit("target") - logit("against"), difference, 1e-9);
    let last = before["lens"].as_array().unwrap().last().unwrap();
    assert_near("last layer", last["logit_difference"].as_f64().unwrap(), difference, 1e-9);
    let heads: Vec<(u64, u64)> = before["attention"]
        .as_array()
        .unwrap()
        .iter()
        .map(|head| (head["layer"].as_u64().unwrap(), head["head"].as_u64().unwrap()))
        .collect();
    assert_eq!(heads, [(1, 0), (0, 1)]);
    for row in before["attention"][0]["weights"].as_array().unwrap() {
        let sum: f64 = row.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).sum();
        assert_near("weights of a query", sum, 1.0, 1e-9);
    }
    assert_eq!(found["provenance"]["model_sha256"], checkpoint.model.sha256());
    assert!(found["after"].is_null());
}

/// A patch of the final LayerNorm's bias: the right side is the patched model's, and nothing else moves.
#[test]
fn a_patch_stands_to_the_right() {
    let sandbox = Sandbox::new();
    let Checkpoint { model, .. } = Checkpoint::<f32>::from_pretrained(sandbox.path("model")).unwrap();
    let mut edited = model.clone();
    edited.get_mut(ParamId::FinalNormBias).iter_mut().for_each(|x| *x += 0.5);
    let patch = Patch::between(&model, &edited);
    patch.write(&sandbox.path("patch.safetensors"), model.config(), &Value::Null).unwrap();
    let options = ["--patch", "patch.safetensors", "--out", "x.html", "--json"];
    let found = json(&run(&sandbox, &options));
    let (before, after) = (&found["before"], &found["after"]);
    assert_eq!(before["target"]["id"], after["target"]["id"]);
    assert_eq!(before["attention"], after["attention"]);
    let parts = |side: &Value| side["attribution"].as_array().unwrap().clone();
    for (a, b) in parts(before).iter().zip(parts(after)) {
        assert_eq!(*a == b, a["kind"] != "final-norm-bias", "{a}, {b}");
    }
    assert_eq!(found["provenance"]["patches"][0][0], "patch.safetensors");
    let page = sandbox.read("x.html");
    assert!(page.contains("With the patch") && page.contains("</html>"), "{page}");
    assert!(page.contains(found["provenance"]["patches"][0][1].as_str().unwrap()));
    for side in [before, after] {
        let probability = side["next"][0]["probability"].as_f64().unwrap();
        assert!(page.contains(&format!("{probability:.4}")), "{probability}");
    }
    let printed = run(&sandbox, &options[..2]);
    for part in ["right: with the patch", "Logit lens", "MLP 1", "final LayerNorm's bias", "sum"] {
        assert!(printed.contains(part), "{part}: {printed}");
    }
    // A patch belongs to one model.
    let applied =
        ["inspect", "x", "--model", "model", "--patch", "patch.safetensors", "--patch", "patch.safetensors"];
    let twice = locus(&sandbox.path(""), &applied, "");
    assert_eq!(twice.code, Some(2), "{twice:?}");
    assert!(twice.stderr.contains("SHA-256"), "{twice:?}");
}

#[test]
fn longer_targets_are_looked_at_by_their_first_token() {
    let sandbox = Sandbox::new();
    let args = ["inspect", PROMPT, "--model", "model", "--target", " flower flower", "--json"];
    let run = locus(&sandbox.path(""), &args, "");
    assert!(run.stderr.contains("the first, "), "{run:?}");
    let one = locus(
        &sandbox.path(""),
        &["inspect", PROMPT, "--model", "model", "--target", " flower", "--json"],
        "",
    );
    assert_eq!(run.done(), one.done());
}

#[test]
fn what_cannot_be_looked_at_is_refused() {
    let sandbox = Sandbox::new();
    sandbox.write("x.html", "kept");
    for (options, says) in [
        (vec!["--heads", "2.0"], "\"2.0\" is no head of the model; expected LAYER.HEAD from 0.0 to 1.1"),
        (vec!["--heads", "a"], "\"a\" is no head"),
        (vec!["--out", "x.png"], "ends in .html or .json"),
        (vec!["--top", "0"], "--top is 0"),
        (vec!["--target", ""], "tokenises to nothing"),
        (vec!["--patch", "nowhere", "--out", "x.html"], "nowhere"),
        (vec!["--patch", "x.html", "--out", "x.html"], "is an input of this run"),
    ] {
        let args = [vec!["inspect", PROMPT, "--model", "model"], options].concat();
        let run = locus(&sandbox.path(""), &args, "");
        assert_eq!((run.code, run.stdout.as_str()), (Some(2), ""), "{args:?}: {run:?}");
        assert!(run.stderr.contains(says), "{args:?}: {run:?}");
    }
    assert_eq!(sandbox.read("x.html"), "kept");
}
