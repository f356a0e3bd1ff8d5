//! The files of a report. All are rendered and written under temporary names before the first is renamed into place.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::{check, json, markdown, page, plot, table};
use crate::results::{Figure, Results, Table};

/// Paths of the parts of a report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReportPaths {
    /// `results.json`: everything, for programs.
    pub json: PathBuf,
    /// `report.html`: everything, for readers.
    pub html: PathBuf,
    /// `report.md`: everything except the inline drawings.
    pub markdown: PathBuf,
    /// `tables/<id>.csv` with raw values, in the order of the tables.
    pub csv: Vec<PathBuf>,
    /// `tables/<id>.md`, in the order of the tables.
    pub table_markdown: Vec<PathBuf>,
    /// `figures/<id>.svg`, in the order of the figures.
    pub figures: Vec<PathBuf>,
}

impl ReportPaths {
    /// The paths that [`write()`] uses for `results` below `dir`.
    pub fn new(dir: &Path, results: &Results) -> Self {
        let table = |table: &Table, extension| dir.join("tables").join(format!("{}.{extension}", table.id));
        Self {
            json: dir.join("results.json"),
            html: dir.join("report.html"),
            markdown: dir.join("report.md"),
            csv: results.tables.iter().map(|one| table(one, "csv")).collect(),
            table_markdown: results.tables.iter().map(|one| table(one, "md")).collect(),
            figures: results
                .figures
                .iter()
                .map(|one| dir.join("figures").join(format!("{}.svg", one.id)))
                .collect(),
        }
    }
}

/// A figure as an SVG file of its own.
pub fn draw(figure: &Figure) -> String {
    plot::draw(figure).standalone(&figure.title)
}

/// Writes the report on `results` below `dir`, creating folders as needed.
///
/// Files of an earlier report are replaced one by one by renaming, so that no reader ever sees half a file. Files that
/// this report does not have stay.
///
/// # Errors
/// `InvalidData` when an id cannot name a file or is used twice, when a table or figure does not fit its labels, or
/// when a number is not finite (JSON cannot hold it); otherwise the error of the file system. Nothing has changed then,
/// unless it was the renaming that failed.
pub fn write(dir: &Path, results: &Results) -> io::Result<ReportPaths> {
    check::results(results)?;
    let paths = ReportPaths::new(dir, results);
    let mut files = vec![(&paths.json, json::render(results)?)];
    for (index, one) in results.tables.iter().enumerate() {
        files.push((&paths.csv[index], table::csv(one)?));
        files.push((&paths.table_markdown[index], markdown::table_file(one)));
    }
    for (path, one) in paths.figures.iter().zip(&results.figures) {
        files.push((path, draw(one)));
    }
    files.push((&paths.markdown, markdown::report(results)));
    // Last, so that the page never appears before the files that it links to.
    files.push((&paths.html, page::report(results)));
    put_in_place(&files)?;
    Ok(paths)
}

/// Writes every file under a temporary name, then renames them all: a full disk is noticed before anything changes.
fn put_in_place(files: &[(&PathBuf, String)]) -> io::Result<()> {
    let mut written = Vec::with_capacity(files.len());
    for (path, text) in files {
        let write = || {
            let mut file = locus_files::NewFile::beside(path)?;
            file.write_all(text.as_bytes())?;
            Ok(file)
        };
        written.push(write().map_err(|e: io::Error| output_error(path, &e))?);
    }
    locus_files::put_in_place(written)
}

/// An error of writing that names the file, and is still one of output.
fn output_error(path: &Path, error: &io::Error) -> io::Error {
    locus_files::output_error(error.kind(), format!("{}: {error}", path.display()))
}
