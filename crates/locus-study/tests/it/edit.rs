//! `locus edit`: what it prints, what its patches hold, and where it leaves the weights alone.

use locus_editors::{ClampedSgd, Patch};
use locus_gpt2::{Checkpoint, Gpt2, ParamId, ParamMask, Scalar};
use serde::Deserialize;

use crate::support::{Sandbox, assert_near, half_mask, nll_by_hand, tiny_config, tiny_requests};

#[derive(Debug, Deserialize, PartialEq)]
struct Outcome {
    case_id: u64,
    prompt: String,
    subject: String,
    target_new: String,
    target_true: String,
    answer: [String; 2],
    pre_new: f64,
    pre_true: f64,
    post_new: f64,
    post_true: f64,
    p_new: [f64; 2],
    p_true: [f64; 2],
    flipped: bool,
    steps: usize,
    failed: bool,
}

fn outcomes(text: &str) -> Vec<Outcome> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

const EDIT: &str = "edit --editor study-ft --model model --requests requests.json --json";
const CIRCUIT: &str = "--mask mask.safetensors --scope circuit";

/// NLL of the new and of the true target of the `i`-th request: prompt, blank, target, tokenised separately.
fn nlls<F: Scalar>(checkpoint: &Checkpoint<F>, model: &Gpt2<F>, i: usize) -> [f64; 2] {
    let request = &tiny_requests()[i];
    let encode = |text: &str| checkpoint.tokenizer.encode(text).unwrap();
    let prompt = encode(&format!("{} is a kind of", request.subject));
    let target_true = request.target_true.as_ref().expect("all of them have one");
    [&request.target_new, target_true]
        .map(|target| nll_by_hand(model, &prompt, &encode(&format!(" {target}"))))
}

/// Indices of the scalars that a patch changes in a tensor.
fn changed<F: Scalar>(patch: &Patch<F>, id: ParamId) -> Vec<usize> {
    let deltas =
        patch.deltas().find(|(other, _)| *other == id).map_or(Vec::new(), |(_, delta)| delta.to_dense());
    (0..deltas.len()).filter(|&i| deltas[i] != F::zero()).collect()
}

/// Scalars of blocks that a patch changes inside and outside a mask.
fn changed_inside_and_outside<F: Scalar>(patch: &Patch<F>, mask: &ParamMask) -> (usize, usize) {
    let counts = mask.tensors().map(|(id, inside)| {
        let changed = changed(patch, id);
        let inside = changed.iter().filter(|&&i| inside.contains(i)).count();
        (inside, changed.len() - inside)
    });
    counts.fold((0, 0), |(a, b), (inside, outside)| (a + inside, b + outside))
}

/// Every request edited in the isolated circuit, and every patch checked against what was printed.
fn check_isolated_circuit<F: Scalar>(dtype: &str, tolerance: f64) {
    let sandbox = Sandbox::new();
    let line = format!("{EDIT} {CIRCUIT} --isolate --dtype {dtype} --out patches");
    let printed = outcomes(&sandbox.locus(&line).done());
    assert_eq!(printed.len(), 3);

    let checkpoint = Checkpoint::<F>::from_pretrained(sandbox.path("model")).unwrap();
    let mask = half_mask(&tiny_config());
    let start = mask.ablate_complement(&checkpoint.model);
    for (i, (outcome, request)) in printed.iter().zip(tiny_requests()).enumerate() {
        assert_eq!(outcome.case_id, request.case_id);
        assert!((1..=10).contains(&outcome.steps), "{outcome:?}");
        let path = sandbox.path(&format!("patches/{}.safetensors", outcome.case_id));
        let patch = Patch::<F>::read(&path, &tiny_config()).unwrap();
        assert!(patch.apply(&checkpoint.model).is_err(), "the base is the isolated model");
        let edited = patch.apply(&start).unwrap();

        let pre = nlls(&checkpoint, &start, i);
        let post = nlls(&checkpoint, &edited, i);
        assert_near("pre_new", outcome.pre_new, pre[0], tolerance);
        assert_near("pre_true", outcome.pre_true, pre[1], tolerance);
        assert_near("post_new", outcome.post_new, post[0], tolerance);
        assert_near("post_true", outcome.post_true, post[1], tolerance);
        // The edit moves the NLL by more than the tolerance, or the lines above would say nothing about it.
        assert!(outcome.pre_new - outcome.post_new > 3.0 * tolerance * outcome.pre_new, "{outcome:?}");

        let (inside, outside) = changed_inside_and_outside(&patch, &mask);
        assert!(inside > 1000, "{inside} scalars of the circuit have changed");
        assert_eq!(outside, 0, "scalars outside the circuit have changed");
        assert!(!changed(&patch, ParamId::TokenEmbedding).is_empty(), "embeddings move too");
    }
}

