//! `locus report`: renders a finished run anew, and `locus aggregate`: puts several runs together.

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Args;
use locus_gpt2::internal::write_atomically;

use super::destination::{check_file, check_folder, ending, lock_folder};
use super::error::Unusable;
use super::global::Global;
use super::reproduce::print_claims;
use super::study_options::wanted;
use crate::aggregate::aggregate;
use crate::conclusions::{conclude, table_named};
use crate::report;
use crate::results::Results;

#[derive(Debug, Args)]
#[group(skip)]
pub struct Report {
    /// Folder of a finished run, or its results.json
    #[arg(value_name = "DIR")]
    run: PathBuf,
    /// Tables to write, for example T1,T5 [default: those of the run]
    #[arg(long, value_delimiter = ',', value_name = "IDS")]
    tables: Vec<String>,
}

impl Report {
    /// Computes tables, figures and claims from the records of the run; the report goes to `--out`, or to where the
    /// run's is.
    pub fn run(&self, global: &Global) -> Result<()> {
        let out = match &global.out {
            Some(out) => out.as_path(),
            None => self.folder()?,
        };
        check_folder("--out", out, &["results.json", "report.html", "report.md"], &["tables", "figures"])?;
        let Results { provenance, records, tables, .. } = read(&self.run)?;
        let wanted = if self.tables.is_empty() {
            let ids = tables.iter().filter_map(|table| table_named(table.id.get(..2)?));
            ids.collect()
        } else {
            wanted(&self.tables)?
        };
        let _lock = lock_folder(out)?;
        let results = conclude(provenance, records, &wanted);
        let paths = report::write(out, &results)?;
        print_claims(&results, &paths, global.json)
    }

    /// The folder of the run, which may be named by the file of its results.
    fn folder(&self) -> Result<&Path> {
        if !self.run.is_file() {
            return Ok(&self.run);
        }
        if self.run.file_name().is_none_or(|name| name != "results.json") {
            let run = self.run.display();
            let why =
                format!("{run}: expected the folder of a run or its results.json, or --out for the report");
            return Err(Unusable(why).into());
        }
        let folder = self.run.parent().unwrap_or(Path::new(""));
        Ok(if folder.as_os_str().is_empty() { Path::new(".") } else { folder })
    }
}

#[derive(Debug, Args)]
pub struct AggregateArgs {
    /// Folders of finished runs, for example with several seeds
    #[arg(value_name = "DIR", required = true)]
    runs: Vec<PathBuf>,
}

impl AggregateArgs {
    /// Prints the spread of verdicts and effects as Markdown or JSON, or writes it to `--out`.
    pub fn run(&self, global: &Global) -> Result<()> {
        use std::io::Write;
        let inputs: Vec<PathBuf> = self.runs.iter().map(|run| results_of(run)).collect();
        let format = match &global.out {
            Some(out) => {
                let inputs: Vec<&Path> = inputs.iter().map(PathBuf::as_path).collect();
                check_file("--out", out, &inputs)?;
                ending("--out", out, &["md", "json"])?
            }
            None => "md",
        };
        let read = |run: &PathBuf| Ok((run.display().to_string(), read(run)?));
        let runs: Vec<(String, Results)> = self.runs.iter().map(read).collect::<Result<_>>()?;
        let all = aggregate(&runs).map_err(Unusable)?;
        let text = if global.json || format == "json" {
            serde_json::to_string_pretty(&all)? + "\n"
        } else {
            all.markdown()
        };
        match &global.out {
            Some(out) => write_atomically(out, text.as_bytes())?,
            None => super::output::stdout().write_all(text.as_bytes())?,
        }
        Ok(())
    }
}

/// The records of a run that is named by its folder, or by the file itself.
fn results_of(run: &Path) -> PathBuf {
    if run.is_dir() { run.join("results.json") } else { run.to_owned() }
}

/// Reads `results.json` of a run.
fn read(run: &Path) -> Result<Results> {
    let path = results_of(run);
    let unusable = |why: &dyn std::fmt::Display| Unusable(format!("{}: {why}", path.display()));
    let text = locus_files::read_to_string(&path).map_err(|e| unusable(&e))?;
    Ok(serde_json::from_str(&text).map_err(|e| unusable(&format!("not the results of a run: {e}")))?)
}
