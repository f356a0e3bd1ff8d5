//! Statistics of the keys that an MLP sees: the uncentred second moment `C = mean k k^T [f, f]` over the tokens of a
//! text.
//!
//! Locate-then-edit methods weigh keys by `C^-1`, so that a change meant for one key disturbs the usual ones least
//! (Meng et al. 2022, arXiv 2202.05262, eq. 2). Sums are kept in f64, separately for the even and the odd sequences of
//! the text: comparing the two halves shows how much `C^-1 k` still depends on the sample. Deviation: a ridge, because
//! `C` of a finite text is ill-conditioned.
//!
//! Letters: `f` MLP width.

use std::collections::BTreeMap;
use std::io::{Read, Seek};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use locus_gpt2::internal::decode;
use locus_gpt2::{
    Batch, Checkpoint, Config, Gpt2, HookPoint, Scalar, chunk_by_tokens, compiled, dot, gemm,
    read_safetensors, write_safetensors,
};
use ndarray::{Array, Array1, Array2, ArrayView2, ArrayViewMut2, Axis, Dimension, Ix0, Ix2};
use ndarray_linalg::{Cholesky, UPLO};
use ndarray_npy::{ReadNpyError, ReadNpyExt, ReadableElement};
use rayon::prelude::*;
use safetensors::Dtype;
use serde_json::{Value, json};
use zip::ZipArchive;

use crate::error::{Error, Result};
use crate::text::token_lines;

/// Tokens in one piece of parallel work.
const PIECE_TOKENS: usize = 1024;
/// Tokens of a text that [`KeyStatistics::from_text`] reads, rounded up to whole lines.
const TEXT_TOKENS: usize = 100_000;
/// Pieces whose products are held at the same time.
const PIECES_AT_ONCE: usize = 2;

/// Largest number of keys in a file: numbers up to here are exact as f64.
const MOST_KEYS: u64 = 1 << 53;

/// Array `name` of an `.npz` archive of `most` bytes. Its header is read first, since it alone says how much memory the
/// array takes.
fn npy<A: ReadableElement, D: Dimension>(
    archive: &mut ZipArchive<impl Read + Seek>,
    name: &str,
    most: u64,
) -> std::result::Result<Array<A, D>, String> {
    let mut entry = archive.by_name(&format!("{name}.npy")).map_err(|e| e.to_string())?;
    // Magic bytes, version, and the length of the text that follows: 2 bytes in version 1, otherwise 4.
    let mut head = vec![0; 10];
    entry.read_exact(&mut head).map_err(|e| e.to_string())?;
    let mut length = usize::from(u16::from_le_bytes([head[8], head[9]]));
    if head[6] > 1 {
        let mut high = [0; 2];
        entry.read_exact(&mut high).map_err(|e| e.to_string())?;
        head.extend(high);
        length |= usize::from(u16::from_le_bytes(high)) << 16;
    }
    if length as u64 > most {
        return Err(format!("its header has {length} bytes; the file has {most}"));
    }
    let mut text = vec![0; length];
    entry.read_exact(&mut text).map_err(|e| e.to_string())?;
    let shape = String::from_utf8_lossy(&text);
    let shape = shape.split_once("'shape'").and_then(|(_, rest)| rest.split_once('('));
    let shape = shape.and_then(|(_, rest)| rest.split_once(')')).ok_or("its header has no shape")?.0;
    let mut sides = shape.split(',').map(str::trim).filter(|side| !side.is_empty());
    let size = sides.try_fold(size_of::<A>() as u64, |size, side| size.checked_mul(side.parse().ok()?));
    if size.is_none_or(|size| size > most) {
        return Err(format!("its shape is ({shape}), more than the {most} bytes of the file hold"));
    }
    head.extend(text);
    // A syntax error in the header is drawn over several lines, of which the first names it.
    let first_line = |e: ReadNpyError| e.to_string().lines().next().unwrap_or_default().trim_end().to_owned();
    Array::<A, D>::read_npy(head.as_slice().chain(entry)).map_err(first_line)
}

/// Sums of `k k^T` over the keys of one layer, and their number.
#[derive(Clone, Debug, PartialEq)]
pub struct KeyMoments {
    /// Sums over the even and over the odd sequences of the text, `[f, f]` each.
    sums: [Array2<f64>; 2],
    /// Number of keys in each sum.
    counts: [u64; 2],
}

