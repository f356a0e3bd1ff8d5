//! A folder with all data of the study: fourteen labelled sets, the edit requests and, optionally, neutral text.

use std::path::Path;

use crate::{DataError, EditRequest, Labelled, Result, files, labelled, requests};

const TASKS: [&str; 14] = [
    "hierarchy",
    "blimp_dna1",
    "blimp_dna2",
    "blimp_dnai1",
    "blimp_dnai2",
    "blimp_dnawa1",
    "blimp_dnawa2",
    "blimp_dnawai1",
    "blimp_dnawai2",
    "persona_e",
    "persona_ra",
    "persona_hhh",
    "persona_tech",
    "persona_umr",
];

const REQUESTS: &str = "hierarchy_data.json";
const NEUTRAL: &str = "neutral.txt";

/// Names of the study's fourteen tasks, in the order of its tables.
pub fn task_names() -> &'static [&'static str] {
    &TASKS
}

/// File name of a task: `hierarchy_label.csv`, else the task's name with `.csv`.
fn file_name(task: &str) -> String {
    match task {
        "hierarchy" => "hierarchy_label.csv".to_owned(),
        other => format!("{other}.csv"),
    }
}

/// Subject matter of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// Whether the first is a kind of the second.
    Hierarchy,
    /// Whether determiner and noun agree (BLiMP).
    Agreement,
    /// Whether the statement affirms the attitude of the persona.
    Persona,
}

impl Family {
    /// Family of a task of the study by the first word of its name; `None` for other names.
    pub fn of(task: &str) -> Option<Self> {
        match task.split('_').next() {
            Some("hierarchy") => Some(Self::Hierarchy),
            Some("blimp") => Some(Self::Agreement),
            Some("persona") => Some(Self::Persona),
            _ => None,
        }
    }
}

/// A named set of labelled sentences.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    /// Name in tables and on the command line, for example `blimp_dna1`.
    pub name: String,
    /// Rows in the order of the file.
    pub rows: Vec<Labelled>,
}

/// All data of the study.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StudyData {
    /// Labelled sets, in the order of [`task_names`].
    pub tasks: Vec<Task>,
    /// Edit requests of `hierarchy_data.json`, each with a true target.
    pub requests: Vec<EditRequest>,
    /// Text of `neutral.txt`, on which drift is measured; `None` when the folder has no such file.
    pub neutral: Option<String>,
    /// File name and SHA-256 of each file, in the order above, for results to cite.
    pub sources: Vec<(String, String)>,
}

impl StudyData {
    /// Data that was made instead of read; [`sources`](Self::sources) get the hashes of the files that
    /// [`write`](Self::write) would write.
    pub fn new(tasks: Vec<Task>, requests: Vec<EditRequest>, neutral: Option<String>) -> Self {
        let mut data = Self { tasks, requests, neutral, sources: Vec::new() };
        data.sources = data
            .render()
            .into_iter()
            .map(|(name, text)| (name, locus_files::sha256(text.as_bytes())))
            .collect();
        data
    }

    /// Reads a folder with the study's files under their own names; only `neutral.txt` may be missing.
    ///
    /// # Errors
    /// If a file is missing or cannot be parsed.
    pub fn read(dir: impl AsRef<Path>) -> Result<Self> {
        let dir = dir.as_ref();
        let mut sources = Vec::new();
        let mut load = |name: String| {
            let path = dir.join(&name);
            let bytes = files::read(&path)?;
            sources.push((name, locus_files::sha256(&bytes)));
            Ok::<_, DataError>((path.display().to_string(), bytes))
        };

        let mut tasks = Vec::with_capacity(TASKS.len());
        for name in TASKS {
            let (file, bytes) = load(file_name(name))?;
            tasks.push(Task { name: name.to_owned(), rows: labelled::parse(&file, &bytes)? });
        }
        let (file, bytes) = load(REQUESTS.to_owned())?;
        let requests = requests::parse(&file, &bytes)?;
        if let Some(record) = requests.iter().position(|request| request.target_true.is_none()) {
            return Err(DataError::Field {
                file,
                record,
                field: "requested_rewrite.target_true.str".into(),
                problem: "is missing".into(),
                expected: "a string",
            });
        }
        let neutral = if dir.join(NEUTRAL).exists() {
            let (file, bytes) = load(NEUTRAL.to_owned())?;
            Some(utf8(file, bytes)?)
        } else {
            None
        };
        Ok(Self { tasks, requests, neutral, sources })
    }

