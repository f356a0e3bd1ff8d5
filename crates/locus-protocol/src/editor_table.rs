//! The editors by name: one table for the command line and for the comparison of editors (X2).

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context, Result};
use locus_editors::{
    ClampedSgd, Editor, FineTuning, Hparams, KeyCovariance, Lora, Memit, PREFIXES, Rome, UltraEdit, Variant,
};
use locus_gpt2::{Config, Scalar, compiled};
use serde::Serialize;

/// Eigenvalue of the keys' second moment from which AlphaEdit counts a direction as used.
const ALPHA_EDIT_THRESHOLD: f64 = 2e-2;
/// Number of prefixes that MEMIT is given, as in its code.
const MEMIT_PREFIXES: usize = 5;

/// An editor's constants.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Constants {
    /// The study's fine-tuning.
    StudyFt(ClampedSgd),
    /// Fine-tuning of one MLP's output.
    Ft(FineTuning),
    /// A low-rank change of the query, key and value matrices.
    Lora(Lora),
    /// ROME and its variants.
    Rome(Rome),
    /// MEMIT, EMMET and AlphaEdit.
    Memit(Memit),
    /// UltraEdit.
    UltraEdit(UltraEdit),
}

/// Function that finds the hyper-parameters of a model.
pub type Lookup<'a> = dyn Fn() -> Result<Hparams> + 'a;

/// One line of [`EDITORS`].
#[derive(Clone, Copy, Debug)]
pub struct NamedEditor {
    /// Name in files and on the command line.
    pub name: &'static str,
    /// Line of help that says what the editor does.
    pub about: &'static str,
    /// Default constants, from a seed and the model's hyper-parameters; only editors that need the latter look them up.
    pub constants: fn(&Lookup, u64) -> Result<Constants>,
}

/// Every editor.
pub static EDITORS: [NamedEditor; 12] = [
    NamedEditor {
        name: "study-ft",
        about: "The study's fine-tuning: SGD with every parameter clamped near its start",
        constants: |_, _| Ok(Constants::StudyFt(ClampedSgd::default())),
    },
    NamedEditor {
        name: "ft",
        about: "Adam on one MLP's output, every target token scored right after the prompt, as published",
        constants: |hparams, _| Ok(Constants::Ft(hparams()?.ft)),
    },
    NamedEditor {
        name: "ft-l",
        about: "Like ft, with every entry clamped near its start",
        constants: |hparams, _| Ok(Constants::Ft(hparams()?.ft_l)),
    },
    NamedEditor {
        name: "ft-m",
        about: "Adam on one MLP's output, each target token scored after the ones before it",
        constants: |hparams, _| Ok(Constants::Ft(hparams()?.ft_m)),
    },
    NamedEditor {
        name: "lora",
        about: "LoRA on the query, key and value matrices of all layers, merged",
        constants: |_, seed| Ok(Constants::Lora(Lora { seed, ..Lora::default() })),
    },
    NamedEditor {
        name: "r-rome",
        about: "ROME with the mean key throughout",
        constants: |hparams, _| rome(Variant::RRome, hparams),
    },
    NamedEditor {
        name: "rome",
        about: "ROME as released, with two keys",
        constants: |hparams, _| rome(Variant::Rome, hparams),
    },
    NamedEditor {
        name: "p-rome",
        about: "ROME with the bare prompt's key throughout",
        constants: |hparams, _| rome(Variant::PRome, hparams),
    },
    NamedEditor {
        name: "memit",
        about: "MEMIT: several layers, many facts at once",
        constants: |hparams, _| memit(None, hparams),
    },
    NamedEditor {
        name: "alpha-edit",
        about: "MEMIT with AlphaEdit's projection onto directions that keys seldom use",
        constants: |hparams, _| memit(Some(ALPHA_EDIT_THRESHOLD), hparams),
    },
    NamedEditor {
        name: "emmet",
        about: "EMMET: one layer, many facts at once, each answer exactly as asked for",
        constants: |hparams, _| Ok(emmet(&hparams()?)),
    },
    NamedEditor {
        name: "ultra-edit",
        about: "UltraEdit: several layers, many facts at once, from one gradient; needs no subject",
        constants: |hparams, _| Ok(ultra_edit(&hparams()?)),
    },
];

fn rome(variant: Variant, hparams: &Lookup) -> Result<Constants> {
    Ok(Constants::Rome(Rome { variant, ..hparams()?.rome }))
}