#[test]
fn a_patch_is_what_was_printed() {
    check_isolated_circuit::<f64>("f64", 1e-9);
}

#[test]
fn a_patch_is_what_was_printed_in_single_precision() {
    check_isolated_circuit::<f32>("f32", 1e-5);
}

/// Leaves the first request alone in the file.
fn keep_one_request(sandbox: &Sandbox) {
    locus_data::requests::write(sandbox.path("requests.json"), &tiny_requests()[..1]).unwrap();
}

#[test]
fn a_single_request_gives_one_file() {
    let sandbox = Sandbox::new();
    let many = outcomes(&sandbox.locus(&format!("{EDIT} {CIRCUIT} --isolate --dtype f64")).done());
    keep_one_request(&sandbox);
    let line = format!("{EDIT} {CIRCUIT} --isolate --dtype f64 --out deep/down/patch.safetensors");
    let printed = outcomes(&sandbox.locus(&line).done());
    assert_eq!(printed, many[..1], "requests are edited on their own");

    let checkpoint = Checkpoint::<f64>::from_pretrained(sandbox.path("model")).unwrap();
    let start = half_mask(&tiny_config()).ablate_complement(&checkpoint.model);
    let patch = Patch::<f64>::read(&sandbox.path("deep/down/patch.safetensors"), &tiny_config()).unwrap();
    assert_eq!(patch.base_sha256(), start.sha256());
    let edited = patch.apply(&start).unwrap();
    assert_near("post_new", printed[0].post_new, nlls(&checkpoint, &edited, 0)[0], 1e-9);
}

#[test]
fn scopes_say_what_may_change() {
    let sandbox = Sandbox::new();
    keep_one_request(&sandbox);
    let (config, mask) = (tiny_config(), half_mask(&tiny_config()));
    let model = Checkpoint::<f64>::from_pretrained(sandbox.path("model")).unwrap().model;
    let edit = |name: &str, options: &str| {
        sandbox.locus(&format!("{EDIT} --dtype f64 --out {name} {options}")).done();
        let patch = Patch::<f64>::read(&sandbox.path(name), &config).unwrap();
        let (inside, outside) = changed_inside_and_outside(&patch, &mask);
        (patch, inside, outside)
    };

    let (patch, inside, outside) = edit("circuit", CIRCUIT);
    assert_eq!(patch.base_sha256(), model.sha256(), "without --isolate the start is the intact model");
    assert!(inside > 1000 && outside == 0, "{inside} {outside}");

    let (patch, inside, outside) = edit("complement", "--mask mask.safetensors --scope complement --isolate");
    assert_eq!(patch.base_sha256(), mask.complement().ablate_complement(&model).sha256());
    assert!(inside == 0 && outside > 1000, "{inside} {outside}");

    let (patch, inside, outside) = edit("full", "");
    assert_eq!(patch.base_sha256(), model.sha256());
    assert!(inside > 1000 && outside > 1000, "{inside} {outside}");

    let random = "--mask mask.safetensors --scope random";
    let (first, inside, outside) = edit("random", random);
    assert!(inside > 300 && outside > 300, "a random scope is neither the circuit nor its complement");
    assert!(inside + outside <= mask.count(), "{inside} {outside}");
    assert_eq!(first, edit("again", random).0);
    assert_ne!(first, edit("other", &format!("{random} --seed 2")).0);
}

/// Printed constants are the defaults, are read back, and are what is used.
#[test]
fn constants_are_printed_and_read() {
    let sandbox = Sandbox::new();
    let print = "edit --editor study-ft --print-config";
    let text = sandbox.locus(print).done();
    assert_eq!(toml::from_str::<ClampedSgd>(&text).unwrap(), ClampedSgd::default());
    sandbox.write("printed.toml", &text);
    assert_eq!(sandbox.locus(&format!("{print} --config printed.toml")).done(), text);

    let default = sandbox.locus(EDIT).done();
    assert_eq!(sandbox.locus(&format!("{EDIT} --config printed.toml")).done(), default);
    assert!(outcomes(&default).iter().all(|outcome| outcome.steps == 10), "{default}");

    let fewer = sandbox.locus(&format!("{EDIT} --config editor.toml")).done();
    assert!(outcomes(&fewer).iter().all(|outcome| outcome.steps == 2), "{fewer}");
    sandbox.write("editor.json", "{\"max_steps\": 2}");
    assert_eq!(sandbox.locus(&format!("{EDIT} --config editor.json")).done(), fewer);
    assert!(sandbox.locus(&format!("{print} --config editor.json")).done().contains("max_steps = 2"));
}

