//! `locus fetch`: downloads models and data listed in the manifest.

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Error, Result};
use clap::Args;
use locus_data::{DataError, Entry, FetchOptions, Manifest, Verified, fetch};

use super::destination::check_folder;
use super::global::Global;
use super::models::cache_folder;
use super::output::{byte_size, stdout};

#[derive(Debug, Args)]
#[group(skip)]
#[command(after_help = "Environment:\n  \
    LOCUS_CACHE   Folder of fetched files [default: ~/.cache/locus]\n  \
    HTTPS_PROXY, ALL_PROXY, HTTP_PROXY, NO_PROXY   Proxy (HTTP or SOCKS), and hosts that are reached without it\n  \
    SSL_CERT_FILE   PEM file with certificate authorities [default: the system's]")]
pub struct Fetch {
    /// Entry of fixtures/MANIFEST.toml, for example gpt2 or study; none lists them with their sizes
    name: Option<String>,
    /// List what there is, with sizes (`~`: about) and what is fetched already
    #[arg(long, conflicts_with = "name")]
    list: bool,
    /// Take the files from this base address instead of the manifest's
    #[arg(long, value_name = "URL", requires = "name")]
    base: Option<String>,
}

impl Fetch {
    pub fn run(&self, global: &Global) -> Result<()> {
        let manifest =
            Manifest::parse("fixtures/MANIFEST.toml", include_str!("../../../../fixtures/MANIFEST.toml"))?;
        let Some(name) = self.name.as_ref().filter(|_| !self.list) else {
            global.refuse_out("without a name, nothing is fetched")?;
            let mut out = stdout();
            let cache = cache_folder().ok();
            for entry in &manifest.entries {
                let is_there = |cache: &PathBuf| {
                    let folder = cache.join(&entry.name);
                    entry.files.iter().all(|file| folder.join(&file.path).is_file())
                };
                let fetched = if cache.as_ref().is_some_and(is_there) { "fetched" } else { "" };
                writeln!(
                    out,
                    "{:16} {:>8}  {fetched:7}  {} ({})",
                    entry.name,
                    size(entry),
                    entry.origin,
                    entry.licence
                )?;
            }
            return Ok(out.flush()?);
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
        let proxy = proxy_variable(self.base.as_deref().unwrap_or(&entry.base));
        let no_proxy = first_set(&["NO_PROXY", "no_proxy"]);
        let ca_file = std::env::var_os("SSL_CERT_FILE").filter(|path| !path.is_empty()).map(PathBuf::from);
        let options = FetchOptions {
            base: self.base.as_deref(),
            proxy: proxy.as_ref().map(|(_, address)| address.as_str()),
            no_proxy: no_proxy.as_ref().map(|(_, hosts)| hosts.as_str()),
            ca_file: ca_file.as_deref(),
            ..FetchOptions::default()
        };
        let stage = global.progress().stage(name, entry.files.len());
        let mut complete = 0;
        let fetched = fetch(entry, &folder, options, &mut |at| {
            while complete < at.index {
                stage.inc();
                complete += 1;
            }
            let total = at.total.map_or_else(String::new, |total| format!(" of {:.1}", megabytes(total)));
            stage.message(&format!("{} {:.1}{total} MB", at.file, megabytes(at.done)));
        })
        .map_err(|error| match (&error, &proxy) {
            (DataError::Address { what, .. }, Some((name, _))) if what.starts_with("the proxy") => {
                Error::from(error).context(*name)
            }
            _ => error.into(),
        })?;
        while complete < fetched.len() {
            stage.inc();
            complete += 1;
        }
        stage.finish();
        let mut out = stdout();
        for file in &fetched {
            let state = match (file.verified, file.reused) {
                (Verified::Manifest, true) => "already there, verified",
                (Verified::Manifest, false) => "verified",
                (Verified::FirstFetch, true) => "already there, as first fetched",
                (Verified::FirstFetch, false) => "as first fetched",
                (Verified::Not, true) => {
                    "already there, NOT verified: the manifest has no SHA-256 for it yet"
                }
                (Verified::Not, false) => {
                    "NOT verified: the manifest has no SHA-256 for it yet; later fetches are held to this one"
                }
            };
            writeln!(out, "{}  {}  {state}", file.sha256, file.path.display())?;
        }
        Ok(out.flush()?)
    }
}

/// Variable with the proxy for an address, and its value: `HTTPS_PROXY` and `ALL_PROXY`, for `http://` addresses after
/// `HTTP_PROXY`; each in capitals or not. Empty variables count as not set.
fn proxy_variable(base: &str) -> Option<(&'static str, String)> {
    let http = ["HTTP_PROXY", "http_proxy"];
    let all = ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];
    first_set(&http).filter(|_| base.starts_with("http://")).or_else(|| first_set(&all))
}

fn first_set(names: &[&'static str]) -> Option<(&'static str, String)> {
    names.iter().find_map(|&name| {
        let value = std::env::var_os(name)?.to_string_lossy().trim().to_owned();
        Some((name, value)).filter(|(_, value)| !value.is_empty())
    })
}

fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

/// Size of an entry for the list; `~` where it is not known exactly.
fn size(entry: &Entry) -> String {
    let Some(bytes) = entry.bytes() else { return "?".into() };
    let about = if entry.files.iter().all(|file| file.exact_bytes().is_some()) { "" } else { "~" };
    format!("{about}{}", byte_size(bytes))
}
