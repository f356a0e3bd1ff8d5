//! Values that are chosen by name, in files and on the command line.

use locus_gpt2::{Error, Result};

/// Finds the value of `all` with a name; `kind` is what the error calls such values.
pub(super) fn by_name<T: Copy>(
    kind: &str,
    name: &str,
    all: &[T],
    name_of: fn(T) -> &'static str,
) -> Result<T> {
    let found = all.iter().copied().find(|&value| name_of(value) == name);
    found.ok_or_else(|| {
        let names: Vec<&str> = all.iter().map(|&value| name_of(value)).collect();
        Error::Input(format!("{kind} {name:?} is unknown; expected {}", names.join(", ")))
    })
}
