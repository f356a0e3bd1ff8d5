//! The model: parameters by name, packed batches, and the passes over them.
//!
//! Read in this order: `ids` and `weights` (what there is), `batch` and `kv_cache` (what is run), `forward` with
//! `attention`, `hooks` (what may look in), `tape` and `backward` with `entries` (gradients), and `run`, which is the
//! interface to all of it; `cache`, `prefix` and `generate` are built on passes. Nothing here knows files, losses, tasks or
//! edits.
//!
//! Dimension letters: `n` rows of a packed batch, `d` width of the residual stream, `f` width of the MLP, `H` heads,
//! `w = d / H` width of a head, `L` layers, `V` vocabulary.

pub(crate) mod attention;
pub(crate) mod backward;
pub(crate) mod batch;
pub(crate) mod cache;
pub(crate) mod entries;
pub(crate) mod forward;
pub(crate) mod generate;
pub(crate) mod hooks;
pub(crate) mod ids;
pub(crate) mod kv_cache;
pub(crate) mod prefix;
pub(crate) mod run;
pub(crate) mod tape;
pub(crate) mod weights;
