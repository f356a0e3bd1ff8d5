//! ROME and MEMIT on the tiny golden model against an independent PyTorch script (`fixtures/golden/editors.py`), in
//! f64.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use locus_editors::{
    Context, Editor, Fact, KeyCovariance, KeyStatistics, Memit, Rome, TargetOptimisation, Variant,
};
use locus_gpt2::{BlockParam, Config, Gpt2, HookPoint, ParamId};
use locus_testkit::assert_close;
use serde_json::Value;

/// Twenty steps of Adam on sums in a different order; measured differences are a thousand times smaller.
const AGREES: f64 = 1e-6;

pub fn floats(value: &Value) -> Vec<f64> {
    match value {
        Value::Array(values) => values.iter().flat_map(floats).collect(),
        other => vec![other.as_f64().unwrap()],
    }
}

pub fn tokens(value: &Value) -> Vec<u32> {
    floats(value).into_iter().map(|x| x as u32).collect()
}

pub fn fact(value: &Value) -> Fact {
    let row = |row: &Value| Context {
        tokens: tokens(&row["tokens"]),
        subject_last: row["lookup"].as_u64().unwrap() as usize,
    };
    Fact {
        contexts: value["rows"].as_array().unwrap().iter().map(row).collect(),
        kl_prompt: row(&value["kl"]),
        target: tokens(&value["target"]),
    }
}

fn search(constants: &Value) -> TargetOptimisation {
    let of = |name: &str| constants[name].as_f64().unwrap();
    TargetOptimisation {
        lr: of("lr"),
        steps: of("steps") as usize,
        weight_decay: of("weight_decay"),
        kl_factor: of("kl_factor"),
        clamp: of("clamp"),
        loss_stop: of("loss_stop"),
    }
}

#[test]
fn edits_agree_with_pytorch() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/golden");
    let config = Config::read(&folder.join("tiny/config.json")).unwrap();
    let model = Gpt2::<f64>::read(&folder.join("tiny/model_f64.safetensors"), &config).unwrap();
    let golden: Value =
        serde_json::from_str(&std::fs::read_to_string(folder.join("editors.json")).unwrap()).unwrap();
    let ridge = golden["ridge"].as_f64().unwrap();
    let corpus: Vec<Vec<u32>> = golden["corpus"].as_array().unwrap().iter().map(tokens).collect();
    let mut statistics = KeyStatistics::empty(&model, &[0, 1]).unwrap();
    statistics.collect(&model, &corpus, &mut |_| true).unwrap();
    let covariances: BTreeMap<usize, Arc<KeyCovariance>> = statistics
        .layers
        .iter()
        .map(|(&layer, moments)| (layer, Arc::new(KeyCovariance::new(moments.mean(), ridge).unwrap())))
        .collect();
    let change = |edited: &Gpt2<f64>, layer: usize| -> Vec<f64> {
        let id = ParamId::Block(layer, BlockParam::MlpOutWeight);
        edited.get(id).iter().zip(model.get(id)).map(|(a, b)| a - b).collect()
    };

    let rome = &golden["rome"];
    let (layer, value) = (rome["layer"].as_u64().unwrap() as usize, search(&rome["constants"]));
    let fact_of_rome = fact(&rome["fact"]);
    let found = &value
        .optimise(&model, layer, HookPoint::MlpOut, std::slice::from_ref(&fact_of_rome), &|| {})
        .unwrap()[0];
    assert_close("v_init", &found.start, &floats(&rome["v_init"]), AGREES);
    assert_close("losses", &found.losses, &floats(&rome["losses"]), AGREES);
    assert_close("nll", &found.nlls, &floats(&rome["nll"]), AGREES);
    assert_close("delta", &found.delta, &floats(&rome["delta"]), AGREES);
    for variant in [Variant::RRome, Variant::Rome, Variant::PRome] {
        let constants = Rome { layer, variant, ridge, max_update: 1e3, optimisation: value };
        let editor = constants.with(covariances[&layer].clone());
        let edit = editor.edit(&model, std::slice::from_ref(&fact_of_rome), None).unwrap();
        let edited = edit.patch.apply(&model).unwrap();
        assert_close(
            variant.name(),
            &change(&edited, layer),
            &floats(&rome["weights"][variant.name()]),
            AGREES,
        );
    }

    let memit = &golden["memit"];
    let facts: Vec<Fact> = memit["facts"].as_array().unwrap().iter().map(fact).collect();
    let layers: Vec<usize> = tokens(&memit["layers"]).into_iter().map(|layer| layer as usize).collect();
    let value = search(&memit["constants"]);
    let found =
        value.optimise(&model, *layers.last().unwrap(), HookPoint::ResidPost, &facts, &|| {}).unwrap();
    for (i, found) in found.iter().enumerate() {
        let z: Vec<f64> = found.start.iter().zip(&found.delta).map(|(start, delta)| start + delta).collect();
        assert_close(&format!("z {i}"), &z, &floats(&memit["z"][i]), AGREES);
        assert_close(&format!("losses {i}"), &found.losses, &floats(&memit["losses"][i]), AGREES);
    }
    let lambda = memit["lambda"].as_f64().unwrap();
    let constants = Memit { layers: layers.clone(), lambda, ridge, optimisation: value, ..Memit::default() };
    let edit = constants.with(covariances).unwrap().edit(&model, &facts, None).unwrap();
    let edited = edit.patch.apply(&model).unwrap();
    for layer in layers {
        let expected = floats(&memit["weights"][layer.to_string()]);
        assert_close(&format!("memit, layer {layer}"), &change(&edited, layer), &expected, AGREES);
    }
}