impl KeyMoments {
    /// Sums over no keys, of width `f`.
    pub fn empty(f: usize) -> Self {
        KeyMoments { sums: [Array2::zeros((f, f)), Array2::zeros((f, f))], counts: [0, 0] }
    }

    /// Moments from a mean second moment `[f, f]` that was computed elsewhere over `count` keys.
    ///
    /// # Errors
    /// When it is not square or has a value that is not finite.
    pub fn from_mean(mean: Array2<f64>, count: u64) -> Result<Self> {
        if mean.nrows() != mean.ncols() || mean.iter().any(|x| !x.is_finite()) {
            let (rows, columns) = mean.dim();
            return Err(Error::Statistics(format!(
                "a second moment of {rows} x {columns}; expected a square of finite numbers"
            )));
        }
        let empty = Array2::zeros(mean.dim());
        Ok(KeyMoments { sums: [mean * count as f64, empty], counts: [count, 0] })
    }

    /// Reads the statistics that were published with ROME and MEMIT: an uncompressed `.npz` with the mean `mom2.mom2`
    /// `[f, f]` and the number of keys `mom2.count`.
    ///
    /// # Errors
    /// When the file is missing or has other arrays.
    pub fn read_npz(path: &Path) -> Result<Self> {
        let wrong = |why: String| Error::Statistics(format!("{}: {why}", path.display()));
        let file = locus_files::open(path).map_err(|e| wrong(e.to_string()))?;
        let most = file.metadata().map_err(|e| wrong(e.to_string()))?.len();
        let file = std::io::BufReader::new(file);
        let mut arrays = ZipArchive::new(file).map_err(|e| wrong(format!("not an .npz file ({e})")))?;
        let missing = |name: &str, why: String| wrong(format!("array {name} cannot be read ({why})"));
        let mean = match npy::<f32, Ix2>(&mut arrays, "mom2.mom2", most) {
            Ok(mean) => mean.mapv(f64::from),
            Err(_) => npy(&mut arrays, "mom2.mom2", most).map_err(|why| missing("mom2.mom2", why))?,
        };
        let count =
            npy::<i64, Ix0>(&mut arrays, "mom2.count", most).map_err(|why| missing("mom2.count", why))?;
        let count = u64::try_from(count.into_scalar()).unwrap_or(0);
        if count == 0 || count > MOST_KEYS {
            return Err(wrong(format!("mom2.count is {count}; expected 1 to {MOST_KEYS}")));
        }
        KeyMoments::from_mean(mean, count).map_err(|error| wrong(error.to_string()))
    }

    /// Width of the keys, `f`; `None` when the two sums are not squares of one width.
    fn width(&self) -> Option<usize> {
        let f = self.sums[0].nrows();
        self.sums.iter().all(|sum| sum.dim() == (f, f)).then_some(f)
    }

    /// Checks that both sums are as wide as the model's MLPs.
    ///
    /// # Errors
    /// When one is not.
    pub fn check(&self, config: &Config) -> Result<()> {
        let wants = config.d_mlp();
        match self.sums.iter().find(|sum| sum.dim() != (wants, wants)) {
            Some(sum) => {
                let has = sum.nrows();
                Err(Error::Statistics(format!("are of {has} neurons; the model's MLPs have {wants}")))
            }
            None => Ok(()),
        }
    }

    /// Number of keys seen.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The mean second moment, `[f, f]`.
    ///
    /// # Panics
    /// When no key was seen.
    pub fn mean(&self) -> Array2<f64> {
        assert!(self.count() > 0, "no key was seen");
        (&self.sums[0] + &self.sums[1]) / self.count() as f64
    }

    /// The mean second moment with a ridge, factorised; `ridge` as in [`KeyCovariance::new`].
    ///
    /// # Errors
    /// When no key was seen, or the second moment is not positive definite.
    pub fn covariance(&self, ridge: f64) -> Result<KeyCovariance> {
        if self.count() == 0 {
            return Err(Error::Statistics("no key was seen; expected text with tokens in it".into()));
        }
        KeyCovariance::new(self.mean(), ridge)
    }

