//! `locus reproduce --jobs N`: the units of a run by N processes of this program on one machine.
//!
//! Each process is a `locus run-unit`, so that its result is the file that any other way of doing the unit leaves; the
//! report is written from these files when all units are done. A process that ends otherwise ends the run, and with it
//! the others; what was finished is kept.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::error::Unusable;
use super::estimate::Estimated;
use super::global::Global;
use super::output::byte_size;
use crate::protocol::progress::time;

/// Time between two looks at the running processes.
const BETWEEN_LOOKS: Duration = Duration::from_millis(20);

/// Processes that are at work; those that still are when it is dropped are ended.
struct Running(Vec<(usize, Child)>);

impl Drop for Running {
    fn drop(&mut self) {
        for (_, child) in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Does the units that are left in as many processes as were asked for, or as fit.
pub fn run_units(
    estimated: &Estimated,
    left: Vec<usize>,
    (n_jobs, threads): (usize, usize),
    options: &[String],
    out: &Path,
    global: &Global,
) -> Result<()> {
    let program = std::env::current_exe().context("the program's own file")?;
    let name = |unit: usize| estimated.units[unit].name.as_str();
    let estimate = estimated.in_processes(&left);
    let mut waiting = left;
    let mut done: BTreeSet<&str> =
        (0..estimated.units.len()).filter(|unit| !waiting.contains(unit)).map(name).collect();
    let stage = global.progress().stage("units", waiting.len());
    let begun = Instant::now();
    let mut running = Running(Vec::new());
    while !waiting.is_empty() || !running.0.is_empty() {
        while running.0.len() < n_jobs {
            let is_ready = |&unit: &usize| {
                estimated.units[unit].needs.iter().all(|needed| done.contains(needed.as_str()))
            };
            let Some(at) = waiting.iter().position(is_ready) else { break };
            let unit = waiting.remove(at);
            let mut command = Command::new(&program);
            command.args(["run-unit", name(unit)]).args(options).arg("--quiet");
            command.arg("--threads").arg(threads.to_string()).arg("--out").arg(out);
            let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn();
            running.0.push((unit, child.with_context(|| program.display().to_string())?));
        }
        if running.0.is_empty() {
            bail!("{} needs units that are not in the plan", name(waiting[0]));
        }
        std::thread::sleep(BETWEEN_LOOKS);
        let mut at = 0;
        while at < running.0.len() {
            let Some(status) = running.0[at].1.try_wait()? else {
                at += 1;
                continue;
            };
            let (unit, _) = running.0.remove(at);
            if !status.success() {
                let why = format!("unit {} ended with {status}", name(unit));
                // The process has said on stderr what is wrong with its input.
                return Err(if status.code() == Some(2) {
                    Unusable(why).into()
                } else {
                    anyhow::anyhow!(why)
                });
            }
            done.insert(name(unit));
            stage.inc();
            let seconds = n_jobs as f64 * begun.elapsed().as_secs_f64();
            let seconds = estimate.left(|unit| done.contains(unit), seconds) / n_jobs as f64;
            stage.message(&format!("about {} of the run left", time(Duration::from_secs_f64(seconds))));
        }
    }
    stage.finish();
    Ok(())
}

/// Number of processes that a machine has room for, at most as many as were asked for, and the threads of each. A line
/// says why there are fewer.
pub fn fitting(
    asked: usize,
    threads: usize,
    needed: u64,
    available: Option<u64>,
) -> Result<(usize, usize, Option<String>)> {
    let room = match available {
        Some(available) if needed > available => {
            let (needed, available) = (byte_size(needed), byte_size(available));
            let why =
                format!("--jobs {asked}: a process needs about {needed}, and {available} are available");
            return Err(Unusable(why).into());
        }
        Some(available) => usize::try_from(available / needed.max(1)).unwrap_or(usize::MAX),
        None => usize::MAX,
    };
    let n = asked.min(room).min(threads).max(1);
    let why = if n == asked {
        None
    } else if n == room {
        let available = byte_size(available.unwrap_or_default());
        Some(format!("--jobs {asked}: {n}, because each needs about {} of {available}", byte_size(needed)))
    } else {
        Some(format!("--jobs {asked}: {n}, because there are {threads} threads"))
    };
    Ok((n, threads / n, why))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_processes_as_fit() {
        const GB: u64 = 1_000_000_000;
        assert_eq!(fitting(4, 8, 2 * GB, Some(9 * GB)).unwrap(), (4, 2, None));
        assert_eq!(fitting(4, 8, 2 * GB, None).unwrap(), (4, 2, None));
        let (n, threads, why) = fitting(4, 8, 2 * GB, Some(5 * GB)).unwrap();
        assert_eq!((n, threads), (2, 4));
        assert_eq!(why.unwrap(), "--jobs 4: 2, because each needs about 2.0 GB of 5.0 GB");
        let (n, threads, why) = fitting(4, 2, 0, Some(GB)).unwrap();
        assert_eq!((n, threads), (2, 1));
        assert_eq!(why.unwrap(), "--jobs 4: 2, because there are 2 threads");
        let refused = fitting(2, 2, 6 * GB, Some(5 * GB)).unwrap_err().to_string();
        assert_eq!(refused, "--jobs 2: a process needs about 6.0 GB, and 5.0 GB are available");
    }
}
