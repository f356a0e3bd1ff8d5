//! Groups of rows that say nearly the same, found by content: they must not be spread over the two sides of a split.

use std::collections::HashMap;

use crate::Labelled;

/// Words between the two entities of a hierarchy sentence.
const KIND_OF: &str = " is a kind of ";

/// Number of the group of each row, counted from 0 in the order of the groups' first rows.
///
/// Two rows of one group are linked by a chain of these:
///
/// - equal texts, where case and punctuation do not count;
/// - minimal pairs: two rows with different labels whose texts differ in one word, wherever they are in the file;
/// - if every row reads `<subject> is a kind of <target>`: a shared entity, be it the subject or the target, where case
///   and article do not count. If one group then holds more than half of the rows, a split could hold out little, and
///   only a shared subject links two rows; minimal pairs then do not.
///
/// The authors' `hierarchy_label.csv` gives 24 groups of at most 140 of its 396 rows; the organism's is one large group
/// and falls back to its 198 subjects.
///
/// ```
/// use locus_data::{Labelled, groups::groups};
/// let row = |text: &str, label| Labelled { text: text.into(), label };
/// let rows = [row("Ann saw this cat.", 1), row("Bob sold these cars.", 1), row("Ann saw this cats.", 0)];
/// assert_eq!(groups(&rows), [0, 1, 0]);
/// ```
pub fn groups(rows: &[Labelled]) -> Vec<usize> {
    let entities: Option<Vec<[String; 2]>> = rows.iter().map(|row| entities(&row.text)).collect();
    let Some(entities) = entities else {
        let mut sets = equal_texts(rows);
        for (bucket, _) in frames(rows) {
            sets.join_all(bucket);
        }
        return sets.numbers();
    };
    let mut sets = equal_texts(rows);
    sets.join_equal(
        entities.iter().enumerate().flat_map(|(row, both)| both.iter().map(move |key| (row, key))),
    );
    let connected = sets.numbers();
    if 2 * largest(&connected) <= rows.len() {
        return connected;
    }
    let mut sets = equal_texts(rows);
    sets.join_equal(entities.iter().map(|[subject, _]| subject).enumerate());
    sets.numbers()
}

/// Number of the group of each item, where equal items are one group; counted from 0 in the order of first items.
pub fn equal<T: std::hash::Hash + Eq>(items: impl IntoIterator<Item = T>) -> Vec<usize> {
    let mut seen = HashMap::new();
    items
        .into_iter()
        .map(|item| {
            let next = seen.len();
            *seen.entry(item).or_insert(next)
        })
        .collect()
}

/// Minimal pairs: for each row with label 1, in order, that row and one with label 0 whose text differs in one word.
///
/// A row is in one pair at most. Where several rows could be the twin, the one whose word shares most letters with the
/// first's, at the beginning and at the end, is taken. Rows without a twin are left out.
///
/// ```
/// use locus_data::{Labelled, groups::twins};
/// let row = |text: &str, label| Labelled { text: text.into(), label };
/// let rows = [row("Ann saw this cat.", 1), row("Ann saw this box.", 1), row("Ann saw this boxes.", 0)];
/// assert_eq!(twins(&rows), [(1, 2)]);
/// ```
pub fn twins(rows: &[Labelled]) -> Vec<(usize, usize)> {
    let mut candidates: Vec<(usize, usize, usize)> = Vec::new();
    for (bucket, at) in frames(rows) {
        let word = |row: usize| rows[row].text.split(' ').nth(at).unwrap_or_default();
        let with = |label| bucket.iter().copied().filter(move |&row| rows[row].label == label);
        for good in with(1) {
            candidates.extend(with(0).map(|bad| (shared_letters(word(good), word(bad)), good, bad)));
        }
    }
    candidates.sort_unstable_by_key(|&(shared, good, bad)| (std::cmp::Reverse(shared), good, bad));
    let mut taken = vec![false; rows.len()];
    let mut pairs = Vec::new();
    for (_, good, bad) in candidates {
        if !taken[good] && !taken[bad] {
            (taken[good], taken[bad]) = (true, true);
            pairs.push((good, bad));
        }
    }
    pairs.sort_unstable();
    pairs
}