    /// Cosine between `C^-1 k` of the two halves of the text, for a key `k [f]`: near 1, more text would change little.
    /// `None` when a half is empty.
    ///
    /// # Errors
    /// As [`KeyCovariance::new`].
    ///
    /// # Panics
    /// When the key has another width.
    pub fn agreement(&self, ridge: f64, key: &[f64]) -> Result<Option<f64>> {
        if self.counts.contains(&0) {
            return Ok(None);
        }
        let key = Array1::from(key.to_vec()).insert_axis(Axis(1));
        let mut halves = Vec::with_capacity(2);
        for (sum, &count) in self.sums.iter().zip(&self.counts) {
            halves
                .push(KeyCovariance::new(sum / count as f64, ridge)?.solve(key.view()).column(0).to_owned());
        }
        let cosine =
            halves[0].dot(&halves[1]) / (halves[0].dot(&halves[0]) * halves[1].dot(&halves[1])).sqrt();
        Ok(Some(cosine))
    }
}

/// Key moments of some layers of a model, collected over a text. A collection can be written, read and continued.
#[derive(Clone, Debug, PartialEq)]
pub struct KeyStatistics {
    /// Moments by layer, counted from 0.
    pub layers: BTreeMap<usize, KeyMoments>,
    /// Number of sequences of the text that the moments cover.
    pub sequences: usize,
}

impl KeyStatistics {
    /// Statistics of the given layers over no text.
    ///
    /// # Errors
    /// When a layer is not in the model.
    pub fn empty<F: Scalar>(model: &Gpt2<F>, layers: &[usize]) -> Result<Self> {
        let config = model.config();
        if let Some(layer) = layers.iter().find(|&&layer| layer >= config.n_layer) {
            return Err(Error::Layer { layer: *layer, layers: config.n_layer });
        }
        let moments = |&layer: &usize| (layer, KeyMoments::empty(config.d_mlp()));
        Ok(KeyStatistics { layers: layers.iter().map(moments).collect(), sequences: 0 })
    }

    /// Checks that every layer is in the model and every sum as wide as its MLPs.
    ///
    /// # Errors
    /// When one is not.
    pub fn check(&self, config: &Config) -> Result<()> {
        for (&layer, moments) in &self.layers {
            if layer >= config.n_layer {
                return Err(Error::Layer { layer, layers: config.n_layer });
            }
            moments.check(config)?;
        }
        Ok(())
    }

    /// Continues with the sequences not yet seen, all layers in one pass, until the text ends or `progress` returns
    /// false; that is called with the statistics so far after every few thousand tokens. All tokens count, first
    /// positions included, as in the released code.
    ///
    /// # Errors
    /// When the statistics or a sequence do not fit the model, or the statistics hold other numbers of keys than the
    /// sequences that they say they cover.
    pub fn collect<F: Scalar>(
        &mut self,
        model: &Gpt2<F>,
        text: &[Vec<u32>],
        progress: &mut dyn FnMut(&Self) -> bool,
    ) -> Result<()> {
        F::run::<CollectJob>((self, model, text, progress))
    }

    /// Statistics of some layers over the first 100,000 tokens or so of a text, each line a sequence.
    ///
    /// # Errors
    /// When a layer is not in the model or the text cannot be tokenised.
    pub fn from_text<F: Scalar>(checkpoint: &Checkpoint<F>, layers: &[usize], text: &str) -> Result<Self> {
        let mut statistics = KeyStatistics::empty(&checkpoint.model, layers)?;
        let lines = token_lines(checkpoint, text, TEXT_TOKENS)?;
        statistics.collect(&checkpoint.model, &lines, &mut |_| true)?;
        Ok(statistics)
    }

    /// Factorised second moments by layer; `ridge` as in [`KeyCovariance::new`].
    ///
    /// # Errors
    /// When no key was seen, or a second moment is not positive definite.
    pub fn covariances(&self, ridge: f64) -> Result<BTreeMap<usize, Arc<KeyCovariance>>> {
        let covariance =
            |(&layer, moments): (&usize, &KeyMoments)| Ok((layer, Arc::new(moments.covariance(ridge)?)));
        self.layers.iter().map(covariance).collect()
    }

