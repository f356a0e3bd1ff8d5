//! `locus edit --sequential`: its options, and the curve of success and damage that it prints.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Args;
use clap::builder::RangedU64ValueParser;
use locus_editors::Editor;
use locus_gpt2::{Checkpoint, Gpt2, ParamMask, PromptTargets, Scalar};

use super::error::Unusable;
use super::output::{note, stdout};
use crate::protocol::{Group, GrowthPoint, Sequence, drift_text, write_sequence};

#[derive(Debug, Args)]
pub struct SequenceArgs {
    /// Write the requests into one model in turn, each on top of the earlier ones, and show how success and damage grow
    #[arg(long, conflicts_with = "together")]
    pub sequential: bool,
    /// With --sequential, requests that are written at a time
    #[arg(long, value_name = "N", default_value_t = 1, requires = "sequential",
          value_parser = RangedU64ValueParser::<usize>::new().range(1..))]
    pub batch: usize,
    /// With --sequential, text on which drift is measured [default: that of --text]
    #[arg(long, value_name = "FILE", requires = "sequential")]
    neutral: Option<PathBuf>,
}

impl SequenceArgs {
    /// Files that only a sequence reads.
    pub fn inputs(&self) -> impl Iterator<Item = &Path> {
        self.neutral.as_deref().into_iter()
    }

    /// Text on which drift is measured: the first lines of `--neutral`, or else of `text`; `None` without either, or
    /// without `--sequential`.
    pub fn neutral<F: Scalar>(
        &self,
        checkpoint: &Checkpoint<F>,
        text: Option<&Path>,
    ) -> Result<Option<PromptTargets<F>>> {
        let Some(path) = self.neutral.as_deref().or(text).filter(|_| self.sequential) else {
            return Ok(None);
        };
        let unusable = |why: String| Unusable(format!("{}: {why}", path.display()));
        let text = locus_files::read_to_string(path).map_err(|why| unusable(why.to_string()))?;
        Ok(Some(drift_text(checkpoint, &text).map_err(|why| unusable(why.to_string()))?))
    }

    /// Writes the groups in turn; `done` is called after each.
    pub fn write<F: Scalar>(
        &self,
        start: &Gpt2<F>,
        editor: &dyn Editor<F>,
        groups: &[Group],
        mask: Option<&ParamMask>,
        neutral: Option<&PromptTargets<F>>,
        done: &dyn Fn(),
    ) -> Result<Sequence<F>> {
        write_sequence(start, editor, groups, mask, neutral, &mut |requests, refused| {
            if let Some(why) = refused {
                note(&format!("request {}: {why}", requests[0].case_id));
            }
            done();
        })
    }
}

/// Prints how success and damage grew; nothing when there was no sequence.
pub fn print_growth(growth: &[GrowthPoint], json: bool) -> Result<()> {
    if growth.is_empty() {
        return Ok(());
    }
    let mut out = stdout();
    if json {
        return Ok(writeln!(out, "{}", serde_json::json!({ "growth": growth }))?);
    }
    writeln!(out, "After each number of edits, over all of them so far; drift: NLL of neutral text (nats)")?;
    writeln!(out, "{:>8} {:>10} {:>10} {:>10} {:>10}", "edits", "new > true", "raised", "NLL new", "drift")?;
    for point in growth {
        let GrowthPoint { edits, over_true, raised, nll_new, drift } = *point;
        let percent = |share: f64| format!("{:.1} %", 100.0 * share);
        let drift = drift.map_or_else(|| "-".into(), |drift| format!("{drift:+.4}"));
        let over_true = over_true.map_or_else(|| "-".into(), percent);
        writeln!(out, "{edits:>8} {over_true:>10} {:>10} {nll_new:>10.4} {drift:>10}", percent(raised))?;
    }
    Ok(())
}