/// Number of letters that two words share at the beginning, and after that at the end.
fn shared_letters(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let begin = a.iter().zip(&b).take_while(|(a, b)| a == b).count();
    begin + a[begin..].iter().rev().zip(b[begin..].iter().rev()).take_while(|(a, b)| a == b).count()
}

/// Rows with more than one label whose texts are equal but for the word at one place; each with that place, in the order
/// of the first rows. Takes time in proportion to the number of words.
fn frames(rows: &[Labelled]) -> Vec<(Vec<usize>, usize)> {
    let mut numbers: HashMap<(&str, &str), usize> = HashMap::new();
    let mut buckets: Vec<(Vec<usize>, usize)> = Vec::new();
    for (row, Labelled { text, .. }) in rows.iter().enumerate() {
        let mut begin = 0;
        for (at, word) in text.split(' ').enumerate() {
            let end = begin + word.len();
            let next = buckets.len();
            let number = *numbers.entry((&text[..begin], &text[end..])).or_insert(next);
            if number == next {
                buckets.push((Vec::new(), at));
            }
            buckets[number].0.push(row);
            begin = end + 1;
        }
    }
    buckets.retain(|(bucket, _)| bucket.iter().any(|&row| rows[row].label != rows[bucket[0]].label));
    buckets
}

/// Subject and target of a hierarchy sentence, as [`entity`] names them; `None` for other sentences.
fn entities(text: &str) -> Option<[String; 2]> {
    let (subject, target) = text.split_once(KIND_OF)?;
    Some([subject, target].map(entity))
}

/// Name of an entity without case, article, full stop and the space around it.
///
/// ```
/// assert_eq!(locus_data::groups::entity("A British Shorthair"), "british shorthair");
/// ```
pub fn entity(text: &str) -> String {
    let text = text.trim().trim_end_matches('.').to_lowercase();
    let bare = ["a ", "an ", "the "].iter().find_map(|article| text.strip_prefix(article));
    bare.unwrap_or(&text).trim().to_owned()
}

/// Number of the group of each item, where a chain of shared keys makes a group; counted from 0 in the order of first
/// items.
pub fn connected<K: AsRef<[String]>>(keys: &[K]) -> Vec<usize> {
    let mut sets = Sets::new(keys.len());
    sets.join_equal(
        keys.iter().enumerate().flat_map(|(item, keys)| keys.as_ref().iter().map(move |key| (item, key))),
    );
    sets.numbers()
}

/// Sets of rows whose texts are equal up to case and punctuation.
fn equal_texts(rows: &[Labelled]) -> Sets {
    let plain = |row: &Labelled| -> String {
        let words = row.text.split(|letter: char| !letter.is_alphanumeric()).filter(|word| !word.is_empty());
        words.map(str::to_lowercase).collect::<Vec<_>>().join(" ")
    };
    let texts: Vec<String> = rows.iter().map(plain).collect();
    let mut sets = Sets::new(rows.len());
    sets.join_equal(texts.iter().enumerate());
    sets
}

/// Size of the largest group.
fn largest(groups: &[usize]) -> usize {
    let mut sizes = vec![0; groups.len()];
    groups.iter().for_each(|&group| sizes[group] += 1);
    sizes.into_iter().max().unwrap_or(0)
}

/// Disjoint sets of rows.
struct Sets(Vec<usize>);

impl Sets {
    fn new(n: usize) -> Self {
        Sets((0..n).collect())
    }

    fn root(&mut self, mut row: usize) -> usize {
        while self.0[row] != row {
            self.0[row] = self.0[self.0[row]];
            row = self.0[row];
        }
        row
    }

    fn join(&mut self, a: usize, b: usize) {
        let (a, b) = (self.root(a), self.root(b));
        self.0[a.max(b)] = a.min(b);
    }

