//! Patches of low rank, merged patches, and reverted edits.

use locus_editors::{Delta, EditHistory, Error, Patch};
use locus_gpt2::{BlockParam, Gpt2, ParamId, ParamMask};
use locus_testkit::{assert_close, random_vector};
use ndarray::Array2;
use proptest::prelude::*;
use rand::RngExt;
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};

use crate::support::{cases, model};

/// A random change of one or two matrices, or of a vector.
fn patch(base: &Gpt2<f64>, seed: u64) -> Patch<f64> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let layer = rng.random_range(0..3);
    if rng.random_range(0..4) == 0 {
        let mut edited = base.clone();
        let id = ParamId::Block(layer, BlockParam::MlpOutBias);
        edited.get_mut(id).iter_mut().zip(random_vector(8, seed)).for_each(|(w, x)| *w += 0.01 * x);
        return Patch::between(base, &edited);
    }
    let factors = [BlockParam::MlpOutWeight, BlockParam::AttnInWeight].map(|param| {
        let id = ParamId::Block(layer, param);
        let (rows, columns) = id.shape(base.config());
        let n = 1 + seed as usize % 3;
        let random =
            |rows, seed| Array2::from_shape_vec((rows, n), random_vector(rows * n, seed)).unwrap() * 0.03;
        (id, random(rows, seed), random(columns, seed ^ 1))
    });
    Patch::low_rank(base, factors.into_iter().take(1 + seed as usize % 2))
}

fn all(model: &Gpt2<f64>) -> Vec<f64> {
    model.ids().flat_map(|id| model.get(id).to_vec()).collect()
}

proptest! {
    #![proptest_config(cases(12))]

    /// A patch is the same after writing and reading; a merged one does what its two parts do; a masked one stays
    /// inside.
    #[test]
    fn files_and_merging(seed in any::<u64>()) {
        let base = model(seed);
        let first = patch(&base, seed);
        let middle = first.apply(&base).unwrap();
        let second = patch(&middle, seed ^ 5);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("edit.safetensors");
        second.write(&path, base.config(), &serde_json::Value::Null).unwrap();
        prop_assert_eq!(&Patch::read(&path, base.config()).unwrap(), &second);
        let both = second.apply(&middle).unwrap();
        let merged = first.merge(&second, &base).unwrap();
        assert_close("merged", &all(&merged.apply(&base).unwrap()), &all(&both), 1e-14);
        let wrong = second.merge(&first, &base).unwrap_err();
        assert!(matches!(wrong, Error::WrongBase { .. }));
        let mask = ParamMask::random(base.config(), 500, &mut ChaCha8Rng::seed_from_u64(seed));
        let masked = first.masked(&mask).apply(&base).unwrap();
        prop_assert_eq!(mask.complement().ablate_complement(&masked).sha256(), mask.complement().ablate_complement(&base).sha256());
        assert_close("inside", &all(&mask.ablate_complement(&masked)), &all(&mask.ablate_complement(&middle)), 1e-15);
    }
}

/// A thousand random edits are made and reverted: at every point the weights have the bits of never having gone
/// further.
#[test]
fn a_thousand_edits_and_back() {
    let base = model(1);
    let mut history = EditHistory::new(base.clone());
    let mut hashes = vec![base.sha256()];
    for i in 0..1000 {
        history.apply(patch(history.model(), i)).unwrap();
        hashes.push(history.model().sha256());
    }
    let merged = history.merged().unwrap();
    assert_close("merged", &all(&merged.apply(&base).unwrap()), &all(history.model()), 1e-12);
    for i in (0..1000).rev() {
        let taken = history.revert().unwrap();
        assert_eq!(history.model().sha256(), hashes[i], "after taking back edit {i}");
        assert_eq!(taken.base_sha256(), hashes[i]);
    }
    assert!(history.revert().is_none() && history.merged().is_none());
    for id in base.ids() {
        let bits = |model: &Gpt2<f64>| model.get(id).iter().map(|w| w.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(history.model()), bits(&base), "{id}");
    }
}

#[test]
fn files_that_are_no_patch_are_refused() {
    let base = model(1);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("edit.safetensors");
    let good = (0..9)
        .map(|seed| patch(&base, seed))
        .find(|p| matches!(p.deltas().next(), Some((_, Delta::LowRank { .. }))));
    good.unwrap().write(&path, base.config(), &serde_json::Value::Null).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    let why = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        Patch::<f64>::read(&path, base.config()).unwrap_err().to_string()
    };
    assert!(why(&bytes[..bytes.len() - 5]).contains("not a complete safetensors file"));
    let renamed = |from: &str, to: &str| {
        let text = bytes.windows(from.len()).position(|w| w == from.as_bytes()).unwrap();
        let mut bytes = bytes.clone();
        bytes[text..text + to.len()].copy_from_slice(to.as_bytes());
        bytes
    };
    assert!(why(&renamed("weight.r", "weight.x")).contains("is not NAME.delta, NAME.u or NAME.r"));
    assert!(why(&renamed("weight.r", "weight.u")).len() > 10);
}

/// One change under two names is refused with the same line every time, as is a base in the other number type.
#[test]
fn changes_that_are_given_twice_and_bases_in_another_type() {
    let base = model(1);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("edit.safetensors");
    let mut edited = base.clone();
    edited.get_mut(ParamId::FinalNormBias)[0] += 1.0;
    let patch = Patch::between(&base, &edited);
    let single: Gpt2<f32> = base.cast();
    let narrow = Patch::between(&single, &edited.cast());
    narrow.write(&path, base.config(), &serde_json::Value::Null).unwrap();
    let why = Patch::<f64>::read(&path, base.config()).unwrap().apply(&base).unwrap_err();
    assert!(why.to_string().contains("expected --dtype f32"), "{why}");

    let tensor = |name: &str| {
        let values = [0.5f64; 8].iter().flat_map(|x| x.to_le_bytes()).collect();
        (name.to_owned(), safetensors::Dtype::F64, vec![8], values)
    };
    let metadata = serde_json::json!({ "base_sha256": patch.base_sha256() }).to_string();
    let read = |names: [&str; 2]| {
        locus_gpt2::write_safetensors(&path, &names.map(tensor), &metadata).unwrap();
        Patch::<f64>::read(&path, base.config())
    };
    read(["ln_f.bias.delta", "h.0.ln_1.bias.delta"]).unwrap();
    let lines: Vec<String> = (0..6)
        .map(|_| read(["ln_f.bias.delta", "transformer.ln_f.bias.delta"]).unwrap_err().to_string())
        .collect();
    assert!(lines[0].contains("ln_f.bias.delta is given twice"), "{}", lines[0]);
    assert!(lines.iter().all(|line| *line == lines[0]));
}
