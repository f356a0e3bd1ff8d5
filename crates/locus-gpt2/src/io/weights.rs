//! The weights of a checkpoint's folder: one safetensors file or several shards, read tensor by tensor.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use safetensors::tensor::{Metadata, SafeTensorError, TensorInfo, TensorView};
use serde_json::Value;

use super::safetensors::{decode_floats, file_shape};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::files::{open, read_text};
use crate::model::ids::ParamId;
use crate::model::weights::{Gpt2, ParamSet, by_name};
use crate::scalar::{Scalar, compiled};

/// The file of weights that are not split.
const SINGLE: &str = "model.safetensors";
/// The file that says which shard holds which tensor.
const INDEX: &str = "model.safetensors.index.json";
/// Bytes before a safetensors header, which give its length.
const LENGTH_BYTES: u64 = 8;
/// The longest header that the safetensors library takes.
const LONGEST_HEADER: u64 = 100_000_000;

/// What wrappers put in front of a parameter's name: data parallelism, adapters, and the model around the blocks.
const PREFIXES: [&str; 6] =
    ["module.", "base_model.", "pretrained_model.", "model.", "transformer.", "gpt2."];
/// What wrappers put anywhere into a parameter's name: compilation, sharding, recomputation.
const INFIXES: [&str; 3] = ["_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module."];
/// Tensors that checkpoints carry beside those of the language model: heads for other tasks.
const OTHER_HEADS: [&str; 5] = ["score.", "classifier.", "qa_outputs.", "multiple_choice_head.", "v_head."];
const HEAD: &str = "lm_head.weight";

/// The name of a parameter, or of something that belongs to it, without what other tools put around it:
/// `module.transformer.h.0.ln_1.weight` is `h.0.ln_1.weight`.
pub fn short_name(name: &str) -> String {
    let mut short = name.to_owned();
    for infix in INFIXES {
        short = short.replace(infix, "");
    }
    while let Some(rest) = PREFIXES.iter().find_map(|prefix| short.strip_prefix(prefix)) {
        short = rest.to_owned();
    }
    short
}

/// Names of tensors by their [`short_name`], in order.
///
/// # Errors
/// A phrase, when two names are one.
pub fn by_short_name<'a>(
    names: impl IntoIterator<Item = &'a str>,
) -> std::result::Result<BTreeMap<String, &'a str>, String> {
    let mut by_short = BTreeMap::new();
    // The file gives names in no particular order; errors name the same ones every time.
    for name in BTreeSet::from_iter(names) {
        let short = short_name(name);
        if let Some(other) = by_short.insert(short.clone(), name) {
            return Err(format!("{short} is given twice, as {other} and as {name}"));
        }
    }
    Ok(by_short)
}

/// A safetensors file of which only the header has been read.
pub(crate) struct TensorFile {
    pub(crate) path: PathBuf,
    file: File,
    /// The header as text.
    pub(crate) text: String,
    pub(crate) header: Metadata,
}

impl TensorFile {
    /// Opens a file and checks that its header describes all of it.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let io = |e| Error::io(path, e);
        let broken =
            |why: &dyn Display| Error::format(path, format!("not a complete safetensors file: {why}"));
        let mut file = open(path)?;
        let length = file.metadata().map_err(io)?.len();
        if length == 0 {
            return Err(Error::format(path, "the file is empty; expected safetensors"));
        }
        if length < LENGTH_BYTES {
            return Err(broken(&SafeTensorError::HeaderTooSmall));
        }
        let mut start = [0; LENGTH_BYTES as usize];
        file.read_exact(&mut start).map_err(io)?;
        if &start == b"version " {
            return Err(Error::format(
                path,
                "is a pointer of Git LFS, not the file itself; run: git lfs pull",
            ));
        }
        let header_length = u64::from_le_bytes(start);
        if header_length > LONGEST_HEADER {
            return Err(broken(&SafeTensorError::HeaderTooLarge));
        }
        if header_length > length - LENGTH_BYTES {
            return Err(broken(&SafeTensorError::InvalidHeaderLength));
        }
        let mut text = vec![0; header_length as usize];
        file.read_exact(&mut text).map_err(io)?;
        let text = String::from_utf8(text).map_err(|e| broken(&e))?;
        let header: Metadata = serde_json::from_str(&text).map_err(|e| broken(&e))?;
        if (header.data_len() as u64).checked_add(LENGTH_BYTES + header_length) != Some(length) {
            return Err(broken(&SafeTensorError::MetadataIncompleteBuffer));
        }
        Ok(TensorFile { path: path.to_owned(), file, text, header })
    }

    /// The bytes of a tensor of this file.
    pub(crate) fn bytes(&mut self, info: &TensorInfo) -> Result<Vec<u8>> {
        let (start, end) = info.data_offsets;
        let mut bytes = vec![0; end - start];
        let place = LENGTH_BYTES + self.text.len() as u64 + start as u64;
        let read = self.file.seek(SeekFrom::Start(place)).and_then(|_| self.file.read_exact(&mut bytes));
        read.map_err(|e| Error::io(&self.path, e))?;
        Ok(bytes)
    }

    fn info(&self, name: &str) -> TensorInfo {
        self.header.info(name).expect("names come from the header").clone()
    }
}

