//! The state of a training of masks on disk, so that a run that is killed loses minutes and not hours.

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use locus_circuits::masks::{
    Circuit, MaskProgress, Resampled, TrainingMonitor, TrainingState, TrainingStateView,
};
use locus_files::{NewFile, put_in_place};
use locus_gpt2::internal::decode;
use locus_gpt2::{Config, Error, ParamMask, Result, Scalar, read_safetensors};
use safetensors::tensor::{TensorView, View};
use safetensors::{Dtype, SafeTensors};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Time between writes of a state, at least; with the time that a step takes, less than two minutes are lost.
const SHORTEST: Duration = Duration::from_secs(60);
/// Longest time between writes.
const LONGEST: Duration = Duration::from_secs(100);
/// Part of the time that may be spent on writing.
const SHARE: u32 = 20;

/// Keeps the state of a training in a file while it runs.
pub struct TrainingFile<'a> {
    path: PathBuf,
    fingerprint: String,
    resume: bool,
    written: Instant,
    interval: Duration,
    /// Shape of the model that the masks belong to.
    config: Config,
    progress: &'a mut dyn FnMut(MaskProgress),
}

/// What the file says of the state beside its arrays.
#[derive(Serialize, Deserialize)]
struct Head {
    fingerprint: String,
    /// SHA-256 of the arrays and masks.
    sha256: String,
    steps: usize,
    arrays: usize,
    circuits: Vec<CircuitHead>,
}

#[derive(Serialize, Deserialize)]
struct CircuitHead {
    target_density: f64,
    reached: bool,
    epochs: usize,
    steps: usize,
    resampled: bool,
}

impl<'a> TrainingFile<'a> {
    pub(crate) fn new(
        path: PathBuf,
        fingerprint: String,
        config: &Config,
        resume: bool,
        progress: &'a mut dyn FnMut(MaskProgress),
    ) -> Self {
        let (written, interval, config) = (Instant::now(), SHORTEST, config.clone());
        TrainingFile { path, fingerprint, resume, written, interval, config, progress }
    }
}

impl<F: Scalar> TrainingMonitor<F> for TrainingFile<'_> {
    fn progress(&mut self, at: MaskProgress) {
        (self.progress)(at);
    }

    fn resume(&mut self) -> Option<TrainingState<F>> {
        self.resume.then(|| read(&self.path, &self.fingerprint, &self.config).ok()).flatten()
    }

    fn offer(&mut self, state: TrainingStateView<'_, F>) -> Result<()> {
        if self.written.elapsed() < self.interval {
            return Ok(());
        }
        let begin = Instant::now();
        write(&self.path, &self.fingerprint, &state)?;
        self.interval = (SHARE * begin.elapsed()).clamp(SHORTEST, LONGEST);
        self.written = Instant::now();
        Ok(())
    }
}

/// The masks of a circuit, that which is measured first.
fn masks(circuit: &Circuit) -> Vec<&ParamMask> {
    let resampled = circuit.resampled.as_ref();
    let further = resampled.map(|all| [&all.complement_source, &all.saved, &all.edited]);
    std::iter::once(&circuit.mask).chain(further.into_iter().flatten()).collect()
}

/// Bytes of one tensor, made when they are needed: a state may take most of the memory.
enum Part<'a, F> {
    Array(&'a [F], [usize; 1]),
    /// Eight scalars of the mask in a byte.
    Mask(&'a ParamMask, [usize; 1]),
}

impl<F: Scalar> View for &Part<'_, F> {
    fn dtype(&self) -> Dtype {
        match self {
            Part::Array(..) => F::DTYPE,
            Part::Mask(..) => Dtype::U8,
        }
    }

    fn shape(&self) -> &[usize] {
        match self {
            Part::Array(_, shape) | Part::Mask(_, shape) => shape,
        }
    }

    fn data(&self) -> Cow<'_, [u8]> {
        let mut bytes = Vec::with_capacity(self.data_len());
        match self {
            Part::Array(array, _) => array.iter().for_each(|x| x.put_le(&mut bytes)),
            Part::Mask(mask, [n]) => {
                bytes.resize(*n, 0);
                let inside = mask.tensors().flat_map(|(_, inside)| inside.iter());
                inside.enumerate().for_each(|(i, inside)| bytes[i / 8] |= u8::from(inside) << (i % 8));
            }
        }
        Cow::Owned(bytes)
    }

    fn data_len(&self) -> usize {
        match self {
            Part::Array(array, _) => size_of_val(*array),
            Part::Mask(_, [n]) => *n,
        }
    }
}