    fn join_all(&mut self, rows: Vec<usize>) {
        rows.windows(2).for_each(|two| self.join(two[0], two[1]));
    }

    /// Joins rows that have a key in common.
    fn join_equal<'a>(&mut self, keys: impl Iterator<Item = (usize, &'a String)>) {
        let mut first: HashMap<&str, usize> = HashMap::new();
        for (row, key) in keys {
            let other = *first.entry(key).or_insert(row);
            self.join(row, other);
        }
    }

    fn numbers(&mut self) -> Vec<usize> {
        let roots: Vec<usize> = (0..self.0.len()).map(|row| self.root(row)).collect();
        equal(roots)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seed::{shuffle, stream};

    fn rows(texts: &[(&str, u8)]) -> Vec<Labelled> {
        texts.iter().map(|&(text, label)| Labelled { text: text.into(), label }).collect()
    }

    const AGREEMENT: [(&str, u8); 7] = [
        ("Ann saw this cat.", 1),
        ("Bob sold these cars.", 1),
        ("Some dog stunned this committee.", 1),
        ("Cleo left.", 1),
        ("Ann saw this cats.", 0),
        ("Bob sold these car.", 0),
        ("Some dog stunned these committee.", 0),
    ];

    #[test]
    fn twins_are_found_in_any_order() {
        let rows = rows(&AGREEMENT);
        assert_eq!(groups(&rows), [0, 1, 2, 3, 0, 1, 2]);
        assert_eq!(twins(&rows), [(0, 4), (1, 5), (2, 6)]);
        for index in 0..20 {
            let mut order: Vec<usize> = (0..rows.len()).collect();
            shuffle(&mut order, &mut stream(1, "twins", index));
            let shuffled: Vec<Labelled> = order.iter().map(|&row| rows[row].clone()).collect();
            let mut found: Vec<_> =
                twins(&shuffled).into_iter().map(|(good, bad)| (order[good], order[bad])).collect();
            found.sort_unstable();
            assert_eq!(found, [(0, 4), (1, 5), (2, 6)]);
        }
    }

    #[test]
    fn rows_of_one_label_are_no_twins() {
        let rows = rows(&[("Ann saw this cat.", 1), ("Ann saw this dog.", 1)]);
        assert_eq!(groups(&rows), [0, 1]);
        assert!(twins(&rows).is_empty());
    }

    #[test]
    fn of_several_twins_the_most_alike_is_taken() {
        let rows = rows(&[
            ("Ann saw that mouse.", 1),
            ("Ann saw that cat.", 1),
            ("Ann saw that cats.", 0),
            ("Ann saw that mice.", 0),
        ]);
        assert_eq!(twins(&rows), [(0, 3), (1, 2)]);
        assert_eq!(groups(&rows), [0; 4]);
    }

    #[test]
    fn equal_statements_belong_together() {
        let rows = rows(&[("I like to be alone", 0), ("I enjoy crowds", 1), ("I like to be alone.", 0)]);
        assert_eq!(groups(&rows), [0, 1, 0]);
    }

    #[test]
    fn shared_entities_connect_hierarchy_sentences() {
        let chain = [
            ("A Siamese is a kind of cat", 1),
            ("A Gala is a kind of apple", 1),
            ("The Cat is a kind of animal", 1),
            ("A cat is a kind of plant", 0),
            ("An apple is a kind of fruit", 1),
            ("Beethoven is a kind of composer", 1),
        ];
        assert_eq!(groups(&rows(&chain)), [0, 1, 0, 0, 1, 2]);
        // One group would hold four of six rows; subjects are what is left.
        let mut large = chain;
        large[1].0 = "A Gala is a kind of cat";
        assert_eq!(groups(&rows(&large)), [0, 1, 2, 2, 3, 4]);
    }

    #[test]
    fn no_rows_have_no_groups() {
        assert!(groups(&[]).is_empty());
        assert_eq!(equal(["b", "a", "b"]), [0, 1, 0]);
    }
}
