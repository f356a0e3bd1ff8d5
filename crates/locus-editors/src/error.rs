//! Errors of this crate.

use std::path::PathBuf;

use locus_gpt2::internal::printable;

/// Anything that can be wrong with an edit or a patch file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The request or a file does not fit the model.
    #[error(transparent)]
    Model(#[from] locus_gpt2::Error),
    /// A hyper-parameter is out of its range.
    #[error("{editor}: {name} is {value}; expected {expected}")]
    Parameter {
        /// Name of the editor.
        editor: &'static str,
        /// Name of the hyper-parameter.
        name: &'static str,
        /// The value given.
        value: f64,
        /// The range of values that are possible.
        expected: &'static str,
    },
    /// A file of hyper-parameters is not what it should be.
    #[error("{place}: {why}")]
    Hparams {
        /// The file.
        place: String,
        /// What is wrong and what was expected.
        why: String,
    },
    /// No hyper-parameters are known for a model.
    #[error(
        "no hyper-parameters are known for {layers} layers of width {width}; expected hparams.toml in the model's \
         folder, or a layer named by you (on the command line: --config)"
    )]
    UnknownModel {
        /// Layers of the model.
        layers: usize,
        /// Width of the model.
        width: usize,
    },
    /// A layer that the model does not have.
    #[error("layer {layer} is not in the model; expected 0 to {}", layers - 1)]
    Layer {
        /// The layer asked for, counted from 0.
        layer: usize,
        /// Layers of the model.
        layers: usize,
    },
    /// A request cannot be edited.
    #[error("{0}")]
    Request(String),
    /// Key statistics are missing or unusable.
    #[error("key statistics: {0}")]
    Statistics(String),
    /// The edit would damage the model.
    #[error("the edit is refused: {0}")]
    Unstable(String),
    /// The patch was made for other weights.
    #[error("the patch belongs to a model with SHA-256 {}; this one has {actual}", printable(expected))]
    WrongBase {
        /// Hash of the patch's base.
        expected: String,
        /// Hash of the model at hand.
        actual: String,
    },
    /// Patches that are to be added were made for different weights.
    #[error(
        "patches to be added belong to models with SHA-256 {} and {}; expected one base",
        printable(one),
        printable(another)
    )]
    OtherBase {
        /// Hash of the first patch's base.
        one: String,
        /// Hash of another patch's base.
        another: String,
    },
    /// The patch was made for these weights in the other number type.
    #[error(
        "the patch belongs to these weights in {other}, and the model runs in {given}; expected --dtype {other}"
    )]
    WrongType {
        /// The number type that the model runs in.
        given: &'static str,
        /// The number type that the patch was made in.
        other: &'static str,
    },
    /// The patch file is not what it should be.
    #[error("{}: {}", printable(&path.display().to_string()), printable(why))]
    Patch {
        /// The file.
        path: PathBuf,
        /// What is wrong and what was expected.
        why: String,
    },
}

/// Result with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;