    /// Writes a safetensors file from which the collection can go on: `sum.LAYER.0` and `sum.LAYER.1`, `[f, f]` each,
    /// are the sums over the even and the odd sequences of the text.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, path: &Path, provenance: &Value) -> Result<()> {
        let bytes = |x: &Array2<f64>| x.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
        let mut tensors = Vec::new();
        let mut counts = BTreeMap::new();
        for (layer, moments) in &self.layers {
            for (half, sum) in moments.sums.iter().enumerate() {
                let name = format!("sum.{layer}.{half}");
                tensors.push((name, Dtype::F64, vec![sum.nrows(), sum.ncols()], bytes(sum)));
            }
            counts.insert(layer.to_string(), moments.counts);
        }
        let metadata = json!({ "counts": counts, "sequences": self.sequences, "provenance": provenance });
        Ok(write_safetensors(path, &tensors, &metadata.to_string())?)
    }

    /// Reads a file of [`KeyStatistics::write`]: the statistics and their provenance.
    ///
    /// # Errors
    /// When the file cannot be read or is not complete.
    pub fn read(path: &Path) -> Result<(Self, Value)> {
        let wrong = |why: &str| locus_gpt2::Error::format(path, why.to_owned());
        Ok(read_safetensors(path, |tensors, metadata| {
            let metadata: Value = metadata
                .and_then(|text| serde_json::from_str(&text).ok())
                .ok_or_else(|| wrong("has no metadata; expected key statistics"))?;
            let counts: BTreeMap<usize, [u64; 2]> = serde_json::from_value(metadata["counts"].clone())
                .map_err(|_| wrong("has no counts in its metadata; expected key statistics"))?;
            let sequences = metadata["sequences"].as_u64().and_then(|n| usize::try_from(n).ok());
            let sequences = sequences.ok_or_else(|| {
                let found = &metadata["sequences"];
                wrong(&format!(
                    "says in its metadata that it covers {found} sequences; expected a number from 0"
                ))
            })?;
            let mut layers = BTreeMap::new();
            for (layer, counts) in counts {
                let half = |half: usize| {
                    let name = format!("sum.{layer}.{half}");
                    let view =
                        tensors.tensor(&name).map_err(|_| wrong(&format!("tensor {name} is missing")))?;
                    let shape = view.shape();
                    if shape.len() != 2 || shape[0] != shape[1] {
                        return Err(wrong(&format!("tensor {name} has shape {shape:?}; expected a square")));
                    }
                    let values = decode(&view).map_err(|why| wrong(&format!("tensor {name} {why}")))?;
                    Ok(Array2::from_shape_vec((shape[0], shape[1]), values)
                        .expect("as many as the shape says"))
                };
                let moments = KeyMoments { sums: [half(0)?, half(1)?], counts };
                let Some(width) = moments.width() else {
                    return Err(wrong(&format!("the halves of layer {layer} have different widths")));
                };
                let first: Option<&KeyMoments> = layers.values().next();
                if let Some(other) = first.and_then(KeyMoments::width).filter(|&other| other != width) {
                    return Err(wrong(&format!("layer {layer} has {width} neurons and another {other}")));
                }
                if counts.iter().any(|&count| count > MOST_KEYS) || (sequences > 0 && counts == [0, 0]) {
                    let why = format!("layer {layer} has counts {counts:?} for {sequences} sequences");
                    return Err(wrong(&format!("{why}; expected numbers of keys")));
                }
                if moments.sums.iter().any(|sum| sum.diag().iter().any(|&x| x < 0.0)) {
                    return Err(wrong(&format!("a sum of squares of layer {layer} is negative")));
                }
                layers.insert(layer, moments);
            }
            Ok((KeyStatistics { layers, sequences }, metadata["provenance"].clone()))
        })?)
    }
}

type CollectInput<'a, F> =
    (&'a mut KeyStatistics, &'a Gpt2<F>, &'a [Vec<u32>], &'a mut dyn FnMut(&KeyStatistics) -> bool);

compiled!(CollectJob<'a>: <F> CollectInput<'a, F> => Result<()>, collect);