fn write<F: Scalar>(path: &Path, fingerprint: &str, state: &TrainingStateView<'_, F>) -> Result<()> {
    let arrays = state.arrays.iter().map(|array| Part::Array(array, [array.len()]));
    let masks = state.circuits.iter().flat_map(masks);
    let masks = masks.map(|mask| Part::Mask(mask, [ParamMask::n_maskable(mask.config()).div_ceil(8)]));
    let parts: Vec<Part<F>> = arrays.chain(masks).collect();
    let mut hash = Sha256::new();
    parts.iter().for_each(|part| hash.update((&part).data()));
    let of_circuit = |circuit: &Circuit| CircuitHead {
        target_density: circuit.target_density,
        reached: circuit.reached,
        epochs: circuit.epochs,
        steps: circuit.steps,
        resampled: circuit.resampled.is_some(),
    };
    let head = Head {
        fingerprint: fingerprint.to_owned(),
        sha256: locus_files::hex(&hash.finalize()),
        steps: state.steps,
        arrays: state.arrays.len(),
        circuits: state.circuits.iter().map(of_circuit).collect(),
    };
    let head = serde_json::to_string(&head).expect("plain data");
    let metadata = HashMap::from([("provenance".to_owned(), head)]);
    let io = |cause| Error::Io { path: path.to_owned(), cause };
    let file = NewFile::beside(path).map_err(io)?;
    let named = parts.iter().enumerate().map(|(number, part)| (name(number), part));
    safetensors::serialize_to_file(named, Some(metadata), file.temporary())
        .map_err(|error| io(std::io::Error::other(error)))?;
    put_in_place([file]).map_err(io)
}

fn name(number: usize) -> String {
    format!("part.{number:04}")
}

fn read<F: Scalar>(path: &Path, fingerprint: &str, config: &Config) -> Result<TrainingState<F>> {
    read_safetensors(path, |tensors, head| {
        let unusable = || Error::Input("another state".into());
        let head = head.and_then(|head| serde_json::from_str::<Head>(&head).ok()).ok_or_else(unusable)?;
        if head.fingerprint != fingerprint {
            return Err(unusable());
        }
        let mut parts = Parts { tensors, hash: Sha256::new(), taken: 0 };
        let mut arrays = Vec::new();
        for _ in 0..head.arrays {
            arrays.push(decode(&parts.next()?).map_err(Error::Input)?);
        }
        let mut circuits = Vec::new();
        for circuit in &head.circuits {
            let mask = parts.mask(config)?;
            let resampled = if circuit.resampled {
                let [complement_source, saved, edited] =
                    [parts.mask(config)?, parts.mask(config)?, parts.mask(config)?];
                Some(Resampled { complement_source, saved, edited })
            } else {
                None
            };
            let CircuitHead { target_density, reached, epochs, steps, .. } = *circuit;
            circuits.push(Circuit { mask, resampled, target_density, reached, epochs, steps });
        }
        if locus_files::hex(&parts.hash.finalize()) != head.sha256 {
            return Err(unusable());
        }
        Ok(TrainingState { steps: head.steps, arrays, circuits })
    })
}

/// The tensors of a file in order.
struct Parts<'a, 'data> {
    tensors: &'a SafeTensors<'data>,
    hash: Sha256,
    taken: usize,
}

impl<'data> Parts<'_, 'data> {
    fn next(&mut self) -> Result<TensorView<'data>> {
        let name = name(self.taken);
        let view = self.tensors.tensor(&name).map_err(|e| Error::Input(format!("{name}: {e}")))?;
        self.taken += 1;
        self.hash.update(view.data());
        Ok(view)
    }

    fn mask(&mut self, config: &Config) -> Result<ParamMask> {
        let view = self.next()?;
        let bytes = view.data();
        if bytes.len() != ParamMask::n_maskable(config).div_ceil(8) {
            return Err(Error::Input("a mask of another model".into()));
        }
        let mut i = 0;
        Ok(ParamMask::from_fn(config, |_, _| {
            let inside = bytes[i / 8] >> (i % 8) & 1 == 1;
            i += 1;
            inside
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_read_back_to_the_bit_or_not_at_all() {
        let config = Config::new(2, 2, 6, 8, 11);
        let mask = |n: usize| ParamMask::from_fn(&config, |_, i| i % n == 0);
        let circuits = [
            Circuit {
                mask: mask(3),
                resampled: None,
                target_density: 0.1,
                reached: true,
                epochs: 3,
                steps: 9,
            },
            Circuit {
                mask: mask(2),
                resampled: Some(Resampled { complement_source: mask(5), saved: mask(7), edited: mask(1) }),
                target_density: 0.7,
                reached: false,
                epochs: 4,
                steps: 12,
            },
        ];
        let arrays: [&[f32]; 2] = [&[0.1, -0.0, f32::MIN_POSITIVE, 3e38], &[1.5; 9]];
        let state = TrainingStateView { steps: 12, arrays: arrays.to_vec(), circuits: &circuits };
        let path = std::env::temp_dir().join(format!("locus-state-{}.safetensors", std::process::id()));
        write(&path, "mine", &state).unwrap();
        let found: TrainingState<f32> = read(&path, "mine", &config).unwrap();
        assert_eq!((found.steps, found.circuits.as_slice()), (12, &circuits[..]));
        let bits = |arrays: &[f32]| arrays.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        for (found, array) in found.arrays.iter().zip(arrays) {
            assert_eq!(bits(found), bits(array));
        }
        assert!(read::<f32>(&path, "another's", &config).is_err());
        let mut bytes = std::fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        assert!(read::<f32>(&path, "mine", &config).is_err(), "one bit of a mask");
        std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
        assert!(read::<f32>(&path, "mine", &config).is_err(), "half a file");
        std::fs::remove_file(&path).unwrap();
    }
}
