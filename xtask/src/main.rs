//! Development commands.
//!
//! `cargo xtask setup` installs OpenBLAS where it is missing, `tidy` checks the tree, `examples` runs all examples and
//! `bench` measures. Any other command is handed to the `locus` binary, built in release mode.

mod bench;
mod examples;
mod tidy;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, ExitStatus};

use anyhow::{Context, Result, bail, ensure};

const HELP: &str = "\
usage: cargo xtask COMMAND [OPTIONS]

  setup      install libopenblas-dev with apt-get when it is missing
  bench      criterion benches; with --peers, a comparison with PyTorch
  tidy       check house rules that no compiler knows
  examples   run the examples of all crates
  reproduce  rebuild every table of the study (= locus reproduce)
  organism   rebuild the embedded model and its data (= locus organism)
  fetch      download models and data (= locus fetch)
  discover   find a circuit of edges (= locus discover)
  ...        any other command of locus, with its options";

/// Said before the one build that takes long.
const FIRST_BUILD: &str = "\
xtask: the first build of locus takes about three minutes on two cores; later ones compile only what has changed";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let outcome = match args.first().map(String::as_str) {
        None | Some("help" | "--help" | "-h") => {
            println!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Some("setup") => setup(),
        Some("bench") => bench::run(&root(), &args[1..]),
        Some("tidy") => tidy::check(&root()),
        Some("examples") => examples::run(&root()),
        Some(_) => locus(&args).map(|status| {
            if !status.success() {
                std::process::exit(status.code().unwrap_or(1));
            }
        }),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The workspace's root folder.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the workspace").to_owned()
}

/// Folder of what cargo builds.
fn target(root: &Path) -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from)
}

/// Runs cargo in the workspace and lets its output through.
fn cargo(root: &Path, args: &[&str]) -> Result<()> {
    let status = cargo_command().args(args).current_dir(root).status().context("cargo cannot be started")?;
    ensure!(status.success(), "cargo {} failed", args[0]);
    Ok(())
}

/// Cargo without what it has told xtask about xtask: build scripts that read it (ring's does) would run again, and all that
/// depends on them would be compiled again.
fn cargo_command() -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|n| n.starts_with("CARGO_PKG_") || n.starts_with("CARGO_MANIFEST_")) {
            cargo.env_remove(name);
        }
    }
    cargo
}

/// Builds `locus` in release mode and hands it the arguments.
fn locus(args: &[String]) -> Result<ExitStatus> {
    if !has_openblas() {
        bail!("OpenBLAS is missing; install it with: cargo xtask setup");
    }
    let root = root();
    let locus = target(&root).join("release/locus");
    if !locus.exists() {
        eprintln!("{FIRST_BUILD}");
    }
    cargo(&root, &["build", "--release", "--package", "locus-study", "--bin", "locus"])?;
    let mut command = Command::new(&locus);
    command.args(args);
    hand_over(command).with_context(|| format!("{} cannot be started", locus.display()))
}

/// Replaces xtask by the command, so that signals reach it. Returns only an error.
#[cfg(unix)]
fn hand_over(mut command: Command) -> std::io::Result<ExitStatus> {
    Err(std::os::unix::process::CommandExt::exec(&mut command))
}

#[cfg(not(unix))]
fn hand_over(mut command: Command) -> std::io::Result<ExitStatus> {
    command.status()
}

/// Debian and Ubuntu only: elsewhere the message says what to install.
fn setup() -> Result<()> {
    if has_openblas() {
        println!("OpenBLAS is installed");
        return Ok(());
    }
    let apt = |args: &[&str]| -> Result<bool> {
        // Containers run as root and have no sudo.
        let root = Command::new("id").arg("-u").output().is_ok_and(|id| id.stdout.starts_with(b"0\n"));
        let mut command = if root { Command::new("apt-get") } else { Command::new("sudo") };
        if !root {
            command.arg("apt-get");
        }
        let status = command.args(args).env("DEBIAN_FRONTEND", "noninteractive").status();
        Ok(status
            .context("apt-get cannot be started; install OpenBLAS with your system's package manager")?
            .success())
    };
    let install = ["install", "-y", "--no-install-recommends", "libopenblas-dev"];
    // A fresh container has no package lists; where they exist there is no need to fetch them again.
    let installed = apt(&install)? || (apt(&["update"])? && apt(&install)?);
    if !installed {
        bail!("libopenblas-dev could not be installed");
    }
    Ok(())
}

/// Whether the linker will find OpenBLAS, looking in the places that locus-gpt2's build script looks in.
fn has_openblas() -> bool {
    let library =
        |folder: &Path| folder.join("libopenblas.so").exists() || folder.join("libopenblas.a").exists();
    ["/usr/lib", "/usr/lib64", "/usr/local/lib", "/opt/OpenBLAS/lib"].map(Path::new).iter().any(|folder| {
        let below = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
        library(folder) || below.filter(|path| path.is_dir()).any(|path| library(&path))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cargo_is_told_nothing_about_xtask() {
        let cargo = cargo_command();
        for name in ["CARGO_PKG_NAME", "CARGO_PKG_VERSION_MAJOR", "CARGO_MANIFEST_DIR"] {
            assert!(std::env::var_os(name).is_some(), "cargo sets {name} for a test");
            assert!(cargo.get_envs().any(|change| change == (name.as_ref(), None)), "{name} is passed on");
        }
    }
}
