//! Hyper-parameters: which file is read, and what is refused.

use std::path::Path;

use locus_editors::{Error, FineTuning, Hparams, Memit, Rome, TargetOptimisation};
use locus_gpt2::Config;

/// A GPT-2 with a number of layers and a width.
fn gpt2(n_layer: usize, n_embd: usize) -> Config {
    Config { n_layer, n_embd, ..Config::gpt2_small() }
}

#[test]
fn every_size_of_gpt2_has_its_own() {
    let of = |n_layer, n_embd| Hparams::for_model(&gpt2(n_layer, n_embd), None).unwrap();
    assert_eq!(of(12, 768), Hparams::default());
    let medium = of(24, 1024);
    let optimisation = TargetOptimisation { clamp: 3.0, ..Default::default() };
    assert_eq!(medium.rome, Rome { layer: 8, optimisation, ..Default::default() });
    assert_eq!(medium.memit, Memit { layers: vec![5, 6, 7, 8, 9], lambda: 5000.0, ..Default::default() });
    let large = of(36, 1280);
    assert_eq!(large.rome, Rome { layer: 12, ..Default::default() });
    assert_eq!(large.memit.layers, [8, 9, 10, 11, 12]);
    let xl = of(48, 1600);
    assert_eq!(xl.rome, Rome { layer: 17, ..Default::default() });
    assert_eq!((xl.memit.layers, xl.memit.lambda), ((13..=17).collect(), 20_000.0));
    assert_eq!((xl.ft.layer, xl.ft.clamp, xl.ft_l.layer, xl.ft_l.clamp), (1, None, 0, Some(5e-4)));
    assert_eq!([medium.ft_l, large.ft_l].map(|ft| ft.clamp), [Some(2e-3), Some(1e-3)]);
    assert_eq!(xl.ft_m, FineTuning::default());
}

#[test]
fn a_folder_comes_first_and_other_models_must_name_layers() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/organism");
    let config = Config::read(&folder.join("config.json")).unwrap();
    let organism = Hparams::for_model(&config, Some(&folder)).unwrap();
    let optimisation = TargetOptimisation { lr: 0.05, steps: 150, loss_stop: 0.1, ..Default::default() };
    assert_eq!(organism.rome, Rome { layer: 0, optimisation, ..Default::default() });
    assert_eq!(organism.memit, Memit { layers: vec![0], lambda: 10.0, ..Default::default() });
    // Four layers do not make the organism, nor twelve GPT-2 small: the width must fit too.
    for config in [&config, &gpt2(12, 64)] {
        let unknown = Hparams::for_model(config, None).unwrap_err();
        assert!(matches!(unknown, Error::UnknownModel { width: 64, .. }), "{unknown}");
        assert!(unknown.to_string().contains("--config") && !unknown.to_string().contains('\n'));
    }
    let why = Hparams::for_model(&gpt2(12, 768), Some(&folder)).unwrap_err().to_string();
    assert!(why.ends_with("hparams.toml: for 4 layers of width 64; the model has 12 of 768"), "{why}");
    let empty = tempfile::tempdir().unwrap();
    assert_eq!(Hparams::for_model(&gpt2(12, 768), Some(empty.path())).unwrap(), Hparams::default());
}

#[test]
fn broken_files_say_why_in_one_line() {
    let good = include_str!("../../hparams/gpt2.toml");
    for (from, to, why) in [
        ("[rome.optimisation]", "[rome.value]", "value is now called optimisation"),
        ("max_update = 4.0", "", "rome.max_update is missing; expected every constant"),
        ("lambda = 2000.0", "lambda = \"much\"", "invalid type: string \"much\""),
        ("ridge = 1e-5", "bridge = 1e-5", "unknown field `bridge`"),
        ("n_layer = 12", "n_layer = ", "a.toml: "),
    ] {
        assert!(good.contains(from), "{from}");
        let found = Hparams::parse(&good.replacen(from, to, 1), "a.toml").unwrap_err().to_string();
        assert!(found.starts_with("a.toml: ") && found.contains(why), "{found}");
        assert_eq!(found.lines().count(), 1, "{found}");
    }
}
