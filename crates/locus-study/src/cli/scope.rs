//! The options that say which parameters an edit may change.

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::{Args, ValueEnum};
use locus_gpt2::{Checkpoint, Gpt2, ParamMask, Scalar};

use super::error::Unusable;
use super::patch::random_scope;

#[derive(Debug, Args)]
pub struct ScopeArgs {
    /// Parameter mask of a circuit (safetensors)
    #[arg(long, value_name = "FILE")]
    mask: Option<PathBuf>,
    /// Parameters that may change
    #[arg(long, value_enum, default_value_t = ScopeName::Full)]
    scope: ScopeName,
    /// Set every block parameter outside the scope to zero first, as the study does
    #[arg(long)]
    pub isolate: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ScopeName {
    /// The parameters of the mask
    Circuit,
    /// The block parameters outside the mask
    Complement,
    /// All parameters
    Full,
    /// As many random block parameters as the mask has
    Random,
}

impl ScopeArgs {
    /// The file of the mask, if there is one.
    pub fn input(&self) -> Option<&Path> {
        self.mask.as_deref()
    }

    /// The name of the scope on the command line.
    pub fn name(&self) -> String {
        self.scope.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// The scope as a mask; `None` means every parameter.
    pub fn mask<F: Scalar>(&self, checkpoint: &Checkpoint<F>, seed: u64) -> Result<Option<ParamMask>> {
        let config = checkpoint.model.config();
        let Some(path) = &self.mask else {
            return match self.scope {
                ScopeName::Full if self.isolate => {
                    Err(Unusable("--isolate needs --mask FILE and a --scope other than full".into()).into())
                }
                ScopeName::Full => Ok(None),
                _ => Err(Unusable("this --scope needs --mask FILE".into()).into()),
            };
        };
        if self.scope == ScopeName::Full {
            let why = "--mask has no effect with --scope full; expected circuit, complement or random";
            return Err(Unusable(why.into()).into());
        }
        let mask = ParamMask::read_for(path, &checkpoint.model)?;
        Ok(match self.scope {
            ScopeName::Circuit => Some(mask),
            ScopeName::Complement => Some(mask.complement()),
            ScopeName::Random => Some(random_scope(&mask, config, seed)),
            ScopeName::Full => unreachable!("refused above"),
        })
    }

    /// The model that edits start from: with `--isolate`, the parameters outside the mask are zero.
    pub fn start<F: Scalar>(&self, model: &Gpt2<F>, mask: Option<&ParamMask>) -> Gpt2<F> {
        match mask {
            Some(mask) if self.isolate => mask.ablate_complement(model),
            _ => model.clone(),
        }
    }
}