/// Files of a folder that hold its weights, in order: `model.safetensors`, or the shards that its index names.
///
/// # Errors
/// When there are none that can be read, or the index or a shard is broken or missing.
pub(crate) fn weight_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let (single, index) = (folder.join(SINGLE), folder.join(INDEX));
    if single.exists() || !index.exists() {
        std::fs::metadata(&single)
            .map_err(|e| other_format(folder).unwrap_or_else(|| Error::io(&single, e)))?;
        return Ok(vec![single]);
    }
    let wrong = |why: String| Error::format(&index, why);
    let json: Value =
        serde_json::from_str(&read_text(&index)?).map_err(|e| wrong(format!("not valid JSON: {e}")))?;
    let map = json.get("weight_map").and_then(Value::as_object);
    let map = map.ok_or_else(|| wrong("has no weight_map; expected names of tensors and of files".into()))?;
    let mut shards: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (tensor, file) in map {
        let Some(file) = file.as_str().filter(|file| is_file_name(file)) else {
            return Err(wrong(format!("puts {tensor} into {file}; expected the name of a file beside it")));
        };
        shards.entry(file).or_default().push(tensor);
    }
    if shards.is_empty() {
        return Err(wrong("names no tensors; expected those of a GPT-2".into()));
    }
    let mut files = Vec::with_capacity(shards.len());
    for (shard, tensors) in shards {
        let path = folder.join(shard);
        if !path.exists() {
            return Err(wrong(format!("names the shard {shard}, which is missing")));
        }
        let file = TensorFile::open(&path)?;
        if let Some(tensor) = tensors.into_iter().find(|tensor| file.header.info(tensor).is_none()) {
            return Err(wrong(format!("puts the tensor {tensor} into {shard}, which does not have it")));
        }
        files.push(path);
    }
    Ok(files)
}

fn is_file_name(name: &str) -> bool {
    Path::new(name).file_name().is_some_and(|file| file == name)
}

/// An error that says how weights in another format become safetensors; `None` when the folder has none.
fn other_format(folder: &Path) -> Option<Error> {
    const ENDINGS: [&str; 6] = [".bin", ".bin.index.json", ".pth", ".pt", ".h5", ".msgpack"];
    const ADAPTER: &str = "adapter_model.safetensors";
    if folder.join(ADAPTER).exists() {
        let why = "is an adapter without its model; expected model.safetensors (in Python: \
                   AutoPeftModelForCausalLM.from_pretrained(DIR).merge_and_unload().save_pretrained(DIR))";
        return Some(Error::format(&folder.join(ADAPTER), why));
    }
    let names: BTreeSet<String> = std::fs::read_dir(folder)
        .ok()?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| ENDINGS.iter().any(|ending| name.ends_with(ending)))
        // What a trainer saves beside the weights.
        .filter(|name| !["training_args.bin", "optimizer.pt", "scheduler.pt"].contains(&name.as_str()))
        .collect();
    let found = names.first()?;
    let why = "weights in this format are not read; expected model.safetensors (in Python, with transformers: \
               GPT2LMHeadModel.from_pretrained(DIR).save_pretrained(DIR))";
    Some(Error::format(&folder.join(found), why))
}

/// What a tensor of a checkpoint is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Role {
    Param(ParamId),
    /// The head, which is the token embedding once more.
    Head,
}

impl Role {
    /// The parameter that the tensor holds.
    pub(crate) fn id(self) -> ParamId {
        match self {
            Role::Param(id) => id,
            Role::Head => ParamId::TokenEmbedding,
        }
    }
}

/// Tensors of one or several files, found and checked, with their bytes still unread.
pub(crate) struct Weights {
    pub(crate) files: Vec<TensorFile>,
    /// By role, the place of the file and the name of the tensor in it.
    pub(crate) tensors: BTreeMap<Role, (usize, String)>,
}

