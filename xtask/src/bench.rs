//! `cargo xtask bench`: criterion benches, or with `--peers` a comparison with PyTorch.
//!
//! Our program and PyTorch's do each piece of work in turns on this machine, each piece in a process of its own, so that
//! the peak resident size of the process is that of the work. Only ratios within one run are compared, because times alone
//! mean nothing on a shared machine.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

const HELP: &str = "\
usage: cargo xtask bench [CRITERION OPTIONS]
       cargo xtask bench --peers [--python PATH] [--rounds N] [WORK ...]

Compares with PyTorch and writes benches/runs/DATE-HOST/peers.{md,json}. PyTorch is looked for in benches/peers/.venv:

  python3 -m venv benches/peers/.venv && benches/peers/.venv/bin/pip install -r benches/peers/requirements.txt

  --python PATH  a Python that has PyTorch
  --rounds N     turns for each short piece of work (default 7); long ones take fewer
  WORK           run only the pieces of work whose names contain one of these";

/// A piece of work by its names on both sides, with its goals.
struct Work {
    ours: &'static str,
    theirs: &'static str,
    /// Largest number of turns, because some take minutes.
    most_rounds: usize,
    /// Whether an uncounted first turn warms caches and allocators.
    warm: bool,
    /// Goal for the ratio of times, ours to theirs: at most this.
    goal: Option<f64>,
    /// Goal for the ratio of peak memory: at most this.
    memory_goal: Option<f64>,
    /// Goal for the share of the measured peak rate: at least this.
    share_goal: Option<f64>,
}

const fn work(ours: &'static str, theirs: &'static str, goal: f64) -> Work {
    Work {
        ours,
        theirs,
        most_rounds: usize::MAX,
        warm: true,
        goal: Some(goal),
        memory_goal: None,
        share_goal: None,
    }
}

const WORKS: &[Work] = &[
    Work { goal: None, ..work("sgemm", "sgemm", 0.0) },
    work("forward 1x16", "forward 1x16", 0.6),
    work("forward 8x16", "forward 8x16", 0.6),
    Work { share_goal: Some(0.75), ..work("forward 8x64", "forward 8x64", 0.85) },
    work("backward 8x16", "backward 8x16", 0.6),
    work("backward 8x64", "backward 8x64", 0.85),
    // The number is the index of the first token in which the two prompts of a pair differ.
    work("eap 0", "forward + backward", 0.45),
    work("eap 7", "forward + backward", 0.45),
    Work { goal: None, ..work("eap-ig 0", "forward + backward", 0.0) },
    // 64 pairs, against the public method's loop over split heads.
    Work { most_rounds: 3, warm: false, ..work("eap 64", "eap 64", 0.15) },
    Work { most_rounds: 1, warm: false, ..work("eap-ig 64", "eap-ig 64", 0.15) },
    Work { most_rounds: 3, ..work("score", "score", 0.6) },
    Work {
        most_rounds: 3,
        memory_goal: Some(0.35),
        share_goal: Some(0.6),
        ..work("mask step", "mask step", 0.45)
    },
    Work { goal: None, most_rounds: 1, warm: false, ..work("trajectory", "trajectory", 0.0) },
    Work { most_rounds: 1, warm: false, memory_goal: Some(0.5), ..work("ft circuit", "ft", 0.08) },
    Work { most_rounds: 1, warm: false, memory_goal: Some(0.5), ..work("ft complement", "ft", 0.08) },
    Work { most_rounds: 3, ..work("rome", "rome", 0.15) },
    Work { goal: None, most_rounds: 1, warm: false, ..work("20 rome", "20 rome", 0.0) },
];

/// The measurements of one piece of work.
struct Measured {
    work: &'static Work,
    /// Seconds (ours, theirs) of each turn.
    seconds: Vec<(f64, f64)>,
    /// Peak resident sizes (ours, theirs) in MiB.
    peaks: (f64, f64),
    /// Billions of floating-point operations of our side; 0 where they are not counted.
    gflop: f64,
}

impl Measured {
    fn ratios(&self) -> Vec<f64> {
        let mut ratios: Vec<f64> = self.seconds.iter().map(|(ours, theirs)| ours / theirs).collect();
        ratios.sort_by(f64::total_cmp);
        ratios
    }

    /// Billions of floating-point operations per second in our median turn.
    fn rate(&self) -> f64 {
        self.gflop / median(self.seconds.iter().map(|(ours, _)| *ours).collect())
    }
}

fn median(mut x: Vec<f64>) -> f64 {
    x.sort_by(f64::total_cmp);
    x[x.len() / 2]
}

