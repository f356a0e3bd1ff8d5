//! `locus organism`: rebuilds the bundled model and its data from their seed.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;
use locus_data::{StudyData, grammar};
use locus_gpt2::internal::write_atomically;
use locus_gpt2::{Checkpoint, write_checkpoint};

use super::destination::{check_folder, lock_folder};
use super::global::Global;
use super::models::{organism_folder, organism_of_checkout};
use crate::organism::{Card, HPARAMS, Recipe, train, train_tokenizer};
use crate::protocol::progress::ProgressDisplay;

#[derive(Debug, Args)]
#[group(skip)]
pub struct Organism {
    /// Rebuild in a temporary folder and compare with the committed files, byte for byte
    #[arg(long)]
    check: bool,
}

/// Files of the organism besides its data.
const FILES: [&str; 6] =
    ["config.json", "tokenizer.json", "model.safetensors", "text.txt", "hparams.toml", "CARD.md"];
/// Documents in `text.txt`: somewhat more than 100,000 tokens for key statistics.
const TEXT_DOCUMENTS: usize = 6000;

impl Organism {
    pub fn run(&self, global: &Global) -> Result<()> {
        let recipe = Recipe::default();
        if self.check {
            global.refuse_out("--check writes nothing")?;
        } else {
            // Before the first build there is no folder to find.
            let found = || organism_of_checkout().unwrap_or_else(|| PathBuf::from("fixtures/organism"));
            let folder = global.out.clone().unwrap_or_else(found);
            check_folder("--out", &folder, &FILES, &["data"])?;
            let _lock = lock_folder(&folder)?;
            return build(&recipe, &folder, global.progress());
        }
        let committed = organism_folder()?;
        let rebuilt = tempfile::tempdir().context("no temporary folder")?;
        build(&recipe, rebuilt.path(), global.progress())?;
        let data = std::fs::read_dir(rebuilt.path().join("data"))?
            .map(|entry| Ok(format!("data/{}", entry?.file_name().to_string_lossy())))
            .collect::<Result<Vec<_>>>()?;
        for file in FILES.map(str::to_owned).into_iter().chain(data) {
            let read = |folder: &Path| std::fs::read(folder.join(&file)).with_context(|| file.clone());
            if read(&committed)? != read(rebuilt.path())? {
                bail!("{file} differs from the committed one");
            }
            writeln!(super::output::stdout(), "{file}: identical")?;
        }
        Ok(())
    }
}

/// Writes the corpus and data sets, trains tokenizer and model, and measures the card. Every file is written whole.
fn build(recipe: &Recipe, folder: &Path, progress: ProgressDisplay) -> Result<()> {
    let corpus = grammar::generate(recipe.seed, recipe.n_documents);
    let text = |documents: &[String]| documents.join("\n") + "\n";
    write_atomically(folder.join("corpus.txt"), text(&corpus.documents).as_bytes())?;
    let first = &corpus.documents[..corpus.documents.len().min(TEXT_DOCUMENTS)];
    write_atomically(folder.join("text.txt"), text(first).as_bytes())?;
    write_atomically(folder.join("hparams.toml"), HPARAMS.as_bytes())?;
    let data = StudyData::new(corpus.tasks, corpus.requests, Some(corpus.neutral));
    data.write(folder.join("data"))?;
    let tokenizer = train_tokenizer(&corpus.documents, recipe.vocab_size, folder)?;
    let stage = progress.stage("training", recipe.steps);
    let model = train(recipe, &corpus.documents, &tokenizer, &mut |at| {
        stage.inc();
        stage.message(&format!("loss {:.3}", at.loss));
    })?;
    stage.finish();
    let provenance = serde_json::json!({ "organism": recipe, "version": env!("CARGO_PKG_VERSION") });
    write_checkpoint(folder, &model, &provenance.to_string())?;
    let checkpoint = Checkpoint { model, tokenizer };
    let card = Card::measure(&checkpoint, &data, recipe.seed)?;
    let text = card.markdown(recipe, &checkpoint.model.sha256());
    write_atomically(folder.join("CARD.md"), text.as_bytes())?;
    Ok(super::output::stdout().write_all(text.as_bytes())?)
}