fn memit(null_space: Option<f64>, hparams: &Lookup) -> Result<Constants> {
    Ok(Constants::Memit(Memit { null_space, ..hparams()?.memit }))
}

fn ultra_edit(hparams: &Hparams) -> Constants {
    Constants::UltraEdit(UltraEdit::for_shape(hparams.n_layer, hparams.n_embd))
}

/// MEMIT's constants with ROME's layer, the one that EMMET edits, and equality constraints.
fn emmet(hparams: &Hparams) -> Constants {
    let layers = vec![hparams.rome.layer];
    Constants::Memit(Memit { layers, lambda: 0.0, null_space: None, ..hparams.memit.clone() })
}

impl NamedEditor {
    /// The editor with a name.
    ///
    /// # Errors
    /// When there is none; the message lists the known names.
    pub fn find(name: &str) -> Result<&'static NamedEditor> {
        EDITORS.iter().find(|editor| editor.name == name).with_context(|| {
            let known: Vec<&str> = EDITORS.iter().map(|editor| editor.name).collect();
            format!("{name:?} is no editor; expected one of {}", known.join(", "))
        })
    }
}

impl Constants {
    /// Checks every constant against a model.
    ///
    /// # Errors
    /// When one is out of its range.
    pub fn check(&self, config: &Config) -> locus_editors::Result<()> {
        match self {
            Constants::StudyFt(constants) => constants.check(),
            Constants::Ft(constants) => constants.check(config),
            Constants::Lora(constants) => constants.check(config),
            Constants::Rome(constants) => constants.check(config),
            Constants::Memit(constants) => constants.check(config),
            Constants::UltraEdit(constants) => constants.check(config),
        }
    }

    /// The layers whose key statistics the editor needs, and the ridge that they are inverted with.
    pub fn statistics(&self) -> (Vec<usize>, f64) {
        match self {
            Constants::Rome(constants) => (vec![constants.layer], constants.ridge),
            Constants::Memit(constants) => (constants.layers.clone(), constants.ridge),
            _ => (Vec::new(), 0.0),
        }
    }

    /// Largest number of prefixes that the editor puts before prompts; 0 for editors that need no subject.
    pub fn prefixes(&self) -> usize {
        match self {
            Constants::Rome(_) => PREFIXES.len(),
            Constants::Memit(_) => MEMIT_PREFIXES,
            _ => 0,
        }
    }

    /// Makes the editor from the key statistics of [`Constants::statistics`], by layer.
    ///
    /// # Errors
    /// When the statistics of a layer are missing or cannot be used.
    pub fn editor<F: Scalar>(
        self,
        covariances: BTreeMap<usize, Arc<KeyCovariance>>,
    ) -> Result<Box<dyn Editor<F>>> {
        F::run::<EditorJob>((self, covariances))
    }
}

type EditorIn = (Constants, BTreeMap<usize, Arc<KeyCovariance>>);

compiled!(EditorJob: <F> EditorIn => Result<Box<dyn Editor<F>>>, build);

fn build<F: Scalar>((constants, mut covariances): EditorIn) -> Result<Box<dyn Editor<F>>> {
    Ok(match constants {
        Constants::StudyFt(constants) => Box::new(constants),
        Constants::Ft(constants) => Box::new(constants),
        Constants::Lora(constants) => Box::new(constants),
        Constants::Rome(constants) => {
            let covariance = covariances.remove(&constants.layer);
            let missing = || format!("no key statistics of layer {}", constants.layer);
            Box::new(constants.with(covariance.with_context(missing)?))
        }
        Constants::Memit(constants) => Box::new(constants.with(covariances)?),
        Constants::UltraEdit(constants) => Box::new(constants),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_found_and_others_are_refused_with_the_list() {
        let hparams = || Ok(Hparams::default());
        for editor in &EDITORS {
            let found = NamedEditor::find(editor.name).unwrap();
            assert_eq!((found.constants)(&hparams, 3).unwrap(), (editor.constants)(&hparams, 3).unwrap());
        }
        for unknown in ["", "Memit", "memit-all", "mend"] {
            let why = NamedEditor::find(unknown).unwrap_err().to_string();
            assert!(
                why.starts_with(&format!("{unknown:?} is no editor; expected one of study-ft, ft, ")),
                "{why}"
            );
            assert!(why.ends_with("memit, alpha-edit, emmet, ultra-edit"), "{why}");
        }
    }
}
