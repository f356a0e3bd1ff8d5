//! Word lists, compiled in from the `.tsv` files: tab-separated lines, with semicolons between the items of a field.

/// Fields of each line that is not a comment.
pub(super) fn lines(source: &'static str) -> impl Iterator<Item = Vec<&'static str>> {
    source
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| line.split('\t').collect())
}

/// Items of a field.
pub(super) fn list(field: &'static str) -> Vec<&'static str> {
    field.split(';').collect()
}

/// Items in the second column of a two-column list, from the line that has `name` in the first.
///
/// # Panics
/// If no line has it.
pub(super) fn slot(source: &'static str, name: &str) -> Vec<&'static str> {
    lines(source)
        .find(|line| line[0] == name)
        .map(|line| list(line[1]))
        .unwrap_or_else(|| panic!("the word list has no line {name}"))
}

/// Phrase with a capital first letter, as it begins a sentence.
pub(super) fn capitalised(phrase: &str) -> String {
    let mut chars = phrase.chars();
    chars.next().map_or_else(String::new, |first| first.to_ascii_uppercase().to_string() + chars.as_str())
}

/// A countable noun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Noun {
    singular: &'static str,
    plural: &'static str,
}

impl Noun {
    /// Singular or plural form.
    pub(super) fn form(self, plural: bool) -> &'static str {
        if plural { self.plural } else { self.singular }
    }
}

/// Nouns with an irregular plural, or those with a regular one.
pub(super) fn nouns(irregular: bool) -> Vec<Noun> {
    let class = if irregular { "irregular" } else { "regular" };
    let of_class = lines(include_str!("nouns.tsv")).filter(|line| line[0] == class);
    of_class.map(|line| Noun { singular: line[1], plural: line[2] }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_lists_and_slots() {
        const LIST: &str = "# comment\nfruit\tan apple;a pear\n\ndrink\ttea\n";
        assert_eq!(lines(LIST).count(), 2);
        assert_eq!(slot(LIST, "fruit"), ["an apple", "a pear"]);
        assert_eq!(capitalised("an apple"), "An apple");
    }

    #[test]
    #[should_panic(expected = "the word list has no line verb")]
    fn a_slot_has_a_line() {
        slot("noun\tcat\n", "verb");
    }
}
