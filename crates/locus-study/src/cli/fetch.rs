//! `locus fetch`: downloads models and data listed in the manifest.

use std::io::Write;
use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use locus_data::{FetchOptions, Manifest, fetch};

use super::destination::check_folder;
use super::global::{Global, cache_folder};

#[derive(Debug, Args)]
pub struct Fetch {
    /// Entry of fixtures/MANIFEST.toml, for example gpt2 or study; none lists them
    name: Option<String>,
    /// Take the files from this base address instead of the manifest's
    #[arg(long, value_name = "URL")]
    base: Option<String>,
}

impl Fetch {
    pub fn run(&self, global: &Global) -> Result<()> {
        let manifest =
            Manifest::parse("fixtures/MANIFEST.toml", include_str!("../../../../fixtures/MANIFEST.toml"))?;
        let Some(name) = &self.name else {
            global.refuse_out("without a name, nothing is fetched")?;
            let mut out = super::output::stdout();
            for entry in &manifest.entries {
                writeln!(out, "{:16} {} ({})", entry.name, entry.origin, entry.licence)?;
            }
            return Ok(());
        };
        let entry = manifest.entry(name)?;
        let folder: PathBuf = match &global.out {
            Some(folder) => folder.clone(),
            None => cache_folder()?.join(name),
        };
        // A folder that exists may be complete, and then it is only read.
        if !folder.is_dir() {
            check_folder("--out", &folder, &[], &[])?;
        }
        let proxy =
            ["HTTPS_PROXY", "https_proxy", "ALL_PROXY"].iter().find_map(|name| std::env::var(name).ok());
        let stage = global.progress().stage(name, entry.files.len());
        let options = FetchOptions { base: self.base.as_deref(), proxy: proxy.as_deref() };
        let fetched = fetch(entry, &folder, options, &mut |done, total| {
            let total = total.map_or_else(String::new, |total| format!(" of {:.1}", total as f64 / 1e6));
            stage.message(&format!("{:.1}{total} MB", done as f64 / 1e6));
        })?;
        stage.finish();
        let mut out = super::output::stdout();
        for file in &fetched {
            let state = match (file.pinned, file.reused) {
                (true, true) => "already there, verified",
                (true, false) => "verified",
                (false, _) => "NOT verified: the manifest has no SHA-256 for it yet",
            };
            writeln!(out, "{}  {}  {state}", file.sha256, file.path.display())?;
        }
        Ok(())
    }
}
