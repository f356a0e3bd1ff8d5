//! A checkpoint's folder written once more with other weights, and nothing else changed.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use locus_files::output_error;
use safetensors::Dtype;
use serde_json::{Value, json};

use super::safetensors::PROVENANCE;
use super::weights::{Role, Weights};
use crate::error::{Error, Result};
use crate::model::weights::Gpt2;
use crate::scalar::Scalar;

/// Ends of the names of files that hold weights; those of the model itself are written, others would be out of date.
const WEIGHTS: [&str; 8] =
    [".safetensors", ".bin", ".bin.index.json", ".pth", ".pt", ".h5", ".msgpack", ".onnx"];

/// An error of writing, for which the input is not to blame.
pub(crate) fn output(path: &Path, cause: std::io::Error) -> Error {
    Error::io(path, output_error(cause.kind(), cause.to_string()))
}

/// Copies what a folder holds besides weights, folders in it included. Hidden files and links to folders stay behind.
pub(crate) fn copy_side_files(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to).map_err(|e| output(to, e))?;
    for entry in std::fs::read_dir(from).map_err(|e| Error::io(from, e))? {
        let entry = entry.map_err(|e| Error::io(from, e))?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with('.') || WEIGHTS.iter().any(|end| name.ends_with(end)) {
            continue;
        }
        if entry.file_type().map_err(|e| Error::io(&source, e))?.is_dir() {
            copy_side_files(&source, &target)?;
        } else if source.is_file() {
            locus_files::open(&source).map_err(|e| Error::io(&source, e))?;
            std::fs::copy(&source, &target).map_err(|e| output(&target, e))?;
        }
    }
    Ok(())
}

/// Writes the files of a model's weights into a folder, with the weights of `edited` where they differ from `base`.
/// Returns whether such a weight was rounded to 16 bits.
pub(crate) fn write_edited<F: Scalar>(
    files: &[PathBuf],
    to: &Path,
    base: &Gpt2<F>,
    edited: &Gpt2<F>,
    provenance: &str,
) -> Result<bool> {
    let mut weights = Weights::open(files, base.config(), true)?;
    let mut rounded = false;
    for (place, file) in weights.files.iter_mut().enumerate() {
        let of_file = weights.tensors.iter().filter(|(_, (of, _))| *of == place);
        let roles: Vec<(Role, &str)> = of_file.map(|(role, (_, name))| (*role, name.as_str())).collect();
        let name = file.path.file_name().expect("weights have a name");
        let path = to.join(name);
        let io = |e| output(&path, e);
        let mut out = BufWriter::new(File::create(&path).map_err(io)?);
        let header = header(&file.text, provenance);
        let length = header.len() as u64;
        out.write_all(&length.to_le_bytes()).and_then(|()| out.write_all(&header)).map_err(io)?;
        for tensor in file.header.offset_keys() {
            let info = file.header.info(&tensor).expect("names come from the header").clone();
            let mut bytes = file.bytes(&info)?;
            if let Some((role, _)) = roles.iter().find(|(_, name)| *name == tensor) {
                let (before, after) = (base.get(role.id()), edited.get(role.id()));
                let wrong = |why: String| Error::format(&file.path, format!("tensor {tensor} {why}"));
                let changed = replace(&mut bytes, info.dtype, before, after).map_err(wrong)?;
                rounded |= changed && matches!(info.dtype, Dtype::F16 | Dtype::BF16);
            }
            out.write_all(&bytes).map_err(io)?;
        }
        let file = out.into_inner().map_err(|e| io(e.into_error()))?;
        file.sync_all().map_err(io)?;
    }
    Ok(rounded)
}

/// The header of a file with a provenance in its metadata, and blanks up to a multiple of eight bytes.
fn header(text: &str, provenance: &str) -> Vec<u8> {
    let mut header: Value = serde_json::from_str(text).expect("the header was read before");
    if !header["__metadata__"].is_object() {
        header["__metadata__"] = json!({});
    }
    header["__metadata__"][PROVENANCE] = provenance.into();
    let mut header = header.to_string().into_bytes();
    header.resize(header.len().next_multiple_of(8), b' ');
    header
}

/// Replaces the numbers that changed. Returns whether there are any.
fn replace<F: Scalar>(
    bytes: &mut [u8],
    dtype: Dtype,
    before: &[F],
    after: &[F],
) -> std::result::Result<bool, String> {
    let size = bytes.len() / before.len().max(1);
    assert_eq!(before.len(), after.len(), "weights of two models");
    let mut changed = false;
    for ((bytes, before), after) in bytes.chunks_exact_mut(size.max(1)).zip(before).zip(after) {
        if before == after {
            continue;
        }
        changed = true;
        let x = after.as_f64();
        let fits = match dtype {
            Dtype::F64 => put(bytes, x.to_le_bytes(), x),
            Dtype::F32 => put(bytes, (x as f32).to_le_bytes(), f64::from(x as f32)),
            Dtype::F16 => put(bytes, half::f16::from_f64(x).to_le_bytes(), half::f16::from_f64(x).to_f64()),
            Dtype::BF16 => {
                put(bytes, half::bf16::from_f64(x).to_le_bytes(), half::bf16::from_f64(x).to_f64())
            }
            _ => return Err(format!("has type {dtype:?}; expected F16, BF16, F32 or F64")),
        };
        if !fits {
            return Err(format!("would hold {x:e}, which does not fit its type {dtype:?}"));
        }
    }
    Ok(changed)
}

/// Writes a number; whether it is finite in its type.
fn put<const N: usize>(bytes: &mut [u8], number: [u8; N], value: f64) -> bool {
    bytes.copy_from_slice(&number);
    value.is_finite()
}