impl Weights {
    /// Opens files that together hold every parameter of a model.
    ///
    /// # Errors
    /// When a tensor is missing, given twice, of another shape than the config says, or unknown.
    pub(crate) fn open(paths: &[PathBuf], config: &Config, tied: bool) -> Result<Self> {
        let ids = by_name(config);
        let mut weights = Weights { files: Vec::new(), tensors: BTreeMap::new() };
        for (place, path) in paths.iter().enumerate() {
            let file = TensorFile::open(path)?;
            let names = file.header.offset_keys();
            let names =
                by_short_name(names.iter().map(String::as_str)).map_err(|why| Error::format(path, why))?;
            for (short, name) in names {
                let wrong = |why: String| Error::format(path, format!("tensor {name} {why}"));
                let role = match ids.get(&short) {
                    Some(&id) => Role::Param(id),
                    None if short == HEAD => Role::Head,
                    None if is_passed_over(&short) => continue,
                    None => return Err(wrong("is not part of a GPT-2 of this config".into())),
                };
                let (found, shape) = (&file.info(name).shape, file_shape(role.id(), config));
                if *found != shape {
                    return Err(wrong(format!("has shape {found:?}; config.json asks for {shape:?}")));
                }
                if let Some((other, _)) = weights.tensors.insert(role, (place, name.to_owned())) {
                    let other = paths[other].display();
                    return Err(wrong(format!("is given twice: {other} has {short}, too")));
                }
            }
            weights.files.push(file);
        }
        weights.check_complete(config, tied).map_err(|why| Error::format(&paths[0], why))?;
        Ok(weights)
    }

    fn check_complete(&self, config: &Config, tied: bool) -> std::result::Result<(), String> {
        let has_head = self.tensors.contains_key(&Role::Head);
        let is_there = |&id: &ParamId| {
            let head_will_do = id == ParamId::TokenEmbedding && tied && has_head;
            self.tensors.contains_key(&Role::Param(id)) || head_will_do
        };
        if let Some(missing) = ParamId::all(config).find(|id| !is_there(id)) {
            return Err(format!("tensor {missing} is missing"));
        }
        if !tied && !has_head {
            return Err(format!("tensor {HEAD} is missing, and tie_word_embeddings is false in config.json"));
        }
        Ok(())
    }

    /// Reads the parameters of a model.
    ///
    /// # Errors
    /// When a tensor cannot be read, is not floating point or not finite, or the head is not the token embedding.
    pub(crate) fn read<F: Scalar>(&mut self, config: &Config) -> Result<Gpt2<F>> {
        let mut params = ParamSet::zeros(config, []);
        // Parameters come before the head.
        for (role, (place, name)) in &self.tensors {
            let values: Vec<F> = values(&mut self.files[*place], name)?;
            if *role != Role::Head || !params.has(ParamId::TokenEmbedding) {
                params.insert(role.id(), values);
            } else if values != params.get(ParamId::TokenEmbedding) {
                let path = &self.files[*place].path;
                return Err(Error::format(
                    path,
                    format!("{HEAD} differs from wte.weight; expected a tied head"),
                ));
            }
        }
        Gpt2::new(params)
    }
}

fn values<F: Scalar>(file: &mut TensorFile, name: &str) -> Result<Vec<F>> {
    let info = file.info(name);
    let bytes = file.bytes(&info)?;
    let wrong = |why: String| Error::format(&file.path, format!("tensor {name} {why}"));
    let view = TensorView::new(info.dtype, info.shape, &bytes).map_err(|e| wrong(e.to_string()))?;
    decode_floats(&view).map_err(wrong)
}

/// Whether a tensor is none of the language model's: causal masks, and heads for other tasks.
fn is_passed_over(short: &str) -> bool {
    let is_mask = short.ends_with(".attn.bias") || short.ends_with(".attn.masked_bias");
    is_mask || OTHER_HEADS.iter().any(|head| short.starts_with(head))
}

compiled!(
    ReadJob<'a>: <F> (&'a [PathBuf], &'a Config, bool) => Result<Gpt2<F>>,
    |(paths, config, tied)| Weights::open(paths, config, tied)?.read(config)
);

impl<F: Scalar> Gpt2<F> {
    /// Reads every parameter of a checkpoint from a safetensors file; F16, BF16, F32 and F64 are converted. Names may
    /// carry the prefixes that common tools add (`transformer.`, `module.`, `_orig_mod.`, ...); attention-mask buffers
    /// and heads for other tasks are passed over. One of `wte.weight` and `lm_head.weight` is enough.
    ///
    /// # Errors
    /// When a tensor is missing, given twice, has another shape than `config` says, is not floating point, is not finite
    /// or is unknown, or when the head is not tied.
    pub fn read(path: &Path, config: &Config) -> Result<Self> {
        Self::read_files(&[path.to_owned()], config, true)
    }

    /// Reads every parameter from files that together hold them, as [`Gpt2::read`]. If the head is not `tied`, it must
    /// be there.
    pub(crate) fn read_files(paths: &[PathBuf], config: &Config, tied: bool) -> Result<Self> {
        F::run::<ReadJob>((paths, config, tied))
    }
}