    /// Writes a folder that [`read`](Self::read) reads, and creates it if need be. Each file is written all or nothing.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn write(&self, dir: impl AsRef<Path>) -> Result<()> {
        self.render()
            .into_iter()
            .try_for_each(|(name, text)| files::write_atomically(dir.as_ref().join(name), text.as_bytes()))
    }

    /// Task of that name.
    pub fn task(&self, name: &str) -> Option<&Task> {
        self.tasks.iter().find(|task| task.name == name)
    }

    /// Name and content of each file.
    fn render(&self) -> Vec<(String, String)> {
        let tasks = self.tasks.iter().map(|task| (file_name(&task.name), labelled::render(&task.rows)));
        let requests = (REQUESTS.to_owned(), requests::render(&self.requests));
        let neutral = self.neutral.iter().map(|text| (NEUTRAL.to_owned(), text.clone()));
        tasks.chain([requests]).chain(neutral).collect()
    }
}

fn utf8(file: String, bytes: Vec<u8>) -> Result<String> {
    String::from_utf8(bytes).map_err(|e| {
        let valid = &e.as_bytes()[..e.utf8_error().valid_up_to()];
        let line = 1 + valid.iter().filter(|byte| **byte == b'\n').count() as u64;
        DataError::Syntax {
            file,
            line,
            problem: "text is not UTF-8".to_owned(),
            expected: "plain UTF-8 text",
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn small() -> StudyData {
        let rows = vec![Labelled { text: "a".into(), label: 1 }, Labelled { text: "b".into(), label: 0 }];
        let tasks = TASKS.iter().map(|name| Task { name: (*name).to_owned(), rows: rows.clone() }).collect();
        let request = EditRequest {
            case_id: 0,
            prompt: "{} is a kind of".into(),
            subject: "A cat".into(),
            target_new: "plant".into(),
            target_true: Some("animal".into()),
            paraphrase_prompts: vec!["A cat is a type of".into()],
            neighborhood_prompts: vec![],
        };
        StudyData::new(tasks, vec![request], Some("Plain text.\n".into()))
    }

    #[test]
    fn reads_what_it_wrote_sources_included() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("new/folder");
        let mut data = small();
        data.write(&folder).unwrap();
        assert_eq!(StudyData::read(&folder).unwrap(), data);
        assert_eq!(data.sources[0].0, "hierarchy_label.csv");
        assert_eq!(data.sources.len(), 16);

        std::fs::remove_file(folder.join(NEUTRAL)).unwrap();
        data = StudyData::new(data.tasks, data.requests, None);
        assert_eq!(StudyData::read(&folder).unwrap(), data);
    }

    #[test]
    fn names_the_file_that_is_missing_or_broken() {
        let dir = tempfile::tempdir().unwrap();
        small().write(dir.path()).unwrap();
        let message = || StudyData::read(dir.path()).unwrap_err().to_string();

        let neutral = dir.path().join(NEUTRAL);
        std::fs::write(&neutral, b"a\n\xff").unwrap();
        assert_eq!(
            message(),
            format!("{}: line 2: text is not UTF-8; expected plain UTF-8 text", neutral.display())
        );

        let missing = dir.path().join("persona_e.csv");
        std::fs::remove_file(&missing).unwrap();
        assert!(message().starts_with(&format!("{}: cannot read: ", missing.display())), "{}", message());
    }

    #[test]
    fn every_task_has_a_family() {
        let families: Vec<Family> = task_names().iter().map(|name| Family::of(name).unwrap()).collect();
        let count = |family| families.iter().filter(|f| **f == family).count();
        assert_eq!([Family::Hierarchy, Family::Agreement, Family::Persona].map(count), [1, 8, 5]);
        assert_eq!(Family::of("sentiment"), None);
        assert_eq!(small().task("persona_e").unwrap().rows.len(), 2);
        assert!(small().task("sentiment").is_none());
    }
}
