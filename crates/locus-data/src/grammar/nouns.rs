//! Nouns with their plurals.

use super::table::lines;

/// A countable noun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Noun {
    /// Singular form.
    pub(super) singular: &'static str,
    /// Plural form.
    pub(super) plural: &'static str,
}

impl Noun {
    /// The form of the given number.
    pub(super) fn form(self, plural: bool) -> &'static str {
        if plural { self.plural } else { self.singular }
    }
}

/// The nouns whose plural is regular, or those whose plural is not.
pub(super) fn nouns(irregular: bool) -> Vec<Noun> {
    let class = if irregular { "irregular" } else { "regular" };
    let of_class = lines(include_str!("nouns.tsv")).filter(|line| line[0] == class);
    of_class.map(|line| Noun { singular: line[1], plural: line[2] }).collect()
}