/// The process of one side, which reads names of work and writes seconds.
struct Side {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Side {
    fn start(command: &mut Command) -> Result<Self> {
        let name = format!("{}", command.get_program().display());
        let mut child = command
            // PyTorch is told to use two threads by its script.
            .env("RAYON_NUM_THREADS", "2")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("{name} cannot be started"))?;
        let (stdin, stdout) = (child.stdin.take().expect("is piped"), child.stdout.take().expect("is piped"));
        Ok(Side { child, stdin, stdout: BufReader::new(stdout) })
    }

    /// Runs one turn: seconds, and billions of operations (0 where they are not counted).
    fn run(&mut self, work: &str) -> Result<(f64, f64)> {
        writeln!(self.stdin, "{work}").with_context(|| format!("{work}: the process has ended"))?;
        let mut line = String::new();
        self.stdout.read_line(&mut line)?;
        let mut numbers = line.split_whitespace().map(str::parse::<f64>);
        let seconds = numbers.next().with_context(|| format!("{work}: the process has ended"))??;
        Ok((seconds, numbers.next().transpose()?.unwrap_or(0.0)))
    }

    /// Peak resident size so far in MiB (Linux only).
    fn peak(&self) -> Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
        let kib: f64 = line.trim().trim_end_matches(" kB").parse()?;
        Ok(kib / 1024.0)
    }
}

