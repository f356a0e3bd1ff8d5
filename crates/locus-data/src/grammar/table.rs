//! Reading of the word lists: tab-separated lines, lists inside a field separated by semicolons.

/// Fields of every line that is not a comment.
pub(super) fn lines(source: &'static str) -> impl Iterator<Item = Vec<&'static str>> {
    source
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| line.split('\t').collect())
}

/// Items of a semicolon-separated field.
pub(super) fn list(field: &'static str) -> Vec<&'static str> {
    field.split(';').collect()
}

/// Fillers of `slot` in a two-column file.
///
/// # Panics
/// When the file, which is compiled in, has no such slot.
pub(super) fn slot(source: &'static str, name: &str) -> Vec<&'static str> {
    lines(source)
        .find(|line| line[0] == name)
        .map(|line| list(line[1]))
        .unwrap_or_else(|| panic!("no slot {name}"))
}

/// The phrase as a sentence begins with it.
pub(super) fn capitalised(phrase: &str) -> String {
    let mut chars = phrase.chars();
    chars.next().map_or_else(String::new, |first| first.to_ascii_uppercase().to_string() + chars.as_str())
}
