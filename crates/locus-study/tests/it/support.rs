//! The binary, and a folder with all that its commands need: a tiny random model, data, requests, a mask.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use locus_data::seed::stream;
use locus_data::{EditRequest, Labelled, StudyData, Task, task_names};
use locus_editors::Hparams;
use locus_gpt2::{Batch, Config, Gpt2, ParamMask, Scalar, write_checkpoint};
use tempfile::TempDir;

pub fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures").join(name)
}

/// The authors' data; `None`, with a visible message, on a machine that has none. CI must have it.
pub fn shared_data() -> Option<PathBuf> {
    let folder = std::env::var_os("LOCUS_SHARED_DATA")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data"), PathBuf::from);
    if folder.is_dir() {
        return Some(folder.canonicalize().unwrap());
    }
    let missing = format!("{}: the real data is missing", folder.display());
    assert!(std::env::var_os("CI").is_none(), "{missing}; CI needs it");
    // Not `eprintln`, which the test harness swallows when a test passes.
    let _ = writeln!(std::io::stderr(), "SKIPPED: {missing}; set LOCUS_SHARED_DATA");
    None
}

/// Outcome of a run of the binary.
#[derive(Debug)]
pub struct Run {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Run {
    /// The stdout of a run that must have succeeded.
    pub fn done(self) -> String {
        assert_eq!(self.code, Some(0), "{self:?}");
        self.stdout
    }
}

/// Runs the binary in a folder, without any setting in the environment: no cache, no BLAS setting.
pub fn locus(folder: &Path, args: &[&str], stdin: &str) -> Run {
    let mut child = Command::new(env!("CARGO_BIN_EXE_locus"))
        .args(args)
        .current_dir(folder)
        .env("LOCUS_CACHE", folder.join("cache"))
        .env_remove("OPENBLAS_NUM_THREADS")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A command that refuses its arguments does not read: a broken pipe is no failure of the test.
    let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
    let output = child.wait_with_output().unwrap();
    Run {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Weights large enough that every prompt gives other numbers.
pub fn tiny_config() -> Config {
    let mut config = Config::new(2, 2, 16, 128, 2048);
    config.initializer_range = 0.2;
    config
}

pub fn random_model(config: &Config) -> Gpt2<f32> {
    Gpt2::init(config, &mut stream(1, "tiny model", 0))
}

pub fn half_mask(config: &Config) -> ParamMask {
    ParamMask::random(config, ParamMask::n_maskable(config) / 2, &mut stream(1, "tiny mask", 0))
}

/// Mean NLL of the target's tokens: one pass over the concatenated ids and the logarithm of the softmax, written out.
pub fn nll_by_hand<F: Scalar>(model: &Gpt2<F>, prompt: &[u32], target: &[u32]) -> f64 {
    let batch = Batch::new(model.config(), &[[prompt, target].concat()]).unwrap();
    let logits = model.logits(model.run(&batch).hidden().view());
    let nll = target.iter().enumerate().map(|(k, &token)| {
        let row: Vec<f64> = logits.row(prompt.len() + k - 1).iter().map(|x| x.as_f64()).collect();
        let sum: f64 = row.iter().map(|x| x.exp()).sum();
        -(row[token as usize].exp() / sum).ln()
    });
    nll.sum::<f64>() / target.len() as f64
}

#[track_caller]
pub fn assert_near(what: &str, actual: f64, expected: f64, tolerance: f64) {
    let error = (actual - expected).abs() / expected.abs();
    assert!(error <= tolerance, "{what}: {actual} against {expected}, off by {error:e}");
}

/// Two pairs of prompts for `discover`.
pub const PAIRS: &str = r#"{"clean":"A rose is a kind of","corrupted":"A oak is a kind of","correct":[" flower"],"incorrect":[" tree"]}
{"clean":"the cat saw this","corrupted":"the cat saw these","correct":[" dog"," cat"],"incorrect":[" tree"],"id":7}
"#;

/// A folder in which every command works: `model`, `data`, `pairs.jsonl`, `prompts.jsonl`, `requests.json`,
/// `mask.safetensors`, `editor.toml`.
pub struct Sandbox {
    folder: TempDir,
}

impl Sandbox {
    pub fn empty() -> Self {
        Sandbox { folder: tempfile::tempdir().unwrap() }
    }

    pub fn new() -> Self {
        let sandbox = Sandbox::empty();
        sandbox.put_model("model", &tiny_config());
        tiny_data().write(sandbox.path("data")).unwrap();
        sandbox.write("pairs.jsonl", PAIRS);
        sandbox.write("prompts.jsonl", "{\"prompt\":\"A cat is a\",\"target\":\" kind of animal\"}\n");
        locus_data::requests::write(sandbox.path("requests.json"), &tiny_requests()).unwrap();
        half_mask(&tiny_config()).write(&sandbox.path("mask.safetensors"), "a test").unwrap();
        sandbox.write("editor.toml", "max_steps = 2\n");
        sandbox
    }

    /// A random model with the organism's tokenizer.
    pub fn put_model(&self, name: &str, config: &Config) {
        write_checkpoint(&self.path(name), &random_model(config), "a test").unwrap();
        self.copy(&fixture("organism/tokenizer.json"), &format!("{name}/tokenizer.json"));
        let mut hparams = Hparams { n_layer: config.n_layer, n_embd: config.n_embd, ..Hparams::default() };
        hparams.rome.layer = config.n_layer / 3;
        (hparams.memit.layers, hparams.memit.lambda) = ((0..=config.n_layer / 3).collect(), 100.0);
        self.write(&format!("{name}/hparams.toml"), toml::to_string(&hparams).unwrap());
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn copy(&self, from: &Path, name: &str) {
        std::fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        std::fs::copy(from, self.path(name)).unwrap();
    }

    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        std::fs::write(self.path(name), content).unwrap();
    }

    pub fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
    }

    pub fn remove(&self, name: &str) {
        std::fs::remove_file(self.path(name)).unwrap();
    }

    /// Truncates a file to half its length.
    pub fn truncate(&self, name: &str) {
        let bytes = std::fs::read(self.path(name)).unwrap();
        self.write(name, &bytes[..bytes.len() / 2]);
    }

    /// Replaces text that must be there.
    pub fn replace(&self, name: &str, from: &str, to: &str) {
        let text = self.read(name);
        assert!(text.contains(from), "{name} does not hold {from:?}");
        self.write(name, text.replacen(from, to, 1));
    }

    /// Every file below, with its size.
    pub fn files(&self) -> Vec<(PathBuf, u64)> {
        files_below(self.folder.path())
    }

    /// Runs the binary here; blanks separate the arguments.
    pub fn locus(&self, line: &str) -> Run {
        self.locus_reading(line, "")
    }

    pub fn locus_reading(&self, line: &str, stdin: &str) -> Run {
        locus(self.folder.path(), &line.split_whitespace().collect::<Vec<_>>(), stdin)
    }
}

/// Every file below a folder, with its size, sorted.
pub fn files_below(folder: &Path) -> Vec<(PathBuf, u64)> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(files_below(&path));
        } else {
            let size = path.metadata().unwrap().len();
            files.push((path, size));
        }
    }
    files.sort();
    files
}

/// Enough rows that every split has both labels.
fn tiny_data() -> StudyData {
    let rows = |task: &str| -> Vec<Labelled> {
        (0..20)
            .map(|i| Labelled {
                text: format!("{task} number {i} is {}", if i % 2 == 0 { "right" } else { "wrong" }),
                label: u8::from(i % 2 == 0),
            })
            .collect()
    };
    let tasks = task_names().iter().map(|&name| Task { name: name.into(), rows: rows(name) }).collect();
    StudyData::new(tasks, tiny_requests(), None)
}

pub fn tiny_requests() -> Vec<EditRequest> {
    [("A monarch", "wasp", "butterfly"), ("A wasp", "bird", "insect"), ("A robin", "fish", "bird")]
        .into_iter()
        .enumerate()
        .map(|(i, (subject, new, old))| EditRequest {
            case_id: i as u64 + 4,
            prompt: "{} is a kind of".into(),
            subject: subject.into(),
            target_new: new.into(),
            target_true: Some(old.into()),
            paraphrase_prompts: Vec::new(),
            neighborhood_prompts: Vec::new(),
        })
        .collect()
}