impl Drop for Side {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn run(root: &Path, args: &[String]) -> Result<()> {
    if !args.iter().any(|arg| arg == "--peers") {
        if args.iter().any(|arg| arg == "--help" || arg == "-h") {
            println!("{HELP}");
            return Ok(());
        }
        return crate::cargo(
            root,
            &[&["bench", "--package", "locus-benches", "--"], &strs(args)[..]].concat(),
        );
    }
    let (mut python, mut rounds, mut chosen) = (root.join("benches/peers/.venv/bin/python"), 7, Vec::new());
    let mut rest = args.iter();
    while let Some(arg) = rest.next() {
        let mut value = || rest.next().with_context(|| format!("{arg} needs a value\n{HELP}"));
        match arg.as_str() {
            "--peers" => {}
            "--python" => python = PathBuf::from(value()?),
            "--rounds" => {
                rounds = value()?.parse().ok().filter(|&n| n > 0).context("--rounds needs a number")?
            }
            option if option.starts_with('-') => bail!("{option} is not an option\n{HELP}"),
            name => chosen.push(name),
        }
    }
    let is_chosen = |work: &Work| {
        chosen.is_empty() || chosen.iter().any(|name| work.ours.contains(name)) || work.ours == "sgemm"
    };
    ensure!(
        chosen.iter().all(|name| WORKS.iter().any(|work| work.ours.contains(name))),
        "no work has one of {chosen:?} in its name; the names are {:?}",
        WORKS.iter().map(|work| work.ours).collect::<Vec<_>>()
    );
    ensure!(python.exists(), "{} is not there\n{HELP}", python.display());
    crate::cargo(root, &["build", "--release", "--package", "locus-benches", "--bin", "peer"])?;
    let mut measured = Vec::new();
    for work in WORKS.iter().filter(|work| is_chosen(work)) {
        eprintln!("{} ...", work.ours);
        let mut ours = Side::start(&mut Command::new(crate::target(root).join("release/peer")))?;
        let mut theirs = Side::start(Command::new(&python).arg(root.join("benches/peers/theirs.py")))?;
        if work.warm {
            ours.run(work.ours)?;
            theirs.run(work.theirs)?;
        }
        let mut of_work = Measured { work, seconds: Vec::new(), peaks: (0.0, 0.0), gflop: 0.0 };
        for _ in 0..rounds.min(work.most_rounds) {
            let ((mine, gflop), (other, _)) = (ours.run(work.ours)?, theirs.run(work.theirs)?);
            of_work.seconds.push((mine, other));
            of_work.gflop = gflop;
        }
        of_work.peaks = (ours.peak()?, theirs.peak()?);
        measured.push(of_work);
    }
    let table = table(&measured);
    print!("{table}");
    write(root, &table, &measured)
}

fn strs(args: &[String]) -> Vec<&str> {
    args.iter().map(String::as_str).collect()
}

/// A number and whether it meets its goal.
fn against(value: f64, goal: Option<f64>, at_most: bool) -> String {
    match goal {
        None => format!("{value:.2}"),
        Some(goal) => {
            let met = if at_most { value <= goal } else { value >= goal };
            format!("{value:.2} ({} {goal:.2})", if met { "meets" } else { "misses" })
        }
    }
}

/// The measurements as a Markdown table.
fn table(measured: &[Measured]) -> String {
    let mut table = String::from(
        "| work | ours / theirs | min | max | ours s | theirs s | GFLOP/s | share of peak | ours MiB | theirs MiB | memory |\n\
         | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    let peak = measured.iter().find(|of_work| of_work.work.ours == "sgemm").map_or(f64::NAN, Measured::rate);
    for of_work in measured {
        let Measured { work, seconds, peaks, gflop } = of_work;
        let ratios = of_work.ratios();
        let side = |pick: fn(&(f64, f64)) -> f64| median(seconds.iter().map(pick).collect());
        let counted = |text: String| if *gflop > 0.0 { text } else { "-".to_owned() };
        table += &format!(
            "| {} | {} | {:.2} | {:.2} | {:.3} | {:.3} | {} | {} | {:.0} | {:.0} | {} |\n",
            work.ours,
            against(median(ratios.clone()), work.goal, true),
            ratios[0],
            ratios[ratios.len() - 1],
            side(|turn| turn.0),
            side(|turn| turn.1),
            counted(format!("{:.0}", of_work.rate())),
            counted(against(of_work.rate() / peak, work.share_goal, false)),
            peaks.0,
            peaks.1,
            against(peaks.0 / peaks.1, work.memory_goal, true),
        );
    }
    table
}

/// Writes the table and the numbers behind it to a folder of this day and machine.
fn write(root: &Path, table: &str, measured: &[Measured]) -> Result<()> {
    let said = |program: &str, args: &[&str]| -> Result<String> {
        let output = Command::new(program).args(args).current_dir(root).output();
        let output = output.with_context(|| format!("{program} cannot be started"))?;
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let name = format!("{}-{}", said("date", &["-u", "+%Y-%m-%d"])?, said("uname", &["-n"])?);
    let folder = root.join("benches/runs").join(name);
    std::fs::create_dir_all(&folder)?;
    let processor = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let processor = processor.lines().find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1));
    let head = format!(
        "Two threads each, GPT-2 small shapes, random weights; {}, commit {}. Goals are ratios: at most for times and \
         memory, at least for the share of the peak, which is that of our own 2048-cubed product in this run.\n\n",
        processor.unwrap_or("unknown processor"),
        said("git", &["rev-parse", "--short", "HEAD"])?,
    );
    std::fs::write(folder.join("peers.md"), head + table)?;
    let works: Vec<String> = measured
        .iter()
        .map(|of_work| {
            let turns: Vec<String> = of_work.seconds.iter().map(|(a, b)| format!("[{a}, {b}]")).collect();
            format!(
                "  {{\"work\": \"{}\", \"theirs\": \"{}\", \"seconds\": [{}], \"peak_mib\": [{}, {}], \"gflop\": {}}}",
                of_work.work.ours,
                of_work.work.theirs,
                turns.join(", "),
                of_work.peaks.0,
                of_work.peaks.1,
                of_work.gflop
            )
        })
        .collect();
    std::fs::write(folder.join("peers.json"), format!("[\n{}\n]\n", works.join(",\n")))?;
    println!("written to {}", folder.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_holds_numbers_against_goals() {
        let of = |name: &str, seconds: Vec<(f64, f64)>, gflop: f64| {
            let work = WORKS.iter().find(|work| work.ours == name).unwrap();
            Measured { work, seconds, peaks: (1.0, 4.0), gflop }
        };
        let measured = [
            of("sgemm", vec![(1.0, 1.0)], 100.0),
            of("forward 8x64", vec![(1.0, 2.0), (1.0, 1.0), (1.0, 4.0)], 70.0),
            of("mask step", vec![(2.0, 4.0)], 0.0),
        ];
        let table = table(&measured);
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(
            lines[3],
            "| forward 8x64 | 0.50 (meets 0.85) | 0.25 | 1.00 | 1.000 | 2.000 | 70 | 0.70 (misses 0.75) | 1 | 4 | 0.25 |"
        );
        assert_eq!(
            lines[4],
            "| mask step | 0.50 (misses 0.45) | 0.50 | 0.50 | 2.000 | 4.000 | - | - | 1 | 4 | 0.25 (meets 0.35) |"
        );
    }

    #[test]
    fn unknown_works_and_options_are_named() {
        let why = |args: &[&str]| {
            let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
            run(Path::new("."), &args).unwrap_err().to_string()
        };
        assert!(why(&["--peers", "nonsense"]).contains("no work has one of [\"nonsense\"]"));
        assert!(why(&["--peers", "--fast"]).contains("--fast is not an option"));
        assert!(why(&["--peers", "--rounds", "0"]).contains("--rounds needs a number"));
        assert!(why(&["--peers", "--python"]).contains("--python needs a value"));
    }
}