fn collect<F: Scalar>((statistics, model, text, progress): CollectInput<'_, F>) -> Result<()> {
    let layers: Vec<usize> = statistics.layers.keys().copied().collect();
    let Some(&deepest) = layers.last() else { return Ok(()) };
    statistics.check(model.config())?;
    let first = statistics.sequences;
    let Some(seen) = text.get(..first) else {
        let n = text.len();
        return Err(Error::Statistics(format!("they cover {first} sequences; the text has {n}")));
    };
    let mut counts = [0; 2];
    for (i, sequence) in seen.iter().enumerate() {
        counts[i % 2] += sequence.len() as u64;
    }
    for (layer, moments) in &statistics.layers {
        if moments.counts != counts {
            let has = moments.counts;
            return Err(Error::Statistics(format!(
                "those of layer {layer} are of {has:?} keys; the first {first} sequences of the text have {counts:?}"
            )));
        }
    }
    let runs = chunk_by_tokens(&text[first..], PIECE_TOKENS);
    for runs in runs.chunks(PIECES_AT_ONCE) {
        let keys: Vec<Vec<Array2<f64>>> = runs
            .par_iter()
            .map(|run| {
                let batch = Batch::new(model.config(), &text[first + run.start..first + run.end])?;
                let mut keys = Vec::with_capacity(layers.len());
                let mut take = |layer: usize, point: HookPoint, state: ArrayViewMut2<F>| {
                    if point == HookPoint::MlpPost && layers.contains(&layer) {
                        keys.push(state.mapv(|x| x.as_f64()));
                    }
                };
                model.run(&batch).until_layer(deepest + 1).with_hooks(&mut take).resid();
                Ok(keys)
            })
            .collect::<Result<_>>()?;
        for (run, keys) in runs.iter().zip(keys) {
            let mut rows = [Vec::new(), Vec::new()];
            let mut row = 0;
            for sequence in run.clone() {
                let length = text[first + sequence].len();
                rows[(first + sequence) % 2].extend(row..row + length);
                row += length;
            }
            for (moments, keys) in statistics.layers.values_mut().zip(keys) {
                for (half, rows) in rows.iter().enumerate() {
                    let keys = keys.select(Axis(0), rows);
                    gemm(1.0, keys.t(), keys.view(), 1.0, moments.sums[half].view_mut());
                    moments.counts[half] += rows.len() as u64;
                }
            }
            statistics.sequences = first + run.end;
        }
        if !progress(statistics) {
            break;
        }
    }
    Ok(())
}

/// The second moment `C` of a layer's keys, with a ridge and factorised.
#[derive(Clone, Debug)]
pub struct KeyCovariance {
    /// `C` with its ridge, `[f, f]`.
    matrix: Array2<f64>,
    /// Lower triangle `L` with `L L^T = C`.
    factor: Array2<f64>,
    /// `L^T`, stored row by row.
    transposed: Array2<f64>,
}

impl KeyCovariance {
    /// Adds `ridge` times the mean of the diagonal to the diagonal of `mean [f, f]`, and factorises the sum.
    ///
    /// # Errors
    /// When the result is not positive definite.
    pub fn new(mut mean: Array2<f64>, ridge: f64) -> Result<Self> {
        let f = mean.nrows();
        let added = ridge * mean.diag().sum() / f as f64;
        mean.diag_mut().iter_mut().for_each(|x| *x += added);
        let factor = mean.cholesky(UPLO::Lower).map_err(|_| {
            Error::Statistics(format!(
                "the second moment of {f} neurons is not positive definite with ridge {ridge:e}; expected more \
                 text or a larger ridge"
            ))
        })?;
        let factor = factor.as_standard_layout().into_owned();
        let transposed = factor.t().as_standard_layout().into_owned();
        Ok(KeyCovariance { matrix: mean, factor, transposed })
    }

    /// The identity `C = I [f, f]`: all directions of key space count alike.
    pub fn identity(f: usize) -> Self {
        KeyCovariance::new(Array2::eye(f), 0.0).expect("the identity is positive definite")
    }

    /// `C` with its ridge, `[f, f]`.
    pub fn matrix(&self) -> ArrayView2<'_, f64> {
        self.matrix.view()
    }

    /// `C^-1 K` for `K [f, n]`.
    ///
    /// # Panics
    /// When `K` does not have `f` rows.
    pub fn solve(&self, keys: ArrayView2<f64>) -> Array2<f64> {
        let f = self.matrix.nrows();
        assert_eq!(keys.nrows(), f, "keys of another width");
        // Rows of both triangles are contiguous, which no LAPACK layout gives without copying them.
        let row = |triangle: &Array2<f64>, i: usize, columns: Range<usize>, x: &[f64]| {
            dot(&triangle.row(i).to_slice().expect("rows are contiguous")[columns.clone()], &x[columns])
        };
        let columns: Vec<Vec<f64>> = (0..keys.ncols())
            .into_par_iter()
            .map(|column| {
                let mut x = keys.column(column).to_vec();
                for i in 0..f {
                    x[i] = (x[i] - row(&self.factor, i, 0..i, &x)) / self.factor[(i, i)];
                }
                for i in (0..f).rev() {
                    x[i] = (x[i] - row(&self.transposed, i, i + 1..f, &x)) / self.factor[(i, i)];
                }
                x
            })
            .collect();
        Array2::from_shape_fn((f, keys.ncols()), |(i, j)| columns[j][i])
    }
}
