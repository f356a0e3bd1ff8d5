//! Progress on stderr: a bar per stage on a terminal, lines elsewhere, nothing when quiet.
//!
//! A line that cannot be written is dropped: the work it is about goes on.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressState, ProgressStyle};

use crate::estimate::Estimate;

/// Time between the lines of a stage where there is no terminal.
const BETWEEN_LINES: Duration = Duration::from_secs(30);

/// Shows how far a run has come.
#[derive(Clone, Debug)]
pub struct ProgressDisplay {
    quiet: bool,
    steps: Option<Arc<Steps>>,
    whole: Option<Arc<Whole>>,
}

/// The run that stages belong to.
#[derive(Debug)]
struct Whole {
    estimate: Estimate,
    begun: Instant,
    /// Units that were finished since.
    done: Mutex<BTreeSet<String>>,
}

impl Whole {
    fn left(&self) -> Duration {
        let done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        let seconds = self.estimate.left(|unit| done.contains(unit), self.begun.elapsed().as_secs_f64());
        Duration::try_from_secs_f64(seconds).unwrap_or_default()
    }
}

/// Stages of a run whose number is known.
#[derive(Debug)]
struct Steps {
    begun: AtomicUsize,
    all: usize,
}

impl ProgressDisplay {
    /// A display on stderr, or one that shows nothing.
    pub fn new(quiet: bool) -> Self {
        ProgressDisplay { quiet, steps: None, whole: None }
    }

    /// Numbers the stages from here on, of which there will be `n`, or fewer where one has nothing to do.
    pub fn of_steps(self, n: usize) -> Self {
        ProgressDisplay { steps: Some(Arc::new(Steps { begun: AtomicUsize::new(0), all: n })), ..self }
    }

    /// Shows from here on how much of a run is left, by an estimate that finished units correct.
    pub fn estimating(self, estimate: Estimate) -> Self {
        let whole = Whole { estimate, begun: Instant::now(), done: Mutex::default() };
        ProgressDisplay { whole: Some(Arc::new(whole)), ..self }
    }

    /// Counts a unit of the run's plan as done in what is left of the run.
    pub fn finished(&self, unit: &str) {
        if let Some(whole) = &self.whole {
            whole.done.lock().unwrap_or_else(PoisonError::into_inner).insert(unit.to_owned());
        }
    }

    /// Begins a stage of `n` units.
    pub fn stage(&self, name: &str, n: usize) -> Stage {
        let name = match &self.steps {
            Some(steps) => {
                format!("{}/{} {name}", steps.begun.fetch_add(1, Ordering::Relaxed) + 1, steps.all)
            }
            None => name.to_owned(),
        };
        let state = Arc::new(State {
            name,
            n,
            begun: Instant::now(),
            done: AtomicUsize::new(0),
            doing: Mutex::new(String::new()),
            whole: self.whole.clone(),
        });
        let shown = match (self.quiet, std::io::stderr().is_terminal()) {
            (true, _) => Shown::Nothing,
            (false, true) => Shown::Bar(bar(&state)),
            (false, false) => Shown::Lines { _end: lines(state.clone(), BETWEEN_LINES, print) },
        };
        Stage { state, shown }
    }
}

/// A running stage.
#[derive(Debug)]
pub struct Stage {
    state: Arc<State>,
    shown: Shown,
}

#[derive(Debug)]
enum Shown {
    Nothing,
    Bar(ProgressBar),
    /// Dropping the sender ends the thread that prints.
    Lines {
        _end: Sender<()>,
    },
}

/// How far a stage has come.
#[derive(Debug)]
struct State {
    name: String,
    n: usize,
    begun: Instant,
    done: AtomicUsize,
    /// What is being worked on.
    doing: Mutex<String>,
    whole: Option<Arc<Whole>>,
}

impl Stage {
    /// Counts one more unit as done.
    pub fn inc(&self) {
        self.state.done.fetch_add(1, Ordering::Relaxed);
        if let Shown::Bar(bar) = &self.shown {
            bar.inc(1);
        }
    }

    /// Shows what is being worked on.
    pub fn message(&self, text: &str) {
        match &self.shown {
            Shown::Nothing => {}
            Shown::Bar(bar) => bar.set_message(match &self.state.whole {
                Some(whole) => format!("{text} (run: {} left)", time(whole.left())),
                None => text.to_owned(),
            }),
            Shown::Lines { .. } => text.clone_into(&mut self.state.doing()),
        }
    }

    /// Ends the stage.
    pub fn finish(self) {
        match &self.shown {
            Shown::Nothing => {}
            Shown::Bar(bar) => {
                bar.set_message("");
                bar.finish();
            }
            Shown::Lines { .. } => {
                let (seconds, done) = (self.state.begun.elapsed().as_secs_f64(), self.state.done());
                print(&format!("{}: {done} done in {seconds:.1} s", self.state.name));
            }
        }
    }
}

impl State {
    fn done(&self) -> usize {
        self.done.load(Ordering::Relaxed)
    }

