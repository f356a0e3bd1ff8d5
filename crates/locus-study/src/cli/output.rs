//! Stdout and stderr of the program. Results that cannot be written are an error; messages that cannot be are not.

use std::io::{self, Write};

/// Stdout; its errors say so.
pub fn stdout() -> Stdout {
    Stdout(io::stdout().lock())
}

/// See [`stdout`].
pub struct Stdout(io::StdoutLock<'static>);

impl Write for Stdout {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes).map_err(named)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush().map_err(named)
    }
}

fn named(error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("stdout: {error}"))
}

/// Prints one line about the run on stderr. A line that cannot be written is dropped: whatever it is about goes on.
pub fn note(text: &str) {
    let line = format!("locus: {}\n", one_line(text));
    let _ = io::stderr().write_all(line.as_bytes());
}

/// Text on one line, with what could move a terminal's cursor or turn its writing around as escapes.
pub fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' => line.push(' '),
            c if is_control(c) => line.extend(c.escape_default()),
            c => line.push(c),
        }
    }
    line
}

/// Control characters and the marks that change the direction of writing.
pub fn is_control(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A number of bytes in megabytes, or in gigabytes from one on.
pub fn byte_size(bytes: u64) -> String {
    if bytes < 1_000_000_000 {
        format!("{:.1} MB", bytes as f64 / 1e6)
    } else {
        format!("{:.1} GB", bytes as f64 / 1e9)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_a_unit_that_fits() {
        assert_eq!([1_200_000, 999_949_999, 6_400_000_000].map(byte_size), ["1.2 MB", "999.9 MB", "6.4 GB"]);
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(one_line("a\nb\u{1b}[31m\tc \u{e4}\u{202e}"), r"a b\u{1b}[31m\tc ä\u{202e}");
    }
}
