//! Being told to stop: SIGTERM, SIGINT and SIGHUP end the program at a safe point, with a line that says how to go on.
//!
//! Finished files have their names and unfinished ones do not, so that any point is safe once the latter are deleted.

/// Lets the signals end the program from now on. `resume` says how to go on with what was stopped.
#[cfg(unix)]
pub fn watch(resume: &'static str) {
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;

    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};

    // Registered inside the thread: without it, the signals keep their own effect.
    let _ = std::thread::Builder::new().name("signals".into()).spawn(move || {
        // A file that outgrows the caller's limit is an error of writing like a full disk, and not the end.
        let _ = signal_hook::flag::register(SIGXFSZ, Arc::new(AtomicBool::new(false)));
        let mut stopping = vec![SIGTERM, SIGINT];
        // `nohup` has SIGHUP ignored so that the run outlives the terminal.
        if !is_ignored(SIGHUP) {
            stopping.push(SIGHUP);
        }
        let Ok(mut signals) = signal_hook::iterator::Signals::new(stopping) else { return };
        if let Some(signal) = signals.forever().next() {
            stop(signal, resume);
        }
    });
}

#[cfg(not(unix))]
pub fn watch(_: &'static str) {}

/// Ends the process within a second, with the exit code that shells give to a death by the signal.
#[cfg(unix)]
fn stop(signal: i32, resume: &str) -> ! {
    use std::io::IsTerminal;
    use std::time::Duration;

    let name = signal_hook::low_level::signal_name(signal).unwrap_or("a signal");
    // Below a progress bar, which does not end its line.
    let start = if std::io::stderr().is_terminal() { "\n" } else { "" };
    let line = format!("{start}locus: stopped by {name}{resume}\n");
    // Neither a disk nor a reader of stderr that hangs may keep the process alive.
    let (send, done) = std::sync::mpsc::channel();
    let _ = std::thread::Builder::new().spawn(move || {
        locus_files::discard_unfinished();
        write_to_stderr(&line);
        let _ = send.send(());
    });
    let _ = done.recv_timeout(Duration::from_millis(700));
    // Without the libraries' own clean-up, which would pull memory away from threads that still work.
    signal_hook::low_level::exit(128 + signal)
}

/// Writes past the lock of Rust's stderr, which a thread that waits for its reader may hold.
#[cfg(unix)]
fn write_to_stderr(line: &str) {
    use std::io::Write;
    use std::os::fd::AsFd;

    if let Ok(stderr) = std::io::stderr().as_fd().try_clone_to_owned() {
        let _ = std::fs::File::from(stderr).write_all(line.as_bytes());
    }
}

/// Whether the process was started with a signal ignored; told by the system only on Linux.
#[cfg(unix)]
fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}
