//! `locus completions` and `locus man`: what the shell and `man` know about the commands, made from the same
//! definitions as the parser.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::{Args, Command};
use clap_complete::Shell;
use clap_mangen::Man;
use locus_gpt2::internal::write_atomically;

use super::destination::check_folder;

#[derive(Debug, Args)]
#[group(skip)]
pub struct Completions {
    /// Shell to complete in
    shell: Shell,
}

#[derive(Debug, Args)]
#[group(skip)]
pub struct ManPages {
    /// Folder for the pages, `locus.1` and one for each command, such as ~/.local/share/man/man1
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

impl Completions {
    /// Prints the completion script.
    pub fn run(&self, mut command: Command) -> Result<()> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut command, "locus", &mut script);
        Ok(super::output::stdout().write_all(&script)?)
    }
}

impl ManPages {
    /// Writes the pages and prints their paths.
    pub fn run(&self, command: Command) -> Result<()> {
        check_folder("DIR", &self.folder, &[], &[])?;
        // The long form of the version describes the machine that writes the pages.
        let mut command = command.disable_help_subcommand(true).long_version(None::<&str>);
        command.build();
        write_pages(&command, &self.folder)
    }
}

/// Writes the page of a command and those of the commands below it.
fn write_pages(command: &Command, folder: &Path) -> Result<()> {
    let man = Man::new(command.clone());
    let mut page = Vec::new();
    man.render(&mut page)?;
    let path = folder.join(man.get_filename());
    write_atomically(&path, &page)?;
    writeln!(super::output::stdout(), "{}", path.display())?;
    command.get_subcommands().try_for_each(|command| write_pages(command, folder))
}