    fn doing(&self) -> std::sync::MutexGuard<'_, String> {
        self.doing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The stage on one line, `elapsed` after it began.
    fn line(&self, elapsed: Duration) -> String {
        let (done, n) = (self.done(), self.n);
        let mut line = format!("{}: {done} of {n}", self.name);
        let _ = match left(done, n, elapsed) {
            Some(left) => {
                write!(line, " ({} %), {}, about {} left", 100 * done / n, time(elapsed), time(left))
            }
            None => write!(line, ", {}", time(elapsed)),
        };
        let doing = self.doing();
        if !doing.is_empty() {
            let _ = write!(line, "; {doing}");
        }
        drop(doing);
        if let Some(whole) = &self.whole {
            let _ = write!(line, "; about {} of the run left", time(whole.left()));
        }
        line
    }
}

/// A bar on the terminal.
fn bar(state: &Arc<State>) -> ProgressBar {
    let style = ProgressStyle::with_template(
        "{prefix:16} {bar:30} {pos:>5}/{len:5} {elapsed:>4} {estimate:14} {wide_msg}",
    );
    let estimate = |bar: &ProgressState, out: &mut dyn std::fmt::Write| {
        let (done, n) = (bar.pos() as usize, bar.len().unwrap_or(0) as usize);
        if let Some(left) = left(done, n, bar.elapsed()) {
            let _ = write!(out, "(left {})", time(left));
        }
    };
    let bar = ProgressBar::new(state.n as u64);
    if let Ok(style) = style {
        bar.set_style(style.with_key("estimate", estimate));
    }
    bar.set_prefix(state.name.clone());
    bar.enable_steady_tick(Duration::from_millis(500));
    bar
}

/// Prints the stage's line at every interval until the sender that is returned is dropped.
fn lines(state: Arc<State>, interval: Duration, print: fn(&str)) -> Sender<()> {
    let (end, ended) = channel();
    // Without a thread to spare there are no lines.
    let _ = std::thread::Builder::new().name("progress".into()).spawn(move || {
        while let Err(RecvTimeoutError::Timeout) = ended.recv_timeout(interval) {
            print(&state.line(state.begun.elapsed()));
        }
    });
    end
}

fn print(line: &str) {
    let _ = std::io::stderr().write_all(format!("{line}\n").as_bytes());
}

/// Time left at the rate so far; none before the first unit is done, or after the last.
fn left(done: usize, n: usize, elapsed: Duration) -> Option<Duration> {
    (done > 0 && done < n).then(|| elapsed.mul_f64((n - done) as f64 / done as f64))
}

/// A length of time in its two largest units.
pub fn time(length: Duration) -> String {
    let seconds = length.as_secs();
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds} s"),
        (0, minutes, seconds) => format!("{minutes} min {seconds} s"),
        (hours, minutes, _) => format!("{hours} h {minutes} min"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(n: usize, done: usize, doing: &str) -> Arc<State> {
        Arc::new(State {
            name: "2/7 circuits".into(),
            n,
            begun: Instant::now(),
            done: AtomicUsize::new(done),
            doing: Mutex::new(doing.into()),
            whole: None,
        })
    }

    #[test]
    fn a_line_tells_task_share_and_time_left() {
        let elapsed = Duration::from_secs(90);
        assert_eq!(
            state(4, 0, "hierarchy 62.1 %").line(elapsed),
            "2/7 circuits: 0 of 4, 1 min 30 s; hierarchy 62.1 %"
        );
        assert_eq!(
            state(4, 1, "").line(elapsed),
            "2/7 circuits: 1 of 4 (25 %), 1 min 30 s, about 4 min 30 s left"
        );
        assert_eq!(state(4, 4, "").line(elapsed), "2/7 circuits: 4 of 4, 1 min 30 s");
        assert_eq!(state(0, 0, "").line(Duration::ZERO), "2/7 circuits: 0 of 0, 0 s");
        assert_eq!(time(Duration::from_secs(7325)), "2 h 2 min");
    }

    /// Two units of equal cost, of which one was finished at once: hardly anything is left.
    #[test]
    fn a_line_tells_what_is_left_of_the_run() {
        let units = ["a", "b"].map(|name| (name.to_owned(), 3600.0));
        let display = ProgressDisplay::new(true).estimating(Estimate::new(units));
        let stage = display.stage("edits", 2);
        let line = || stage.state.line(Duration::from_secs(1));
        assert_eq!(line(), "edits: 0 of 2, 1 s; about 2 h 0 min of the run left");
        display.finished("a");
        assert!(!line().contains(" h "), "{}", line());
    }

    #[test]
    fn stages_are_numbered() {
        let display = ProgressDisplay::new(true).of_steps(2);
        let names = ["masks", "edits"].map(|name| display.stage(name, 1).state.name.clone());
        assert_eq!(names, ["1/2 masks", "2/2 edits"]);
    }

    #[test]
    fn lines_come_while_a_stage_runs_and_end_with_it() {
        static PRINTED: AtomicUsize = AtomicUsize::new(0);
        let end = lines(state(4, 0, ""), Duration::from_millis(2), |_| {
            PRINTED.fetch_add(1, Ordering::SeqCst);
        });
        let begun = Instant::now();
        while PRINTED.load(Ordering::SeqCst) < 3 {
            assert!(begun.elapsed() < Duration::from_secs(20), "no lines");
            std::thread::sleep(Duration::from_millis(1));
        }
        drop(end);
        std::thread::sleep(Duration::from_millis(30));
        let printed = PRINTED.load(Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(30));
        assert_eq!(PRINTED.load(Ordering::SeqCst), printed);
    }
}
