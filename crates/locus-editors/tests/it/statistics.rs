//! Files of key statistics that cannot be used: refused with the file's name, without panic or large allocation.

use std::path::Path;

use locus_editors::{KeyMoments, KeyStatistics};
use locus_gpt2::write_safetensors;
use ndarray::{Array0, Array2};
use ndarray_npy::NpzWriter;
use safetensors::Dtype;
use serde_json::{Value, json};

use crate::support::{model, text};

/// Writes a file of layer 0 with halves of these widths, and this metadata.
fn write(path: &Path, widths: [usize; 2], metadata: &Value) {
    let tensors: Vec<_> = widths
        .iter()
        .enumerate()
        .map(|(half, &width)| {
            let sum = Array2::<f64>::eye(width);
            let bytes = sum.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
            (format!("sum.0.{half}"), Dtype::F64, vec![width, width], bytes)
        })
        .collect();
    write_safetensors(path, &tensors, &metadata.to_string()).unwrap();
}

#[test]
fn unusable_files_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys.safetensors");
    for (widths, metadata, why) in [
        ([4, 5], json!({"counts": {"0": [3, 3]}, "sequences": 2}), "halves of layer 0 have different widths"),
        ([4, 4], json!({"counts": {"0": [3, 3]}}), "covers null sequences"),
        ([4, 4], json!({"counts": {"0": [3, 3]}, "sequences": -5}), "covers -5 sequences"),
        ([4, 4], json!({"counts": {"0": [3, 3]}, "sequences": "x"}), "covers \"x\" sequences"),
        ([4, 4], json!({"counts": {"0": [0, 0]}, "sequences": 2}), "counts [0, 0] for 2 sequences"),
        ([4, 4], json!({"counts": {"0": [u64::MAX, 1]}, "sequences": 2}), "expected numbers of keys"),
        ([4, 4], json!({"counts": {"0": [-1, 1]}, "sequences": 2}), "no counts"),
        ([4, 4], json!({"counts": {"1": [3, 3]}, "sequences": 2}), "sum.1.0 is missing"),
    ] {
        write(&path, widths, &metadata);
        let told = KeyStatistics::read(&path).unwrap_err().to_string();
        assert!(told.contains("keys.safetensors") && told.contains(why), "{told}");
    }
    write(&path, [4, 4], &json!({"counts": {"0": [0, 0]}, "sequences": 0}));
    let (none, _) = KeyStatistics::read(&path).unwrap();
    assert!(none.covariances(1e-5).unwrap_err().to_string().contains("no key was seen"));
}

#[test]
fn a_collection_that_does_not_fit_its_text_is_not_continued() {
    let (model, text) = (model(1), text(2, 6));
    let whole = || {
        let mut statistics = KeyStatistics::empty(&model, &[0, 1]).unwrap();
        statistics.collect(&model, &text, &mut |_| true).unwrap();
        statistics
    };
    let go_on = |mut statistics: KeyStatistics| {
        statistics.collect(&model, &text, &mut |_| true).map_err(|error| error.to_string())
    };
    assert_eq!(go_on(whole()), Ok(()));
    for sequences in [0, 1, 5, 7, usize::MAX] {
        let why = go_on(KeyStatistics { sequences, ..whole() }).unwrap_err();
        assert!(why.starts_with("key statistics: "), "{why}");
    }
    let mut narrow = whole();
    narrow.layers.insert(1, KeyMoments::empty(8));
    assert!(go_on(narrow).unwrap_err().contains("of 8 neurons; the model's MLPs have"));
    let mut beyond = whole();
    beyond.layers.insert(9, KeyMoments::empty(32));
    assert!(go_on(beyond).unwrap_err().contains("layer 9 is not in the model"));
}

/// An archive as published, with another shape in the header of `mom2.mom2`.
fn npz(path: &Path, shape: &str) {
    let mut archive = NpzWriter::new(std::fs::File::create(path).unwrap());
    archive.add_array("mom2.mom2", &Array2::<f32>::eye(8)).unwrap();
    archive.add_array("mom2.count", &Array0::<i64>::from_elem((), 5)).unwrap();
    archive.finish().unwrap();
    if shape == "(8, 8)" {
        // Written otherwise, the header would have another checksum.
        return;
    }
    let mut bytes = std::fs::read(path).unwrap();
    let find =
        |bytes: &[u8], part: &[u8]| bytes.windows(part.len()).position(|window| window == part).unwrap();
    let start = find(&bytes, b"(8, 8)");
    let end = start + find(&bytes[start..], b"\n");
    let text = format!("{shape}, }}");
    assert!(text.len() <= end - start, "the header is padded");
    bytes[start..end].fill(b' ');
    bytes[start..start + text.len()].copy_from_slice(text.as_bytes());
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn shapes_larger_than_the_file_are_refused_before_memory_is_taken() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys.npz");
    npz(&path, "(8, 8)");
    assert_eq!(KeyMoments::read_npz(&path).unwrap().count(), 5);
    for shape in
        ["(100000, 100000)", "(3000000, 3000000)", "(9999999999, 9999999999)", "(99999999999999999999, 1)"]
    {
        npz(&path, shape);
        let why = KeyMoments::read_npz(&path).unwrap_err().to_string();
        assert!(why.contains("keys.npz") && why.contains("bytes of the file hold"), "{why}");
    }
    for shape in ["(8)", "(8, 8, 1)", "(4, 8)", "(x, 8)"] {
        npz(&path, shape);
        let why = KeyMoments::read_npz(&path).unwrap_err().to_string();
        assert!(why.contains("keys.npz"), "{why}");
    }
    // The header's reader draws a syntax error over several lines.
    npz(&path, "(8, 8)");
    let mut bytes = std::fs::read(&path).unwrap();
    let header = b"'descr': '";
    let at = bytes.windows(header.len()).position(|part| part == header).unwrap();
    bytes[at + header.len() - 1] = b'&';
    std::fs::write(&path, bytes).unwrap();
    let why = KeyMoments::read_npz(&path).unwrap_err().to_string();
    assert!(why.contains("cannot be read (error parsing header") && !why.contains('\n'), "{why:?}");
    for bytes in [&b""[..], b"PK\x03\x04", b"no archive"] {
        std::fs::write(&path, bytes).unwrap();
        assert!(KeyMoments::read_npz(&path).unwrap_err().to_string().contains("not an .npz file"));
    }
}
