//! Progress on stderr: a bar per stage on a terminal, a line per stage elsewhere, nothing when quiet.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Shows how far a run has come.
#[derive(Clone, Copy, Debug)]
pub struct ProgressDisplay {
    quiet: bool,
}

impl ProgressDisplay {
    /// A display on stderr, or one that shows nothing.
    pub fn new(quiet: bool) -> Self {
        ProgressDisplay { quiet }
    }

    /// Begins a stage of `n` units.
    pub fn stage(self, name: &str, n: usize) -> Stage {
        let terminal = std::io::stderr().is_terminal();
        let bar = ProgressBar::new(n as u64).with_style(
            ProgressStyle::with_template(
                "{prefix:14} {bar:30} {pos:>5}/{len:5} {elapsed:>4} (left {eta:>4})  {wide_msg}",
            )
            .expect("the template is a constant"),
        );
        bar.set_prefix(name.to_owned());
        if self.quiet || !terminal {
            bar.set_draw_target(ProgressDrawTarget::hidden());
        } else {
            bar.enable_steady_tick(Duration::from_millis(500));
        }
        Stage { bar, name: name.to_owned(), lines: !self.quiet && !terminal }
    }
}

/// A running stage.
#[derive(Debug)]
pub struct Stage {
    bar: ProgressBar,
    name: String,
    lines: bool,
}

impl Stage {
    /// Counts one more unit as done.
    pub fn inc(&self) {
        self.bar.inc(1);
    }

    /// Shows what is being worked on.
    pub fn message(&self, text: &str) {
        self.bar.set_message(text.to_owned());
    }

    /// Ends the stage.
    pub fn finish(self) {
        self.bar.set_message("");
        self.bar.finish();
        if self.lines {
            let seconds = self.bar.elapsed().as_secs_f64();
            eprintln!("{}: {} done in {seconds:.1} s", self.name, self.bar.position());
        }
    }
}