#[test]
fn the_table_holds_the_same_numbers_and_threads_do_not_show() {
    let sandbox = Sandbox::new();
    let json = sandbox.locus(&format!("{EDIT} --threads 1")).done();
    assert_eq!(json, sandbox.locus(&format!("{EDIT} --threads 2")).done());

    let table = sandbox.locus(EDIT.strip_suffix(" --json").unwrap()).done();
    let rows: Vec<&str> = table.lines().collect();
    let outcomes = outcomes(&json);
    assert_eq!(rows.len(), outcomes.len() + 2, "a head, the rows and the scores: {table}");
    for (row, (o, request)) in rows[1..].iter().zip(outcomes.iter().zip(tiny_requests())) {
        assert_eq!((&o.prompt, &o.target_new), (&request.full_prompt(), &request.target_new));
        for text in [&o.prompt, &format!("{} ", o.target_true), &format!("{} ", o.target_new)] {
            assert!(row.contains(text.as_str()), "{text}: {row}");
        }
        let [new, old] =
            [[o.pre_new, o.post_new], [o.pre_true, o.post_true]].map(|nll| nll.map(|x| (-x).exp()));
        assert_eq!((o.p_new, o.p_true), (new, old));
        assert_eq!(o.flipped, new[0] <= old[0] && new[1] > old[1], "{o:?}");
        assert_eq!(row.contains("  flipped"), o.flipped, "{row}");
    }
    let won = outcomes.iter().filter(|o| o.p_new[1] > o.p_true[1]).count();
    assert_eq!(rows[4], format!("ES {:.1}", 100.0 * won as f64 / 3.0));
}

/// Paraphrases and neighbours of the file, and the files that were written.
#[test]
fn further_prompts_and_files_are_told() {
    let sandbox = Sandbox::new();
    let mut requests = tiny_requests();
    requests[0].paraphrase_prompts = vec!["A monarch is a type of".into(), "A monarch belongs to".into()];
    requests[0].neighborhood_prompts = vec!["A swallowtail is a kind of".into()];
    locus_data::requests::write(sandbox.path("requests.json"), &requests).unwrap();
    let json = sandbox.locus(&format!("{EDIT} --out patches")).done();
    let first: serde_json::Value = serde_json::from_str(json.lines().next().unwrap()).unwrap();
    assert_eq!(first["file"], "patches/4.safetensors");
    let asked = first["paraphrases"].as_array().unwrap();
    assert_eq!(asked.len(), 2);
    assert_eq!(asked[1]["prompt"], "A monarch belongs to");
    let kept = &first["neighbours"][0];
    let after = |name: &str| kept[name][1].as_f64().unwrap();
    assert_eq!(kept["right"], after("p_true") > after("p_new"), "{kept}");
    let table = sandbox.locus(&format!("{} --out patches", EDIT.strip_suffix(" --json").unwrap())).done();
    let right = asked.iter().filter(|asked| asked["right"] == true).count();
    let row = table.lines().nth(1).unwrap();
    let ending = format!("  {right}/2          {}/1", u8::from(kept["right"] == true));
    assert!(row.ends_with(&ending), "{row:?} {ending:?}");
    assert!(table.ends_with("wrote 3 patches to patches\n"), "{table}");
    // A prompt that does not fit is said and left out; the request is edited.
    requests[0].paraphrase_prompts.push("word ".repeat(200));
    locus_data::requests::write(sandbox.path("requests.json"), &requests).unwrap();
    let run = sandbox.locus(EDIT);
    assert!(run.stderr.contains("request 4: only its own prompt is measured: prompt \"word"), "{run:?}");
    let first: serde_json::Value = serde_json::from_str(run.done().lines().next().unwrap()).unwrap();
    assert_eq!(first["paraphrases"], serde_json::json!([]));
}

/// The layout in which EasyEdit distributes CounterFact gives the same edits.
#[test]
fn the_flat_layout_is_read_too() {
    let sandbox = Sandbox::new();
    let expected = sandbox.locus(EDIT).done();
    let flat: Vec<_> = tiny_requests()
        .iter()
        .map(|request| {
            serde_json::json!({
                "case_id": request.case_id,
                "prompt": request.full_prompt(),
                "subject": request.subject,
                "target_new": request.target_new,
                "ground_truth": request.target_true,
            })
        })
        .collect();
    sandbox.write("requests.json", serde_json::to_string(&flat).unwrap());
    assert_eq!(sandbox.locus(EDIT).done(), expected);
}
